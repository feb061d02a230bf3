//! The transactions of one partition, as its readers need them: the open, the recently ended and
//! the aborted ones (`UnifiedLog.lastStableOffset`, `TransactionIndex` in Apache Kafka).
//!
//! They are derived from the log; the producers report a [`Change`] with each batch. Aborted
//! transactions after the newest producer snapshot are in memory. Those of earlier segments are in
//! `.txnindex` files.
//!
//! Invariants
//! - The first offset of an open transaction is not stable, and nothing after it is. The same holds
//!   for a transaction whose marker is not committed.
//! - Only the batches decide which transactions are open, ended and aborted.
//! - A snapshot of the producers is written only after the `.txnindex` of everything before it is
//!   on the disk. So a reader that begins at the snapshot knows every aborted transaction.
//! - They are loaded when a reader first needs them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;

use bytes::{Buf, BufMut};
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::producers::{Change, Ended, Producers};
use super::storage::{Storage, read_file, replace_file};

/// The version of an entry, and its bytes.
const VERSION: i16 = 0;
const ENTRY_BYTES: usize = 34;

/// The CRC-32C of all entries, which follows them.
const CHECKSUM_BYTES: usize = 4;

/// The largest file that is read.
const INDEX_BYTES_MAX: u64 = 1 << 30;

/// An aborted transaction (`AbortedTxn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// The producer.
    pub producer: ProducerId,
    /// Its first offset.
    pub first_offset: i64,
    /// The offset of its marker.
    pub last_offset: i64,
    /// The last stable offset when it ended: no transaction that ended earlier begins after it.
    pub last_stable_offset: i64,
}

/// The known transactions of a partition.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// Whether they are loaded.
    pub(super) is_known: bool,
    /// Open transactions by first offset.
    open: BTreeMap<i64, (ProducerId, ProducerEpoch)>,
    /// In the order of their markers.
    ended: VecDeque<Ended>,
    /// In the order of their markers.
    aborted: Vec<Aborted>,
    /// Aborted transactions with markers before this segment's base offset are in files.
    in_memory_from: i64,
}

impl Transactions {
    /// Creates the state of a log without transactions.
    pub(crate) fn none(offset: i64) -> Self {
        Self { is_known: true, in_memory_from: offset, ..Self::default() }
    }

    /// Creates the state at a producer snapshot. The caller then reports the changes after it.
    pub(super) fn begin(
        producers: &Producers,
        ended: Vec<Ended>,
        in_memory_from: i64,
        aborted: Vec<Aborted>,
    ) -> Self {
        Self {
            is_known: true,
            open: producers.open_transactions().collect(),
            ended: ended.into(),
            aborted,
            in_memory_from,
        }
    }

    /// Applies the change of a batch. Drops ended transactions whose marker is below the high
    /// watermark.
    pub(crate) fn changed(&mut self, change: Change, high_watermark: i64) {
        self.ended.retain(|ended| ended.marker_offset >= high_watermark);
        match change {
            Change::Began { producer, epoch, first_offset } => {
                self.open.insert(first_offset, (producer, epoch));
            }
            Change::Ended { producer, first_offset, last_offset, aborted } => {
                self.open.remove(&first_offset);
                self.ended.push_back(Ended { first_offset, marker_offset: last_offset });
                if aborted {
                    self.aborted.push(Aborted {
                        producer,
                        first_offset,
                        last_offset,
                        last_stable_offset: self
                            .open
                            .first_key_value()
                            .map_or(last_offset + 1, |(first, _)| *first),
                    });
                }
            }
        }
    }

    /// Returns the offset before which every transaction has ended with a committed marker.
    pub(crate) fn last_stable_offset(&self, high_watermark: i64) -> i64 {
        let open = self.open.keys().next().copied();
        let ended = self.undecided(high_watermark).map(|ended| ended.first_offset);
        ended.chain(open).fold(high_watermark, i64::min)
    }

    /// The ended transactions whose markers are not committed.
    pub(super) fn undecided(&self, high_watermark: i64) -> impl Iterator<Item = Ended> {
        let is_undecided = move |ended: &&Ended| ended.marker_offset >= high_watermark;
        self.ended.iter().filter(is_undecided).copied()
    }

    /// Returns the base offset of the first segment whose aborted transactions are in memory.
    pub(super) fn in_memory_from(&self) -> i64 {
        self.in_memory_from
    }

    /// The aborted transactions in memory.
    pub(crate) fn aborted(&self) -> &[Aborted] {
        &self.aborted
    }

    /// Called when the segments before `offset` are sealed and their files written.
    pub(super) fn sealed_up_to(&mut self, offset: i64) {
        self.aborted.retain(|aborted| aborted.last_offset >= offset);
        self.in_memory_from = self.in_memory_from.max(offset);
    }

    /// Called when compaction has removed all aborted records before `offset`. Their entries must
    /// go too. A consumer that gets an entry but never meets its marker would drop later records.
    pub(super) fn cleaned_up_to(&mut self, offset: i64) {
        self.aborted.retain(|aborted| aborted.last_offset >= offset);
    }

    /// Returns whether a producer has an open transaction in this epoch. With transactions v2, one
    /// that is about to end has another epoch.
    pub(super) fn is_open(&self, producer: ProducerId, epoch: ProducerEpoch) -> bool {
        self.open.values().any(|open| *open == (producer, epoch))
    }
}

