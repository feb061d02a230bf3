//! Record batches that no client would send. The broker refuses each with Kafka's error, appends
//! nothing of it, and other clients do not notice.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write;

use weir_e2e::batch::{Batch, record};
use weir_e2e::bystander::{Bystander, noise, now_ms};
use weir_e2e::wire::{Connection, PATIENCE, error, init_producer_id, produce, produce_body};

#[test]
fn batches_that_are_wrong() {
    let mut bystander = Bystander::start(&[]);
    let good = Batch::of(&[b"one", b"two"], now_ms());
    let of = |change: fn(&mut Batch)| {
        let mut batch = good.clone();
        change(&mut batch);
        batch
    };
    let bad_data = [error::INVALID_RECORD, error::CORRUPT_MESSAGE];
    let cases = [
        ("checksum", of(|b| b.crc_flip = 1), &[error::CORRUPT_MESSAGE][..]),
        ("length too large", of(|b| b.length_off_by = 1), &bad_data),
        ("length too small", of(|b| b.length_off_by = -1), &bad_data),
        ("length 2^31", of(|b| b.length_off_by = i32::MIN), &bad_data),
        ("length negative", of(|b| b.length_off_by = -1000), &bad_data),
        ("last offset delta", of(|b| b.last_offset_delta = 5), &bad_data),
        ("last offset delta negative", of(|b| b.last_offset_delta = -3), &bad_data),
        ("count too large", of(|b| b.count = 3), &bad_data),
        (
            "count 2^31-1",
            of(|b| (b.count, b.last_offset_delta) = (i32::MAX, i32::MAX - 1)),
            &bad_data,
        ),
        ("count negative", of(|b| (b.count, b.last_offset_delta) = (-2, -3)), &bad_data),
        (
            "no records",
            of(|b| (b.count, b.last_offset_delta, b.payload) = (0, -1, vec![])),
            &bad_data,
        ),
        ("magic 3", of(|b| b.magic = 3), &bad_data),
        (
            "magic 0",
            of(|b| b.magic = 0),
            &[error::INVALID_RECORD, error::UNSUPPORTED_FOR_MESSAGE_FORMAT, error::CORRUPT_MESSAGE],
        ),
        (
            "magic 1",
            of(|b| b.magic = 1),
            &[error::INVALID_RECORD, error::UNSUPPORTED_FOR_MESSAGE_FORMAT, error::CORRUPT_MESSAGE],
        ),
        ("control batch", of(|b| b.attributes = 0x20), &[error::INVALID_RECORD]),
        (
            "transactional without an id",
            of(|b| b.attributes = 0x10),
            &[
                error::INVALID_RECORD,
                error::INVALID_TXN_STATE,
                error::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            ],
        ),
    ];
    for (what, batch, expected) in cases {
        let code = bystander.refused(&batch);
        assert!(expected.contains(&code), "{what}: {code}");
    }
    // Unknown codecs, for which Apache Kafka has no error of its own.
    for codec in [5, 6, 7] {
        let mut batch = good.clone();
        batch.attributes = codec;
        let code = produce_or_close(&mut bystander.attacker(), &bystander.topic, &batch.encode());
        let refusals = [
            error::UNSUPPORTED_COMPRESSION_TYPE,
            error::INVALID_RECORD,
            error::CORRUPT_MESSAGE,
            error::INVALID_REQUEST,
            error::UNKNOWN_SERVER_ERROR,
        ];
        assert!(code.is_none_or(|c| refusals.contains(&c)), "codec {codec}: {code:?}");
    }
    // Bytes that are no batch, and two batches where only one is allowed.
    let mut c = bystander.attacker();
    let code = produce_or_close(&mut c, &bystander.topic, &noise(3, 500));
    assert!(
        [
            None,
            Some(error::CORRUPT_MESSAGE),
            Some(error::INVALID_RECORD),
            Some(error::UNSUPPORTED_FOR_MESSAGE_FORMAT)
        ]
        .contains(&code),
        "noise: {code:?}"
    );
    let two = [good.encode(), good.encode()].concat();
    assert_eq!(
        produce(&mut bystander.attacker(), &bystander.topic, 0, &two).unwrap().0,
        error::INVALID_RECORD
    );
    bystander.unharmed();
}

/// The error code, or `None` for a closed connection.
fn produce_or_close(c: &mut Connection, topic: &str, batch: &[u8]) -> Option<i16> {
    produce(c, topic, 0, batch).ok().map(|(code, _)| code)
}

#[test]
fn sizes_and_times() {
    let mut bystander = Bystander::start(&[
        ("max.message.bytes", "1000"),
        ("message.timestamp.after.max.ms", "3600000"),
        ("message.timestamp.before.max.ms", "3600000"),
    ]);
    let of_size = |size: usize| {
        let overhead = Batch::of(&[&vec![b'x'; 500]], now_ms()).encode().len() - 500;
        Batch::of(&[&vec![b'x'; size - overhead]], now_ms())
    };
    assert_eq!(of_size(1000).encode().len(), 1000);
    assert_eq!(bystander.refused(&of_size(1001)), error::MESSAGE_TOO_LARGE);
    assert_eq!(bystander.refused(&of_size(1000)), error::NONE);
    bystander.produced += 1;
    for time in [now_ms() + 2 * 3_600_000, 7_258_118_400_000, now_ms() - 2 * 3_600_000, 1] {
        assert_eq!(
            bystander.refused(&Batch::of(&[b"x"], time)),
            error::INVALID_TIMESTAMP,
            "{time}"
        );
    }
    bystander.unharmed();
}

