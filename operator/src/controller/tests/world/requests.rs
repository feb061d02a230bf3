//! Requests of Kafka clients from the lines of a scenario.

use weir_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use weir_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use weir_protocol::messages::delete_topics_request::DeleteTopicState;
use weir_protocol::messages::{
    AlterConfigsRequest, AlterPartitionReassignmentsRequest, CreatePartitionsRequest,
    CreateTopicsRequest, DeleteTopicsRequest, ElectLeadersRequest, IncrementalAlterConfigsRequest,
    ListPartitionReassignmentsRequest, UnregisterBrokerRequest, UpdateFeaturesRequest,
    alter_configs_request, alter_partition_reassignments_request, elect_leaders_request,
    incremental_alter_configs_request, list_partition_reassignments_request,
    update_features_request,
};

use weir_scenario::EventArgs;

use super::{broker, partitions, settings};
use crate::controller::AdminRequest;

pub(super) fn admin_request(verb: &str, words: &mut EventArgs<'_>) -> AdminRequest {
    let validate_only = words.flag("validate-only");
    match verb {
        "create" => {
            let assignments =
                words.texts("on").into_iter().zip(0..).map(|(brokers, partition_index)| {
                    CreatableReplicaAssignment {
                        partition_index,
                        broker_ids: brokers.split(',').map(|id| id.parse().unwrap()).collect(),
                    }
                });
            let configs = settings(words)
                .into_iter()
                .map(|(name, value)| CreatableTopicConfig { name, value: Some(value) });
            let topic = CreatableTopic {
                num_partitions: words.number("partitions").unwrap_or(-1),
                replication_factor: words.number("replicas").unwrap_or(-1),
                assignments: assignments.collect(),
                configs: configs.collect(),
                ..Default::default()
            };
            let topics = words
                .next()
                .split(',')
                .map(|name| CreatableTopic { name: name.replace("''", ""), ..topic.clone() });
            AdminRequest::CreateTopics(CreateTopicsRequest {
                topics: topics.collect(),
                validate_only,
                ..Default::default()
            })
        }
        "delete" => {
            let topics = words
                .next()
                .split(',')
                .map(|name| DeleteTopicState { name: Some(name.to_owned()), ..Default::default() });
            AdminRequest::DeleteTopics(DeleteTopicsRequest {
                topics: topics.collect(),
                ..Default::default()
            })
        }
        "grow" => {
            let (name, count) = (words.next().to_owned(), words.next_number());
            let topic = CreatePartitionsTopic { name, count, assignments: None };
            AdminRequest::CreatePartitions(CreatePartitionsRequest {
                topics: vec![topic],
                validate_only,
                ..Default::default()
            })
        }
        "elect" => {
            let topic_partitions = partitions(words).map(|(topic, partitions)| {
                elect_leaders_request::TopicPartitions { topic, partitions }
            });
            AdminRequest::ElectLeaders(ElectLeadersRequest {
                election_type: words.number("type").unwrap_or(i8::from(words.flag("unclean"))),
                topic_partitions: (!words.flag("all"))
                    .then(|| topic_partitions.into_iter().collect()),
                ..Default::default()
            })
        }
        "reassign" => {
            let (name, partition_index) = (words.next().to_owned(), words.next_number());
            let ids = |text: &str| {
                text.split(',').filter(|id| !id.is_empty()).map(|id| id.parse().unwrap()).collect()
            };
            let partition = alter_partition_reassignments_request::ReassignablePartition {
                partition_index,
                replicas: words.text("to").map(ids),
            };
            let topic = alter_partition_reassignments_request::ReassignableTopic {
                name,
                partitions: vec![partition],
            };
            AdminRequest::AlterPartitionReassignments(AlterPartitionReassignmentsRequest {
                allow_replication_factor_change: !words.flag("same-size"),
                topics: vec![topic],
                ..Default::default()
            })
        }
        "reassignments" => {
            let topics = partitions(words).map(|(name, partition_indexes)| {
                list_partition_reassignments_request::ListPartitionReassignmentsTopics {
                    name,
                    partition_indexes,
                }
            });
            AdminRequest::ListPartitionReassignments(ListPartitionReassignmentsRequest {
                topics: topics.map(|topic| vec![topic]),
                ..Default::default()
            })
        }
        "unregister" => {
            AdminRequest::UnregisterBroker(UnregisterBrokerRequest { broker_id: broker(words).0 })
        }
        "feature" => {
            let update = update_features_request::FeatureUpdateKey {
                feature: words.next().to_owned(),
                max_version_level: words.next_number(),
                allow_downgrade: words.flag("allow-downgrade"),
                upgrade_type: words.number("type").unwrap_or(1),
            };
            AdminRequest::UpdateFeatures(UpdateFeaturesRequest {
                feature_updates: vec![update],
                validate_only,
                ..Default::default()
            })
        }
        "replace" => {
            let (resource_type, resource_name) = target(words);
            let configs = settings(words).into_iter().map(|(name, value)| {
                alter_configs_request::AlterableConfig { name, value: Some(value) }
            });
            let resource = alter_configs_request::AlterConfigsResource {
                resource_type,
                resource_name,
                configs: configs.collect(),
            };
            AdminRequest::AlterConfigs(AlterConfigsRequest {
                resources: vec![resource],
                validate_only,
            })
        }
        "alter" => {
            let (resource_type, resource_name) = target(words);
            let operations = [("set", 0), ("unset", 1), ("append", 2), ("subtract", 3)];
            let configs = operations.iter().flat_map(|(word, config_operation)| {
                words.texts(word).into_iter().map(|pair| {
                    let (name, value) = pair.split_once(':').unwrap_or((pair, ""));
                    let (name, value) =
                        (name.to_owned(), (*word != "unset").then(|| value.to_owned()));
                    incremental_alter_configs_request::AlterableConfig {
                        name,
                        config_operation: *config_operation,
                        value,
                    }
                })
            });
            let configs = configs.collect();
            let resource = incremental_alter_configs_request::AlterConfigsResource {
                resource_type,
                resource_name,
                configs,
            };
            AdminRequest::IncrementalAlterConfigs(IncrementalAlterConfigsRequest {
                resources: vec![resource],
                validate_only,
            })
        }
        other => words.fail(&format!("there is no event {other:?}")),
    }
}

/// `topic NAME`, `broker ID`, or `brokers` for all of them.
fn target(words: &mut EventArgs<'_>) -> (i8, String) {
    match words.next() {
        "topic" => (2, words.next().replace("''", "")),
        "broker" => (4, words.next().to_owned()),
        "brokers" => (4, String::new()),
        "group" => (32, words.next().replace("''", "")),
        "client-metrics" => (16, words.next().replace("''", "")),
        other => (other.parse().unwrap(), "x".to_owned()),
    }
}
