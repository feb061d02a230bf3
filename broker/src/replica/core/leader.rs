//! What the leader of a partition decides in one leader epoch (`Partition` in Apache Kafka 4.2,
//! with KIP-497, KIP-841, KIP-903 and KIP-966).
//!
//! Called by the partition's shell with each fetch of a follower, each step of its own log, each
//! answer of the controller and each new metadata; it answers with a high watermark and, where the
//! ISR should be another, with a [`Proposal`] for the controller. Ends with the leader epoch: a new
//! one begins a new `Leadership`. Never waits, and never believes that a proposal was refused
//! because nothing was heard of it.

mod progress;
mod reading;
#[cfg(test)]
mod tests;

use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch};

use self::progress::Progress;
use super::{Asked, OwnLog, PartitionState, Peers, Proposal};

/// How long to wait before the controller is asked again for what it refused or did not answer, in
/// milliseconds.
pub const PROPOSAL_BACKOFF_MS: u64 = 100;

/// What a leader's settings say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `min.insync.replicas`; a partition with fewer replicas needs all of them.
    pub min_isr: usize,
    /// `replica.lag.time.max.ms`.
    pub lag_ms_max: u64,
}

/// What a leadership begins with.
#[derive(Clone, Debug)]
pub struct Start {
    /// This broker.
    pub own: BrokerId,
    /// The epoch of its registration.
    pub own_epoch: BrokerEpoch,
    /// What the controller has committed.
    pub state: PartitionState,
    /// The end of the log when the leadership began: where its leader epoch starts.
    pub epoch_start: i64,
    /// The high watermark that this broker knew before.
    pub high_watermark: i64,
    /// What a former process of this broker asked for last.
    pub asked: Option<Asked>,
    /// What the settings say.
    pub settings: Settings,
}

/// A follower's fetch, once it is clear that its log agrees with the leader's up to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Who.
    pub replica: BrokerId,
    /// The epoch of its registration.
    pub broker_epoch: BrokerEpoch,
    /// From where: the follower has everything before.
    pub offset: i64,
    /// Where its log starts.
    pub log_start: i64,
}

/// The end of the leader's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The offset after its last record; for a fetch, as it was before the records were read.
    pub end: i64,
    /// The offset up to which it counts as had, by `flush.mode`.
    pub had: i64,
}

impl From<&OwnLog<'_>> for Ends {
    fn from(log: &OwnLog<'_>) -> Self {
        Self { end: log.end, had: log.had }
    }
}

/// What came of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// The high watermark moved: whoever waits for it is to be woken.
    pub advanced: bool,
    /// To be sent to the controller. There is never more than one under way.
    pub proposal: Option<Proposal>,
}

/// Where the ISR stands between this leader and the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Isr {
    /// As committed.
    Committed,
    /// An answer is awaited, or after a failure the time to ask again.
    Proposed { proposal: Proposal, resend_at: Option<u64>, repeated: bool },
    /// The controller knows of a later state: its metadata is awaited
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
    /// The end of the own log, as it was last told.
    own_end: i64,
    high_watermark: i64,
    settings: Settings,
    followers: Vec<Progress>,
    isr: Isr,
    /// Additions that were proposed more than once on this partition epoch and then refused: an
    /// earlier copy may still be on its way to the controller, so they are waited for until the
    /// partition's epoch has moved on. So is what a former process of this broker asked for in this
    /// leader epoch.
    unsettled: Vec<(BrokerId, BrokerEpoch)>,
    /// The newest partition epoch that one of them built on.
    unsettled_base: PartitionEpoch,
    propose_after: u64,
    /// The controller refused a proposal, and the reason may have passed: a follower that has
    /// everything does not fetch again, which would be the occasion to ask again.
    is_refused: bool,
}

