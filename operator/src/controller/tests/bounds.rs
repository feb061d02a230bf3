//! The limits of one client's request to the controller.

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use weir_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use weir_protocol::messages::create_topics_request::CreatableTopic;
use weir_protocol::messages::delete_topics_request::DeleteTopicState;
use weir_protocol::messages::elect_leaders_request::TopicPartitions;
use weir_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use weir_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use weir_protocol::messages::{
    AlterPartitionReassignmentsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteTopicsRequest, ElectLeadersRequest, IncrementalAlterConfigsRequest,
    ListPartitionReassignmentsRequest,
};
use weir_protocol::types::BrokerId;

use super::world::World;
use crate::controller::{
    AdminRequest, AdminResponse, Event, NAMED_TO_LIST_MAX, RECORDS_PER_REQUEST_MAX, Reply,
};
use crate::store::packed::write_shard;

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

/// The error codes of a CreateTopics response, without repetitions.
fn codes(reply: Reply) -> Vec<i16> {
    let Reply::Admin(AdminResponse::CreateTopics(response)) = reply else { panic!("{reply:?}") };
    let mut codes: Vec<i16> = response.topics.iter().map(|topic| topic.error_code).collect();
    codes.dedup();
    codes
}

#[test]
fn a_request_makes_as_many_changes_as_kafka_lets_it() {
    let mut world = world();
    let policy = ErrorCode::PolicyViolation;
    // Each topic with its partition is two changes.
    let (reply, changes) = ask(&mut world, create(names("a", 5_000), 1));
    assert_eq!((codes(reply), changes), (vec![0], 10_000));
    let (reply, changes) = ask(&mut world, create(names("b", 5_001), 1));
    assert!(matches!(reply, Reply::Refused(code, _) if code == policy), "{reply:?}");
    assert_eq!(changes, 0, "all of it or nothing");
    // The limit on partitions is over all topics of a request.
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
            .map(|name| DeleteTopicState { name: Some(name), ..Default::default() })
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
        // Validation alone costs the same.
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

fn reassign(name: &str, partitions: &[(i32, &[i32])]) -> ReassignableTopic {
    let partitions = partitions.iter().map(|(partition_index, replicas)| ReassignablePartition {
        partition_index: *partition_index,
        replicas: Some(replicas.to_vec()),
    });
    ReassignableTopic { name: name.to_owned(), partitions: partitions.collect() }
}

fn reassignments(topics: Vec<ReassignableTopic>) -> AdminRequest {
    AdminRequest::AlterPartitionReassignments(AlterPartitionReassignmentsRequest {
        topics,
        ..Default::default()
    })
}

fn list(topic: &str, partition_indexes: &[i32], times: usize) -> AdminRequest {
    let topic = ListPartitionReassignmentsTopics {
        name: topic.to_owned(),
        partition_indexes: partition_indexes.to_vec(),
    };
    AdminRequest::ListPartitionReassignments(ListPartitionReassignmentsRequest {
        topics: Some(vec![topic; times]),
        ..Default::default()
    })
}

fn elect(topic: &str, partitions: i32, times: usize) -> AdminRequest {
    let topic = TopicPartitions { topic: topic.to_owned(), partitions: (0..partitions).collect() };
    AdminRequest::ElectLeaders(ElectLeadersRequest {
        topic_partitions: Some(vec![topic; times]),
        ..Default::default()
    })
}

#[test]
fn a_topic_that_is_named_without_partitions_counts() {
    let mut world = world();
    ask(&mut world, create(names("a", 1), 1));
    let most = RECORDS_PER_REQUEST_MAX;
    let empty = || reassign("a.0", &[]);
    for (request, is_refused) in [
        (reassignments(vec![empty(); most]), false),
        (reassignments(vec![empty(); most + 1]), true),
        (elect("a.0", 0, most), false),
        (elect("a.0", 0, most + 1), true),
        // The most partitions of one topic that Kafka lets a request change.
        (elect("a.0", 10_000, 1), false),
        (list("a.0", &[], NAMED_TO_LIST_MAX), false),
        (list("a.0", &[], NAMED_TO_LIST_MAX + 1), true),
        (list("a.0", &[0], NAMED_TO_LIST_MAX / 2 + 1), true),
    ] {
        let (reply, _) = ask(&mut world, request);
        assert_eq!(matches!(reply, Reply::Refused(ErrorCode::PolicyViolation, _)), is_refused);
    }
}

#[test]
fn what_is_named_again_and_again_is_looked_at_and_said_once() {
    let mut world = world();
    for id in 1..3 {
        world.play(&format!("register {id} process=1"));
        world.play(&format!("heartbeat {id} ready"));
    }
    world.play("create t on=0");
    let (_, changes) = ask(
        &mut world,
        reassignments(vec![reassign("t", &[(0, &[0, 1])]), reassign("t", &[(0, &[0])])]),
    );
    assert_eq!(
        changes, 2,
        "how many replicas a topic is to have is looked at after all of the request"
    );
    ask(&mut world, reassignments(vec![reassign("t", &[(0, &[2])])]));
    let (reply, _) = ask(&mut world, list("t", &[0, 0, 0], 1_000));
    let Reply::Admin(AdminResponse::ListPartitionReassignments(response)) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(response.topics.len(), 1);
    assert_eq!(response.topics[0].partitions.len(), 1);
}

#[test]
fn a_long_name_is_not_said_again_for_each_partition() {
    let mut world = world();
    let long = "x".repeat(32_000);
    let partitions: Vec<(i32, &[i32])> = (0..100).map(|index| (index, [0].as_slice())).collect();
    let messages = |reply| match reply {
        Reply::Admin(AdminResponse::ElectLeaders(response)) => {
            let results = response
                .replica_election_results
                .into_iter()
                .flat_map(|topic| topic.partition_result);
            results.filter_map(|partition| partition.error_message).collect::<Vec<_>>()
        }
        Reply::Admin(AdminResponse::AlterPartitionReassignments(response)) => {
            let results = response.responses.into_iter().flat_map(|topic| topic.partitions);
            results.filter_map(|partition| partition.error_message).collect()
        }
        other => panic!("{other:?}"),
    };
    for request in [elect(&long, 100, 1), reassignments(vec![reassign(&long, &partitions)])] {
        let messages = messages(ask(&mut world, request).0);
        assert_eq!(messages.len(), 100);
        assert!(messages.iter().all(|message| message.len() < 500));
    }
}

fn incremental(resources: Vec<AlterConfigsResource>) -> AdminRequest {
    AdminRequest::IncrementalAlterConfigs(IncrementalAlterConfigsRequest {
        resources,
        ..Default::default()
    })
}

fn set(
    resource_type: i8,
    resource_name: &str,
    name: &str,
    config_operation: i8,
    value: &str,
) -> AlterConfigsResource {
    AlterConfigsResource {
        resource_type,
        resource_name: resource_name.to_owned(),
        configs: vec![AlterableConfig {
            name: name.to_owned(),
            config_operation,
            value: Some(value.to_owned()),
        }],
    }
}

/// The error codes of an IncrementalAlterConfigs response.
fn altered(reply: Reply) -> Vec<i16> {
    let Reply::Admin(AdminResponse::IncrementalAlterConfigs(response)) = reply else {
        panic!("{reply:?}")
    };
    response.responses.iter().map(|resource| resource.error_code).collect()
}

/// This would take hours if parts were compared pairwise, or if a value too long to keep were
/// parsed.
#[test]
fn a_list_costs_what_its_parts_are() {
    let mut world = world();
    ask(&mut world, create(names("a", 1), 1));
    let pairs: Vec<String> = (0..1_000_000).map(|index| format!("{index}:0")).collect();
    let throttled = "leader.replication.throttled.replicas";
    for operation in [0, 2, 3] {
        let (reply, changes) = ask(
            &mut world,
            incremental(vec![set(2, "a.0", throttled, operation, &pairs.join(","))]),
        );
        assert_eq!((altered(reply), changes), (vec![ErrorCode::InvalidConfig as i16], 0));
    }
    // A value that fits is stored in order, each part once.
    for (operation, value, wanted) in [
        (2, "1:0,0:0,1:0", "1:0,0:0"),
        (2, "2:0, 1:0,3:0", "1:0,0:0,2:0,3:0"),
        (3, "0:0,3:0,9:9", "1:0,2:0"),
    ] {
        let (reply, _) =
            ask(&mut world, incremental(vec![set(2, "a.0", throttled, operation, value)]));
        assert_eq!(altered(reply), [0]);
        let topic = world.state.topic_by_name("a.0").unwrap();
        assert_eq!(
            topic.resource.spec.config.texts().get(throttled).map(String::as_str),
            Some(wanted)
        );
    }
}

/// Settings of groups, brokers and subscriptions are all in the cluster's resource. A request
/// leaves one copy of it among its changes.
#[test]
fn the_cluster_changes_once_in_a_request() {
    let mut world = world();
    let group =
        |index: usize| set(32, &format!("g{index}"), "consumer.session.timeout.ms", 0, "50000");
    let (reply, changes) = ask(&mut world, incremental((0..1_001).map(group).collect()));
    let mut codes = altered(reply);
    assert_eq!((codes.pop(), changes), (Some(ErrorCode::PolicyViolation as i16), 1));
    assert!(codes.iter().all(|code| *code == 0));
    assert_eq!(world.state.cluster.resource.spec.consumer_groups.config.len(), 1_000);
    let (reply, changes) = ask(&mut world, incremental((0..1_000).map(group).collect()));
    assert_eq!(
        (altered(reply), changes),
        (vec![0; 1_000], 0),
        "nothing is changed that is so already"
    );
    // A broker is one resource, however its number is written.
    let broker = |name: &str| set(4, name, "log.cleaner.threads", 0, "2");
    let (reply, _) = ask(&mut world, incremental(vec![broker("0"), broker("00"), broker("+0")]));
    let invalid = ErrorCode::InvalidRequest as i16;
    assert_eq!(altered(reply)[1..], [invalid, invalid]);
}

/// Neither a reassignment nor a manual assignment fills a shard beyond the size of an etcd object.
#[test]
fn what_is_moved_has_room_or_stays() {
    let mut world = World::new();
    for broker in 0..6 {
        world.play(&format!("register {broker} process={}", broker + 1));
        world.play(&format!("heartbeat {broker} ready"));
    }
    // A topic and its partitions make 10,000 changes.
    let mut full = 9_999;
    let topic = CreatableTopic {
        name: "full".to_owned(),
        num_partitions: full,
        replication_factor: 3,
        ..Default::default()
    };
    let create = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    assert_eq!(codes(ask(&mut world, AdminRequest::CreateTopics(create)).0), [0]);
    let grow = |world: &mut World, count: i32, more: usize| {
        let assignments = vec![CreatePartitionsAssignment { broker_ids: vec![0, 1, 2] }; more];
        let topics = vec![CreatePartitionsTopic {
            name: "full".to_owned(),
            count,
            assignments: Some(assignments),
        }];
        let request = CreatePartitionsRequest { topics, ..Default::default() };
        let Reply::Admin(AdminResponse::CreatePartitions(response)) =
            ask(world, AdminRequest::CreatePartitions(request)).0
        else {
            panic!("no answer to CreatePartitions")
        };
        response.results[0].error_code
    };
    let policy = ErrorCode::PolicyViolation as i16;
    assert_eq!(grow(&mut world, full + 2_000, 2_000), policy, "as many as the shard holds");
    assert_eq!(grow(&mut world, full + 900, 900), 0);
    full += 900;

    let mut moved = Vec::new();
    for first in (0..full).step_by(5_000) {
        let partitions = (first..full.min(first + 5_000)).map(|partition_index| {
            let there = &world.state.topic_by_name("full").unwrap().partitions
                [usize::try_from(partition_index).unwrap()]
            .replicas;
            ReassignablePartition {
                partition_index,
                replicas: Some((0..6).filter(|id| !there.contains(&BrokerId(*id))).collect()),
            }
        });
        let request = AlterPartitionReassignmentsRequest {
            topics: vec![ReassignableTopic {
                name: "full".to_owned(),
                partitions: partitions.collect(),
            }],
            ..Default::default()
        };
        let Reply::Admin(AdminResponse::AlterPartitionReassignments(response)) =
            ask(&mut world, AdminRequest::AlterPartitionReassignments(request)).0
        else {
            panic!("no answer to AlterPartitionReassignments")
        };
        moved.extend(response.responses[0].partitions.iter().map(|partition| partition.error_code));
    }
    assert!(moved.contains(&0) && moved.contains(&policy), "some could be moved, not all");
    let topic = world.state.topic_by_name("full").unwrap();
    let partitions =
        (0..).zip(&topic.partitions).map(|(index, partition)| (topic.id, index, partition));
    let text = write_shard(partitions, std::iter::empty(), "n");
    assert!(text.len() < 1_450_000, "{} bytes", text.len());
}
