//! PURE: the records of decisions as batches.

use weir_protocol::batch::BatchHeader;
use weir_protocol::record::BatchBuilder;
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::state_machine::Record;
use weir_log::{Origin, Prepared};

/// The size at which a batch is closed, in bytes. The records of one decision stay in one batch
/// while they take at most [`WRITE_BYTES_MAX`]. `max.message.bytes` does not apply, because it is a
/// limit for producers.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// The most bytes of keys and values that one decision may write. A request for more is refused
/// before the decision: UNKNOWN_SERVER_ERROR, as by `CoordinatorRuntime` and
/// `CoordinatorOperationExceptionHelper` in Apache Kafka, where the topic's `max.message.bytes` is
/// the limit. A timer or a deletion may still exceed it. Its records are cut into batches of that
/// size, which spares followers and memory. The reply waits until all of them are committed.
pub(crate) const WRITE_BYTES_MAX: usize = 16 << 20;

/// Batches under construction.
#[derive(Debug, Default)]
pub(super) struct Batches {
    open: Option<Open>,
    done: Vec<bytes::BytesMut>,
    /// Whether a record did not fit into any batch.
    is_broken: bool,
}

/// The records cannot be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

#[derive(Debug)]
struct Open {
    builder: BatchBuilder,
    records: i64,
    bytes: usize,
    transaction: Option<(ProducerId, ProducerEpoch)>,
}

impl Batches {
    /// Adds the records of one decision. Records of different transactions go into different
    /// batches.
    pub(super) fn add(
        &mut self,
        records: &[Record],
        transaction: Option<(ProducerId, ProducerEpoch)>,
        now_ms: i64,
    ) {
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
        for Record { key, value } in records {
            let bytes = key.len() + value.as_ref().map_or(0, bytes::Bytes::len);
            // The records before this decision are less than one batch.
            if self
                .open
                .as_ref()
                .is_some_and(|open| open.bytes + bytes > BATCH_BYTES_MAX + WRITE_BYTES_MAX)
            {
                self.close();
            }
            let open = self.open.get_or_insert_with(|| Open {
                builder: builder(transaction),
                records: 0,
                bytes: 0,
                transaction,
            });
            open.builder.append(open.records, now_ms, Some(key), value.as_deref(), []);
            open.records += 1;
            open.bytes += bytes;
        }
    }

    fn close(&mut self) {
        match self.open.take().map(|open| open.builder.build(0)) {
            Some(Ok(batch)) => self.done.push(batch),
            // Without compression, building fails only beyond two gigabytes.
            Some(Err(_)) => self.is_broken = true,
            None => {}
        }
    }

    /// The batches to append; `None` without records.
    ///
    /// # Errors
    /// [`TooLarge`] when a record is larger than a batch can be.
    pub(super) fn finish(mut self) -> Result<Option<Prepared>, TooLarge> {
        self.close();
        if self.is_broken {
            return Err(TooLarge);
        }
        let mut batches = self.done.into_iter();
        let Some(mut bytes) = batches.next() else { return Ok(None) };
        let header = |batch: &[u8]| BatchHeader::parse(batch).map_err(|_| TooLarge);
        let mut headers = vec![header(&bytes)?];
        for batch in batches {
            headers.push(header(&batch)?);
            bytes.unsplit(batch);
        }
        Ok(Some(Prepared { bytes, headers, origin: Origin::Coordinator }))
    }
}

fn builder(transaction: Option<(ProducerId, ProducerEpoch)>) -> BatchBuilder {
    match transaction {
        None => BatchBuilder::new(0),
        Some((id, epoch)) => BatchBuilder::new(0).producer(id, epoch, -1).transactional(),
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
        let prepared = batches.finish().unwrap().unwrap();
        assert_eq!(
            prepared.headers.iter().map(|header| header.records_count).collect::<Vec<_>>(),
            [5, 1]
        );
        let mut at = 0;
        let mut keys = Vec::new();
        for header in &prepared.headers {
            let batch = &prepared.bytes[at..at + header.size_bytes()];
            weir_protocol::batch::checked(batch).unwrap();
            let bytes = section(header, batch, usize::MAX).unwrap();
            for record in Records::new(&bytes, header.records_count) {
                let record = record.unwrap();
                keys.push((
                    String::from_utf8_lossy(record.key.unwrap()).into_owned(),
                    record.value.is_some(),
                ));
            }
            at += header.size_bytes();
        }
        assert_eq!(at, prepared.bytes.len());
        let expected =
            [("0", true), ("1", false), ("2", true), ("0", true), ("1", false), ("0", true)];
        assert_eq!(keys, expected.map(|(key, value)| (key.to_owned(), value)));
        assert!(Batches::default().finish().unwrap().is_none());
    }

    #[test]
    fn a_decision_of_any_size_is_in_batches_that_every_follower_takes() {
        let mut batches = Batches::default();
        batches.add(&records(9, WRITE_BYTES_MAX / 2), None, 5);
        let prepared = batches.finish().unwrap().unwrap();
        assert_eq!(
            prepared.headers.iter().map(|header| header.records_count).collect::<Vec<_>>(),
            [3, 2, 2, 2]
        );
        assert!(prepared.headers.iter().all(|header| header.size_bytes() < 2 * WRITE_BYTES_MAX));
        let broken = Batches { is_broken: true, ..Batches::default() };
        assert!(broken.finish().is_err());
    }
}
