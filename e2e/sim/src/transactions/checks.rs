//! The rules of transactions. Only readers and clients report events, because their view of the
//! system is what must be right.

use std::collections::BTreeMap;

use clap::ValueEnum;
use weir_broker::sim_api::Producer;

use super::message::Value;
use crate::history::{Tally, Verdict};

/// The rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// Readers see each input once in each partition, in order.
    ExactlyOnce,
    /// Readers never see records of a transaction whose abort was acknowledged.
    AbortedIsUnseen,
    /// Readers see all of a transaction or nothing; all of it if its commit was acknowledged.
    AllOrNothing,
    /// A group's committed offsets are those of its transactions.
    OffsetsMoveAlong,
    /// A producer writes nothing after its successor has an epoch.
    FencedWritesNothing,
    /// Records that were read stay.
    StableStays,
    /// The leader accepts the writes of a client with transactions v2 in its open transaction, even
    /// when the marker of the previous one arrives in between.
    OpenIsOpen,
    /// A replica's state of producers and transactions matches its log, after every append,
    /// truncation, restart and election.
    ReplicasKnow,
    /// A producer of transactions v2 without a successor can continue, whatever happened to its
    /// transaction.
    GoesOn,
    /// After the faults no transaction stays open or prepared, everything is stable, and every
    /// client makes progress.
    Ends,
}

/// Counters, which show that the histories exercise what they should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events.
    pub events: u64,
    /// Faults.
    pub faults: u64,
    /// Acknowledged commits.
    pub commits: u64,
    /// Acknowledged aborts.
    pub aborts: u64,
    /// Transactions that a client abandoned without knowing the outcome.
    pub unknown: u64,
    /// Elections.
    pub elections: u64,
    /// Producers that learned that they are fenced.
    pub fenced: u64,
    /// Records that readers saw.
    pub seen: u64,
    /// Fetch answers that followers applied.
    pub fetches: u64,
    /// Transactions that timed out while their producer was alive, which continued.
    pub outlived: u64,
    /// Producers that got another id because their epochs were used up.
    pub renewed: u64,
}

impl Tally for Counts {
    fn add(&mut self, other: &Self) {
        for (sum, count) in [
            (&mut self.events, other.events),
            (&mut self.faults, other.faults),
            (&mut self.commits, other.commits),
            (&mut self.aborts, other.aborts),
            (&mut self.unknown, other.unknown),
            (&mut self.elections, other.elections),
            (&mut self.fenced, other.fenced),
            (&mut self.seen, other.seen),
            (&mut self.fetches, other.fetches),
            (&mut self.outlived, other.outlived),
            (&mut self.renewed, other.renewed),
        ] {
            *sum += count;
        }
    }
}

/// The state of an attempt, which is a transaction that copies some inputs.
#[derive(Clone, Debug, Default)]
struct Attempt {
    chain: usize,
    inputs: std::ops::Range<i64>,
    /// Whether the client knows that it was committed (true) or aborted (false).
    told: Option<bool>,
    seen: BTreeMap<usize, i64>,
}

/// The checks.
#[derive(Debug)]
pub struct Checks {
    /// The result.
    pub verdict: Verdict<Rule>,
    /// The counters.
    pub counts: Counts,
    partitions: usize,
    attempts: BTreeMap<u64, Attempt>,
    next: BTreeMap<(usize, usize), i64>,
    read: BTreeMap<usize, Vec<Value>>,
    /// The lowest epoch that may write, by producer id.
    least: BTreeMap<i64, i16>,
    /// The producer id of each chain.
    ids: BTreeMap<usize, i64>,
    /// The requests for an epoch that coordinators received, for each chain: process and request.
    inits: BTreeMap<usize, Vec<(u64, u64)>>,
}

impl Checks {
    /// The state before the first event.
    pub fn new(partitions: usize, only: Option<Rule>) -> Self {
        Self {
            verdict: Verdict::new(only),
            counts: Counts::default(),
            partitions,
            attempts: BTreeMap::new(),
            next: BTreeMap::new(),
            read: BTreeMap::new(),
            least: BTreeMap::new(),
            ids: BTreeMap::new(),
            inits: BTreeMap::new(),
        }
    }

    /// A chain's client begins to copy inputs, in a transaction with the returned number.
    pub fn begins(&mut self, chain: usize, inputs: std::ops::Range<i64>) -> u64 {
        let number = self.attempts.len() as u64;
        self.attempts.insert(number, Attempt { chain, inputs, ..Attempt::default() });
        number
    }

    /// A client learned the outcome of its transaction.
    pub fn told(&mut self, attempt: u64, committed: bool) {
        let Some(known) = self.attempts.get_mut(&attempt) else { return };
        known.told = Some(committed);
        let was_seen = !known.seen.is_empty();
        if committed {
            self.counts.commits += 1;
        } else {
            self.counts.aborts += 1;
            if was_seen {
                self.verdict.broken(Rule::AbortedIsUnseen, || {
                    format!("transaction {attempt} was seen before its abort was answered")
                });
            }
        }
    }

