//! A partition on a broker: a minimal I/O shell around the real replication cores.
//!
//! The leader's part is here and in `leading`, the follower's in `following`.

mod following;
mod leading;

use weir_broker::replica::core::leader::Ends;
use weir_broker::replica::core::{
    FetchFrom, FollowerState, Leadership, PartitionState, Peer, Proposal, Settings, Start,
};
use weir_operator::controller::state::{Partition, State};
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, TopicId};

use crate::ctx::{BrokerAlarm, Ctx};
use crate::log::{Log, Record};
use crate::message::{AskOffsets, Body, Node};
use crate::mutation::Mutation;
use crate::plan::{LAG_MS_MAX, Plan};

/// The role of a replica.
#[derive(Debug)]
enum Role {
    Idle,
    Leader(Box<Leadership>),
    Follower(FollowerState),
}

/// A replica, for the life of its process.
#[derive(Debug)]
pub(super) struct Replica {
    role: Role,
    high_watermark: i64,
    /// `min.insync.replicas`, as this broker knows it.
    min_isr: usize,
    /// The epochs of the newest known state.
    known: (LeaderEpoch, PartitionEpoch),
    parked: Vec<Parked>,
    /// The pending call to the controller.
    call: Option<(u64, Proposal)>,
    fetching: Option<(u64, FetchFrom)>,
    /// The pending request for the leader's offsets. The follower does nothing else meanwhile.
    asking: Option<u64>,
    checks_at: Option<u64>,
    flushing: bool,
    calls: u64,
    /// From where on another leader had begun when this leadership was resumed, and nothing was
    /// committed.
    deposed_at: Option<i64>,
}

/// A waiting Produce request.
#[derive(Clone, Copy, Debug)]
struct Parked {
    client: Node,
    request: u64,
    offset: i64,
    acks_all: bool,
}

/// A replica's access to its broker.
pub(super) struct Around<'a, 'c> {
    pub(super) id: usize,
    pub(super) run: u64,
    pub(super) partition: usize,
    pub(super) topic: TopicId,
    pub(super) epoch: BrokerEpoch,
    pub(super) image: &'a State,
    /// An operator has sent metadata to this process.
    pub(super) is_told: bool,
    /// The operator of the current session.
    pub(super) operator: Option<usize>,
    pub(super) log: &'a mut Log,
    pub(super) ctx: &'a mut Ctx<'c>,
}

impl Around<'_, '_> {
    fn own(&self) -> BrokerId {
        BrokerId(self.id as i32)
    }

    /// The partition's `min.insync.replicas` in the metadata.
    fn min_isr(&self) -> usize {
        let topic = self.image.topics.get(&self.topic);
        let text = topic.and_then(|topic| self.image.topic_setting(topic, "min.insync.replicas"));
        text.and_then(|text| text.parse().ok()).unwrap_or(1)
    }

    /// A broker in the metadata.
    fn registered(&self, id: BrokerId) -> Option<Peer> {
        self.image.brokers.get(&id).map(|broker| Peer {
            epoch: broker.epoch,
            fenced: broker.fenced,
            shutting_down: broker.shutting_down,
        })
    }

    /// The same, as the leader core gets it.
    fn peer(&self, id: BrokerId) -> Option<Peer> {
        let peer = self.registered(id)?;
        let epoch = if self.ctx.plan.has(Mutation::BelievesOldFetches) {
            BrokerEpoch(0)
        } else {
            peer.epoch
        };
        Some(Peer { epoch, ..peer })
    }

    fn send(&mut self, to: Node, body: Body) {
        self.ctx.send(Node::Broker(self.id), to, body);
    }

    fn alarm(&mut self, after: u64, alarm: BrokerAlarm) {
        self.ctx.broker_alarm(after, alarm);
    }

    /// The offset up to which the replica counts as having the log.
    fn had(&self) -> i64 {
        if self.ctx.plan.group_flush && !self.ctx.plan.has(Mutation::CountsUnflushed) {
            self.log.flushed()
        } else {
            self.log.end()
        }
    }

    fn ends(&self) -> Ends {
        Ends { end: self.log.end(), had: self.had() }
    }
}

