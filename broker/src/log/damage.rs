//! Finding the way behind damage: where bytes that were flushed are not what was written, the next
//! batch that is whole is looked for.
//!
//! Used by recovery and by reads. What lies between is left as it is: a read into it fails, and
//! what comes after it can still be read.

use std::io;

use weir_protocol::batch;

use super::storage::File;

/// How far is looked: some ten of the largest batches that Kafka takes by default. Damage that goes
/// on for longer ends the segment.
const SEARCH_BYTES_MAX: u64 = 16 << 20;

/// The position of the first whole batch from `from` on, below `end`, that holds no offset before
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
