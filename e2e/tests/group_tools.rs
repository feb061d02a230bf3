//! `kafka-consumer-groups.sh` and `kafka-groups.sh` of Apache Kafka, in all their forms.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_e2e::cluster::Local;
use weir_e2e::driver::{Client, Driver, Produce};
use weir_e2e::group;
use weir_e2e::record::Record;
use weir_e2e::tools::{class, kafka};
use weir_e2e::wire::await_topic;

/// 2020-09-13, in milliseconds, and in the tool's format.
const LONG_AGO_MS: i64 = 1_600_000_000_000;

const CLUSTER: &str = "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata:\n  name: groups\nspec:\n  brokers:\n    replicas: 1\n  \
                       config:\n    group.initial.rebalance.delay.ms: 0\n    offsets.topic.num.partitions: 3\n";

struct Tools {
    local: Local,
    driver: Driver,
}

impl Tools {
    fn start() -> Self {
        let local = Local::start(Some(CLUSTER)).unwrap();
        let driver = Driver::start(Client::Java, &local.bootstrap()).unwrap();
        Self { local, driver }
    }

    /// Creates a topic with ten records in each of two partitions, one second apart.
    fn topic(&mut self, topic: &str) {
        self.driver.create_topic(topic, 2, &json!({"retention.ms": "-1"})).unwrap();
        await_topic(&self.local.bootstrap(), topic, 2).unwrap();
        let records: Vec<Record> = (0..20)
            .map(|i| {
                Record::new("k", i.to_string()).to(i % 2).at(LONG_AGO_MS + i64::from(i / 2) * 1000)
            })
            .collect();
        self.driver.produce(Produce::records(topic, &records)).unwrap();
    }

    /// Runs `kafka-consumer-groups.sh`; returns its output, whether it succeeds or not.
    fn groups(&self, arguments: &[&str]) -> String {
        let bootstrap = self.local.bootstrap();
        let all = [&["--bootstrap-server", &bootstrap], arguments].concat();
        let printed = kafka(class::CONSUMER_GROUPS, &all, "").unwrap();
        printed.out + &printed.err
    }

    /// Runs a reset; returns the printed offsets, by topic and partition.
    fn reset(&self, arguments: &[&str]) -> Vec<(String, i32, i64)> {
        let all = [&["--reset-offsets", "--group", "g"], arguments].concat();
        rows(&self.groups(&all), 4)
            .into_iter()
            .map(|row| (row[1].clone(), row[2].parse().unwrap(), row[3].parse().unwrap()))
            .collect()
    }

    /// The output of `kafka-groups.sh --list`: groups with their types and protocols.
    fn listed(&self, filter: &[&str]) -> Vec<String> {
        let bootstrap = self.local.bootstrap();
        let all = [&["--bootstrap-server", &bootstrap, "--list"], filter].concat();
        let printed = kafka(class::GROUPS, &all, "").unwrap().success().unwrap();
        let rows = printed.lines().skip_while(|line| !line.starts_with("GROUP")).skip(1);
        let rows = rows.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let mut rows: Vec<_> = rows.filter(|row| !row.is_empty()).collect();
        rows.sort();
        rows
    }

    /// Joins the group `g` as a consumer and polls until it has its partitions.
    fn member(&mut self, topic: &str) {
        let assignor = "org.apache.kafka.clients.consumer.RangeAssignor";
        self.joins(&json!({"group": "g", "member": "m", "topics": [topic], "assignor": assignor}));
    }

    /// Joins, reads everything and commits it.
    fn joins(&mut self, how: &Value) {
        let mut request = json!({"op": "join"});
        request.as_object_mut().unwrap().extend(how.as_object().unwrap().clone());
        self.driver.call(&request).unwrap();
        let member = &how["member"];
        let polled = self
            .driver
            .call(&json!({"op": "poll", "member": member, "count": 20, "timeout_ms": 60_000}))
            .unwrap();
        assert_eq!(polled["records"].as_array().unwrap().len(), 20);
        self.driver.call(&json!({"op": "commit", "member": member})).unwrap();
    }
}

/// The lines that begin with the group's name and have at least this many words.
fn rows(printed: &str, words: usize) -> Vec<Vec<String>> {
    let rows =
        printed.lines().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    rows.filter(|row| row.len() >= words && row[0] == "g").collect()
}

fn at(first: i64, second: i64) -> Vec<(String, i32, i64)> {
    vec![("t".to_owned(), 0, first), ("t".to_owned(), 1, second)]
}

