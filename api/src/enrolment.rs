//! How a process gets its certificate, and another one before that ends: `POST /v1/certificates`.
//!
//! ```text
//! process                                                control
//!    |  csr, token id, HMAC(SHA-256(token), csr)           |   the first time
//!    |  csr, certificate, signature of its key over csr    |   before it ends
//!    |  -------------------------------------------------> |
//!    |  certificate, ca, HMAC(SHA-256(token), all of it)   |
//!    |  <------------------------------------------------- |
//! ```
//!
//! The token never travels, so whoever stands between learns nothing that enrols; and only who knows its hash can
//! have answered, so the answer needs no TLS that the process could not check yet. What a renewal answers is
//! checked against the authority that the process knows.

use hmac::{Hmac, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::token::{CredentialHash, TokenId};

pub const PATH: &str = "/v1/certificates";
/// How far a process's clock may be behind control's: certificates begin so much earlier, in seconds.
pub const CLOCK_SKEW_S: u64 = 60;
/// What agents check a gateway's certificate for.
pub const GATEWAY_NAME: &str = "gateway.drover";
/// What gateways check control's certificate for.
pub const CONTROL_NAME: &str = "control.drover";
/// Largest signing request, in bytes of DER: one for P-256 has about 250.
pub const CSR_BYTES_MAX: usize = 4096;

/// Texts that a proof of one kind cannot be taken for another by.
const REQUEST: &[u8] = b"drover enrolment request 1\n";
const ANSWER: &[u8] = b"drover enrolment answer 1\n";
const RENEWAL: &[u8] = b"drover renewal request 1\n";

/// Bytes, in hexadecimal digits where they are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Hex(pub Vec<u8>);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an even number of hexadecimal digits")]
pub struct HexMalformed;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CertificateRequest")]
pub struct Request {
    /// PKCS #10, DER; only its key counts.
    pub csr: Hex,
    pub proof: Proof,
}

/// Why the process may have a certificate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Proof {
    Certificate { certificate: String, signature: Hex },
    Token { id: TokenId, mac: Hex },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CertificateAnswer")]
pub struct Answer {
    /// PEM.
    pub certificate: String,
    /// PEM, of the authority that signs for all.
    pub ca: String,
    /// Of an answer to a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Hex>,
}

/// Of a token over a signing request.
pub fn request_mac(token: &CredentialHash, csr: &[u8]) -> Hex {
    Hex(mac(token, &[REQUEST, csr]).finalize().into_bytes().to_vec())
}

pub fn request_mac_holds(token: &CredentialHash, csr: &[u8], given: &Hex) -> bool {
    mac(token, &[REQUEST, csr]).verify_slice(&given.0).is_ok()
}

/// Of a token over what was answered to a signing request.
pub fn answer_mac(token: &CredentialHash, csr: &[u8], certificate: &str, ca: &str) -> Hex {
    Hex(answer(token, csr, certificate, ca).finalize().into_bytes().to_vec())
}

impl Answer {
    /// Whether only who knows the token's hash can have given this answer, to this signing request.
    pub fn is_of(&self, token: &CredentialHash, csr: &[u8]) -> bool {
        let Some(given) = &self.mac else { return false };
        answer(token, csr, &self.certificate, &self.ca).verify_slice(&given.0).is_ok()
    }
}

/// What the key of the current certificate signs (ECDSA P-256 with SHA-256, ASN.1).
pub fn renewal_message(csr: &[u8]) -> Vec<u8> {
    [RENEWAL, csr].concat()
}

fn answer(token: &CredentialHash, csr: &[u8], certificate: &str, ca: &str) -> Hmac<Sha256> {
    let length = (certificate.len() as u64).to_be_bytes();
    mac(token, &[ANSWER, &Sha256::digest(csr), &length, certificate.as_bytes(), ca.as_bytes()])
}

fn mac(token: &CredentialHash, parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac
}

impl TryFrom<String> for Hex {
    type Error = HexMalformed;

    fn try_from(text: String) -> Result<Self, HexMalformed> {
        let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8).ok_or(HexMalformed);
        let pair = |pair: &[u8]| match pair {
            [high, low] => Ok(digit(high)? << 4 | digit(low)?),
            _ => Err(HexMalformed),
        };
        text.as_bytes().chunks(2).map(pair).collect::<Result<_, _>>().map(Self)
    }
}

impl From<Hex> for String {
    fn from(Hex(bytes): Hex) -> Self {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_holds_for_its_token_request_and_answer_only() {
        let (ours, other) = (CredentialHash::of(b"ours"), CredentialHash::of(b"other"));
        let mac = request_mac(&ours, b"csr");
        assert!(request_mac_holds(&ours, b"csr", &mac));
        assert!(!request_mac_holds(&other, b"csr", &mac));
        assert!(!request_mac_holds(&ours, b"another", &mac));
        assert!(!request_mac_holds(&ours, b"csr", &Hex(mac.0[..16].to_vec())));

        let (certificate, ca) = ("certificate".to_owned(), "ca".to_owned());
        let mac = Some(answer_mac(&ours, b"csr", &certificate, &ca));
        let answer = Answer { certificate, ca, mac };
        assert!(answer.is_of(&ours, b"csr"));
        assert!(!answer.is_of(&other, b"csr"));
        assert!(!answer.is_of(&ours, b"another"));
        let moved = Answer { certificate: "certificatec".to_owned(), ca: "a".to_owned(), ..answer.clone() };
        assert!(!moved.is_of(&ours, b"csr"));
        assert!(!Answer { mac: None, ..answer.clone() }.is_of(&ours, b"csr"));
        let reflected = Answer { mac: Some(request_mac(&ours, b"csr")), ..answer };
        assert!(!reflected.is_of(&ours, b"csr"));
    }

    #[test]
    fn hexadecimal_digits_come_in_pairs() {
        assert_eq!(Hex::try_from("00fF".to_owned()), Ok(Hex(vec![0, 255])));
        assert_eq!(String::from(Hex(vec![0, 255])), "00ff");
        for malformed in ["0", "0g", "é"] {
            assert_eq!(Hex::try_from(malformed.to_owned()), Err(HexMalformed), "{malformed}");
        }
    }
}
