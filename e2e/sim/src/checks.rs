//! The rules, and the checks that find a broken one in a history.
//!
//! The store, the brokers and the clients report events. The checks keep everything ever committed
//! of each partition in a ledger. They decide nothing in the simulated world and share no code with
//! it, because a shared bug would stay invisible.
//!
//! Protected is every record below a high watermark. It is in the log of every member of the
//! committed ISR and of the ELR, except those that lost it with their power or disk. Only when such
//! a fault took the last of them is the loss allowed, and the record leaves the ledger. The same
//! holds when an unclean election is committed and the new leader lacks the record.

mod partition;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use weir_operator::controller::state::Partition;
use weir_protocol::types::{BrokerId, LeaderEpoch, TopicId};

pub use self::partition::Ledger;
pub use self::rule::{LogOf, Rule};
use crate::history::{Tally, Verdict};
use crate::log::{Log, Record};
use crate::message::ReadAnswer;
use crate::plan::{Plan, TopicPlan};

/// Counters, which show that the histories exercise what they should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events.
    pub events: u64,
    /// Faults.
    pub faults: u64,
    /// Records acknowledged with `acks=all`.
    pub acknowledged: u64,
    /// Committed elections.
    pub elections: u64,
    /// Committed ISR changes.
    pub isr_changes: u64,
    /// Completed reassignments that added replicas.
    pub reassigned: u64,
    /// Committed unclean elections.
    pub unclean: u64,
    /// Failed commits.
    pub conflicts: u64,
    /// Allowed losses of committed records.
    pub losses: u64,
    /// Truncations that removed records.
    pub truncations: u64,
    /// Topics created under the name of a deleted one.
    pub renewals: u64,
    /// Deletions of records.
    pub deletions: u64,
    /// Restarts of a follower's log at its leader's log start.
    pub restarts: u64,
    /// Records read by consumers.
    pub read: u64,
    /// Processes that adopted the roles of the previous process without a controller.
    pub resumed: u64,
    /// Records that such processes acknowledged with `acks=all` before a controller sent them
    /// metadata.
    pub resumed_acknowledged: u64,
    /// Metadata that came while a broker closed its logs.
    pub told_too_late: u64,
}

impl Tally for Counts {
    fn add(&mut self, other: &Self) {
        let sums = [
            (&mut self.events, other.events),
            (&mut self.faults, other.faults),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.elections, other.elections),
            (&mut self.isr_changes, other.isr_changes),
            (&mut self.reassigned, other.reassigned),
            (&mut self.unclean, other.unclean),
            (&mut self.conflicts, other.conflicts),
            (&mut self.losses, other.losses),
            (&mut self.truncations, other.truncations),
            (&mut self.renewals, other.renewals),
            (&mut self.deletions, other.deletions),
            (&mut self.restarts, other.restarts),
            (&mut self.read, other.read),
            (&mut self.resumed, other.resumed),
            (&mut self.resumed_acknowledged, other.resumed_acknowledged),
            (&mut self.told_too_late, other.told_too_late),
        ];
        for (sum, count) in sums {
            *sum += count;
        }
    }
}

/// The checks.
#[derive(Debug)]
pub struct Checks {
    /// The result.
    pub verdict: Verdict<Rule>,
    /// The counters.
    pub counts: Counts,
    /// The end of the faults.
    pub faults_end: u64,
    /// Partitions whose copies must be checked after this event.
    pub dirty: Vec<usize>,
    topics: Vec<TopicPlan>,
    ledgers: Vec<Ledger>,
    leaders: BTreeMap<(TopicId, i32), usize>,
    broker_epochs: BTreeMap<i64, (usize, u64)>,
}

impl Checks {
    /// The state before the first event.
    pub fn new(plan: &Plan, only: Option<Rule>) -> Self {
        Self {
            verdict: Verdict::new(only),
            counts: Counts::default(),
            faults_end: plan.faults_end_ms,
            dirty: Vec::new(),
            topics: plan.topics.clone(),
            ledgers: plan.topics.iter().map(|_| Ledger::default()).collect(),
            leaders: BTreeMap::new(),
            broker_epochs: BTreeMap::new(),
        }
    }

