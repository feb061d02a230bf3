//! Reads a segment's file batch by batch, and finds whole batches, a torn tail and damage.
//!
//! It changes nothing; recovery acts on the result.

use std::io;
use std::path::Path;

use tracing::error;
use weir_protocol::batch::{self, BatchError, BatchHeader, HEADER_BYTES};
use weir_protocol::record::{Records, section};

use super::super::damage;
use super::super::epochs::{EpochStart, Epochs};
use super::super::segment::SegmentSummary;
use super::super::storage::File;

/// Bytes read at a time.
pub(super) const WINDOW_BYTES: usize = 1 << 20;

/// The content of a segment.
#[derive(Debug)]
pub(super) struct Examined {
    /// Its size ends at the torn tail, if there is one.
    pub(super) summary: SegmentSummary,
    /// The offset after its last batch.
    pub(super) end: i64,
    /// Why the bytes after `summary.size_bytes` are no batch.
    pub(super) torn: Option<String>,
    /// Whole batches lie behind the torn one. An interrupted write leaves none: these were written
    /// after it.
    pub(super) loses: bool,
    /// It has control batches: transactions end in it.
    pub(super) has_markers: bool,
    /// A transaction is aborted in it.
    pub(super) has_aborts: bool,
    /// Whether flushed batches of it are damaged, so that nothing may be appended to it.
    pub(super) broken: bool,
}

/// The content at a position.
enum Found {
    End,
    Whole(BatchHeader),
    /// Only its checksum is wrong.
    Altered(BatchHeader, BatchError),
    Broken(BatchError),
}

/// What is known of a segment before it is examined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Its base offset.
    pub(super) base: i64,
    /// The base offset of the next segment, or the largest offset.
    pub(super) next: i64,
    /// Everything before it was on the disk once: invalid bytes there are damage and stay. Invalid
    /// bytes after it are a torn tail.
    pub(super) flushed: i64,
    /// The log had records up to there; the largest offset where the kernel wrote everything.
    pub(super) vouched: i64,
}

/// Examines the segment in `file`, and adds its epochs to `epochs`. `checked` gets the size of each
/// batch.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn examine(
    path: &Path,
    file: &dyn File,
    known: Known,
    epochs: &mut Epochs,
    mut checked: impl FnMut(u64),
) -> io::Result<Examined> {
    let Known { base, flushed, next, .. } = known;
    let mut reader = Reader { file, length: file.length()?, window: Vec::new(), at: 0 };
    let mut found = Examined {
        summary: SegmentSummary::empty(base, 0),
        end: base,
        torn: None,
        loses: false,
        has_markers: false,
        has_aborts: false,
        broken: false,
    };
    loop {
        let position = found.summary.size_bytes;
        let header = match reader.batch(position)? {
            Found::End => break,
            Found::Whole(header) | Found::Altered(header, _)
                if !follows(&header, base, found.end) =>
            {
                Err(format!(
                    "the batch at offset {} does not follow offset {}",
                    header.base_offset, found.end
                ))
            }
            Found::Whole(header)
                if found.is_beyond(&header, flushed, next)
                    || reader.is_refuted(position, &header, found.end)? =>
            {
                Err(format!("what is behind it says that offset {} is wrong", header.base_offset))
            }
            Found::Whole(header)
                if found.is_doubtful(&header, known, epochs)
                    && !reader.is_followed(position, &header)? =>
            {
                Err(format!("nothing else says that there was offset {}", header.base_offset))
            }
            Found::Whole(header) => Ok(header),
            // Its offsets or its length may be what is damaged.
            Found::Altered(header, why)
                if header.next_offset() <= flushed.min(next)
                    && reader.leads_on(position, &header)? =>
            {
                error!(segment = %path.display(), position, offset = header.base_offset, %why, "a batch that was flushed is damaged; consumers will refuse it");
                Ok(header)
            }
            Found::Altered(_, why) | Found::Broken(why) => Err(why.to_string()),
        };
        match header {
            Ok(header) => {
                // The epochs may already include later ones from the file. Assigning an older epoch
                // would drop those.
                if epochs.epoch_of(header.base_offset) != Some(header.leader_epoch) {
                    epochs.assign(header.leader_epoch, header.base_offset);
                }
                checked(header.size_bytes() as u64);
                if header.is_control() && !found.has_aborts {
                    found.has_aborts =
                        is_abort(&header, reader.bytes(position, header.size_bytes())?);
                }
                found.take(&header);
            }
            Err(why) if found.end >= flushed => {
                // An offset that is damaged in the batches behind is no smaller for that.
                let behind = damage::next_batch(file, position + 1, reader.length, base)?;
                found.loses = behind.is_some();
                found.torn = Some(why);
                break;
            }
            Err(why) => {
                let behind = damage::next_batch(file, position + 1, reader.length, found.end)?;
                let until = behind.unwrap_or(reader.length);
                error!(segment = %path.display(), position, until, offset = found.end, %why, "batches that were flushed are damaged; they cannot be read any more");
                found.broken = true;
                found.summary.size_bytes = until;
            }
        }
    }
    Ok(found)
}