impl Leadership {
    /// Begins a leader epoch.
    pub fn begin(start: Start, now: u64) -> Self {
        let (unsettled, unsettled_base) = Asked::unsettled(start.asked, start.own, &start.state);
        let mut leadership = Self {
            own: start.own,
            own_epoch: start.own_epoch,
            unsettled,
            unsettled_base,
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

    /// What is committed, as far as this leader knows.
    pub fn committed(&self) -> &PartitionState {
        &self.committed
    }

    /// The leader epoch.
    pub fn epoch(&self) -> LeaderEpoch {
        self.committed.leader_epoch
    }

    /// Where the leader epoch starts.
    pub fn epoch_start(&self) -> i64 {
        self.epoch_start
    }

    /// The offset after the last committed record.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Everyone that the high watermark waits for: the committed ISR and all who may become members
    /// of it (KIP-497's maximal ISR).
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

    /// Whether the ISR is smaller than its minimum, by what is known here of it or by what the
    /// controller has said: whoever is eligible besides the ISR must not miss anything that is
    /// committed, though the controller has raised the minimum and the leader has not heard of that
    /// yet.
    pub fn is_under_min_isr(&self) -> bool {
        self.committed.isr.len() < self.min_isr() || self.committed.has_eligible
    }

    /// Takes up under which epoch this broker is registered: a registration need not end a
    /// leadership, and the controller asks for the epoch that it knows.
    pub fn registered(&mut self, own_epoch: BrokerEpoch) {
        self.own_epoch = own_epoch;
    }

    /// Takes up other settings.
    pub fn reconfigure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Takes up a follower's fetch that [`Leadership::examine`] found no fault with.
    ///
    /// # Errors
    /// UNKNOWN_LEADER_EPOCH for a broker that is no replica; NOT_LEADER_OR_FOLLOWER for what a
    /// former registration of the broker sent (KIP-903).
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

    /// Takes up that the own log grew or was flushed. Whether the high watermark moved.
    ///
    /// A follower that has everything need not fetch to stay in sync: it falls behind now, however
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

    /// Does what time asks for: removes who lags, adds who has caught up meanwhile, asks again.
    /// Called at the time that [`Leadership::next_check_ms`] names; at any other time it does no
    /// harm.
    pub fn check(&mut self, ends: Ends, peers: Peers<'_>, now: u64) -> Outcome {
        self.is_refused &= now < self.propose_after;
        self.unsettled.retain(|(id, epoch)| peers(*id).is_none_or(|peer| peer.epoch <= *epoch));
        let proposal = match &mut self.isr {
            Isr::Committed => self
                .recover(now)
                .or_else(|| self.shrink(ends.end, now))
                .or_else(|| self.expand(None, ends.end, peers, now))
                .or_else(|| self.settle(now)),
            Isr::Proposed { proposal, resend_at, .. } if resend_at.is_some_and(|at| at <= now) => {
                *resend_at = None;
                Some(proposal.clone())
            }
            Isr::Proposed { .. } | Isr::Outdated(_) => None,
        };
        Outcome { advanced: self.advance(ends, peers, now), proposal }
    }

    /// When to call [`Leadership::check`] at the latest; `None`: time changes nothing, as for a
    /// partition whose followers have everything.
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
                // One that is no member holds the high watermark back for as long as it counts as
                // caught up.
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

    /// Takes up the controller's answer to a proposal: the partition as it is committed, or an
    /// error. An answer to anything but what is awaited now is too late and changes nothing.
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
            // The controller itself said that the state is the one that we know and that nothing
            // was done (`handleAlterPartitionError`). Only what was sent once is certain to be
            // gone, though: an earlier copy that nobody answered may still arrive.
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

    /// Takes up new metadata of the same leader epoch. What is not newer than what is known is
    /// ignored: it may be older than a proposal under way.
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

    /// Whether records may be appended.
    ///
    /// # Errors
    /// NOT_ENOUGH_REPLICAS when they ask for all replicas and the ISR is smaller than its minimum.
    pub fn accepts(&self, acks_all: bool) -> Result<(), ErrorCode> {
        if acks_all && self.is_under_min_isr() {
            return Err(ErrorCode::NotEnoughReplicas);
        }
        Ok(())
    }

    /// Whether all records before `offset` are acknowledged to who asked for all replicas
    /// (`Partition.checkEnoughReplicasReachOffset`).
    ///
    /// # Errors
    /// NOT_ENOUGH_REPLICAS_AFTER_APPEND when they are committed but the ISR has become smaller than
    /// its minimum since.
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

    /// Whether the high watermark waits for this replica as for a member of the ISR.
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
            // One that has just caught up is waited for too, or a busy leader would never let it
            // in.
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

    fn recover(&mut self, now: u64) -> Option<Proposal> {
        let isr = self.committed.recovering.then(|| self.committed.isr.clone())?;
        self.propose(isr, true, now)
    }

    /// `Partition.maybeShrinkIsr`.
    fn shrink(&mut self, end: i64, now: u64) -> Option<Proposal> {
        let lags = |id: &BrokerId| {
            let follower = self.followers.iter().find(|follower| follower.id == *id);
            follower
                .is_some_and(|follower| !follower.is_caught_up(end, now, self.settings.lag_ms_max))
        };
        let isr: Vec<BrokerId> =
            self.committed.isr.iter().copied().filter(|id| !lags(id)).collect();
        (isr.len() < self.committed.isr.len()).then(|| self.propose(isr, false, now))?
    }

    /// `Partition.maybeExpandIsr`: who has all that is committed, and has caught up to this
    /// leader's own records, may join. Without the second, one that lacks what is committed beyond
    /// a high watermark that is still catching up could join and be elected. Who is not `fetching`
    /// right now must be caught up besides: nobody joins who fell silent.
    fn expand(
        &mut self,
        fetching: Option<BrokerId>,
        end: i64,
        peers: Peers<'_>,
        now: u64,
    ) -> Option<Proposal> {
        if self.committed.recovering {
            return None;
        }
        let joins = |follower: &&Progress| {
            !self.committed.isr.contains(&follower.id)
                && follower.end >= self.high_watermark.max(self.epoch_start)
                && follower.is_eligible(peers)
                && (fetching == Some(follower.id)
                    || follower.is_caught_up(end, now, self.settings.lag_ms_max))
        };
        let joining: Vec<BrokerId> =
            self.followers.iter().filter(joins).map(|follower| follower.id).collect();
        (!joining.is_empty())
            .then(|| self.propose([self.committed.isr.as_slice(), &joining].concat(), false, now))?
    }

    /// Asks for the ISR as it is: once that is committed under a new partition epoch, no earlier
    /// proposal can be any more.
    fn settle(&mut self, now: u64) -> Option<Proposal> {
        let isr = (!self.unsettled.is_empty()).then(|| self.committed.isr.clone())?;
        self.propose(isr, false, now)
    }

    fn propose(&mut self, isr: Vec<BrokerId>, recovered: bool, now: u64) -> Option<Proposal> {
        if self.isr != Isr::Committed || now < self.propose_after {
            return None;
        }
        let epoch_of = |id: BrokerId| {
            let follower = self.followers.iter().find(|follower| follower.id == id);
            follower.and_then(|follower| follower.broker_epoch).unwrap_or(BrokerEpoch(-1))
        };
        let with_epoch =
            |id: BrokerId| (id, if id == self.own { self.own_epoch } else { epoch_of(id) });
        let proposal = Proposal {
            base: self.committed.clone(),
            isr: isr.into_iter().map(with_epoch).collect(),
            recovered,
        };
        self.isr = Isr::Proposed { proposal: proposal.clone(), resend_at: None, repeated: false };
        Some(proposal)
    }

    /// Takes up a committed state.
    fn commit(&mut self, state: PartitionState, now: u64) {
        if state.partition_epoch > self.committed.partition_epoch {
            if state.partition_epoch > self.unsettled_base {
                self.unsettled.clear();
            }
        } else {
            // Accepted, and nothing had to be changed. What was proposed before may still come.
            self.propose_after = now.saturating_add(PROPOSAL_BACKOFF_MS);
        }
        self.isr = Isr::Committed;
        self.committed = state;
        self.know_the_replicas(now);
    }

    /// Followers that are replicas no longer are forgotten, new ones begin unknown.
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