    /// The committed records of the partition of the topic that has the name now.
    pub fn ledger(&self, partition: usize) -> &Ledger {
        &self.ledgers[partition]
    }

    /// Whether this topic has the name now. Nothing is checked for a deleted topic.
    fn is_there(&self, partition: usize, topic: TopicId) -> bool {
        self.ledgers[partition].topic() == Some(topic)
    }

    /// Deletes the topics for which `is_gone` holds.
    pub fn gone(&mut self, is_gone: impl Fn(TopicId) -> bool) {
        for ledger in &mut self.ledgers {
            if ledger.topic().is_some_and(&is_gone) {
                *ledger = Ledger::default();
            }
        }
    }

    /// The controller decided on a change.
    pub fn decided(&mut self, partition: usize, before: &Partition, after: &Partition) {
        let Some(leader) = after.leader.filter(|_| after.leader != before.leader) else {
            return;
        };
        if before.isr.contains(&leader) || before.elr.contains(&leader) {
            return;
        }
        // The request that completes a reassignment adds the last replicas to the ISR and removes
        // the old leader. Another rule checks that they have everything.
        if before.is_reassigning()
            && !after.is_reassigning()
            && !after.recovering
            && after.isr.contains(&leader)
        {
            return;
        }
        let allowed = self.topics[partition].unclean
            || before.leader.or(before.last_known_leader) == Some(leader);
        if !(allowed && after.recovering) {
            self.verdict.broken(Rule::ElectedFromIsr, || {
                format!("partition {partition}: {before:?} -> {after:?}")
            });
        }
    }

    /// The controller answered a registration.
    pub fn registered(&mut self, epoch: i64, broker: usize, run: u64) {
        let owner = *self.broker_epochs.entry(epoch).or_insert((broker, run));
        if owner != (broker, run) {
            self.verdict.broken(Rule::BrokerEpochsAreUnique, || {
                format!("broker epoch {epoch} for broker {broker} and for {owner:?}")
            });
        }
    }

    /// A broker begins to lead.
    pub fn began(
        &mut self,
        partition: usize,
        topic: TopicId,
        broker: usize,
        epoch: i32,
        log: &Log,
    ) {
        if !self.is_there(partition, topic) {
            return;
        }
        let owner = *self.leaders.entry((topic, epoch)).or_insert(broker);
        if owner != broker {
            self.verdict.broken(Rule::OneLeaderPerEpoch, || {
                format!("partition {partition}, epoch {epoch}: brokers {owner} and {broker}")
            });
        }
        let ledger = &mut self.ledgers[partition];
        ledger.forget_high_watermark(epoch);
        if epoch != ledger.leader_epoch() {
            return;
        }
        ledger.began(epoch, log.end());
        let (has, all) = (ledger.holds(log), ledger.records().len());
        if has < all {
            self.verdict.broken(Rule::LeadersHaveEverything, || {
                format!("partition {partition}: broker {broker} leads in epoch {epoch} with {has} of {all} committed records")
            });
        }
    }

