use uuid::Uuid;
use weir_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use weir_protocol::types::BrokerId;

use super::*;
use crate::controller::state::{Change, Cluster, Partition};

fn answer(topic: &str, partitions: &[(i32, i64)]) -> DescribeLogDirsResponse {
    let partitions = partitions.iter().map(|(index, size)| DescribeLogDirsPartition {
        partition_index: *index,
        partition_size: *size,
        ..Default::default()
    });
    DescribeLogDirsResponse {
        results: vec![DescribeLogDirsResult {
            topics: vec![DescribeLogDirsTopic {
                name: topic.to_owned(),
                partitions: partitions.collect(),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A cluster with one topic of two partitions on the brokers 0 and 1.
fn state(id: TopicId) -> State {
    let cluster = weir_crds::KafkaCluster::new("c", weir_crds::KafkaClusterSpec::default());
    let mut state = State::new(Cluster::new("id".to_owned(), cluster));
    state.apply(&Change::Topic(
        id,
        Box::new(weir_crds::Topic::new("t", weir_crds::TopicSpec::default())),
    ));
    let partition = Partition::new(vec![BrokerId(0), BrokerId(1)], vec![BrokerId(0)]);
    for index in 0..2 {
        state.apply(&Change::Partition(id, index, partition.clone()));
    }
    state
}

#[test]
fn a_record_counts_once_however_many_replicas_have_it() {
    let id = TopicId(Uuid::from_u128(1));
    let mut found = Found::default();
    found.handle(0, answer("t", &[(0, 100), (1, 0)]));
    found.handle(1, answer("t", &[(0, 90), (1, 7)]));
    found.handle(1, answer("deleted", &[(0, 5)]));
    assert_eq!(found.sizes(&state(id), &BTreeMap::new()), BTreeMap::from([(id, 107)]));
}

#[test]
fn what_nobody_tells_of_is_not_taken_to_be_empty() {
    let (id, state) = (TopicId(Uuid::from_u128(1)), state(TopicId(Uuid::from_u128(1))));
    let mut found = Found::default();
    assert_eq!(found.sizes(&state, &BTreeMap::new()), BTreeMap::new());
    let known = BTreeMap::from([(id, 100)]);
    assert_eq!(found.sizes(&state, &known), known);
    // A partition whose brokers do not answer, and one that has grown.
    found.handle(0, answer("t", &[(1, 0)]));
    assert_eq!(found.sizes(&state, &known), known);
    found.handle(0, answer("t", &[(1, 300)]));
    assert_eq!(found.sizes(&state, &known), BTreeMap::from([(id, 300)]));
}

#[test]
fn sizes_are_shown_in_steps_but_nothing_is_never_something() {
    for (before, is, after) in [
        (None, None, None),
        (None, Some(0), Some(0)),
        (Some(5), None, Some(5)),
        (Some(0), Some(1), Some(1)),
        (Some(1), Some(0), Some(0)),
        (Some(100), Some(109), Some(100)),
        (Some(100), Some(91), Some(100)),
        (Some(100), Some(110), Some(110)),
        (Some(100), Some(90), Some(90)),
        (Some(9), Some(10), Some(10)),
        (Some(i64::MAX), Some(1), Some(1)),
    ] {
        assert_eq!(shown(before, is), after, "{before:?} {is:?}");
    }
}

/// The default in the protocol's schema is an empty list, which selects no topic.
#[test]
fn all_topics_are_asked_about() {
    assert_eq!(everything().topics, None);
}
