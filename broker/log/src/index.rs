//! A segment's sparse indexes: from an offset to a file position, and from a timestamp to an
//! offset.
//!
//! They are in memory while the segment is active. Afterwards they are in two files, which are
//! searched without loading them. Every entry is checked before use, and an index that fails is
//! rebuilt from the segment. An entry of the offset index is compared with the batch that it points
//! to. An entry of the time index covers all batches before it, so a comparison would have to read
//! them all. Therefore each time entry carries a checksum, unlike Kafka's.

use std::io::{self, IoSlice};
use std::path::Path;

use super::storage::{File, Mode, Storage};

/// The position of the batch that ends with an offset. Offsets are relative to the segment's base
/// offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    pub(crate) last_offset: u32,
    pub(crate) position: u32,
}

/// No record up to `last_offset`, the end of a batch, is newer than `timestamp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub(crate) timestamp: i64,
    pub(crate) last_offset: u32,
}

/// Bytes of an entry in the files: an offset entry as in Kafka, a time entry with a checksum at its
/// end.
const OFFSET_ENTRY_BYTES: usize = 8;
const TIME_ENTRY_BYTES: usize = 16;

/// Both indexes of one segment, in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Indexes {
    offsets: Vec<OffsetEntry>,
    times: Vec<TimeEntry>,
}

impl Indexes {
    /// Adds an offset entry for a batch, and a time entry if the largest timestamp has advanced.
    pub(crate) fn add(&mut self, entry: OffsetEntry, max_timestamp: i64) {
        // The offset of a damaged batch may be too large. A search needs entries in order.
        while self.offsets.pop_if(|last| last.last_offset >= entry.last_offset).is_some() {}
        while self.times.pop_if(|last| last.last_offset >= entry.last_offset).is_some() {}
        self.offsets.push(entry);
        if self.times.last().is_none_or(|last| last.timestamp < max_timestamp) {
            self.times.push(TimeEntry { timestamp: max_timestamp, last_offset: entry.last_offset });
        }
    }

    /// Returns the size in bytes of the larger file.
    pub(crate) fn bytes(&self) -> usize {
        (self.offsets.len() * OFFSET_ENTRY_BYTES).max(self.times.len() * TIME_ENTRY_BYTES)
    }

    /// Returns the entry from which to search for `relative`.
    pub(crate) fn position_before(&self, relative: u32) -> OffsetEntry {
        let after = self.offsets.partition_point(|entry| entry.last_offset <= relative);
        after.checked_sub(1).and_then(|index| self.offsets.get(index)).copied().unwrap_or_default()
    }

    /// Returns the relative offset from which to search for a record that is not older than
    /// `timestamp`.
    pub(crate) fn offset_before(&self, timestamp: i64) -> u32 {
        let after = self.times.partition_point(|entry| entry.timestamp < timestamp);
        after
            .checked_sub(1)
            .and_then(|index| self.times.get(index))
            .map_or(0, |entry| entry.last_offset)
    }

    /// Writes the two files of the segment that begins at `base_offset`. They are not synced: a
    /// lost index is rebuilt.
    ///
    /// # Errors
    /// When writing fails.
    pub(crate) fn write(
        &self,
        storage: &dyn Storage,
        (offset_index, time_index): (&Path, &Path),
        base_offset: i64,
    ) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(self.offsets.len() * OFFSET_ENTRY_BYTES);
        for entry in &self.offsets {
            bytes.extend_from_slice(&entry.last_offset.to_be_bytes());
            bytes.extend_from_slice(&entry.position.to_be_bytes());
        }
        write_whole(storage, offset_index, &bytes)?;
        bytes.clear();
        for entry in &self.times {
            bytes.extend_from_slice(&entry.timestamp.to_be_bytes());
            bytes.extend_from_slice(&entry.last_offset.to_be_bytes());
            bytes.extend_from_slice(&entry.checksum(base_offset).to_be_bytes());
        }
        write_whole(storage, time_index, &bytes)
    }
}

impl TimeEntry {
    /// The CRC-32C of an entry of the segment that begins at `base_offset`.
    fn checksum(&self, base_offset: i64) -> u32 {
        let crc = crc32c::crc32c(&base_offset.to_be_bytes());
        let crc = crc32c::crc32c_append(crc, &self.timestamp.to_be_bytes());
        crc32c::crc32c_append(crc, &self.last_offset.to_be_bytes())
    }
}

fn write_whole(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = storage.open(path, Mode::Create)?;
    file.truncate(0)?;
    file.write_all_at(&mut [IoSlice::new(bytes)], 0)
}

