//! A file system in memory for tests. It crashes, fills up, fails and loses data on request.
//!
//! A read returns the last write. A crash leaves everything synced and any part of the rest, chosen
//! by a seed (see [`inode`]). Operations that change something are numbered from 0, so a test can
//! make each one of a run fail in turn. This module knows nothing of logs.

mod inode;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::storage::{Entry, File, Mode, Storage};
use inode::{Inode, Seed};

/// The fault that replaces an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The machine stops. Every operation fails until [`Faulty::after_crash`].
    Crash,
    /// `ENOSPC`, after half of the bytes were written.
    NoSpace,
    /// `EIO`. As on Linux, a failed sync drops the dirty data: it stays readable, and the next sync
    /// succeeds without it.
    Io,
}

/// An operation, for tests that count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Done {
    Open,
    Create,
    CreateDir,
    List,
    Read,
    Write,
    Truncate,
    Rename,
    Remove,
    Sync,
    SyncDir,
    SyncAll,
}

/// The file system. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Faulty(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// The root is the first. Inodes are never removed, so an open file stays readable.
    inodes: Vec<Inode>,
    boot: u32,
    changes: u64,
    faults: BTreeMap<u64, Fault>,
    crashed: bool,
    capacity_bytes: u64,
    journal: Vec<(Done, PathBuf)>,
    locks: BTreeSet<PathBuf>,
    meanwhile: Option<Meanwhile>,
}

/// An action just before a file is renamed to this path.
struct Meanwhile(PathBuf, Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug)]
struct FaultyFile {
    fs: Faulty,
    inode: usize,
    path: PathBuf,
}

struct Lock {
    fs: Faulty,
    path: PathBuf,
}

impl Default for Faulty {
    fn default() -> Self {
        Self::with(vec![Inode::directory()], 1)
    }
}

impl Faulty {
    fn with(inodes: Vec<Inode>, boot: u32) -> Self {
        Self(Arc::new(Mutex::new(State {
            inodes,
            boot,
            changes: 0,
            faults: BTreeMap::new(),
            crashed: false,
            capacity_bytes: u64::MAX,
            journal: Vec::new(),
            locks: BTreeSet::new(),
            meanwhile: None,
        })))
    }

    /// Makes the operation with this number fail.
    pub(super) fn fail_at(&self, change: u64, fault: Fault) {
        self.0.lock().faults.insert(change, fault);
    }

    /// Runs `act` once, just before a file is renamed to `path`.
    pub(super) fn before_rename_to(&self, path: &str, act: impl FnOnce() + Send + 'static) {
        self.0.lock().meanwhile = Some(Meanwhile(path.into(), Box::new(act)));
    }

    /// Returns the number of changing operations so far, which is the number of the next one.
    pub(super) fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    /// Returns whether a crash has happened.
    pub(super) fn crashed(&self) -> bool {
        self.0.lock().crashed
    }

    /// Returns whether a fault has happened.
    pub(super) fn faulted(&self) -> bool {
        let state = self.0.lock();
        state.faults.keys().any(|at| *at < state.changes)
    }

    /// Sets the capacity in bytes.
    pub(super) fn set_capacity(&self, bytes: u64) {
        self.0.lock().capacity_bytes = bytes;
    }

    /// Bytes of all files, including removed ones.
    pub(super) fn used_bytes(&self) -> u64 {
        self.0.lock().used_bytes()
    }

    /// Returns the operations since the last call.
    pub(super) fn take_journal(&self) -> Vec<(Done, PathBuf)> {
        std::mem::take(&mut self.0.lock().journal)
    }

    /// The machine after a power failure: a new boot, with everything synced and the part of the
    /// rest that the seed keeps.
    pub(super) fn after_crash(&self, seed: u64) -> Self {
        let state = self.0.lock();
        let mut seed = Seed::new(seed);
        Self::with(
            state.inodes.iter().map(|inode| inode.after_crash(&mut seed)).collect(),
            state.boot + 1,
        )
    }

    /// The machine after a kill of the process: no data is lost, no lock is held, and pending
    /// faults remain.
    pub(super) fn after_kill(&self) -> Self {
        let state = self.0.lock();
        let next = Self::with(state.inodes.clone(), state.boot);
        {
            let mut next = next.0.lock();
            (next.faults, next.changes, next.crashed) =
                (state.faults.clone(), state.changes, state.crashed);
            next.capacity_bytes = state.capacity_bytes;
        }
        next
    }

