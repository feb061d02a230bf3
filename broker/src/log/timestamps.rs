//! The records of a batch by their time: for lookups that have found the batch and want the record.

use weir_protocol::batch::BatchHeader;
use weir_protocol::record::{Records, section};

/// The records of a batch are opened up to this many times its size, where a smaller batch counts as 1 MiB.
const DECOMPRESSED_MAX: usize = 16;
const DECOMPRESSED_BASE_MIN: usize = 1 << 20;

/// A record's offset and timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) offset: i64,
    pub(super) timestamp: i64,
}

/// The first record of a batch that is wanted. A batch whose records cannot be read counts as one record with its largest timestamp: whoever looks for a time then
/// begins with the batch, rather than to be refused because of it.
pub(super) fn first_of_batch(header: &BatchHeader, batch: &[u8], wanted: impl Fn(&Stamp) -> bool) -> Option<Stamp> {
    let limit = header.size_bytes().max(DECOMPRESSED_BASE_MIN).saturating_mul(DECOMPRESSED_MAX);
    let whole = Stamp {
        offset: header.base_offset,
        timestamp: header.max_timestamp,
    };
    let Ok(section) = section(header, batch, limit) else {
        return Some(whole).filter(wanted);
    };
    for record in Records::new(&section, header.records_count) {
        let stamp = match record {
            Ok(record) if header.is_log_append_time() => Stamp {
                offset: record.offset(header),
                ..whole
            },
            Ok(record) => Stamp {
                offset: record.offset(header),
                timestamp: record.timestamp(header),
            },
            Err(_) => return Some(whole).filter(wanted),
        };
        if wanted(&stamp) {
            return Some(stamp);
        }
    }
    None
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
                first_of_batch(&checked(batch).unwrap(), batch, |stamp| stamp.timestamp >= least).map(|stamp| (stamp.offset, stamp.timestamp))
            };
            assert_eq!(
                [0, 101, 300, 301].map(|least| from(&batch, least)),
                [Some((10, 100)), Some((12, 300)), Some((12, 300)), None]
            );
            set_max_timestamp(&mut batch, true, 500);
            assert_eq!(from(&batch, 301), Some((10, 500)), "the time of the append is that of each record");
        }
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
