//! Files of a local cluster that only their owner may read.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;

use crate::authority::Pair;

/// A certificate with its key, if both files are there.
pub(super) fn pair_in(folder: &Path, certificate: &str, key: &str) -> anyhow::Result<Option<Pair>> {
    let read = |name: &str| match fs::read(folder.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", folder.join(name).display())),
    };
    let (Some(certificate), Some(key)) = (read(certificate)?, read(key)?) else { return Ok(None) };
    let certificate = String::from_utf8_lossy(&certificate).into_owned();
    Ok(Some(Pair { certificate, key: key.into() }))
}

/// Makes a folder that only its owner may see.
pub(super) fn make_folder(folder: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("create {}", folder.display()))
}

/// Replaces a file as a whole; only its owner may read it.
pub(super) fn write(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    make_folder(folder)?;
    let (path, new) = (folder.join(name), folder.join(format!(".{name}.new")));
    let what = || format!("write {}", path.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .with_context(what)?;
    file.write_all(bytes).with_context(what)?;
    file.sync_all().with_context(what)?;
    fs::rename(&new, &path).with_context(what)
}
