//! Acknowledged records stay: through `kill -9` under load, clean stops, and without a controller.
//!
//! `WEIR_E2E_ROUNDS` sets the number of kills (20 by default).
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use serde_json::json;
use weir_e2e::batch::Batch;
use weir_e2e::bystander::now_ms;
use weir_e2e::cluster::Local;
use weir_e2e::driver::{Client, Driver, From, Produce};
use weir_e2e::record::Record;
use weir_e2e::wire::{
    Connection, PATIENCE, await_topic, create_topic, error, init_producer_id, produce,
};

const PARTITIONS: i32 = 4;

fn rounds() -> usize {
    std::env::var("WEIR_E2E_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(20)
}

/// These tests kill processes, so they need their own cluster.
fn local() -> Option<Local> {
    std::env::var_os("WEIR_E2E_BOOTSTRAP").is_none().then(|| Local::start(None).unwrap())
}

/// A producer that never gives up. It sends numbered records to one partition, one batch at a time,
/// and remembers the acknowledged ones.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    thread: JoinHandle<Sent>,
}

/// The final state of a producer.
struct Sent {
    /// Offset of each acknowledged record, by its number.
    acknowledged: BTreeMap<usize, i64>,
    /// The number of records that were sent.
    attempted: usize,
}

impl Load {
    fn start(bootstrap: String, topic: String, partition: i32, idempotent: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let (stopping, counter) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let thread = std::thread::spawn(move || {
            let mut sent = Sent { acknowledged: BTreeMap::new(), attempted: 0 };
            let mut connection = None;
            let mut producer_id = None;
            while !stopping.load(Ordering::Relaxed) {
                let first = if idempotent { sent.acknowledged.len() } else { sent.attempted };
                let count = 1 + first % 5;
                sent.attempted = sent.attempted.max(first + count);
                let Some(base) = attempt(
                    &mut connection,
                    &bootstrap,
                    &topic,
                    partition,
                    first,
                    count,
                    idempotent.then_some(&mut producer_id),
                ) else {
                    connection = None;
                    continue;
                };
                for i in 0..count {
                    let before = sent.acknowledged.insert(first + i, base + i as i64);
                    assert!(before.is_none(), "a record was acknowledged twice");
                }
                counter.store(sent.acknowledged.len(), Ordering::Relaxed);
            }
            sent
        });
        Self { stop, acknowledged, thread }
    }

    /// Waits for this many more acknowledgements.
    fn progress(&self, more: usize) {
        let target = self.acknowledged.load(Ordering::Relaxed) + more;
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.acknowledged.load(Ordering::Relaxed) < target {
            assert!(
                !self.thread.is_finished() && std::time::Instant::now() < deadline,
                "the load does not move"
            );
            std::thread::yield_now();
        }
    }

