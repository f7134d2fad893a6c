//! A registration token: what a process shows once to get its certificate.

use std::fmt;

use drover_policy::ClusterId;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Kind;
use crate::token::TokenId;

/// As it is stored; the secret is shown once, to whom asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistrationToken {
    pub id: TokenId,
    /// The only process that it makes a certificate for.
    pub process: Process,
    pub expires_at: Timestamp,
}

impl Kind for RegistrationToken {
    const KIND: &'static str = "RegistrationToken";
    const PLURAL: &'static str = "registrationtokens";

    fn key(&self) -> &str {
        self.id.as_str()
    }
}

/// A process that has a certificate of control's: what stands in it after `spiffe://drover/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub enum Process {
    /// `cluster/<id>/agent`, for every replica.
    Agent(ClusterId),
    /// `gateway/<name>`, a DNS label.
    Gateway(String),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a process is cluster/<id>/agent or gateway/<name>")]
pub struct ProcessMalformed;

impl Process {
    pub(super) const TRUST_DOMAIN: &str = "spiffe://drover/";

    /// From the URI of a certificate.
    pub fn of_uri(uri: &str) -> Result<Self, ProcessMalformed> {
        uri.strip_prefix(Self::TRUST_DOMAIN).ok_or(ProcessMalformed)?.to_owned().try_into()
    }

    pub fn uri(&self) -> String {
        format!("{}{self}", Self::TRUST_DOMAIN)
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(cluster) => write!(f, "cluster/{cluster}/agent"),
            Self::Gateway(name) => write!(f, "gateway/{name}"),
        }
    }
}

impl TryFrom<String> for Process {
    type Error = ProcessMalformed;

    fn try_from(text: String) -> Result<Self, ProcessMalformed> {
        let parts: Vec<_> = text.split('/').collect();
        match parts[..] {
            ["cluster", id, "agent"] => ClusterId::parse(id).map(Self::Agent).map_err(|_| ProcessMalformed),
            ["gateway", name] if is_dns_label(name) => Ok(Self::Gateway(name.to_owned())),
            _ => Err(ProcessMalformed),
        }
    }
}

impl From<Process> for String {
    fn from(process: Process) -> Self {
        process.to_string()
    }
}

fn is_dns_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_what_its_uri_says_and_nothing_else_is_one() {
        for sound in ["cluster/c-7f3k2/agent", "gateway/g-1"] {
            let process = Process::try_from(sound.to_owned()).unwrap();
            assert_eq!(process.uri(), format!("spiffe://drover/{sound}"));
            assert_eq!(Process::of_uri(&process.uri()), Ok(process));
        }
        for malformed in [
            "",
            "gateway/",
            "gateway/a/b",
            "gateway/A",
            "gateway/-a",
            "cluster/c-7f3k2",
            "cluster//agent",
            "cluster/c-7f3k2/agent/",
            "cluster/x/agent",
            "machine/m-1",
            "gateway/a\n",
        ] {
            assert_eq!(Process::try_from(malformed.to_owned()), Err(ProcessMalformed), "{malformed:?}");
        }
        assert_eq!(Process::of_uri("spiffe://other/gateway/a"), Err(ProcessMalformed));
    }
}
