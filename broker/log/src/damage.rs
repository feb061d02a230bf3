//! Skips damage: if flushed bytes are not a valid batch, finds the next whole batch.
//!
//! Recovery and reads use it. The damaged bytes stay as they are: a read into them fails, and the
//! batches after them can still be read.

use std::collections::BTreeSet;
use std::io;

use parking_lot::Mutex;
use weir_protocol::batch::{self, BatchHeader, CHECKED_FROM};

use super::storage::File;

/// The length of the search: some ten of the largest batches that Kafka takes by default. Longer
/// damage ends the segment.
const SEARCH_BYTES_MAX: u64 = 16 << 20;

/// Returns the position of the first whole batch in `from..end` whose base offset is at least
/// `offset`.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn next_batch(
    file: &dyn File,
    from: u64,
    end: u64,
    offset: i64,
) -> io::Result<Option<u64>> {
    let length = end.saturating_sub(from).min(SEARCH_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    let read = file.read_at(&mut bytes, from)?;
    bytes.truncate(read);
    let whole = |at: &usize| {
        bytes.get(*at..).is_some_and(|rest| {
            batch::checked(rest).is_ok_and(|header| header.base_offset >= offset)
        })
    };
    Ok((0..bytes.len()).find(whole).map(|at| from + at as u64))
}

/// Returns whether the checksum of the batch at `position` is right.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn is_sound(file: &dyn File, position: u64, header: &BatchHeader) -> io::Result<bool> {
    const WINDOW_BYTES: usize = 64 << 10;
    let (mut crc, mut at) = (0, position + CHECKED_FROM as u64);
    let end = position + header.size_bytes() as u64;
    let mut window = vec![0; WINDOW_BYTES.min(header.size_bytes())];
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(window.len());
        let Some(bytes) = window.get_mut(..wanted) else { return Ok(false) };
        let read = file.read_at(bytes, at)?;
        let Some(bytes) = bytes.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(false);
        };
        crc = crc32c::crc32c_append(crc, bytes);
        at += read as u64;
    }
    Ok(crc == header.crc)
}

/// The places of one log that a log line names. A reader asks for the same place again and again.
const TOLD_MAX: usize = 100;

/// The damage that reads of one log have met, by segment and position.
#[derive(Debug, Default)]
pub(super) struct Damaged(Mutex<BTreeSet<(i64, u64)>>);

impl Damaged {
    /// Returns whether no log line has named this place.
    pub(super) fn is_new(&self, segment: i64, position: u64) -> bool {
        let mut told = self.0.lock();
        told.len() < TOLD_MAX && told.insert((segment, position))
    }
}
