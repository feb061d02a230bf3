use bytes::Bytes;
use kafka_protocol::records::{
    Compression, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use proptest::prelude::*;

use super::*;
use crate::batch::{Codec, checked};
use crate::compression::default_level;
use crate::types::{ProducerEpoch, ProducerId};

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const LIMIT: usize = 1 << 20;

type Header = (Vec<u8>, Option<Vec<u8>>);

#[derive(Clone, Debug, PartialEq)]
struct Owned {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<Header>,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..80)
}

fn record() -> impl Strategy<Value = Owned> {
    let header = ("[a-z]{0,5}".prop_map(String::into_bytes), proptest::option::of(bytes()));
    (
        -1..i64::from(u32::MAX),
        proptest::option::of(bytes()),
        proptest::option::of(bytes()),
        proptest::collection::vec(header, 0..3),
    )
        .prop_map(|(timestamp, key, value, headers)| Owned { timestamp, key, value, headers })
}

fn records() -> impl Strategy<Value = Vec<Owned>> {
    proptest::collection::vec(record(), 1..20)
}

fn build(records: &[Owned], codec: Codec) -> BytesMut {
    let mut builder =
        BatchBuilder::new(100).codec(codec).producer(ProducerId(7), ProducerEpoch(2), 5);
    for (record, offset) in records.iter().zip(100..) {
        let headers = record.headers.iter().map(|(key, value)| (&key[..], value.as_deref()));
        builder.append(
            offset,
            record.timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            headers,
        );
    }
    assert_eq!(builder.records_count() as usize, records.len());
    builder.build(default_level(codec)).unwrap()
}

fn read(batch: &[u8]) -> Vec<Owned> {
    let header = checked(batch).unwrap();
    let section = section(&header, batch, LIMIT).unwrap();
    let mut next = header.base_offset;
    Records::new(&section, header.records_count)
        .map(|record| {
            let record = record.unwrap();
            assert_eq!(record.offset(&header), next);
            next += 1;
            Owned {
                timestamp: record.timestamp(&header),
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record
                    .headers()
                    .map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)))
                    .collect(),
            }
        })
        .collect()
}

use bytes::BytesMut;

/// The records that the oracle reads, using our codecs.
fn oracle_reads(batch: &[u8]) -> Vec<Owned> {
    let decompress = |input: &mut Bytes, compression: Compression| {
        let codec = Codec::from_id(compression as u8).unwrap();
        Ok(Bytes::from(compression::decompress(codec, input, LIMIT)?.into_owned()))
    };
    let mut input = Bytes::copy_from_slice(batch);
    let set =
        RecordBatchDecoder::decode_with_custom_compression(&mut input, Some(decompress)).unwrap();
    set.records
        .into_iter()
        .zip(100..)
        .map(|(record, offset)| {
            assert_eq!((record.offset, record.producer_id, record.producer_epoch), (offset, 7, 2));
            let headers = record
                .headers
                .into_iter()
                .map(|(key, value)| (key.as_bytes().to_vec(), value.map(|value| value.to_vec())))
                .collect();
            Owned {
                timestamp: record.timestamp,
                key: record.key.map(|key| key.to_vec()),
                value: record.value.map(|value| value.to_vec()),
                headers,
            }
        })
        .collect()
}

/// Headers as the oracle's map keeps them: the last value of each key, in the order of first use.
fn as_in_a_map(records: &[Owned]) -> Vec<Owned> {
    let distinct = |headers: &[Header]| {
        let mut kept: Vec<Header> = Vec::new();
        for (key, value) in headers {
            match kept.iter_mut().find(|(kept, _)| kept == key) {
                Some((_, kept)) => kept.clone_from(value),
                None => kept.push((key.clone(), value.clone())),
            }
        }
        kept
    };
    records
        .iter()
        .map(|record| Owned { headers: distinct(&record.headers), ..record.clone() })
        .collect()
}

