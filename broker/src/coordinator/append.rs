//! PURE: the records of decisions as batches.

use weir_protocol::batch::BatchHeader;
use weir_protocol::record::BatchBuilder;
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::machine::Record;
use crate::log::{Origin, Prepared};

/// A batch is closed at this size. The records of one decision stay together, whatever their size: `max.message.bytes` is a promise to producers, and here is none.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// Batches that are being put together.
#[derive(Debug, Default)]
pub(super) struct Batches {
    open: Option<Open>,
    done: Vec<bytes::BytesMut>,
}

#[derive(Debug)]
struct Open {
    builder: BatchBuilder,
    records: i64,
    bytes: usize,
    transaction: Option<(ProducerId, ProducerEpoch)>,
}

impl Batches {
    /// Adds the records of one decision. What belongs to different transactions stands in different batches.
    pub(super) fn add(&mut self, records: &[Record], transaction: Option<(ProducerId, ProducerEpoch)>, now_ms: i64) {
        if records.is_empty() {
            return;
        }
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.bytes >= BATCH_BYTES_MAX || open.transaction != transaction)
        {
            self.close();
        }
        let open = self.open.get_or_insert_with(|| Open {
            builder: builder(transaction),
            records: 0,
            bytes: 0,
            transaction,
        });
        for Record { key, value } in records {
            open.builder.append(open.records, now_ms, Some(key), value.as_deref(), []);
            open.records += 1;
            open.bytes += key.len() + value.as_ref().map_or(0, bytes::Bytes::len);
        }
    }

    fn close(&mut self) {
        // What is not compressed fails only beyond two gigabytes.
        if let Some(batch) = self.open.take().and_then(|open| open.builder.build(0).ok()) {
            self.done.push(batch);
        }
    }

    /// What is to be appended; `None` when there is nothing.
    pub(super) fn finish(mut self) -> Option<Prepared> {
        self.close();
        let mut batches = self.done.into_iter();
        let mut bytes = batches.next()?;
        let mut headers = vec![BatchHeader::parse(&bytes).ok()?];
        for batch in batches {
            headers.push(BatchHeader::parse(&batch).ok()?);
            bytes.unsplit(batch);
        }
        Some(Prepared {
            bytes,
            headers,
            origin: Origin::Coordinator,
        })
    }
}

fn builder(transaction: Option<(ProducerId, ProducerEpoch)>) -> BatchBuilder {
    match transaction {
        None => BatchBuilder::new(0),
        Some((id, epoch)) => BatchBuilder::new(0).producer(id, epoch, -1),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use weir_protocol::record::{Records, section};

    use super::*;

    fn records(count: usize, size: usize) -> Vec<Record> {
        let record = |at: usize| Record {
            key: Bytes::from(at.to_string()),
            value: (at != 1).then(|| Bytes::from(vec![b'v'; size])),
        };
        (0..count).map(record).collect()
    }

    #[test]
    fn decisions_share_a_batch_until_it_is_large_and_are_never_cut() {
        let mut batches = Batches::default();
        batches.add(&[], None, 5);
        batches.add(&records(3, 10), None, 5);
        batches.add(&records(2, BATCH_BYTES_MAX), None, 6);
        batches.add(&records(1, 1), None, 7);
        let prepared = batches.finish().unwrap();
        assert_eq!(prepared.headers.iter().map(|header| header.records_count).collect::<Vec<_>>(), [5, 1]);
        let mut at = 0;
        let mut keys = Vec::new();
        for header in &prepared.headers {
            let batch = &prepared.bytes[at..at + header.size_bytes()];
            weir_protocol::batch::checked(batch).unwrap();
            let bytes = section(header, batch, usize::MAX).unwrap();
            for record in Records::new(&bytes, header.records_count) {
                let record = record.unwrap();
                keys.push((String::from_utf8_lossy(record.key.unwrap()).into_owned(), record.value.is_some()));
            }
            at += header.size_bytes();
        }
        assert_eq!(at, prepared.bytes.len());
        let expected = [("0", true), ("1", false), ("2", true), ("0", true), ("1", false), ("0", true)];
        assert_eq!(keys, expected.map(|(key, value)| (key.to_owned(), value)));
        assert!(Batches::default().finish().is_none());
    }
}
