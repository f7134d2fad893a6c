//! An enrolment: what the certificates of a process go back to. Deleted, it ends them, whatever they say.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Kind, Process, ProcessMalformed};

/// Keys that are known of one: the newest, and those before it, which replicas may still hold.
pub const ENROLMENT_KEYS_MAX: usize = 4;
const ID_CHARS_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    pub id: String,
    pub process: Process,
    pub enrolled_at: Timestamp,
    /// When it last got a certificate.
    pub renewed_at: Timestamp,
    /// SHA-256 of the public keys that may renew, in hexadecimal, the newest last.
    pub keys: Vec<String>,
}

impl Kind for Enrolment {
    const KIND: &'static str = "Enrolment";
    const PLURAL: &'static str = "enrolments";

    fn key(&self) -> &str {
        &self.id
    }
}

/// A process as its certificate names it: `<process>/<enrolment>`, of those that control makes; others have no enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub process: Process,
    pub enrolment: Option<String>,
}

impl Holder {
    pub fn new(process: Process, enrolment: impl Into<String>) -> Self {
        Self { process, enrolment: Some(enrolment.into()) }
    }

    /// From the URI of a certificate.
    pub fn of_uri(uri: &str) -> Result<Self, ProcessMalformed> {
        Self::of_path(uri.strip_prefix(Process::TRUST_DOMAIN).ok_or(ProcessMalformed)?)
    }

    /// From what stands in it after the trust domain.
    pub fn of_path(path: &str) -> Result<Self, ProcessMalformed> {
        if let Ok(process) = Process::try_from(path.to_owned()) {
            return Ok(Self { process, enrolment: None });
        }
        let (process, enrolment) = path.rsplit_once('/').ok_or(ProcessMalformed)?;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if !(1..=ID_CHARS_MAX).contains(&enrolment.len()) || !enrolment.bytes().all(plain) {
            return Err(ProcessMalformed);
        }
        Ok(Self::new(Process::try_from(process.to_owned())?, enrolment))
    }

    pub fn uri(&self) -> String {
        let process = self.process.uri();
        self.enrolment.as_ref().map_or(process.clone(), |enrolment| format!("{process}/{enrolment}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_a_process_with_or_without_an_enrolment() {
        for (path, process, enrolment) in [
            ("gateway/g-1", "gateway/g-1", None),
            ("gateway/g-1/a1", "gateway/g-1", Some("a1")),
            ("cluster/c-1/agent", "cluster/c-1/agent", None),
            ("cluster/c-1/agent/x7", "cluster/c-1/agent", Some("x7")),
        ] {
            let holder = Holder::of_path(path).unwrap();
            assert_eq!(
                (holder.process.to_string().as_str(), holder.enrolment.as_deref()),
                (process, enrolment)
            );
            assert_eq!(Holder::of_uri(&holder.uri()), Ok(holder));
        }
        for malformed in
            ["", "gateway/g-1/", "gateway/g-1/A", "gateway/g-1/a/b", "cluster/c-1/agent/a-b", "machine/m/a"]
        {
            assert_eq!(Holder::of_path(malformed), Err(ProcessMalformed), "{malformed}");
        }
        assert!(Holder::of_path(&format!("gateway/g/{}", "a".repeat(ID_CHARS_MAX + 1))).is_err());
    }
}