    /// A leader's high watermark has this value now. It may only advance while the ISR has its
    /// minimum size, as far as the leader knows both.
    pub fn high_watermark(
        &mut self,
        partition: usize,
        topic: TopicId,
        epoch: i32,
        high_watermark: i64,
        may_advance: bool,
        log: &Log,
    ) {
        if !self.is_there(partition, topic) {
            return;
        }
        let ledger = &mut self.ledgers[partition];
        let before = ledger.moved(epoch, high_watermark);
        if before == Some(high_watermark) {
            return;
        }
        if let Some(before) = before.filter(|before| high_watermark < *before) {
            self.verdict.broken(Rule::HighWatermarkIsMonotone, || {
                format!("partition {partition}, epoch {epoch}: from {before} to {high_watermark}")
            });
            return;
        }
        if before.is_some() && !may_advance {
            self.verdict.broken(Rule::NoAdvanceBelowMinIsr, || {
                format!(
                    "partition {partition}, epoch {epoch}: to {high_watermark} with too few in sync"
                )
            });
            return;
        }
        ledger.begins_at(epoch, log.start());
        // A leader also treats the records below its first high watermark as committed.
        let before = before.unwrap_or_else(|| high_watermark.min(ledger.records().len() as i64));
        for offset in before..high_watermark {
            let Some(record) = log.get(offset) else { continue };
            if let Err((rule, detail)) = ledger.commit(epoch, offset, *record) {
                self.verdict.broken(rule, || format!("partition {partition}: {detail}"));
                return;
            }
        }
        self.dirty.push(partition);
    }

    /// A follower treats the records below its high watermark as committed.
    pub fn followed(
        &mut self,
        partition: usize,
        topic: TopicId,
        broker: usize,
        epoch: i32,
        high_watermark: i64,
        log: &Log,
    ) {
        if !self.is_there(partition, topic) {
            return;
        }
        let ledger = &mut self.ledgers[partition];
        if epoch != ledger.leader_epoch() {
            return;
        }
        let below = ledger.records().len().min(high_watermark.max(0) as usize);
        let same = ledger.holds_before(log, below);
        if same < below {
            self.verdict.broken(Rule::LogsAgree, || {
                format!("partition {partition}: broker {broker} differs at {same} below its high watermark {high_watermark}")
            });
        }
    }

    /// A replica, leader or not, deleted the records before an offset in a leader epoch.
    pub fn deleted(
        &mut self,
        partition: usize,
        topic: TopicId,
        epoch: i32,
        start: i64,
        leads: bool,
    ) {
        if !self.is_there(partition, topic) {
            return;
        }
        let ledger = &mut self.ledgers[partition];
        let deletable = ledger.deletable(epoch, leads);
        if start > deletable {
            let committed = ledger.records().len();
            self.verdict.broken(Rule::OnlyCommittedIsDeleted, || {
                format!("partition {partition}: in epoch {epoch} all before {start} is deleted, and {committed} records are committed, or {deletable} as a leader said")
            });
        }
        ledger.deleted(start);
        if leads {
            ledger.begins_at(epoch, start);
        }
        self.dirty.push(partition);
    }

    /// A leader acknowledged a record with `acks=all`. `deposed_at`: it resumed its role where
    /// another leader had begun meanwhile, at this offset. Not even an unclean election excuses
    /// that.
    pub fn acknowledged(
        &mut self,
        partition: usize,
        topic: TopicId,
        epoch: i32,
        (offset, record): (i64, &Record),
        deposed_at: Option<i64>,
    ) {
        if !self.is_there(partition, topic) {
            return;
        }
        self.counts.acknowledged += 1;
        if deposed_at.is_some_and(|start| offset >= start) {
            self.verdict.broken(Rule::DeposedAcknowledgesNothing, || {
                format!("partition {partition}: {record:?} at {offset} by a leader of epoch {epoch} that resumed its role, after another began at {deposed_at:?}")
            });
        }
        if let Err((rule, detail)) = self.ledgers[partition].acknowledge(epoch, offset, record) {
            self.verdict.broken(rule, || format!("partition {partition}: {detail}"));
        }
    }

    /// A consumer read a record.
    pub fn read(
        &mut self,
        partition: usize,
        topic: TopicId,
        epoch: i32,
        offset: i64,
        record: &Record,
    ) {
        if !self.is_there(partition, topic) {
            return;
        }
        self.counts.read += 1;
        let ledger = &self.ledgers[partition];
        if !ledger.is_excused(epoch) && !ledger.knows(offset, record) {
            self.verdict.broken(Rule::SeenIsCommitted, || {
                format!(
                    "partition {partition}: {record:?} at {offset} from the leader of epoch {epoch}"
                )
            });
        }
    }

