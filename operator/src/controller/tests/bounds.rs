//! What one request of a client may do to the controller at most.

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use weir_protocol::messages::create_topics_request::CreatableTopic;
use weir_protocol::messages::delete_topics_request::DeleteTopicState;
use weir_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use weir_protocol::messages::{CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, IncrementalAlterConfigsRequest};
use weir_protocol::types::BrokerId;

use super::world::World;
use crate::controller::{AdminRequest, AdminResponse, Event, RECORDS_PER_REQUEST_MAX, Reply};

fn world() -> World {
    let mut world = World::new();
    world.play("register 0 process=1");
    world.play("heartbeat 0 ready");
    world
}

fn ask(world: &mut World, request: AdminRequest) -> (Reply, usize) {
    let (broker, epoch) = (BrokerId(0), world.state.brokers[&BrokerId(0)].epoch);
    let (reply, changes) = world.event(Event::Admin { broker, epoch, request });
    assert!(world.state.sums_are_true());
    (reply, changes.len())
}

fn create(names: impl Iterator<Item = String>, partitions: i32) -> AdminRequest {
    let topics = names.map(|name| CreatableTopic {
        name,
        num_partitions: partitions,
        replication_factor: -1,
        ..Default::default()
    });
    AdminRequest::CreateTopics(CreateTopicsRequest {
        topics: topics.collect(),
        ..Default::default()
    })
}

fn names(prefix: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |index| format!("{prefix}.{index}"))
}

/// The codes of an answer to CreateTopics, each once.
fn codes(reply: Reply) -> Vec<i16> {
    let Reply::Admin(AdminResponse::CreateTopics(response)) = reply else {
        panic!("{reply:?}")
    };
    let mut codes: Vec<i16> = response.topics.iter().map(|topic| topic.error_code).collect();
    codes.dedup();
    codes
}

#[test]
fn a_request_makes_as_many_changes_as_kafka_lets_it() {
    let mut world = world();
    let policy = ErrorCode::PolicyViolation;
    // A topic and its partition are two changes each.
    let (reply, changes) = ask(&mut world, create(names("a", 5_000), 1));
    assert_eq!((codes(reply), changes), (vec![0], 10_000));
    let (reply, changes) = ask(&mut world, create(names("b", 5_001), 1));
    assert!(matches!(reply, Reply::Refused(code, _) if code == policy), "{reply:?}");
    assert_eq!(changes, 0, "all of it or nothing");
    // Partitions are counted over all topics of a request.
    let (reply, changes) = ask(&mut world, create(names("c", 11), 1_000));
    assert_eq!((codes(reply), changes), (vec![policy as i16], 0));
    let (reply, changes) = ask(&mut world, create(names("c", 5), 1_000));
    assert_eq!((codes(reply), changes), (vec![0], 5_005));
    let (reply, changes) = ask(&mut world, create(names("d", RECORDS_PER_REQUEST_MAX + 1), -2));
    assert!(
        matches!(reply, Reply::Refused(code, _) if code == policy),
        "what cannot be done is work, too: {reply:?}"
    );
    assert_eq!(changes, 0);
}

#[test]
fn growing_and_deleting_and_setting_are_bounded_as_a_whole() {
    let mut world = world();
    ask(&mut world, create(names("a", 5), 1));
    let grow = |validate_only| {
        let topics = names("a", 5).map(|name| CreatePartitionsTopic {
            name,
            count: 2_501,
            assignments: None,
        });
        AdminRequest::CreatePartitions(CreatePartitionsRequest {
            topics: topics.collect(),
            validate_only,
            ..Default::default()
        })
    };
    let delete = DeleteTopicsRequest {
        topics: names("x", RECORDS_PER_REQUEST_MAX + 1)
            .map(|name| DeleteTopicState {
                name: Some(name),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    let entry = |index: usize| AlterableConfig {
        name: format!("x{index}"),
        config_operation: 1,
        value: None,
    };
    let settings = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 2,
            resource_name: "a.0".to_owned(),
            configs: (0..RECORDS_PER_REQUEST_MAX).map(entry).collect(),
        }],
        ..Default::default()
    };
    let requests = [
        grow(false),
        // What is only looked at costs the same.
        grow(true),
        AdminRequest::DeleteTopics(delete),
        AdminRequest::IncrementalAlterConfigs(settings),
    ];
    for request in requests {
        let (reply, changes) = ask(&mut world, request);
        assert!(matches!(reply, Reply::Refused(ErrorCode::PolicyViolation, _)), "{reply:?}");
        assert_eq!(changes, 0);
    }
}
