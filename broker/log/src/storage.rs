//! The part of the file system that the log uses, as a trait. So tests can substitute one that
//! crashes, fills up and loses unsynced data.

mod open_files;

use std::any::Any;
use std::fmt::Debug;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::ReadWriteFlags;

pub(crate) use self::open_files::{Lazy, OpenFiles};

/// Bytes read at a time to load the page cache.
const LOAD_BYTES: usize = 256 * 1024;

/// An open file. Reads and writes pass their position, so any number of threads may use it at once.
pub trait File: Debug + Send + Sync {
    /// Writes all of `slices`, one after the other, from `position` on.
    ///
    /// # Errors
    /// When not everything could be written; it is then unknown how much was.
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], position: u64) -> io::Result<()>;

    /// Reads into `target` from `position` on. Reads fewer bytes than fit only at the end of the
    /// file.
    ///
    /// # Errors
    /// When reading fails.
    fn read_at(&self, target: &mut [u8], position: u64) -> io::Result<usize>;

    /// Fills `target` from `position` on.
    ///
    /// # Errors
    /// When reading fails, or the file ends too early.
    fn read_exact_at(&self, target: &mut [u8], position: u64) -> io::Result<()> {
        if self.read_at(target, position)? == target.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// The file's length in bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    fn length(&self) -> io::Result<u64>;

    /// Truncates the file to `length` and frees the blocks allocated after it.
    ///
    /// # Errors
    /// When it fails.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Allocates blocks up to `length` without changing the file's length. Later writes need no
    /// allocation, which halves their cost. A hint.
    fn allocate(&self, length: u64);

    /// Returns when all earlier writes are on the disk.
    ///
    /// # Errors
    /// When they are not. The caller must never retry, because the kernel has dropped the dirty
    /// pages.
    fn sync_data(&self) -> io::Result<()>;

    /// Fills `target` from `position` on without waiting for the disk. Returns false when that is
    /// impossible.
    ///
    /// # Errors
    /// The same as [`File::read_exact_at`].
    fn read_cached(&self, target: &mut [u8], position: u64) -> io::Result<bool> {
        self.read_exact_at(target, position).map(|()| true)
    }

    /// Returns whether a read there would not wait for the disk, judged by its first and last byte.
    fn is_cached(&self, _position: u64, _length: usize) -> bool {
        true
    }

    /// Reads bytes into the page cache and waits for the disk.
    ///
    /// # Errors
    /// When reading fails.
    fn load(&self, position: u64, length: usize) -> io::Result<()> {
        let mut target = vec![0; LOAD_BYTES.min(length)];
        let end = position.saturating_add(length as u64);
        for at in (position..end).step_by(LOAD_BYTES) {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX);
            self.read_at(target.get_mut(..wanted.min(LOAD_BYTES)).unwrap_or_default(), at)?;
        }
        Ok(())
    }

    /// The descriptor, for `sendfile`. A file in memory has none.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The file must exist.
    Existing,
    /// The file is created if it does not exist.
    Create,
    /// The same as [`Mode::Create`]; only the owner may read the file.
    CreatePrivate,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name. Names that are not valid UTF-8 are never ours and are omitted.
    pub name: String,
    /// Whether it is a directory, and not a link to one.
    pub is_dir: bool,
}

/// A file system.
pub trait Storage: Debug + Send + Sync {
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// When it does not exist or cannot be opened.
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>>;

    /// Creates a directory in an existing parent. An existing directory is no error.
    ///
    /// # Errors
    /// When it cannot be created.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The entries of a directory, unordered.
    ///
    /// # Errors
    /// When it cannot be read.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;

    /// Renames a file or directory; replaces an existing file.
    ///
    /// # Errors
    /// When it fails; nothing has changed then.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and everything in it.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Returns when the entries of a directory are on the disk.
    ///
    /// # Errors
    /// The same as [`File::sync_data`].
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Returns when everything in the file system of `path` is on the disk.
    ///
    /// # Errors
    /// The same as [`File::sync_data`].
    fn sync_all(&self, path: &Path) -> io::Result<()>;

    /// Takes the exclusive lock on a file and holds it until the value is dropped. Creates the file
    /// if it does not exist.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;

    /// The id of this boot of the machine. It changes when unsynced pages may have been lost.
    fn boot_id(&self) -> String;

    /// The size of the file system in bytes, and its free bytes.
    ///
    /// # Errors
    /// When the file system does not answer.
    fn space(&self, path: &Path) -> io::Result<(u64, u64)>;
}

/// Reads a whole small file.
///
/// # Errors
/// When it does not exist, cannot be read, or is larger than `bytes_max`.
pub(crate) fn read_file(storage: &dyn Storage, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = storage.open(path, Mode::Existing)?;
    let length = file.length()?;
    if length > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("{}: {length} bytes, {bytes_max} are the most", path.display()),
        ));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Replaces a small file atomically: after a crash it is the old one or the new one.