#[test]
fn offsets_are_reset_by_every_method() {
    let mut tools = Tools::start();
    tools.topic("t");
    let sorted = |mut rows: Vec<(String, i32, i64)>| {
        rows.sort();
        rows
    };
    let table: &[(&[&str], Vec<(String, i32, i64)>)] = &[
        (&["--to-earliest", "--topic", "t", "--execute"], at(0, 0)),
        (&["--to-latest", "--topic", "t", "--execute"], at(10, 10)),
        (&["--to-offset", "4", "--topic", "t:0", "--execute"], vec![("t".to_owned(), 0, 4)]),
        (&["--shift-by", "-2", "--topic", "t", "--execute"], at(2, 8)),
        (&["--to-current", "--all-topics", "--execute"], at(2, 8)),
        (&["--to-offset", "99", "--topic", "t", "--execute"], at(10, 10)),
        (&["--to-datetime", "2020-09-13T12:26:43.000", "--topic", "t", "--execute"], at(3, 3)),
        (&["--by-duration", "P1D", "--topic", "t", "--execute"], at(10, 10)),
        (&["--to-earliest", "--topic", "t", "--dry-run"], at(0, 0)),
        (&["--to-current", "--topic", "t", "--dry-run"], at(10, 10)),
    ];
    for (arguments, expected) in table {
        assert_eq!(sorted(tools.reset(arguments)), *expected, "{arguments:?}");
    }
    let file = tools.local.data().join("offsets.csv");
    let file = file.to_string_lossy().into_owned();
    let exported = tools.groups(&[
        "--reset-offsets",
        "--group",
        "g",
        "--to-earliest",
        "--topic",
        "t",
        "--export",
        "--dry-run",
    ]);
    let plan: String = exported
        .lines()
        .filter(|line| line.starts_with("t,"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(!plan.is_empty(), "{exported}");
    std::fs::write(&file, plan.replace(",0\n", ",7\n")).unwrap();
    assert_eq!(sorted(tools.reset(&["--from-file", &file, "--execute"])), at(7, 7));
    // The tool refuses while the group has a member.
    tools.reset(&["--to-earliest", "--topic", "t", "--execute"]);
    tools.member("t");
    let refused = tools.groups(&[
        "--reset-offsets",
        "--group",
        "g",
        "--to-earliest",
        "--topic",
        "t",
        "--execute",
    ]);
    assert!(refused.contains("inactive"), "{refused}");
}

#[test]
fn groups_are_listed_described_and_deleted() {
    let mut tools = Tools::start();
    tools.topic("t");
    tools.topic("other");
    tools.member("t");
    assert_eq!(tools.groups(&["--list"]).trim(), "g");
    assert_eq!(rows(&tools.groups(&["--list", "--state"]), 2)[0][1], "Stable");
    assert_eq!(rows(&tools.groups(&["--list", "--type"]), 2)[0][1], "Classic");
    assert!(!tools.groups(&["--list", "--state", "Empty"]).contains("Stable"));
    let described = rows(&tools.groups(&["--describe", "--group", "g"]), 9);
    let offsets: Vec<_> = described.iter().map(|row| row[1..6].join(" ")).collect();
    assert_eq!(offsets, ["t 0 10 10 0", "t 1 10 10 0"], "{described:?}");
    assert!(described[0][7].starts_with("/127.0.0.1"), "{described:?}");
    let members = tools.groups(&["--describe", "--group", "g", "--members", "--verbose"]);
    assert!(members.contains("t(0,1)") || members.contains("t:0,1"), "{members}");
    let state = tools.groups(&["--describe", "--group", "g", "--state"]);
    assert!(state.contains("Stable") && state.contains("range"), "{state}");
    assert!(tools.groups(&["--describe", "--all-groups"]).contains("/127.0.0.1"));
    let missing = tools.groups(&["--describe", "--group", "nobody"]);
    assert!(missing.contains("does not exist") || missing.contains("not found"), "{missing}");

    let refused = tools.groups(&["--delete", "--group", "g"]);
    assert!(
        refused.contains("GroupNotEmptyException") || refused.contains("not empty"),
        "{refused}"
    );
    let refused = tools.groups(&["--delete-offsets", "--group", "g", "--topic", "t"]);
    assert!(refused.contains("subscribed"), "{refused}");
    assert_eq!(tools.listed(&[]), ["g Classic consumer"]);

    tools.driver.call(&json!({"op": "leave", "member": "m"})).unwrap();
    assert_eq!(rows(&tools.groups(&["--list", "--state"]), 2)[0][1], "Empty");
    let deleted = tools.groups(&["--delete-offsets", "--group", "g", "--topic", "t:0"]);
    assert!(deleted.contains("Successful"), "{deleted}");
    assert_eq!(rows(&tools.groups(&["--describe", "--group", "g"]), 6).len(), 1);
    let deleted = tools.groups(&["--delete", "--group", "g"]);
    assert!(deleted.contains("successful"), "{deleted}");
    assert_eq!(tools.groups(&["--list"]).trim(), "");
}

/// A group of the consumer protocol, next to a classic one.
#[test]
fn groups_of_the_consumer_protocol_are_listed_described_reset_and_deleted() {
    let mut tools = Tools::start();
    tools.topic("t");
    tools.joins(&json!({"group": "g", "member": "m", "topics": ["t"], "protocol": "consumer"}));
    tools.joins(&json!({"group": "old", "member": "o", "topics": ["t"]}));
    let (new, old) = ("g Consumer consumer", "old Classic consumer");
    let filters: &[(&[&str], &[&str])] = &[
        (&[], &[new, old]),
        (&["--consumer"], &[new, old]),
        (&["--share"], &[]),
        (&["--group-type", "consumer"], &[new]),
        (&["--group-type", "classic"], &[old]),
        (&["--protocol", "connect"], &[]),
        (&["--group-type", "consumer", "--protocol", "consumer"], &[new]),
    ];
    for (filter, expected) in filters {
        assert_eq!(tools.listed(filter), *expected, "{filter:?}");
    }
    let listed = tools.groups(&["--list", "--type", "consumer", "--state", "Stable"]);
    assert_eq!(rows(&listed, 3)[0].join(" "), "g Consumer Stable", "{listed}");
    assert!(!listed.contains("old"), "{listed}");

    // The epochs of the member and its assignment, and of the group and its target assignment. One
    // member has joined once, and a group begins in epoch 1.
    let members = tools.groups(&["--describe", "--group", "g", "--members", "--verbose"]);
    let member = &rows(&members, 9)[0];
    assert!(member[2].starts_with("/127.0.0.1"), "{members}");
    assert_eq!(member[4..], ["2", "2", "t:0,1", "2", "t:0,1"], "{members}");
    let state = tools.groups(&["--describe", "--group", "g", "--state", "--verbose"]);
    let row = &rows(&state, 8)[0];
    assert_eq!(row[1], tools.local.bootstrap(), "{state}");
    assert_eq!(row[3..], ["uniform", "Stable", "2", "2", "1"], "{state}");
    let offsets = tools.groups(&["--describe", "--group", "g", "--offsets"]);
    let described: Vec<_> = rows(&offsets, 9).iter().map(|row| row[1..7].join(" ")).collect();
    let of = |partition: i32| format!("t {partition} 10 10 0 {}", member[1]);
    assert_eq!(described, [of(0), of(1)], "{offsets}");

    // The tool refuses while the group has a member.
    let refusals: &[(&[&str], &str)] = &[
        (
            &["--reset-offsets", "--to-earliest", "--topic", "t", "--execute"],
            "current state is Stable",
        ),
        (&["--delete-offsets", "--topic", "t"], "GroupSubscribedToTopicException"),
        (&["--delete"], "GroupNotEmptyException"),
    ];
    for (arguments, reason) in refusals {
        let refused = tools.groups(&[*arguments, &["--group", "g"]].concat());
        assert!(refused.contains(reason), "{arguments:?}: {refused}");
    }
    tools.driver.call(&json!({"op": "leave", "member": "m"})).unwrap();
    assert_eq!(
        tools
            .reset(&["--to-offset", "4", "--topic", "t", "--execute"])
            .into_iter()
            .collect::<BTreeSet<_>>(),
        at(4, 4).into_iter().collect()
    );
    let offsets = tools.groups(&["--describe", "--group", "g"]);
    assert!(offsets.contains("no active members"), "{offsets}");
    let described: Vec<_> = rows(&offsets, 6).iter().map(|row| row[1..6].join(" ")).collect();
    assert_eq!(described, ["t 0 4 10 6", "t 1 4 10 6"], "{offsets}");
    let deleted = tools.groups(&["--delete-offsets", "--group", "g", "--topic", "t:0"]);
    assert!(deleted.contains("Successful"), "{deleted}");
    assert_eq!(rows(&tools.groups(&["--describe", "--group", "g"]), 6).len(), 1);
    let deleted = tools.groups(&["--delete", "--group", "g"]);
    assert!(deleted.contains("successful"), "{deleted}");
    assert_eq!(group::described(&tools.local.bootstrap(), "g"), None);
}
