//! What a gateway shows an agent for a user: control's word for who presents a credential, and the credential's own
//! word, for minutes and one cluster, that it was presented to this gateway.
//!
//! ```text
//! assertion  = version(1 byte) proof key(32) issued_at(u64) expires_at(u64) flags(1) identity
//! delegation = version(1 byte) issued_at(u64) expires_at(u64) text(cluster) text(gateway)
//! times are seconds since 1970, numbers are big endian, text = length(u8) bytes; identity as in `identity`
//! sent       = key id(8) signature(64) assertion           and signature(64) delegation
//! ```
//! The bytes of an assertion follow from the user and the token, so that a gateway makes them itself and control
//! pushes the signature alone.

use ring::hkdf::{HKDF_SHA256, Salt};

use crate::identity::{Identity, IdentityMalformed};
use crate::signed::{Context, KEY_ID_BYTES, KeyId, PublicKey, Signature, SignatureWrong, Signer};

const VERSION: u8 = 1;
/// The longest that a delegation is good for, in seconds.
pub const DELEGATION_LIFETIME_S: u64 = 600;
const GROUPS_LEFT_OUT: u8 = 1;
const SIGNATURE_BYTES: usize = 64;

/// Control's word for the user of one credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// What the credential's delegations are checked with.
    pub proof_key: PublicKey,
    pub issued_at_s: u64,
    pub expires_at_s: u64,
    /// The user is in more groups than travel: these are the ones that some cluster has listed.
    pub groups_left_out: bool,
    pub identity: Identity,
}

/// A credential's word for the gateway that it was presented to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    pub cluster: String,
    /// As in the gateway's certificate.
    pub gateway: String,
    pub issued_at_s: u64,
    pub expires_at_s: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the bytes end early, or go on where they should end")]
    Length,
    #[error("the version is unknown")]
    Version,
    #[error("a flag is unknown")]
    Flags,
    #[error("a name is not UTF-8, or longer than 255 bytes")]
    Text,
    #[error("the identity: {0}")]
    Identity(#[from] IdentityMalformed),
}

/// The key that only who has the credential can sign with.
pub fn proof_signer(credential: &[u8]) -> Signer {
    let salt = Salt::new(HKDF_SHA256, b"drover proof 1");
    let mut seed = [0; 32];
    let key = salt.extract(credential);
    let expanded = key.expand(&[b"ed25519"], HKDF_SHA256);
    expanded.and_then(|okm| okm.fill(&mut seed)).expect("32 bytes are one block of HKDF");
    Signer::from_seed(&seed)
}

impl Assertion {
    pub fn encode(&self) -> Result<Vec<u8>, IdentityMalformed> {
        let mut out = vec![VERSION];
        out.extend_from_slice(self.proof_key.as_bytes());
        out.extend_from_slice(&self.issued_at_s.to_be_bytes());
        out.extend_from_slice(&self.expires_at_s.to_be_bytes());
        out.push(if self.groups_left_out { GROUPS_LEFT_OUT } else { 0 });
        out.extend_from_slice(&self.identity.encode()?);
        Ok(out)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input(bytes);
        input.version()?;
        let proof_key = PublicKey::from_bytes(input.take()?);
        let (issued_at_s, expires_at_s) = (input.number()?, input.number()?);
        let groups_left_out = match input.take()? {
            [0] => false,
            [GROUPS_LEFT_OUT] => true,
            _ => return Err(Malformed::Flags),
        };
        let identity = Identity::decode(input.0)?;
        Ok(Self { proof_key, issued_at_s, expires_at_s, groups_left_out, identity })
    }
}

impl Delegation {
    /// As it travels: signed by the credential's own key.
    pub fn sign(&self, signer: &Signer) -> Result<Vec<u8>, Malformed> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.issued_at_s.to_be_bytes());
        bytes.extend_from_slice(&self.expires_at_s.to_be_bytes());
        for text in [&self.cluster, &self.gateway] {
            bytes.push(u8::try_from(text.len()).map_err(|_| Malformed::Text)?);
            bytes.extend_from_slice(text.as_bytes());
        }
        let signature = signer.sign(Context::Delegation, &bytes);
        Ok([&signature.as_bytes()[..], &bytes].concat())
    }

    /// Reads what travelled; whoever reads it checks the signature.
    pub fn split(sent: &[u8]) -> Result<(SignedDelegation<'_>, Self), Malformed> {
        let mut input = Input(sent);
        let signature = Signature::from_bytes(input.take::<SIGNATURE_BYTES>()?);
        let bytes = input.0;
        input.version()?;
        let (issued_at_s, expires_at_s) = (input.number()?, input.number()?);
        let (cluster, gateway) = (input.text()?, input.text()?);
        if !input.0.is_empty() {
            return Err(Malformed::Length);
        }
        Ok((SignedDelegation { signature, bytes }, Self { cluster, gateway, issued_at_s, expires_at_s }))
    }
}