/// Does the same as [`Indexes::position_before`] in the file.
///
/// # Errors
/// When the file is missing or cannot be an index.
pub(crate) fn search_position(
    storage: &dyn Storage,
    path: &Path,
    relative: u32,
) -> io::Result<OffsetEntry> {
    let file = storage.open(path, Mode::Existing)?;
    let entry = |bytes: [u8; OFFSET_ENTRY_BYTES]| {
        let [a, b, c, d, e, f, g, h] = bytes;
        OffsetEntry {
            last_offset: u32::from_be_bytes([a, b, c, d]),
            position: u32::from_be_bytes([e, f, g, h]),
        }
    };
    let found = search(file.as_ref(), |bytes| Ok(entry(bytes).last_offset <= relative))?;
    Ok(found.map(entry).unwrap_or_default())
}

/// Does the same as [`Indexes::offset_before`] in the file of the segment that begins at
/// `base_offset`.
///
/// # Errors
/// When the file is missing, or an entry on the search path is damaged.
pub(crate) fn search_offset(
    storage: &dyn Storage,
    path: &Path,
    timestamp: i64,
    base_offset: i64,
) -> io::Result<u32> {
    let file = storage.open(path, Mode::Existing)?;
    let entry = |bytes: [u8; TIME_ENTRY_BYTES]| {
        let [time @ .., a, b, c, d, e, f, g, h] = bytes;
        let entry = TimeEntry {
            timestamp: i64::from_be_bytes(time),
            last_offset: u32::from_be_bytes([a, b, c, d]),
        };
        let is_whole = entry.checksum(base_offset) == u32::from_be_bytes([e, f, g, h]);
        is_whole.then_some(entry).ok_or(io::Error::from(io::ErrorKind::InvalidData))
    };
    let found = search(file.as_ref(), |bytes| Ok(entry(bytes)?.timestamp < timestamp))?;
    found.map_or(Ok(0), |bytes| Ok(entry(bytes)?.last_offset))
}

/// Returns the last entry for which `before` holds. Those entries come first.
fn search<const N: usize>(
    file: &dyn File,
    before: impl Fn([u8; N]) -> io::Result<bool>,
) -> io::Result<Option<[u8; N]>> {
    let length = file.length()?;
    if length == 0 || !length.is_multiple_of(N as u64) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let (mut low, mut high) = (0, length / N as u64);
    let mut found = None;
    while low < high {
        let middle = low + (high - low) / 2;
        let mut bytes = [0; N];
        file.read_exact_at(&mut bytes, middle * N as u64)?;
        if before(bytes)? {
            found = Some(bytes);
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Disk;

    #[test]
    fn memory_and_file_find_the_same() {
        let mut indexes = Indexes::default();
        for index in 1..200_u32 {
            indexes.add(
                OffsetEntry { last_offset: index * 10, position: index * 5000 },
                i64::from(index / 3 * 100),
            );
        }
        let dir = tempfile::tempdir().unwrap();
        let (offsets, times) = (dir.path().join("0.index"), dir.path().join("0.timeindex"));
        indexes.write(&Disk, (&offsets, &times), 3).unwrap();
        assert_eq!(std::fs::metadata(&times).unwrap().len() % TIME_ENTRY_BYTES as u64, 0);
        for offset in 0..2100 {
            let found = indexes.position_before(offset);
            assert!(found.last_offset <= offset);
            assert_eq!(search_position(&Disk, &offsets, offset).unwrap(), found, "{offset}");
        }
        for time in 0..7000 {
            assert_eq!(
                search_offset(&Disk, &times, time, 3).unwrap(),
                indexes.offset_before(time),
                "{time}"
            );
        }
        // A file with a flipped bit or a cut is refused, or leads no further than the right entry.
        let written = std::fs::read(&times).unwrap();
        for at in 0..written.len() {
            let mut flipped = written.clone();
            flipped[at] ^= 1 << (at % 8);
            for damaged in [&flipped[..], &written[..at]] {
                std::fs::write(&times, damaged).unwrap();
                let time = (at * 7) as i64;
                let found = search_offset(&Disk, &times, time, 3);
                assert!(found.is_err() || found.unwrap() <= indexes.offset_before(time), "{at}");
            }
        }
        std::fs::write(&times, &written).unwrap();
        assert!(search_offset(&Disk, &times, 300, 4).is_err(), "of another segment");
        std::fs::write(&offsets, [0; 7]).unwrap();
        assert!(search_position(&Disk, &offsets, 5).is_err());
        assert!(search_position(&Disk, &dir.path().join("none"), 5).is_err());
    }
}
