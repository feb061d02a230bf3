//! Clients that send numbered records to a topic of one id and remember the result of each; and the
//! check of a replica against that.
//!
//! No record is sent twice, so a duplicate must come from a broker. The assertions are part of the
//! tests: a violation panics.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::batch::{Batch, record};
use crate::bystander::now_ms;
use crate::fuzz::Random;
use crate::replica::Replica;
use crate::topics::{TopicId, describe, produce_to};
use crate::txn::{self, Version};
use crate::wire::{Body, Connection, error};
use crate::writer::PATIENCE;

/// The most records of a batch.
const BATCH_MAX: usize = 4;

/// One value in this many is a tombstone, if records have keys.
const TOMBSTONES: usize = 9;

/// The pause between two batches: other clients and the brokers share the processors.
const PAUSE: Duration = Duration::from_millis(2);

/// After the number of a record outside a transaction.
const PLAIN: &str = "/";

/// After the number of a record in a transaction that will commit.
const COMMITTED: &str = "/commit/";

/// After the number of a record in a transaction that will abort; `read_committed` never shows one.
pub const ABORTED: &str = "/abort/";

/// The result of sending a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// No answer: the record may be there.
    Unknown,
    /// The broker acknowledged it at this offset.
    Acknowledged(i64),
    /// Its transaction was never asked to commit, so no reader may see it.
    Aborted,
}

/// A record that a client sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The id of its topic.
    pub topic: TopicId,
    /// Its key, if any.
    pub key: Option<String>,
    /// Its value; `None` is a tombstone.
    pub value: Option<String>,
    /// The result.
    pub fate: Fate,
}

/// All records of each client, by its name, in the order of their numbers.
pub type Books = BTreeMap<String, Vec<Sent>>;

/// The progress of a client while it writes.
#[derive(Debug, Default)]
struct Progress {
    stop: AtomicBool,
    acknowledged: AtomicUsize,
    latest: AtomicI64,
    /// The last failure.
    failure: Mutex<String>,
}

