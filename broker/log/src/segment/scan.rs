//! Iterates over the headers of a segment's batches, around damage.
//!
//! A scan reads headers alone, so no checksum covers them. A flipped bit in one shows in the next:
//! it does not parse, or it begins before the last one ends. Then the checksum of the last batch
//! says which of the two is wrong. The checksum does not cover the offset of a batch; a gap in
//! front of it that the next batch would fill says that it is wrong.

use std::io;
use std::sync::Arc;

use weir_protocol::batch::{BatchError, BatchHeader, HEADER_BYTES};

use super::super::damage;
use super::super::storage::File;

/// A batch in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
}

/// Why a segment could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SegmentError {
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are no valid batches.
    #[error("at byte {position}: {error}")]
    Corrupt { position: u64, error: BatchError },
}

/// Bytes read at a time in a search for headers.
const SCAN_BYTES: usize = 8 * 1024;

/// Iterates over the headers of a segment's batches and reads no more than it needs. It skips
/// damage if a whole batch follows.
pub(crate) struct Scan {
    file: Arc<dyn File>,
    base_offset: i64,
    position: u64,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
    /// No later batch begins before it.
    next_offset: i64,
    /// The batch before the position ends there. False in the middle of a segment and behind
    /// damage.
    is_exact: bool,
    last: Option<Last>,
    /// The damage right before the last returned batch.
    damage: Option<SegmentError>,
    /// The damage right before the next one.
    ahead: Option<SegmentError>,
}

/// The last returned batch, and what was known of the offsets before it.
#[derive(Clone, Copy)]
struct Last {
    located: Located,
    next_offset: i64,
    is_exact: bool,
}

impl Scan {
    /// Iterates over the batches from `position` to `end`.
    pub(super) fn new(file: Arc<dyn File>, base_offset: i64, position: u64, end: u64) -> Self {
        Self {
            file,
            base_offset,
            position,
            end,
            window: Vec::new(),
            window_at: 0,
            next_offset: base_offset,
            is_exact: position == 0,
            last: None,
            damage: None,
            ahead: None,
        }
    }

    /// Returns the bytes up to the end; 0 if an index pointed beyond it.
    fn left(&self) -> u64 {
        self.end.saturating_sub(self.position)
    }

    /// Returns the header at the position.
    pub(super) fn header(&mut self) -> Result<BatchHeader, SegmentError> {
        let offset = self
            .position
            .checked_sub(self.window_at)
            .and_then(|offset| usize::try_from(offset).ok());
        let held = offset
            .and_then(|offset| self.window.get(offset..))
            .filter(|rest| rest.len() >= HEADER_BYTES);
        if held.is_none() {
            let wanted = usize::try_from(self.left()).unwrap_or(usize::MAX).min(SCAN_BYTES);
            self.window.resize(wanted, 0);
            let read = self.file.read_at(&mut self.window, self.position)?;
            self.window.truncate(read);
            self.window_at = self.position;
        }
        let offset = usize::try_from(self.position - self.window_at).unwrap_or(usize::MAX);
        let bytes = self.window.get(offset..).unwrap_or_default();
        let header = BatchHeader::parse(bytes).map_err(|error| self.corrupt(error))?;
        if self.position + header.size_bytes() as u64 > self.end {
            let available = usize::try_from(self.left()).unwrap_or(usize::MAX);
            let needed = header.size_bytes();
            return Err(self.corrupt(BatchError::Incomplete { needed, available }));
        }
        Ok(header)
    }

    fn corrupt(&self, error: BatchError) -> SegmentError {
        SegmentError::Corrupt { position: self.position, error }
    }

    /// Takes the damage right before the last returned batch.
    pub(super) fn take_damage(&mut self) -> Option<SegmentError> {
        self.damage.take()
    }

    /// Returns whether offsets are missing between the last returned batch and the one before it.
    pub(super) fn leaves_gap(&self) -> bool {
        self.last
            .is_some_and(|last| last.is_exact && last.located.header.base_offset > last.next_offset)
    }

