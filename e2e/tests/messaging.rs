//! Both messaging patterns of the examples: a queue, whose members share the work, and publish and
//! subscribe, where each group gets everything.
//!
//! The members are real clients that join, leave and are killed. The tests wait for the status of
//! the ConsumerGroups.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_e2e::cluster::Local;
use weir_e2e::driver::{Client, Driver, Produce};
use weir_e2e::record::Record;
use weir_e2e::wire::await_topic;

/// The limit of every wait.
const PATIENCE: Duration = Duration::from_secs(120);

struct World {
    local: Local,
    driver: Driver,
    topic: &'static str,
    partitions: i32,
}

impl World {
    fn start(client: Client, example: &str, topic: &'static str, partitions: i32) -> Self {
        let path = weir_e2e::workspace().join("examples").join(example);
        let local = Local::start(Some(&std::fs::read_to_string(path).unwrap())).unwrap();
        await_topic(&local.bootstrap(), topic, partitions).unwrap();
        let driver = Driver::start(client, &local.bootstrap()).unwrap();
        Self { local, driver, topic, partitions }
    }

    fn produce(&mut self, numbers: std::ops::Range<i32>) {
        let records: Vec<Record> =
            numbers.map(|n| Record::new("k", n.to_string()).to(n % self.partitions)).collect();
        self.driver.produce(Produce::records(self.topic, &records).set("acks", "all")).unwrap();
    }

    fn join(&mut self, group: &str, member: &str) {
        join(&mut self.driver, group, member, self.topic);
    }

    fn leave(&mut self, member: &str) {
        self.driver.call(&json!({"op": "leave", "member": member})).unwrap();
    }

    /// Polls members in turn until the group's status and their records satisfy the condition;
    /// returns the numbers that they read, with duplicates.
    fn poll(
        &mut self,
        group: &str,
        members: &[&str],
        what: &str,
        done: impl Fn(&Value, &[i32]) -> bool,
    ) -> Vec<i32> {
        self.poll_beside(None, group, members, what, done)
    }

    /// The same as `poll`, with another member in another process whose records do not count.
    fn poll_beside(
        &mut self,
        mut other: Option<(&mut Driver, &str)>,
        group: &str,
        members: &[&str],
        what: &str,
        done: impl Fn(&Value, &[i32]) -> bool,
    ) -> Vec<i32> {
        let mut numbers = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            for member in members {
                let read = read(&mut self.driver, member);
                if !read.is_empty() {
                    // A member that lost its partition meanwhile cannot commit; the new owner reads
                    // the records again.
                    let _ = self.driver.call(&json!({"op": "commit", "member": member}));
                }
                numbers.extend(read);
            }
            if let Some((driver, member)) = &mut other {
                read_quietly(driver, member);
            }
            let text = self.local.run(&["get", "kcg", group, "-o", "json"]).unwrap();
            let resource: Value = serde_json::from_str(&text).unwrap();
            if done(&resource["status"], &numbers) {
                return numbers;
            }
            assert!(Instant::now() < deadline, "{what}: {numbers:?} {:#}", resource["status"]);
        }
    }
}

fn join(driver: &mut Driver, group: &str, member: &str, topic: &str) {
    driver
        .call(&json!({"op": "join", "group": group, "member": member, "topics": [topic]}))
        .unwrap();
}

fn read(driver: &mut Driver, member: &str) -> Vec<i32> {
    let Ok(reply) = driver.call(&json!({"op": "poll", "member": member, "timeout_ms": 100})) else {
        return Vec::new();
    };
    let records: Vec<Record> = serde_json::from_value(reply["records"].clone()).unwrap();
    records.iter().map(|record| record.text().parse().unwrap()).collect()
}

fn read_quietly(driver: &mut Driver, member: &str) {
    drop(read(driver, member));
}

/// Checks that every number occurs once.
fn each_once(mut numbers: Vec<i32>, expected: std::ops::Range<i32>) {
    numbers.sort_unstable();
    assert_eq!(numbers, expected.collect::<Vec<_>>());
}

