//! Files of a local cluster that only their owner may read: CAs, and the certificates that they
//! issue.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;

use crate::authority::{Authority, Holder, Pair};

/// The CA in these two files, certificate and key: made if it is missing, renewed when it is due.
pub(super) fn authority_in(
    folder: &Path,
    [certificate, key]: [&str; 2],
    of_whom: &str,
    now: i64,
) -> anyhow::Result<Authority> {
    let kept = pair_in(folder, certificate, key)?;
    let authority = match &kept {
        Some(kept) => Authority::load(of_whom, kept.clone(), now)
            .with_context(|| format!("the CA in {}", folder.display()))?,
        None => Authority::new(of_whom, now)?,
    };
    if kept.as_ref() != Some(authority.pair()) {
        write_pair(folder, [certificate, key], authority.pair())?;
    }
    Ok(authority)
}

/// Issues the certificate in these two files, unless it is good.
pub(super) fn keep_issued(
    folder: &Path,
    [certificate, key]: [&str; 2],
    authority: &Authority,
    holder: Holder<'_>,
    now: i64,
) -> anyhow::Result<()> {
    let kept = pair_in(folder, certificate, key)?;
    if kept.is_some_and(|kept| authority.is_good(&kept, holder, now)) {
        return Ok(());
    }
    write_pair(folder, [certificate, key], &authority.issue(holder, now)?)
}

fn write_pair(folder: &Path, [certificate, key]: [&str; 2], pair: &Pair) -> anyhow::Result<()> {
    write(folder, key, pair.key.expose())?;
    write(folder, certificate, pair.certificate.as_bytes())
}

/// A certificate with its key, if both files are there.
fn pair_in(folder: &Path, certificate: &str, key: &str) -> anyhow::Result<Option<Pair>> {
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
