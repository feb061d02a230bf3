//! How far a follower is, as its leader knows it (`Replica` and `ReplicaState` in Apache Kafka).
//!
//! Kept by [`super::Leadership`], one for each other replica. Knows one follower, never the ISR.

use weir_protocol::types::{BrokerEpoch, BrokerId};

use crate::replica::core::Peers;

/// What a leader knows of one follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) id: BrokerId,
    /// The epoch under which it fetched last; `None` when it has not fetched in this leader epoch.
    pub(super) broker_epoch: Option<BrokerEpoch>,
    /// Its fetch offset: the end of what it has. Unknown is -1, so that it is waited for.
    pub(super) end: i64,
    /// Where its log starts; -1 when unknown.
    pub(super) log_start: i64,
    /// The leader's end when it fetched last.
    leader_end_at_fetch: i64,
    fetched_at: u64,
    /// The latest time at which it had all that the leader had then; `None`: never in this leader
    /// epoch.
    caught_up_at: Option<u64>,
}

impl Progress {
    /// At the beginning of a leader epoch nothing is known of a follower. A member of the ISR gets
    /// the benefit of the doubt for as long as any lag is tolerated.
    pub(super) fn unknown(id: BrokerId, in_sync: bool, now: u64) -> Self {
        Self {
            id,
            broker_epoch: None,
            end: -1,
            log_start: -1,
            leader_end_at_fetch: -1,
            fetched_at: 0,
            caught_up_at: in_sync.then_some(now),
        }
    }

    /// Takes a fetch up (`Replica.updateFetchState`).
    ///
    /// A fetch that reaches the leader's end shows a follower that is caught up now. One that
    /// reaches the end that the leader had at the fetch before shows a follower that was caught up
    /// then: else one that is always a little behind a busy leader would count as lagging.
    pub(super) fn fetched(
        &mut self,
        broker_epoch: BrokerEpoch,
        offset: i64,
        log_start: i64,
        leader_end: i64,
        now: u64,
    ) {
        if offset >= leader_end {
            self.caught_up_at = self.caught_up_at.max(Some(now));
        } else if self.broker_epoch.is_some() && offset >= self.leader_end_at_fetch {
            self.caught_up_at = self.caught_up_at.max(Some(self.fetched_at));
        }
        self.broker_epoch = Some(broker_epoch);
        self.end = offset;
        self.log_start = log_start;
        self.leader_end_at_fetch = self.leader_end_at_fetch.max(leader_end);
        self.fetched_at = now;
    }

    /// The leader's log has grown from `leader_end` on: a follower that had all of it was caught up
    /// until now.
    pub(super) fn falls_behind(&mut self, leader_end: i64, now: u64) {
        if self.broker_epoch.is_some() && self.end >= leader_end {
            self.caught_up_at = self.caught_up_at.max(Some(now));
        }
    }

    /// When it counts as lagging if it stays as it is; `None`: it has all there is, so that time
    /// does not matter.
    pub(super) fn lags_at(&self, leader_end: i64, lag_ms_max: u64) -> Option<u64> {
        let lags_at =
            || self.caught_up_at.map_or(0, |at| at.saturating_add(lag_ms_max).saturating_add(1));
        (self.end != leader_end).then(lags_at)
    }

    /// Whether it is as far as the leader, or was within the tolerated lag
    /// (`ReplicaState.isCaughtUp`).
    pub(super) fn is_caught_up(&self, leader_end: i64, now: u64, lag_ms_max: u64) -> bool {
        self.lags_at(leader_end, lag_ms_max).is_none_or(|at| now < at)
    }

    /// Whether the controller would let this replica into the ISR, as far as is known here
    /// (`Partition.isReplicaIsrEligible`).
    pub(super) fn is_eligible(&self, peers: Peers<'_>) -> bool {
        peers(self.id).is_some_and(|peer| {
            !peer.fenced && !peer.shutting_down && self.broker_epoch == Some(peer.epoch)
        })
    }

    /// For how long it has not been caught up.
    pub(super) fn lag_ms(&self, now: u64) -> u64 {
        self.caught_up_at.map_or(u64::MAX, |at| now.saturating_sub(at))
    }
}