fn settled(status: &Value, members: i64, idle: i64) -> bool {
    status["state"] == "Stable" && status["members"] == members && status["idleMembers"] == idle
}

fn a_queue(client: Client) {
    let mut world = World::start(client, "queue.yaml", "orders", 4);
    // One member more than partitions: it is idle, and the others share the work.
    let five = ["one", "two", "three", "four", "five"];
    five.iter().for_each(|member| world.join("billing", member));
    world.poll("billing", &five, "five members, one of them idle", |status, _| {
        settled(status, 5, 1)
    });
    world.produce(0..40);
    let read = world.poll("billing", &five, "forty orders", |status, read| {
        read.len() >= 40 && status["lag"]["messages"] == 0
    });
    each_once(read, 0..40);

    // Two members leave, and one joins from another process: each of the four has a partition.
    world.leave("four");
    world.leave("five");
    let mut other = Driver::start(client, &world.local.bootstrap()).unwrap();
    join(&mut other, "billing", "dies", "orders");
    let three = ["one", "two", "three"];
    world.poll_beside(
        Some((&mut other, "dies")),
        "billing",
        &three,
        "four members",
        |status, _| settled(status, 4, 0),
    );

    // That member is killed: after its session timeout the others get its partition.
    drop(other);
    world.produce(40..80);
    let read = world.poll("billing", &three, "the rest is read by the others", |status, read| {
        let all: BTreeSet<&i32> = read.iter().collect();
        settled(status, 3, 0) && all.len() == 40 && status["lag"]["messages"] == 0
    });
    each_once(read, 40..80);
    // All members leave: the queue keeps new records, and the status shows the lag.
    three.iter().for_each(|member| world.leave(member));
    world.produce(80..90);
    world.poll("billing", &[], "ten orders wait", |status, _| {
        status["members"] == 0 && status["lag"]["messages"] == 10
    });
    world.join("billing", "six");
    let read = world.poll("billing", &["six"], "they are read", |status, read| {
        read.len() >= 10 && status["lag"]["messages"] == 0
    });
    each_once(read, 80..90);
}

fn publish_and_subscribe(client: Client) {
    let mut world = World::start(client, "publish-subscribe.yaml", "articles", 2);
    world.produce(0..20);
    for group in ["search", "newsletter"] {
        world.join(group, group);
    }
    let mut other = Driver::start(client, &world.local.bootstrap()).unwrap();
    join(&mut other, "archive", "dies", "articles");
    for group in ["search", "newsletter"] {
        let read = world.poll(group, &[group], "each group gets everything", |status, read| {
            read.len() >= 20 && status["lag"]["messages"] == 0
        });
        each_once(read, 0..20);
    }
    let mut archived = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while archived.len() < 20 {
        assert!(Instant::now() < deadline, "{archived:?}");
        archived.extend(read(&mut other, "dies"));
    }
    other.call(&json!({"op": "commit", "member": "dies"})).unwrap();
    each_once(archived, 0..20);

    // The only member of one group is killed: the other groups do not notice. A new member gets
    // what the group missed.
    drop(other);
    world.produce(20..30);
    for group in ["search", "newsletter"] {
        let read = world.poll(group, &[group], "they go on", |_, read| read.len() >= 10);
        each_once(read, 20..30);
    }
    world.poll("archive", &["search"], "the archive is behind, and has no member", |status, _| {
        status["members"] == 0 && status["lag"]["messages"] == 10
    });
    world.join("archive", "again");
    let read = world.poll("archive", &["again"], "it catches up", |status, read| {
        read.len() >= 10 && status["lag"]["messages"] == 0
    });
    each_once(read, 20..30);
}

macro_rules! shapes {
    ($($module:ident, $client:expr;)*) => {
        $(mod $module {
            use super::*;
            #[test] fn a_queue() { super::a_queue($client); }
            #[test] fn publish_and_subscribe() { super::publish_and_subscribe($client); }
        })*
    };
}

shapes! {
    java, Client::Java;
    franz_go, Client::Franz;
    librdkafka, Client::Librdkafka;
}
