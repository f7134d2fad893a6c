//! Names that rules speak of, each a type of its own.

use std::fmt;
use std::sync::Arc;

/// Longest id or name, in bytes: it travels in header fields of the cluster's API server.
const ID_BYTES_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct IdInvalid {
    text: String,
    expected: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $sound:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn parse(text: &str) -> Result<Self, IdInvalid> {
                let sound: fn(&str) -> bool = $sound;
                if (1..=ID_BYTES_MAX).contains(&text.len()) && sound(text) {
                    Ok(Self(text.into()))
                } else {
                    let text = text.chars().take(ID_BYTES_MAX).collect();
                    Err(IdInvalid { text, expected: $expected })
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

id! {
    /// A cluster's id, in certificates, rules and records: `c-` and random letters or digits.
    ClusterId, "a cluster id (c- and letters a-z or digits)",
    |text| text.strip_prefix("c-").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_lower_alphanumeric))
}

id! {
    /// A project of one cluster.
    ProjectId, "a project id (letters a-z, digits and '-')",
    |text| text.bytes().all(|byte| is_lower_alphanumeric(byte) || byte == b'-')
}

id! {
    /// A user or a group: `<provider>:<kind>/<stable id>`.
    Principal, "a principal (<provider>:<user|group>/<id>)",
    is_principal
}

id! {
    /// A role: a built-in template or one of the company's own.
    RoleName, "a role's name (letters a-z, digits and '-')",
    |text| text.bytes().all(|byte| is_lower_alphanumeric(byte) || byte == b'-')
}

impl Principal {
    /// A user otherwise.
    pub fn is_group(&self) -> bool {
        self.0.split_once(':').is_some_and(|(_, rest)| rest.starts_with("group/"))
    }
}

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_principal(text: &str) -> bool {
    let Some((provider, rest)) = text.split_once(':') else { return false };
    let Some((kind, id)) = rest.split_once('/') else { return false };
    let provider_sound = !provider.is_empty()
        && provider.bytes().all(|byte| is_lower_alphanumeric(byte) || byte == b'-')
        && !["drover", "system"].contains(&provider);
    let id_sound = !id.is_empty() && id.trim() == id && !id.chars().any(char::is_control);
    provider_sound && ["group", "user"].contains(&kind) && id_sound
}

/// Whom a decision is about: a user with its groups, sorted, so that equal sets are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject(Arc<[Principal]>);

impl Subject {
    pub fn new(user: Principal, groups: impl IntoIterator<Item = Principal>) -> Self {
        let mut principals: Vec<_> = groups.into_iter().chain([user]).collect();
        principals.sort();
        principals.dedup();
        Self(principals.into())
    }

    pub fn principals(&self) -> &[Principal] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sound_ids_parse() {
        for (text, cluster, principal, role) in [
            ("c-1a2b", true, false, true),
            ("c-", false, false, true),
            ("c-A", false, false, false),
            ("local:user/7", false, true, false),
            ("ldap:group/CN=Ops,DC=example", false, true, false),
            ("local:service/7", false, false, false),
            ("local:user/", false, false, false),
            ("local:user/ 7", false, false, false),
            ("system:user/7", false, false, false),
            ("drover:group/7", false, false, false),
            ("Local:user/7", false, false, false),
            ("user/7", false, false, false),
            ("", false, false, false),
        ] {
            let found = (
                ClusterId::parse(text).is_ok(),
                Principal::parse(text).is_ok(),
                RoleName::parse(text).is_ok(),
            );
            assert_eq!(found, (cluster, principal, role), "{text:?}");
        }
        assert!(RoleName::parse(&"a".repeat(ID_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_group_is_told_from_a_user() {
        for (text, is_group) in [
            ("local:group/ops", true),
            ("local:user/7", false),
            ("oidc:user/x:group/ops", false),
            ("oidc:group/x:user/7", true),
        ] {
            assert_eq!(Principal::parse(text).unwrap().is_group(), is_group, "{text}");
        }
    }

    #[test]
    fn equal_sets_of_principals_are_equal_subjects() {
        let principal = |text| Principal::parse(text).unwrap();
        let (zoe, ops, dev) =
            (principal("local:user/7"), principal("local:group/ops"), principal("local:group/dev"));
        let one = Subject::new(zoe.clone(), [ops.clone(), dev.clone(), ops.clone()]);
        assert_eq!(one, Subject::new(zoe, [dev, ops]));
        assert_eq!(one.principals().len(), 3);
    }
}