    /// How far a chain has come, by the outcomes that its clients know.
    pub fn committed(&self, chain: usize) -> i64 {
        let own = self
            .attempts
            .values()
            .filter(|attempt| attempt.chain == chain && attempt.told == Some(true));
        own.map(|attempt| attempt.inputs.end).max().unwrap_or(0)
    }

    /// A new process of a chain fetched its group's offset. It must be the end of a transaction
    /// that may be committed, and not below what was committed when the process asked.
    pub fn finds(&mut self, chain: usize, offset: i64, least: i64) {
        let mut own = self.attempts.values().filter(|attempt| attempt.chain == chain);
        let is_possible = offset == 0
            || own.any(|attempt| attempt.inputs.end == offset && attempt.told != Some(false));
        if !is_possible || offset < least {
            self.verdict.broken(Rule::OffsetsMoveAlong, || {
                format!("the group of chain {chain} is found at {offset}; {least} was committed")
            });
        }
    }

    /// A `read_committed` reader sees a record.
    pub fn sees(&mut self, partition: usize, value: Value) {
        self.counts.seen += 1;
        self.read.entry(partition).or_default().push(value);
        let next = self.next.entry((partition, value.chain)).or_default();
        let expected = *next;
        *next = value.index + 1;
        if value.index != expected {
            self.verdict.broken(Rule::ExactlyOnce, || {
                format!("partition {partition} shows {value:?} where input {expected} is next")
            });
        }
        let Some(attempt) = self.attempts.get_mut(&value.attempt) else { return };
        *attempt.seen.entry(partition).or_default() += 1;
        if attempt.told == Some(false) {
            self.verdict.broken(Rule::AbortedIsUnseen, || {
                format!("partition {partition} shows {value:?} of a transaction that was aborted")
            });
        }
    }

    /// A second reader reads from the beginning.
    pub fn sees_again(&mut self, partition: usize, values: &[Value]) {
        let before = self.read.get(&partition).map_or(&[][..], Vec::as_slice);
        let seen = before.len();
        if before != values {
            let at = before.iter().zip(values).take_while(|(before, now)| before == now).count();
            self.verdict.broken(Rule::StableStays, || {
                format!("partition {partition}: of {seen} records not the same from the {at}th on")
            });
        }
    }

    /// A producer gets an epoch that fences earlier ones, or a new id.
    pub fn fences(&mut self, chain: usize, (id, epoch): Producer) {
        let least = self.least.entry(id.0).or_insert(epoch.0);
        *least = (*least).max(epoch.0);
        // Ids ascend, but an answer may come late.
        let current = self.ids.entry(chain).or_insert(id.0);
        if *current < id.0 {
            self.least.insert(*current, i16::MAX);
            self.counts.renewed += 1;
            *current = id.0;
        }
    }

    /// A coordinator receives a request for an epoch of a chain.
    pub fn inits(&mut self, chain: usize, request: (u64, u64)) {
        self.inits.entry(chain).or_default().push(request);
    }

    /// A coordinator tells the producer that got its epoch by this request that it is fenced.
    pub fn is_fenced(&mut self, chain: usize, request: (u64, u64), what: &str) {
        let all = self.inits.get(&chain).map_or(&[][..], Vec::as_slice);
        let is_last = all.last() == Some(&request)
            && all.iter().filter(|asked| **asked == request).count() == 1;
        if is_last {
            self.verdict.broken(Rule::GoesOn, || {
                format!("process {} of chain {chain} is told {what} at an abort", request.0)
            });
        }
    }

    /// A partition's leader accepts a producer's write.
    pub fn writes(&mut self, (id, epoch): Producer, what: &str) {
        if self.least.get(&id.0).is_some_and(|least| epoch.0 < *least) {
            self.verdict.broken(Rule::FencedWritesNothing, || {
                format!("{what} of producer {id} in epoch {epoch}")
            });
        }
    }

    /// The history is over: the chains' groups have committed these offsets.
    pub fn over(&mut self, offsets: &[i64]) {
        let partitions = self.partitions;
        for (number, attempt) in self.attempts.clone() {
            let (inputs, all) = (&attempt.inputs, attempt.inputs.end - attempt.inputs.start);
            let seen: Vec<i64> =
                (0..partitions).map(|at| attempt.seen.get(&at).copied().unwrap_or(0)).collect();
            let is_whole = seen.iter().all(|count| *count == all);
            let is_nothing = seen.iter().all(|count| *count == 0);
            let is_right = is_whole || (is_nothing && attempt.told != Some(true));
            if !is_right {
                self.verdict.broken(Rule::AllOrNothing, || {
                    format!(
                        "transaction {number} of inputs {inputs:?}, whose client was told {:?}: {seen:?} are seen",
                        attempt.told
                    )
                });
            }
        }
        for (chain, offset) in offsets.iter().enumerate() {
            for partition in 0..partitions {
                let next = self.next.get(&(partition, chain)).copied().unwrap_or(0);
                if next != *offset {
                    self.verdict.broken(Rule::OffsetsMoveAlong, || {
                        format!("the group of chain {chain} stands at {offset}, partition {partition} at {next}")
                    });
                }
            }
        }
    }
}
