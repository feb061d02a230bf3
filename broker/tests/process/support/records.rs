//! Builds record batches and reads fetched ones.

use bytes::{Bytes, BytesMut};
use weir_protocol::batch::{self, Batches, Codec};
use weir_protocol::record::{BatchBuilder, Records, section};
use weir_protocol::types::{ProducerEpoch, ProducerId};

/// The timestamp of every record. It is in the past, which Kafka accepts without a limit.
const TIMESTAMP_MS: i64 = 1_700_000_000_000;

fn fill(mut builder: BatchBuilder, values: &[&str]) -> Bytes {
    for (offset, value) in (0..).zip(values) {
        builder.append(
            offset,
            TIMESTAMP_MS,
            Some(b"key"),
            Some(value.as_bytes()),
            [(&b"header"[..], None)],
        );
    }
    builder.build(0).unwrap().freeze()
}

/// A batch of records with these values.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    fill(BatchBuilder::new(0), values)
}

/// The same from an idempotent producer, from this sequence number on.
pub(crate) fn idempotent_batch(producer: i64, sequence: i32, values: &[&str]) -> Bytes {
    let builder = BatchBuilder::new(0).producer(ProducerId(producer), ProducerEpoch(0), sequence);
    fill(builder, values)
}

/// The records in a response, with their offsets; batches are checked. Like clients, it skips a
/// batch that is cut off at the end.
pub(crate) fn offsets_and_values(records: &[u8]) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    for (header, bytes) in Batches::new(records).map_while(Result::ok) {
        batch::checked(bytes).unwrap();
        let section = section(&header, bytes, 64 << 20).unwrap();
        for record in Records::new(&section, header.records_count) {
            let record = record.unwrap();
            found.push((
                record.offset(&header),
                String::from_utf8(record.value.unwrap().to_vec()).unwrap(),
            ));
        }
    }
    found
}

/// The same records with a codec, as a producer with `compression.type` sends them.
pub(crate) fn compressed(codec: Codec, values: &[&str]) -> BytesMut {
    BytesMut::from(&fill(BatchBuilder::new(0).codec(codec), values)[..])
}
