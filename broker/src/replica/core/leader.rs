//! The decisions of a partition's leader in one leader epoch (`Partition` in Apache Kafka 4.2, with
//! KIP-497, KIP-841, KIP-903 and KIP-966).
//!
//! The partition's shell calls this with each fetch of a follower, each growth or flush of its log,
//! each answer of the controller and all new metadata. It gets a high watermark and, where the ISR
//! should change, a [`Proposal`] for the controller. A new leader epoch begins a new `Leadership`.
//! This module never waits. It never takes a proposal for refused because the controller did not
//! answer.

mod isr;
mod progress;
mod reading;
#[cfg(test)]
mod tests;

use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch};

use self::progress::Progress;
use super::{OwnLog, PartitionState, Peers, Proposal};

/// The pause before a leader repeats a proposal that the controller refused or did not answer, in
/// milliseconds.
pub const PROPOSAL_BACKOFF_MS: u64 = 100;

/// The settings of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `min.insync.replicas`; a partition with fewer replicas needs all of them.
    pub min_isr: usize,
    /// `replica.lag.time.max.ms`.
    pub lag_ms_max: u64,
}

/// The input of a new leadership.
#[derive(Clone, Debug)]
pub struct Start {
    /// This broker's id.
    pub own: BrokerId,
    /// The epoch of its registration.
    pub own_epoch: BrokerEpoch,
    /// The state that the controller has committed.
    pub state: PartitionState,
    /// The log end offset when the leadership began, which is the start of its leader epoch.
    pub epoch_start: i64,
    /// The high watermark that this broker knew before.
    pub high_watermark: i64,
    /// Whether an earlier process of this broker had this role, and no controller has told this
    /// one of it. A replica outside the ISR may have joined it by a proposal of that process, or
    /// have been elected uncleanly while none ran.
    pub resumed: bool,
    /// The settings.
    pub settings: Settings,
}

/// A follower's fetch, after the leader has checked that the follower's log agrees with its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The follower.
    pub replica: BrokerId,
    /// The epoch of its registration.
    pub broker_epoch: BrokerEpoch,
    /// The fetch offset: the follower has all records before it.
    pub offset: i64,
    /// The follower's log start offset.
    pub log_start: i64,
}

/// The ends of the leader's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The offset after its last record; for a fetch, as it was before the records were read.
    pub end: i64,
    /// The end of what this broker has under `flush.mode`: the flushed offset with `group`.
    pub had: i64,
}

impl From<&OwnLog<'_>> for Ends {
    fn from(log: &OwnLog<'_>) -> Self {
        Self { end: log.end, had: log.had }
    }
}

/// The result of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// The high watermark has advanced, so the shell wakes its waiters.
    pub advanced: bool,
    /// The proposal to send to the controller. At most one is under way at a time.
    pub proposal: Option<Proposal>,
}

/// The state of the ISR between this leader and the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Isr {
    /// The committed ISR, without a proposal.
    Committed,
    /// The leader waits for an answer, or until the time to repeat the proposal.
    Proposed { proposal: Proposal, resend_at: Option<u64>, repeated: bool },
    /// The controller knows a later state; the leader waits for its metadata
    /// (`handleAlterPartitionError`).
    Outdated(Proposal),
}

/// A partition that this broker leads, in one leader epoch.
#[derive(Clone, Debug)]
pub struct Leadership {
    own: BrokerId,
    own_epoch: BrokerEpoch,
    committed: PartitionState,
    epoch_start: i64,
    /// The log end offset at the last call of [`Leadership::grew`].
    own_end: i64,
    high_watermark: i64,
    settings: Settings,
    followers: Vec<Progress>,
    isr: Isr,
    /// Additions that were sent more than once on this partition epoch and then refused. An earlier
    /// copy may still reach the controller, so the high watermark waits for them until the
    /// partition epoch has advanced. In a role that no controller has confirmed, the same holds for
    /// all replicas outside the ISR.
    unsettled: Vec<(BrokerId, BrokerEpoch)>,
    /// The newest partition epoch that one of these proposals builds on.
    unsettled_base: PartitionEpoch,
    propose_after: u64,
    /// The controller refused a proposal, perhaps for a reason that has passed. A follower that has
    /// everything does not fetch again, so its next fetch cannot trigger the proposal.
    is_refused: bool,
}

