//! Signatures that agents check: who signed with which key, over which bytes, and for what.
//!
//! A signature is Ed25519 (RFC 8032) over a context, a zero byte and the bytes that travel, so that one of one
//! kind never passes for another.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    Assertion,
    Delegation,
    Roster,
}

/// The beginning of the SHA-256 of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId([u8; 8]);

pub const KEY_ID_BYTES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signature([u8; 64]);

/// What precedes the key in a SubjectPublicKeyInfo of Ed25519, in DER (RFC 8410, 4).
const SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A private key: nothing of it is ever printed.
pub struct Signer {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {0} bytes in base64")]
pub struct NotBase64(usize);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key's id: 16 lower-case hexadecimal digits")]
pub struct NotAKeyId;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not of this key over these bytes")]
pub struct SignatureWrong;

impl Context {
    const fn name(self) -> &'static str {
        match self {
            Self::Assertion => "drover assertion 1",
            Self::Delegation => "drover delegation 1",
            Self::Roster => "drover roster 1",
        }
    }

    /// The bytes that are signed.
    pub fn message(self, bytes: &[u8]) -> Vec<u8> {
        [self.name().as_bytes(), &[0], bytes].concat()
    }
}

impl Signer {
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed");
        let public = pair.public_key().as_ref().try_into().expect("a public key has 32 bytes");
        Self { pair, public: PublicKey(public) }
    }

    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub fn id(&self) -> KeyId {
        self.public.id()
    }

    pub fn sign(&self, context: Context, bytes: &[u8]) -> Signature {
        let signature = self.pair.sign(&context.message(bytes));
        Signature(signature.as_ref().try_into().expect("a signature has 64 bytes"))
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.id())
    }
}

impl PublicKey {
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// As certificates hold it: a SubjectPublicKeyInfo in DER.
    pub fn to_spki(self) -> Vec<u8> {
        [SPKI, &self.0].concat()
    }

    /// None where the key is of another kind.
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        der.strip_prefix(SPKI)?.try_into().ok().map(Self)
    }

    pub fn id(&self) -> KeyId {
        let digest = Sha256::digest(self.0);
        KeyId(std::array::from_fn(|at| digest[at]))
    }

    pub fn verify(
        &self,
        context: Context,
        bytes: &[u8],
        signature: &Signature,
    ) -> Result<(), SignatureWrong> {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(&context.message(bytes), &signature.0).map_err(|_| SignatureWrong)
    }
}

impl Signature {
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signature(..)")
    }
}

impl KeyId {
    pub fn as_bytes(&self) -> &[u8; KEY_ID_BYTES] {
        &self.0
    }

    pub const fn from_bytes(bytes: [u8; KEY_ID_BYTES]) -> Self {
        Self(bytes)
    }
}

impl TryFrom<String> for KeyId {
    type Error = NotAKeyId;

    fn try_from(text: String) -> Result<Self, NotAKeyId> {
        let number = u64::from_str_radix(&text, 16).map_err(|_| NotAKeyId)?;
        let id = Self(number.to_be_bytes());
        if id.to_string() == text { Ok(id) } else { Err(NotAKeyId) }
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn decode<const N: usize>(text: &str) -> Result<[u8; N], NotBase64> {
    BASE64_STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(NotBase64(N))
}

impl TryFrom<String> for PublicKey {
    type Error = NotBase64;

    fn try_from(text: String) -> Result<Self, NotBase64> {
        decode(&text).map(Self)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        BASE64_STANDARD.encode(key.0)
    }
}

impl TryFrom<String> for Signature {
    type Error = NotBase64;

    fn try_from(text: String) -> Result<Self, NotBase64> {
        decode(&text).map(Self)
    }
}

impl From<Signature> for String {
    fn from(signature: Signature) -> Self {
        BASE64_STANDARD.encode(signature.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_one_key_one_context_and_these_bytes() {
        let (signer, other) = (Signer::from_seed(&[1; 32]), Signer::from_seed(&[2; 32]));
        let signature = signer.sign(Context::Assertion, b"bytes");
        let check =
            |signer: &Signer, context, bytes: &[u8]| signer.public().verify(context, bytes, &signature);
        assert_eq!(check(&signer, Context::Assertion, b"bytes"), Ok(()));
        assert_eq!(check(&other, Context::Assertion, b"bytes"), Err(SignatureWrong));
        assert_eq!(check(&signer, Context::Delegation, b"bytes"), Err(SignatureWrong));
        assert_eq!(check(&signer, Context::Assertion, b"byte"), Err(SignatureWrong));
    }

    #[test]
    fn keys_and_signatures_round_trip_as_base64_of_their_length_only() {
        let key = Signer::from_seed(&[1; 32]).public();
        assert_eq!(PublicKey::try_from(String::from(key)), Ok(key));
        assert_eq!(PublicKey::from_spki(&key.to_spki()), Some(key));
        assert_eq!(PublicKey::from_spki(key.as_bytes()), None);
        assert_eq!(Signature::try_from(String::from(key)), Err(NotBase64(64)));
        assert_eq!(PublicKey::try_from("x".to_owned()), Err(NotBase64(32)));
    }

    #[test]
    fn nothing_of_a_private_key_is_printed() {
        assert_eq!(format!("{:?}", Signer::from_seed(&[1; 32])), "Signer(34750f98bd59fcfc)");
    }
}
