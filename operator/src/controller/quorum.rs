//! DescribeQuorum: how much of the metadata each broker has applied. The broker that received the
//! request adds who the controller is and its own part.
//!
//! Versions stand for offsets. They count from this controller's takeover, because the versions of
//! two controllers are far apart.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::messages::describe_quorum_response::{PartitionData, ReplicaState, TopicData};
use weir_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};

use super::draft::Draft;
use super::state::{Broker, changes_since_takeover};

pub(super) fn describe(draft: &mut Draft<'_>, _: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let (state, sessions, moment) = (&draft.state, draft.sessions, draft.moment);
    let epoch = state.cluster.controller_epoch;
    let end = changes_since_takeover(epoch, state.version);
    let now_ms = moment.wall.0.as_millisecond();
    let observer = |broker: &Broker| {
        let offset = changes_since_takeover(epoch, sessions.applied(broker.id));
        let heard_at =
            sessions.heard_at(broker.id).map(|at| now_ms - ms(moment.now.0.saturating_sub(at.0)));
        ReplicaState {
            replica_id: broker.id.0,
            log_end_offset: offset,
            last_fetch_timestamp: heard_at.unwrap_or(-1),
            last_caught_up_timestamp: heard_at.filter(|_| offset == end).unwrap_or(-1),
            ..Default::default()
        }
    };
    let partition = PartitionData {
        high_watermark: end,
        observers: state.brokers.values().filter(|broker| !broker.fenced).map(observer).collect(),
        error_message: None,
        ..Default::default()
    };
    DescribeQuorumResponse {
        error_message: None,
        topics: vec![TopicData { partitions: vec![partition], ..Default::default() }],
        ..Default::default()
    }
}

fn ms(elapsed: u64) -> i64 {
    i64::try_from(elapsed).unwrap_or(i64::MAX)
}