impl Leadership {
    /// Begins a leader epoch.
    pub fn begin(start: Start, now: u64) -> Self {
        // One that was elected does not fetch in this epoch.
        let may_lead =
            |id: &BrokerId| start.resumed && *id != start.own && !start.state.isr.contains(id);
        let others = start.state.replicas.iter().copied().filter(may_lead);
        let mut leadership = Self {
            own: start.own,
            own_epoch: start.own_epoch,
            unsettled: others.map(|id| (id, BrokerEpoch(i64::MAX))).collect(),
            unsettled_base: start.state.partition_epoch,
            committed: start.state,
            epoch_start: start.epoch_start,
            own_end: start.epoch_start,
            high_watermark: start.high_watermark.max(0),
            settings: start.settings,
            followers: Vec::new(),
            isr: Isr::Committed,
            propose_after: 0,
            is_refused: false,
        };
        leadership.know_the_replicas(now);
        leadership
    }

    /// The committed state, as far as this leader knows.
    pub fn committed(&self) -> &PartitionState {
        &self.committed
    }

    /// The leader epoch.
    pub fn epoch(&self) -> LeaderEpoch {
        self.committed.leader_epoch
    }

    /// The start offset of the leader epoch.
    pub fn epoch_start(&self) -> i64 {
        self.epoch_start
    }

    /// The offset after the last committed record.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// The replicas that the high watermark waits for: the committed ISR and all that may join it
    /// (KIP-497's maximal ISR).
    pub fn maximal_isr(&self) -> Vec<BrokerId> {
        let proposed =
            self.proposal().map_or(&[][..], |proposal| &proposal.isr).iter().chain(&self.unsettled);
        let mut maximal = self.committed.isr.clone();
        for (id, _) in proposed {
            if !maximal.contains(id) {
                maximal.push(*id);
            }
        }
        maximal
    }

    /// Whether the ISR is below its minimum, by this leader's settings or by the controller's
    /// state. An eligible replica outside the ISR (KIP-966) must not lack committed records. The
    /// controller may have raised the minimum before the leader knows it.
    pub fn is_under_min_isr(&self) -> bool {
        self.committed.isr.len() < self.min_isr() || self.committed.has_eligible
    }

    /// Takes up the broker epoch of this broker. A new registration need not end a leadership, and
    /// the controller compares a proposal with the epoch that it knows.
    pub fn registered(&mut self, own_epoch: BrokerEpoch) {
        self.own_epoch = own_epoch;
    }

    /// Takes up changed settings.
    pub fn reconfigure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Takes up a follower's fetch that passed [`Leadership::examine`].
    ///
    /// # Errors
    /// UNKNOWN_LEADER_EPOCH for a broker that is no replica; NOT_LEADER_OR_FOLLOWER for a fetch
    /// from a former registration of the broker (KIP-903).
    pub fn fetched(
        &mut self,
        fetch: Fetched,
        ends: Ends,
        peers: Peers<'_>,
        now: u64,
    ) -> Result<Outcome, ErrorCode> {
        let Some(follower) =
            self.followers.iter_mut().find(|follower| follower.id == fetch.replica)
        else {
            return Err(ErrorCode::UnknownLeaderEpoch);
        };
        let newest = follower.broker_epoch.max(peers(fetch.replica).map(|peer| peer.epoch));
        if newest.is_some_and(|newest| fetch.broker_epoch < newest) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        follower.fetched(fetch.broker_epoch, fetch.offset, fetch.log_start, ends.end, now);
        let proposal = self.expand(Some(fetch.replica), ends.end, peers, now);
        Ok(Outcome { advanced: self.advance(ends, peers, now), proposal })
    }

    /// Takes up that the own log grew or was flushed; returns whether the high watermark advanced.
    ///
    /// A follower that has everything need not fetch to stay in sync. Its lag begins now, however
    /// long ago its last fetch was.
    pub fn grew(&mut self, ends: Ends, peers: Peers<'_>, now: u64) -> bool {
        if ends.end > self.own_end {
            for follower in &mut self.followers {
                follower.falls_behind(self.own_end, now);
            }
            self.own_end = ends.end;
        }
        self.advance(ends, peers, now)
    }