/// A small batch that decompresses to a large one. The broker does not decompress records without
/// need, and otherwise only up to a bound.
#[test]
fn compression_bombs() {
    const GZIP: i16 = 1;
    // The topic has its own codec, so the broker must decompress.
    let mut bystander = Bystander::start(&[("compression.type", "zstd")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0_u8; 1 << 20];
    for _ in 0..512 {
        gzip.write_all(&zeros).unwrap();
    }
    let mut bomb = Batch::of(&[b"x"], now_ms());
    (bomb.attributes, bomb.payload) = (GZIP, gzip.finish().unwrap());
    // A single record of 256 MiB.
    let mut honest = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let large = record(0, None, Some(&vec![0; 256 << 20]));
    honest.write_all(&large).unwrap();
    drop(large);
    let mut one = bomb.clone();
    one.payload = honest.finish().unwrap();
    if bystander.cluster.local().is_some() {
        for (what, batch) in [("zeros", &bomb), ("one record", &one)] {
            let code =
                produce_or_close(&mut bystander.attacker(), &bystander.topic, &batch.encode());
            assert!(
                [
                    None,
                    Some(error::MESSAGE_TOO_LARGE),
                    Some(error::INVALID_RECORD),
                    Some(error::CORRUPT_MESSAGE)
                ]
                .contains(&code),
                "{what}: {code:?}"
            );
        }
    }
    // Payloads that are not valid for their codec. A batch in the topic's own codec is not
    // decompressed: docs/adr/0059-every-record-is-read-at-produce.md has the reason and the price.
    for codec in [1, 2, 3] {
        let mut batch = Batch::of(&[b"x"], now_ms());
        (batch.attributes, batch.payload) = (codec, noise(codec as u64, 300));
        let code = produce_or_close(&mut bystander.attacker(), &bystander.topic, &batch.encode());
        assert_ne!(code, Some(error::NONE), "codec {codec}");
    }
    bystander.unharmed();
}

/// A new producer id and its epoch; Apache Kafka may still be loading at first.
fn new_producer(c: &mut Connection) -> (i64, i16) {
    const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
    loop {
        let (code, id, epoch) = init_producer_id(c).unwrap();
        if code != COORDINATOR_LOAD_IN_PROGRESS {
            assert_eq!(code, error::NONE);
            return (id, epoch);
        }
    }
}

/// The mistakes of an idempotent producer.
#[test]
fn producer_sequences() {
    let mut bystander = Bystander::start(&[]);
    let mut c = bystander.attacker();
    let (id, epoch) = new_producer(&mut c);
    let topic = bystander.topic.clone();
    let mut send = |epoch: i16, sequence: i32| {
        let batch = Batch::of(&[b"s"], now_ms()).from_producer(id, epoch, sequence).encode();
        produce(&mut c, &topic, 0, &batch).unwrap()
    };
    let first = bystander.produced;
    for sequence in 0..8 {
        assert_eq!(send(epoch, sequence), (error::NONE, first + i64::from(sequence)));
    }
    bystander.produced += 8;
    for sequence in 3..8 {
        assert_eq!(
            send(epoch, sequence),
            (error::NONE, first + i64::from(sequence)),
            "one of the last five again"
        );
    }
    assert_eq!(send(epoch, 9).0, error::OUT_OF_ORDER_SEQUENCE_NUMBER, "a gap");
    let old = send(epoch, 1).0;
    assert!(
        [error::DUPLICATE_SEQUENCE_NUMBER, error::OUT_OF_ORDER_SEQUENCE_NUMBER].contains(&old),
        "long ago: {old}"
    );
    assert_eq!(
        send(epoch + 1, 5).0,
        error::OUT_OF_ORDER_SEQUENCE_NUMBER,
        "a new epoch begins at 0"
    );
    assert_eq!(send(epoch + 1, 0), (error::NONE, first + 8));
    bystander.produced += 1;
    assert_eq!(send(epoch, 8).0, error::INVALID_PRODUCER_EPOCH, "an epoch that was replaced");
    bystander.unharmed();
}

#[test]
fn acks_that_are_none() {
    let mut bystander = Bystander::start(&[]);
    let batch = Batch::of(&[b"x"], now_ms()).encode();
    let mut c = bystander.attacker();
    let mut reply = c.call(0, 7, &produce_body(&bystander.topic, 0, &batch, 5)).unwrap();
    reply.i32().unwrap();
    reply.str().unwrap();
    reply.i32().unwrap();
    reply.i32().unwrap();
    assert_eq!(reply.i16().unwrap(), 21, "INVALID_REQUIRED_ACKS");
    // acks=0 has no reply, so an error closes the connection.
    let mut c = bystander.attacker();
    let mut wrong = Batch::of(&[b"x"], now_ms());
    wrong.crc_flip = 1;
    let frame = c.frame(0, 7, &produce_body(&bystander.topic, 0, &wrong.encode(), 0));
    c.send(&frame);
    c.closed(PATIENCE).unwrap();
    bystander.unharmed();
}
