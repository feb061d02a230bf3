//! Reads a segment's file batch by batch, and finds whole batches, a torn tail and damage.
//!
//! It changes nothing; recovery acts on the result.

use std::io;
use std::path::Path;

use tracing::error;
use weir_protocol::batch::{self, BatchError, BatchHeader, HEADER_BYTES};

use super::super::damage;
use super::super::epochs::Epochs;
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

/// Examines the segment in `file` with base offset `base`, and adds its epochs to `epochs`.
/// Everything before the offset `flushed` was on the disk once: invalid bytes there are damage and
/// stay. Invalid bytes after it are a torn tail. `checked` gets the size of each batch.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn examine(
    path: &Path,
    file: &dyn File,
    base: i64,
    flushed: i64,
    epochs: &mut Epochs,
    mut checked: impl FnMut(u64),
) -> io::Result<Examined> {
    let mut reader = Reader { file, length: file.length()?, window: Vec::new(), at: 0 };
    let mut found = Examined {
        summary: SegmentSummary::empty(base, 0),
        end: base,
        torn: None,
        loses: false,
        has_markers: false,
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
            Found::Whole(header) => Ok(header),
            Found::Altered(header, why) if found.end < flushed => {
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
                found.take(&header);
            }
            Err(why) if found.end >= flushed => {
                let next = damage::next_batch(file, position + 1, reader.length, found.end)?;
                found.loses = next.is_some();
                found.torn = Some(why);
                break;
            }
            Err(why) => {
                let next = damage::next_batch(file, position + 1, reader.length, found.end)?;
                let until = next.unwrap_or(reader.length);
                error!(segment = %path.display(), position, until, offset = found.end, %why, "batches that were flushed are damaged; they cannot be read any more");
                found.broken = true;
                found.summary.size_bytes = until;
            }
        }
    }
    Ok(found)
}

fn follows(header: &BatchHeader, base: i64, end: i64) -> bool {
    header.base_offset >= end && header.last_offset() - base <= i64::from(u32::MAX)
}

impl Examined {
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
