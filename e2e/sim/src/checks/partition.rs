//! What was ever committed of one partition, and by whom.

use std::collections::BTreeMap;

use weir_operator::controller::state::Partition;
use weir_protocol::types::TopicId;

use super::{LogOf, Rule};
use crate::log::{Log, Record};

/// The ledger of one partition.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Of which topic; `None`: of none that is there.
    topic: Option<TopicId>,
    records: Vec<Record>,
    /// The last sequence of each producer in it, by what is committed, and where it is.
    sequences: BTreeMap<u64, (i64, i64)>,
    /// Some replica has deleted what lies before it.
    deleted: i64,
    /// A leader has: nobody needs to have it any more. Who had another record there, of which
    /// nobody told it that the leader lacks it, may come back with it after a crash, as in Apache
    /// Kafka (`LeaderEpochFileCache.endOffsetFor` of an epoch before the log's first).
    trimmed: i64,
    state: Option<Partition>,
    /// The epoch of the last unclean election: what earlier leaders say does not count any more.
    unclean_epoch: i32,
    /// How often records were lost by right.
    pub resets: u64,
    /// The newest leadership that began, and where.
    begun: Option<(i32, i64)>,
    high_watermarks: BTreeMap<i32, i64>,
    /// The highest high watermark that any leader ever had, also one that did not know of its
    /// uncleanly elected successor, or one before a loss.
    highest: i64,
}

impl Ledger {
    /// The ledger of a topic's partition, of which nothing is committed yet.
    pub(super) fn of(topic: TopicId) -> Self {
        Self { topic: Some(topic), ..Self::default() }
    }

    /// Of which topic it is.
    pub fn topic(&self) -> Option<TopicId> {
        self.topic
    }

    /// What is committed.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Whether this record is committed at an offset, as far as anybody knows.
    pub(super) fn knows(&self, offset: i64, record: &Record) -> bool {
        offset < self.trimmed || self.records.get(offset as usize) == Some(record)
    }

    /// A leader has deleted what lies before it.
    pub fn trimmed(&self) -> i64 {
        self.trimmed
    }

    /// What the store holds.
    pub fn state(&self) -> Option<&Partition> {
        self.state.as_ref()
    }

    pub(super) fn set_state(&mut self, state: Partition) {
        self.state = Some(state);
    }

    /// The leader epoch that the store holds.
    pub fn leader_epoch(&self) -> i32 {
        self.state.as_ref().map_or(-1, |state| state.leader_epoch.0)
    }

    /// Whether a leader of this epoch may be one that lost, by right, what it believes to be
    /// committed.
    pub fn is_excused(&self, epoch: i32) -> bool {
        epoch < self.unclean_epoch || (self.resets > 0 && epoch < self.leader_epoch())
    }

    /// Whether a producer may find that a leader does not know what was acknowledged to it.
    pub fn may_forget_producers(&self) -> bool {
        self.resets > 0 || self.unclean_epoch > 0 || self.deleted > 0
    }

    /// A replica deleted what lies before an offset.
    pub(super) fn deleted(&mut self, start: i64) {
        self.deleted = self.deleted.max(start);
    }

    /// The log of the leader of this epoch begins here. Where what lies before was lost by right,
    /// nobody knows any more what it was.
    pub(super) fn begins_at(&mut self, epoch: i32, start: i64) {
        if self.is_excused(epoch) {
            return;
        }
        self.trimmed = self.trimmed.max(start);
        let start = usize::try_from(start).unwrap_or_default();
        if (self.resets > 0 || self.unclean_epoch > 0) && self.records.len() < start {
            self.records.resize(start, Record::GONE);
        }
    }

    /// A process begins to lead, or goes on with a leadership: with the high watermark that was
    /// written down.
    pub(super) fn forget_high_watermark(&mut self, epoch: i32) {
        self.high_watermarks.remove(&epoch);
    }

    pub(super) fn began(&mut self, epoch: i32, start: i64) {
        if self.begun.is_none_or(|(newest, _)| newest < epoch) {
            self.begun = Some((epoch, start));
        }
    }

    /// Up to where a replica that knows of this epoch may delete: what is committed. Who may be
    /// excused must have it from some leader, at least: from one that lost it by right, or one that
    /// an unclean election has deposed. A follower believes such a one until it has met the new
    /// leader, as in Apache Kafka (`UnifiedLog.deletableSegments` goes by the replica's own high
    /// watermark); here also afterwards, as long as its log does not part from the new leader's.
    pub(super) fn deletable(&self, epoch: i32, leads: bool) -> i64 {
        let may_be_older = !leads && (self.resets > 0 || self.unclean_epoch > 0);
        let committed = self.records.len() as i64;
        if self.is_excused(epoch) || may_be_older { committed.max(self.highest) } else { committed }
    }

    /// Notes a leader's high watermark; what it was before in this epoch.
    pub(super) fn moved(&mut self, epoch: i32, high_watermark: i64) -> Option<i64> {
        self.highest = self.highest.max(high_watermark);
        self.high_watermarks.insert(epoch, high_watermark)
    }

