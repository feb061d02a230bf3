//! PURE: the transaction coordinator: the transactional ids of one partition of
//! `__transaction_state`.
//!
//! A [`StateMachine`] of the coordinators' runtime. A task outside asks it which markers are
//! missing ([`Request::Look`]), writes them to all partitions of the transaction, and reports each
//! ([`Request::Written`]).
//!
//! Invariants
//! - A transaction is decided when the record that prepares its end is committed. The markers
//!   follow until each partition has one, even if coordinators or leaders change meanwhile.
//! - A leader appends the first batch of a transaction only after the coordinator has confirmed,
//!   for that attempt, that the partition is part of it. If a marker reaches the partition
//!   meanwhile, the leader ignores the confirmation.
//! - With transactions v2 every end raises the epoch by one: an end by the producer, by a timeout,
//!   or by another producer with the same id. A producer that is still alive learns of the abort
//!   and goes on.
//! - If the end uses up the epochs, the producer gets another producer id. An end by timeout waits
//!   until the broker has fetched one.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod kept;
mod record;
mod request;
mod state;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_protocol::error::ErrorCode;
use weir_protocol::types::{LeaderEpoch, ProducerEpoch, ProducerId};
use weir_settings::Layers;

pub(crate) use self::request::{Described, Looked, Prepared, Request};
use self::state::{End, Init, Transaction};
pub(crate) use self::state::{Partition, Producer, Refusal, State};
pub(crate) use self::tally::Tally;
use crate::coordinator::{Held, Logged, Memory, Now, Origin, Outcome, Record, StateMachine};
use crate::metadata::MetadataImage;

/// The most transactional ids in one partition; the coordinator refuses to create more. Normal use
/// never reaches it. It stops a client that creates ids in a loop.
const IDS_MAX: usize = 200_000;

/// The settings of transaction coordinators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    /// `transaction.max.timeout.ms`
    timeout_ms_max: i32,
    /// `transactional.id.expiration.ms`
    expiration_ms: i64,
    /// The cluster's level of `transaction.version`.
    version: i16,
}

/// The transactional ids of one partition.
pub(crate) struct Transactions {
    ids: BTreeMap<String, Transaction>,
    /// The ids whose transactions lack markers.
    prepared: BTreeSet<String>,
    /// The time of the next timeout or expiry of each id, on the clock of [`Now::ms`], and the same
    /// time by id.
    due: BTreeSet<(u64, String)>,
    due_at: BTreeMap<String, u64>,
    /// The ids of transactions that timed out, and whose abort needs another producer id.
    exhausted: BTreeSet<String>,
    /// The start times of open transactions.
    open: BTreeSet<(i64, String)>,
    /// The bytes of all transactional ids.
    bytes: usize,
    /// Of those, the bytes of partitions.
    partition_bytes: usize,
    held: Held,
    memory: Memory,
    tally: Tally,
    epoch: LeaderEpoch,
    settings: Settings,
    begun: bool,
}

impl Settings {
    fn of(layers: &Layers<'_>, version: i16) -> Self {
        Self {
            timeout_ms_max: i32::try_from(layers.broker_number("transaction.max.timeout.ms"))
                .unwrap_or(i32::MAX),
            expiration_ms: layers.broker_number("transactional.id.expiration.ms"),
            version,
        }
    }
}

impl StateMachine for Transactions {
    const TOPIC: &'static str = "__transaction_state";

    type Request = Request;

    type Shared = Memory;

    fn new(origin: Origin, memory: &Memory) -> Self {
        Self {
            ids: BTreeMap::new(),
            prepared: BTreeSet::new(),
            due: BTreeSet::new(),
            due_at: BTreeMap::new(),
            exhausted: BTreeSet::new(),
            open: BTreeSet::new(),
            bytes: 0,
            partition_bytes: 0,
            held: memory.hold(),
            memory: memory.clone(),
            tally: Tally::default(),
            epoch: origin.epoch,
            settings: Settings::of(&Layers::default(), 0),
            begun: false,
        }
    }

