//! Where an identity is kept between starts: a folder, or what a process brings along.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use async_trait::async_trait;

use crate::identity::Identity;

#[async_trait]
pub trait Vault: Send + Sync {
    /// None where none is kept yet.
    async fn load(&self) -> anyhow::Result<Option<Identity>>;

    /// Keeps it whole or not at all, in the place of what was loaded last.
    async fn save(&self, identity: &Identity) -> Result<(), SaveFailed>;
}

#[derive(Debug, thiserror::Error)]
pub enum SaveFailed {
    /// Another replica kept its own meanwhile: that is the one.
    #[error("another replica was faster")]
    Conflict,
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// One file, for its owner only.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    fn file(&self) -> PathBuf {
        self.0.join("identity.json")
    }

    fn write(&self, identity: &Identity) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.0)?;
        let (file, fresh) = (self.file(), self.file().with_extension("new"));
        let mut options = std::fs::OpenOptions::new();
        let mut written = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        written.write_all(&serde_json::to_vec(identity)?)?;
        written.sync_all()?;
        std::fs::rename(&fresh, &file)
    }
}

#[async_trait]
impl Vault for Folder {
    async fn load(&self) -> anyhow::Result<Option<Identity>> {
        let file = self.file();
        match std::fs::read(&file) {
            Ok(bytes) => {
                let identity = serde_json::from_slice(&bytes);
                identity.map(Some).with_context(|| format!("{} is malformed", file.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to read {}", file.display())),
        }
    }

    async fn save(&self, identity: &Identity) -> Result<(), SaveFailed> {
        let written = self.write(identity);
        Ok(written.with_context(|| format!("failed to write {}", self.file().display()))?)
    }
}
