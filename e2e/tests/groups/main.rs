//! Groups with every client: queues, publish and subscribe, committed offsets, rebalances and the
//! members that they do not disturb, subscriptions, and assignors.
#![allow(clippy::unwrap_used, missing_docs)]

mod rebalances;
mod subscriptions;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_e2e::cluster::{Local, brokers, replicas, unique};
use weir_e2e::driver::{Client, Driver, Produce};
use weir_e2e::record::Record;
use weir_e2e::wire::await_topic;

/// A scenario is a function of a cluster and a client; each pair is a test of its own.
macro_rules! scenarios {
    ($($scenario:ident),+ $(,)?) => {
        scenarios!(@client java, Client::Java, $($scenario),+);
        scenarios!(@client franz_go, Client::Franz, $($scenario),+);
        scenarios!(@client kafkajs, Client::KafkaJs, $($scenario),+);
        scenarios!(@client librdkafka, Client::Librdkafka, $($scenario),+);
        scenarios!(@client kafka_python, Client::KafkaPython, $($scenario),+);
        scenarios!(@client java_consumer_protocol, Client::Java, json!({"protocol": "consumer"}), $($scenario),+);
        scenarios!(@client librdkafka_consumer_protocol, Client::Librdkafka, json!({"protocol": "consumer"}), $($scenario),+);
        scenarios!(@client java_cooperative, Client::Java, json!({"assignor": "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"}), $($scenario),+);
        scenarios!(@client librdkafka_cooperative, Client::Librdkafka, json!({"assignor": "cooperative-sticky"}), $($scenario),+);
    };
    (@client $module:ident, $client:expr, $($scenario:ident),+) => {
        scenarios!(@client $module, $client, json!({}), $($scenario),+);
    };
    (@client $module:ident, $client:expr, $joining:expr, $($scenario:ident),+) => {
        mod $module {
            use super::*;
            $(#[test] fn $scenario() { run($client, $joining, super::$scenario); })+
        }
    };
}

use crate::rebalances::{
    a_coordinator_dies, a_name_is_given_to_the_newest, a_name_is_kept_by_the_first,
    no_more_generations_than_needed, static_members,
};
use crate::subscriptions::{a_pattern, a_rack, assignors_of_the_server};

scenarios!(
    a_queue,
    publish_and_subscribe,
    offsets_are_kept,
    a_member_that_dies,
    static_members,
    a_coordinator_dies
);

scenarios!(@client java_names, Client::Java, a_name_is_given_to_the_newest);
scenarios!(@client librdkafka_names, Client::Librdkafka, a_name_is_given_to_the_newest);
scenarios!(@client java_consumer_protocol_names, Client::Java, json!({"protocol": "consumer"}), a_name_is_kept_by_the_first);
scenarios!(@client librdkafka_consumer_protocol_names, Client::Librdkafka, json!({"protocol": "consumer"}), a_name_is_kept_by_the_first);

// Clients with cooperative rebalancing, which is franz-go's default.
scenarios!(@client java_generations, Client::Java, json!({"assignor": "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"}), no_more_generations_than_needed);
scenarios!(@client librdkafka_generations, Client::Librdkafka, json!({"assignor": "cooperative-sticky"}), no_more_generations_than_needed);
scenarios!(@client franz_go_generations, Client::Franz, no_more_generations_than_needed);

// Features of the consumer protocol only.
scenarios!(@client java_server_side, Client::Java, json!({"protocol": "consumer"}), a_pattern, assignors_of_the_server, a_rack);
scenarios!(@client librdkafka_server_side, Client::Librdkafka, json!({"protocol": "consumer"}), a_pattern, assignors_of_the_server, a_rack);

/// The limit of every wait.
const PATIENCE: Duration = Duration::from_secs(100);

/// The number of partitions of `__consumer_offsets`.
const COORDINATORS: i32 = 5;

/// Runs a scenario; its members join with the options `joining` in addition to the scenario's own.
fn run(client: Client, joining: Value, scenario: fn(&mut Groups<'_>)) {
    let local = Local::start_of(Some(brokers()), Some(&cluster(brokers()))).unwrap();
    let driver = Driver::start(client, &local.bootstrap()).unwrap();
    scenario(&mut Groups { local: &local, driver, joining });
}

/// A cluster whose groups do not wait three seconds for their first rebalance.
fn cluster(brokers: u32) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata:\n  name: groups\nspec:\n  brokers:\n    replicas: {brokers}\n  \
         config:\n    group.initial.rebalance.delay.ms: 100\n    group.consumer.session.timeout.ms: 6000\n    group.consumer.heartbeat.interval.ms: 500\n    offsets.topic.num.partitions: {COORDINATORS}\n"
    )
}

