//! DescribeTopicPartitions: topics and their partitions, a page at a time (KIP-966). Java's
//! `describeTopics` uses it first.

use std::collections::BTreeSet;

use uuid::Uuid;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use weir_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};

use super::{RequestContext, configs, metadata, topic_name};
use crate::api::Services;
use crate::auth::{Authorizer, Operation, Resource};
use crate::metadata::{MetadataImage, PartitionImage, TopicImage};

/// Answers a request.
pub(crate) fn handle(
    services: &Services,
    cx: &RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let image = services.metadata.load();
    let limit = configs::number(&image, services.config.id, "max.request.partition.size.limit");
    describe(&image, &services.authorizer, cx, &request, usize::try_from(limit).unwrap_or(1))
}

/// The requested page, of at most `limit` partitions (`DescribeTopicPartitionsRequestHandler`).
fn describe(
    image: &MetadataImage,
    authorizer: &Authorizer,
    cx: &RequestContext,
    request: &DescribeTopicPartitionsRequest,
    limit: usize,
) -> DescribeTopicPartitionsResponse {
    let (from, from_partition) = request
        .cursor
        .as_ref()
        .map_or(("", 0), |cursor| (cursor.topic_name.as_str(), cursor.partition_index));
    let asked: BTreeSet<&str> = request.topics.iter().map(|topic| topic.name.as_str()).collect();
    let cursor_is_lost = !asked.is_empty() && !from.is_empty() && !asked.contains(from);
    let Ok(from_partition) = usize::try_from(from_partition)
        .map_err(drop)
        .and_then(|index| if cursor_is_lost { Err(()) } else { Ok(index) })
    else {
        let refused = asked.iter().map(|name| error_topic(ErrorCode::InvalidRequest, name));
        return DescribeTopicPartitionsResponse { topics: refused.collect(), ..Default::default() };
    };
    let names: Box<dyn Iterator<Item = &str>> = match asked.is_empty() {
        true => Box::new(image.topics_from(from).map(|topic| &*topic.name)),
        false => Box::new(asked.range(from..).copied()),
    };
    let may_describe =
        |name: &str| authorizer.allows(&cx.requester, Operation::Describe, Resource::Topic(name));
    let mut page = Page {
        left: usize::try_from(request.response_partition_limit).unwrap_or(1).clamp(1, limit.max(1)),
        response: DescribeTopicPartitionsResponse::default(),
    };
    let mut unauthorized = Vec::new();
    for name in names {
        if !may_describe(name) {
            // A request for all topics leaves out those that the caller may not describe.
            if !asked.is_empty() {
                unauthorized.push(error_topic(ErrorCode::TopicAuthorizationFailed, name));
            }
        } else if page.is_full() {
            page.end_before(name);
            if asked.is_empty() {
                break;
            }
        } else {
            let first = if name == from { from_partition } else { 0 };
            match image.topic_by_name(name) {
                Some(topic) => page.add(image, authorizer, cx, topic, first),
                None if topic_name::check(name).is_err() => {
                    page.response.topics.push(error_topic(ErrorCode::InvalidTopicException, name))
                }
                None => {
                    page.response.topics.push(error_topic(ErrorCode::UnknownTopicOrPartition, name))
                }
            }
        }
    }
    page.response.topics.append(&mut unauthorized);
    page.response
}

/// The answer so far, and the number of partitions that still fit.
struct Page {
    left: usize,
    response: DescribeTopicPartitionsResponse,
}

impl Page {
    fn is_full(&self) -> bool {
        self.left == 0
    }

    /// Sets the cursor to this topic, unless it is set already.
    fn end_before(&mut self, name: &str) {
        self.response
            .next_cursor
            .get_or_insert_with(|| Cursor { topic_name: name.to_owned(), ..Default::default() });
    }

    fn add(
        &mut self,
        image: &MetadataImage,
        authorizer: &Authorizer,
        cx: &RequestContext,
        topic: &TopicImage,
        first: usize,
    ) {
        let rest = topic.partitions.get(first..).unwrap_or_default();
        let partitions: Vec<_> = rest
            .iter()
            .zip(first..)
            .take(self.left)
            .map(|(partition, index)| describe_partition(image, cx, partition, index))
            .collect();
        self.left -= partitions.len();
        if partitions.len() < rest.len() {
            let next = i32::try_from(first + partitions.len()).unwrap_or(i32::MAX);
            self.response.next_cursor =
                Some(Cursor { topic_name: topic.name.to_string(), partition_index: next });
        }
        self.response.topics.push(DescribeTopicPartitionsResponseTopic {
            name: Some(topic.name.to_string()),
            topic_id: topic.id.0,
            is_internal: topic.internal,
            partitions,
            topic_authorized_operations: metadata::topic_operations(
                authorizer,
                cx,
                true,
                &topic.name,
            ),
            ..Default::default()
        });
    }
}

