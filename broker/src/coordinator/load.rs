//! Reads a partition of a coordinator's topic from start to end into a machine.

mod tries;

use std::io::ErrorKind;
use std::time::Instant;

use tracing::{info, warn};
use weir_protocol::batch::{self, BatchError, BatchHeader};
use weir_protocol::record::{Records, section};

pub(super) use self::tries::{DiskFailed, PAUSE, Tries};
use super::state_machine::{Logged, Origin, StateMachine};
use weir_log::{LogReader, ReadError, ReadSlice};

/// Bytes per read; a larger batch is read whole.
const CHUNK_BYTES: usize = 1 << 20;

/// The most bytes of a decompressed batch.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;

/// What a load does with a part of the log that the disk does not return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// The load fails, because the next one may read it.
    Fails,
    /// It is left out, as damage is.
    IsLeftOut,
}

/// A machine with what the log holds.
pub(super) struct Loaded<M> {
    pub(super) machine: M,
    /// The log end offset.
    pub(super) end: i64,
    /// How many offsets are left out, because their batches cannot be read.
    pub(super) left_out: u64,
}

/// Reads the log into a machine. Blocks while it reads.
///
/// Damage costs the damaged batches: the load goes on with the next one that can be read. A log
/// line says which offsets are left out. This broker stays the leader: in Kafka the coordinator
/// would not begin at all, and the data of all other partitions have leaders that do not move for
/// damage either.
///
/// # Errors
/// With [`Unreadable::Fails`], when the disk fails.
pub(super) fn load<M: StateMachine>(
    log: &LogReader,
    origin: Origin,
    shared: &M::Shared,
    unreadable: Unreadable,
) -> Result<Loaded<M>, ReadError> {
    let started = Instant::now();
    let mut loading = Loading {
        machine: M::new(origin, shared),
        records: 0,
        skipped: 0,
        partition: origin.partition,
        left_out: LeftOut::default(),
    };
    let end = log.log_end_offset();
    let mut offset = log.log_start_offset();
    while offset < end {
        let read = log.read(offset, end, CHUNK_BYTES, true);
        let read = read.and_then(|slice| slice.map(|slice| bytes_of(&slice)).transpose());
        let is_damaged = match read {
            Ok(None) => break,
            Ok(Some(bytes)) => {
                let before = offset;
                let is_whole = loading.chunk(&bytes, &mut offset);
                !is_whole || offset <= before
            }
            Err(error) if unreadable == Unreadable::Fails && !is_damage(&error) => {
                return Err(error);
            }
            Err(_) => true,
        };
        if is_damaged {
            let next = log.behind_damage(offset, end).max(offset + 1);
            loading.left_out.add(offset, next);
            offset = next;
        }
    }
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let Loading { machine, records, skipped, left_out, .. } = loading;
    if left_out.offsets > 0 {
        warn!(
            topic = M::TOPIC,
            partition = origin.partition,
            offsets = %left_out,
            "the log of a coordinator is damaged; what these offsets held is left out"
        );
    }
    info!(
        topic = M::TOPIC,
        partition = origin.partition,
        leader_epoch = origin.epoch.0,
        records,
        skipped,
        took_ms,
        "loaded a coordinator"
    );
    Ok(Loaded { machine, end, left_out: left_out.offsets })
}

/// Whether the error says what is in the file, and another try would say the same. That a file is
/// not there is no fault of the disk either.
fn is_damage(error: &ReadError) -> bool {
    match error {
        ReadError::Corrupt { .. } => true,
        ReadError::Storage(error) => error.kind() == ErrorKind::NotFound,
        ReadError::OutOfRange { .. } => false,
    }
}

/// The offsets that are left out.
#[derive(Debug, Default)]
struct LeftOut {
    ranges: Vec<(i64, i64)>,
    offsets: u64,
}

impl LeftOut {
    fn add(&mut self, from: i64, to: i64) {
        self.offsets += to.saturating_sub(from).unsigned_abs();
        match self.ranges.last_mut() {
            Some((_, end)) if *end == from => *end = to,
            _ => self.ranges.push((from, to)),
        }
    }
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// The ranges that a log line names.
        const NAMED_MAX: usize = 20;
        for (index, (from, to)) in self.ranges.iter().take(NAMED_MAX).enumerate() {
            write!(f, "{}{from}..{to}", if index == 0 { "" } else { ", " })?;
        }
        match self.ranges.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
            Some(more) => write!(f, ", and {more} ranges more"),
            None => Ok(()),
        }
    }
}

