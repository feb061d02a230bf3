//! Writes one of everything that a directory can hold.

use serde_json::json;
use weir_e2e::batch::{Batch, record};
use weir_e2e::cluster::Local;
use weir_e2e::driver::{Client, Driver, Produce};
use weir_e2e::kubernetes::eventually;
use weir_e2e::record::Record;
use weir_e2e::topics::{delete_records, delete_topic};
use weir_e2e::txn::{self, From, Version, add_offsets, commit_offset, end, init, send};
use weir_e2e::wire::{
    Body, Connection, await_topic, create_topic, error, init_producer_id, produce,
};

use super::observe;

/// Committed offsets do not expire in a recording.
pub(super) const CLUSTER: &str = "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata: {name: local}\nspec:\n  brokers: {replicas: 1}\n  \
    config: {offsets.topic.num.partitions: 2, transaction.state.log.num.partitions: 2, group.initial.rebalance.delay.ms: 0, \
    offsets.retention.minutes: 2147483647, log.cleaner.backoff.ms: 200}\n";
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// All topics that are compared; `open` has a transaction that time ends.
pub(super) const TOPICS: [&str; 10] = [
    "none",
    "gzip",
    "snappy",
    "lz4",
    "zstd",
    "idempotent",
    "compact",
    "trimmed",
    "remade",
    "transactions",
];
pub(super) const GROUPS: [&str; 4] = [GROUP, "classic", "consumer", "in-transactions"];
/// A group without members.
pub(super) const GROUP: &str = "administered";
/// A group whose offset was committed plainly, and then in the open transaction.
pub(super) const IDLE: &str = "pending";
pub(super) const PENDING_OFFSET: i64 = 5;
pub(super) const TRANSACTIONAL: [(&str, Version); 2] =
    [("of-version-1", Version::V1), ("of-version-2", Version::V2)];
/// The transactional id whose transaction stays open.
pub(super) const OPEN: &str = "open";
/// The timestamp of the first record of each topic, in milliseconds since 1970.
const BEGIN: i64 = 1_760_000_000_000;
/// The difference of two batches' timestamps; the topics roll their segments after each second one.
const STEP: i64 = 40_000;
/// What ListOffsets is asked for.
pub(super) const TIMES: [i64; 5] =
    [0, BEGIN, BEGIN + STEP, BEGIN + 3 * STEP - 1, BEGIN + 100 * STEP];
/// Nothing expires, and segments are short.
const KEPT: [(&str, &str); 2] = [("retention.ms", "-1"), ("segment.ms", "60000")];
const LONG: i32 = 900_000;

pub(super) fn write(local: &Local) {
    let bootstrap = local.bootstrap();
    let mut c = Connection::open(&bootstrap).unwrap();
    for kind in [0, 1] {
        coordinated(&mut c, kind);
    }
    let mut driver = Driver::start(Client::Librdkafka, &bootstrap).unwrap();
    for codec in CODECS {
        topic(&mut c, &bootstrap, codec, &KEPT);
        for batch in 0..5 {
            let records: Vec<_> = (0..8).map(|i| one(i).at(BEGIN + batch * STEP + i)).collect();
            driver.produce(Produce::records(codec, &records).set("compression", codec)).unwrap();
        }
    }
    idempotent(&mut c, &bootstrap);
    trimmed(&mut c, &bootstrap);
    compacted(&mut c, &bootstrap);
    transactions(&mut c, &bootstrap);
    groups(&mut c, &mut driver);
    open(&mut c, &bootstrap);
    configure(&mut c);
}

/// Asks for a coordinator, of groups or transactions, which makes its topic.
fn coordinated(c: &mut Connection, kind: i8) {
    eventually("a coordinator", || {
        let mut reply = c.call(10, 1, &Body::default().str("any").i8(kind))?;
        reply.i32()?;
        Ok((reply.i16()? == error::NONE).then_some(()))
    });
}

