//! Whom a caller wants to act as (`kubectl --as`): what travels beside their own assertion, and what rosters say of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::identity::{EXTRA_VALUES_MAX, GROUPS_MAX, IdentityMalformed, check_key, check_text};

/// Extra under which a cluster sees who really asks.
pub const EXTRA_ORIGINAL_USER: &str = "drover.io/original-user";
/// A user name of a service account begins so, followed by its namespace and name.
pub const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// The identity that a caller wants, exactly: no group comes along that is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    pub user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extras: BTreeMap<String, BTreeSet<String>>,
}

/// One thing that it takes a right to act as, in the terms of Kubernetes' RBAC: a resource and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part<'a> {
    pub resource: &'static str,
    /// Of `userextras`.
    pub subresource: Option<&'a str>,
    pub namespace: Option<&'a str>,
    pub name: &'a str,
}

impl Wanted {
    /// Refuses what could not be sent, or would be read as something else on its way.
    pub fn check(&self) -> Result<(), IdentityMalformed> {
        let texts = [Some(&self.user), self.uid.as_ref()].into_iter().flatten();
        texts
            .chain(&self.groups)
            .chain(self.extras.values().flatten())
            .try_for_each(|text| check_text(text))?;
        self.extras.keys().try_for_each(|key| check_key(key))?;
        let values: usize = self.extras.values().map(BTreeSet::len).sum();
        if self.groups.len() > GROUPS_MAX || values >= EXTRA_VALUES_MAX {
            return Err(IdentityMalformed::TooMany);
        }
        Ok(())
    }

    /// Everything that the caller needs a right to.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let plain = |resource, name| Part { resource, subresource: None, namespace: None, name };
        let user = match service_account(&self.user) {
            Some((namespace, name)) => Part { namespace: Some(namespace), ..plain("serviceaccounts", name) },
            None => plain("users", &self.user),
        };
        let uid = self.uid.iter().map(move |uid| plain("uids", uid));
        let groups = self.groups.iter().map(move |group| plain("groups", group));
        let extras = self.extras.iter().flat_map(move |(key, values)| {
            values.iter().map(move |value| Part { subresource: Some(key), ..plain("userextras", value) })
        });
        std::iter::once(user).chain(uid).chain(groups).chain(extras)
    }
}

/// Namespace and name of a service account's user name.
pub fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

impl std::fmt::Display for Part<'_> {
    /// As a refusal names it: `user "zoe"`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { resource, subresource, namespace, name } = self;
        match (*resource, subresource, namespace) {
            ("serviceaccounts", _, Some(namespace)) => write!(f, "service account \"{namespace}/{name}\""),
            ("userextras", Some(key), _) => write!(f, "extra {key:?} of {name:?}"),
            (resource, _, _) => write!(f, "{} {name:?}", resource.trim_end_matches('s')),
        }
    }
}

/// A right to act as others, as rosters write it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Right {
    /// `users`, `groups`, `serviceaccounts`, `uids`, `userextras/<key>`, or `*` for all of them.
    pub resource: String,
    /// `*` for every name.
    pub name: String,
}

impl Right {
    /// Whether it lets one act as a part. Of service accounts a name is `<namespace>:<name>`: by the name alone, whoever
    /// may act as one would be all of that name, in `kube-system` too.
    pub fn covers(&self, part: &Part<'_>) -> bool {
        let named = match part.namespace {
            None => self.name == part.name,
            Some(namespace) => self.name.split_once(':').is_some_and(|named| named == (namespace, part.name)),
        };
        self.is_of_kind(part) && (self.name == "*" || named)
    }

    /// Whether, as a deny, it concerns a part: of a service account also by its name alone.
    pub fn concerns(&self, part: &Part<'_>) -> bool {
        self.covers(part) || self.is_of_kind(part) && self.name == part.name
    }

    fn is_of_kind(&self, part: &Part<'_>) -> bool {
        match (self.resource.split_once('/'), part.subresource) {
            _ if self.resource == "*" => true,
            (Some((resource, key)), Some(of)) => resource == part.resource && key == of,
            (None, None) => self.resource == part.resource,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            user: "system:serviceaccount:web:deployer".to_owned(),
            uid: Some("7".to_owned()),
            groups: ["ops".to_owned()].into(),
            extras: [("scopes".to_owned(), ["read".to_owned()].into())].into(),
        }
    }

    #[test]
    fn each_part_takes_a_right_of_its_own() {
        let wanted = wanted();
        let parts: Vec<_> = wanted.parts().map(|part| part.to_string()).collect();
        let expected = [
            "service account \"web/deployer\"",
            "uid \"7\"",
            "group \"ops\"",
            "extra \"scopes\" of \"read\"",
        ];
        assert_eq!(parts, expected);
        let covered = |resource: &str, name: &str| {
            let right = Right { resource: resource.to_owned(), name: name.to_owned() };
            wanted.parts().map(|part| right.covers(&part)).collect::<Vec<_>>()
        };
        assert_eq!(covered("*", "*"), [true; 4]);
        assert_eq!(covered("serviceaccounts", "web:deployer"), [true, false, false, false]);
        for elsewhere in ["deployer", "kube-system:deployer", "web:", ":deployer", "web:deployer:x"] {
            assert_eq!(covered("serviceaccounts", elsewhere), [false; 4], "{elsewhere}");
        }
        let deny = |name: &str| {
            let right = Right { resource: "serviceaccounts".to_owned(), name: name.to_owned() };
            wanted.parts().next().is_some_and(|part| right.concerns(&part))
        };
        assert!(deny("deployer") && deny("web:deployer") && !deny("kube-system:deployer"));
        assert_eq!(covered("users", "*"), [false; 4], "a service account is no user");
        assert_eq!(covered("groups", "ops"), [false, false, true, false]);
        assert_eq!(covered("userextras/scopes", "*"), [false, false, false, true]);
        assert_eq!(covered("userextras", "*"), [false; 4]);
    }

    #[test]
    fn what_could_not_be_sent_is_refused() {
        assert_eq!(wanted().check(), Ok(()));
        let broken = Wanted { user: "a\r\nb".to_owned(), ..wanted() };
        assert_eq!(broken.check(), Err(IdentityMalformed::Text));
        let keys = [("Upper".to_owned(), ["x".to_owned()].into())];
        assert_eq!(Wanted { extras: keys.into(), ..wanted() }.check(), Err(IdentityMalformed::ExtraKey));
        let groups = (0..=GROUPS_MAX).map(|number| format!("g{number}")).collect();
        assert_eq!(Wanted { groups, ..wanted() }.check(), Err(IdentityMalformed::TooMany));
    }

    #[test]
    fn only_whole_names_are_service_accounts() {
        assert_eq!(service_account("system:serviceaccount:a:b"), Some(("a", "b")));
        for user in [
            "system:serviceaccount:a",
            "system:serviceaccount::b",
            "system:serviceaccount:a:",
            "system:node:a",
            "system:serviceaccount:a:b:c",
        ] {
            assert_eq!(service_account(user), None, "{user}");
        }
    }
}
