//! Finds records by timestamp: the segment, the batch, and the record in it.

use weir_protocol::batch::{BatchHeader, Codec, HEADER_BYTES};
use weir_protocol::record::{Records, walk};

use super::reader::{LogReader, ReadError, TimestampedOffset};
use super::segment::{Located, Segment};

/// A batch is decompressed up to here, in pieces. It bounds the time for a batch that nobody
/// validated (`record.validation=header`), and is larger than what validation lets in where
/// `max.message.bytes` is at most 64 MiB.
const DECOMPRESSED_BYTES_MAX: usize = 8 << 30;

/// A record's offset and timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) offset: i64,
    pub(super) timestamp: i64,
}

impl LogReader {
    /// Returns the first record before `bound` that is not older than `timestamp`; `None` when
    /// there is none.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
        bound: i64,
    ) -> Result<Option<TimestampedOffset>, ReadError> {
        self.undisturbed(|| self.find_timestamp(timestamp, bound))
    }

    fn find_timestamp(
        &self,
        timestamp: i64,
        bound: i64,
    ) -> Result<Option<TimestampedOffset>, ReadError> {
        let start = self.log_start_offset();
        for segment in
            self.segments.load().iter().filter(|segment| segment.max_timestamp() >= timestamp)
        {
            let failed = |error| ReadError::of(segment, error);
            let mut from = start.max(segment.base_offset());
            while let Some(located) = segment
                .find_time(&self.dir.files, timestamp, from, segment.size_bytes())
                .map_err(failed)?
            {
                let found = self.first_record(segment, &located, |record| {
                    record.timestamp >= timestamp && record.offset >= start
                })?;
                if let Some(found) = found {
                    return Ok(Some(found).filter(|found| found.offset < bound));
                }
                // The batch's largest timestamp belongs to a removed record: search on.
                from = located.header.next_offset();
            }
        }
        Ok(None)
    }

    /// Returns the first record with the largest timestamp, even if no record has a timestamp
    /// (`UnifiedLog.fetchOffsetByTimestamp`). Returns `None` when it is not before `bound`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn offset_of_max_timestamp(
        &self,
        bound: i64,
    ) -> Result<Option<TimestampedOffset>, ReadError> {
        self.undisturbed(|| self.find_max_timestamp(bound))
    }

    fn find_max_timestamp(&self, bound: i64) -> Result<Option<TimestampedOffset>, ReadError> {
        let segments = self.segments.load();
        // `max_by_key` returns the last maximum; reversed, this is the first segment with it.
        let Some(segment) = segments
            .iter()
            .rev()
            .filter(|segment| segment.size_bytes() > 0)
            .max_by_key(|segment| segment.max_timestamp())
        else {
            return Ok(None);
        };
        let located = segment
            .find(&self.dir.files, segment.max_timestamp_offset(), segment.size_bytes())
            .map_err(|error| ReadError::of(segment, error))?;
        let Some(located) = located else { return Ok(None) };
        let newest = located.header.max_timestamp;
        Ok(self
            .first_record(segment, &located, |record| record.timestamp == newest)?
            .filter(|found| found.offset < bound))
    }

    fn first_record(
        &self,
        segment: &Segment,
        located: &Located,
        wanted: impl Fn(&Stamp) -> bool,
    ) -> Result<Option<TimestampedOffset>, ReadError> {
        let bytes = segment
            .read_batch(&self.dir.files, located)
            .map_err(|error| ReadError::of(segment, error))?;
        let found = first_of_batch(&located.header, &bytes, wanted);
        Ok(found.map(|stamp| TimestampedOffset {
            timestamp: stamp.timestamp,
            offset: stamp.offset,
            leader_epoch: located.header.leader_epoch,
        }))
    }
}

