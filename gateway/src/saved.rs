//! What control pushed, on the disk: the last whole state, and the deltas that came after it.
//!
//! A push is on the disk before it is acknowledged, so that a gateway that starts again never serves what was
//! revoked. No usable secret is in it: tokens are hashes.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use drover_api::snapshot::delta::Delta;
use drover_api::snapshot::{DOCUMENT_BYTES_MAX, Document};

/// Deltas beyond this many bytes are written into a new whole state.
const DELTAS_BYTES_MAX: u64 = 16 << 20;

pub(crate) struct Saved {
    folder: PathBuf,
    /// Where the next delta goes; none where the last write failed, and only a whole state can follow.
    deltas: Option<File>,
}

impl Saved {
    /// Opens the folder, and reads what is there: none where nothing is, or nothing that can be used.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<(Self, anyhow::Result<Option<Document>>)> {
        let context = || format!("failed to make the folder {}", folder.display());
        std::fs::create_dir_all(folder).with_context(context)?;
        let mut saved = Self { folder: folder.to_owned(), deltas: None };
        let read = saved.read();
        Ok((saved, read))
    }

    fn whole(&self) -> PathBuf {
        self.folder.join("snapshot.json")
    }

    fn journal(&self) -> PathBuf {
        self.folder.join("deltas.jsonl")
    }

    fn read(&mut self) -> anyhow::Result<Option<Document>> {
        let whole = self.whole();
        if !whole.try_exists()? {
            return Ok(None);
        }
        let size = std::fs::metadata(&whole)?.len();
        if size > DOCUMENT_BYTES_MAX as u64 {
            bail!("{} has {size} bytes, more than {DOCUMENT_BYTES_MAX}", whole.display());
        }
        let bytes = std::fs::read(&whole)?;
        let mut document =
            Document::parse(&bytes).with_context(|| format!("{} cannot be used", whole.display()))?;
        let applied = self.apply_journal(&mut document)?;
        let deltas = OpenOptions::new().write(true).open(self.journal());
        if let Ok(mut deltas) = deltas {
            // What follows is a push that was cut off, and was not acknowledged.
            deltas.set_len(applied)?;
            std::io::Seek::seek(&mut deltas, std::io::SeekFrom::End(0))?;
            self.deltas = Some(deltas);
        }
        Ok(Some(document))
    }

    /// Applies the deltas that are there whole; says how many bytes they take.
    fn apply_journal(&self, document: &mut Document) -> anyhow::Result<u64> {
        let Ok(file) = File::open(self.journal()) else { return Ok(0) };
        let (mut reader, mut line, mut applied) = (BufReader::new(file), Vec::new(), 0);
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)?;
            if line.pop() != Some(b'\n') {
                return Ok(applied);
            }
            let delta =
                Delta::parse(&line).with_context(|| format!("{} is malformed", self.journal().display()))?;
            // Older ones led to a state that was written whole since, by a process that got no further.
            if (delta.revision, delta.issued_at) > (document.revision, document.issued_at) {
                let gap = |gap| anyhow!("{} has a gap: {gap}", self.journal().display());
                document.apply(delta).map_err(gap)?;
            }
            applied += read as u64;
        }
    }

    /// Keeps a whole state instead of all that was there.
    pub(crate) fn keep(&mut self, document: &Document) -> anyhow::Result<()> {
        self.deltas = None;
        let fresh = self.folder.join("snapshot.new");
        let mut written = private(&fresh)?;
        {
            let mut buffered = std::io::BufWriter::new(&mut written);
            serde_json::to_writer(&mut buffered, document)?;
            buffered.flush()?;
        }
        written.sync_all()?;
        std::fs::rename(&fresh, self.whole())?;
        File::open(&self.folder)?.sync_all()?;
        // Only now: with an empty journal the former state would be an older one.
        self.deltas = Some(private(&self.journal())?);
        Ok(())
    }

    /// Keeps a delta, which made `document`.
    pub(crate) fn append(&mut self, delta: &Delta, document: &Document) -> anyhow::Result<()> {
        let Some(mut deltas) = self.deltas.take() else { return self.keep(document) };
        if deltas.metadata()?.len() > DELTAS_BYTES_MAX {
            return self.keep(document);
        }
        let mut line = serde_json::to_vec(delta)?;
        line.push(b'\n');
        deltas.write_all(&line)?;
        deltas.sync_data()?;
        self.deltas = Some(deltas);
        Ok(())
    }
}

/// An empty file for its owner only.
fn private(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.with_context(|| format!("failed to write {}", path.display()))
}

#[cfg(test)]
mod tests;
