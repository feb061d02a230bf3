//! Clients with overlapping transactions in one partition during faults, some of which abort; and
//! the comparison of each replica's aborted transactions with its log.
//!
//! Its assertions are part of the tests: it panics when a replica disagrees with its log.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::driver::{Client, Driver};
use crate::kubernetes::eventually;
use crate::txn::{Fetched, fetch};
use crate::wire::{Connection, error};
use crate::writer::PATIENCE;

/// Clients that write to one partition in transactions until they are stopped.
#[derive(Debug)]
pub struct Transactions {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Transactions {
    /// Starts the clients. Each has its own transactional id and aborts one of three transactions.
    #[must_use]
    pub fn start(clients: &[Client], bootstrap: &str, topic: &str, partition: i32) -> Self {
        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = clients.iter().enumerate().map(|(number, client)| {
            let (stop, ended, id, topic) = (Arc::clone(&stop), Arc::clone(&ended), format!("chain-{number}"), topic.to_owned());
            let (client, bootstrap) = (*client, bootstrap.to_owned());
            let mut driver = Driver::start(client, &bootstrap).unwrap();
            std::thread::spawn(move || {
                // A client that is stuck for longer than a test waits is replaced.
                let mut went_well = |request: &Value| match driver.call_if_alive(request) {
                    Some(reply) => reply.is_ok(),
                    None => {
                        driver = Driver::start(client, &bootstrap).unwrap();
                        false
                    }
                };
                let begin = json!({"op": "transactional", "producer": id, "id": id});
                let mut has_begun = false;
                let mut round = 0_usize;
                while !stop.load(Ordering::Relaxed) {
                    // After a failure the client starts again: InitProducerId aborts the
                    // transaction that was left open.
                    if !has_begun {
                        has_begun = went_well(&begin);
                        if !has_begun {
                            std::thread::sleep(Duration::from_millis(50));
                        }
                        continue;
                    }
                    let end = if round.is_multiple_of(3) { "abort" } else { "commit" };
                    let values: Vec<String> = (0..4).map(|at| format!("{round}-{at}")).collect();
                    let request = json!({"op": "transact", "producer": id, "topic": topic, "partition": partition, "values": values, "end": end});
                    has_begun = went_well(&request);
                    ended.fetch_add(usize::from(has_begun), Ordering::Relaxed);
                    round += 1;
                }
            })
        });
        Self { threads: threads.collect(), stop, ended }
    }

    /// Waits until more transactions end.
    pub fn moves(&self) {
        let (before, deadline) = (self.ended.load(Ordering::Relaxed), Instant::now() + PATIENCE);
        while self.ended.load(Ordering::Relaxed) < before + 3 {
            assert!(Instant::now() < deadline, "no transaction ends any more");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops the clients.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// Compares the aborted transactions that a replica reports, leader or follower, with its own
/// batches. Returns how many were aborted up to its last stable offset.
///
/// It retries for a while, because a replica that has just started knows markers that it does not
/// report yet. A marker that it has missed never appears.
pub fn tells_what_its_log_says(address: &str, topic: &str, partition: i32) -> usize {
    let mut attempts = 50;
    loop {
        let (told, stable) = eventually("a replica's answer", || told(address, topic, partition));
        let said = eventually("a replica's log", || said(address, topic, partition));
        let said: BTreeSet<_> = said.into_iter().filter(|(_, first)| *first < stable).collect();
        attempts -= 1;
        if told == said || attempts == 0 {
            assert_eq!(
                told, said,
                "{address} of {topic}-{partition}, stable up to {stable}: told, and what the log says"
            );
            return said.len();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// All of a partition at a broker; `None` while the broker does not serve it.
fn read(
    address: &str,
    topic: &str,
    partition: i32,
    committed: bool,
) -> Result<Option<Vec<Fetched>>> {
    let mut c = Connection::open(address)?;
    let mut parts: Vec<Fetched> = Vec::new();
    let mut from = 0;
    loop {
        let part = fetch(&mut c, topic, partition, from, committed)?;
        if part.code != error::NONE {
            return Ok(None);
        }
        let end = batches(&part.records)?.last().map(|batch| batch.end);
        parts.push(part);
        match end {
            Some(end) => from = end,
            None => return Ok(Some(parts)),
        }
    }
}

/// Producer and first offset of the aborted transactions that the replica reports, and the offset
/// up to which the list is complete.
fn told(address: &str, topic: &str, partition: i32) -> Result<Option<(BTreeSet<(i64, i64)>, i64)>> {
    let Some(parts) = read(address, topic, partition, true)? else {
        return Ok(None);
    };
    let mut told = BTreeSet::new();
    let mut end = 0;
    for part in &parts {
        told.extend(part.aborted.iter().copied());
        end = batches(&part.records)?.last().map_or(end, |batch| batch.end);
    }
    told.retain(|(_, first)| *first < end);
    Ok(Some((told, end)))
}

/// The same, computed from the batches up to the high watermark.
fn said(address: &str, topic: &str, partition: i32) -> Result<Option<BTreeSet<(i64, i64)>>> {
    let Some(parts) = read(address, topic, partition, false)? else {
        return Ok(None);
    };
    let (mut open, mut aborted) = (BTreeMap::new(), BTreeSet::new());
    for part in &parts {
        for batch in batches(&part.records)?.into_iter().filter(|batch| batch.is_transactional) {
            match batch.commits {
                None => {
                    open.entry(batch.producer).or_insert(batch.base);
                }
                Some(commits) => aborted.extend(
                    open.remove(&batch.producer)
                        .filter(|_| !commits)
                        .map(|first| (batch.producer, first)),
                ),
            }
        }
    }
    Ok(Some(aborted))
}

struct Seen {
    base: i64,
    end: i64,
    producer: i64,
    is_transactional: bool,
    /// For a marker: whether it commits.
    commits: Option<bool>,
}

/// The complete batches in these bytes.
fn batches(mut bytes: &[u8]) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    while bytes.len() >= 61 {
        let long = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let int = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let size = 12 + usize::try_from(int(8))?;
        if bytes.len() < size {
            break;
        }
        let is_control = bytes[22] & 0b10_0000 != 0;
        // A marker's record: five bytes before its key, which has a version and the type.
        ensure!(!is_control || size >= 70, "a control batch of {size} bytes");
        seen.push(Seen {
            base: long(0),
            end: long(0) + i64::from(int(23)) + 1,
            producer: long(43),
            is_transactional: bytes[22] & 0b1_0000 != 0,
            commits: is_control.then(|| bytes[69] == 1),
        });
        bytes = &bytes[size..];
    }
    Ok(seen)
}