/// Whether a control batch aborts a transaction (`ControlRecordType`).
fn is_abort(header: &BatchHeader, batch: &[u8]) -> bool {
    let Ok(section) = section(header, batch, header.size_bytes()) else { return false };
    let mut records = Records::new(&section, header.records_count);
    let Some(Ok(record)) = records.next() else { return false };
    matches!(record.key, Some([0, _, 0, 0, ..]))
}

fn follows(header: &BatchHeader, base: i64, end: i64) -> bool {
    header.base_offset >= end && header.last_offset() - base <= i64::from(u32::MAX)
}

impl Examined {
    /// Whether a batch leaves a gap and ends beyond the next segment, or beyond a flush that it
    /// should have been part of: its offset is wrong then.
    fn is_beyond(&self, header: &BatchHeader, flushed: i64, next: i64) -> bool {
        header.base_offset > self.end
            && (header.next_offset() > next
                || (!self.broken && self.end < flushed && header.next_offset() > flushed))
    }

    /// Whether a batch behind the last checkpoint leaves a gap, and no other file of the log says
    /// that there were such offsets. The machine may have stopped while it was written, and the
    /// checksum does not cover the offset. A leader leaves no gap, and a follower does only where
    /// its leader has compacted. Such a batch may be right, but its replica is in no ISR any more
    /// and gets it again; a wrong offset would hide what is missing before it.
    fn is_doubtful(&self, header: &BatchHeader, known: Known, epochs: &Epochs) -> bool {
        let begins = |start: &EpochStart| {
            (start.epoch, start.start_offset) == (header.leader_epoch, header.base_offset)
        };
        header.base_offset > self.end
            && self.end >= known.flushed
            && header.next_offset() > known.vouched
            && known.next == i64::MAX
            && !epochs.entries().iter().any(begins)
    }

    fn take(&mut self, header: &BatchHeader) {
        let summary = &mut self.summary;
        self.end = header.next_offset();
        self.has_markers |= header.is_control();
        if header.max_timestamp > summary.max_timestamp {
            (summary.max_timestamp, summary.max_timestamp_offset) =
                (header.max_timestamp, header.base_offset);
        }
        summary.size_bytes += header.size_bytes() as u64;
    }
}

/// Reads batches in order and checks each one.
struct Reader<'a> {
    file: &'a dyn File,
    length: u64,
    window: Vec<u8>,
    at: u64,
}

impl Reader<'_> {
    fn batch(&mut self, position: u64) -> io::Result<Found> {
        if position >= self.length {
            return Ok(Found::End);
        }
        let available = usize::try_from(self.length - position).unwrap_or(usize::MAX);
        let header = match BatchHeader::parse(self.bytes(position, HEADER_BYTES.min(available))?) {
            Ok(header) => header,
            Err(error) => return Ok(Found::Broken(error)),
        };
        let needed = header.size_bytes();
        if needed > available {
            return Ok(Found::Broken(BatchError::Incomplete { needed, available }));
        }
        Ok(match batch::checked(self.bytes(position, needed)?) {
            Ok(header) => Found::Whole(header),
            Err(error) => Found::Altered(header, error),
        })
    }

    /// Returns whether the segment ends behind the batch at `position`, or the next batch begins
    /// there.
    fn leads_on(&mut self, position: u64, header: &BatchHeader) -> io::Result<bool> {
        Ok(match self.batch(position + header.size_bytes() as u64)? {
            Found::End => true,
            Found::Whole(next) | Found::Altered(next, _) => {
                next.base_offset >= header.next_offset()
            }
            Found::Broken(_) => false,
        })
    }

    /// Returns whether a whole batch follows behind the one at `position`.
    fn is_followed(&mut self, position: u64, header: &BatchHeader) -> io::Result<bool> {
        let next = self.batch(position + header.size_bytes() as u64)?;
        Ok(matches!(next, Found::Whole(next) if next.base_offset >= header.next_offset()))
    }

    /// Returns whether the batch at `position` leaves a gap after the offset `end` that the batch
    /// behind it would fill. The checksum does not cover the offset, which is wrong then.
    fn is_refuted(&mut self, position: u64, header: &BatchHeader, end: i64) -> io::Result<bool> {
        if header.base_offset == end {
            return Ok(false);
        }
        let next = self.batch(position + header.size_bytes() as u64)?;
        let fills = |next: &BatchHeader| (end..header.next_offset()).contains(&next.base_offset);
        Ok(matches!(next, Found::Whole(next) if fills(&next)))
    }

    fn bytes(&mut self, position: u64, needed: usize) -> io::Result<&[u8]> {
        let held =
            position >= self.at && position + needed as u64 <= self.at + self.window.len() as u64;
        if !held {
            let wanted = usize::try_from(self.length - position)
                .unwrap_or(usize::MAX)
                .min(WINDOW_BYTES.max(needed));
            self.window.resize(wanted, 0);
            let read = self.file.read_at(&mut self.window, position)?;
            self.window.truncate(read);
            self.at = position;
        }
        let from = usize::try_from(position - self.at).unwrap_or(usize::MAX);
        self.window.get(from..from + needed).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
