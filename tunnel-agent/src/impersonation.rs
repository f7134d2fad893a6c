//! Makes a request one of the user that its stream's header names: all that looks like identity is
//! dropped first, then the user's headers and the agent's own credential are set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drover_api::headers::fold;
use drover_api::identity::{EXTRA_TOKEN_ID, GROUPS_MAX, Identity, IdentityMalformed};
use drover_api::impersonate::{EXTRA_ORIGINAL_USER, Wanted, service_account};
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const EXTRA: &str = "impersonate-extra-";
/// Folded beginnings of fields that say who a request is from.
const FAMILIES: [&str; 3] = ["impersonate-", "x-remote-", "proxy-"];
/// Users and groups that Kubernetes itself gives rights to: no gateway may speak for them.
const RESERVED: &str = "system:";

/// Extras that say who asked, which nobody may ask for.
const OUR_EXTRAS: &str = "drover.io/";

type Fields = Vec<(HeaderName, HeaderValue)>;

/// The header fields of one user.
#[derive(Clone, Debug)]
pub(crate) struct Impersonation(Arc<[(HeaderName, HeaderValue)]>);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImpersonationRefused {
    #[error("the identity is malformed: {0}")]
    Malformed(#[from] IdentityMalformed),
    #[error("users and groups that begin with {RESERVED:?} are the cluster's own")]
    Reserved,
}

impl Impersonation {
    pub(crate) fn of(identity: &Identity) -> Result<Self, ImpersonationRefused> {
        if identity.groups.len() > GROUPS_MAX {
            return Err(IdentityMalformed::TooMany.into());
        }
        let reserved = |name: &String| name.to_ascii_lowercase().starts_with(RESERVED);
        if reserved(&identity.user) || identity.groups.iter().any(reserved) {
            return Err(ImpersonationRefused::Reserved);
        }
        let mut fields = vec![(USER, value(&identity.user)?), (UID, value(&identity.uid)?)];
        groups(&mut fields, &identity.groups)?;
        extras(&mut fields, &identity.extras)?;
        Ok(Self(fields.into()))
    }

    /// Of somebody whom another acts as: with the other's name and token in extras, whatever was asked for.
    pub(crate) fn acting(wanted: &Wanted, original: &Identity) -> Result<Self, ImpersonationRefused> {
        let reserved = |name: &String| name.to_ascii_lowercase().starts_with(RESERVED);
        let account = service_account(&wanted.user).is_some();
        let ours = |key: &String| key.starts_with(OUR_EXTRAS);
        if (reserved(&wanted.user) && !account)
            || wanted.groups.iter().any(reserved)
            || wanted.extras.keys().any(ours)
        {
            return Err(ImpersonationRefused::Reserved);
        }
        let mut fields = vec![(USER, value(&wanted.user)?)];
        if let Some(uid) = &wanted.uid {
            fields.push((UID, value(uid)?));
        }
        groups(&mut fields, &wanted.groups)?;
        extras(&mut fields, &wanted.extras)?;
        extras(&mut fields, &[(EXTRA_ORIGINAL_USER.to_owned(), vec![original.user.clone()])].into())?;
        let token = original.extras.iter().filter(|(key, _)| *key == EXTRA_TOKEN_ID);
        extras(&mut fields, &token.map(|(key, values)| (key.clone(), values.clone())).collect())?;
        Ok(Self(fields.into()))
    }

    /// Strips, then sets: the order that keeps a client's fields out whatever they are called.
    pub(crate) fn apply(&self, headers: &mut HeaderMap, credential: HeaderValue) {
        let foreign: Vec<_> = headers.keys().filter(|name| is_identity(name.as_str())).cloned().collect();
        for name in foreign {
            headers.remove(name);
        }
        headers.insert(AUTHORIZATION, credential);
        for (name, value) in &*self.0 {
            headers.append(name, value.clone());
        }
    }
}

fn groups(fields: &mut Fields, groups: &BTreeSet<String>) -> Result<(), IdentityMalformed> {
    groups.iter().try_for_each(|group| {
        fields.push((GROUP, value(group)?));
        Ok(())
    })
}

fn extras<V>(fields: &mut Fields, extras: &BTreeMap<String, V>) -> Result<(), IdentityMalformed>
where
    for<'a> &'a V: IntoIterator<Item = &'a String>,
{
    for (key, values) in extras {
        let name = extra(key)?;
        for text in values {
            fields.push((name.clone(), value(text)?));
        }
    }
    Ok(())
}

fn is_identity(name: &str) -> bool {
    let folded = fold(name);
    folded == "authorization" || FAMILIES.iter().any(|family| folded.starts_with(family))
}

fn value(text: &str) -> Result<HeaderValue, IdentityMalformed> {
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| IdentityMalformed::Text)
}

/// `drover.io/token-id` becomes `impersonate-extra-drover.io%2ftoken-id`: '/' is the one character of
/// keys that a field name cannot have.
fn extra(key: &str) -> Result<HeaderName, IdentityMalformed> {
    let name = format!("{EXTRA}{}", key.replace('/', "%2f"));
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| IdentityMalformed::ExtraKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(user: &str, groups: &[&str]) -> Identity {
        let extras = [("drover.io/token-id".to_owned(), vec!["t1".to_owned()])].into();
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Identity { user: user.to_owned(), uid: "local:user/7".to_owned(), groups, extras }
    }

    fn applied(sent: &[(&str, &str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let impersonation = Impersonation::of(&identity("zoë", &["a,b", "local:group/ops"])).unwrap();
        impersonation.apply(&mut headers, HeaderValue::from_static("Bearer agent"));
        headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect()
    }

    const OURS: [&str; 6] = [
        "authorization: Bearer agent",
        "impersonate-user: zoë",
        "impersonate-uid: local:user/7",
        "impersonate-group: a,b",
        "impersonate-group: local:group/ops",
        "impersonate-extra-drover.io%2ftoken-id: t1",
    ];

    #[test]
    fn a_clients_identity_never_survives_ours() {
        for name in [
            "Authorization",
            "Impersonate-User",
            "Impersonate-Group",
            "impersonate_user",
            "impersonate%2Duser",
            "Impersonate-Extra-scopes",
            "impersonate-anything",
            "X-Remote-User",
            "x_remote_group",
            "Proxy-Authorization",
        ] {
            assert_eq!(applied(&[(name, "root"), (name, "again")]), OURS, "{name}");
        }
    }

    #[test]
    fn everything_else_stays() {
        assert_eq!(applied(&[("accept", "*/*")])[0], "accept: */*");
    }

    #[test]
    fn what_is_the_clusters_own_or_too_much_is_refused() {
        let refused = |identity: &Identity| Impersonation::of(identity).unwrap_err();
        for (user, group) in [("system:admin", "a"), ("System:admin", "a"), ("zoe", "system:masters")] {
            assert_eq!(refused(&identity(user, &[group])), ImpersonationRefused::Reserved, "{user} {group}");
        }
        let many: Vec<_> = (0..=GROUPS_MAX).map(|number| format!("g{number}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let expected = ImpersonationRefused::Malformed(IdentityMalformed::TooMany);
        assert_eq!(refused(&identity("zoe", &many)), expected);
    }
}
