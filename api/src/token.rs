//! Bearer tokens: `drv_<id>_<secret><checksum>`.
//!
//! The prefix and the checksum let secret scanners find leaks and let us refuse garbage before any
//! table is asked. Only a token's SHA-256 is ever stored or compared.

use std::fmt;

use rand::TryRngCore;
use rand::rngs::OsRng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::assertion::proof_signer;
use crate::signed::PublicKey;

/// What every token begins with.
pub const PREFIX: &str = "drv_";
const ID_CHARS: usize = 12;
/// 43 characters of base 62 hold 256 bits.
const SECRET_CHARS: usize = 43;
/// Six characters of base 62 hold a CRC-32.
const CHECKSUM_CHARS: usize = 6;
/// Longest JWT that is looked at, in bytes: those of CI systems take about one KiB.
pub const JWT_BYTES_MAX: usize = 16 << 10;
const BASE32: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Length of every token.
pub const TOKEN_CHARS: usize = PREFIX.len() + ID_CHARS + 1 + SECRET_CHARS + CHECKSUM_CHARS;

/// The public part of a token, by which it is listed, logged and revoked.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(String);

/// SHA-256 of a whole credential.
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct CredentialHash([u8; 32]);

/// A well-formed token as a client presented it: who it claims to be and what proves it.
#[derive(Clone, Debug)]
pub struct Presented {
    pub id: TokenId,
    pub hash: CredentialHash,
}

/// A fresh token, shown once.
pub struct Generated {
    pub id: TokenId,
    pub hash: CredentialHash,
    pub proof_key: PublicKey,
    pub secret: Secret,
}

/// Text that never reaches a log: its `Debug` prints nothing of it.
pub struct Secret(String);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a Drover token")]
pub struct TokenMalformed;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a lower-case hexadecimal SHA-256")]
pub struct HashMalformed;

/// Makes a token of 256 random bits.
pub fn generate() -> Generated {
    let id = TokenId(random_id());
    let body = format!("{PREFIX}{id}_{}", random_base62(SECRET_CHARS));
    let secret = format!("{body}{}", checksum(&body));
    let proof_key = proof_signer(secret.as_bytes()).public();
    Generated { id, hash: CredentialHash::of(secret.as_bytes()), proof_key, secret: Secret(secret) }
}

/// The stable part of a principal or an id, drawn so that it never comes twice.
pub fn random_id() -> String {
    random_base62(ID_CHARS).to_ascii_lowercase()
}

impl Presented {
    pub fn parse(text: &str) -> Result<Self, TokenMalformed> {
        if text.len() != TOKEN_CHARS || !text.is_ascii() {
            return Err(TokenMalformed);
        }
        let (body, sum) = text.split_at(TOKEN_CHARS - CHECKSUM_CHARS);
        let rest = body.strip_prefix(PREFIX).ok_or(TokenMalformed)?;
        let (id, secret) = rest.split_once('_').ok_or(TokenMalformed)?;
        let id = TokenId::try_from(id.to_owned())?;
        if !secret.bytes().all(|byte| byte.is_ascii_alphanumeric()) || checksum(body) != sum {
            return Err(TokenMalformed);
        }
        Ok(Self { id, hash: CredentialHash::of(text.as_bytes()) })
    }
}

impl Presented {
    /// A JWT, in the compact form of RFC 7515: known by its hash, as a token is, from its first use on. The id is of
    /// what is signed alone: a signature can be written in several ways, and none makes another JWT of it.
    pub fn of_jwt(text: &str) -> Result<Self, TokenMalformed> {
        let sound = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        // Every header of one is a JSON object, whose first two bytes are `{"` and give these.
        let is_jwt = text.len() <= JWT_BYTES_MAX
            && text.starts_with("ey")
            && text.split('.').count() == 3
            && text.split('.').all(sound);
        if !is_jwt {
            return Err(TokenMalformed);
        }
        let (signed, _) = text.rsplit_once('.').ok_or(TokenMalformed)?;
        let hash = CredentialHash::of(text.as_bytes());
        let id = CredentialHash::of(signed.as_bytes()).0;
        let id = id.iter().take(ID_CHARS).map(|byte| char::from(BASE32[usize::from(byte % 32)]));
        Ok(Self { id: TokenId(id.collect()), hash })
    }
}

impl CredentialHash {
    pub fn of(credential: &[u8]) -> Self {
        Self(Sha256::digest(credential).into())
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for CredentialHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for CredentialHash {}

impl std::hash::Hash for CredentialHash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for CredentialHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialHash(..)")
    }
}

impl TryFrom<String> for CredentialHash {
    type Error = HashMalformed;