    fn finish(self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Sends one batch with `acks=1`; returns the base offset if it was acknowledged. An idempotent
/// producer repeats the batch with the same sequence number.
fn attempt(
    connection: &mut Option<Connection>,
    bootstrap: &str,
    topic: &str,
    partition: i32,
    first: usize,
    count: usize,
    producer_id: Option<&mut Option<i64>>,
) -> Option<i64> {
    if connection.is_none() {
        *connection = Connection::open(bootstrap).ok();
    }
    let c = connection.as_mut()?;
    let values: Vec<String> = (first..first + count).map(|i| format!("{i:010}")).collect();
    let values: Vec<&[u8]> = values.iter().map(String::as_bytes).collect();
    let mut batch = Batch::of(&values, now_ms());
    if let Some(id) = producer_id {
        if id.is_none() {
            *id = Some(new_producer(c)?);
        }
        batch = batch.from_producer((*id)?, 0, i32::try_from(first).ok()?);
    }
    let body = weir_e2e::wire::produce_body(topic, partition, &batch.encode(), 1);
    let mut reply = c.call(0, 7, &body).ok()?;
    reply.i32().ok()?;
    reply.str().ok()?;
    reply.i64().ok()?;
    let (code, base) = (reply.i16().ok()?, reply.i64().ok()?);
    (code == error::NONE).then_some(base)
}

/// A producer id, if the broker assigns one.
fn new_producer(c: &mut Connection) -> Option<i64> {
    let (code, id, _) = init_producer_id(c).ok()?;
    (code == error::NONE).then_some(id)
}

fn kill_in_a_loop(idempotent: bool) {
    let Some(local) = local() else { return };
    let topic = "under-fire";
    let mut c = Connection::open(&local.bootstrap()).unwrap();
    // Small segments, so that recovery reads several.
    let configs = [("flush.mode", "group"), ("segment.bytes", "1048576")];
    assert_eq!(
        create_topic(&mut c, topic.as_bytes(), PARTITIONS, 1, &configs).unwrap(),
        error::NONE
    );
    await_topic(&local.bootstrap(), topic, PARTITIONS).unwrap();
    let loads: Vec<Load> = (0..PARTITIONS)
        .map(|p| Load::start(local.bootstrap(), topic.to_owned(), p, idempotent))
        .collect();
    for round in 0..rounds() {
        // Kill at different points of the load.
        for load in &loads {
            load.progress(1 + round * 7 % 50);
        }
        local.run(&["kill", "0"]).unwrap();
        local.run(&["start", "0"]).unwrap();
    }
    for load in &loads {
        load.progress(1);
    }
    let sent: Vec<Sent> = loads.into_iter().map(Load::finish).collect();
    // Kill once more before reading: records that are only in memory do not count.
    local.run(&["kill", "0"]).unwrap();
    local.run(&["start", "0"]).unwrap();
    await_topic(&local.bootstrap(), topic, PARTITIONS).unwrap();
    let mut driver = Driver::start(Client::Franz, &local.bootstrap()).unwrap();
    for (partition, sent) in (0..PARTITIONS).zip(sent) {
        let (end, _) = driver.list_offset(topic, partition, "latest").unwrap();
        let read = driver
            .consume(topic, &[partition], From::Beginning, usize::try_from(end).unwrap())
            .unwrap();
        check(partition, &sent, &read, idempotent);
    }
}

fn check(partition: i32, sent: &Sent, read: &[Record], idempotent: bool) {
    let at: BTreeMap<i64, usize> =
        read.iter().map(|r| (r.offset, r.text().parse().unwrap())).collect();
    assert_eq!(at.len(), read.len(), "partition {partition}: an offset came twice");
    for (number, offset) in &sent.acknowledged {
        assert_eq!(
            at.get(offset),
            Some(number),
            "partition {partition}: record {number} was acknowledged at {offset}"
        );
    }
    assert!(
        read.iter().enumerate().all(|(i, r)| r.offset == i as i64),
        "partition {partition}: offsets are dense"
    );
    let numbers: Vec<usize> = at.into_values().collect();
    if idempotent {
        assert!(
            numbers.iter().enumerate().all(|(i, n)| i == *n),
            "partition {partition}: each exactly once, in order"
        );
        assert!(numbers.len() <= sent.attempted);
    } else {
        assert!(
            numbers.windows(2).all(|w| w[0] < w[1]),
            "partition {partition}: in the order of sending"
        );
    }
}

#[test]
fn kill_9_in_a_loop_under_load() {
    kill_in_a_loop(false);
}

#[test]
fn kill_9_in_a_loop_under_an_idempotent_load() {
    kill_in_a_loop(true);
}

#[test]
fn everything_survives_a_clean_stop() {
    let Some(local) = local() else { return };
    let mut driver = Driver::start(Client::Java, &local.bootstrap()).unwrap();
    driver.create_topic("kept", 3, &json!({"retention.ms": "123456789"})).unwrap();
    await_topic(&local.bootstrap(), "kept", 3).unwrap();
    let records: Vec<Record> =
        (0..30).map(|i| Record::new("k", format!("record {i}")).to(i % 3)).collect();
    driver.produce(Produce::records("kept", &records).set("compression", "zstd")).unwrap();
    driver
        .call(&json!({"op": "delete_records", "topic": "kept", "partition": 0, "offset": 4}))
        .unwrap();
    let described = driver.call(&json!({"op": "describe_topic", "topic": "kept"})).unwrap();
    let cluster = driver.call(&json!({"op": "describe_cluster"})).unwrap();
    // An idempotent producer, whose sequence numbers the broker must recover.
    let mut c = Connection::open(&local.bootstrap()).unwrap();
    let id = new_producer(&mut c).unwrap();
    let batch = |sequence: i32| {
        Batch::of(&[b"sequenced"], now_ms()).from_producer(id, 0, sequence).encode()
    };
    assert_eq!(produce(&mut c, "kept", 1, &batch(0)).unwrap(), (error::NONE, 10));
    assert_eq!(produce(&mut c, "kept", 1, &batch(1)).unwrap(), (error::NONE, 11));
    drop((driver, c));

    for whole in [false, true] {
        if whole {
            let port = local.bootstrap().split(':').nth(1).unwrap().to_owned();
            local.run(&["down"]).unwrap();
            local.run(&["up", "--detach", "--brokers", "1", "--port", &port]).unwrap();
        } else {
            local.run(&["stop", "0"]).unwrap();
            assert!(Connection::open(&local.bootstrap()).is_err(), "it is down");
            local.run(&["start", "0"]).unwrap();
        }
        let mut driver = Driver::start(Client::Java, &local.bootstrap()).unwrap();
        assert_eq!(
            driver.call(&json!({"op": "describe_topic", "topic": "kept"})).unwrap(),
            described
        );
        assert_eq!(driver.call(&json!({"op": "describe_cluster"})).unwrap(), cluster);
        let configs = driver
            .call(&json!({"op": "describe_configs", "type": "topic", "name": "kept"}))
            .unwrap();
        assert_eq!(configs["retention.ms"]["value"], "123456789");
        assert_eq!(driver.list_offset("kept", 0, "earliest").unwrap().0, 4);
        let read = driver.consume("kept", &[2], From::Beginning, 10).unwrap();
        assert_eq!(
            read.iter().map(Record::text).collect::<Vec<_>>(),
            (0..10).map(|i| format!("record {}", 3 * i + 2)).collect::<Vec<_>>()
        );
        let mut c = Connection::open(&local.bootstrap()).unwrap();
        assert_eq!(
            produce(&mut c, "kept", 1, &batch(1)).unwrap(),
            (error::NONE, 11),
            "a batch that it has already"
        );
        assert_eq!(
            produce(&mut c, "kept", 1, &batch(5)).unwrap().0,
            error::OUT_OF_ORDER_SEQUENCE_NUMBER
        );
        // A new producer gets an unused id.
        assert_ne!(new_producer(&mut c).unwrap(), id);
    }
}

/// Static stability: produce and fetch continue without the controller, and changes work again once
/// it is back.
#[test]
fn without_a_controller() {
    let Some(local) = local() else { return };
    let mut driver = Driver::start(Client::Librdkafka, &local.bootstrap()).unwrap();
    driver.create_topic("steady", 2, &json!({})).unwrap();
    await_topic(&local.bootstrap(), "steady", 2).unwrap();
    local.run(&["kill", "controller"]).unwrap();
    assert!(local.status().unwrap().controller.is_none_or(|c| c.pid.is_none()));
    let records: Vec<Record> =
        (0..100).map(|i| Record::new("k", format!("{i}")).to(i % 2)).collect();
    driver.produce(Produce::records("steady", &records).set("acks", "all")).unwrap();
    // A new client finds everything too.
    let mut late = Driver::start(Client::Franz, &local.bootstrap()).unwrap();
    assert_eq!(late.consume("steady", &[0, 1], From::Beginning, 100).unwrap().len(), 100);
    local.run(&["start", "controller"]).unwrap();
    late.create_topic("after", 1, &json!({})).unwrap();
    await_topic(&local.bootstrap(), "after", 1).unwrap();
    assert!(
        local
            .apply("apiVersion: weir.dev/v1alpha1\nkind: Topic\nmetadata: {name: applied}\nspec: {clusterRef: {name: local}, partitions: 1}\n")
            .is_ok()
    );
    await_topic(&local.bootstrap(), "applied", 1).unwrap();
}
