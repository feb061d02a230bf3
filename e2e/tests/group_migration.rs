//! Groups that change their protocol while they work (KIP-848). Members of the consumer protocol
//! replace those of a running classic group one by one, and classic ones replace them again. A
//! producer writes meanwhile, and in some tests the coordinator dies. Every record is consumed,
//! committed offsets never go back, and no member fails.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_e2e::cluster::{Local, unique};
use weir_e2e::driver::{Client, Driver, Produce};
use weir_e2e::record::Record;
use weir_e2e::wire::{await_topic, committed, coordinator};

const PARTITIONS: i32 = 6;
const GROUP: &str = "migrating";
/// The limit of every wait.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn java_range() {
    run(Client::Java, "org.apache.kafka.clients.consumer.RangeAssignor", 1);
}

#[test]
fn java_cooperative() {
    run(Client::Java, "org.apache.kafka.clients.consumer.CooperativeStickyAssignor", 1);
}

#[test]
fn librdkafka_range() {
    run(Client::Librdkafka, "range", 1);
}

#[test]
fn librdkafka_cooperative() {
    run(Client::Librdkafka, "cooperative-sticky", 1);
}

#[test]
fn java_range_while_coordinators_die() {
    run(Client::Java, "org.apache.kafka.clients.consumer.RangeAssignor", 3);
}

#[test]
fn java_cooperative_while_coordinators_die() {
    run(Client::Java, "org.apache.kafka.clients.consumer.CooperativeStickyAssignor", 3);
}

#[test]
fn librdkafka_cooperative_while_coordinators_die() {
    run(Client::Librdkafka, "cooperative-sticky", 3);
}

/// With three brokers the coordinator is killed in the middle of each change.
fn run(client: Client, assignor: &str, brokers: u32) {
    let yaml = format!(
        "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata:\n  name: migration\nspec:\n  brokers:\n    replicas: {brokers}\n  \
         config:\n    group.initial.rebalance.delay.ms: 100\n    group.consumer.session.timeout.ms: 10000\n    group.consumer.heartbeat.interval.ms: 500\n    offsets.topic.num.partitions: 3\n"
    );
    let local = Local::start_of(Some(brokers), Some(&yaml)).unwrap();
    let mut driver = Driver::start(client, &local.bootstrap()).unwrap();
    let topic = unique("t");
    driver
        .create_replicated_topic(&topic, PARTITIONS, i16::try_from(brokers).unwrap(), &json!({}))
        .unwrap();
    await_topic(&local.bootstrap(), &topic, PARTITIONS).unwrap();
    let writer = Writer::start(client, &local.bootstrap(), &topic);
    let mut group = Group {
        classic: json!({"assignor": assignor, "session_ms": 10_000}),
        driver,
        local: &local,
        topic,
        members: BTreeMap::new(),
        read: BTreeSet::new(),
        committed: BTreeMap::new(),
        dies: brokers > 1,
    };
    group.is_replaced(&["one", "two"], &["new-one", "new-two"]);
    let written = writer.stop();
    group.poll("every record", |group| group.read.len() >= written);
    assert_eq!(group.read, (0..written).collect(), "{client:?}");
}

/// A producer of numbered records to all partitions, until it is stopped.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Writer {
    fn start(client: Client, bootstrap: &str, topic: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopping, topic) = (Arc::clone(&stop), topic.to_owned());
        let mut driver = Driver::start(client, bootstrap).unwrap();
        let thread = std::thread::spawn(move || {
            let mut written = 0;
            while !stopping.load(Ordering::Relaxed) {
                let records: Vec<Record> = (written..written + 12)
                    .map(|number| {
                        Record::new("k", number.to_string()).to(number as i32 % PARTITIONS)
                    })
                    .collect();
                driver
                    .produce(
                        Produce::records(&topic, &records)
                            .set("acks", "all")
                            .set("timeout_ms", 100_000),
                    )
                    .unwrap();
                written += records.len();
            }
            written
        });
        Self { stop, thread }
    }

    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// A group with members of both protocols.
