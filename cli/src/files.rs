//! Files with secrets: for their owner only, and whole or not at all.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Replaces a file, through a link where it is one.
pub(crate) fn replace(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let context = || format!("failed to write {}", file.display());
    let target = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    if let Some(folder) = target.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_folder(folder)?;
    }
    let mut name = target.file_name().with_context(context)?.to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let fresh = target.with_file_name(name);
    let write = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut written = options.open(&fresh)?;
        written.write_all(bytes)?;
        written.sync_all()?;
        std::fs::rename(&fresh, &target)
    };
    write().with_context(context)
}

/// A file that has to be there, as text.
pub(crate) fn text(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))
}

/// Holds off everybody else who locks what is beside a file, until it is dropped.
pub(crate) fn lock(file: &Path) -> anyhow::Result<File> {
    let locked = beside(file)?;
    locked.lock().with_context(|| not_locked(file))?;
    Ok(locked)
}

/// The same where nobody else does.
pub(crate) fn try_lock(file: &Path) -> anyhow::Result<Option<File>> {
    let locked = beside(file)?;
    match locked.try_lock() {
        Ok(()) => Ok(Some(locked)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| not_locked(file)),
    }
}

fn not_locked(file: &Path) -> String {
    format!("failed to lock what is beside {}", file.display())
}

/// The file that is locked, and never replaced.
fn beside(file: &Path) -> anyhow::Result<File> {
    let mut name = file.file_name().context("the file has no name")?.to_owned();
    name.push(".lock");
    let beside = file.with_file_name(name);
    if let Some(folder) = beside.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_folder(folder)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&beside).with_context(|| format!("failed to open {}", beside.display()))
}

/// A folder for its owner only; one that is there stays as it is.
pub(crate) fn make_folder(folder: &Path) -> anyhow::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).with_context(|| format!("failed to make the folder {}", folder.display()))
}

/// What is there, or nothing.
pub(crate) fn read(file: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("failed to read {}", file.display())),
    }
}

pub(crate) fn home() -> anyhow::Result<PathBuf> {
    std::env::home_dir().context("there is no home folder: name the file with a flag")
}

/// A folder of ours under one that the XDG base directories name, or under the home folder.
pub(crate) fn folder(variable: &str, under_home: &str) -> anyhow::Result<PathBuf> {
    let base = std::env::var_os(variable).map(PathBuf::from).filter(|base| base.is_absolute());
    Ok(match base {
        Some(base) => base,
        None => home()?.join(under_home),
    }
    .join("drover"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_file_is_replaced_whole_for_its_owner_only_and_a_link_stays_one() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a/file"), folder.path().join("link"));
        replace(&file, b"one").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, b"two").unwrap();
        assert_eq!(read(&file).unwrap().unwrap(), b"two");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path().join("a")).unwrap().count(), 1);
        assert_eq!(read(&folder.path().join("none")).unwrap(), None);
    }
}
