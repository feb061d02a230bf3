//! Logs that were set aside: directories with records whose topic is not in the metadata. The
//! broker neither reads nor writes them. `strays` lists them, and `remove_strays` removes them at a
//! person's command.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use super::partition_dir::STRAY;

/// A log that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Its directory: topic, partition, a random part and `-stray`.
    pub name: String,
    /// The size of its files in bytes.
    pub bytes: u64,
}

/// Formats the size and the name as one line.
impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.bytes, self.name)
    }
}

/// Lists the logs in a log directory that were set aside, by name. A broker may be using the
/// directory.
///
/// # Errors
/// When it cannot be read.
pub fn strays(root: &Path) -> io::Result<Vec<Stray>> {
    let mut strays = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // A link points elsewhere.
        if name.ends_with(STRAY) && entry.file_type()?.is_dir() {
            match size(&entry.path()) {
                Ok(bytes) => strays.push(Stray { name, bytes }),
                // Another process is removing it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    strays.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(strays)
}

fn size(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0_u64;
    for entry in fs::read_dir(dir)? {
        bytes = bytes.saturating_add(entry?.metadata()?.len());
    }
    Ok(bytes)
}

/// Removes the logs that were set aside, with their records, for good, and calls `removed` for
/// each. The broker that uses the directory is not affected.
///
/// # Errors
/// When one cannot be removed; those before it are removed.
pub fn remove_strays(root: &Path, mut removed: impl FnMut(&Stray)) -> io::Result<()> {
    for stray in strays(root)? {
        match fs::remove_dir_all(root.join(&stray.name)) {
            Ok(()) => removed(&stray),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_set_aside_is_listed_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for (dir, bytes) in [
            ("t-0", 7),
            ("t-0.ab-stray", 10),
            ("a-1.cd-stray", 3),
            ("t-1.ef-delete", 1),
            ("elsewhere", 5),
        ] {
            fs::create_dir(at(dir)).unwrap();
            fs::write(at(dir).join("00000000000000000000.log"), vec![0; bytes]).unwrap();
        }
        fs::write(at("a-file-stray"), "x").unwrap();
        std::os::unix::fs::symlink(at("t-0"), at("a-link-stray")).unwrap();
        let lines = |strays: &[Stray]| strays.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(lines(&strays(root.path()).unwrap()), ["3 a-1.cd-stray", "10 t-0.ab-stray"]);
        let mut removed = Vec::new();
        remove_strays(root.path(), |stray| removed.push(stray.clone())).unwrap();
        assert_eq!(lines(&removed), ["3 a-1.cd-stray", "10 t-0.ab-stray"]);
        assert!(strays(root.path()).unwrap().is_empty());
        for left in ["t-0", "t-1.ef-delete", "elsewhere", "a-file-stray", "a-link-stray"] {
            assert!(fs::symlink_metadata(at(left)).is_ok(), "{left}");
        }
        assert!(at("t-0").join("00000000000000000000.log").is_file());
        assert!(strays(&at("nowhere")).is_err());
    }
}