struct Group<'a> {
    local: &'a Local,
    driver: Driver,
    topic: String,
    /// The join request of classic members.
    classic: Value,
    /// The partitions that each member has.
    members: BTreeMap<String, BTreeSet<i32>>,
    /// The numbers of all consumed records.
    read: BTreeSet<usize>,
    committed: BTreeMap<(String, i32), i64>,
    /// Whether coordinators die in the middle of changes.
    dies: bool,
}

impl Group<'_> {
    /// The old members join; new ones replace them; then old ones replace those.
    fn is_replaced(&mut self, old: &[&str], new: &[&str]) {
        for name in old {
            self.join(name, false);
        }
        self.is_shared();
        for (old, new) in old.iter().zip(new) {
            self.join(new, true);
            self.goes_on();
            self.leave(old);
            self.is_shared();
        }
        for (new, old) in new.iter().zip(old) {
            let back = format!("{old}-again");
            self.join(&back, false);
            self.is_shared();
            self.leave(new);
            self.goes_on();
        }
    }

    fn join(&mut self, name: &str, consumer: bool) {
        let mut request =
            json!({"op": "join", "group": GROUP, "member": name, "topics": [&self.topic]});
        let more = if consumer { json!({"protocol": "consumer"}) } else { self.classic.clone() };
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.driver.call(&request).unwrap();
        self.members.insert(name.to_owned(), BTreeSet::new());
    }

    fn leave(&mut self, name: &str) {
        self.members.remove(name);
        self.driver.call(&json!({"op": "leave", "member": name})).unwrap();
    }

    /// Waits until the members share the partitions; the coordinator may die meanwhile.
    fn goes_on(&mut self) {
        if !self.dies {
            return self.is_shared();
        }
        self.turn();
        let broker = coordinator(&self.local.bootstrap(), GROUP).unwrap().to_string();
        self.local.run(&["kill", &broker]).unwrap();
        self.is_shared();
        self.local.run(&["start", &broker]).unwrap();
        self.is_shared();
    }

    /// Waits until every partition has one member and each member its share.
    fn is_shared(&mut self) {
        let before = self.read.len();
        self.poll("every member has its share", |group| {
            let all: BTreeSet<_> = group.members.values().flatten().collect();
            let count: usize = group.members.values().map(BTreeSet::len).sum();
            let share = PARTITIONS as usize / group.members.len();
            let is_fair = group.members.values().all(|own| own.len() >= share);
            // Members also read from the partitions that they report.
            is_fair
                && all.len() == PARTITIONS as usize
                && count == all.len()
                && group.read.len() > before
        });
    }

    /// Polls all members in turn until `done`.
    fn poll(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(
                Instant::now() < deadline,
                "{:?}: {what}: {:?}, {} read",
                self.driver.client,
                self.members,
                self.read.len()
            );
            self.turn();
        }
    }

    fn turn(&mut self) {
        for name in self.members.keys().cloned().collect::<Vec<_>>() {
            let request = json!({"op": "poll", "member": name, "timeout_ms": 200});
            let reply = self.driver.call(&request).unwrap_or_else(|failure| {
                panic!("{:?}: {name} fails: {failure:?}", self.driver.client)
            });
            let records: Vec<Record> = serde_json::from_value(reply["records"].clone()).unwrap();
            self.read.extend(records.iter().map(|record| record.text().parse::<usize>().unwrap()));
            let assigned = reply["assigned"].as_array().unwrap().iter();
            let assigned = assigned.map(|pair| pair[1].as_i64().unwrap() as i32).collect();
            self.members.insert(name.clone(), assigned);
            // A rebalance may refuse the commit; then a member reads the records again.
            let _ = self.driver.call(&json!({"op": "commit", "member": name}));
        }
        for (partition, offset) in committed(&self.local.bootstrap(), GROUP).unwrap_or_default() {
            let before = self.committed.insert(partition.clone(), offset).unwrap_or(-1);
            assert!(offset >= before, "{partition:?} goes back from {before} to {offset}");
        }
    }
}