struct Groups<'a> {
    local: &'a Local,
    driver: Driver,
    joining: Value,
}

/// What a member has: its records as `(partition, number)`, and its partitions.
#[derive(Debug, Default, Clone)]
struct Member {
    records: Vec<(i32, usize)>,
    assigned: BTreeSet<i32>,
}

type Members = BTreeMap<String, Member>;

impl Groups<'_> {
    fn topic(&mut self, partitions: i32) -> String {
        let topic = unique("t");
        self.driver.create_replicated_topic(&topic, partitions, replicas(), &json!({})).unwrap();
        await_topic(&self.local.bootstrap(), &topic, partitions).unwrap();
        topic
    }

    /// Produces numbered records to all partitions in turn.
    fn produce(&mut self, topic: &str, partitions: i32, numbers: std::ops::Range<usize>) {
        let records: Vec<Record> = numbers
            .map(|number| Record::new("k", number.to_string()).to(number as i32 % partitions))
            .collect();
        self.driver
            .produce(Produce::records(topic, &records).set("acks", "all").set("timeout_ms", 60_000))
            .unwrap();
    }

    fn join(&mut self, group: &str, member: &str, topic: &str, more: &Value) {
        let mut request =
            json!({"op": "join", "group": group, "member": member, "topics": [topic]});
        for options in [&self.joining, more] {
            request.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        }
        self.driver.call(&request).unwrap();
    }

    /// Polls these members in turn until they satisfy `done`.
    fn poll(&mut self, members: &mut Members, what: &str, done: impl Fn(&Members) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(members) {
            assert!(Instant::now() < deadline, "{:?}: {what}: {members:?}", self.driver.client);
            self.turn(members);
        }
    }

    /// Polls each of these members once.
    fn turn(&mut self, members: &mut Members) {
        for (name, member) in members {
            let request = json!({"op": "poll", "member": name, "timeout_ms": 300});
            // franz-go reports an unreachable coordinator and keeps looking for it.
            let Ok(reply) = self.driver.call(&request) else { continue };
            let records: Vec<Record> = serde_json::from_value(reply["records"].clone()).unwrap();
            member.records.extend(
                records
                    .iter()
                    .map(|record| (record.partition.unwrap(), record.text().parse().unwrap())),
            );
            let assigned = reply["assigned"].as_array().unwrap();
            member.assigned =
                assigned.iter().map(|pair| pair[1].as_i64().unwrap() as i32).collect();
        }
    }

    fn commit(&mut self, member: &str) {
        self.driver.call(&json!({"op": "commit", "member": member})).unwrap();
    }

    fn leave(&mut self, member: &str) {
        self.driver.call(&json!({"op": "leave", "member": member})).unwrap();
    }
}

fn members(names: &[&str]) -> Members {
    names.iter().map(|name| ((*name).to_owned(), Member::default())).collect()
}

/// Whether every partition has one member and each member its share.
fn shared(members: &Members, partitions: i32, each: &[usize]) -> bool {
    let mut counts: Vec<_> = members.values().map(|member| member.assigned.len()).collect();
    counts.sort_unstable();
    let all: BTreeSet<_> =
        members.values().flat_map(|member| member.assigned.iter().copied()).collect();
    all.len() == partitions as usize && counts == each
}

fn numbers(members: &Members) -> Vec<usize> {
    let mut all: Vec<_> = members
        .values()
        .flat_map(|member| member.records.iter().map(|(_, number)| *number))
        .collect();
    all.sort_unstable();
    all
}