/// Returns the first matching record of a batch. A batch whose records cannot be read counts as one
/// record with its largest timestamp. So a lookup finds the start of that batch instead of failing.
pub(super) fn first_of_batch(
    header: &BatchHeader,
    batch: &[u8],
    wanted: impl Fn(&Stamp) -> bool,
) -> Option<Stamp> {
    let whole = Stamp { offset: header.base_offset, timestamp: header.max_timestamp };
    let stamp_of = |offset: i64, timestamp: i64| match header.is_log_append_time() {
        true => Stamp { offset, ..whole },
        false => Stamp { offset, timestamp },
    };
    if header.codec() == Some(Codec::None) {
        let section = batch.get(HEADER_BYTES..).unwrap_or_default();
        for record in Records::new(section, header.records_count) {
            let Ok(record) = record else { return Some(whole).filter(wanted) };
            let stamp = stamp_of(record.offset(header), record.timestamp(header));
            if wanted(&stamp) {
                return Some(stamp);
            }
        }
        return None;
    }
    let mut found = None;
    let walked = walk(header, batch, DECOMPRESSED_BYTES_MAX, u32::MAX, |record| {
        let offset = header.base_offset.saturating_add(i64::from(record.offset_delta));
        let stamp = stamp_of(offset, record.timestamp(header));
        if found.is_none() && wanted(&stamp) {
            found = Some(stamp);
        }
    });
    match walked {
        Err(_) if found.is_none() => Some(whole).filter(wanted),
        _ => found,
    }
}

#[cfg(test)]
mod tests {
    use weir_protocol::batch::{Codec, checked, set_max_timestamp};
    use weir_protocol::record::BatchBuilder;

    use super::*;

    #[test]
    fn the_first_record_that_is_wanted_is_found() {
        for codec in [Codec::None, Codec::Zstd] {
            let mut builder = BatchBuilder::new(10).codec(codec);
            for (offset, timestamp) in [(10, 100), (12, 300), (13, 200)] {
                builder.append(offset, timestamp, None, None, []);
            }
            let mut batch = builder.build(0).unwrap();
            let from = |batch: &[u8], least: i64| {
                first_of_batch(&checked(batch).unwrap(), batch, |stamp| stamp.timestamp >= least)
                    .map(|stamp| (stamp.offset, stamp.timestamp))
            };
            assert_eq!(
                [0, 101, 300, 301].map(|least| from(&batch, least)),
                [Some((10, 100)), Some((12, 300)), Some((12, 300)), None]
            );
            set_max_timestamp(&mut batch, true, 500);
            assert_eq!(
                from(&batch, 301),
                Some((10, 500)),
                "the time of the append is that of each record"
            );
        }
    }

    /// Batches of 128 times `max.message.bytes` are let in.
    #[test]
    fn a_record_is_found_in_whatever_was_let_in() {
        let value = vec![0; 1 << 20];
        let mut builder = BatchBuilder::new(10).codec(Codec::Zstd);
        for offset in 10..30 {
            builder.append(offset, 100 + offset, None, Some(&value), []);
        }
        let batch = builder.build(0).unwrap();
        let header = checked(&batch).unwrap();
        assert_eq!(
            first_of_batch(&header, &batch, |stamp| stamp.timestamp >= 125),
            Some(Stamp { offset: 25, timestamp: 125 })
        );
    }

    #[test]
    fn a_batch_that_cannot_be_read_counts_as_a_whole() {
        let mut builder = BatchBuilder::new(10);
        builder.append(10, 100, None, None, []);
        let mut batch = builder.build(0).unwrap();
        for byte in [21, 22] {
            batch[byte] = 0;
        }
        batch[22] = 1;
        let header = BatchHeader::parse(&batch).unwrap();
        let found = first_of_batch(&header, &batch, |stamp| stamp.timestamp >= 100);
        assert_eq!(found, Some(Stamp { offset: 10, timestamp: 100 }));
        assert_eq!(first_of_batch(&header, &batch, |stamp| stamp.timestamp > 100), None);
    }
}