/// Reads the `.txnindex` file of the segment that begins at `base_offset`. Returns no entries if
/// the file does not exist.
///
/// # Errors
/// `InvalidData`, or another error that [`is_damage`] recognises, when the file is damaged. It
/// applies Kafka's `TransactionIndex.sanityCheck` and compares the checksum after the entries,
/// which Kafka's files do not have.
pub(super) fn read_index(
    storage: &dyn Storage,
    path: &Path,
    base_offset: i64,
) -> io::Result<Vec<Aborted>> {
    let bytes = match read_file(storage, path, INDEX_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes?,
    };
    let entries = checked(&bytes).and_then(|entries| {
        let entries = entries.chunks_exact(ENTRY_BYTES).map(|entry| parse(entry, base_offset));
        entries.collect::<Option<Vec<Aborted>>>()
    });
    entries.ok_or_else(|| {
        let path = path.display();
        io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not what was written"))
    })
}

/// Returns the bytes of the entries, if the checksum after them matches.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (entries, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    let is_whole = !entries.is_empty()
        && entries.len().is_multiple_of(ENTRY_BYTES)
        && crc32c::crc32c(entries) == u32::from_be_bytes(*checksum);
    is_whole.then_some(entries)
}

fn parse(mut entry: &[u8], base_offset: i64) -> Option<Aborted> {
    let version = entry.try_get_i16().ok()?;
    let aborted = Aborted {
        producer: ProducerId(entry.try_get_i64().ok()?),
        first_offset: entry.try_get_i64().ok()?,
        last_offset: entry.try_get_i64().ok()?,
        last_stable_offset: entry.try_get_i64().ok()?,
    };
    let is_sound = version == VERSION
        && (0..=aborted.last_offset).contains(&aborted.first_offset)
        && aborted.last_offset >= base_offset;
    is_sound.then_some(aborted)
}

/// Returns whether the error means a damaged file: too large, cut off or invalid. That is no fault
/// of the disk, and must not take the log directory offline.
pub(super) fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::FileTooLarge | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
    )
}

/// Writes a `.txnindex` file and syncs it. Removes the file if there are no entries.
pub(super) fn write_index(
    storage: &dyn Storage,
    path: &Path,
    aborted: &[Aborted],
) -> io::Result<()> {
    if aborted.is_empty() {
        return match storage.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
    }
    let mut bytes = Vec::with_capacity(aborted.len() * ENTRY_BYTES + CHECKSUM_BYTES);
    for entry in aborted {
        bytes.put_i16(VERSION);
        bytes.put_i64(entry.producer.0);
        bytes.put_i64(entry.first_offset);
        bytes.put_i64(entry.last_offset);
        bytes.put_i64(entry.last_stable_offset);
    }
    bytes.put_u32(crc32c::crc32c(&bytes));
    replace_file(storage, path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn began(producer: i64, first_offset: i64) -> Change {
        Change::Began { producer: ProducerId(producer), epoch: ProducerEpoch(0), first_offset }
    }

    fn ended(producer: i64, first_offset: i64, last_offset: i64, aborted: bool) -> Change {
        Change::Ended { producer: ProducerId(producer), first_offset, last_offset, aborted }
    }

    #[test]
    fn what_is_stable() {
        let mut transactions = Transactions::none(0);
        assert_eq!(transactions.last_stable_offset(7), 7);
        transactions.changed(began(1, 10), 10);
        transactions.changed(began(2, 20), 10);
        let is_open = |id, epoch| transactions.is_open(ProducerId(id), ProducerEpoch(epoch));
        assert!(is_open(1, 0) && !is_open(1, 1) && !is_open(3, 0));
        assert_eq!(transactions.last_stable_offset(5), 5, "never beyond the high watermark");
        assert_eq!(transactions.last_stable_offset(30), 10);
        transactions.changed(ended(1, 10, 30, false), 25);
        assert_eq!(transactions.last_stable_offset(30), 10, "until its marker is committed");
        assert_eq!(transactions.last_stable_offset(31), 20);
        transactions.changed(ended(2, 20, 31, true), 31);
        assert_eq!(
            (transactions.last_stable_offset(31), transactions.last_stable_offset(32)),
            (20, 32)
        );
        assert!(!transactions.is_open(ProducerId(1), ProducerEpoch(0)));
    }

    #[test]
    fn who_was_aborted_is_written_down_as_kafka_does() {
        let mut transactions = Transactions::none(0);
        for change in [began(1, 10), began(2, 12), ended(2, 12, 20, true), ended(1, 10, 21, true)] {
            transactions.changed(change, 0);
        }
        let aborted = |producer, first_offset, last_offset, last_stable_offset| Aborted {
            producer: ProducerId(producer),
            first_offset,
            last_offset,
            last_stable_offset,
        };
        let expected = [aborted(2, 12, 20, 10), aborted(1, 10, 21, 22)];
        assert_eq!(transactions.aborted(), expected);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("00000000000000000000.txnindex");
        let storage = super::super::storage::Disk;
        let read = || read_index(&storage, &path, 20);
        assert_eq!(read().unwrap(), []);
        write_index(&storage, &path, &expected).unwrap();
        assert_eq!(read().unwrap(), expected);
        let written = std::fs::read(&path).unwrap();
        assert_eq!(written.len(), 68 + 4);
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read().is_err_and(|error| is_damage(&error))
        };
        for at in 0..written.len() {
            let mut flipped = written.clone();
            flipped[at] ^= 0x10;
            assert!(refused(&flipped), "a flipped bit at {at}");
            assert!(refused(&written[..at]), "cut off at {at}");
        }
        assert!(refused(&written[..68]), "as Kafka writes it: nothing vouches for it");
        std::fs::write(&path, &written).unwrap();
        assert!(read_index(&storage, &path, 21).is_err(), "of a segment that begins later");
        write_index(&storage, &path, &[]).unwrap();
        write_index(&storage, &path, &[]).unwrap();
        assert!(!path.exists());
    }
}
