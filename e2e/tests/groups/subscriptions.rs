//! Subscriptions and assignments of consumer protocol members; the coordinator decides both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::json;
use weir_e2e::cluster::{replicas, unique};
use weir_e2e::driver::Produce;
use weir_e2e::group::described;
use weir_e2e::record::Record;
use weir_e2e::wire::await_topic;

use crate::{Groups, PATIENCE};

/// A member's record values, and its partitions by topic.
#[derive(Debug, Default, Clone)]
struct Got {
    values: BTreeSet<String>,
    assigned: BTreeMap<String, BTreeSet<i32>>,
}

impl Groups<'_> {
    /// Creates a topic with one record in each partition, which names the partition.
    fn topic_with_records(&mut self, topic: &str, partitions: i32) -> BTreeSet<String> {
        self.driver.create_replicated_topic(topic, partitions, replicas(), &json!({})).unwrap();
        await_topic(&self.local.bootstrap(), topic, partitions).unwrap();
        let value = |partition: i32| format!("{topic}/{partition}");
        let records: Vec<Record> = (0..partitions)
            .map(|partition| Record::new("k", value(partition)).to(partition))
            .collect();
        self.driver.produce(Produce::records(topic, &records).set("acks", "all")).unwrap();
        (0..partitions).map(value).collect()
    }

    /// Polls these members in turn until they satisfy `done`.
    fn poll_topics(
        &mut self,
        members: &mut BTreeMap<&str, Got>,
        what: &str,
        done: impl Fn(&BTreeMap<&str, Got>) -> bool,
    ) {
        let deadline = Instant::now() + PATIENCE;
        while !done(members) {
            assert!(Instant::now() < deadline, "{:?}: {what}: {members:?}", self.driver.client);
            for (name, got) in members.iter_mut() {
                let reply = self
                    .driver
                    .call(&json!({"op": "poll", "member": name, "timeout_ms": 300}))
                    .unwrap();
                let records: Vec<Record> =
                    serde_json::from_value(reply["records"].clone()).unwrap();
                got.values.extend(records.iter().map(Record::text));
                got.assigned.clear();
                for pair in reply["assigned"].as_array().unwrap() {
                    let (topic, partition) =
                        (pair[0].as_str().unwrap(), pair[1].as_i64().unwrap() as i32);
                    got.assigned.entry(topic.to_owned()).or_default().insert(partition);
                }
            }
        }
    }
}

/// A regular expression, which the coordinator resolves: it matches existing and later topics, and
/// no others.
pub(crate) fn a_pattern(groups: &mut Groups<'_>) {
    let stem = unique("pattern");
    let before = groups.topic_with_records(&format!("{stem}.before"), 2);
    groups.topic_with_records(&format!("other.{stem}.before"), 1);
    let pattern = format!("^{stem}\\..*");
    groups.join("patterns", "m", "", &json!({"pattern": pattern}));
    let mut members = BTreeMap::from([("m", Got::default())]);
    groups.poll_topics(&mut members, "the topic that is there", |members| {
        members["m"].values == before
    });
    // The coordinator resolves the expression; librdkafka encloses it in parentheses.
    let regex = described(&groups.local.bootstrap(), "patterns").unwrap().regex;
    assert!(regex.as_ref().is_some_and(|regex| regex.contains(&pattern)), "{regex:?}");
    groups.topic_with_records(&format!("other.{stem}.later"), 1);
    let later = groups.topic_with_records(&format!("{stem}.later"), 3);
    groups.poll_topics(&mut members, "the topic that came later", |members| {
        members["m"].values.len() >= before.len() + later.len()
    });
    assert_eq!(members["m"].values, before.union(&later).cloned().collect());
    let topics: Vec<_> = members["m"].assigned.keys().cloned().collect();
    assert_eq!(topics, [format!("{stem}.before"), format!("{stem}.later")]);
}

/// `group.remote.assignor`: with `range` a member gets the same partitions of topics with equal
/// partition counts, even if others get fewer. With `uniform` all members get the same number.
pub(crate) fn assignors_of_the_server(groups: &mut Groups<'_>) {
    let topics = [unique("alike"), unique("alike")];
    for topic in &topics {
        groups.topic_with_records(topic, 3);
    }
    let counts = |members: &BTreeMap<&str, Got>| {
        let count = |got: &Got| got.assigned.values().map(BTreeSet::len).sum();
        let mut counts: Vec<usize> = members.values().map(count).collect();
        counts.sort_unstable();
        counts
    };
    for (assignor, expected) in [("range", [2, 4]), ("uniform", [3, 3])] {
        let names = ["one", "two"].map(|name| format!("{name}-{assignor}"));
        let mut members = BTreeMap::new();
        for name in &names {
            groups.join(assignor, name, "", &json!({"topics": topics, "assignor": assignor}));
            members.insert(name.as_str(), Got::default());
        }
        groups.poll_topics(&mut members, assignor, |members| counts(members) == expected);
        let named = described(&groups.local.bootstrap(), assignor).unwrap().assignor;
        assert_eq!(named, assignor);
        if assignor == "range" {
            for got in members.values() {
                assert_eq!(got.assigned[&topics[0]], got.assigned[&topics[1]], "{members:?}");
            }
        }
    }
}

/// `client.rack` reaches the coordinator. Other tests check its effect, with brokers that have
/// racks.
pub(crate) fn a_rack(groups: &mut Groups<'_>) {
    let topic = unique("racks");
    let records = groups.topic_with_records(&topic, 2);
    groups.join("racks", "m", &topic, &json!({"rack": "north"}));
    let mut members = BTreeMap::from([("m", Got::default())]);
    groups.poll_topics(&mut members, "all records", |members| members["m"].values == records);
    assert_eq!(
        described(&groups.local.bootstrap(), "racks").unwrap().rack.as_deref(),
        Some("north")
    );
}