    /// The machine after the process died at an operation: as after a kill, and no fault is left.
    pub(super) fn after_death(&self) -> Self {
        let state = self.0.lock();
        Self::with(state.inodes.clone(), state.boot)
    }

    /// Returns the bytes of a file, if it exists.
    pub(super) fn bytes(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let inode = state.find(path.as_ref()).ok()?;
        Some(state.inodes[inode].as_file().ok()?.bytes().to_vec())
    }

    /// Writes a synced file without a recorded operation.
    pub(super) fn put(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        let mut state = self.0.lock();
        let (dir, name) = state.parent(path.as_ref()).unwrap();
        let inode = state.inodes.len();
        let mut file = Inode::file();
        file.as_file_mut().unwrap().write(0, bytes);
        file.sync();
        state.inodes.push(file);
        let dir = &mut state.inodes[dir];
        dir.as_directory_mut().unwrap().add(&name, inode);
        dir.sync();
    }

    /// Changes the bytes of a file, synced, without a recorded operation.
    pub(super) fn edit(&self, path: impl AsRef<Path>, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.bytes(&path).unwrap();
        edit(&mut bytes);
        self.put(path, &bytes);
    }
}

impl State {
    fn find(&self, path: &Path) -> io::Result<usize> {
        if self.crashed {
            return Err(crash());
        }
        let mut at = 0;
        for component in path.components() {
            if let Component::Normal(name) = component {
                at = self.inodes[at]
                    .as_directory()?
                    .find(&name.to_string_lossy())
                    .ok_or(io::ErrorKind::NotFound)?;
            }
        }
        Ok(at)
    }

    /// Returns the parent directory of a path, and the name in it.
    fn parent(&self, path: &Path) -> io::Result<(usize, String)> {
        let (dir, name) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.find(dir)?, name.to_string_lossy().into_owned()))
    }

    /// Counts a change. Returns the fault that hits it, if any.
    fn change(&mut self, done: Done, path: &Path) -> Result<(), Fault> {
        if self.crashed {
            return Err(Fault::Crash);
        }
        self.journal.push((done, path.to_owned()));
        let fault = self.faults.get(&self.changes).copied();
        self.changes += 1;
        self.crashed = fault == Some(Fault::Crash);
        fault.map_or(Ok(()), Err)
    }

    fn used_bytes(&self) -> u64 {
        self.inodes
            .iter()
            .filter_map(|inode| inode.as_file().ok())
            .map(|file| file.bytes().len() as u64)
            .sum()
    }

    fn add(&mut self, path: &Path, inode: Inode) -> io::Result<usize> {
        let (dir, name) = self.parent(path)?;
        let added = self.inodes.len();
        self.inodes[dir].as_directory_mut()?.add(&name, added);
        self.inodes.push(inode);
        Ok(added)
    }

    /// Syncs, unless a fault hits. Data of a failed sync never reaches the disk.
    fn sync(&mut self, done: Done, path: &Path, inodes: std::ops::Range<usize>) -> io::Result<()> {
        let result = self.change(done, path);
        for inode in self.inodes.get_mut(inodes).unwrap() {
            match result {
                Ok(()) => inode.sync(),
                Err(Fault::Crash) => {}
                Err(_) => inode.forget(),
            }
        }
        result.map_err(error_of)
    }
}

fn crash() -> io::Error {
    io::Error::other("the machine has stopped")
}

fn error_of(fault: Fault) -> io::Error {
    match fault {
        Fault::Crash => crash(),
        Fault::NoSpace => rustix::io::Errno::NOSPC.into(),
        Fault::Io => rustix::io::Errno::IO.into(),
    }
}

