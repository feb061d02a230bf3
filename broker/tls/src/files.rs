//! Certificates and keys in files, in PEM.

use std::fs::OpenOptions;
use std::hash::{BuildHasher, Hash, RandomState};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use weir_security::secret::Secret;

/// The most bytes of a file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a file.
///
/// # Errors
/// When it is no regular file, cannot be read, or has more than a mebibyte; the message names it.
pub fn read(folder: &Path, name: &str) -> anyhow::Result<Vec<u8>> {
    let path = folder.join(name);
    let what = || format!("read {}", path.display());
    let mut bytes = Vec::new();
    // Without the flag the opening of a pipe waits for somebody who writes into it.
    let flag = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flag).open(&path).with_context(what)?;
    let is_file = file.metadata().with_context(what)?.is_file();
    ensure!(is_file, "{} is not a regular file", path.display());
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(what)?;
    ensure!(
        bytes.len() as u64 <= FILE_BYTES_MAX,
        "{} has more than {FILE_BYTES_MAX} bytes",
        path.display()
    );
    Ok(bytes)
}

/// The certificates in PEM, at least one. `name` is how an error calls them.
///
/// # Errors
/// When there is none, or one is malformed.
pub fn certificates(pem: &[u8], name: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found
        .map_err(|error| anyhow::anyhow!("{name}: no certificates in PEM: {}", said(&error)))?;
    ensure!(!found.is_empty(), "{name}: there is no certificate in PEM");
    Ok(found)
}

/// The private key in PEM: PKCS#8, PKCS#1 or SEC1.
///
/// # Errors
/// When there is none.
pub fn private_key(pem: &Secret, name: &str) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.expose())
        .map_err(|error| anyhow::anyhow!("{name}: no private key in PEM: {}", said(&error)))
}

/// What is wrong with PEM. The library prints lines of it as lists of numbers.
fn said(error: &pem::Error) -> String {
    match error {
        // Despite its name, the marker is the kind alone.
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("the end of a {} is missing", String::from_utf8_lossy(end_marker))
        }
        pem::Error::IllegalSectionStart { .. } => "a line of dashes does not end".to_owned(),
        pem::Error::NoItemsFound => "there is none".to_owned(),
        other => other.to_string(),
    }
}

/// What the last look at some files found, as a hash. At first nothing has been looked at.
#[derive(Debug, Default)]
pub struct FileContent {
    hasher: RandomState,
    content: u64,
}

impl FileContent {
    /// Takes note of what was found. Returns whether it is news.
    pub fn is_new(&mut self, found: impl Hash) -> bool {
        let content = self.hasher.hash_one(found);
        std::mem::replace(&mut self.content, content) != content
    }
}
