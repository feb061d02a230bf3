//! A snapshot of a partition for metrics.

use std::sync::Arc;

use super::{Core, Partition};
use crate::replica::traffic::TopicTraffic;

/// A partition at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) topic: Arc<str>,
    pub(crate) index: i32,
    pub(crate) size_bytes: u64,
    pub(crate) log_start_offset: i64,
    pub(crate) log_end_offset: i64,
    /// The distance of the log end offset below the high watermark: the committed records that a
    /// follower lacks.
    pub(crate) lag: i64,
    /// The state of the replicas, when this broker leads.
    pub(crate) led: Option<Led>,
}

/// The replicas of a partition that this broker leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Led {
    pub(crate) replicas: usize,
    pub(crate) in_sync: usize,
    pub(crate) min_in_sync: usize,
}

impl Led {
    /// Some replica is not in sync (`UnderReplicatedPartitions`).
    pub(crate) fn is_under_replicated(self) -> bool {
        self.in_sync < self.replicas
    }

    /// Too few replicas are in sync to commit anything (`UnderMinIsrPartitionCount`).
    pub(crate) fn is_under_min_isr(self) -> bool {
        self.in_sync < self.min_in_sync
    }

    /// The loss of one more replica stops all commits (`AtMinIsrPartitionCount`).
    pub(crate) fn is_at_min_isr(self) -> bool {
        self.in_sync == self.min_in_sync
    }
}

impl Partition {
    /// The counters of its topic on this broker.
    pub(crate) fn traffic(&self) -> &TopicTraffic {
        &self.traffic
    }

    /// A snapshot of this partition.
    pub(crate) fn observed(&self) -> Observed {
        let min_in_sync = self.config().insync_replicas_min as usize;
        let led = match &*self.core.lock() {
            Core::Leader(leading) => {
                let state = leading.committed();
                Some(Led {
                    replicas: state.replicas.len(),
                    in_sync: state.isr.len(),
                    // No more replicas than exist can be in sync (`Partition.effectiveMinIsr`).
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