    /// Runs the checks that depend on time: removes lagging members, adds followers that have
    /// caught up, repeats proposals. [`Leadership::next_check_ms`] gives the time; a call at
    /// another time is harmless.
    pub fn check(&mut self, ends: Ends, peers: Peers<'_>, now: u64) -> Outcome {
        self.is_refused &= now < self.propose_after;
        self.unsettled.retain(|(id, epoch)| peers(*id).is_none_or(|peer| peer.epoch <= *epoch));
        let proposal = match &mut self.isr {
            Isr::Committed => self
                .recover(now)
                .or_else(|| self.shrink(ends.end, now))
                .or_else(|| self.expand(None, ends.end, peers, now))
                .or_else(|| self.confirm_isr(now)),
            Isr::Proposed { proposal, resend_at, .. } if resend_at.is_some_and(|at| at <= now) => {
                *resend_at = None;
                Some(proposal.clone())
            }
            Isr::Proposed { .. } | Isr::Outdated(_) => None,
        };
        Outcome { advanced: self.advance(ends, peers, now), proposal }
    }

    /// The latest time for [`Leadership::check`]; `None` when time changes nothing, for example if
    /// all followers have everything.
    pub fn next_check_ms(&self, end: i64, now: u64) -> Option<u64> {
        match &self.isr {
            Isr::Proposed { resend_at, .. } => *resend_at,
            Isr::Outdated(_) => None,
            Isr::Committed => {
                let lag = |follower: &Progress| follower.lags_at(end, self.settings.lag_ms_max);
                let members = self
                    .followers
                    .iter()
                    .filter(|follower| self.committed.isr.contains(&follower.id))
                    .filter_map(lag);
                // A replica outside the ISR holds back the high watermark while it counts as caught
                // up.
                let others = self
                    .followers
                    .iter()
                    .filter(|follower| !self.committed.isr.contains(&follower.id));
                let others =
                    others.filter_map(lag).filter(|at| *at > now && self.high_watermark < end);
                let asks =
                    (self.committed.recovering || self.is_refused || !self.unsettled.is_empty())
                        .then_some(0);
                members.chain(asks).map(|at| at.max(self.propose_after)).chain(others).min()
            }
        }
    }

    /// Takes up the controller's answer to a proposal: the committed partition, or an error. An
    /// answer to another proposal than the pending one is late and changes nothing.
    pub fn answered(
        &mut self,
        to: &Proposal,
        answer: Result<PartitionState, ErrorCode>,
        ends: Ends,
        peers: Peers<'_>,
        now: u64,
    ) -> Outcome {
        let Isr::Proposed { proposal, resend_at, repeated } = &mut self.isr else {
            return Outcome::default();
        };
        if proposal != to || resend_at.is_some() {
            return Outcome::default();
        }
        match answer {
            Ok(state)
                if state.leader_epoch == self.committed.leader_epoch
                    && state.partition_epoch >= self.committed.partition_epoch =>
            {
                self.commit(state, now);
            }
            // The controller says that this state is current and that it changed nothing
            // (`handleAlterPartitionError`). That settles only a proposal that was sent once: an
            // earlier, unanswered copy may still arrive.
            Err(ErrorCode::OperationNotAttempted | ErrorCode::IneligibleReplica) => {
                if *repeated {
                    let additions =
                        proposal.isr.iter().filter(|(id, _)| !self.committed.isr.contains(id));
                    self.unsettled.extend(additions);
                    self.unsettled_base = self.unsettled_base.max(proposal.base.partition_epoch);
                }
                self.isr = Isr::Committed;
                self.propose_after = now.saturating_add(PROPOSAL_BACKOFF_MS);
                self.is_refused = true;
            }
            Ok(_)
            | Err(
                ErrorCode::FencedLeaderEpoch
                | ErrorCode::InvalidUpdateVersion
                | ErrorCode::InvalidRequest
                | ErrorCode::NewLeaderElected
                | ErrorCode::UnknownTopicId
                | ErrorCode::UnknownTopicOrPartition,
            ) => self.isr = Isr::Outdated(proposal.clone()),
            Err(_) => {
                *repeated = true;
                *resend_at = Some(now.saturating_add(PROPOSAL_BACKOFF_MS));
            }
        }
        self.check(ends, peers, now)
    }

