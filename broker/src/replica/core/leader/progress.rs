//! A follower's progress, as its leader knows it (`Replica` and `ReplicaState` in Apache Kafka).
//!
//! [`super::Leadership`] keeps one for each other replica. This module knows one follower, never
//! the ISR.

use weir_protocol::types::{BrokerEpoch, BrokerId};

use crate::replica::core::Peers;

/// The leader's knowledge of one follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) id: BrokerId,
    /// The broker epoch of its last fetch; `None` before its first fetch in this leader epoch.
    pub(super) broker_epoch: Option<BrokerEpoch>,
    /// Its fetch offset, the end of its log. -1 while unknown, so that the high watermark waits for
    /// it.
    pub(super) end: i64,
    /// Its log start offset; -1 while unknown.
    pub(super) log_start: i64,
    /// The leader's log end offset at its last fetch.
    leader_end_at_fetch: i64,
    fetched_at: u64,
    /// The latest time at which it had all records of the leader; `None`: never in this leader
    /// epoch.
    caught_up_at: Option<u64>,
}

impl Progress {
    /// The progress of a follower at the start of a leader epoch. A member of the ISR counts as
    /// caught up until the largest tolerated lag has passed.
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

    /// Takes up a fetch (`Replica.updateFetchState`).
    ///
    /// A fetch at the leader's end shows that the follower is caught up now. A fetch at the end
    /// that the leader had at the previous fetch shows that it was caught up then. Without the
    /// second rule, a follower always a little behind a busy leader would count as lagging.
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

    /// Takes up that the leader's log grew beyond `leader_end`. A follower that had all of it was
    /// caught up until now.
    pub(super) fn falls_behind(&mut self, leader_end: i64, now: u64) {
        if self.broker_epoch.is_some() && self.end >= leader_end {
            self.caught_up_at = self.caught_up_at.max(Some(now));
        }
    }

    /// The time from which it lags if it does not fetch; `None` when it has everything.
    pub(super) fn lags_at(&self, leader_end: i64, lag_ms_max: u64) -> Option<u64> {
        let lags_at =
            || self.caught_up_at.map_or(0, |at| at.saturating_add(lag_ms_max).saturating_add(1));
        (self.end != leader_end).then(lags_at)
    }

    /// Whether it has reached the leader's end now, or within the tolerated lag
    /// (`ReplicaState.isCaughtUp`).
    pub(super) fn is_caught_up(&self, leader_end: i64, now: u64, lag_ms_max: u64) -> bool {
        self.lags_at(leader_end, lag_ms_max).is_none_or(|at| now < at)
    }

    /// Whether the controller would accept this replica into the ISR, as far as this broker knows
    /// (`Partition.isReplicaIsrEligible`).
    pub(super) fn is_eligible(&self, peers: Peers<'_>) -> bool {
        peers(self.id).is_some_and(|peer| {
            !peer.fenced && !peer.shutting_down && self.broker_epoch == Some(peer.epoch)
        })
    }

    /// Milliseconds since it was last caught up.
    pub(super) fn lag_ms(&self, now: u64) -> u64 {
        self.caught_up_at.map_or(u64::MAX, |at| now.saturating_sub(at))
    }
}
