//! What servers say to a bind, beyond yes and no.

use drover_api::kinds::Schema;
use ldap3::LdapResult;
use ldap3::controls::RawControl;

use crate::providers::{LoginRefused, Unavailable};

/// Asks for the reason, and brings it (draft-behera-ldap-password-policy, 6).
const PASSWORD_POLICY: &str = "1.3.6.1.4.1.42.2.27.8.5.1";
/// LDAP results (RFC 4511, A.1).
const SUCCESS: u32 = 0;
const INVALID_CREDENTIALS: u32 = 49;

pub(super) fn ask_for_reasons() -> RawControl {
    RawControl { ctype: PASSWORD_POLICY.to_owned(), crit: false, val: None }
}

/// Why a user's bind does not let in; none where it does.
pub(super) fn refused(schema: Schema, result: &LdapResult) -> Option<LoginRefused> {
    let reason = match schema {
        Schema::ActiveDirectory => windows_reason(&result.text),
        Schema::InetOrgPerson => policy_reason(result),
    };
    match (result.rc, reason) {
        // Let in, to do nothing but change the password.
        (SUCCESS, Some(LoginRefused::MustChange)) => Some(LoginRefused::MustChange),
        (SUCCESS, _) => None,
        (_, Some(reason)) => Some(reason),
        (INVALID_CREDENTIALS, None) => Some(LoginRefused::Wrong),
        (rc, None) => {
            Some(LoginRefused::Unavailable(Unavailable(format!("{} (LDAP result {rc})", result.text))))
        }
    }
}

/// As in `80090308: LdapErr: DSID-0C09044E, comment: AcceptSecurityContext error, data 533, v3839`.
fn windows_reason(text: &str) -> Option<LoginRefused> {
    let (_, code) = text.split_once(", data ")?;
    match code.split(',').next()?.trim() {
        "532" => Some(LoginRefused::PasswordExpired),
        "533" => Some(LoginRefused::Disabled),
        "701" => Some(LoginRefused::AccountExpired),
        "773" => Some(LoginRefused::MustChange),
        "775" => Some(LoginRefused::Locked),
        _ => None,
    }
}

/// `PasswordPolicyResponseValue ::= SEQUENCE { warning [0] CHOICE OPTIONAL, error [1] ENUMERATED OPTIONAL }`
fn policy_reason(result: &LdapResult) -> Option<LoginRefused> {
    let control = result.ctrls.iter().find(|control| control.1.ctype == PASSWORD_POLICY)?;
    let mut fields = control.1.val.as_deref()?.strip_prefix(&[0x30])?.get(1..)?;
    loop {
        let (&[tag, length], rest) = fields.split_first_chunk::<2>()?;
        let (value, rest) = rest.split_at_checked(length.into())?;
        if let (0x81, &[error]) = (tag, value) {
            return match error {
                0 => Some(LoginRefused::PasswordExpired),
                1 => Some(LoginRefused::Locked),
                2 => Some(LoginRefused::MustChange),
                _ => None,
            };
        }
        fields = rest;
    }
}

#[cfg(test)]
mod tests {
    use ldap3::controls::Control;

    use super::*;

    fn said(schema: Schema, rc: u32, text: &str, policy: Option<&[u8]>) -> String {
        let raw =
            |val: &[u8]| RawControl { ctype: PASSWORD_POLICY.to_owned(), crit: false, val: Some(val.into()) };
        let ctrls = policy.map(|val| Control(None, raw(val))).into_iter().collect();
        let result =
            LdapResult { rc, text: text.to_owned(), matched: String::new(), refs: Vec::new(), ctrls };
        refused(schema, &result).map_or_else(|| "in".to_owned(), |refused| format!("{refused:?}"))
    }

    #[test]
    fn each_state_of_an_account_is_told_apart() {
        let windows = |code: &str| {
            let text = format!("80090308: LdapErr: DSID-0C09044E, comment: X, data {code}, v3839");
            said(Schema::ActiveDirectory, 49, &text, None)
        };
        assert_eq!(windows("52e"), "Wrong");
        assert_eq!(windows("532"), "PasswordExpired");
        assert_eq!(windows("533"), "Disabled");
        assert_eq!(windows("701"), "AccountExpired");
        assert_eq!(windows("773"), "MustChange");
        assert_eq!(windows("775"), "Locked");
        assert_eq!(windows("9999"), "Wrong");
        let policy = |rc, value: &[u8]| said(Schema::InetOrgPerson, rc, "", Some(value));
        assert_eq!(policy(49, &[0x30, 3, 0x81, 1, 0]), "PasswordExpired");
        assert_eq!(policy(49, &[0x30, 3, 0x81, 1, 1]), "Locked");
        assert_eq!(policy(0, &[0x30, 8, 0xa0, 3, 0x80, 1, 5, 0x81, 1, 2]), "MustChange");
        // A warning only: it expires soon.
        assert_eq!(policy(0, &[0x30, 5, 0xa0, 3, 0x80, 1, 5]), "in");
        for broken in [&[][..], &[0x30], &[0x30, 9, 0x81, 9, 1], &[0x04, 0]] {
            assert_eq!(policy(49, broken), "Wrong", "{broken:?}");
            assert_eq!(policy(0, broken), "in", "{broken:?}");
        }
        assert!(said(Schema::InetOrgPerson, 52, "shutting down", None).starts_with("Unavailable"));
    }
}