    /// Takes up new metadata of the same leader epoch. Ignores a partition epoch that is not newer:
    /// it may be older than the pending proposal.
    pub fn updated(
        &mut self,
        state: PartitionState,
        ends: Ends,
        peers: Peers<'_>,
        now: u64,
    ) -> Outcome {
        if state.leader_epoch != self.committed.leader_epoch
            || state.partition_epoch <= self.committed.partition_epoch
        {
            return Outcome::default();
        }
        self.commit(state, now);
        self.check(ends, peers, now)
    }

    /// Checks that records may be appended.
    ///
    /// # Errors
    /// NOT_ENOUGH_REPLICAS for `acks=all` while the ISR is below its minimum.
    pub fn accepts(&self, acks_all: bool) -> Result<(), ErrorCode> {
        if acks_all && self.is_under_min_isr() {
            return Err(ErrorCode::NotEnoughReplicas);
        }
        Ok(())
    }

    /// Whether all records before `offset` are acknowledged under `acks=all`
    /// (`Partition.checkEnoughReplicasReachOffset`).
    ///
    /// # Errors
    /// NOT_ENOUGH_REPLICAS_AFTER_APPEND when they are committed but the ISR has shrunk below its
    /// minimum since.
    pub fn acknowledges(&self, offset: i64) -> Result<bool, ErrorCode> {
        if self.high_watermark < offset {
            return Ok(false);
        }
        if self.maximal_isr().len() < self.min_isr() {
            return Err(ErrorCode::NotEnoughReplicasAfterAppend);
        }
        Ok(true)
    }

    fn min_isr(&self) -> usize {
        self.settings.min_isr.min(self.committed.replicas.len())
    }

    fn proposal(&self) -> Option<&Proposal> {
        match &self.isr {
            Isr::Committed => None,
            Isr::Proposed { proposal, .. } | Isr::Outdated(proposal) => Some(proposal),
        }
    }

    /// Whether the high watermark waits for this replica as a present or possible member of the
    /// ISR.
    fn is_or_may_become_member(&self, id: BrokerId) -> bool {
        let proposed = self
            .proposal()
            .is_some_and(|proposal| proposal.isr.iter().any(|(member, _)| *member == id));
        proposed
            || self.committed.isr.contains(&id)
            || self.unsettled.iter().any(|(member, _)| *member == id)
    }

    /// `Partition.maybeIncrementLeaderHW`.
    fn advance(&mut self, ends: Ends, peers: Peers<'_>, now: u64) -> bool {
        if self.is_under_min_isr() {
            return false;
        }
        let mut committed = ends.had;
        for follower in &self.followers {
            // The high watermark also waits for a follower that has just caught up. Otherwise a
            // busy leader would never let it into the ISR.
            let waits = |follower: &Progress| {
                self.is_or_may_become_member(follower.id)
                    || (follower.is_caught_up(ends.end, now, self.settings.lag_ms_max)
                        && follower.is_eligible(peers))
            };
            if follower.end < committed && waits(follower) {
                committed = follower.end;
            }
        }
        let advanced = committed > self.high_watermark;
        self.high_watermark = self.high_watermark.max(committed);
        advanced
    }

    /// Takes up a committed state.
    fn commit(&mut self, state: PartitionState, now: u64) {
        if state.partition_epoch > self.committed.partition_epoch {
            if state.partition_epoch > self.unsettled_base {
                self.unsettled.clear();
            }
        } else {
            // The controller accepted the proposal without a change. Earlier copies may still
            // arrive.
            self.propose_after = now.saturating_add(PROPOSAL_BACKOFF_MS);
        }
        self.isr = Isr::Committed;
        self.committed = state;
        self.know_the_replicas(now);
    }

    /// Drops followers that are no replicas any more, and adds new ones without known progress.
    fn know_the_replicas(&mut self, now: u64) {
        let Self { committed, followers, own, unsettled, .. } = self;
        let unsettled: Vec<BrokerId> = unsettled.iter().map(|(id, _)| *id).collect();
        let counts = |id: &BrokerId| {
            committed.replicas.contains(id) || committed.isr.contains(id) || unsettled.contains(id)
        };
        followers.retain(|follower| counts(&follower.id));
        for id in committed.replicas.iter().chain(&committed.isr).chain(&unsettled) {
            if id != own && !followers.iter().any(|follower| follower.id == *id) {
                followers.push(Progress::unknown(*id, committed.isr.contains(id), now));
            }
        }
    }
}