fn bytes_of(slice: &ReadSlice) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; slice.length];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match slice.file.read_at(rest, slice.position + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

struct Loading<M> {
    machine: M,
    records: u64,
    skipped: u64,
    partition: i32,
    left_out: LeftOut,
}

impl<M: StateMachine> Loading<M> {
    /// Replays the whole batches at the start of `bytes`, and moves `offset` behind them. Returns
    /// false in front of a batch that is damaged.
    ///
    /// A checksum does not cover the offset of its batch. A batch with another offset than its
    /// neighbours say is replayed where it stands.
    fn chunk(&mut self, bytes: &[u8], offset: &mut i64) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let is_first = rest.len() == bytes.len();
            let header = match BatchHeader::parse(rest) {
                Ok(header) => header,
                // The next read begins there.
                Err(BatchError::Incomplete { .. }) => return true,
                Err(_) => return false,
            };
            let Some((batch, behind)) = rest.split_at_checked(header.size_bytes()) else {
                return true;
            };
            if batch::checked(batch).is_err() {
                return false;
            }
            let next = BatchHeader::parse(behind);
            let is_misplaced = match &next {
                _ if header.base_offset < *offset => !is_first,
                Ok(next) => {
                    header.base_offset > *offset
                        && (*offset..header.next_offset()).contains(&next.base_offset)
                }
                // The next read tells a gap from a wrong offset.
                Err(_) if header.base_offset > *offset && !is_first => return true,
                Err(_) => false,
            };
            if is_misplaced {
                warn!(
                    topic = M::TOPIC,
                    partition = self.partition,
                    offset = header.base_offset,
                    expected = *offset,
                    "a batch of a coordinator has a wrong offset; it counts where it stands"
                );
                self.batch(&header, batch, i64::MIN);
                let end = offset.saturating_add(i64::from(header.last_offset_delta) + 1);
                *offset = next.map_or(end, |next| end.min(next.base_offset.max(*offset)));
            } else {
                self.batch(&header, batch, *offset);
                *offset = header.next_offset().max(*offset);
            }
            rest = behind;
        }
        true
    }

    fn batch(&mut self, header: &BatchHeader, batch: &[u8], from: i64) {
        let section = match section(header, batch, DECOMPRESSED_BYTES_MAX) {
            Ok(section) => section,
            Err(error) => return self.skip(header.base_offset, &error.to_string()),
        };
        for record in Records::new(&section, header.records_count) {
            let record = match record {
                Ok(record) => record,
                Err(error) => return self.skip(header.base_offset, &error.to_string()),
            };
            let offset = record.offset(header);
            if offset < from {
                continue;
            }
            self.records += 1;
            if header.is_control() {
                match record.key.and_then(marker) {
                    Some(committed) => self.machine.end_transaction(
                        header.producer_id,
                        header.producer_epoch,
                        committed,
                    ),
                    None => self.skip(offset, "a control record of an unknown type"),
                }
                continue;
            }
            let Some(key) = record.key else {
                self.skip(offset, "a record without a key");
                continue;
            };
            let logged = Logged {
                key,
                value: record.value,
                transaction: header
                    .is_transactional()
                    .then_some((header.producer_id, header.producer_epoch)),
            };
            if let Err(reason) = self.machine.replay(&logged) {
                self.skip(offset, &reason);
            }
        }
    }

    fn skip(&mut self, offset: i64, reason: &str) {
        self.skipped += 1;
        warn!(
            topic = M::TOPIC,
            partition = self.partition,
            offset,
            reason,
            "a record of a coordinator is left out"
        );
    }
}

/// Whether the key of a transaction marker says commit (`ControlRecordType`).
fn marker(key: &[u8]) -> Option<bool> {
    match key {
        [0, _, 0, 0, ..] => Some(false),
        [0, _, 0, 1, ..] => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
