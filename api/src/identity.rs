//! Who a request runs as: the bytes that an assertion holds (see [`crate::assertion`]).
//!
//! ```text
//! identity = version(1 byte) user uid count(groups) *group count(keys) *(key count(values) *value)
//! text     = length(u16, big endian) bytes(UTF-8)        count = u16, big endian
//! ```
//! One byte sequence per identity: groups and keys come sorted and without repetition, so that equal
//! identities are equal bytes and can be cached by hash.

use std::collections::{BTreeMap, BTreeSet};

use crate::impersonate::EXTRA_ORIGINAL_USER;

const VERSION: u8 = 1;

/// Longest user name, uid, group, extra key or value, in bytes. Kubernetes sets none; request headers do.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Most groups of their own with which a user is sent to a cluster. Above it, the cluster's listed ones are.
pub const GROUPS_SENT_MAX: usize = 256;
/// Most groups of one identity, those of its roles among them: each costs the API server time, and servers built with Go 1.27 take 500 header values.
pub const GROUPS_MAX: usize = 400;
/// Most extra values of one identity, all keys together.
pub const EXTRA_VALUES_MAX: usize = 32;

/// Extra under which a user's display name travels; it decides nothing.
pub const EXTRA_DISPLAY_NAME: &str = "drover.io/display-name";
/// Extra under which the public id of the token travels, so that a cluster's audit log names it.
pub const EXTRA_TOKEN_ID: &str = "drover.io/token-id";
/// Every extra key of ours that an agent sends: its rights list them one by one.
pub const EXTRA_KEYS: [&str; 3] = [EXTRA_DISPLAY_NAME, EXTRA_ORIGINAL_USER, EXTRA_TOKEN_ID];

/// User, uid, groups and extras as Kubernetes knows them (`authentication.k8s.io/v1` UserInfo).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub uid: String,
    pub groups: BTreeSet<String>,
    pub extras: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityMalformed {
    #[error("an extra's key has characters other than a-z, 0-9, '/', '-', '_' and '.'")]
    ExtraKey,
    #[error("groups or extras are out of order or repeated")]
    Order,
    #[error("bytes follow the identity")]
    TrailingBytes,
    #[error("the identity ends early")]
    Truncated,
    #[error("more than {GROUPS_MAX} groups or {EXTRA_VALUES_MAX} extra values")]
    TooMany,
    #[error("a text is empty, longer than {TEXT_BYTES_MAX} bytes, not UTF-8, or has control characters")]
    Text,
    #[error("the identity's version is unknown")]
    Version,
}

