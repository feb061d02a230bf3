//! A file system in memory. A file's content is the same for everyone who opens it, and the file
//! system never fails or loses data.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_log::{Entry, File, Mode, Storage};

/// The file system.
#[derive(Debug, Default)]
pub struct Memory(Mutex<BTreeMap<PathBuf, Node>>);

#[derive(Clone, Debug)]
enum Node {
    Directory,
    File(Arc<Content>),
}

/// The bytes of a file. They live as long as a handle exists.
#[derive(Debug, Default)]
struct Content(Mutex<Vec<u8>>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn index(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

impl File for Content {
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut bytes = locked(&self.0);
        let mut at = index(position);
        for slice in slices {
            let end = at + slice.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[at..end].copy_from_slice(slice);
            at = end;
        }
        Ok(())
    }

    fn read_at(&self, target: &mut [u8], position: u64) -> io::Result<usize> {
        let bytes = locked(&self.0);
        let there = bytes.get(index(position)..).unwrap_or_default();
        let count = there.len().min(target.len());
        target[..count].copy_from_slice(&there[..count]);
        Ok(count)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(locked(&self.0).len() as u64)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        locked(&self.0).resize(index(length), 0);
        Ok(())
    }

    fn allocate(&self, _length: u64) {}

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Storage for Memory {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        let mut nodes = locked(&self.0);
        match nodes.get(path) {
            Some(Node::File(content)) => Ok(Arc::clone(content) as Arc<dyn File>),
            None if mode == Mode::Create
                && path.parent().is_some_and(|parent| nodes.contains_key(parent)) =>
            {
                let content = Arc::new(Content::default());
                nodes.insert(path.to_owned(), Node::File(Arc::clone(&content)));
                Ok(content)
            }
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        locked(&self.0).entry(path.to_owned()).or_insert(Node::Directory);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let nodes = locked(&self.0);
        let inside = nodes.iter().filter(|(inside, _)| inside.parent() == Some(path));
        let entry = |(inside, node): (&PathBuf, &Node)| Entry {
            name: inside
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            is_dir: matches!(node, Node::Directory),
        };
        Ok(inside.map(entry).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut nodes = locked(&self.0);
        let moved: Vec<PathBuf> =
            nodes.keys().filter(|path| path.starts_with(from)).cloned().collect();
        if moved.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        for path in moved {
            if let (Ok(rest), Some(node)) = (path.strip_prefix(from), nodes.remove(&path)) {
                let place = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
                nodes.insert(place, node);
            }
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let removed = locked(&self.0).remove(path);
        removed.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        locked(&self.0).retain(|inside, _| !inside.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Each replica has a file system of its own, so no lock is needed.
    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        Ok(Box::new(()))
    }

    fn boot_id(&self) -> String {
        "boot".to_owned()
    }

    fn space(&self, _path: &Path) -> io::Result<(u64, u64)> {
        Ok((1 << 40, 1 << 40))
    }
}