    /// Returns whether the batch behind the last returned one says that the offsets or the length
    /// of that one are wrong.
    pub(super) fn is_refuted(&mut self) -> io::Result<bool> {
        let Some(last) = self.last.filter(|_| self.position < self.end) else { return Ok(false) };
        match self.header() {
            Ok(next) if next.base_offset >= self.next_offset => Ok(false),
            Ok(next) => Ok(fills_gap(&last, &next) || !self.is_sound(&last)?),
            Err(SegmentError::Corrupt { .. }) => Ok(!self.is_sound(&last)?),
            Err(SegmentError::Io(error)) => Err(error),
        }
    }

    /// Counts the last returned batch as damage, and goes on behind it.
    ///
    /// # Errors
    /// When no whole batch follows, or the file cannot be read.
    pub(super) fn step_back(&mut self) -> Result<(), SegmentError> {
        let Some(last) = self.last else { return Ok(()) };
        let damage = wrong(&last);
        let found = self.next_whole(last.located.position + 1, last.next_offset)?;
        self.position = found.unwrap_or(self.end);
        if found.is_none() {
            return Err(damage);
        }
        self.go_on_behind(last.next_offset, damage);
        Ok(())
    }

    fn go_on_behind(&mut self, next_offset: i64, damage: SegmentError) {
        (self.next_offset, self.is_exact, self.last) = (next_offset, false, None);
        self.ahead = Some(damage);
    }

    fn next_whole(&self, from: u64, offset: i64) -> io::Result<Option<u64>> {
        damage::next_batch(&*self.file, from, self.end, offset)
    }

    fn is_sound(&self, last: &Last) -> io::Result<bool> {
        damage::is_sound(&*self.file, last.located.position, &last.located.header)
    }

    /// Checks that the header at the position follows the last one. If the last one is wrong, goes
    /// on behind that.
    fn following(&mut self, header: BatchHeader) -> Result<BatchHeader, SegmentError> {
        if header.last_offset() - self.base_offset > i64::from(u32::MAX) {
            return Err(self.corrupt(BatchError::Invalid("its offsets are beyond its segment")));
        }
        if header.base_offset >= self.next_offset {
            return Ok(header);
        }
        match self.last {
            Some(last)
                if header.base_offset >= last.next_offset
                    && (fills_gap(&last, &header) || !self.is_sound(&last)?) =>
            {
                self.go_on_behind(last.next_offset, wrong(&last));
                Ok(header)
            }
            _ => Err(self.corrupt(BatchError::Invalid("it begins before the one before it ends"))),
        }
    }

    /// Returns the header at the position, or the one after the damage there.
    fn header_behind_damage(&mut self) -> Result<BatchHeader, SegmentError> {
        let damage = match self.header().and_then(|header| self.following(header)) {
            Err(damage @ SegmentError::Corrupt { .. }) => damage,
            found => return found,
        };
        // A wrong length of the last batch leads to here. The next one is then where that should
        // have led to.
        let inside = match self.last {
            Some(last) if !self.is_sound(&last)? => self
                .next_whole(last.located.position + 1, last.next_offset)?
                .map(|position| (position, last.next_offset)),
            _ => None,
        };
        let behind = match inside {
            None => self
                .next_whole(self.position + 1, self.next_offset)?
                .map(|position| (position, self.next_offset)),
            found => found,
        };
        let Some((position, next_offset)) = behind else { return Err(damage) };
        self.position = position;
        self.go_on_behind(next_offset, damage);
        self.header()
    }
}

/// Whether `next` would fill a gap before the last batch, whose offset is wrong then.
fn fills_gap(last: &Last, next: &BatchHeader) -> bool {
    let header = &last.located.header;
    last.is_exact && header.base_offset > last.next_offset && next.base_offset >= last.next_offset
}

fn wrong(last: &Last) -> SegmentError {
    let error =
        BatchError::Invalid("the batch behind it says that its offsets or its length are wrong");
    SegmentError::Corrupt { position: last.located.position, error }
}

impl Iterator for Scan {
    type Item = Result<Located, SegmentError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.end {
            return None;
        }
        let found = self.header_behind_damage();
        self.damage = self.ahead.take();
        let position = self.position;
        let found = found.map(|header| Located { position, header });
        match &found {
            Ok(located) => {
                let (next_offset, is_exact) = (self.next_offset, self.is_exact);
                self.last = Some(Last { located: *located, next_offset, is_exact });
                self.position += located.header.size_bytes() as u64;
                (self.next_offset, self.is_exact) = (located.header.next_offset(), true);
            }
            Err(_) => self.position = self.end,
        }
        Some(found)
    }
}