fn settings(min_isr: usize, around: &Around<'_, '_>) -> Settings {
    Settings {
        min_isr: if around.ctx.plan.has(Mutation::IgnoresMinIsr) { 1 } else { min_isr },
        lag_ms_max: LAG_MS_MAX,
    }
}

fn state_of(partition: &Partition, plan: &Plan) -> PartitionState {
    PartitionState {
        replicas: partition.replicas.clone(),
        isr: partition.isr.clone(),
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        recovering: partition.recovering,
        has_eligible: !partition.elr.is_empty() && !plan.has(Mutation::OverlooksTheEligible),
    }
}

impl Replica {
    pub(super) fn new(high_watermark: i64) -> Self {
        Self {
            role: Role::Idle,
            high_watermark,
            min_isr: 1,
            known: (LeaderEpoch(-1), PartitionEpoch(-1)),
            parked: Vec::new(),
            call: None,
            fetching: None,
            asking: None,
            checks_at: None,
            flushing: false,
            calls: 0,
            deposed_at: None,
        }
    }

    /// A replica of another topic in the same process. The numbers of calls continue, so that it
    /// takes no answer meant for the old one.
    pub(super) fn anew(&self) -> Self {
        Self { calls: self.calls, ..Self::new(0) }
    }

    /// Its topic is deleted, or another topic has its name.
    pub(super) fn leave(&mut self, around: &mut Around<'_, '_>) {
        self.step_down(around);
    }

    pub(super) fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Adopts its role in new metadata. A state that is not newer changes nothing, but the brokers
    /// may have changed.
    pub(super) fn take_up(&mut self, state: &Partition, around: &mut Around<'_, '_>) {
        // Settings come first, as in `Replicas::take_up`.
        self.configure(around);
        let epochs = (state.leader_epoch, state.partition_epoch);
        if epochs > self.known {
            let same_leader = state.leader_epoch == self.known.0;
            self.known = epochs;
            match &mut self.role {
                _ if !state.replicas.contains(&around.own()) => {
                    self.step_down(around);
                    self.high_watermark = 0;
                    *around.log = Log::default();
                    around.ctx.checks.given_up(around.partition, around.topic, around.own());
                }
                Role::Leader(leadership) if same_leader => {
                    let outcome = leadership.updated(
                        state_of(state, around.ctx.plan),
                        around.ends(),
                        &|id| around.peer(id),
                        around.ctx.now,
                    );
                    self.led(outcome, around);
                    if around.ctx.plan.has(Mutation::HighWatermarkGoesBack) {
                        self.begin_again(state, around);
                    }
                    return;
                }
                Role::Follower(_) if same_leader => {}
                _ if state.leader == Some(around.own()) => {
                    self.step_down(around);
                    self.begin_to_lead(state, around);
                    return;
                }
                _ => {
                    self.step_down(around);
                    if let Some(leader) = state.leader {
                        self.begin_to_follow(leader, state.leader_epoch, around);
                    }
                }
            }
        }
        self.check(around);
    }

    fn step_down(&mut self, around: &mut Around<'_, '_>) {
        self.role = Role::Idle;
        self.call = None;
        (self.fetching, self.asking) = (None, None);
        for parked in std::mem::take(&mut self.parked) {
            around.send(
                parked.client,
                Body::Produced(parked.request, self.known.0, Err(ErrorCode::NotLeaderOrFollower)),
            );
        }
    }

    fn configure(&mut self, around: &Around<'_, '_>) {
        let min_isr = around.min_isr();
        if std::mem::replace(&mut self.min_isr, min_isr) != min_isr
            && let Role::Leader(leadership) = &mut self.role
            && !around.ctx.plan.has(Mutation::KeepsOldMinIsr)
        {
            leadership.reconfigure(settings(min_isr, around));
        }
    }

    fn start(&self, state: &Partition, high_watermark: i64, around: &Around<'_, '_>) -> Start {
        Start {
            own: around.own(),
            own_epoch: around.epoch,
            state: state_of(state, around.ctx.plan),
            epoch_start: around.log.end(),
            high_watermark,
            resumed: !around.is_told && !around.ctx.plan.has(Mutation::TrustsItsOldRole),
            settings: settings(self.min_isr, around),
        }
    }

