//! What must hold of transactions, told by readers and clients alone: each reads and is told what
//! it would be by the real thing.

use std::collections::BTreeMap;

use clap::ValueEnum;
use weir_broker::cores::Producer;

use super::message::Value;
use crate::history::{Tally, Verdict};

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// Each input is seen once in each partition, in order.
    ExactlyOnce,
    /// What belongs to a transaction whose abort was answered is never seen.
    AbortedIsUnseen,
    /// Of a transaction everything is seen or nothing; all of it if its commit was answered.
    AllOrNothing,
    /// The offsets of a group are where its transactions have brought them.
    OffsetsMoveAlong,
    /// A producer writes nothing after its successor was given an epoch.
    FencedWritesNothing,
    /// What was read stays.
    StableStays,
    /// What a client of transactions v2 writes in its open transaction is not refused because the
    /// marker of the one before came in between.
    OpenIsOpen,
    /// What a replica knows of producers and transactions is what its log says, after everything
    /// that it takes, cuts off, reads anew and leads.
    ReplicasKnow,
    /// A producer of transactions v2 that nobody has followed goes on, whatever became of its
    /// transaction.
    GoesOn,
    /// Once faults stop, no transaction stays open or prepared, everything is stable, and everybody
    /// gets on.
    Ends,
}

/// What was counted, to see that histories are about something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events.
    pub events: u64,
    /// Faults.
    pub faults: u64,
    /// Commits that were answered.
    pub commits: u64,
    /// Aborts that were answered.
    pub aborts: u64,
    /// Transactions that were given up by their client, who does not know what became of them.
    pub unknown: u64,
    /// Elections.
    pub elections: u64,
    /// Producers that were told that they are fenced.
    pub fenced: u64,
    /// Records that were seen.
    pub seen: u64,
    /// Answers that followers took.
    pub fetches: u64,
    /// Transactions that were ended by time while their producer was there, which went on.
    pub outlived: u64,
    /// Producers that were given another id, since the epochs of theirs were used up.
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

/// What is known of an attempt: of the transaction that copies some inputs.
#[derive(Clone, Debug, Default)]
struct Attempt {
    chain: usize,
    inputs: std::ops::Range<i64>,
    /// Whether its client was told that it is committed, or aborted.
    told: Option<bool>,
    seen: BTreeMap<usize, i64>,
}

/// The checkers.
#[derive(Debug)]
pub struct Checks {
    /// What came of them.
    pub verdict: Verdict<Rule>,
    /// What was counted.
    pub counts: Counts,
    partitions: usize,
    attempts: BTreeMap<u64, Attempt>,
    next: BTreeMap<(usize, usize), i64>,
    read: BTreeMap<usize, Vec<Value>>,
    /// The least epoch that may write, by producer id.
    least: BTreeMap<i64, i16>,
    /// The producer id of each chain.
    ids: BTreeMap<usize, i64>,
    /// The requests for an epoch that a coordinator has heard of, for each chain: process and
    /// request.
    inits: BTreeMap<usize, Vec<(u64, u64)>>,
}

impl Checks {
    /// Nothing has happened yet.
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

    /// A chain's client begins to copy inputs, in a transaction with this number.
    pub fn begins(&mut self, chain: usize, inputs: std::ops::Range<i64>) -> u64 {
        let number = self.attempts.len() as u64;
        self.attempts.insert(number, Attempt { chain, inputs, ..Attempt::default() });
        number
    }

    /// A client was told how its transaction ended.
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

    /// How far a chain has come, as its clients were told.
    pub fn committed(&self, chain: usize) -> i64 {
        let own = self
            .attempts
            .values()
            .filter(|attempt| attempt.chain == chain && attempt.told == Some(true));
        own.map(|attempt| attempt.inputs.end).max().unwrap_or(0)
    }

    /// A new process of a chain finds its group's offset: where a transaction ended that may be
    /// committed, and not before what was committed when it asked.
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

    /// A reader of `read_committed` sees a record.
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

    /// What another reader sees that begins at the beginning.
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

    /// A producer is given an epoch that fences those before it, or an id.
    pub fn fences(&mut self, chain: usize, (id, epoch): Producer) {
        let least = self.least.entry(id.0).or_insert(epoch.0);
        *least = (*least).max(epoch.0);
        // Ids are given out in order; an answer may come late.
        let current = self.ids.entry(chain).or_insert(id.0);
        if *current < id.0 {
            self.least.insert(*current, i16::MAX);
            self.counts.renewed += 1;
            *current = id.0;
        }
    }

    /// A coordinator is asked for an epoch of a chain.
    pub fn inits(&mut self, chain: usize, request: (u64, u64)) {
        self.inits.entry(chain).or_default().push(request);
    }

    /// The producer that was given its epoch by this request is told, by its coordinator, that
    /// another has followed.
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

    /// The leader of a partition takes what a producer writes.
    pub fn writes(&mut self, (id, epoch): Producer, what: &str) {
        if self.least.get(&id.0).is_some_and(|least| epoch.0 < *least) {
            self.verdict.broken(Rule::FencedWritesNothing, || {
                format!("{what} of producer {id} in epoch {epoch}")
            });
        }
    }

    /// Everything is over: the group of each chain has committed these offsets.
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