impl File for FaultyFile {
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let mut state = self.fs.0.lock();
        let result = state.change(Done::Write, &self.path);
        let before = state.used_bytes();
        let file = state.inodes[self.inode].as_file_mut()?;
        let position = usize::try_from(position).unwrap();
        let grows = (position + bytes.len()).saturating_sub(file.bytes().len()) as u64;
        let result = result.and(if before.saturating_add(grows) > state.capacity_bytes {
            Err(Fault::NoSpace)
        } else {
            Ok(())
        });
        let file = state.inodes[self.inode].as_file_mut()?;
        match result {
            Ok(()) | Err(Fault::Crash) => file.write(position, &bytes),
            Err(_) => file.write(position, &bytes[..bytes.len() / 2]),
        }
        result.map_err(error_of)
    }

    fn read_at(&self, target: &mut [u8], position: u64) -> io::Result<usize> {
        let mut state = self.fs.0.lock();
        if state.crashed {
            return Err(crash());
        }
        state.journal.push((Done::Read, self.path.clone()));
        let bytes = state.inodes[self.inode].as_file()?.bytes();
        let rest = usize::try_from(position)
            .ok()
            .and_then(|position| bytes.get(position..))
            .unwrap_or_default();
        let length = rest.len().min(target.len());
        target[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.fs.0.lock().inodes[self.inode].as_file()?.bytes().len() as u64)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut state = self.fs.0.lock();
        let result = state.change(Done::Truncate, &self.path);
        if matches!(result, Ok(()) | Err(Fault::Crash)) {
            state.inodes[self.inode].as_file_mut()?.truncate(usize::try_from(length).unwrap());
        }
        result.map_err(error_of)
    }

    fn allocate(&self, _length: u64) {}

    fn sync_data(&self) -> io::Result<()> {
        self.fs.0.lock().sync(Done::Sync, &self.path, self.inode..self.inode + 1)
    }
}

impl Storage for Faulty {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        let mut state = self.0.lock();
        let inode = match state.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && mode != Mode::Existing => {
                state.change(Done::Create, path).map_err(error_of)?;
                state.add(path, Inode::file())?
            }
            found => {
                state.journal.push((Done::Open, path.to_owned()));
                found?
            }
        };
        state.inodes[inode].as_file()?;
        Ok(Arc::new(FaultyFile { fs: self.clone(), inode, path: path.to_owned() }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        match state.find(path) {
            Ok(inode) => state.inodes[inode].as_directory().map(|_| ()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                state.change(Done::CreateDir, path).map_err(error_of)?;
                state.add(path, Inode::directory()).map(|_| ())
            }
            Err(error) => Err(error),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut state = self.0.lock();
        let dir = state.find(path)?;
        state.journal.push((Done::List, path.to_owned()));
        let entries = state.inodes[dir].as_directory()?.entries();
        Ok(entries
            .map(|(name, inode)| Entry {
                name: name.to_owned(),
                is_dir: state.inodes[inode].as_directory().is_ok(),
            })
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let meanwhile = self.0.lock().meanwhile.take_if(|Meanwhile(path, _)| path == to);
        if let Some(Meanwhile(_, act)) = meanwhile {
            act();
        }
        let mut state = self.0.lock();
        let inode = state.find(from)?;
        let ((dir, old), (target, new)) = (state.parent(from)?, state.parent(to)?);
        assert_eq!(dir, target, "a log renames within a directory only");
        state.change(Done::Rename, to).map_err(error_of)?;
        state.inodes[dir].as_directory_mut()?.rename(&old, &new, inode);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let inode = state.find(path)?;
        state.inodes[inode].as_file()?;
        let (dir, name) = state.parent(path)?;
        state.change(Done::Remove, path).map_err(error_of)?;
        state.inodes[dir].as_directory_mut()?.remove(&name);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        for entry in self.list(path)? {
            let path = path.join(entry.name);
            if entry.is_dir { self.remove_dir_all(&path)? } else { self.remove_file(&path)? }
        }
        let mut state = self.0.lock();
        let (dir, name) = state.parent(path)?;
        state.change(Done::Remove, path).map_err(error_of)?;
        state.inodes[dir].as_directory_mut()?.remove(&name);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let dir = state.find(path)?;
        state.inodes[dir].as_directory()?;
        state.sync(Done::SyncDir, path, dir..dir + 1)
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let all = 0..state.inodes.len();
        state.sync(Done::SyncAll, path, all)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.open(path, Mode::Create)?;
        if !self.0.lock().locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock { fs: self.clone(), path: path.to_owned() }))
    }

    fn boot_id(&self) -> String {
        format!("boot {}", self.0.lock().boot)
    }

    fn space(&self, _path: &Path) -> io::Result<(u64, u64)> {
        let state = self.0.lock();
        Ok((state.capacity_bytes, state.capacity_bytes.saturating_sub(state.used_bytes())))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.fs.0.lock().locks.remove(&self.path);
    }
}

#[cfg(test)]
mod tests;
