//! Kafka Streams with `processing.guarantee=exactly_once_v2` counts words while brokers, the
//! controller and its own processes are killed. Every count must appear once.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use weir_e2e::cluster::Local;
use weir_e2e::driver::{Client, Driver};
use weir_e2e::kubernetes::eventually;
use weir_e2e::record::Record;
use weir_e2e::wire::await_topic;

const WORDS: [&str; 7] = ["one", "two", "three", "four", "five", "six", "seven"];
const PARTITIONS: i32 = 2;

/// Writes lines of words in transactions, some of which abort. Returns the counts of the words in
/// committed lines.
fn write(driver: &mut Driver, from: usize, to: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for round in from..to {
        let end = if round % 4 == 3 { "abort" } else { "commit" };
        let lines: Vec<String> = (0..5)
            .map(|at| {
                (0..4)
                    .map(|word| WORDS[(round + at * word) % WORDS.len()])
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        let partition = round as i32 % PARTITIONS;
        let request = json!({"op": "transact", "producer": "source", "topic": "lines", "partition": partition, "values": lines, "end": end});
        driver.call(&request).unwrap();
        if end == "commit" {
            for word in lines.iter().flat_map(|line| line.split(' ')) {
                *counts.entry(word.to_owned()).or_default() += 1;
            }
        }
    }
    counts
}

/// All counts so far, by word, in their order.
fn told(driver: &mut Driver, at_least: usize, timeout_ms: u64) -> BTreeMap<String, Vec<usize>> {
    let partitions: Vec<i32> = (0..PARTITIONS).collect();
    let request = json!({
        "op": "consume", "topic": "counts", "partitions": partitions, "from": "beginning", "count": at_least, "read_committed": true, "timeout_ms": timeout_ms,
    });
    let found = driver.call(&request).unwrap();
    let records: Vec<Record> = serde_json::from_value(found).unwrap();
    let mut told: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for record in records {
        let word = String::from_utf8(record.key.clone().unwrap().0).unwrap();
        told.entry(word).or_default().push(record.text().parse().unwrap());
    }
    told
}

fn count_words(bootstrap: &str, state: &Path) -> Driver {
    let mut counting = Driver::start(Client::Java, bootstrap).unwrap();
    let request = json!({"op": "count_words", "application": "words", "from_topic": "lines", "to": "counts", "state": state});
    counting.call(&request).unwrap();
    counting
}

#[test]
fn words_are_counted_once_through_kills() {
    let local = Local::start_of(Some(3), None).unwrap();
    let bootstrap = local.bootstrap();
    let mut driver = Driver::start(Client::Java, &bootstrap).unwrap();
    for topic in ["lines", "counts"] {
        let configs = json!({"min.insync.replicas": "2"});
        driver.create_replicated_topic(topic, PARTITIONS, 3, &configs).unwrap();
        await_topic(&bootstrap, topic, PARTITIONS).unwrap();
    }
    driver.call(&json!({"op": "transactional", "producer": "source", "id": "source"})).unwrap();
    let state = local.data().join("streams");
    let mut counting = count_words(&bootstrap, &state.join("0"));
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..4 {
        for (word, count) in write(&mut driver, round * 12, round * 12 + 12) {
            *expected.entry(word).or_default() += count;
        }
        let victim = if round == 2 { "controller".to_owned() } else { (round % 3).to_string() };
        local.run(&["kill", &victim]).unwrap();
        std::thread::sleep(Duration::from_millis(800));
        local.run(&["start", &victim]).unwrap();
        if round == 1 {
            // The process is killed, and a new one starts with only the changelog.
            drop(counting);
            counting = count_words(&bootstrap, &state.join("1"));
        }
    }
    let total: usize = expected.values().sum();
    eventually("all counts", || {
        let told = told(&mut driver, total, 5_000);
        Ok((told.values().map(Vec::len).sum::<usize>() >= total).then_some(()))
    });
    let stopped = counting.call(&json!({"op": "stop_counting"})).unwrap();
    assert_eq!(stopped["stopped"], true);
    for (word, counts) in told(&mut driver, total + 1, 3_000) {
        let wanted: Vec<usize> = (1..=expected[&word]).collect();
        assert_eq!(counts, wanted, "{word}");
    }
}
