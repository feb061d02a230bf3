//! The control batch that ends a transaction (`EndTransactionMarker` in Apache Kafka).

use bytes::{BufMut, BytesMut};
use weir_protocol::batch::BatchHeader;
use weir_protocol::compression::CompressionError;
use weir_protocol::record::{BatchBuilder, Records, section};
use weir_protocol::types::{ProducerEpoch, ProducerId};

/// The decompression limit: a control batch is tiny, and a larger one is not read.
const MARKER_BYTES_MAX: usize = 1024;

/// The types in the key of a control record.
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The producer.
    pub producer: ProducerId,
    /// The producer's epoch. With transactions v2 it is the epoch of its next transaction.
    pub epoch: ProducerEpoch,
    /// The epoch of the coordinator that wrote the marker.
    pub coordinator_epoch: i32,
    /// Whether it commits the transaction; otherwise it aborts it.
    pub commit: bool,
    /// 2 if the end of the transaction raised the epoch (KIP-890), else less. A batch does not
    /// contain it.
    pub transaction_version: i8,
}

impl Marker {
    /// Reads the marker in a control batch. Returns `None` for other control batches, and for
    /// emptied and damaged ones.
    pub(crate) fn read(header: &BatchHeader, batch: &[u8]) -> Option<Self> {
        if !header.has_producer() {
            return None;
        }
        let section = section(header, batch, MARKER_BYTES_MAX).ok()?;
        let record = Records::new(&section, header.records_count).next()?.ok()?;
        // The key holds a version and the type; the value holds a version and the epoch.
        let control_type = i16::from_be_bytes(*record.key?.get(2..)?.first_chunk()?);
        let coordinator_epoch = i32::from_be_bytes(*record.value?.get(2..)?.first_chunk()?);
        matches!(control_type, ABORT | COMMIT).then_some(Self {
            producer: header.producer_id,
            epoch: header.producer_epoch,
            coordinator_epoch,
            commit: control_type == COMMIT,
            transaction_version: 0,
        })
    }
}

/// Builds the batch of a marker; the append sets its offset
/// (`MemoryRecords.withEndTransactionMarker`).
///
/// # Errors
/// Never: it is small and not compressed.
pub fn marker_batch(marker: &Marker, now_ms: i64) -> Result<BytesMut, CompressionError> {
    let (mut key, mut value) = (Vec::with_capacity(4), Vec::with_capacity(6));
    key.put_i16(0);
    key.put_i16(if marker.commit { COMMIT } else { ABORT });
    value.put_i16(0);
    value.put_i32(marker.coordinator_epoch);
    let mut builder =
        BatchBuilder::new(0).producer(marker.producer, marker.epoch, -1).transactional().control();
    builder.append(0, now_ms, Some(&key), Some(&value), []);
    builder.build(0)
}
