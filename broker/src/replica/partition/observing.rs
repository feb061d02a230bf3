//! What a partition looks like from outside, for metrics.

use std::sync::Arc;

use super::{Core, Partition};
use crate::replica::traffic::TopicTraffic;

/// A partition as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) topic: Arc<str>,
    pub(crate) index: i32,
    pub(crate) size_bytes: u64,
    pub(crate) log_start_offset: i64,
    pub(crate) log_end_offset: i64,
    /// How far the log's end lies behind the high watermark: what a follower lacks of what is
    /// committed.
    pub(crate) lag: i64,
    /// Of a leader: how it is replicated.
    pub(crate) led: Option<Led>,
}

/// How a partition that this broker leads is replicated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Led {
    pub(crate) replicas: usize,
    pub(crate) in_sync: usize,
    pub(crate) min_in_sync: usize,
}

impl Led {
    /// A replica is not in sync (`UnderReplicatedPartitions`).
    pub(crate) fn is_under_replicated(self) -> bool {
        self.in_sync < self.replicas
    }

    /// Nothing is committed (`UnderMinIsrPartitionCount`).
    pub(crate) fn is_under_min_isr(self) -> bool {
        self.in_sync < self.min_in_sync
    }

    /// With one replica less nothing would be (`AtMinIsrPartitionCount`).
    pub(crate) fn is_at_min_isr(self) -> bool {
        self.in_sync == self.min_in_sync
    }
}

impl Partition {
    /// What goes in and out of its topic here.
    pub(crate) fn traffic(&self) -> &TopicTraffic {
        &self.traffic
    }

    /// What it looks like now.
    pub(crate) fn observed(&self) -> Observed {
        let min_in_sync = self.config().insync_replicas_min as usize;
        let led = match &*self.core.lock() {
            Core::Leader(leading) => {
                let state = leading.committed();
                Some(Led {
                    replicas: state.replicas.len(),
                    in_sync: state.isr.len(),
                    // More than there are replicas cannot be in sync (`Partition.effectiveMinIsr`).
                    min_in_sync: min_in_sync.min(state.replicas.len()),
                })
            }
            Core::Idle | Core::Follower(_) => None,
        };
        Observed {
            topic: Arc::clone(self.topic()),
            index: self.id().index,
            size_bytes: self.log.size_bytes(),
            log_start_offset: self.log.log_start_offset(),
            log_end_offset: self.log.log_end_offset(),
            lag: (self.high_watermark() - self.log.log_end_offset()).max(0),
            led,
        }
    }
}
