//! The ledger of one partition: everything ever committed, and by which leader.

use std::collections::BTreeMap;

use weir_operator::controller::state::Partition;
use weir_protocol::types::{BrokerId, TopicId};

use super::{LogOf, Rule};
use crate::log::{Log, Record};

/// The ledger of one partition.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The topic; `None` if there is none.
    topic: Option<TopicId>,
    records: Vec<Record>,
    /// Each producer's last committed sequence, with its offset.
    sequences: BTreeMap<u64, (i64, i64)>,
    /// Some replica has deleted the records before this offset.
    deleted: i64,
    /// A leader has deleted the records before this offset, so no replica needs them. A replica
    /// with other records there, which no leader has corrected, may return with them after a crash.
    /// Apache Kafka does the same (`LeaderEpochFileCache.endOffsetFor` of an epoch before the log's
    /// first).
    trimmed: i64,
    state: Option<Partition>,
    /// The epoch of the last unclean election. Reports of earlier leaders do not count any more.
    unclean_epoch: i32,
    /// The number of allowed losses.
    pub resets: u64,
    /// The newest leadership that has begun, and its start offset.
    begun: Option<(i32, i64)>,
    high_watermarks: BTreeMap<i32, i64>,
    /// The highest high watermark of any leader ever, including leaders that did not know of an
    /// unclean election, and those before a loss.
    highest: i64,
}

impl Ledger {
    /// The ledger of a topic's partition without committed records.
    pub(super) fn of(topic: TopicId) -> Self {
        Self { topic: Some(topic), ..Self::default() }
    }

    /// The topic.
    pub fn topic(&self) -> Option<TopicId> {
        self.topic
    }

    /// The committed records.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Whether this record is committed at an offset; true for offsets that a leader has deleted.
    pub(super) fn knows(&self, offset: i64, record: &Record) -> bool {
        offset < self.trimmed || self.records.get(offset as usize) == Some(record)
    }

    /// A leader has deleted the records before this offset.
    pub fn trimmed(&self) -> i64 {
        self.trimmed
    }

    /// The state in the store.
    pub fn state(&self) -> Option<&Partition> {
        self.state.as_ref()
    }

    pub(super) fn set_state(&mut self, state: Partition) {
        self.state = Some(state);
    }

    /// The leader epoch in the store.
    pub fn leader_epoch(&self) -> i32 {
        self.state.as_ref().map_or(-1, |state| state.leader_epoch.0)
    }

    /// Whether a leader of this epoch may have lost, by an allowed loss, records that it takes for
    /// committed.
    pub fn is_excused(&self, epoch: i32) -> bool {
        epoch < self.unclean_epoch || (self.resets > 0 && epoch < self.leader_epoch())
    }

    /// Where a leader of a later epoch has begun, if one of these replicas leads in it.
    pub fn deposed_at(&self, epoch: i32, replicas: &[BrokerId]) -> Option<i64> {
        let leads = self.state.as_ref().and_then(|state| state.leader);
        leads.filter(|leader| replicas.contains(leader))?;
        self.begun.filter(|(begun, _)| *begun > epoch).map(|(_, start)| start)
    }

    /// Whether a leader may not know a producer's acknowledged records.
    pub fn may_forget_producers(&self) -> bool {
        self.resets > 0 || self.unclean_epoch > 0 || self.deleted > 0
    }

    /// A replica deleted the records before an offset.
    pub(super) fn deleted(&mut self, start: i64) {
        self.deleted = self.deleted.max(start);
    }

    /// The log of the leader of this epoch starts here. If the records before it were lost by an
    /// allowed loss, they are unknown.
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

    /// A process begins to lead, or resumes a leadership, from the high watermark checkpoint.
    pub(super) fn forget_high_watermark(&mut self, epoch: i32) {
        self.high_watermarks.remove(&epoch);
    }

    pub(super) fn began(&mut self, epoch: i32, start: i64) {
        if self.begun.is_none_or(|(newest, _)| newest < epoch) {
            self.begun = Some((epoch, start));
        }
    }

    /// The offset up to which a replica that knows this epoch may delete. It is the end of the
    /// committed records. An excused replica may use the high watermark of some leader instead: one
    /// that lost records by an allowed loss, or one deposed by an unclean election. A follower
    /// trusts such a leader until it meets the new one, as in Apache Kafka
    /// (`UnifiedLog.deletableSegments` uses the replica's own high watermark). Here it also does so
    /// afterwards, until its log diverges from the new leader's.
    pub(super) fn deletable(&self, epoch: i32, leads: bool) -> i64 {
        let may_be_older = !leads && (self.resets > 0 || self.unclean_epoch > 0);
        let committed = self.records.len() as i64;
        if self.is_excused(epoch) || may_be_older { committed.max(self.highest) } else { committed }
    }

    /// Records a leader's high watermark; returns the previous one of this epoch.
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
                // Committed by a previous leader that did not report it.
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
        // A leader that has deleted all records of a producer accepts any sequence.
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

    /// An unclean election was committed. The records that its leader lacks are lost. So are those
    /// that it may still lose with its power before it leads, because a follower vouches only for
    /// flushed records. Records that it has after all when it begins are committed again.
    pub(super) fn unclean(&mut self, log_of: LogOf<'_>) {
        self.unclean_epoch = self.leader_epoch();
        let holds = |id: usize| {
            let log = log_of(id).0;
            // A log that has everything not deleted counts from there; any other log counts from 0.
            let from = if log.end() < self.trimmed { 0 } else { self.trimmed };
            log.agrees_with(&self.records, from).min(log.flushed() as usize)
        };
        let best = self.copies().into_iter().map(holds).max();
        let best = best.unwrap_or_default();
        self.lose_from(best);
        // Lost records do not count as deleted, even if they were below that offset.
        self.trimmed = self.trimmed.min(best as i64);
    }

    /// Whether a leader was elected uncleanly and has not begun yet.
    fn awaits_the_unclean_leader(&self) -> bool {
        self.unclean_epoch == self.leader_epoch()
            && self.begun.is_none_or(|(begun, _)| begun < self.leader_epoch())
    }

    /// A replica gave up its log, because it learned that it had been removed. If it was added
    /// again and elected uncleanly meanwhile, it begins with nothing.
    pub(super) fn given_up(&mut self, own: BrokerId) {
        let leads = self.state.as_ref().and_then(|state| state.leader) == Some(own);
        if leads && self.awaits_the_unclean_leader() {
            self.lose_from(0);
            self.trimmed = 0;
        }
    }

    /// Checks the copies; returns whether records were lost by an allowed loss.
    pub(super) fn look_at_copies(&mut self, log_of: LogOf<'_>) -> Result<bool, String> {
        let copies = self.copies();
        // A replica that was elected uncleanly and does not know it yet still follows its old
        // leader, and loses the records that one lacks.
        let is_awaited = self.awaits_the_unclean_leader();
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
        // No replica is left that is known to have everything. The next election decides the
        // outcome.
        if copies.is_empty() || best == self.records.len() {
            return Ok(false);
        }
        self.lose_from(best);
        Ok(true)
    }

    /// The offset up to which a log has the committed records.
    pub(super) fn holds(&self, log: &Log) -> usize {
        log.agrees_with(&self.records, self.trimmed)
    }

    /// The same as [`Ledger::holds`], but only for the records before an offset.
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
