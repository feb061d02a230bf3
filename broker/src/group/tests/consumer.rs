//! The consumer protocol: who gets what and when, epochs, static members, regular expressions, and failovers.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use weir_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::world::{World, join, topic_id};

/// A client: it heartbeats, and does what it is told at once.
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
        Self {
            id,
            epoch: 0,
            owned: BTreeMap::new(),
            request,
        }
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
                self.owned = topics.map(|topic| (topic.topic_id, topic.partitions.iter().copied().collect())).collect();
            }
        }
        response
    }

    pub(super) fn count(&self) -> usize {
        self.owned.values().map(BTreeSet::len).sum()
    }
}

/// Beats in turn until nothing changes, and checks at each step that no partition has two owners.
fn settle(world: &mut World, consumers: &mut [&mut Consumer]) {
    for _ in 0..10 {
        for index in 0..consumers.len() {
            let response = consumers[index].beat(world);
            assert_eq!(response.error_code, 0, "{}: {response:?}", consumers[index].id);
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

fn code(response: &ConsumerGroupHeartbeatResponse) -> ErrorCode {
    ErrorCode::from_code(response.error_code)
}

#[test]
fn who_is_in_a_group_that_changes_is_heard_of_soon() {
    let mut world = World::new(&[]);
    let (mut one, mut two) = (Consumer::new("one", &["a"]), Consumer::new("two", &["a"]));
    let interval = |consumer: &mut Consumer, world: &mut World| consumer.beat(world).heartbeat_interval_ms;
    assert_eq!(interval(&mut one, &mut world), 500);
    world.pass(4_999);
    assert_eq!(interval(&mut one, &mut world), 500);
    world.pass(1);
    assert_eq!(interval(&mut one, &mut world), 5_000, "nothing has changed for an interval");
    assert_eq!(interval(&mut two, &mut world), 500);
    assert_eq!(interval(&mut one, &mut world), 500, "the other one waits for what it gives up");
    // A coordinator that has not seen the change does not know when it was.
    world.fail_over();
    assert_eq!(interval(&mut one, &mut world), 5_000);
    let mut often = World::new(&[("group.consumer.heartbeat.interval.ms", "200")]);
    assert_eq!(interval(&mut Consumer::new("one", &["a"]), &mut often), 200);
}

#[test]
fn members_share_what_they_are_subscribed_to_and_give_up_before_others_get() {
    let mut world = World::new(&[]);
    let mut one = Consumer::new("one", &["a", "b"]);
    let first = one.beat(&mut world);
    assert_eq!(
        (first.error_code, first.member_epoch, first.heartbeat_interval_ms, one.count()),
        (0, 1, 500, 5)
    );
    assert_eq!(world.state(), "Stable");
    assert!(one.beat(&mut world).assignment.is_some(), "a full request is answered in full");
    let mut two = Consumer::new("two", &["a", "b"]);
    two.beat(&mut world);
    assert_eq!(
        (two.epoch, two.count(), world.state().as_str()),
        (2, 0, "Reconciling"),
        "the other one has everything"
    );
    one.beat(&mut world);
    assert_eq!((one.epoch, one.count()), (1, 3), "it is told to give up, in its old epoch");
    two.beat(&mut world);
    assert_eq!(two.count(), 0, "and has not said yet that it did");
    one.beat(&mut world);
    assert_eq!((one.epoch, one.count()), (2, 3));
    two.beat(&mut world);
    assert_eq!((two.epoch, two.count()), (2, 2));
    let mut three = Consumer::new("three", &["b"]);
    settle(&mut world, &mut [&mut one, &mut two, &mut three]);
    assert_eq!(
        (one.count() + two.count(), three.count()),
        (4, 1),
        "five partitions, of which it can have two"
    );
    // Another coordinator knows all of it.
    world.fail_over();
    assert_eq!(world.state(), "Stable");
    let before = (one.epoch, one.owned.clone());
    settle(&mut world, &mut [&mut one, &mut two, &mut three]);
    assert_eq!((one.epoch, one.owned.clone()), before);
    // One leaves, and the rest have its partitions.
    three.epoch = -1;
    assert_eq!(three.beat(&mut world).error_code, 0);
    settle(&mut world, &mut [&mut one, &mut two]);
    assert_eq!(one.count() + two.count(), 5);
}

#[test]
fn a_topic_that_grows_or_comes_is_shared_too() {
    let mut world = World::new(&[]);
    let mut one = Consumer::new("one", &["a", "new"]);
    settle(&mut world, &mut [&mut one]);
    assert_eq!((one.count(), one.epoch), (3, 1));
    world.topics(&[("a", 4), ("b", 2)]);
    settle(&mut world, &mut [&mut one]);
    assert_eq!((one.count(), one.epoch), (4, 2));
    world.topics(&[("a", 4), ("b", 3)]);
    settle(&mut world, &mut [&mut one]);
    assert_eq!(one.epoch, 2, "what nobody is subscribed to changes nothing");
    world.topics(&[("a", 4), ("new", 1)]);
    settle(&mut world, &mut [&mut one]);
    assert_eq!((one.count(), one.epoch), (5, 3));
    world.topics(&[("new", 1)]);
    settle(&mut world, &mut [&mut one]);
    assert_eq!((one.count(), one.epoch), (1, 4));
}

#[test]
fn epochs_fence() {
    let mut world = World::new(&[]);
    let mut one = Consumer::new("one", &["a"]);
    settle(&mut world, &mut [&mut one]);
    let with = |epoch, owned: Option<Vec<TopicPartitions>>| ConsumerGroupHeartbeatRequest {
        member_epoch: epoch,
        topic_partitions: owned,
        ..one.request.clone()
    };
    assert_eq!(code(&world.consumer(with(7, None))), ErrorCode::FencedMemberEpoch);
    let unknown = ConsumerGroupHeartbeatRequest {
        member_id: "nobody".to_owned(),
        ..with(1, None)
    };
    assert_eq!(code(&world.consumer(unknown)), ErrorCode::UnknownMemberId);
    // The answer with the newer epoch was lost: it may have as much as it is assigned, and no more.
    world.topics(&[("a", 4)]);
    assert_eq!(world.consumer(with(1, Some(Vec::new()))).member_epoch, 2);
    let owned = |partitions: &[i32]| {
        Some(vec![TopicPartitions {
            topic_id: topic_id("a"),
            partitions: partitions.to_vec(),
        }])
    };
    assert_eq!(code(&world.consumer(with(1, owned(&[0, 1])))), ErrorCode::None);
    for wrong in [None, owned(&[0, 9])] {
        assert_eq!(code(&world.consumer(with(1, wrong))), ErrorCode::FencedMemberEpoch);
    }
    assert_eq!(code(&world.consumer(with(0, Some(Vec::new())))), ErrorCode::None, "it may begin anew");
    let other_group = ConsumerGroupHeartbeatRequest {
        group_id: "other".to_owned(),
        ..with(3, None)
    };
    assert_eq!(code(&world.consumer(other_group)), ErrorCode::GroupIdNotFound);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut world = World::new(&[("group.consumer.max.size", "1")]);
    let good = Consumer::new("one", &["a"]).request();
    let table: Vec<(ConsumerGroupHeartbeatRequest, ErrorCode)> = vec![
        (
            ConsumerGroupHeartbeatRequest {
                member_id: String::new(),
                ..good.clone()
            },
            ErrorCode::InvalidRequest,
        ),
        (
            ConsumerGroupHeartbeatRequest {
                rebalance_timeout_ms: -1,
                ..good.clone()
            },
            ErrorCode::InvalidRequest,
        ),
        (
            ConsumerGroupHeartbeatRequest {
                topic_partitions: None,
                ..good.clone()
            },
            ErrorCode::InvalidRequest,
        ),
        (
            ConsumerGroupHeartbeatRequest {
                subscribed_topic_names: None,
                ..good.clone()
            },
            ErrorCode::InvalidRequest,
        ),
        (
            ConsumerGroupHeartbeatRequest {
                instance_id: Some(String::new()),
                ..good.clone()
            },
            ErrorCode::InvalidRequest,
        ),
        (
            ConsumerGroupHeartbeatRequest {
                member_epoch: -2,
                ..good.clone()
            },
            ErrorCode::InvalidRequest,
        ),
        (
            ConsumerGroupHeartbeatRequest {
                member_epoch: -3,
                ..good.clone()
            },
            ErrorCode::InvalidRequest,
        ),
        (
            ConsumerGroupHeartbeatRequest {
                server_assignor: Some("x".to_owned()),
                ..good.clone()
            },
            ErrorCode::UnsupportedAssignor,
        ),
        (
            ConsumerGroupHeartbeatRequest {
                subscribed_topic_regex: Some("(".to_owned()),
                ..good.clone()
            },
            ErrorCode::InvalidRegularExpression,
        ),
        (
            ConsumerGroupHeartbeatRequest {
                subscribed_topic_regex: Some("(a{1000}){1000}".to_owned()),
                ..good.clone()
            },
            ErrorCode::InvalidRegularExpression,
        ),
        (good.clone(), ErrorCode::None),
        (
            ConsumerGroupHeartbeatRequest {
                member_id: "two".to_owned(),
                ..good.clone()
            },
            ErrorCode::GroupMaxSizeReached,
        ),
    ];
    for (request, error) in table {
        assert_eq!(code(&world.consumer(request.clone())), error, "{request:?}");
    }
}

#[test]
fn an_empty_group_changes_its_protocol() {
    let mut world = World::new(&[("group.initial.rebalance.delay.ms", "0")]);
    let mut joining = world.join(3, join("", &["range"]));
    world.pass(1);
    let id = joining.answer().unwrap().member_id;
    let mut one = Consumer::new("one", &["a"]);
    assert_eq!(
        code(&one.beat(&mut world)),
        ErrorCode::GroupIdNotFound,
        "it has members whose subscriptions cannot be read"
    );
    world.leave(&id, None);
    settle(&mut world, &mut [&mut one]);
    world.fail_over();
    settle(&mut world, &mut [&mut one]);
    one.epoch = -1;
    one.beat(&mut world);
    assert_eq!(world.state(), "Empty");
    let mut joining = world.join(3, join("", &["range"]));
    world.pass(1);
    assert_eq!(joining.answer().unwrap().error_code, 0);
    world.fail_over();
    assert_eq!(world.state(), "none", "nobody has synced, so there is nothing to be known");
}

#[test]
fn who_is_not_heard_of_or_gives_nothing_up_is_out() {
    let mut world = World::new(&[]);
    let (mut one, mut two) = (Consumer::new("one", &["a"]), Consumer::new("two", &["a"]));
    settle(&mut world, &mut [&mut one, &mut two]);
    world.pass(44_000);
    one.beat(&mut world);
    world.pass(2_000);
    settle(&mut world, &mut [&mut one]);
    assert_eq!(one.count(), 3);
    two.beat(&mut world);
    assert_eq!(code(&two.beat(&mut world)), ErrorCode::UnknownMemberId);
    // It is heard of, but keeps what it is to give up.
    let mut three = Consumer::new("three", &["a"]);
    three.beat(&mut world);
    let stubborn = one.request();
    for _ in 0..10 {
        world.pass(4_000);
        three.beat(&mut world);
        world.consumer(stubborn.clone());
    }
    settle(&mut world, &mut [&mut three]);
    assert_eq!(three.count(), 3);
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let mut world = World::new(&[]);
    let named = |id, instance: &str| {
        let mut consumer = Consumer::new(id, &["a"]);
        consumer.request.instance_id = Some(instance.to_owned());
        consumer
    };
    let (mut one, mut two) = (named("one", "i-1"), named("two", "i-2"));
    settle(&mut world, &mut [&mut one, &mut two]);
    let had = two.owned.clone();
    let mut impostor = named("other", "i-2");
    assert_eq!(code(&impostor.beat(&mut world)), ErrorCode::UnreleasedInstanceId);
    two.epoch = -2;
    assert_eq!(two.beat(&mut world).member_epoch, -2);
    let epoch = one.epoch;
    one.beat(&mut world);
    assert_eq!(one.epoch, epoch, "nobody else is disturbed");
    world.fail_over();
    settle(&mut world, &mut [&mut one, &mut impostor]);
    assert_eq!(impostor.owned, had);
    two.epoch = epoch;
    assert_eq!(code(&two.beat(&mut world)), ErrorCode::FencedInstanceId);
    // One that does not come back in time loses what it had.
    impostor.epoch = -2;
    impostor.beat(&mut world);
    for _ in 0..10 {
        world.pass(5_000);
        one.beat(&mut world);
    }
    settle(&mut world, &mut [&mut one]);
    assert_eq!(one.count(), 3);
}

#[test]
fn a_regular_expression_means_the_topics_whose_whole_name_it_matches() {
    let mut world = World::with_topics(
        &[],
        &[("orders-eu", 2), ("orders-us", 1), ("orders-eu-old", 4), ("__consumer_offsets", 9)],
    );
    let mut one = Consumer::new("one", &[]);
    one.request.subscribed_topic_names = None;
    one.request.subscribed_topic_regex = Some("orders-(eu|us)".to_owned());
    settle(&mut world, &mut [&mut one]);
    assert_eq!(one.count(), 3);
    world.topics(&[("orders-eu", 2)]);
    settle(&mut world, &mut [&mut one]);
    assert_eq!(one.count(), 2);
    one.request.subscribed_topic_regex = Some(".*".to_owned());
    world.topics(&[("orders-eu", 2), ("x", 3), ("__consumer_offsets", 9)]);
    settle(&mut world, &mut [&mut one]);
    assert_eq!(one.count(), 5, "not the brokers' own");
    world.fail_over();
    settle(&mut world, &mut [&mut one]);
    assert_eq!(one.count(), 5);
}