impl Progress {
    fn acknowledge(&self, sent: &mut [Sent], base: i64) {
        let end = (base..).zip(sent).map(|(offset, sent)| {
            sent.fate = Fate::Acknowledged(offset);
            offset
        });
        let last = end.last().unwrap_or(base);
        self.latest.store(last, Ordering::Relaxed);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// An id in hexadecimal digits.
fn shown(id: &TopicId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A client that writes to one partition with `acks=all` until it is stopped.
#[derive(Debug)]
pub struct Numbered {
    name: String,
    progress: Arc<Progress>,
    thread: JoinHandle<Vec<Sent>>,
}

/// The partition that a client writes to, and the form of its records.
#[derive(Debug, Clone)]
pub struct Aim {
    /// The brokers, in the order of their ids.
    pub bootstrap: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The number of keys; 0 for records without keys.
    pub keys: usize,
    /// The most padding bytes of a value; not 0.
    pub filled_max: usize,
}

impl Aim {
    fn address(&self, broker: i32) -> Option<&str> {
        self.bootstrap.split(',').nth(usize::try_from(broker).ok()?)
    }

    /// The topic's id and a connection to the partition's leader, from the first broker that knows
    /// it.
    fn leader(&self) -> Option<(TopicId, Connection)> {
        let topic = self.bootstrap.split(',').find_map(|address| {
            describe(&mut Connection::open(address).ok()?, &self.topic).ok()?
        })?;
        let leader = topic.partitions.get(&self.partition)?.leader;
        Some((topic.id, Connection::open(self.address(leader)?).ok()?))
    }

    /// The next records, noted as sent, and their batch.
    fn next(
        &self,
        name: &str,
        random: &mut Random,
        topic: TopicId,
        end: &str,
        book: &mut Vec<Sent>,
    ) -> Batch {
        let fate = if end == PLAIN { Fate::Unknown } else { Fate::Aborted };
        let count = 1 + random.below(BATCH_MAX);
        let mut payload = Vec::new();
        for at in 0..count {
            let key = (self.keys > 0).then(|| format!("{name}-{}", random.below(self.keys)));
            let filled = "v".repeat(random.below(self.filled_max));
            let value = (self.keys == 0 || !random.once_in(TOMBSTONES))
                .then(|| format!("{name}/{}{end}{filled}", book.len()));
            payload.extend(record(
                at,
                key.as_ref().map(String::as_bytes),
                value.as_ref().map(String::as_bytes),
            ));
            book.push(Sent { topic, key, value, fate });
        }
        let empty = Batch::of(&vec![b"".as_slice(); count], now_ms());
        Batch { payload, ..empty }
    }
}

impl Numbered {
    /// Starts to write. The seed determines all random choices.
    #[must_use]
    pub fn start(name: &str, aim: Aim, seed: u64) -> Self {
        Self::spawn(name, seed, move |name, random, progress| plain(name, &aim, random, progress))
    }

    /// The same as `start`, in transactions; one in three aborts.
    #[must_use]
    pub fn start_in_transactions(name: &str, aim: Aim, seed: u64) -> Self {
        Self::spawn(name, seed, move |name, random, progress| {
            in_transactions(name, &aim, random, progress)
        })
    }

    fn spawn(
        name: &str,
        seed: u64,
        work: impl FnOnce(&str, &mut Random, &Progress) -> Vec<Sent> + Send + 'static,
    ) -> Self {
        let progress = Arc::new(Progress::default());
        let (shared, own_name) = (Arc::clone(&progress), name.to_owned());
        Self {
            name: name.to_owned(),
            progress,
            thread: std::thread::spawn(move || work(&own_name, &mut Random(seed), &shared)),
        }
    }

    /// The offset of the last acknowledged record.
    #[must_use]
    pub fn latest(&self) -> i64 {
        self.progress.latest.load(Ordering::Relaxed)
    }

    /// Waits for further acknowledgements.
    pub fn moves(&self) {
        let before = self.progress.acknowledged.load(Ordering::Relaxed);
        let deadline = Instant::now() + PATIENCE;
        while self.progress.acknowledged.load(Ordering::Relaxed) == before {
            assert!(
                !self.thread.is_finished() && Instant::now() < deadline,
                "{} does not move any more: {}",
                self.name,
                self.progress.failure.lock().unwrap()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops, and returns all records that were sent.
    #[must_use]
    pub fn finish(self) -> (String, Vec<Sent>) {
        self.progress.stop.store(true, Ordering::Relaxed);
        (self.name, self.thread.join().unwrap())
    }
}

fn plain(name: &str, aim: &Aim, random: &mut Random, progress: &Progress) -> Vec<Sent> {
    let mut book = Vec::new();
    let mut found = None;
    while !progress.stop.load(Ordering::Relaxed) {
        std::thread::sleep(PAUSE);
        if found.is_none() {
            found = aim.leader();
        }
        let Some((id, leader)) = &mut found else { continue };
        let first = book.len();
        let batch = aim.next(name, random, *id, PLAIN, &mut book).encode();
        match produce_to(leader, id, aim.partition, &batch) {
            Ok((error::NONE, base)) => progress.acknowledge(&mut book[first..], base),
            // The record may be in the log nevertheless.
            other => {
                *progress.failure.lock().unwrap() = format!("{other:?} of {}", shown(id));
                found = None;
            }
        }
    }
    book
}

fn in_transactions(name: &str, aim: &Aim, random: &mut Random, progress: &Progress) -> Vec<Sent> {
    let mut book = Vec::new();
    loop {
        // A new start aborts the transaction that was left open, even when it is time to stop.
        let is_over = progress.stop.load(Ordering::Relaxed);
        let coordinator = aim.bootstrap.split(',').find_map(|address| {
            let mut c = Connection::open(address).ok()?;
            // A request for the coordinator creates its topic.
            c.call(10, 1, &Body::default().str(name).i8(1)).ok()?;
            let (code, from) = txn::init(&mut c, name, 60_000, Version::V2).ok()?;
            (code == error::NONE).then_some((c, from))
        });
        let Some(((mut coordinator, mut from), (id, mut leader))) = coordinator.zip(aim.leader())
        else {
            std::thread::sleep(PAUSE * 10);
            continue;
        };
        if is_over {
            return book;
        }
        loop {
            std::thread::sleep(PAUSE);
            let first = book.len();
            let commit = !random.once_in(3);
            let mut bases = Vec::new();
            let (mut sequence, mut is_whole) = (0, true);
            for _ in 0..1 + random.below(3) {
                let at = book.len();
                let mut batch =
                    aim.next(name, random, id, if commit { COMMITTED } else { ABORTED }, &mut book);
                batch.attributes |= 0x10;
                let batch = batch.from_producer(from.producer, from.epoch, sequence);
                sequence += batch.count;
                match txn::send(&mut leader, from, &aim.topic, aim.partition, &batch.encode()) {
                    Ok((error::NONE, base)) => bases.push((at..book.len(), base)),
                    _ => {
                        is_whole = false;
                        break;
                    }
                }
            }
            let is_over = progress.stop.load(Ordering::Relaxed);
            if !is_whole || is_over {
                break;
            }
            if commit {
                book[first..].iter_mut().for_each(|sent| sent.fate = Fate::Unknown);
            }
            let Ok((error::NONE, next)) = txn::end(&mut coordinator, from, commit) else {
                break;
            };
            from = next;
            if commit {
                for (numbers, base) in bases {
                    progress.acknowledge(&mut book[numbers], base);
                }
            }
        }
    }
}

/// The expected content of a partition.
#[derive(Debug, Clone)]
pub struct Expected<'a> {
    /// The records sent to it, and to earlier topics of the same name.
    pub books: &'a Books,
    /// The id of its topic.
    pub topic: TopicId,
    /// The possible log start offsets.
    pub log_start_offsets: RangeInclusive<i64>,
    /// Whether only the last record of each key must be there.
    pub is_compacted: bool,
}

impl Expected<'_> {
    /// Checks a replica. It must have each acknowledged record once and at its offset, and no
    /// record that was sent elsewhere or aborted.
    pub fn check(&self, replica: &Replica, whose: &str) {
        let start = replica.log_start_offset;
        assert!(
            self.log_start_offsets.contains(&start),
            "{whose}: the log begins at {start}, not in {:?}",
            self.log_start_offsets
        );
        let mut seen = BTreeSet::new();
        let mut last_of_key: BTreeMap<&str, i64> = BTreeMap::new();
        for record in &replica.records {
            if let Some(key) = &record.key {
                last_of_key.insert(key, record.offset);
            }
            let Some(value) = &record.value else {
                let key = record.key.as_deref();
                assert!(
                    self.is_tombstone(key, record.offset),
                    "{whose}: a tombstone that nobody sent: {record:?}"
                );
                seen.insert(record.offset);
                continue;
            };
            let (name, rest) = value.split_once('/').unwrap();
            let number: usize = rest.split('/').next().unwrap().parse().unwrap();
            let sent = &self.books[name][number];
            assert_eq!(sent.topic, self.topic, "{whose}: of another topic: {record:?}");
            assert!(
                sent.key == record.key && sent.value == record.value,
                "{whose}: {record:?}, sent as {sent:?}"
            );
            match sent.fate {
                Fate::Unknown => {}
                Fate::Acknowledged(offset) => {
                    assert_eq!(record.offset, offset, "{whose}: {record:?}, sent as {sent:?}")
                }
                Fate::Aborted => panic!("{whose}: aborted, and there: {record:?}"),
            }
            assert!(seen.insert(record.offset), "{whose}: an offset came twice: {record:?}");
        }
        let values: BTreeSet<_> =
            replica.records.iter().filter_map(|record| record.value.as_ref()).collect();
        let of_values = replica.records.iter().filter(|record| record.value.is_some()).count();
        assert_eq!(values.len(), of_values, "{whose}: a record came twice");
        if self.is_compacted {
            self.check_keys(start, &last_of_key, whose);
        } else {
            let lost: Vec<_> = self
                .acknowledged()
                .filter(|(offset, _)| *offset >= start && !seen.contains(offset))
                .take(5)
                .collect();
            assert!(lost.is_empty(), "{whose}: acknowledged and not there: {lost:?}");
        }
    }

    /// The number of acknowledged records.
    #[must_use]
    pub fn count(&self) -> usize {
        self.acknowledged().count()
    }

    fn sent(&self) -> impl Iterator<Item = &Sent> {
        self.books.values().flatten().filter(|sent| sent.topic == self.topic)
    }

    fn acknowledged(&self) -> impl Iterator<Item = (i64, &Sent)> {
        self.sent().filter_map(|sent| match sent.fate {
            Fate::Acknowledged(offset) => Some((offset, sent)),
            _ => None,
        })
    }

    fn is_tombstone(&self, key: Option<&str>, offset: i64) -> bool {
        self.sent().any(|sent| {
            let may_be_there =
                matches!(sent.fate, Fate::Unknown) || sent.fate == Fate::Acknowledged(offset);
            sent.key.as_deref() == key && sent.value.is_none() && may_be_there
        })
    }

    /// Checks each key: its last acknowledged record is there, or a later one. A tombstone may be
    /// gone together with everything before it.
    fn check_keys(&self, start: i64, last_of_key: &BTreeMap<&str, i64>, whose: &str) {
        let mut lasts: BTreeMap<&str, (i64, &Sent)> = BTreeMap::new();
        for (offset, sent) in self.acknowledged().filter(|(offset, _)| *offset >= start) {
            let last = lasts.entry(sent.key.as_deref().unwrap()).or_insert((offset, sent));
            if offset > last.0 {
                *last = (offset, sent);
            }
        }
        for (key, (offset, sent)) in lasts {
            let is_deleted = || {
                sent.value.is_none()
                    || self.sent().any(|other| {
                        other.key == sent.key
                            && other.value.is_none()
                            && other.fate == Fate::Unknown
                    })
            };
            match last_of_key.get(key) {
                Some(last) => assert!(
                    *last >= offset,
                    "{whose}: the last of {key} is at {last}, and {sent:?} was acknowledged"
                ),
                None => assert!(
                    is_deleted(),
                    "{whose}: nothing of {key}, and {sent:?} was acknowledged"
                ),
            }
        }
    }
}
