//! Chains of real clients that consume, transform and produce while brokers, the controller and the
//! clients are killed. Each input is copied once, `read_committed` shows no aborted record, and no
//! transaction hangs.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use weir_e2e::cluster::Local;
use weir_e2e::driver::{Client, Driver};
use weir_e2e::kubernetes::eventually;
use weir_e2e::record::Record;
use weir_e2e::tools::kafka;
use weir_e2e::txn::fetch_committed;
use weir_e2e::wire::{Connection, await_topic, error, list_offset};

const PARTITIONS: i32 = 2;
const RECORDS: usize = 120;

fn begin(driver: &mut Driver, id: &str) {
    driver.call(&json!({"op": "transactional", "producer": id, "id": id})).unwrap();
}

/// Fills a partition and aborts one of three transactions. Returns the committed values.
fn fill(driver: &mut Driver, partition: i32) -> Vec<String> {
    let mut committed = Vec::new();
    for round in 0..RECORDS / 10 * 3 / 2 {
        let end = if round % 3 == 1 { "abort" } else { "commit" };
        let values: Vec<String> =
            (0..10).map(|at| format!("{partition}-{end}-{round}-{at}")).collect();
        let request = json!({"op": "transact", "producer": "source", "topic": "from", "partition": partition, "values": values, "end": end});
        driver.call(&request).unwrap();
        if end == "commit" {
            committed.extend(values);
        }
    }
    committed
}

/// The records of a partition that `read_committed` shows within the time, up to `count`.
fn shown(driver: &mut Driver, partition: i32, count: usize, timeout_ms: u64) -> Vec<String> {
    let request = json!({
        "op": "consume", "topic": "to", "partitions": [partition], "from": "beginning", "count": count, "read_committed": true, "timeout_ms": timeout_ms,
    });
    let found: Result<Value, _> = driver.call(&request);
    let records: Vec<Record> =
        found.map(|found| serde_json::from_value(found).unwrap()).unwrap_or_default();
    records.iter().map(Record::text).collect()
}

/// Runs the chain's client, and a new one whenever it ends.
fn keep_copying(client: Client, bootstrap: &str, over: &AtomicBool, pid: &AtomicU32) {
    let request = json!({
        "op": "transform", "id": "copy", "group": "copies", "from_topic": "from", "to": "to", "count": 1_000_000, "timeout_ms": 100_000,
    });
    while !over.load(Ordering::Relaxed) {
        let mut driver = Driver::start(client, bootstrap).unwrap();
        pid.store(driver.pid(), Ordering::Relaxed);
        // The client was killed, or has given up; a new one continues.
        let _ = driver.call_if_alive(&request);
    }
}

fn kill(pid: &AtomicU32) {
    // The process may have ended already.
    let _ = Command::new("kill").args(["-9", &pid.load(Ordering::Relaxed).to_string()]).status();
}

/// The last stable offset of each partition is its end, and Kafka's tool finds no hanging
/// transaction.
fn nothing_hangs(bootstrap: &str) {
    for (topic, partition) in ["from", "to"]
        .into_iter()
        .flat_map(|topic| (0..PARTITIONS).map(move |partition| (topic, partition)))
    {
        eventually("a stable partition", || {
            for address in bootstrap.split(',') {
                let mut c = Connection::open(address)?;
                let (code, end) = list_offset(&mut c, topic, partition, -1)?;
                if code == error::NONE {
                    let stable = fetch_committed(&mut c, topic, partition, 0)?.last_stable_offset;
                    return Ok((stable == end).then_some(()));
                }
            }
            Ok(None)
        });
    }
    for broker in ["0", "1", "2"] {
        let arguments = ["--bootstrap-server", bootstrap, "find-hanging", "--broker-id", broker];
        // The tool fails on a partition whose leader has just moved back.
        let found = eventually("an answer of find-hanging", || {
            let printed = kafka("org.apache.kafka.tools.TransactionsCommand", &arguments, "")?;
            Ok(Some(printed.success()?))
        });
        assert!(found.lines().count() <= 1, "{found}");
    }
}

fn copies_exactly_once(client: Client) {
    let local = Local::start_of(Some(3), None).unwrap();
    let bootstrap = local.bootstrap();
    let mut driver = Driver::start(Client::Java, &bootstrap).unwrap();
    for topic in ["from", "to"] {
        let configs = json!({"min.insync.replicas": "2"});
        driver.create_replicated_topic(topic, PARTITIONS, 3, &configs).unwrap();
        await_topic(&bootstrap, topic, PARTITIONS).unwrap();
    }
    begin(&mut driver, "source");
    let wanted: Vec<Vec<String>> =
        (0..PARTITIONS).map(|partition| fill(&mut driver, partition)).collect();
    let (over, pid) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| keep_copying(client, &bootstrap, &over, &pid));
        for round in 0..6 {
            std::thread::sleep(Duration::from_millis(1_200));
            let victim =
                if round % 3 == 2 { "controller".to_owned() } else { (round % 3).to_string() };
            local.run(&["kill", &victim]).unwrap();
            if round % 2 == 1 {
                kill(&pid);
            }
            std::thread::sleep(Duration::from_millis(600));
            local.run(&["start", &victim]).unwrap();
        }
        for (partition, wanted) in (0..PARTITIONS).zip(&wanted) {
            eventually("the copies", || {
                let found = shown(&mut driver, partition, wanted.len(), 5_000);
                Ok((found.len() >= wanted.len()).then_some(()))
            });
        }
        over.store(true, Ordering::Relaxed);
        kill(&pid);
    });
    // The next client aborts the transaction that the last one left open.
    begin(&mut driver, "copy");
    nothing_hangs(&bootstrap);
    for (partition, wanted) in (0..PARTITIONS).zip(wanted) {
        let found = shown(&mut driver, partition, wanted.len() + 1, 3_000);
        assert_eq!(found, wanted, "{client:?}, partition {partition}: each once, in order");
    }
}

#[test]
fn java_copies_exactly_once() {
    copies_exactly_once(Client::Java);
}

#[test]
fn franz_go_copies_exactly_once() {
    copies_exactly_once(Client::Franz);
}

#[test]
fn librdkafka_copies_exactly_once() {
    copies_exactly_once(Client::Librdkafka);
}
