//! Damage that a read meets: what is behind it, and one log line for each place.

use tracing::error;

use super::{LogReader, ReadError};

impl LogReader {
    /// Returns the offset of the first batch behind `offset` that can be read, at most `bound`:
    /// that is where a reader goes on that cannot read at `offset`. A segment that cannot be read
    /// at all is left out.
    pub fn behind_damage(&self, offset: i64, bound: i64) -> i64 {
        let segments = self.segments.load();
        let first =
            segments.partition_point(|segment| segment.base_offset() <= offset).saturating_sub(1);
        for (index, segment) in segments.iter().enumerate().skip(first) {
            if segment.base_offset() > offset {
                return segment.base_offset().min(bound);
            }
            let end = segments.get(index + 1).map_or(bound, |next| next.base_offset());
            let next = segment.next_readable(&self.dir.files, offset);
            if let Ok(Some(next)) = next
                && next < end
            {
                return next.min(bound);
            }
        }
        bound
    }

    /// Logs damage that a read has met, once for each place.
    pub(super) fn tell_of_damage(&self, offset: i64, damage: &ReadError) {
        let ReadError::Corrupt { segment, position, .. } = damage else { return };
        if self.damaged.is_new(*segment, *position) {
            error!(log = %self.path().display(), offset, error = %damage, "a read meets damage: who asks for this offset is refused, and what is behind it can be read");
        }
    }
}
