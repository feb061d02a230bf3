//! A chain's client (consume, transform, produce). It copies inputs to all partitions in
//! transactions that also commit its offset, as clients of both versions of transactions do.

use std::collections::BTreeMap;
use std::ops::Range;

use weir_broker::sim_api::{Ask, Producer};
use weir_protocol::error::ErrorCode;
use weir_protocol::types::ProducerId;

use super::checks::{Checks, Rule};
use super::message::{Asker, Body, From, Reply, Role, Value, What, Write};
use super::plan::{Plan, TIMEOUT_MS};
use crate::rng::Rng;

/// The timeout of a request, and the pause after an error.
const ANSWER_MS_MAX: u64 = 250;
const PAUSE_MS: u64 = 8;

/// Transactions that a client must commit after the faults.
const LAST_COMMITS: u32 = 3;

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Init,
    FetchOffset,
    AddPartitions,
    AddOffsets,
    /// The nth record of the transaction.
    Produce(usize),
    CommitOffset,
    End(bool),
}

/// A process of a chain's client.
#[derive(Debug)]
pub struct Client {
    /// The chain.
    pub chain: usize,
    /// The number of this process in the chain.
    pub process: u64,
    /// A fatal error has ended it.
    pub is_dead: bool,
    version: i16,
    producer: Option<Producer>,
    /// It needs a new epoch because an old request may still be in flight.
    needs_epoch: bool,
    position: Option<i64>,
    sequences: BTreeMap<usize, i32>,
    step: Step,
    inputs: Range<i64>,
    attempt: Option<u64>,
    request: u64,
    waits_until: u64,
    is_waiting: bool,
    last_commits: u32,
    /// The committed offset when it asked for its own.
    committed_before: i64,
    /// The request that got it its epoch.
    begun_by: u64,
    /// Its epoch is over, and it aborts.
    is_outdated: bool,
}

impl Client {
    /// A new process.
    pub fn new(chain: usize, process: u64, plan: &Plan) -> Self {
        Self {
            chain,
            process,
            is_dead: false,
            version: plan.versions[chain],
            producer: None,
            needs_epoch: false,
            position: None,
            sequences: BTreeMap::new(),
            step: Step::Init,
            inputs: 0..0,
            attempt: None,
            request: 0,
            waits_until: 0,
            is_waiting: false,
            last_commits: 0,
            committed_before: 0,
            begun_by: 0,
            is_outdated: false,
        }
    }

    /// Whether it has done its part after the faults.
    pub fn is_done(&self) -> bool {
        self.last_commits >= LAST_COMMITS && self.attempt.is_none()
    }

    /// Whether it has an open transaction, and whether it uses the last epoch that a client may
    /// have.
    pub fn is_open(&self) -> (bool, bool) {
        let is_last = self.producer.is_some_and(|producer| producer.1.0 == i16::MAX - 1);
        let is_inside =
            matches!(self.step, Step::Produce(nth) if nth > 0) || self.step == Step::CommitOffset;
        (self.attempt.is_some() && is_inside, is_last)
    }

    /// Whether it sent `write`, has an answer to it, and still uses the same epoch, while another
    /// copy is in flight.
    pub fn has_an_answer_to(&self, write: &Write) -> bool {
        let is_answered = write.from.request < self.request && !self.needs_epoch;
        !self.is_dead
            && (self.chain, self.process) == (write.from.chain, write.from.process)
            && self.producer == Some(write.producer)
            && is_answered
    }

    /// It is killed or cannot continue.
    pub fn die(&mut self, checks: &mut Checks) {
        if !std::mem::replace(&mut self.is_dead, true) && self.attempt.is_some() {
            checks.counts.unknown += 1;
        }
    }

