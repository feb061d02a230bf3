//! Clients of the consumer protocol, and the invariants of their groups.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use weir_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use weir_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use weir_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, OffsetCommitRequest,
};

use super::world::World;
use crate::group::Request;

/// A client: it sends heartbeats, and follows each response at once.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) id: &'static str,
    pub(super) epoch: i32,
    pub(super) owned: BTreeMap<Uuid, BTreeSet<i32>>,
    pub(super) request: ConsumerGroupHeartbeatRequest,
}

impl Consumer {
    pub(super) fn new(id: &'static str, topics: &[&str]) -> Self {
        let request = ConsumerGroupHeartbeatRequest {
            group_id: "g".to_owned(),
            member_id: id.to_owned(),
            rebalance_timeout_ms: 30_000,
            subscribed_topic_names: Some(topics.iter().map(|topic| (*topic).to_owned()).collect()),
            ..Default::default()
        };
        Self { id, epoch: 0, owned: BTreeMap::new(), request }
    }

    pub(super) fn request(&self) -> ConsumerGroupHeartbeatRequest {
        let owned = self.owned.iter().map(|(topic_id, partitions)| TopicPartitions {
            topic_id: *topic_id,
            partitions: partitions.iter().copied().collect(),
        });
        ConsumerGroupHeartbeatRequest {
            member_epoch: self.epoch,
            topic_partitions: Some(owned.collect()),
            ..self.request.clone()
        }
    }

    pub(super) fn beat(&mut self, world: &mut World) -> ConsumerGroupHeartbeatResponse {
        let response = world.consumer(self.request());
        if response.error_code == 0 {
            self.epoch = response.member_epoch;
            if let Some(assignment) = &response.assignment {
                let topics = assignment.topic_partitions.iter();
                self.owned = topics
                    .map(|topic| (topic.topic_id, topic.partitions.iter().copied().collect()))
                    .collect();
            }
        }
        response
    }

    pub(super) fn count(&self) -> usize {
        self.owned.values().map(BTreeSet::len).sum()
    }
}

/// The error codes when a client in this epoch commits for all its partitions.
fn commit(
    world: &mut World,
    id: &str,
    epoch: i32,
    owned: &BTreeMap<Uuid, BTreeSet<i32>>,
) -> BTreeSet<i16> {
    let topics = owned.iter().map(|(topic_id, partitions)| OffsetCommitRequestTopic {
        name: topic_id.to_string(),
        topic_id: *topic_id,
        partitions: partitions
            .iter()
            .map(|index| OffsetCommitRequestPartition {
                partition_index: *index,
                ..Default::default()
            })
            .collect(),
    });
    let request = OffsetCommitRequest {
        group_id: "g".to_owned(),
        generation_id_or_member_epoch: epoch,
        member_id: id.to_owned(),
        topics: topics.collect(),
        ..Default::default()
    };
    let answer = world.ask(|to| Request::Commit { request, version: 10, to }).expect();
    let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|partition| partition.error_code).collect()
}

/// Sends heartbeats in turn until nothing changes. Checks at each step that no partition has two
/// owners, and that a commit which crosses the response to a heartbeat is accepted (KIP-1251).
fn settle(world: &mut World, consumers: &mut [&mut Consumer]) {
    for _ in 0..20 {
        world.pass(100);
        for index in 0..consumers.len() {
            let (id, epoch, had) =
                (consumers[index].id, consumers[index].epoch, consumers[index].owned.clone());
            let response = consumers[index].beat(world);
            assert_eq!(response.error_code, 0, "{id}: {response:?}");
            if epoch > 0 {
                let codes = commit(world, id, epoch, &had);
                assert!(
                    codes.iter().all(|code| *code == 0),
                    "{id} in epoch {epoch}, {response:?}: {codes:?}"
                );
            }
            let mut owned = BTreeSet::new();
            for consumer in consumers.iter() {
                for (topic, partitions) in &consumer.owned {
                    assert!(
                        partitions.iter().all(|partition| owned.insert((*topic, *partition))),
                        "{}: two owners",
                        consumer.id
                    );
                }
            }
        }
    }
    assert_eq!(world.state(), "Stable");
}

#[test]
fn no_partition_has_two_owners_whatever_changes() {
    for (failing, interval) in [(false, "0"), (true, "0"), (false, "1000"), (true, "1000")] {
        let mut world = World::new(&[("group.consumer.assignment.interval.ms", interval)]);
        let fail = |world: &mut World| {
            if failing {
                world.fail_over();
            }
        };
        let (mut one, mut two) =
            (Consumer::new("one", &["a", "b", "new"]), Consumer::new("two", &["a", "b"]));
        let mut three = Consumer::new("three", &["b"]);
        one.request.instance_id = Some("i-1".to_owned());
        two.request.subscribed_topic_names = None;
        two.request.subscribed_topic_regex = Some("a|b".to_owned());
        settle(&mut world, &mut [&mut one]);
        assert_eq!(one.count(), 5);
        fail(&mut world);
        settle(&mut world, &mut [&mut one, &mut two]);
        assert_eq!((one.count() + two.count(), one.count().abs_diff(two.count())), (5, 1));
        fail(&mut world);
        settle(&mut world, &mut [&mut one, &mut two, &mut three]);
        assert_eq!(
            (one.count() + two.count(), three.count()),
            (4, 1),
            "five partitions, of which it can have two"
        );
        let before = (one.epoch, one.owned.clone());
        fail(&mut world);
        settle(&mut world, &mut [&mut one, &mut two, &mut three]);
        assert_eq!((one.epoch, one.owned.clone()), before);
        for (topics, count) in [
            (&[("a", 4), ("b", 3)][..], 7),
            (&[("a", 4), ("new", 2)], 6),
            (&[("b", 1)], 1),
            (&[("a", 3), ("b", 2)], 5),
        ] {
            world.topics(topics);
            fail(&mut world);
            settle(&mut world, &mut [&mut one, &mut two, &mut three]);
            assert_eq!(one.count() + two.count() + three.count(), count);
        }
        // A static member leaves for a while, and comes back under another id.
        let had = one.owned.clone();
        one.epoch = -2;
        assert_eq!(one.beat(&mut world).error_code, 0);
        let mut again = Consumer::new("again", &["a", "b", "new"]);
        again.request.instance_id = Some("i-1".to_owned());
        fail(&mut world);
        settle(&mut world, &mut [&mut two, &mut again, &mut three]);
        assert_eq!(again.owned, had);
        three.epoch = -1;
        assert_eq!(three.beat(&mut world).error_code, 0);
        fail(&mut world);
        settle(&mut world, &mut [&mut two, &mut again]);
        assert_eq!(two.count() + again.count(), 5);
    }
}
