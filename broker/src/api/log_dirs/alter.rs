//! AlterReplicaLogDirs (KIP-113): moves partitions between the log directories of a broker. This
//! broker has one, so a partition is there already or cannot move
//! (`ReplicaManager.alterReplicaLogDirs` in Apache Kafka).

use std::collections::BTreeMap;

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use weir_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};
use weir_protocol::types::TopicPartition;

use crate::api::RequestContext;
use crate::api::Services;
use crate::auth::{Operation, Resource};
use crate::metadata::MetadataImage;

/// Answers a request.
pub(crate) fn handle(
    services: &Services,
    cx: &RequestContext,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    if !services.authorizer.allows(&cx.requester, Operation::Alter, Resource::Cluster) {
        return answer(request, |_, _, _| ErrorCode::ClusterAuthorizationFailed);
    }
    let log_dir = services.replicas.log_dir();
    let (path, offline) = (log_dir.path().display().to_string(), log_dir.failure().is_some());
    let image = services.metadata.load();
    let is_here = |id| services.replicas.get(id).is_some();
    answer(request, |wanted, topic, index| {
        if wanted != path {
            ErrorCode::LogDirNotFound
        } else if offline {
            ErrorCode::KafkaStorageError
        } else {
            whereabouts(&image, topic, index, is_here)
        }
    })
}

/// Checks that a partition is in this broker's log directory.
fn whereabouts(
    image: &MetadataImage,
    topic: &str,
    index: i32,
    is_here: impl Fn(TopicPartition) -> bool,
) -> ErrorCode {
    match image.topic_by_name(topic) {
        Some(topic) if topic.partition(index).is_some() => {
            let id = TopicPartition { topic: topic.id, index };
            if is_here(id) { ErrorCode::None } else { ErrorCode::ReplicaNotAvailable }
        }
        _ => ErrorCode::UnknownTopicOrPartition,
    }
}

/// The result of `decide` for each directory, topic and partition. For a repeated partition the
/// last result counts.
fn answer(
    request: AlterReplicaLogDirsRequest,
    decide: impl Fn(&str, &str, i32) -> ErrorCode,
) -> AlterReplicaLogDirsResponse {
    let mut results: BTreeMap<String, BTreeMap<i32, ErrorCode>> = BTreeMap::new();
    for dir in request.dirs {
        for topic in dir.topics {
            let errors = topic
                .partitions
                .into_iter()
                .map(|index| (index, decide(&dir.path, &topic.name, index)));
            let errors: Vec<_> = errors.collect();
            results.entry(topic.name).or_default().extend(errors);
        }
    }
    let topics =
        results.into_iter().map(|(topic_name, partitions)| AlterReplicaLogDirTopicResult {
            topic_name,
            partitions: partitions
                .into_iter()
                .map(|(partition_index, error)| AlterReplicaLogDirPartitionResult {
                    partition_index,
                    error_code: error.code(),
                })
                .collect(),
        });
    AlterReplicaLogDirsResponse { results: topics.collect(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use weir_protocol::api::ApiKey;
    use weir_protocol::messages::alter_replica_log_dirs_request::{
        AlterReplicaLogDir, AlterReplicaLogDirTopic,
    };

    use super::*;
    use crate::api::fixtures::{A, assert_encodes, image};

    #[test]
    fn what_is_here_stays_and_nothing_else_comes() {
        let image = image();
        let here = |id: TopicPartition| id.topic.0 == A && id.index == 0;
        assert_eq!(whereabouts(&image, "a", 0, here), ErrorCode::None);
        assert_eq!(whereabouts(&image, "a", 1, here), ErrorCode::ReplicaNotAvailable);
        for (topic, index) in [("a", 9), ("a", -1), ("z", 0)] {
            assert_eq!(whereabouts(&image, topic, index, here), ErrorCode::UnknownTopicOrPartition);
        }
        let dir = |path: &str, name: &str, partitions: &[i32]| AlterReplicaLogDir {
            path: path.to_owned(),
            topics: vec![AlterReplicaLogDirTopic {
                name: name.to_owned(),
                partitions: partitions.to_vec(),
            }],
        };
        let asked = AlterReplicaLogDirsRequest {
            dirs: vec![
                dir("/other", "b", &[0]),
                dir("/here", "a", &[1, 0]),
                dir("/here", "b", &[0]),
            ],
        };
        let response = answer(asked, |path, _, _| {
            if path == "/here" { ErrorCode::None } else { ErrorCode::LogDirNotFound }
        });
        ApiKey::AlterReplicaLogDirs
            .versions()
            .for_each(|version| assert_encodes(&response, version));
        let told = response.results.iter().flat_map(|topic| {
            topic.partitions.iter().map(|partition| {
                (topic.topic_name.as_str(), partition.partition_index, partition.error_code)
            })
        });
        assert_eq!(told.collect::<Vec<_>>(), [("a", 0, 0), ("a", 1, 0), ("b", 0, 0)]);
    }
}
