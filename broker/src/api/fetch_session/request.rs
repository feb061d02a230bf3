//! Extracts the session part of a Fetch request.

use indexmap::IndexMap;
use weir_protocol::messages::FetchRequest;
use weir_protocol::types::TopicId;

use super::{Key, PartitionFetch, SessionRequest, TopicRef};

/// The first version that names topics by id.
const BY_ID: i16 = 13;

impl SessionRequest {
    /// The session part of a request.
    pub(crate) fn of(version: i16, request: FetchRequest) -> Self {
        let by_id = version >= BY_ID;
        let name = |name: String, id| {
            if by_id { TopicRef::Id(TopicId(id)) } else { TopicRef::Name(name.into()) }
        };
        // A partition that is named repeatedly is read once, with its last entry.
        let mut wanted = IndexMap::new();
        for topic in request.topics {
            let topic_ref = name(topic.topic, topic.topic_id);
            wanted.extend(topic.partitions.into_iter().map(|partition| {
                let wish = PartitionFetch {
                    fetch_offset: partition.fetch_offset,
                    max_bytes: partition.partition_max_bytes,
                    current_leader_epoch: partition.current_leader_epoch,
                    last_fetched_epoch: partition.last_fetched_epoch,
                };
                (Key { topic: topic_ref.clone(), index: partition.partition }, wish)
            }));
        }
        let mut forgotten = Vec::new();
        for topic in request.forgotten_topics_data {
            let topic_ref = name(topic.topic, topic.topic_id);
            forgotten.extend(
                topic.partitions.into_iter().map(|index| Key { topic: topic_ref.clone(), index }),
            );
        }
        // Versions before sessions use none.
        let (id, epoch) =
            if version >= 7 { (request.session_id, request.session_epoch) } else { (0, -1) };
        Self { id, epoch, by_id, wanted: wanted.into_iter().collect(), forgotten }
    }
}
