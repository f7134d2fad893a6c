//! Texts that people, directories and issuers bring, each with the one constructor that makes it sound.
//!
//! They travel in request headers of clusters' API servers, so outer white space (Unicode's, as HTTP libraries trim
//! it) and control characters are in none.

use std::fmt;

use crate::snapshot::RESERVED_PREFIXES;

/// Longest name of a user, in bytes: an account's, a directory's, and what tells two of them apart.
pub const USER_NAME_BYTES_MAX: usize = 512;
/// Longest name that is shown beside the one that rules know, in bytes.
pub const DISPLAY_NAME_BYTES_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextInvalid {
    #[error("has control characters")]
    Control,
    #[error("is empty")]
    Empty,
    #[error("is too long: {0} bytes at most")]
    Long(usize),
    #[error("begins with what Kubernetes or Drover keeps for itself (system: or drover:)")]
    Reserved,
    #[error("has a '/'")]
    Slash,
    #[error("begins or ends with white space")]
    Untrimmed,
}

fn check(text: &str, bytes_max: usize) -> Result<(), TextInvalid> {
    if text.is_empty() {
        return Err(TextInvalid::Empty);
    }
    if text.len() > bytes_max {
        return Err(TextInvalid::Long(bytes_max));
    }
    if text.trim() != text {
        return Err(TextInvalid::Untrimmed);
    }
    if text.chars().any(char::is_control) {
        return Err(TextInvalid::Control);
    }
    Ok(())
}

/// The name of a user in clusters. It is never changed to fit: another text would be another user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(String);

impl UserName {
    pub fn parse(text: &str) -> Result<Self, TextInvalid> {
        check(text, USER_NAME_BYTES_MAX)?;
        if text.contains('/') {
            return Err(TextInvalid::Slash);
        }
        let lower = text.to_lowercase();
        if RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
            return Err(TextInvalid::Reserved);
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name that is for people alone: of a user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisplayName(String);

impl DisplayName {
    /// Without outer white space; none where nothing is left.
    pub fn parse(text: &str) -> Result<Option<Self>, TextInvalid> {
        let text = text.trim();
        match check(text, DISPLAY_NAME_BYTES_MAX) {
            Ok(()) => Ok(Some(Self(text.to_owned()))),
            Err(TextInvalid::Empty) => Ok(None),
            Err(invalid) => Err(invalid),
        }
    }

    /// As a directory has it: one that cannot be shown is none, and keeps nobody out.
    pub fn of_directory(text: &str) -> Option<Self> {
        Self::parse(text).ok().flatten()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<DisplayName> for String {
    fn from(name: DisplayName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::check_text;

    #[test]
    fn a_users_name_is_one_that_every_header_and_path_carries() {
        let long = "x".repeat(USER_NAME_BYTES_MAX + 1);
        for (text, expected) in [
            ("zoe", Ok(())),
            ("jörg@ad", Ok(())),
            ("zoe b", Ok(())),
            ("a%;^{}|", Ok(())),
            ("..", Ok(())),
            ("", Err(TextInvalid::Empty)),
            (" zoe", Err(TextInvalid::Untrimmed)),
            ("zoe\u{a0}", Err(TextInvalid::Untrimmed)),
            ("z\u{85}e", Err(TextInvalid::Control)),
            ("a/b", Err(TextInvalid::Slash)),
            ("system:admin", Err(TextInvalid::Reserved)),
            ("Drover:x", Err(TextInvalid::Reserved)),
            (&long, Err(TextInvalid::Long(USER_NAME_BYTES_MAX))),
        ] {
            assert_eq!(UserName::parse(text).map(drop), expected, "{text:?}");
        }
    }

    #[test]
    fn a_display_name_is_trimmed_and_none_where_nothing_is_left() {
        let long = "x".repeat(DISPLAY_NAME_BYTES_MAX + 1);
        for (text, expected) in [
            (" Zoe", Ok(Some("Zoe"))),
            ("Zoe ", Ok(Some("Zoe"))),
            ("\u{a0}Zoë Z.\u{2003}", Ok(Some("Zoë Z."))),
            ("", Ok(None)),
            (" \u{a0}\t\n", Ok(None)),
            ("Z\no", Err(TextInvalid::Control)),
            (&long, Err(TextInvalid::Long(DISPLAY_NAME_BYTES_MAX))),
        ] {
            let found = DisplayName::parse(text);
            assert_eq!(
                found.as_ref().map(|name| name.as_ref().map(DisplayName::as_str)),
                expected.as_ref().map(|name| *name),
                "{text:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn whatever_is_a_name_can_be_written_into_an_identity(text in "\\PC{0,3}[ \u{a0}\u{85}a/é\u{0}-\u{20}]{0,4}\\PC{0,3}") {
            if let Ok(name) = UserName::parse(&text) {
                prop_assert_eq!(check_text(name.as_str()), Ok(()));
            }
            if let Ok(Some(name)) = DisplayName::parse(&text) {
                prop_assert_eq!(check_text(name.as_str()), Ok(()));
            }
        }
    }
}