    /// Its next message, if any, and the receiver.
    pub fn act(
        &mut self,
        now: u64,
        plan: &Plan,
        rng: &mut Rng,
        checks: &mut Checks,
    ) -> Option<(Role, Body)> {
        if self.is_dead || now < self.waits_until || (now >= plan.faults_end_ms && self.is_done()) {
            return None;
        }
        if std::mem::take(&mut self.is_waiting)
            && self.version < 2
            && matches!(self.step, Step::Produce(_) | Step::CommitOffset)
        {
            // The record may still arrive. Before KIP-890 only a new epoch separates it from the
            // next transaction.
            (self.needs_epoch, self.step) = (true, Step::End(false));
        }
        if self.attempt.is_none() && matches!(self.step, Step::AddPartitions | Step::Produce(_)) {
            let from = self.position.unwrap_or(0);
            self.inputs = from..from + rng.between(1, 2) as i64;
            self.attempt = Some(checks.begins(self.chain, self.inputs.clone()));
        }
        if self.step == Step::End(true) && rng.chance(plan.aborts) && self.request.is_multiple_of(2)
        {
            self.step = Step::End(false);
        }
        let is_open = self.attempt.is_some()
            && matches!(self.step, Step::Produce(_) | Step::CommitOffset | Step::End(_));
        if is_open && now < plan.faults_end_ms && rng.chance(plan.naps) {
            self.waits_until = now + rng.between(TIMEOUT_MS as u64 + 50, 2 * TIMEOUT_MS as u64);
            return None;
        }
        if self.step == Step::FetchOffset {
            self.committed_before = checks.committed(self.chain);
        }
        self.request += 1;
        self.is_waiting = true;
        self.waits_until = now + ANSWER_MS_MAX;
        Some(self.message(plan))
    }

    fn message(&self, plan: &Plan) -> (Role, Body) {
        let from = From { chain: self.chain, process: self.process, request: self.request };
        let nobody = (ProducerId(-1), weir_protocol::types::ProducerEpoch(-1));
        let producer = self.producer.unwrap_or(nobody);
        let ask = |ask| (Role::Coordinator, Body::Ask(Asker::Client(from), self.chain, ask));
        let write = |role, what| {
            let write = Write { from, producer, version: self.version, what };
            (role, Body::Write(write))
        };
        match self.step {
            Step::Init => ask(Ask::Init {
                expected: self.producer,
                fresh: ProducerId(-1),
                timeout_ms: TIMEOUT_MS,
            }),
            Step::FetchOffset => (Role::Offsets, Body::FetchOffset(from)),
            Step::AddPartitions => ask(Ask::Add {
                from: producer,
                partitions: (0..plan.partitions)
                    .map(|index| Role::Data(index).partition())
                    .collect(),
                version: self.version,
            }),
            Step::AddOffsets => ask(Ask::Add {
                from: producer,
                partitions: vec![Role::Offsets.partition()],
                version: self.version,
            }),
            Step::Produce(nth) => {
                let partition = nth % plan.partitions;
                let value = Value {
                    chain: self.chain,
                    index: self.inputs.start + (nth / plan.partitions) as i64,
                    attempt: self.attempt.unwrap_or(0),
                };
                let sequence = self.sequences.get(&partition).copied().unwrap_or(0);
                write(Role::Data(partition), What::Record(value, sequence))
            }
            Step::CommitOffset => write(Role::Offsets, What::Offset(self.inputs.end)),
            Step::End(commit) => ask(Ask::End {
                from: producer,
                commit,
                version: self.version,
                fresh: ProducerId(-1),
            }),
        }
    }