/// A record with all that one can have, and now and then without a key or a value.
fn one(i: i64) -> Record {
    let mut record = Record::new((i != 3).then_some("a key"), format!("value {i}"));
    if i == 5 {
        record.value = None;
    }
    record.with("header", Some(b"of it")).with("null", None).with("header", Some(b""))
}

fn topic(c: &mut Connection, bootstrap: &str, name: &str, configs: &[(&str, &str)]) {
    assert_eq!(create_topic(c, name.as_bytes(), 1, 1, configs).unwrap(), error::NONE, "{name}");
    await_topic(bootstrap, name, 1).unwrap();
}

fn numbered(batch: i64) -> Batch {
    Batch::of(&[b"first", b"second"], BEGIN + batch * STEP)
}

fn send_plain(c: &mut Connection, topic: &str, batch: &Batch) {
    assert_eq!(produce(c, topic, 0, &batch.encode()).unwrap().0, error::NONE, "{topic}");
}

fn idempotent(c: &mut Connection, bootstrap: &str) {
    topic(c, bootstrap, "idempotent", &KEPT);
    let (code, id, epoch) = init_producer_id(c).unwrap();
    assert_eq!(code, error::NONE);
    for batch in 0..6 {
        let sequence = i32::try_from(batch * 2).unwrap();
        send_plain(c, "idempotent", &numbered(batch).from_producer(id, epoch, sequence));
    }
}

/// Records that were deleted from the start, and a topic that has been deleted and made anew.
fn trimmed(c: &mut Connection, bootstrap: &str) {
    for name in ["trimmed", "remade"] {
        topic(c, bootstrap, name, &KEPT);
        (0..6).for_each(|batch| send_plain(c, name, &numbered(batch)));
    }
    assert_eq!(delete_records(c, "trimmed", 0, 5).unwrap(), (error::NONE, 5));
    commit(c, GROUP, "remade", 3);
    assert_eq!(delete_topic(c, "remade").unwrap(), error::NONE);
    eventually("the topic is made anew", || {
        Ok((create_topic(c, b"remade", 2, 1, &KEPT)? == error::NONE).then_some(()))
    });
    await_topic(bootstrap, "remade", 2).unwrap();
    send_plain(c, "remade", &numbered(9));
}

/// Keys whose older values and whose deletion compaction has taken up.
fn compacted(c: &mut Connection, bootstrap: &str) {
    let configs = [("cleanup.policy", "compact"), ("segment.ms", "60000")];
    topic(c, bootstrap, "compact", &configs);
    let batches = 6;
    for batch in 0..batches {
        let mut keyed = numbered(batch);
        // The key is deleted by the fourth batch, and the last ones do not have it.
        let key = if batch < 4 { "deleted".to_owned() } else { format!("key {batch}") };
        keyed.payload = [
            record(0, Some(b"same"), Some(format!("value {batch}").as_bytes())),
            record(1, Some(key.as_bytes()), (batch != 3).then_some(b"value")),
        ]
        .concat();
        send_plain(c, "compact", &keyed);
    }
    eventually("the log is compacted", || {
        let left = observe::read(c, "compact", 0)?.batches;
        Ok((i64::try_from(left.len())? < batches).then_some(()))
    });
}

fn begin<'a>(c: &mut Connection, id: &'a str, version: Version) -> From<'a> {
    eventually("the id is there", || {
        let (code, from) = init(c, id, LONG, version)?;
        Ok((code == error::NONE).then_some(from))
    })
}

/// Two records in the producer's transaction.
fn in_transaction(c: &mut Connection, from: From<'_>, topic: &str, batch: i64, sequence: i32) {
    if from.version == Version::V1 {
        eventually("the partition is added", || {
            Ok((txn::add(c, from, topic, 0)? == error::NONE).then_some(()))
        });
    }
    let mut records = numbered(batch).from_producer(from.producer, from.epoch, sequence);
    records.attributes = observe::TRANSACTIONAL;
    let sent = records.encode();
    eventually("the records are taken", || {
        Ok((send(c, from, topic, 0, &sent)?.0 == error::NONE).then_some(()))
    });
}