/// One group: each record goes to one member; members come and go, and a surplus one is idle.
fn a_queue(groups: &mut Groups<'_>) {
    let topic = groups.topic(3);
    groups.produce(&topic, 3, 0..30);
    groups.join("queue", "one", &topic, &json!({}));
    let mut one = members(&["one"]);
    groups.poll(&mut one, "one member gets everything", |members| numbers(members).len() >= 30);
    assert_eq!(numbers(&one), (0..30).collect::<Vec<_>>());
    groups.commit("one");
    for name in ["two", "three", "four"] {
        groups.join("queue", name, &topic, &json!({}));
    }
    let mut all = members(&["one", "two", "three", "four"]);
    groups.poll(&mut all, "four members share three partitions", |members| {
        shared(members, 3, &[0, 1, 1, 1])
    });
    groups.produce(&topic, 3, 30..90);
    groups.poll(&mut all, "all records", |members| numbers(members).len() >= 60);
    assert_eq!(numbers(&all), (30..90).collect::<Vec<_>>(), "each record to one member");
    for (name, member) in &all {
        assert!(
            member.records.iter().all(|(partition, _)| member.assigned.contains(partition)),
            "{name}: {member:?}"
        );
        if !member.assigned.is_empty() {
            groups.commit(name);
        }
    }
    groups.leave("one");
    groups.leave("three");
    let mut left = members(&["two", "four"]);
    groups.poll(&mut left, "two members share three partitions", |members| {
        shared(members, 3, &[1, 2])
    });
    groups.produce(&topic, 3, 90..120);
    groups.poll(&mut left, "all records", |members| numbers(members).len() >= 30);
    assert_eq!(numbers(&left), (90..120).collect::<Vec<_>>());
}

/// Many groups: each gets every record.
fn publish_and_subscribe(groups: &mut Groups<'_>) {
    let topic = groups.topic(2);
    groups.produce(&topic, 2, 0..20);
    let names = ["red", "green", "blue"];
    for name in names {
        groups.join(name, name, &topic, &json!({}));
    }
    let mut all = members(&names);
    let everything: Vec<usize> = (0..20).collect();
    groups.poll(&mut all, "each group gets everything", |members| {
        members.values().all(|member| member.records.len() >= 20)
    });
    for (name, member) in all {
        let mut got: Vec<_> = member.records.iter().map(|(_, number)| *number).collect();
        got.sort_unstable();
        assert_eq!(got, everything, "{name}");
    }
}

/// A group continues at its committed offsets, with any members.
fn offsets_are_kept(groups: &mut Groups<'_>) {
    let topic = groups.topic(2);
    groups.produce(&topic, 2, 0..10);
    groups.join("kept", "first", &topic, &json!({}));
    let mut first = members(&["first"]);
    groups.poll(&mut first, "the first ten", |members| numbers(members).len() >= 10);
    groups.commit("first");
    groups.produce(&topic, 2, 10..20);
    groups.poll(&mut first, "ten more", |members| numbers(members).len() >= 20);
    // Records that were read but not committed are read again.
    groups.leave("first");
    groups.join("kept", "second", &topic, &json!({}));
    let mut second = members(&["second"]);
    groups.poll(&mut second, "what was not committed", |members| numbers(members).len() >= 10);
    assert_eq!(numbers(&second), (10..20).collect::<Vec<_>>());
}

/// A killed process: its partitions go to the others after its session timeout.
fn a_member_that_dies(groups: &mut Groups<'_>) {
    let topic = groups.topic(4);
    let mut other = Groups {
        driver: Driver::start(groups.driver.client, &groups.local.bootstrap()).unwrap(),
        local: groups.local,
        joining: groups.joining.clone(),
    };
    groups.join("mourning", "stays", &topic, &json!({}));
    other.join("mourning", "dies", &topic, &json!({}));
    let (mut stays, mut dies) = (members(&["stays"]), members(&["dies"]));
    let deadline = Instant::now() + PATIENCE;
    while stays["stays"].assigned.len() != 2 || dies["dies"].assigned.len() != 2 {
        assert!(Instant::now() < deadline, "two each: {stays:?} {dies:?}");
        groups.turn(&mut stays);
        other.turn(&mut dies);
    }
    // The process is killed, so its consumer does not leave.
    drop(other);
    groups.poll(&mut stays, "the rest of the partitions", |members| {
        members["stays"].assigned.len() == 4
    });
    groups.produce(&topic, 4, 0..20);
    groups.poll(&mut stays, "all records", |members| numbers(members).len() >= 20);
}
