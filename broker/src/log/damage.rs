//! Skips damage: if flushed bytes are not a valid batch, finds the next whole batch.
//!
//! Recovery and reads use it. The damaged bytes stay as they are: a read into them fails, and the
//! batches after them can still be read.

use std::io;

use weir_protocol::batch;

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