    pub(super) fn commit(
        &mut self,
        epoch: i32,
        offset: i64,
        record: Record,
    ) -> Result<(), (Rule, String)> {
        if epoch < self.unclean_epoch {
            return Ok(());
        }
        let index = offset as usize;
        match self.records.get(index) {
            Some(_) if self.knows(offset, &record) => Ok(()),
            _ if self.is_excused(epoch) => Ok(()),
            Some(known) => {
                Err((Rule::CommittedStays, format!("{known:?} at {offset} became {record:?}")))
            }
            None if index > self.records.len() => {
                // Committed by a predecessor that nobody heard say so.
                Err((
                    Rule::CommittedStays,
                    format!("{record:?} at {offset}, after only {} records", self.records.len()),
                ))
            }
            None => self.push(record),
        }
    }

    fn push(&mut self, record: Record) -> Result<(), (Rule, String)> {
        self.records.push(record);
        if record.sequence < 0 {
            return Ok(());
        }
        let offset = self.records.len() as i64 - 1;
        let before = self.sequences.insert(record.producer, (record.sequence, offset));
        // A leader that has deleted all of a producer takes whatever comes.
        let is_forgotten = before.map_or(self.deleted > 0, |(_, offset)| offset < self.deleted);
        if before.map_or(0, |(before, _)| before + 1) == record.sequence || is_forgotten {
            return Ok(());
        }
        Err((Rule::InOrderAndOnce, format!("{record:?} follows sequence {before:?}")))
    }

    pub(super) fn acknowledge(
        &mut self,
        epoch: i32,
        offset: i64,
        record: &Record,
    ) -> Result<(), (Rule, String)> {
        if self.is_excused(epoch) {
            return Ok(());
        }
        if self.begun.is_some_and(|(begun, start)| begun > epoch && offset >= start) {
            let detail = format!(
                "{record:?} at {offset} by the leader of epoch {epoch}, after {:?}",
                self.begun
            );
            return Err((Rule::DeposedAcknowledgesNothing, detail));
        }
        if !self.knows(offset, record) {
            let detail = format!(
                "{record:?} at {offset} in epoch {epoch}, with {} records",
                self.records.len()
            );
            return Err((Rule::AcknowledgedIsCommitted, detail));
        }
        Ok(())
    }

    /// An unclean election is committed: what its leader lacks is lost, and so is what it may still
    /// lose with its power before it leads: a follower vouches for nothing that it has not flushed.
    /// What is there after all when it begins is committed anew.
    pub(super) fn unclean(&mut self, log_of: LogOf<'_>) {
        self.unclean_epoch = self.leader_epoch();
        let holds = |id: usize| {
            let log = log_of(id).0;
            // One that has all that was not deleted goes on from there; of another all counts.
            let from = if log.end() < self.trimmed { 0 } else { self.trimmed };
            log.agrees_with(&self.records, from).min(log.flushed() as usize)
        };
        let best = self.copies().into_iter().map(holds).max();
        let best = best.unwrap_or_default();
        self.lose_from(best);
        // What is lost was not deleted, though it lay there.
        self.trimmed = self.trimmed.min(best as i64);
    }

    /// Whether records were lost by right.
    pub(super) fn look_at_copies(&mut self, log_of: LogOf<'_>) -> Result<bool, String> {
        let copies = self.copies();
        // Who was elected uncleanly and has not heard of it yet follows whom it followed before,
        // and loses what that one lacks.
        let is_awaited = self.unclean_epoch == self.leader_epoch()
            && self.begun.is_none_or(|(begun, _)| begun < self.leader_epoch());
        let mut best = 0;
        for id in &copies {
            let (log, lost_from) = log_of(*id);
            let has = self.holds(log);
            if has < self.records.len() && lost_from <= has as i64 && !is_awaited {
                let all = self.records.len();
                return Err(format!(
                    "broker {id} holds {has} of {all} committed records, as one of {:?}",
                    self.state
                ));
            }
            best = best.max(has);
        }
        // Nobody is left who is known to have everything. What becomes of that, the next election
        // says.
        if copies.is_empty() || best == self.records.len() {
            return Ok(false);
        }
        self.lose_from(best);
        Ok(true)
    }

    /// Up to which offset a log has what is committed.
    pub(super) fn holds(&self, log: &Log) -> usize {
        log.agrees_with(&self.records, self.trimmed)
    }

    /// As [`Ledger::holds`], of what lies before an offset.
    pub(super) fn holds_before(&self, log: &Log, offset: usize) -> usize {
        log.agrees_with(&self.records[..offset.min(self.records.len())], self.trimmed)
    }

    fn copies(&self) -> Vec<usize> {
        let state = self.state.as_ref();
        state.map_or_else(Vec::new, |state| {
            state.isr.iter().chain(&state.elr).map(|id| id.0 as usize).collect()
        })
    }

    fn lose_from(&mut self, end: usize) {
        if end >= self.records.len() {
            return;
        }
        self.resets += 1;
        self.records.truncate(end);
        self.sequences.clear();
        for (offset, record) in (0..).zip(&self.records) {
            if record.sequence >= 0 {
                self.sequences.insert(record.producer, (record.sequence, offset));
            }
        }
    }
}