    fn replay(&mut self, record: &Logged<'_>) -> Result<(), String> {
        match record::read(record)? {
            Some((id, Some(transaction))) => self.keep(id, transaction),
            Some((id, None)) => self.forget(&id),
            None => {}
        }
        Ok(())
    }

    fn end_transaction(&mut self, _producer: ProducerId, _epoch: ProducerEpoch, _committed: bool) {
        // No producer writes to `__transaction_state` in transactions.
    }

    fn metadata(
        &mut self,
        image: &Arc<MetadataImage>,
        layers: &Layers<'_>,
        now: Now,
        _outcome: &mut Outcome,
    ) {
        let level = image.features.get("transaction.version").copied().unwrap_or_default();
        let version = i16::try_from(level).unwrap_or_default();
        let settings = Settings::of(layers, version);
        if std::mem::replace(&mut self.settings, settings) != settings
            || !std::mem::replace(&mut self.begun, true)
        {
            for id in self.ids.keys().cloned().collect::<Vec<_>>() {
                self.plan(&id, now);
            }
        }
    }

    fn writes(request: &Request) -> bool {
        match request {
            Request::Init { .. }
            | Request::Add { .. }
            | Request::Verify { .. }
            | Request::End { .. } => true,
            Request::Written { .. } | Request::TimeOut { .. } => true,
            Request::Look { .. } | Request::Describe { .. } | Request::List { .. } => false,
        }
    }

    fn decide(&mut self, request: Request, now: Now, outcome: &mut Outcome) {
        match request {
            Request::Init { id, timeout_ms, expected, fresh, to } => {
                let result = self.init(id, timeout_ms, expected, fresh, now, outcome);
                self.tally.fenced += u64::from(result == Err(ErrorCode::ProducerFenced.into()));
                outcome.reply(to, result);
            }
            Request::Add { id, from, partitions, version, to } => {
                let result = self.add(&id, from, &partitions, version, now, outcome);
                self.tally.fenced += u64::from(result == Err(ErrorCode::ProducerFenced));
                outcome.reply(to, result.err().unwrap_or(ErrorCode::None));
            }
            Request::Verify { id, from, partitions, to } => {
                let result = self.verify(&id, from, &partitions, outcome);
                self.tally.fenced += u64::from(result == Err(ErrorCode::ProducerFenced));
                outcome.reply(to, result);
            }
            Request::End { id, from, commit, version, fresh, to } => {
                let result = self.end(&id, from, commit, version, fresh, now, outcome);
                self.tally.fenced += u64::from(result == Err(ErrorCode::ProducerFenced.into()));
                outcome.reply(to, result);
            }
            Request::Look { to } => {
                let looked = Looked {
                    prepared: self.prepared(),
                    exhausted: self.exhausted.iter().cloned().collect(),
                    tally: std::mem::take(&mut self.tally),
                    open: self.open.len(),
                    oldest_ms: self.open.first().map(|(start_ms, _)| *start_ms),
                };
                outcome.reply(to, looked);
            }
            Request::Written { id, producer, partitions, to } => {
                self.written(&id, producer, &partitions, now, outcome);
                outcome.reply(to, ());
            }
            Request::TimeOut { id, fresh, to } => {
                if self.exhausted.contains(&id) {
                    self.time_out(&id, Some(fresh), now, outcome);
                }
                outcome.reply(to, ());
            }
            Request::Describe { id, to } => {
                let described = self.ids.get(&id).map(describe);
                outcome.reply(to, described);
            }
            Request::List { to } => {
                let all = self
                    .ids
                    .iter()
                    .map(|(id, transaction)| (id.clone(), describe(transaction)))
                    .collect();
                outcome.reply(to, all);
            }
        }
    }

    fn wake(&mut self, now: Now, outcome: &mut Outcome) {
        while let Some((at, _)) = self.due.first()
            && *at <= now.ms
        {
            let Some((_, id)) = self.due.pop_first() else { return };
            self.due_at.remove(&id);
            let Some(transaction) = self.ids.get(&id) else { continue };
            let is_due = transaction
                .due_ms(self.settings.expiration_ms)
                .is_some_and(|due| due <= now.wall_ms);
            match (is_due, transaction.state) {
                // The deadline has moved, or the two clocks disagree.
                (false, _) => self.plan(&id, now),
                (true, State::Ongoing) => self.time_out(&id, None, now, outcome),
                (true, _) => {
                    self.forget(&id);
                    outcome.records.push(record::record(&id, None));
                }
            }
        }
    }

