//! Random histories. `State::apply` asserts its invariants itself. These tests check the rest:
//! deltas add up to the full image, and the store keeps what was committed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_protocol::controller as rpc;
use weir_protocol::types::BrokerId;

use super::world::World;
use crate::controller::image;
use crate::controller::sessions::{HEARTBEAT_INTERVAL_MS, StreamId};
use crate::controller::state::State;
use crate::store::packed::{read_shard, write_shard};

/// Brokers of a random cluster.
const BROKERS: i32 = 4;

/// One line of a scenario.
fn event() -> impl Strategy<Value = String> {
    let broker = 0..BROKERS;
    let topic = prop::sample::select(vec!["a", "a", "a", "b", "c.d", "c_d", "E"]);
    prop_oneof![
        3 => (broker.clone(), 0..6_u32, prop::option::of(0..20_i64), any::<bool>(), 0..3_u32).prop_map(|(id, process, previous, clean, rack)| {
            let previous = previous.map_or_else(String::new, |epoch| format!(" previous={epoch}"));
            format!("register {id} process={}{previous}{} rack=r{rack}", process + 1, if clean { " clean" } else { "" })
        }),
        6 => (broker.clone(), prop::sample::select(vec!["ready", "ready", "ready", "", "behind ready", "stop", "failed"]))
            .prop_map(|(id, flags)| format!("heartbeat {id} {flags}")),
        1 => broker.clone().prop_map(|id| format!("broke {id}")),
        2 => prop_oneof![3 => 0..300_u32, 1 => 0..4000_u32].prop_map(|ms| format!("wait {ms}")),
        1 => broker.clone().prop_map(|id| format!("producer-ids {id}")),
        6 => (prop_oneof![4 => Just("leader".to_owned()), 1 => broker.prop_map(|id| id.to_string())], topic.clone(), 0..3, prop::sample::subsequence((0..BROKERS).collect::<Vec<_>>(), 1..4), any::<bool>()).prop_map(
            |(id, name, partition, isr, recovered)| {
                let isr = isr.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                format!("isr {id} {name} {partition} {isr}{}", if recovered { " recovered" } else { "" })
            }
        ),
        3 => (0..3, prop::sample::subsequence((0..BROKERS).collect::<Vec<_>>(), 1..4).prop_shuffle()).prop_map(|(partition, to)| {
            format!("reassign a {partition} to={}", to.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
        }),
        1 => (0..3).prop_map(|partition| format!("reassign a {partition}")),
        2 => prop::sample::select(vec!["elect all", "elect unclean all", "balance"]).prop_map(str::to_owned),
        1 => (1..BROKERS).prop_map(|id| format!("unregister {id}")),
        1 => any::<bool>().prop_map(|cut_off| if cut_off { "take-over cut-off".to_owned() } else { "take-over".to_owned() }),
        3 => (topic.clone(), 1..5, 1..5, 1..3, any::<bool>()).prop_map(|(name, partitions, replicas, min_isr, unclean)| {
            format!("create {name} partitions={partitions} replicas={replicas} set=min.insync.replicas:{min_isr} set=unclean.leader.election.enable:{unclean}")
        }),
        1 => (topic.clone(), 0..8).prop_map(|(name, count)| format!("grow {name} {count}")),
        1 => (topic.clone(), 1..4).prop_map(|(name, min_isr)| format!("alter topic {name} set=min.insync.replicas:{min_isr}")),
        1 => (1..4).prop_map(|min_isr| format!("alter brokers set=min.insync.replicas:{min_isr}")),
        1 => (prop::sample::select(vec!["g", "h"]), 45_000..50_000).prop_map(|(group, ms)| format!("alter group {group} set=consumer.session.timeout.ms:{ms}")),
        1 => prop::sample::select(vec!["g", "h"]).prop_map(|group| format!("alter group {group} unset=consumer.session.timeout.ms")),
        1 => topic.prop_filter("one stays", |name| *name != "a").prop_map(|name| format!("delete {name}")),
    ]
}

/// A topic's name, settings and partitions.
type MirroredTopic = (String, BTreeMap<String, String>, BTreeMap<i32, rpc::Partition>);

/// The image as a broker keeps it: an update replaces the earlier values.
#[derive(Default, Debug, PartialEq)]
struct Mirror {
    brokers: BTreeMap<i32, rpc::Broker>,
    topics: BTreeMap<Vec<u8>, MirroredTopic>,
    cluster: BTreeMap<String, String>,
    groups: BTreeMap<String, BTreeMap<String, String>>,
}

impl Mirror {
    fn of(state: &State) -> Self {
        let mut mirror = Self::default();
        mirror.update(image::full(state));
        mirror
    }

    fn update(&mut self, update: rpc::MetadataUpdate) {
        for id in update.removed_brokers {
            assert!(self.brokers.remove(&id).is_some(), "only what is known is removed");
        }
        self.brokers.extend(update.brokers.into_iter().map(|broker| (broker.id, broker)));
        for id in update.removed_topics {
            assert!(self.topics.remove(&id).is_some(), "only what is known is removed");
        }
        for topic in update.topics {
            let known = self.topics.entry(topic.id).or_default();
            known.0 = topic.name;
            if let Some(configs) = topic.configs {
                known.1 = configs.entries.into_iter().collect();
            }
            known
                .2
                .extend(topic.partitions.into_iter().map(|partition| (partition.index, partition)));
        }
        for group in update.group_configs {
            let entries: BTreeMap<_, _> =
                group.configs.unwrap_or_default().entries.into_iter().collect();
            match entries.is_empty() {
                true => {
                    assert!(self.groups.remove(&group.name).is_some(), "only what is known goes")
                }
                false => drop(self.groups.insert(group.name, entries)),
            }
        }
        if let Some(configs) = update.cluster_configs {
            self.cluster = configs.entries.into_iter().collect();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn histories_keep_the_rules(events in prop::collection::vec(event(), 1..80)) {
        let mut world = World::new();
        for id in 0..BROKERS {
            world.play(&format!("register {id} process=1"));
            world.play(&format!("heartbeat {id} ready"));
        }
        world.play("create a partitions=3 replicas=3 set=min.insync.replicas:2");
        let mut mirror = Mirror::of(&world.state);
        for event in events {
            let mut before = world.state.clone();
            world.play(&event);
            let changes = world.last_changes();
            if event == "take-over cut-off" {
                // No broker has seen the part that was cut off; brokers get a full image.
                before = world.before.clone();
                mirror = Mirror::of(&before);
            }
            let mut replay = before.clone();
            changes.iter().for_each(|change| replay.apply(change));
            prop_assert_eq!(&replay, &world.state, "the changes say all");
            let told = image::delta(&before, &world.state, &changes);
            let version = told.as_ref().map(|update| update.version);
            prop_assert_eq!(version, (!changes.is_empty()).then_some(world.state.version), "whoever is answered waits for this version");
            if let Some(update) = told {
                mirror.update(update);
            }
            prop_assert_eq!(&mirror, &Mirror::of(&world.state), "after {}", event);
            check(&before, &world.state, &event)?;
            prop_assert!(world.state.sums_are_true(), "what is summed up is what there is");
        }
        let lines = world.state.topics.iter().flat_map(|(id, topic)| (0..).zip(&topic.partitions).map(|(index, partition)| (*id, index, partition)));
        let read = read_shard(&write_shard(lines, std::iter::empty(), "n")).unwrap().partitions;
        for (id, topic) in &world.state.topics {
            prop_assert_eq!(read.get(id).map_or(&[][..], Vec::as_slice), &topic.partitions[..]);
        }
    }
}

/// Checks a state against the one before it.
fn check(before: &State, after: &State, event: &str) -> Result<(), TestCaseError> {
    prop_assert!(after.cluster.next_producer_id >= before.cluster.next_producer_id);
    for (id, topic) in &after.topics {
        for (index, partition) in topic.partitions.iter().enumerate() {
            prop_assert!(partition.check().is_ok());
            prop_assert!(
                partition.leader.is_none_or(|leader| after.is_usable(leader)),
                "a leader is alive"
            );
            prop_assert!(
                partition.isr.iter().all(|member| after.is_usable(*member)),
                "who is in sync is alive"
            );
            let mut staying =
                partition.replicas.iter().filter(|id| !partition.removing.contains(id));
            let done = staying.all(|id| partition.isr.contains(id));
            prop_assert!(
                !partition.is_reassigning() || !done || partition.recovering,
                "a reassignment ends when all that stay are in sync"
            );
            prop_assert_eq!(
                partition.leader.is_some(),
                !partition.isr.is_empty(),
                "an ISR has a leader"
            );
            let min_isr = after
                .topic_setting(topic, "min.insync.replicas")
                .and_then(|text| text.parse().ok())
                .unwrap_or(1);
            let below = partition.isr.is_empty()
                || partition.isr.len() < partition.replicas.len().min(min_isr);
            prop_assert!(
                below || partition.elr.is_empty(),
                "nobody is eligible beside an ISR that is whole"
            );
            let Some(old) = before.topics.get(id).and_then(|topic| topic.partitions.get(index))
            else {
                continue;
            };
            prop_assert!(
                partition.leader_epoch >= old.leader_epoch
                    && partition.partition_epoch >= old.partition_epoch
            );
            prop_assert!(
                partition.leader == old.leader || partition.leader_epoch > old.leader_epoch,
                "one leader for each epoch"
            );
            prop_assert!(
                partition == old || partition.partition_epoch > old.partition_epoch,
                "one state for each epoch"
            );
            // The leader chooses the ISR. If that completes a reassignment, one of its members
            // leads immediately.
            let by_the_leader = event.starts_with("isr ");
            let clean = |broker: BrokerId| {
                old.isr.contains(&broker) || old.elr.contains(&broker) || by_the_leader
            };
            let last_resort =
                |broker: BrokerId| old.leader.or(old.last_known_leader) == Some(broker);
            let unclean = after
                .topic_setting(topic, "unclean.leader.election.enable")
                .is_some_and(|text| text == "true")
                || event.starts_with("elect unclean");
            prop_assert!(
                partition
                    .leader
                    .is_none_or(|leader| clean(leader) || unclean || last_resort(leader)),
                "a clean leader"
            );
            prop_assert!(
                partition.leader.is_none_or(|leader| clean(leader) || partition.recovering),
                "an unclean leader recovers"
            );
        }
    }
    Ok(())
}

#[test]
fn nobody_is_fenced_for_the_controllers_own_sleep() {
    let mut world = World::new();
    world.play("register 0 process=1");
    world.play("register 1 process=1");
    world.sessions.broke(BrokerId(1), StreamId(0), world.now);
    world.now = world.now.plus(60_000);
    assert_eq!(world.sessions.expired(world.now), [BrokerId(0), BrokerId(1)]);
    world.sessions.slept_until(world.now);
    assert_eq!(world.sessions.expired(world.now), [BrokerId(1)], "who is gone is gone");
    let silence = world.now.plus(u64::from(HEARTBEAT_INTERVAL_MS) * 2);
    assert_eq!(world.sessions.expired(silence), [BrokerId(0), BrokerId(1)]);
}

#[test]
fn sessions_of_streams_that_were_replaced_end_nothing() {
    let mut world = World::new();
    world.play("register 0 process=1");
    world.sessions.broke(BrokerId(0), StreamId(9), world.now);
    world.now = world.now.plus(1000);
    assert!(world.sessions.expired(world.now).is_empty());
    assert!(world.sessions.is_live(BrokerId(0), world.now));
}