impl Identity {
    pub fn encode(&self) -> Result<Vec<u8>, IdentityMalformed> {
        let mut out = vec![VERSION];
        put_text(&mut out, &self.user)?;
        put_text(&mut out, &self.uid)?;
        put_count(&mut out, self.groups.len(), GROUPS_MAX)?;
        for group in &self.groups {
            put_text(&mut out, group)?;
        }
        let mut values_total = 0;
        put_count(&mut out, self.extras.len(), EXTRA_VALUES_MAX)?;
        for (key, values) in &self.extras {
            check_key(key)?;
            put_text(&mut out, key)?;
            values_total += values.len();
            put_count(&mut out, values.len(), EXTRA_VALUES_MAX)?;
            for value in values {
                put_text(&mut out, value)?;
            }
        }
        if values_total > EXTRA_VALUES_MAX { Err(IdentityMalformed::TooMany) } else { Ok(out) }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityMalformed> {
        let mut input = Input(bytes);
        if input.take(1)? != [VERSION] {
            return Err(IdentityMalformed::Version);
        }
        let user = input.text()?;
        let uid = input.text()?;
        let mut groups = BTreeSet::new();
        for _ in 0..input.count(GROUPS_MAX)? {
            let group = input.text()?;
            if groups.last().is_some_and(|last| *last >= group) {
                return Err(IdentityMalformed::Order);
            }
            groups.insert(group);
        }
        let extras = input.extras()?;
        if !input.0.is_empty() {
            return Err(IdentityMalformed::TrailingBytes);
        }
        Ok(Self { user, uid, groups, extras })
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take(&mut self, bytes: usize) -> Result<&[u8], IdentityMalformed> {
        let (head, tail) = self.0.split_at_checked(bytes).ok_or(IdentityMalformed::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    fn number(&mut self) -> Result<usize, IdentityMalformed> {
        let bytes = self.take(2)?;
        Ok(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
    }

    fn count(&mut self, max: usize) -> Result<usize, IdentityMalformed> {
        let count = self.number()?;
        if count > max { Err(IdentityMalformed::TooMany) } else { Ok(count) }
    }

    fn text(&mut self) -> Result<String, IdentityMalformed> {
        let length = self.number()?;
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| IdentityMalformed::Text)?;
        check_text(text)?;
        Ok(text.to_owned())
    }

    fn extras(&mut self) -> Result<BTreeMap<String, Vec<String>>, IdentityMalformed> {
        let mut extras = BTreeMap::<String, Vec<String>>::new();
        let mut values_left = EXTRA_VALUES_MAX;
        for _ in 0..self.count(EXTRA_VALUES_MAX)? {
            let key = self.text()?;
            check_key(&key)?;
            if extras.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(IdentityMalformed::Order);
            }
            let count = self.count(values_left)?;
            values_left -= count;
            let values = (0..count).map(|_| self.text()).collect::<Result<_, _>>()?;
            extras.insert(key, values);
        }
        Ok(extras)
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), IdentityMalformed> {
    check_text(text)?;
    put_count(out, text.len(), TEXT_BYTES_MAX)?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn put_count(out: &mut Vec<u8>, count: usize, max: usize) -> Result<(), IdentityMalformed> {
    let count = u16::try_from(count).ok().filter(|_| count <= max).ok_or(IdentityMalformed::TooMany)?;
    out.extend_from_slice(&count.to_be_bytes());
    Ok(())
}

/// Refuses what could end a header line or be read as another value on the way.
pub(crate) fn check_text(text: &str) -> Result<(), IdentityMalformed> {
    let sound = !text.is_empty()
        && text.len() <= TEXT_BYTES_MAX
        && text.trim() == text
        && !text.chars().any(char::is_control);
    if sound { Ok(()) } else { Err(IdentityMalformed::Text) }
}

/// The API server lower-cases keys, so only keys that survive it are sound.
pub(crate) fn check_key(key: &str) -> Result<(), IdentityMalformed> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/-_.".contains(&byte);
    if key.bytes().all(allowed) { Ok(()) } else { Err(IdentityMalformed::ExtraKey) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zoe() -> Identity {
        Identity {
            user: "zoë".into(),
            uid: "local:user/7".into(),
            groups: ["drover:cluster-viewer".to_owned(), "local:group/a,b".to_owned()].into(),
            extras: BTreeMap::from([("drover.io/display-name".into(), vec!["Zoë Z.".into()])]),
        }
    }

    #[test]
    fn the_bytes_are_fixed() {
        let identity = Identity {
            user: "a".into(),
            uid: "b".into(),
            groups: ["g".to_owned()].into(),
            extras: BTreeMap::from([("k".into(), vec!["v".into()])]),
        };
        let hex: String = identity.encode().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "010001610001620001000167000100016b0001000176");
    }

    #[test]
    fn decoding_gives_back_what_was_encoded() {
        assert_eq!(Identity::decode(&zoe().encode().unwrap()), Ok(zoe()));
    }

    #[test]
    fn every_truncation_and_every_extension_is_refused() {
        let bytes = zoe().encode().unwrap();
        for end in 0..bytes.len() {
            assert!(Identity::decode(&bytes[..end]).is_err(), "{end} bytes");
        }
        assert_eq!(Identity::decode(&[&bytes[..], b"x"].concat()), Err(IdentityMalformed::TrailingBytes));
    }

    #[test]
    fn texts_that_could_smuggle_a_header_are_refused() {
        for text in ["", " a", "a ", "a\r\nb", "a\nb", "a\0b", "a\u{7f}", &"x".repeat(TEXT_BYTES_MAX + 1)] {
            let identity = Identity { user: text.into(), ..zoe() };
            assert_eq!(identity.encode(), Err(IdentityMalformed::Text), "{text:?}");
        }
    }

    #[test]
    fn keys_that_the_api_server_would_change_are_refused() {
        for key in ["Key", "a%2fb", "a b", "ä"] {
            let identity = Identity { extras: BTreeMap::from([(key.into(), vec!["v".into()])]), ..zoe() };
            assert_eq!(identity.encode(), Err(IdentityMalformed::ExtraKey), "{key}");
        }
    }

    #[test]
    fn more_groups_than_the_limit_are_refused_not_cut() {
        let groups = (0..=GROUPS_MAX).map(|i| format!("g{i}")).collect();
        assert_eq!(Identity { groups, ..zoe() }.encode(), Err(IdentityMalformed::TooMany));
    }

    proptest! {
        #[test]
        fn decoding_never_panics_and_accepts_only_canonical_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(identity) = Identity::decode(&bytes) {
                prop_assert_eq!(identity.encode().unwrap(), bytes);
            }
        }
    }
}