/// The bytes of a delegation and what is said to sign them.
pub struct SignedDelegation<'a> {
    signature: Signature,
    bytes: &'a [u8],
}

impl SignedDelegation<'_> {
    pub fn check(&self, key: &PublicKey) -> Result<(), SignatureWrong> {
        key.verify(Context::Delegation, self.bytes, &self.signature)
    }
}

/// Puts an assertion together as it travels.
pub fn sent(key: KeyId, signature: &Signature, assertion: &[u8]) -> Vec<u8> {
    [&key.as_bytes()[..], signature.as_bytes(), assertion].concat()
}

/// Takes apart what [`sent`] put together.
pub fn received(bytes: &[u8]) -> Result<(KeyId, Signature, &[u8]), Malformed> {
    let mut input = Input(bytes);
    let key = KeyId::from_bytes(input.take::<KEY_ID_BYTES>()?);
    Ok((key, Signature::from_bytes(input.take::<SIGNATURE_BYTES>()?), input.0))
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(Malformed::Length)?;
        self.0 = tail;
        Ok(*head)
    }

    fn version(&mut self) -> Result<(), Malformed> {
        if self.take()? == [VERSION] { Ok(()) } else { Err(Malformed::Version) }
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let [length] = self.take()?;
        let (text, tail) = self.0.split_at_checked(length.into()).ok_or(Malformed::Length)?;
        self.0 = tail;
        std::str::from_utf8(text).map(str::to_owned).map_err(|_| Malformed::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assertion() -> Assertion {
        Assertion {
            proof_key: proof_signer(b"credential").public(),
            issued_at_s: 1000,
            expires_at_s: 4600,
            groups_left_out: true,
            identity: Identity {
                user: "zoë".into(),
                uid: "local:user/7".into(),
                groups: ["local:group/ops".to_owned()].into(),
                extras: [("drover.io/token-id".to_owned(), vec!["t".to_owned()])].into(),
            },
        }
    }

    fn delegation() -> Delegation {
        let (cluster, gateway) = ("c-one".into(), "gateway/a".into());
        Delegation { cluster, gateway, issued_at_s: 1000, expires_at_s: 1600 }
    }

    #[test]
    fn what_travels_is_read_as_it_was_written() {
        let bytes = assertion().encode().unwrap();
        let signature = proof_signer(b"control").sign(Context::Assertion, &bytes);
        let key = proof_signer(b"control").id();
        let travelling = sent(key, &signature, &bytes);
        let (read_key, read_signature, read) = received(&travelling).unwrap();
        assert_eq!((read_key, read_signature), (key, signature));
        assert_eq!(Assertion::decode(read), Ok(assertion()));
    }

    #[test]
    fn a_delegation_is_good_with_its_credentials_key_alone() {
        let travelling = delegation().sign(&proof_signer(b"credential")).unwrap();
        let (signed, read) = Delegation::split(&travelling).unwrap();
        assert_eq!(read, delegation());
        assert_eq!(signed.check(&proof_signer(b"credential").public()), Ok(()));
        assert_eq!(signed.check(&proof_signer(b"another").public()), Err(SignatureWrong));
    }

    #[test]
    fn every_truncation_and_every_extension_is_refused() {
        let bytes = assertion().encode().unwrap();
        for end in 0..bytes.len() {
            assert!(Assertion::decode(&bytes[..end]).is_err(), "{end} bytes");
        }
        assert!(Assertion::decode(&[&bytes[..], b"x"].concat()).is_err());
        let bytes = delegation().sign(&proof_signer(b"credential")).unwrap();
        for end in 0..bytes.len() {
            assert!(Delegation::split(&bytes[..end]).is_err(), "{end} bytes");
        }
        assert!(Delegation::split(&[&bytes[..], b"x"].concat()).is_err());
    }

    #[test]
    fn the_fuzz_corpus_is_replayed() {
        let corpus =
            std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/assertion")).unwrap();
        let mut sound = 0;
        for entry in corpus {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            if let Ok((_, _, assertion)) = received(&bytes)
                && let Ok(decoded) = Assertion::decode(assertion)
            {
                assert_eq!(decoded.encode().as_deref(), Ok(assertion));
                sound += 1;
            }
            sound += usize::from(Delegation::split(&bytes).is_ok());
        }
        assert!(sound >= 2, "the corpus is gone");
    }

    #[test]
    fn unknown_versions_and_flags_are_refused() {
        let mut bytes = assertion().encode().unwrap();
        bytes[49] = 2;
        assert_eq!(Assertion::decode(&bytes), Err(Malformed::Flags));
        bytes[0] = 2;
        assert_eq!(Assertion::decode(&bytes), Err(Malformed::Version));
    }
}