///
/// # Errors
/// When a write, sync or rename fails.
pub(crate) fn replace_file(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> io::Result<()> {
    stage_file(storage, path, bytes)?.sync_data()?;
    put_in_place(storage, path)?;
    path.parent().map_or(Ok(()), |dir| storage.sync_dir(dir))
}

/// Writes the file that [`put_in_place`] will rename to `path`; syncs nothing.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn stage_file(
    storage: &dyn Storage,
    path: &Path,
    bytes: &[u8],
) -> io::Result<Arc<dyn File>> {
    stage(storage, path, bytes, Mode::Create)
}

/// Does the same as [`stage_file`] for a file that only its owner may read.
///
/// # Errors
/// The same as [`stage_file`].
pub(crate) fn stage_private_file(
    storage: &dyn Storage,
    path: &Path,
    bytes: &[u8],
) -> io::Result<Arc<dyn File>> {
    stage(storage, path, bytes, Mode::CreatePrivate)
}

fn stage(
    storage: &dyn Storage,
    path: &Path,
    bytes: &[u8],
    mode: Mode,
) -> io::Result<Arc<dyn File>> {
    let file = storage.open(&path.with_added_extension("tmp"), mode)?;
    file.truncate(0)?;
    file.write_all_at(&mut [IoSlice::new(bytes)], 0)?;
    Ok(file)
}

/// Renames a staged file into place. If it is not synced, a crash may leave a truncated file.
///
/// # Errors
/// When it cannot be renamed.
pub(crate) fn put_in_place(storage: &dyn Storage, path: &Path) -> io::Result<()> {
    storage.rename(&path.with_added_extension("tmp"), path)
}

/// The disk.
#[derive(Debug)]
pub struct Disk;

#[derive(Debug)]
struct DiskFile(std::fs::File);

impl File for DiskFile {
    fn write_all_at(&self, mut slices: &mut [IoSlice<'_>], mut position: u64) -> io::Result<()> {
        /// `IOV_MAX` on Linux.
        const SLICES_MAX: usize = 1024;
        while !slices.is_empty() {
            let now = slices.get(..slices.len().min(SLICES_MAX)).unwrap_or_default();
            match rustix::io::pwritev(&self.0, now, position) {
                Ok(0) if now.iter().all(|slice| slice.is_empty()) => return Ok(()),
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    position += written as u64;
                    IoSlice::advance_slices(&mut slices, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read_at(&self, target: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = target.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(&self.0, rest, position + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(filled)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn allocate(&self, length: u64) {
        // A file system without support writes as well, only slower. A full disk shows at the
        // write.
        let _ = rustix::fs::fallocate(&self.0, FallocateFlags::KEEP_SIZE, 0, length);
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn read_cached(&self, target: &mut [u8], position: u64) -> io::Result<bool> {
        let wanted = target.len();
        match rustix::io::preadv2(
            &self.0,
            &mut [IoSliceMut::new(target)],
            position,
            ReadWriteFlags::NOWAIT,
        ) {
            Ok(read) => Ok(read == wanted),
            Err(rustix::io::Errno::AGAIN) => Ok(false),
            // The file system does not support it, so read normally.
            Err(_) => self.read_exact_at(target, position).map(|()| true),
        }
    }

    fn is_cached(&self, position: u64, length: usize) -> bool {
        let cached = |at| {
            let mut byte = [0];
            let read = rustix::io::preadv2(
                &self.0,
                &mut [IoSliceMut::new(&mut byte)],
                at,
                ReadWriteFlags::NOWAIT,
            );
            // A file system without support counts as cached.
            read != Err(rustix::io::Errno::AGAIN)
        };
        length == 0 || (cached(position) && cached(position + length as u64 - 1))
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(std::os::fd::AsFd::as_fd(&self.0))
    }
}

impl Storage for Disk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(mode != Mode::Existing)
            .truncate(false)
            .mode(if mode == Mode::CreatePrivate { 0o600 } else { 0o666 })
            .open(path)?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match std::fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            result => result,
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(Entry { name, is_dir: entry.file_type()?.is_dir() });
            }
        }
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::File::open(path)?.sync_all()
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        let dir = rustix::fs::open(
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        Ok(rustix::fs::syncfs(dir)?)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn boot_id(&self) -> String {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|id| id.trim().to_owned())
            .unwrap_or_default()
    }

    fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        let space = rustix::fs::statvfs(path)?;
        Ok((
            space.f_blocks.saturating_mul(space.f_frsize),
            space.f_bavail.saturating_mul(space.f_frsize),
        ))
    }
}
