//! What the log should hold: the batches that were appended, and what of them must be there.

use super::*;

/// The expected content of the log.
#[derive(Default)]
pub(super) struct Model {
    /// Base offset, next offset and bytes of each batch that an append tried to write.
    pub(super) batches: Vec<(i64, i64, Vec<u8>)>,
    pub(super) epoch: i32,
    /// The log start offset.
    pub(super) start: i64,
    /// Every append before this offset was confirmed.
    pub(super) end: i64,
    /// Everything before it was reported as flushed.
    pub(super) flushed: i64,
    /// Everything before it is committed: the high watermark was there once.
    pub(super) committed: i64,
    /// The log was emptied, and no append since is known. It may be empty at any offset.
    pub(super) anew: bool,
    /// Records were deleted, or the log was emptied.
    pub(super) partial: bool,
    /// The run has a broker epoch.
    pub(super) has_epoch: bool,
    /// A truncation has begun and has not ended.
    pub(super) cuts: bool,
    /// Whether to check the transactions after each step, or only when they are loaded anyway.
    pub(super) asks: bool,
}

impl Model {
    /// Records the batches as they should be in the log.
    pub(super) fn try_append(&mut self, batches: &[Wanted]) -> BytesMut {
        self.try_both(batches).0
    }

    /// The same as a leader gets them from a client, and as a follower gets them from its leader.
    pub(super) fn try_both(&mut self, batches: &[Wanted]) -> (BytesMut, BytesMut) {
        let (mut all, mut stamped) = (BytesMut::new(), BytesMut::new());
        let mut next = self.end;
        for wanted in batches {
            let count = self.batches.len();
            let mut batch = written(*wanted, timestamp_of(count), count as u8);
            all.extend_from_slice(&batch);
            batch::set_offset_and_epoch(&mut batch, next, LeaderEpoch(self.epoch));
            stamped.extend_from_slice(&batch);
            let base = next;
            next = BatchHeader::parse(&batch).unwrap().next_offset();
            self.batches.push((base, next, batch.to_vec()));
        }
        (all, stamped)
    }

    /// The log's transactions match its batches.
    pub(super) fn check_told(&mut self, fs: &Faulty, opened: &mut Opened) {
        if !self.asks && !opened.has_been_asked() {
            return;
        }
        // This may trigger a fault too: an unreadable snapshot is removed, and an index is
        // rewritten.
        let readable = opened.writer.load_transactions(1_000).is_ok() && opened.batches().is_ok();
        if !readable || fs.crashed() {
            return assert!(fs.faulted(), "{:?}", opened.dir.failure());
        }
        let end = opened.log.log_end_offset();
        // A cut or a crash may have cost what was committed.
        self.committed = self.committed.min(end);
        let history = self.batches.iter().filter(|(_, next, _)| *next <= end);
        let history = history.map(|(.., bytes)| &bytes[..]);
        opened.tells_what_its_batches_say(history, !self.partial, self.committed);
    }

    /// Truncates the log. Once this has begun, flushed records after the cut may be gone; once it
    /// is done, they must be gone.
    pub(super) fn truncate(&mut self, opened: &mut Opened, offset: i64) -> bool {
        let whole = self
            .batches
            .iter()
            .find(|(_, next, _)| *next > offset)
            .map_or(offset, |(base, ..)| *base);
        self.flushed = self.flushed.min(offset.min(whole));
        // A cut at or before the log start offset empties the log.
        self.anew |= offset <= self.start;
        self.partial |= self.anew;
        self.cuts = true;
        let Ok(end) = opened.writer.truncate_to(offset) else { return false };
        self.cuts = false;
        assert!(
            end == offset.min(whole) || (end == offset && self.anew),
            "cut at {offset}, and the log ends at {end}"
        );
        self.batches.retain(|(_, next, _)| *next <= end);
        (self.start, self.end) = (self.start.min(end), end);
        true
    }

    pub(super) fn start_at(&mut self, opened: &mut Opened, offset: i64) -> bool {
        (self.flushed, self.anew, self.partial) = (0, true, true);
        self.cuts = true;
        if opened.writer.truncate_fully_and_start_at(offset).is_err() {
            return false;
        }
        self.cuts = false;
        self.batches.clear();
        (self.start, self.end) = (offset, offset);
        true
    }

    /// Checks the log after a restart. It must be a prefix of the tried batches that contains the
    /// flushed ones, all readable and found by offset, time and epoch.
    pub(super) fn check(&mut self, opened: &Opened) -> Result<(), ReadError> {
        let log = &opened.log;
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        assert!(end >= self.flushed, "flushed up to {}, and the log ends at {end}", self.flushed);
        assert!(
            start <= self.start.max(end),
            "the log start offset was {}, and is {start}",
            self.start
        );
        self.batches.retain(|(base, ..)| *base < end);
        // A log that lost all its records, none of them flushed, keeps its start offset. It may be
        // in the middle of a batch if records of that batch were deleted.
        if start == end && (self.anew || end <= self.start) {
            self.batches.retain(|(_, next, _)| *next <= end);
        } else {
            assert_eq!(
                end,
                self.batches.last().map_or(0, |(_, next, _)| *next),
                "the log ends with a batch"
            );
            self.anew = false;
        }
        let expected: Vec<_> = self.batches.iter().filter(|(_, next, _)| *next > start).collect();
        let found = opened.batches()?;
        let offsets = (
            found.iter().map(|(base, _)| *base).collect::<Vec<_>>(),
            expected.iter().map(|(base, ..)| *base).collect::<Vec<_>>(),
        );
        assert_eq!(offsets.0, offsets.1, "from {start} on");
        assert!(
            found.iter().map(|(_, bytes)| bytes).eq(expected.iter().map(|(.., bytes)| bytes)),
            "other bytes"
        );
        for (base, next, bytes) in &expected {
            for offset in (*base).max(start)..*next {
                let slice = log.read(offset, end, 1, true)?.unwrap();
                assert_eq!(
                    (slice.base_offset, slice.length),
                    (*base, bytes.len()),
                    "offset {offset}"
                );
            }
            let header = BatchHeader::parse(bytes).unwrap();
            assert_eq!(
                log.epoch_of((*base).max(start)),
                Some(header.leader_epoch),
                "the epoch at {base}"
            );
            let first = expected.iter().find(|(base, _, bytes)| {
                *base >= start && timestamp_in(bytes) >= header.max_timestamp
            });
            // Other tests cover a batch that spans the log start offset.
            if expected.first().is_some_and(|(base, ..)| *base >= start) {
                let found = log.offset_for_timestamp(header.max_timestamp, end)?;
                assert_eq!(
                    found.map(|found| found.offset),
                    first.map(|(base, ..)| *base),
                    "the first at {} or later",
                    header.max_timestamp
                );
            }
        }
        (self.start, self.end, self.flushed) = (start, end, end);
        Ok(())
    }
}
