//! A file or a directory of the faulty file system: its current content, and what a crash leaves of
//! it.
//!
//! The rules are those of a journalling file system at its worst. Everything synced stays. Of later
//! writes to a file, a crash keeps or loses each sector, in any order. A file may keep its new
//! length without the data, which then reads as zeros. A lost truncation loses the later changes of
//! that file too, because it freed their blocks. Of later entries that were added, renamed or
//! removed, a directory keeps or loses each one; a rename is atomic.

use std::collections::BTreeMap;
use std::io;

/// The unit that a disk writes atomically.
const SECTOR_BYTES: usize = 512;

/// A file or a directory.
#[derive(Clone, Debug)]
pub(super) enum Inode {
    File(Content),
    Directory(Directory),
}

/// The content of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

/// The content of a directory: names and inode numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    now: BTreeMap<String, usize>,
    synced: BTreeMap<String, usize>,
    unsynced: Vec<Renamed>,
}

/// A change of a directory: a name that goes, one that comes, or both at once.
#[derive(Clone, Debug)]
struct Renamed {
    gone: Option<String>,
    come: Option<(String, usize)>,
}

impl Inode {
    pub(super) fn file() -> Self {
        Self::File(Content::default())
    }

    pub(super) fn directory() -> Self {
        Self::Directory(Directory::default())
    }

    pub(super) fn as_file(&self) -> io::Result<&Content> {
        match self {
            Self::File(content) => Ok(content),
            Self::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn as_file_mut(&mut self) -> io::Result<&mut Content> {
        match self {
            Self::File(content) => Ok(content),
            Self::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn as_directory(&self) -> io::Result<&Directory> {
        match self {
            Self::Directory(directory) => Ok(directory),
            Self::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn as_directory_mut(&mut self) -> io::Result<&mut Directory> {
        match self {
            Self::Directory(directory) => Ok(directory),
            Self::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Syncs everything.
    pub(super) fn sync(&mut self) {
        match self {
            Self::File(file) => {
                file.unsynced.drain(..).for_each(|change| change.apply(&mut file.synced))
            }
            Self::Directory(directory) => {
                directory.unsynced.drain(..).for_each(|change| change.apply(&mut directory.synced))
            }
        }
    }

    /// Drops unsynced data of a file for good, though it stays readable. Entries of a directory lie
    /// in the journal, which is written later or takes the whole file system down.
    pub(super) fn forget(&mut self) {
        if let Self::File(file) = self {
            file.unsynced.clear();
        }
    }

    /// Returns what a crash leaves of it.
    pub(super) fn after_crash(&self, seed: &mut Seed) -> Self {
        match self {
            Self::File(file) => {
                let now = file.after_crash(seed);
                Self::File(Content { synced: now.clone(), now, unsynced: Vec::new() })
            }
            Self::Directory(directory) => {
                let mut now = directory.synced.clone();
                let luck = seed.luck();
                directory
                    .unsynced
                    .iter()
                    .filter(|_| seed.keeps(luck))
                    .for_each(|change| change.clone().apply(&mut now));
                Self::Directory(Directory { synced: now.clone(), now, unsynced: Vec::new() })
            }
        }
    }
}

impl Content {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.now
    }

    pub(super) fn write(&mut self, position: usize, bytes: &[u8]) {
        self.change(Change::Write(position, bytes.to_vec()));
    }

    pub(super) fn truncate(&mut self, length: usize) {
        self.change(Change::Truncate(length));
    }

    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.now);
        self.unsynced.push(change);
    }

    fn after_crash(&self, seed: &mut Seed) -> Vec<u8> {
        let mut left = self.synced.clone();
        let luck = seed.luck();
        for change in &self.unsynced {
            match change {
                Change::Truncate(_) if !seed.keeps(luck) => break,
                Change::Truncate(_) => change.clone().apply(&mut left),
                Change::Write(position, bytes) => {
                    write_sectors(&mut left, *position, bytes, seed, luck)
                }
            }
        }
        left
    }
}

/// Writes the sectors that the seed keeps.
fn write_sectors(
    left: &mut Vec<u8>,
    mut position: usize,
    mut bytes: &[u8],
    seed: &mut Seed,
    luck: u64,
) {
    while !bytes.is_empty() {
        let (sector, rest) =
            bytes.split_at(bytes.len().min(SECTOR_BYTES - position % SECTOR_BYTES));
        if seed.keeps(luck) {
            Change::Write(position, sector.to_vec()).apply(left);
        } else if seed.keeps(1) {
            left.resize(left.len().max(position + sector.len()), 0);
        }
        position += sector.len();
        bytes = rest;
    }
}

impl Change {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(position, written) => {
                bytes.resize(bytes.len().max(position + written.len()), 0);
                bytes[position..position + written.len()].copy_from_slice(&written);
            }
            Self::Truncate(length) => bytes.resize(length, 0),
        }
    }
}

impl Directory {
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.now.get(name).copied()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, usize)> {
        self.now.iter().map(|(name, &inode)| (name.as_str(), inode))
    }

    pub(super) fn add(&mut self, name: &str, inode: usize) {
        self.change(Renamed { gone: None, come: Some((name.to_owned(), inode)) });
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.change(Renamed { gone: Some(name.to_owned()), come: None });
    }

    pub(super) fn rename(&mut self, from: &str, to: &str, inode: usize) {
        self.change(Renamed { gone: Some(from.to_owned()), come: Some((to.to_owned(), inode)) });
    }

    fn change(&mut self, change: Renamed) {
        change.clone().apply(&mut self.now);
        self.unsynced.push(change);
    }
}

impl Renamed {
    fn apply(self, entries: &mut BTreeMap<String, usize>) {
        if let Some(gone) = self.gone {
            entries.remove(&gone);
        }
        entries.extend(self.come);
    }
}

/// Chooses what a crash leaves. The same seed chooses the same (`splitmix64`).
#[derive(Clone, Debug)]
pub(super) struct Seed(u64);

impl Seed {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns in how many of four cases a change is kept, from never to always.
    fn luck(&mut self) -> u64 {
        self.next() % 5
    }

    fn keeps(&mut self, luck: u64) -> bool {
        self.next() % 4 < luck
    }
}