fn describe_partition(
    image: &MetadataImage,
    cx: &RequestContext,
    partition: &PartitionImage,
    index: usize,
) -> DescribeTopicPartitionsResponsePartition {
    let (leader_id, error) = metadata::leader(image, cx, partition, true);
    let ids = |brokers: &[weir_protocol::types::BrokerId]| {
        brokers.iter().map(|id| id.0).collect::<Vec<_>>()
    };
    DescribeTopicPartitionsResponsePartition {
        error_code: error.code(),
        partition_index: i32::try_from(index).unwrap_or(i32::MAX),
        leader_id,
        leader_epoch: partition.leader_epoch.0,
        replica_nodes: ids(&partition.replicas),
        isr_nodes: ids(&partition.isr),
        eligible_leader_replicas: Some(ids(&partition.elr)),
        last_known_elr: Some(Vec::new()),
        offline_replicas: metadata::offline_replicas(image, cx, partition),
    }
}

fn error_topic(error: ErrorCode, name: &str) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(name.to_owned()),
        topic_id: Uuid::nil(),
        is_internal: topic_name::is_internal(name),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use weir_protocol::messages::describe_topic_partitions_request::{
        Cursor as From, TopicRequest,
    };

    use super::*;
    use crate::api::fixtures::{assert_encodes, everyone, image, nobody, request};

    fn ask(
        topics: &[&str],
        limit: i32,
        cursor: Option<(&str, i32)>,
    ) -> DescribeTopicPartitionsRequest {
        DescribeTopicPartitionsRequest {
            topics: topics.iter().map(|name| TopicRequest { name: (*name).to_owned() }).collect(),
            response_partition_limit: limit,
            cursor: cursor
                .map(|(name, index)| From { topic_name: name.to_owned(), partition_index: index }),
        }
    }

    /// Formats each topic as `name:error:partitions`, and the cursor as `name:index`.
    fn shown(
        authorizer: &Authorizer,
        request_body: &DescribeTopicPartitionsRequest,
        limit: usize,
    ) -> (String, String) {
        let response = describe(&image(), authorizer, &request(0), request_body, limit);
        assert_encodes(&response, 0);
        let topic = |topic: &DescribeTopicPartitionsResponseTopic| {
            let indexes: Vec<_> = topic
                .partitions
                .iter()
                .map(|partition| partition.partition_index.to_string())
                .collect();
            format!("{}:{}:{}", topic.name.as_deref().unwrap(), topic.error_code, indexes.join(","))
        };
        let cursor = response.next_cursor.as_ref().map_or(String::new(), |cursor| {
            format!("{}:{}", cursor.topic_name, cursor.partition_index)
        });
        (response.topics.iter().map(topic).collect::<Vec<_>>().join(" "), cursor)
    }

    #[test]
    fn pages() {
        let rows = [
            (ask(&[], 2000, None), 2000, "__consumer_offsets:0:0 a:0:0,1,2 b:0:0", ""),
            (ask(&[], 2, None), 2000, "__consumer_offsets:0:0 a:0:0", "a:1"),
            (ask(&[], 2, Some(("a", 1))), 2000, "a:0:1,2", "b:0"),
            (ask(&[], 2, Some(("b", 0))), 2000, "b:0:0", ""),
            (ask(&[], 2000, None), 1, "__consumer_offsets:0:0", "a:0"),
            (ask(&[], -5, None), 2000, "__consumer_offsets:0:0", "a:0"),
            (
                ask(&["b", "a", "none", "no/name"], 2000, None),
                2000,
                "a:0:0,1,2 b:0:0 no/name:17: none:3:",
                "",
            ),
            (ask(&["b", "a"], 3, None), 2000, "a:0:0,1,2", "b:0"),
            // The topic of the cursor was deleted in between, or the cursor is invalid.
            (ask(&["b", "aa"], 3, Some(("aa", 2))), 2000, "aa:3: b:0:0", ""),
            (ask(&["b"], 3, Some(("a", 0))), 2000, "b:42:", ""),
            (ask(&["b"], 3, Some(("b", -1))), 2000, "b:42:", ""),
            (ask(&["b"], 3, Some(("b", 9))), 2000, "b:0:", ""),
        ];
        for (request, limit, topics, cursor) in rows {
            assert_eq!(
                shown(&everyone(), &request, limit),
                (topics.to_owned(), cursor.to_owned()),
                "{request:?}"
            );
        }
    }

    #[test]
    fn what_may_not_be_seen_is_not() {
        assert_eq!(shown(&nobody(), &ask(&[], 9, None), 9), (String::new(), String::new()));
        assert_eq!(shown(&nobody(), &ask(&["a", "none"], 9, None), 9).0, "a:29: none:29:");
    }
}