    fn next_wake(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }
}

/// The record of a transactional id whose producer has reached this epoch and has no open
/// transaction.
pub(crate) fn at_rest(id: &str, producer: Producer, timeout_ms: i32, now_ms: i64) -> Record {
    let transaction = Transaction { producer, ..Transaction::new(producer.id, timeout_ms, now_ms) };
    record::record(id, Some(&transaction))
}

impl Transactions {
    fn known(&self, id: &str) -> Result<&Transaction, ErrorCode> {
        self.ids.get(id).ok_or(ErrorCode::InvalidProducerIdMapping)
    }

    fn init(
        &mut self,
        id: String,
        timeout_ms: i32,
        expected: Option<Producer>,
        fresh: Option<ProducerId>,
        now: Now,
        outcome: &mut Outcome,
    ) -> Result<Producer, Refusal> {
        if !(1..=self.settings.timeout_ms_max).contains(&timeout_ms) {
            return Err(ErrorCode::InvalidTransactionTimeout.into());
        }
        let new;
        let transaction = match self.ids.get(&id) {
            Some(transaction) => transaction,
            None if self.ids.len() >= IDS_MAX || !self.has_room_for(&id, now) => {
                return Err(ErrorCode::PolicyViolation.into());
            }
            None => {
                new = Transaction::new(
                    fresh.ok_or(Refusal::NeedsProducerId)?,
                    timeout_ms,
                    now.wall_ms,
                );
                &new
            }
        };
        match transaction.init(expected, fresh, timeout_ms, self.settings.version, now.wall_ms)? {
            Init::Ready(next) => {
                let producer = next.producer;
                self.put(&id, next, now, outcome);
                Ok(producer)
            }
            Init::Fenced(next) => {
                self.tally.aborted_by_fencing += 1;
                self.put(&id, next, now, outcome);
                Err(ErrorCode::ConcurrentTransactions.into())
            }
        }
    }

    fn add(
        &mut self,
        id: &str,
        from: Producer,
        partitions: &[Partition],
        version: i16,
        now: Now,
        outcome: &mut Outcome,
    ) -> Result<(), ErrorCode> {
        let known = self.known(id)?;
        if let Some(next) = known.add(from, partitions, version, now.wall_ms)? {
            // The partitions of other transactions go when those end.
            let more = next.partition_bytes().saturating_sub(known.partition_bytes());
            if !self.memory.has_room_for_passing(more, now) {
                return Err(ErrorCode::CoordinatorNotAvailable);
            }
            self.put(id, next, now, outcome);
        }
        Ok(())
    }

