//! DescribeLogDirs: the size of this broker's partitions, and the space on its disk (KIP-113,
//! KIP-827).

mod alter;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use weir_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};

pub(crate) use self::alter::handle as handle_alter;
use super::RequestContext;
use crate::api::Services;
use crate::auth::{Authorizer, Operation, Resource};
use crate::replica::Partition;

/// The log directory at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LogDirDescription {
    /// Its path.
    path: String,
    /// It accepts no writes any more; the response then omits its partitions.
    is_offline: bool,
    /// The size of its volume in bytes; -1 when unknown.
    total_bytes: i64,
    /// The free space on its volume in bytes; -1 when unknown.
    usable_bytes: i64,
    /// The partitions in it.
    partitions: Vec<LogDirPartition>,
}

/// A partition in the log directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LogDirPartition {
    /// The topic's name.
    topic: Arc<str>,
    /// The partition's index in it.
    index: i32,
    /// The size of its segments in bytes.
    size_bytes: i64,
    /// How far its log end offset is behind the high watermark, 0 if it is not.
    offset_lag: i64,
}

/// Answers a request.
pub(crate) fn handle(
    services: &Services,
    cx: &RequestContext,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    describe(&services.authorizer, cx, &request, || describe_log_dir(services))
}

/// The log directory and all its partitions at this moment.
fn describe_log_dir(services: &Services) -> LogDirDescription {
    let log_dir = services.replicas.log_dir();
    let bytes = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
    let (total_bytes, usable_bytes) =
        log_dir.space().map_or((-1, -1), |(total, usable)| (bytes(total), bytes(usable)));
    let partition = |partition: Arc<Partition>| LogDirPartition {
        topic: Arc::clone(partition.topic()),
        index: partition.id().index,
        size_bytes: bytes(partition.log().size_bytes()),
        offset_lag: (partition.high_watermark() - partition.log().log_end_offset()).max(0),
    };
    LogDirDescription {
        path: log_dir.path().display().to_string(),
        is_offline: log_dir.failure().is_some(),
        total_bytes,
        usable_bytes,
        partitions: services.replicas.all().into_iter().map(partition).collect(),
    }
}

fn describe(
    authorizer: &Authorizer,
    cx: &RequestContext,
    request: &DescribeLogDirsRequest,
    log_dir: impl FnOnce() -> LogDirDescription,
) -> DescribeLogDirsResponse {
    if !authorizer.allows(&cx.requester, Operation::Describe, Resource::Cluster) {
        return DescribeLogDirsResponse {
            error_code: ErrorCode::ClusterAuthorizationFailed.code(),
            ..Default::default()
        };
    }
    let asked: Option<BTreeSet<(&str, i32)>> = request.topics.as_ref().map(|topics| {
        let partitions = topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|index| (topic.topic.as_str(), *index)));
        partitions.collect()
    });
    let log_dir = log_dir();
    let mut topics: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    let told = if log_dir.is_offline { &[] } else { log_dir.partitions.as_slice() };
    for partition in told.iter().filter(|partition| {
        asked.as_ref().is_none_or(|asked| asked.contains(&(&*partition.topic, partition.index)))
    }) {
        topics.entry(&partition.topic).or_default().push(DescribeLogDirsPartition {
            partition_index: partition.index,
            partition_size: partition.size_bytes,
            offset_lag: partition.offset_lag,
            is_future_key: false,
        });
    }
    let result = DescribeLogDirsResult {
        error_code: if log_dir.is_offline { ErrorCode::KafkaStorageError } else { ErrorCode::None }
            .code(),
        log_dir: log_dir.path.clone(),
        topics: topics
            .into_iter()
            .map(|(name, partitions)| DescribeLogDirsTopic { name: name.to_owned(), partitions })
            .collect(),
        total_bytes: log_dir.total_bytes,
        usable_bytes: log_dir.usable_bytes,
        ..Default::default()
    };
    DescribeLogDirsResponse { results: vec![result], ..Default::default() }
}

#[cfg(test)]
mod tests {
    use weir_protocol::api::ApiKey;
    use weir_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;

    use super::*;
    use crate::api::fixtures::{assert_encodes, everyone, nobody, request};

    fn log_dir(is_offline: bool) -> LogDirDescription {
        let partition = |topic: &str, index| LogDirPartition {
            topic: topic.into(),
            index,
            size_bytes: 10,
            offset_lag: 0,
        };
        let partitions = vec![partition("a", 0), partition("b", 0), partition("a", 1)];
        LogDirDescription {
            path: "/d".to_owned(),
            is_offline,
            total_bytes: 100,
            usable_bytes: 50,
            partitions,
        }
    }

    #[test]
    fn all_some_or_nothing() {
        let some = |partitions: &[i32]| {
            Some(vec![DescribableLogDirTopic {
                topic: "a".to_owned(),
                partitions: partitions.to_vec(),
            }])
        };
        let rows = [
            (None, false, 0, vec!["a:0,1", "b:0"]),
            (some(&[1, 9]), false, 0, vec!["a:1"]),
            (Some(vec![]), false, 0, vec![]),
            (None, true, ErrorCode::KafkaStorageError.code(), vec![]),
        ];
        for (topics, offline, error, expected) in rows {
            let response =
                describe(&everyone(), &request(4), &DescribeLogDirsRequest { topics }, || {
                    log_dir(offline)
                });
            ApiKey::DescribeLogDirs
                .versions()
                .for_each(|version| assert_encodes(&response, version));
            let result = &response.results[0];
            assert_eq!(
                (response.error_code, result.error_code, result.total_bytes, result.usable_bytes),
                (0, error, 100, 50)
            );
            let shown = result.topics.iter().map(|topic| {
                let indexes: Vec<_> = topic
                    .partitions
                    .iter()
                    .map(|partition| partition.partition_index.to_string())
                    .collect();
                format!("{}:{}", topic.name, indexes.join(","))
            });
            assert_eq!(shown.collect::<Vec<_>>(), expected);
        }
        let denied = describe(&nobody(), &request(4), &DescribeLogDirsRequest::default(), || {
            unreachable!("nothing is read for those who may not see it")
        });
        assert_eq!(
            (denied.error_code, denied.results.len()),
            (ErrorCode::ClusterAuthorizationFailed.code(), 0)
        );
    }
}
