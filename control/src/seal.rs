//! Seals the secret fields of objects with a key that is not in the store.
//!
//! `version (1) | key id (8) | nonce (12) | ciphertext and tag`, AES-256-GCM; kind and key of the object are
//! authenticated with it, so that a secret cannot be moved to another object.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 8;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN;

pub struct Seal {
    key: LessSafeKey,
    id: [u8; KEY_ID_BYTES],
    random: SystemRandom,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealBroken {
    #[error("was sealed with another key than the one of --key-file")]
    AnotherKey,
    #[error("was changed, or is another object's")]
    Changed,
    #[error("was sealed by a newer program")]
    TooNew,
}

impl Seal {
    /// Reads the key, and makes one where there is no file yet.
    pub fn from_file(file: &Path) -> anyhow::Result<Self> {
        let context = || format!("the key file {}", file.display());
        if !file.try_exists().with_context(context)? {
            make_key(file).with_context(context)?;
        }
        let mode = std::fs::metadata(file).with_context(context)?.mode() & 0o777;
        ensure!(mode & 0o077 == 0, "{} may be read by others (mode {mode:o}): chmod 600 it", context());
        let bytes = std::fs::read(file).with_context(context)?;
        let Ok(bytes) = <[u8; KEY_BYTES]>::try_from(bytes) else {
            bail!("{} must have {KEY_BYTES} bytes", context());
        };
        Ok(Self::new(&bytes))
    }

    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        let unbound = UnboundKey::new(&AES_256_GCM, key).expect("the key has the algorithm's length");
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&digest(&SHA256, key).as_ref()[..KEY_ID_BYTES]);
        Self { key: LessSafeKey::new(unbound), id, random: SystemRandom::new() }
    }

    pub fn seal(&self, kind: &str, key: &str, secret: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).expect("the kernel gives random bytes");
        let mut sealed = vec![VERSION];
        sealed.extend(self.id);
        sealed.extend(nonce);
        let mut text = secret.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), object(kind, key), &mut text)
            .expect("a secret is shorter than AES-GCM's limit");
        sealed.extend(text);
        sealed
    }

    pub fn open(&self, kind: &str, key: &str, sealed: &[u8]) -> Result<Vec<u8>, SealBroken> {
        match sealed.first() {
            Some(&VERSION) => {}
            Some(version) if *version > VERSION => return Err(SealBroken::TooNew),
            _ => return Err(SealBroken::Changed),
        }
        let (head, text) = sealed.split_at_checked(HEAD_BYTES).ok_or(SealBroken::Changed)?;
        if head[1..=KEY_ID_BYTES] != self.id {
            return Err(SealBroken::AnotherKey);
        }
        let nonce = Nonce::try_assume_unique_for_key(&head[1 + KEY_ID_BYTES..]);
        let mut text = text.to_vec();
        let opened = self
            .key
            .open_in_place(nonce.map_err(|_| SealBroken::Changed)?, object(kind, key), &mut text)
            .map_err(|_| SealBroken::Changed)?;
        Ok(opened.to_vec())
    }
}

/// The length of the kind goes first: no two objects have the same bytes.
fn object(kind: &str, key: &str) -> Aad<Vec<u8>> {
    let mut bytes = (kind.len() as u64).to_be_bytes().to_vec();
    bytes.extend(kind.as_bytes());
    bytes.extend(key.as_bytes());
    Aad::from(bytes)
}

/// Written whole under another name first: a key file is never there by halves.
fn make_key(file: &Path) -> anyhow::Result<()> {
    let mut key = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut key).ok().context("no random bytes")?;
    let fresh = file.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut written = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    written.write_all(&key)?;
    written.sync_all()?;
    std::fs::rename(&fresh, file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_same_key_and_object_open_what_was_sealed() {
        let seal = Seal::new(&[7; KEY_BYTES]);
        let sealed = seal.seal("User", "zoe", b"secret");
        assert_eq!(seal.open("User", "zoe", &sealed).unwrap(), b"secret");
        assert_ne!(sealed, seal.seal("User", "zoe", b"secret"));
        assert_eq!(seal.open("User", "eve", &sealed), Err(SealBroken::Changed));
        assert_eq!(seal.open("Userz", "oe", &sealed), Err(SealBroken::Changed));
        let other = Seal::new(&[8; KEY_BYTES]);
        assert_eq!(other.open("User", "zoe", &sealed), Err(SealBroken::AnotherKey));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(seal.open("User", "zoe", &changed).is_err(), "byte {at}");
            assert!(seal.open("User", "zoe", &sealed[..at]).is_err(), "{at} bytes");
        }
        let newer = [&[VERSION + 1], &sealed[1..]].concat();
        assert_eq!(seal.open("User", "zoe", &newer), Err(SealBroken::TooNew));
    }

    #[test]
    fn a_key_file_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let sealed = Seal::from_file(&file).unwrap().seal("User", "zoe", b"secret");
        assert_eq!(Seal::from_file(&file).unwrap().open("User", "zoe", &sealed).unwrap(), b"secret");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Seal::from_file(&file).err().unwrap().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        let short = folder.path().join("short");
        std::fs::write(&short, "short").unwrap();
        std::fs::set_permissions(&short, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Seal::from_file(&short).is_err());
    }
}