    fn try_from(text: String) -> Result<Self, HashMalformed> {
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(HashMalformed);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(0..) {
            *byte = u8::from_str_radix(&text[pair * 2..pair * 2 + 2], 16).map_err(|_| HashMalformed)?;
        }
        Ok(Self(bytes))
    }
}

impl From<CredentialHash> for String {
    fn from(hash: CredentialHash) -> Self {
        hash.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for TokenId {
    type Error = TokenMalformed;

    fn try_from(text: String) -> Result<Self, TokenMalformed> {
        let allowed = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
        if text.len() == ID_CHARS && text.bytes().all(allowed) { Ok(Self(text)) } else { Err(TokenMalformed) }
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.0
    }
}

impl TokenId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Secret {
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Draws base-62 characters without bias: bytes past the last whole multiple of 62 are drawn again.
fn random_base62(chars: usize) -> String {
    let mut text = String::with_capacity(chars);
    let mut bytes = [0; 64];
    while text.len() < chars {
        OsRng.try_fill_bytes(&mut bytes).expect("the operating system's random source answers");
        let unbiased = bytes.iter().filter(|byte| **byte < 248);
        text.extend(unbiased.map(|byte| char::from(BASE62[usize::from(byte % 62)])).take(chars - text.len()));
    }
    text
}

fn checksum(body: &str) -> String {
    let mut rest = crc32fast::hash(body.as_bytes());
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_token_parses_to_its_own_id_and_hash() {
        let token = generate();
        let presented = Presented::parse(token.secret.expose()).unwrap();
        assert_eq!(presented.id, token.id);
        assert_eq!(presented.hash, token.hash);
    }

    #[test]
    fn anything_that_is_not_exactly_a_token_is_refused() {
        let good = generate().secret.expose().to_owned();
        let mut flipped = good.clone().into_bytes();
        flipped[20] = if flipped[20] == b'a' { b'b' } else { b'a' };
        let cases = [
            String::new(),
            " ".into(),
            ",".into(),
            "drv_".into(),
            good[..good.len() - 1].to_owned(),
            format!("{good}x"),
            format!(" {good}"),
            good.to_uppercase(),
            good.replacen("drv_", "drw_", 1),
            String::from_utf8(flipped).unwrap(),
            "é".repeat(TOKEN_CHARS / 2),
        ];
        for case in cases {
            assert!(Presented::parse(&case).is_err(), "{case:?}");
        }
    }

    #[test]
    fn a_jwt_is_known_by_its_hash_and_nothing_else_is_one() {
        let jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln";
        let presented = Presented::of_jwt(jwt).unwrap();
        assert_eq!(presented.hash, CredentialHash::of(jwt.as_bytes()));
        assert_eq!(TokenId::try_from(presented.id.to_string()), Ok(presented.id.clone()));
        let other = Presented::of_jwt(&format!("{jwt}A")).unwrap();
        assert!(other.id == presented.id && other.hash != presented.hash, "of another signature");
        assert_ne!(Presented::of_jwt(&jwt.replace(".eyJ", ".eyK")).unwrap().id, presented.id);
        let long = format!("ey{}.a.a", "a".repeat(JWT_BYTES_MAX));
        for unsound in [
            "", "ey", "ey.a", "ey..a", "ey.a.", ".a.a", "ey.a.a.a", "ab.a.a", "ey.a.a=", "ey.a b.a",
            "eyé.a.a", &long,
        ] {
            assert!(Presented::of_jwt(unsound).is_err(), "{unsound:?}");
        }
        assert!(Presented::of_jwt(generate().secret.expose()).is_err());
    }

    #[test]
    fn the_fuzz_corpus_is_replayed() {
        let corpus = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/token")).unwrap();
        let mut sound = 0;
        for entry in corpus {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            if let Ok(presented) = Presented::parse(&text) {
                assert_eq!(text.split('_').nth(1), Some(presented.id.as_str()));
                sound += 1;
            }
        }
        assert!(sound >= 1, "the corpus is gone");
    }

    #[test]
    fn nothing_of_a_secret_reaches_debug_output() {
        let token = generate();
        let text =
            format!("{:?} {:?} {:?}", token.secret, token.hash, Presented::parse(token.secret.expose()));
        assert!(!text.contains(&token.secret.expose()[17..]), "{text}");
        assert!(!text.contains(&String::from(token.hash)), "{text}");
    }

    #[test]
    fn hashes_round_trip_as_lower_case_hexadecimal_only() {
        let hash = CredentialHash::of(b"x");
        let text = String::from(hash);
        assert_eq!(CredentialHash::try_from(text.clone()), Ok(hash));
        assert!(CredentialHash::try_from(text.to_uppercase()).is_err());
        assert!(CredentialHash::try_from("é".repeat(32)).is_err());
    }
}
