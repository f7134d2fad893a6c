//! Whom a client wants to act as: `kubectl --as`, `--as-uid`, `--as-group`.
//!
//! Nothing of it is ever dropped in silence, or the request would run as somebody with other rights. The caller needs a
//! right to each part, by rules that name the verb `impersonate`; the request itself is still decided for the caller
//! here, and by the cluster for who is acted as.

use drover_api::identity::IdentityMalformed;
use drover_api::impersonate::{Right, Wanted};
use drover_policy::ImpersonationRights;
use http::{HeaderMap, HeaderValue};

const FAMILY: &str = "impersonate-";
const EXTRA: &str = "impersonate-extra-";
/// Longest extra key as it is sent, in bytes.
const KEY_BYTES_MAX: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImpersonationMalformed {
    #[error("an Impersonate- header is given more than once, or is not one that Kubernetes knows")]
    Header,
    #[error("what Impersonate- headers say cannot be sent: {0}")]
    Identity(#[from] IdentityMalformed),
    #[error("Drover's own API lets nobody act as somebody else")]
    NotHere,
    #[error("an Impersonate- header is not UTF-8")]
    NotUtf8,
    #[error("a group, uid or extra is given, and no user to act as")]
    UserAbsent,
}

/// Reads what a client wants; none where it says nothing of it.
pub(crate) fn wanted(headers: &HeaderMap) -> Result<Option<Wanted>, ImpersonationMalformed> {
    let (mut user, mut wanted, mut asked) = (None, Wanted::default(), false);
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with(FAMILY) {
            continue;
        }
        asked = true;
        let value = text(value)?;
        match name {
            "impersonate-user" if user.is_none() => user = Some(value),
            "impersonate-uid" if wanted.uid.is_none() => wanted.uid = Some(value),
            "impersonate-group" => {
                wanted.groups.insert(value);
            }
            _ => {
                let key = name.strip_prefix(EXTRA).and_then(key).ok_or(ImpersonationMalformed::Header)?;
                wanted.extras.entry(key).or_default().insert(value);
            }
        }
    }
    if !asked {
        return Ok(None);
    }
    wanted.user = user.ok_or(ImpersonationMalformed::UserAbsent)?;
    wanted.check()?;
    Ok(Some(wanted))
}

/// The first part that a caller has no right to act as.
pub(crate) fn forbidden(rights: ImpersonationRights, wanted: &Wanted) -> Option<String> {
    let right = |(resource, name)| Right { resource, name };
    let allow: Vec<_> = rights.allow.into_iter().map(right).collect();
    let deny: Vec<_> = rights.deny.into_iter().map(right).collect();
    let mut parts = wanted.parts();
    let refused = parts.find(|part| {
        !allow.iter().any(|right| right.covers(part)) || deny.iter().any(|right| right.concerns(part))
    });
    refused.map(|part| part.to_string())
}

fn text(value: &HeaderValue) -> Result<String, ImpersonationMalformed> {
    std::str::from_utf8(value.as_bytes()).map(str::to_owned).map_err(|_| ImpersonationMalformed::NotUtf8)
}

/// `a%2fb` is `a/b`: as API servers decode keys.
fn key(encoded: &str) -> Option<String> {
    if encoded.len() > KEY_BYTES_MAX {
        return None;
    }
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let (digits, tail) = rest.split_first_chunk::<2>()?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        let mut headers = HeaderMap::new();
        lines.iter().map(line).for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    #[test]
    fn what_kubectl_sends_is_read_whole() {
        assert_eq!(wanted(&headers(&[("accept", "*/*")])), Ok(None));
        let read = wanted(&headers(&[
            ("Impersonate-User", "zoë"),
            ("impersonate-uid", "7"),
            ("Impersonate-Group", "a,b"),
            ("Impersonate-Group", "c"),
            ("Impersonate-Extra-example.org%2Fscopes", "read"),
        ]));
        let expected = Wanted {
            user: "zoë".to_owned(),
            uid: Some("7".to_owned()),
            groups: ["a,b".to_owned(), "c".to_owned()].into(),
            extras: [("example.org/scopes".to_owned(), ["read".to_owned()].into())].into(),
        };
        assert_eq!(read, Ok(Some(expected)));
    }

    #[test]
    fn what_is_not_whole_or_not_known_is_refused_and_never_dropped() {
        use ImpersonationMalformed::{Header, Identity, UserAbsent};
        for (lines, refused) in [
            (&[("impersonate-user", "a"), ("impersonate-user", "b")][..], Header),
            (&[("impersonate-user", "a"), ("impersonate-uid", "b"), ("impersonate-uid", "c")], Header),
            (&[("impersonate-user", "a"), ("impersonate-anything", "b")], Header),
            (&[("impersonate-user", "a"), ("impersonate-extra-%zz", "b")], Header),
            (&[("impersonate-user", "a"), ("impersonate-extra-%2", "b")], Header),
            (&[("impersonate-group", "a")], UserAbsent),
            (&[("impersonate-uid", "a")], UserAbsent),
            (&[("impersonate-user", "")], Identity(IdentityMalformed::Text)),
            (&[("impersonate-user", "a"), ("impersonate-group", "")], Identity(IdentityMalformed::Text)),
            (
                &[("impersonate-user", "a"), ("impersonate-extra-a%20b", "c")],
                Identity(IdentityMalformed::ExtraKey),
            ),
        ] {
            assert_eq!(wanted(&headers(lines)), Err(refused), "{lines:?}");
        }
    }

    #[test]
    fn each_part_takes_a_right_and_a_deny_wins() {
        let row = |resource: &str, name: &str| (resource.to_owned(), name.to_owned());
        let wanted =
            Wanted { user: "zoe".to_owned(), groups: ["ops".to_owned()].into(), ..Wanted::default() };
        let rights = |allow: &[(&str, &str)], deny: &[(&str, &str)]| {
            let rows = |rows: &[(&str, &str)]| rows.iter().map(|(of, name)| row(of, name)).collect();
            ImpersonationRights { allow: rows(allow), deny: rows(deny) }
        };
        for (allow, deny, expected) in [
            (&[][..], &[][..], Some("user \"zoe\"")),
            (&[("users", "*")], &[], Some("group \"ops\"")),
            (&[("users", "zoe"), ("groups", "ops")], &[], None),
            (&[("*", "*")], &[], None),
            (&[("*", "*")], &[("groups", "ops")], Some("group \"ops\"")),
        ] {
            assert_eq!(forbidden(rights(allow, deny), &wanted).as_deref(), expected, "{allow:?} {deny:?}");
        }
    }
}