    /// A leader told a consumer the end of the newest epoch that it knows. If the consumer has
    /// `read` a last record, the leader told it the end of that record's epoch too (KIP-320).
    pub fn epoch_ends(
        &mut self,
        partition: usize,
        topic: TopicId,
        epoch: LeaderEpoch,
        offset: i64,
        read: bool,
        answer: &ReadAnswer,
    ) {
        if !self.is_there(partition, topic) {
            return;
        }
        let known = answer.epoch_end.is_some_and(|end| end.epoch <= epoch);
        let kept = !read || answer.last_epoch_end.is_some_and(|end| end.offset >= offset);
        if !(known && kept) {
            let ends = (answer.epoch_end, answer.last_epoch_end);
            self.verdict.broken(Rule::EpochsHaveEnds, || {
                format!(
                    "partition {partition}: {ends:?} of {epoch} and of the record before {offset}, from the leader of {}",
                    answer.epoch
                )
            });
        }
    }

    /// The store wrote a shard: this is the partition's state now.
    pub fn committed(
        &mut self,
        partition: usize,
        topic: TopicId,
        state: &Partition,
        log_of: LogOf<'_>,
    ) {
        if let Err(broken) = state.check() {
            self.verdict.broken(Rule::StateIsSound, || {
                format!("partition {partition}: {broken}: {state:?}")
            });
        }
        if let Some(leader) = state.leader {
            let (key, broker) = ((topic, state.leader_epoch.0), leader.0 as usize);
            let owner = *self.leaders.entry(key).or_insert(broker);
            if owner != broker {
                self.verdict.broken(Rule::OneLeaderPerEpoch, || {
                    format!("partition {partition}, {state:?}, but it was {owner}")
                });
            }
        }
        if !self.is_there(partition, topic) {
            self.ledgers[partition] = Ledger::of(topic);
        }
        let ledger = &mut self.ledgers[partition];
        let before = ledger.state().cloned();
        if let Some(before) = &before {
            let goes_up = state.partition_epoch > before.partition_epoch
                && (state.leader_epoch > before.leader_epoch
                    || (state.leader_epoch == before.leader_epoch
                        && state.leader == before.leader));
            if state == before {
                return;
            }
            if !goes_up {
                self.verdict.broken(Rule::EpochsOnlyGoUp, || {
                    format!("partition {partition}: {before:?} -> {state:?}")
                });
                return;
            }
            let elected = state.leader.is_some() && state.leader != before.leader;
            self.counts.elections += u64::from(elected);
            self.counts.isr_changes += u64::from(!elected && state.isr != before.isr);
            let added = |id| state.replicas.contains(id) && !state.adding.contains(id);
            let completed = !before.adding.is_empty() && before.adding.iter().all(added);
            self.counts.reassigned += u64::from(completed);
        }
        let ledger = &mut self.ledgers[partition];
        let unclean = state.recovering
            && before.is_none_or(|before| before.leader_epoch != state.leader_epoch);
        ledger.set_state(state.clone());
        if unclean {
            self.counts.unclean += 1;
            ledger.unclean(log_of);
        }
        self.dirty.push(partition);
    }

    /// A replica gave up its log of this topic, because it learned that it had been removed.
    pub fn given_up(&mut self, partition: usize, topic: TopicId, own: BrokerId) {
        if self.is_there(partition, topic) {
            self.ledgers[partition].given_up(own);
        }
    }

    /// Checks the copies of a partition.
    pub fn look_at_copies(&mut self, partition: usize, log_of: LogOf<'_>) {
        match self.ledgers[partition].look_at_copies(log_of) {
            Ok(lost) => self.counts.losses += u64::from(lost),
            Err(detail) => self
                .verdict
                .broken(Rule::InSyncHoldsAll, || format!("partition {partition}: {detail}")),
        }
    }
}