/// An offset in the producer's transaction.
fn offset_in_transaction(
    c: &mut Connection,
    from: From<'_>,
    group: &str,
    topic: &str,
    offset: i64,
) {
    if from.version == Version::V1 {
        eventually("the group is added", || {
            Ok((add_offsets(c, from, group)? == error::NONE).then_some(()))
        });
    }
    eventually("the offset is taken", || {
        Ok((commit_offset(c, from, group, topic, offset)? == error::NONE).then_some(()))
    });
}

/// Transactions of both versions, with plain records among them. Some are aborted.
fn transactions(c: &mut Connection, bootstrap: &str) {
    topic(c, bootstrap, "transactions", &KEPT);
    for (nth, (id, version)) in (0..).zip(TRANSACTIONAL) {
        let mut from = begin(c, id, version);
        let mut sequence = 0;
        for round in 0..4 {
            in_transaction(c, from, "transactions", round, sequence);
            send_plain(c, "transactions", &numbered(round));
            in_transaction(c, from, "transactions", round, sequence + 2);
            if round > 1 {
                offset_in_transaction(c, from, "in-transactions", "none", 10 * nth + round);
            }
            let commits = round % 2 == 0;
            let (code, next) = end(c, from, commits).unwrap();
            assert_eq!(code, error::NONE, "{id}");
            sequence = if version == Version::V1 { sequence + 4 } else { 0 };
            from = next;
        }
        // The marker of the last one is in the log once the next may begin.
        begin(c, id, version);
    }
}

/// OffsetCommit version 2 by nobody in particular.
pub(super) fn commit(c: &mut Connection, group: &str, topic: &str, offset: i64) {
    let body = Body::default().str(group).i32(-1).str("").i64(-1).i32(1).str(topic);
    let body = body.i32(1).i32(0).i64(offset).str("metadata");
    eventually("the offset is committed", || {
        let mut reply = c.call(8, 2, &body)?;
        reply.i32()?;
        reply.str()?;
        reply.i32()?;
        reply.i32()?;
        Ok((reply.i16()? == error::NONE).then_some(()))
    });
}

/// Groups of both protocols, whose members have read, committed and left.
fn groups(c: &mut Connection, driver: &mut Driver) {
    for protocol in ["classic", "consumer"] {
        let joining = json!({"op": "join", "member": protocol, "group": protocol, "topics": ["none"], "protocol": protocol});
        driver.call(&joining).unwrap();
        let polling = json!({"op": "poll", "member": protocol, "count": 40, "timeout_ms": 20_000});
        let read = driver.call(&polling).unwrap();
        assert_eq!(read["records"].as_array().unwrap().len(), 40, "{read}");
        driver.call(&json!({"op": "commit", "member": protocol})).unwrap();
        driver.call(&json!({"op": "leave", "member": protocol})).unwrap();
    }
    commit(c, GROUP, "trimmed", 7);
}

/// A transaction that is open at the end, with records of others behind it.
fn open(c: &mut Connection, bootstrap: &str) {
    topic(c, bootstrap, "open", &KEPT);
    commit(c, IDLE, "open", PENDING_OFFSET);
    let from = begin(c, OPEN, Version::V2);
    for batch in 0..3 {
        in_transaction(c, from, "open", batch, i32::try_from(batch * 2).unwrap());
        send_plain(c, "open", &numbered(batch));
    }
    offset_in_transaction(c, from, IDLE, "open", PENDING_OFFSET + 1);
}

/// Settings by clients: of a topic, of the broker, and of all brokers.
fn configure(c: &mut Connection) {
    for (kind, name, key, value) in [
        (2, "none", "max.message.bytes", "2000000"),
        (4, "0", "message.max.bytes", "1500000"),
        (4, "", "log.retention.ms", "777600000"),
    ] {
        let body = Body::default().i32(1).i8(kind).str(name).i32(1).str(key).i8(0).str(value);
        let mut reply = c.call(44, 0, &body.i8(0)).unwrap();
        reply.i32().unwrap();
        assert_eq!((reply.i32().unwrap(), reply.i16().unwrap()), (1, error::NONE), "{key}");
    }
}
