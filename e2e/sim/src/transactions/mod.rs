//! Transactions: the transaction coordinator, the group coordinator's offsets and the partitions'
//! transactions, each the real core, under elections, crashes of clients, zombies of both, and
//! lost, late and repeated requests. Chains of clients consume, transform and produce, in both
//! versions of transactions, and the checkers demand that the outcome is exactly once.
//!
//! Partitions that are produced to have replicas with the broker's own logs, which take many
//! batches in one answer, are cut, are started again and lead; what each knows of producers and
//! transactions is compared with what follows from its batches. What is committed, and who is
//! elected, is the world's to say: the simulation of the cluster shows that.
//!
//! Transactions v1 are spared the faults that they do not survive in Kafka either (KAFKA-17754): an
//! EndTxn or a marker that comes late.

pub mod checks;
pub mod client;
pub mod disk;
pub mod leader;
pub mod message;
pub mod plan;
pub mod replica;
pub mod world;

use self::checks::{Counts, Rule};
use self::plan::{Mutation, Plan};
use self::world::World;
use crate::history::{History, Simulation};

/// Chains of transactions.
#[derive(Debug)]
pub struct Transactions;

impl Simulation for Transactions {
    type Rule = Rule;
    type Mutation = Mutation;
    type Counts = Counts;
    const PROGRAM: &'static str = "weir-sim-transactions";

    fn run(
        seed: u64,
        mutation: Option<Mutation>,
        only: Option<Rule>,
        traced: bool,
    ) -> History<Self> {
        let (checks, trace) = World::new(Plan::new(seed, mutation), only, traced).run();
        History { failure: checks.verdict.failure, counts: checks.counts, trace }
    }
}