proptest! {
    #[test]
    fn what_is_written_is_read_here_and_by_the_oracle(records in records()) {
        for codec in CODECS {
            let batch = build(&records, codec);
            prop_assert_eq!(&read(&batch), &records);
            prop_assert_eq!(oracle_reads(&batch), as_in_a_map(&records));
            let header = checked(&batch).unwrap();
            prop_assert_eq!(header.codec(), Some(codec));
            prop_assert_eq!(header.max_timestamp, records.iter().map(|record| record.timestamp).max().unwrap());
            prop_assert_eq!(header.last_offset() - 99, records.len() as i64);
        }
    }

    #[test]
    fn what_the_oracle_writes_is_read(records in records()) {
        let records = as_in_a_map(&records);
        let theirs: Vec<_> = records.iter().zip(100..).map(|(record, offset)| kafka_protocol::records::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: 7,
            producer_epoch: 2,
            timestamp_type: TimestampType::Creation,
            offset,
            sequence: (offset - 95) as i32,
            timestamp: record.timestamp,
            key: record.key.clone().map(Bytes::from),
            value: record.value.clone().map(Bytes::from),
            headers: record.headers.iter().map(|(key, value)| {
                (kafka_protocol::protocol::StrBytes::from_string(String::from_utf8(key.clone()).unwrap()), value.clone().map(Bytes::from))
            }).collect(),
        }).collect();
        let mut buf = BytesMut::new();
        RecordBatchEncoder::encode(&mut buf, theirs.iter(), &RecordEncodeOptions { version: 2, compression: Compression::None }).unwrap();
        prop_assert_eq!(read(&buf), records);
    }

    #[test]
    fn sections_of_any_bytes_end_without_a_panic(section in proptest::collection::vec(any::<u8>(), 0..300), count in any::<i32>()) {
        let mut failed = false;
        for record in Records::new(&section, count) {
            prop_assert!(!failed, "an error is the last item");
            match record {
                Ok(record) => record.headers().for_each(drop),
                Err(_) => failed = true,
            }
        }
    }
}

#[test]
fn invalid_sections_are_refused() {
    // Length 7, attributes, timestamp 0, offset 0, key null, value null, no headers.
    let valid = [12, 0, 0, 0, 1, 1, 0];
    assert!(Records::new(&valid, 1).all(|record| record.is_ok()));
    for (section, count, index, reason) in [
        (&valid[..], 2, 1, "its length is cut off or too long"),
        (&valid[..], 0, 0, "there are bytes behind the last record"),
        (&valid[..6], 1, 0, "it is longer than the batch"),
        (&[1], 1, 0, "its length is negative"),
        (&[0], 1, 0, "it is empty"),
        (&[2, 0], 1, 0, "its timestamp is cut off"),
        (&[0xff; 11], 1, 0, "its length is cut off or too long"),
        (&[12, 0, 0, 0, 3, 1, 0], 1, 0, "its key does not fit"),
        (&[12, 0, 0, 0, 1, 20, 0], 1, 0, "its value does not fit"),
        (&[12, 0, 0, 0, 1, 1, 1], 1, 0, "its header count is not one"),
        (&[14, 0, 0, 0, 1, 1, 2, 1], 1, 0, "the key of a header is missing or does not fit"),
        (&[14, 0, 0, 0, 1, 1, 0, 0], 1, 0, "it is longer than its parts"),
        (&[22, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 1, 1, 0], 1, 0, "its offset is not one"),
    ] {
        let last = Records::new(section, count).last();
        assert_eq!(last, Some(Err(RecordError { index, reason })), "{section:?}");
    }
}

#[test]
fn a_batch_without_records_keeps_what_its_producer_did() {
    let full =
        build(&[Owned { timestamp: 5, key: None, value: None, headers: Vec::new() }], Codec::Zstd);
    let header = checked(&full).unwrap();
    let emptied = BatchBuilder::emptied(&header);
    let left = checked(&emptied).unwrap();
    assert_eq!(emptied.len(), HEADER_BYTES);
    assert_eq!((left.records_count, left.codec(), left.base_timestamp), (0, Some(Codec::None), -1));
    assert_eq!(
        (left.base_offset, left.last_offset(), left.last_sequence(), left.max_timestamp),
        (100, 100, 5, 5)
    );
    assert_eq!((left.producer_id, left.producer_epoch), (ProducerId(7), ProducerEpoch(2)));
}

#[test]
fn a_delete_horizon_is_what_timestamps_are_relative_to() {
    let mut builder = BatchBuilder::new(100).delete_horizon(1_000);
    builder.append(100, 5, Some(b"k"), None, []);
    let batch = builder.build(0).unwrap();
    let header = checked(&batch).unwrap();
    assert_eq!((header.delete_horizon_ms(), header.max_timestamp), (Some(1_000), 5));
    assert_eq!(read(&batch)[0].timestamp, 5);
    let again = BatchBuilder::like(&header).build(0).unwrap();
    assert_eq!(checked(&again).unwrap().delete_horizon_ms(), Some(1_000));
}