    fn begin_to_lead(&mut self, state: &Partition, around: &mut Around<'_, '_>) {
        let epoch = state.leader_epoch;
        around.ctx.trace(|| {
            format!(
                "broker {} leads {} from {} on: {state:?}",
                around.id,
                around.partition,
                around.log.end()
            )
        });
        let ledger = around.ctx.checks.ledger(around.partition);
        // What the previous process had committed itself is not this one's.
        self.deposed_at = ledger
            .deposed_at(epoch.0, &state.replicas)
            .map(|start| start.max(self.high_watermark.min(around.log.end())));
        if !around.ctx.plan.has(Mutation::BeginsNoEpoch) {
            around.log.begin_epoch(epoch);
        }
        let leadership = Leadership::begin(
            self.start(state, self.high_watermark.min(around.log.end()), around),
            around.ctx.now,
        );
        around.ctx.checks.began(around.partition, around.topic, around.id, epoch.0, around.log);
        let high_watermark = leadership.high_watermark();
        around.ctx.checks.high_watermark(
            around.partition,
            around.topic,
            epoch.0,
            high_watermark,
            true,
            around.log,
        );
        self.role = Role::Leader(Box::new(leadership));
        self.request_flush(around);
        self.check(around);
    }

    fn begin_again(&mut self, state: &Partition, around: &mut Around<'_, '_>) {
        self.role =
            Role::Leader(Box::new(Leadership::begin(self.start(state, 0, around), around.ctx.now)));
        self.check(around);
    }

    fn request_flush(&mut self, around: &mut Around<'_, '_>) {
        if around.ctx.plan.group_flush && !self.flushing && around.log.flushed() < around.log.end()
        {
            self.flushing = true;
            let takes = around.ctx.rng.between(1, 8);
            around.alarm(takes, BrokerAlarm::Flush(around.partition));
        }
    }

    /// Handles the end of a flush.
    pub(super) fn flushed(&mut self, around: &mut Around<'_, '_>) {
        self.flushing = false;
        around.log.flush();
        match &mut self.role {
            Role::Idle => {}
            Role::Leader(_) => self.grew(around),
            Role::Follower(_) => {
                self.step(around);
                self.fetch(around);
            }
        }
    }

    /// Answers a follower's request for the start and the end of the log.
    pub(super) fn tell_offsets(&mut self, to: Node, ask: AskOffsets, around: &mut Around<'_, '_>) {
        if let Role::Leader(leadership) = &self.role
            && leadership.epoch() == ask.epoch
        {
            let (start, end) = (around.log.start(), around.log.end());
            around.send(to, Body::Offsets(ask, start, end));
        }
    }

    /// Retention deletes some of the committed records.
    pub(super) fn retain(&mut self, around: &mut Around<'_, '_>) {
        let (start, committed) = (around.log.start(), self.high_watermark);
        if committed > start {
            let start = around.ctx.rng.between(start as u64, committed as u64) as i64;
            self.delete_before(start, around);
        }
    }

    /// Handles DeleteRecords.
    pub(super) fn delete(&mut self, before: Option<i64>, around: &mut Around<'_, '_>) {
        if matches!(self.role, Role::Leader(_)) {
            let committed = if around.ctx.plan.has(Mutation::DeletesUncommitted) {
                around.log.end()
            } else {
                self.high_watermark
            };
            let start = before.unwrap_or(committed);
            if start <= committed {
                self.delete_before(start, around);
            }
        }
    }

    fn delete_before(&mut self, start: i64, around: &mut Around<'_, '_>) {
        if around.log.delete_before(start) {
            around.ctx.trace(|| {
                format!("broker {} deletes {} before {start}", around.id, around.partition)
            });
            around.ctx.checks.counts.deletions += 1;
            let leads = matches!(self.role, Role::Leader(_));
            around.ctx.checks.deleted(around.partition, around.topic, self.known.0.0, start, leads);
        }
    }
}

/// The record that a leader of this epoch appends for a request.
fn record_of(epoch: LeaderEpoch, produce: &crate::message::Produce) -> Record {
    Record { epoch, producer: produce.producer, sequence: produce.sequence, value: produce.value }
}
