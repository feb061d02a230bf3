//! Produce: acknowledged records can be read, in the format that the topic sets; invalid ones are
//! refused and leave nothing behind.

use bytes::{Bytes, BytesMut};
use rustix::process::Signal;
use weir_protocol::batch::{BatchHeader, Batches, Codec, set_max_timestamp};
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use weir_protocol::messages::produce_response::PartitionProduceResponse;
use weir_protocol::messages::{
    DeleteRecordsRequest, InitProducerIdRequest, MetadataRequest, ProduceRequest,
};
use weir_protocol::record::BatchBuilder;
use weir_protocol::types::{ProducerEpoch, ProducerId};

use crate::support::{
    Client, Cluster, PRODUCE_VERSION, batch, compressed, idempotent_batch, offsets_and_values,
    produce_to, topic,
};

fn owned(records: &[(i64, &str)]) -> Vec<(i64, String)> {
    records.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect()
}

#[tokio::test]
async fn what_is_acknowledged_can_be_read_under_every_acks_and_flush_mode() {
    let modes = [("group", 1), ("none", 2)];
    let cluster =
        Cluster::start(modes.map(|(mode, id)| topic(id, mode, 1, &[("flush.mode", mode)])).into())
            .await;
    let mut client = cluster.client().await;
    for (name, _) in modes {
        let leader = client.produce(name, 0, 1, batch(&["a", "b"])).await;
        let all = client.produce(name, 0, -1, batch(&["c"])).await;
        assert_eq!((leader.error_code, leader.base_offset, leader.log_append_time_ms), (0, 0, -1));
        assert_eq!((all.error_code, all.base_offset, all.log_start_offset), (0, 2, 0));
        // acks=0 has no response. The response to a later request on the same connection follows
        // it.
        client.send_produce(name, 0, 0, batch(&["d"])).await;
        client.no_response();
        let after = client.produce(name, 0, 1, batch(&["e"])).await;
        assert_eq!((after.error_code, after.base_offset), (0, 4));
        assert_eq!(
            client.read_all(name, 0).await,
            owned(&[(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e")]),
            "{name}"
        );
    }
}

/// The client's timeout bounds only the wait for followers
/// (`ReplicaManager.delayedProduceRequestRequired`), not the leader's own append, even with a
/// flush.
#[tokio::test]
async fn no_timeout_is_too_short_where_nobody_else_is_waited_for() {
    let cluster = Cluster::start(vec![topic(1, "t", 1, &[("flush.mode", "group")])]).await;
    let mut client = cluster.client().await;
    for round in 0..40 {
        let (acks, timeout_ms) = [(1, 0), (-1, 0), (1, -1), (-1, 1)][round % 4];
        let request = ProduceRequest { timeout_ms, ..produce_to("t", 0, acks, batch(&["a"])) };
        client.send(PRODUCE_VERSION, &request).await;
        let produced = client.receive_produce().await;
        assert_eq!(
            (produced.error_code, produced.base_offset),
            (0, round as i64),
            "acks={acks} timeout={timeout_ms}"
        );
    }
}

#[tokio::test]
async fn a_batch_is_stored_as_it_came_unless_the_topic_has_a_codec() {
    let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    let names = ["uncompressed", "gzip", "snappy", "lz4", "zstd"];
    let topics =
        (1..).zip(names).map(|(id, name)| topic(id, name, 1, &[("compression.type", name)]));
    let cluster = Cluster::start(topics.chain([topic(9, "producer", 1, &[])]).collect()).await;
    let mut client = cluster.client().await;
    for (name, own) in names.into_iter().zip(codecs).chain([("producer", Codec::None)]) {
        for (base, codec) in (0..).step_by(2).zip(codecs) {
            let produced =
                client.produce(name, 0, -1, compressed(codec, &["a", "b"]).freeze()).await;
            assert_eq!(
                (produced.error_code, produced.base_offset),
                (0, base),
                "{name} {codec:?} {produced:?}"
            );
            let records = client.fetch(name, 0, base).await.records.unwrap();
            let (header, _) = Batches::new(&records).next().unwrap().unwrap();
            let expected = if name == "producer" { codec } else { own };
            assert_eq!(header.codec(), Some(expected), "{name} {codec:?}");
            assert_eq!(
                offsets_and_values(&records),
                owned(&[(base, "a"), (base + 1, "b")]),
                "{name} {codec:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_time_of_the_append_is_told_and_stored() {
    let cluster =
        Cluster::start(vec![topic(1, "t", 1, &[("message.timestamp.type", "LogAppendTime")])])
            .await;
    let mut client = cluster.client().await;
    for codec in [Codec::None, Codec::Zstd] {
        let produced = client.produce("t", 0, -1, compressed(codec, &["a", "b"]).freeze()).await;
        let records = client.fetch("t", 0, produced.base_offset).await.records.unwrap();
        let (header, bytes) = Batches::new(&records).next().unwrap().unwrap();
        assert!(header.is_log_append_time() && produced.log_append_time_ms > 0, "{produced:?}");
        assert_eq!(header.max_timestamp, produced.log_append_time_ms);
        assert!(weir_protocol::batch::checked(bytes).is_ok());
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_leaves_nothing_behind() {
    let cluster = Cluster::start(vec![topic(1, "t", 1, &[("max.message.bytes", "300")])]).await;
    let mut client = cluster.client().await;
    let damaged = |at: usize, byte: u8| {
        let mut bytes = BytesMut::from(&batch(&["a"])[..]);
        bytes[at] ^= byte;
        bytes.freeze()
    };
    let large = "x".repeat(300);
    let rows: [(&str, &str, i32, i16, Bytes, ErrorCode); 9] = [
        ("a flipped bit in a record", "t", 0, -1, damaged(70, 1), ErrorCode::CorruptMessage),
        ("another magic", "t", 0, -1, damaged(16, 3), ErrorCode::InvalidRecord),
        ("a length that lies", "t", 0, -1, damaged(11, 1), ErrorCode::InvalidRecord),
        ("nothing", "t", 0, -1, Bytes::new(), ErrorCode::InvalidRecord),
        ("too large", "t", 0, -1, batch(&[&large]), ErrorCode::MessageTooLarge),
        (
            "two batches",
            "t",
            0,
            -1,
            [batch(&["a"]), batch(&["b"])].concat().into(),
            ErrorCode::InvalidRecord,
        ),
        ("no such partition", "t", 1, -1, batch(&["a"]), ErrorCode::UnknownTopicOrPartition),
        ("no such topic", "u", 0, -1, batch(&["a"]), ErrorCode::UnknownTopicOrPartition),
        ("acks=2", "t", 0, 2, batch(&["a"]), ErrorCode::InvalidRequiredAcks),
    ];
    for (what, topic, partition, acks, records, expected) in rows {
        let refused = client.produce(topic, partition, acks, records).await;
        assert_eq!(ErrorCode::from_code(refused.error_code), expected, "{what}: {refused:?}");
        assert_eq!(refused.base_offset, -1, "{what}");
    }
    // acks=0 has no response that could report the error, so the broker closes the connection.
    client.send_produce("t", 0, 0, damaged(70, 1)).await;
    client.closed().await;
    let mut client = cluster.client().await;
    assert_eq!(client.produce("t", 0, -1, batch(&["good"])).await.base_offset, 0);
}

/// A batch with a patched header and a valid checksum.
fn patched<const N: usize>(records: &[u8], at: usize, value: [u8; N]) -> Bytes {
    let mut bytes = BytesMut::from(records);
    bytes[at..at + N].copy_from_slice(&value);
    // Bytes that are no batch any more have no checksum either.
    if let Ok(header) = BatchHeader::parse(&bytes) {
        set_max_timestamp(&mut bytes, header.is_log_append_time(), header.max_timestamp);
    }
    bytes.freeze()
}

const ATTRIBUTES: usize = 21;

#[tokio::test]
async fn what_is_refused_says_where_the_log_begins_where_kafka_does() {
    let cluster = Cluster::start(vec![topic(1, "t", 1, &[("max.message.bytes", "300")])]).await;
    let mut client = cluster.client().await;
    let id = producer_id(&mut client).await;
    for sequence in 0..2 {
        let produced = client.produce("t", 0, -1, idempotent_batch(id, sequence, &["a"])).await;
        assert_eq!((produced.error_code, produced.log_start_offset), (0, 0));
    }
    let topic = DeleteRecordsTopic {
        name: "t".to_owned(),
        partitions: vec![DeleteRecordsPartition { partition_index: 0, offset: 1 }],
    };
    let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000 };
    assert_eq!(client.call(2, &request).await.topics[0].partitions[0].low_watermark, 1);

    let good = batch(&["a"]);
    let crc = {
        let mut bytes = BytesMut::from(&good[..]);
        bytes[70] ^= 1;
        bytes.freeze()
    };
    let at = |timestamp| {
        let mut builder = BatchBuilder::new(0);
        builder.append(0, timestamp, None, Some(b"a"), []);
        builder.build(0).unwrap().freeze()
    };
    let old_epoch = {
        let mut builder = BatchBuilder::new(0).producer(ProducerId(id), ProducerEpoch(-1), 2);
        builder.append(0, 1, None, Some(b"a"), []);
        builder.build(0).unwrap().freeze()
    };
    for (what, index, records, code, log_start) in [
        ("a checksum", 0, crc, ErrorCode::CorruptMessage, -1),
        ("magic 1", 0, patched(&good, 16, [1]), ErrorCode::InvalidRecord, -1),
        ("too large", 0, batch(&[&"x".repeat(300)]), ErrorCode::MessageTooLarge, -1),
        ("no such partition", 1, good.clone(), ErrorCode::UnknownTopicOrPartition, -1),
        (
            "in a transaction, without an id",
            0,
            patched(&good, ATTRIBUTES, [0, 16]),
            ErrorCode::TransactionalIdAuthorizationFailed,
            -1,
        ),
        (
            "an unknown codec",
            0,
            patched(&good, ATTRIBUTES, [0, 5]),
            ErrorCode::UnknownServerError,
            1,
        ),
        ("not compressed", 0, patched(&good, ATTRIBUTES, [0, 4]), ErrorCode::UnknownServerError, 1),
        ("control", 0, patched(&good, ATTRIBUTES, [0, 32]), ErrorCode::InvalidRecord, 1),
        (
            "fewer records",
            0,
            patched(&patched(&good, 57, [0, 0, 0, 2]), 23, [0, 0, 0, 1]),
            ErrorCode::InvalidRecord,
            1,
        ),
        ("another offset", 0, patched(&good, 0, 5_i64.to_be_bytes()), ErrorCode::InvalidRecord, 1),
        ("long ago", 0, at(i64::MIN), ErrorCode::InvalidTimestamp, 1),
        ("far ahead", 0, at(i64::MAX), ErrorCode::InvalidTimestamp, 1),
        ("a gap", 0, idempotent_batch(id, 7, &["a"]), ErrorCode::OutOfOrderSequenceNumber, 1),
        ("an epoch before the first", 0, old_epoch, ErrorCode::InvalidProducerEpoch, 1),
    ] {
        let refused = client.produce("t", index, -1, records).await;
        assert_eq!(
            (
                ErrorCode::from_code(refused.error_code),
                refused.log_start_offset,
                refused.base_offset
            ),
            (code, log_start, -1),
            "{what}: {refused:?}"
        );
    }
    assert_eq!(client.produce("t", 0, -1, good).await.base_offset, 2);
}

async fn producer_id(client: &mut Client) -> i64 {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        ..Default::default()
    };
    let response = client.call(5, &request).await;
    assert_eq!((response.error_code, response.producer_epoch), (0, 0));
    response.producer_id
}

#[tokio::test]
async fn producers_begin_while_no_controller_is_there() {
    let mut cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    // With the second block the broker has one in use and one in reserve.
    cluster.controller.gave_producer_ids(2).await;
    cluster.controller.go_away();
    let mut client = cluster.client().await;
    let id = producer_id(&mut client).await;
    let stored = client.produce("t", 0, -1, idempotent_batch(id, 0, &["a"])).await;
    assert_eq!(told(&stored), (ErrorCode::None, 0));
}

fn told(response: &PartitionProduceResponse) -> (ErrorCode, i64) {
    (ErrorCode::from_code(response.error_code), response.base_offset)
}

#[tokio::test]
async fn an_idempotent_producer_is_remembered_through_every_kind_of_restart() {
    let mut cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    let mut client = cluster.client().await;
    let (id, other) = (producer_id(&mut client).await, producer_id(&mut client).await);
    assert_ne!(id, other);
    let mut expected = Vec::new();
    for round in 0..3 {
        let base = i64::from(round) * 2;
        let sent = idempotent_batch(id, round * 2, &["a", "b"]);
        assert_eq!(told(&client.produce("t", 0, -1, sent.clone()).await), (ErrorCode::None, base));
        expected.extend(owned(&[(base, "a"), (base + 1, "b")]));
        match round {
            0 => assert!(cluster.broker.stop().await.success()),
            1 => cluster.broker.kill().await,
            _ => {}
        }
        if round < 2 {
            cluster.restart().await;
            client = cluster.client().await;
        }
        let again = client.produce("t", 0, -1, sent).await;
        assert_eq!(
            told(&again),
            (ErrorCode::None, base),
            "a duplicate has its first offset: {again:?}"
        );
        let gap = client.produce("t", 0, -1, idempotent_batch(id, round * 2 + 3, &["c"])).await;
        assert_eq!(told(&gap).0, ErrorCode::OutOfOrderSequenceNumber);
        assert_eq!(client.read_all("t", 0).await, expected, "round {round}");
    }
}

#[tokio::test]
async fn a_slow_half_request_holds_nobody_up() {
    let mut cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    let half = {
        use tokio::io::AsyncWriteExt;
        let mut stream = tokio::net::TcpStream::connect(cluster.broker.kafka()).await.unwrap();
        stream.write_all(&[0, 0, 1, 0, 0, 3]).await.unwrap();
        stream
    };
    let mut client = cluster.client().await;
    assert_eq!(client.call(12, &MetadataRequest::default()).await.brokers.len(), 1);
    cluster.broker.signal(Signal::TERM);
    assert!(cluster.broker.ended().await.success(), "half a request does not hold up the stop");
    drop(half);
}