    /// A leader that gets a positive answer appends to the transaction. So the coordinator writes
    /// the state once more before it answers. A deposed coordinator cannot write, so its outdated
    /// answer never leaves. With transactions v2 a leader adds the partitions instead, and the
    /// epoch identifies the transaction.
    fn verify(
        &self,
        id: &str,
        from: Producer,
        partitions: &[Partition],
        outcome: &mut Outcome,
    ) -> Result<Vec<(Partition, ErrorCode)>, ErrorCode> {
        let transaction = self.known(id)?;
        let verified = transaction.verify(from, partitions)?;
        outcome.records.push(record::record(id, Some(transaction)));
        Ok(verified.into_iter().map(|(partition, code)| (partition.clone(), code)).collect())
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one request")]
    fn end(
        &mut self,
        id: &str,
        from: Producer,
        commit: bool,
        version: i16,
        fresh: Option<ProducerId>,
        now: Now,
        outcome: &mut Outcome,
    ) -> Result<Producer, Refusal> {
        let transaction = self.known(id)?;
        let end = match version {
            2.. => transaction.end_v2(from, commit, fresh, now.wall_ms)?,
            _ => transaction.end_v1(from, commit, now.wall_ms)?,
        };
        match end {
            End::Done => {
                // As in `verify`: without epochs, a deposed coordinator could take the end of this
                // transaction for the end of the previous one.
                if version < 2 {
                    outcome.records.push(record::record(id, Some(transaction)));
                }
                Ok(transaction.producer)
            }
            End::Next(next) => {
                // The producer goes on under the epoch and the id that it has once the transaction
                // is complete.
                let producer = next.completed(now.wall_ms).producer;
                match (transaction.state, commit) {
                    (State::Ongoing, true) => self.tally.committed += 1,
                    (State::Ongoing, false) => self.tally.aborted_by_client += 1,
                    // There was no transaction to abort; the abort only raises the epoch.
                    _ => {}
                }
                self.put(id, next, now, outcome);
                Ok(producer)
            }
        }
    }

    /// Aborts an open transaction. If that uses up the epochs of its producer, the abort waits for
    /// a new producer id ([`Looked::exhausted`]).
    fn time_out(&mut self, id: &str, fresh: Option<ProducerId>, now: Now, outcome: &mut Outcome) {
        let Some(transaction) = self.ids.get(id) else { return };
        match transaction.fenced(self.settings.version, fresh, now.wall_ms) {
            Ok(aborted) => {
                self.tally.aborted_by_timeout += 1;
                self.put(id, aborted, now, outcome);
            }
            Err(_) => drop(self.exhausted.insert(id.to_owned())),
        }
    }

    /// The transactions that lack markers. The reply leaves once that state is committed.
    fn prepared(&self) -> Vec<Prepared> {
        let prepared = self.prepared.iter().filter_map(|id| self.ids.get_key_value(id));
        let prepared = prepared.map(|(id, transaction)| Prepared {
            id: id.clone(),
            producer: transaction.producer,
            commit: transaction.state == State::PrepareCommit,
            version: transaction.client_version,
            coordinator_epoch: self.epoch,
            partitions: transaction.partitions.iter().cloned().collect(),
        });
        prepared.collect()
    }

    fn written(
        &mut self,
        id: &str,
        producer: Producer,
        partitions: &[Partition],
        now: Now,
        outcome: &mut Outcome,
    ) {
        let Some(transaction) = self.ids.get(id) else { return };
        // A late report about another transaction.
        if transaction.producer != producer || !transaction.state.is_prepared() {
            return;
        }
        if self.take_partitions(id, partitions)
            && let Some(transaction) = self.ids.get(id)
        {
            let completed = transaction.completed(now.wall_ms);
            self.put(id, completed, now, outcome);
        }
    }

    /// Writes and keeps the next state. An end without partitions needs no markers, so it is
    /// complete at once.
    fn put(&mut self, id: &str, next: Transaction, now: Now, outcome: &mut Outcome) {
        outcome.records.push(record::record(id, Some(&next)));
        let next = if next.state.is_prepared() && next.partitions.is_empty() {
            let completed = next.completed(now.wall_ms);
            outcome.records.push(record::record(id, Some(&completed)));
            completed
        } else {
            next
        };
        self.keep(id.to_owned(), next);
        self.plan(id, now);
    }

    /// Schedules the next timeout or expiry of a transactional id.
    fn plan(&mut self, id: &str, now: Now) {
        if let Some(at) = self.due_at.remove(id) {
            self.due.remove(&(at, id.to_owned()));
        }
        let due = self
            .ids
            .get(id)
            .and_then(|transaction| transaction.due_ms(self.settings.expiration_ms));
        if let Some(due) = due {
            let at = now
                .ms
                .saturating_add(u64::try_from(due.saturating_sub(now.wall_ms)).unwrap_or(0))
                .max(now.ms + 1);
            self.due.insert((at, id.to_owned()));
            self.due_at.insert(id.to_owned(), at);
        }
    }
}

fn describe(transaction: &Transaction) -> Described {
    Described {
        state: transaction.state,
        producer: transaction.producer,
        timeout_ms: transaction.timeout_ms,
        start_ms: transaction.start_ms,
        partitions: transaction.partitions.iter().cloned().collect(),
    }
}