    /// Handles an answer.
    pub fn receive(
        &mut self,
        from: From,
        reply: Reply,
        now: u64,
        plan: &Plan,
        checks: &mut Checks,
    ) {
        if self.is_dead || !self.is_waiting || from.request != self.request {
            return;
        }
        self.is_waiting = false;
        self.waits_until = now;
        let result = match reply {
            Reply::Producer(result, leads) => {
                let is_abort = self.version >= 2 && self.step == Step::End(false);
                if is_abort
                    && leads
                    && self.position.is_some()
                    && let Err(code) = result
                    && is_fencing(code)
                {
                    checks.is_fenced(self.chain, (self.process, self.begun_by), code.name());
                }
                result.map(|producer| self.is_told(producer, now, plan, checks))
            }
            Reply::Offset(result) => result.map(|offset| {
                checks.finds(self.chain, offset, self.committed_before);
                self.position = Some(offset);
                self.step = self.first_step();
            }),
            Reply::Code(ErrorCode::None) => {
                self.goes_on(plan);
                Ok(())
            }
            Reply::Code(code) => Err(code),
        };
        if let Err(code) = result {
            self.fails(code, now, checks);
        }
    }

    fn first_step(&self) -> Step {
        if self.version >= 2 { Step::Produce(0) } else { Step::AddPartitions }
    }

    fn is_told(&mut self, producer: Producer, now: u64, plan: &Plan, checks: &mut Checks) {
        if let Step::End(commit) = self.step {
            if commit {
                self.position = Some(self.inputs.end);
                self.last_commits += u32::from(now >= plan.faults_end_ms);
            }
            if let Some(attempt) = self.attempt.take() {
                checks.told(attempt, commit);
            }
            if self.version >= 2 {
                checks.counts.outlived += u64::from(std::mem::take(&mut self.is_outdated));
                checks.counts.renewed +=
                    u64::from(self.producer.is_some_and(|before| before.0 != producer.0));
                self.begins_epoch(producer);
            }
            self.step = if self.needs_epoch { Step::Init } else { self.first_step() };
        } else {
            checks.fences(self.chain, producer);
            self.begun_by = self.request;
            self.begins_epoch(producer);
            self.needs_epoch = false;
            self.step = if self.position.is_some() { self.first_step() } else { Step::FetchOffset };
        }
    }

    fn begins_epoch(&mut self, producer: Producer) {
        self.producer = Some(producer);
        self.sequences.clear();
    }

    fn goes_on(&mut self, plan: &Plan) {
        self.step = match self.step {
            Step::AddPartitions => Step::AddOffsets,
            Step::AddOffsets => Step::Produce(0),
            Step::Produce(nth) => {
                *self.sequences.entry(nth % plan.partitions).or_default() += 1;
                let count = (self.inputs.end - self.inputs.start) as usize * plan.partitions;
                if nth + 1 < count { Step::Produce(nth + 1) } else { Step::CommitOffset }
            }
            Step::CommitOffset => Step::End(true),
            step => step,
        };
    }

    fn fails(&mut self, code: ErrorCode, now: u64, checks: &mut Checks) {
        let is_inside = matches!(self.step, Step::Produce(_) | Step::CommitOffset);
        match code {
            // The transaction may have timed out. A client with transactions v2 aborts, and learns
            // then whether it has a successor.
            code if is_fencing(code) && self.version >= 2 && is_inside => {
                self.is_outdated = true;
                self.step = Step::End(false);
            }
            code if is_fencing(code) => {
                checks.counts.fenced += 1;
                self.die(checks);
            }
            ErrorCode::TransactionAbortable => self.step = Step::End(false),
            ErrorCode::InvalidTxnState | ErrorCode::OutOfOrderSequenceNumber => {
                if self.version >= 2
                    && code == ErrorCode::InvalidTxnState
                    && matches!(self.step, Step::Produce(_) | Step::CommitOffset)
                {
                    let (chain, step) = (self.chain, self.step);
                    checks.verdict.broken(Rule::OpenIsOpen, || {
                        format!("chain {chain} is told {} at {step:?}", code.name())
                    });
                }
                self.die(checks);
            }
            // It retries.
            _ => self.waits_until = now + PAUSE_MS,
        }
    }
}

fn is_fencing(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::ProducerFenced
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::InvalidProducerIdMapping
    )
}
