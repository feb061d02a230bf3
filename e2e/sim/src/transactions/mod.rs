//! The simulation of transactions: the real cores of the transaction coordinator, of the group
//! coordinator's offsets and of the partitions' transactions. The faults are elections, client
//! crashes, zombies of both, and lost, delayed and repeated requests. Chains of clients consume,
//! transform and produce in both versions of transactions, and the checks require exactly-once
//! results.
//!
//! The replicas of data partitions have the broker's own logs. They take many batches in one
//! answer, are truncated, restart and lead. The checks compare each replica's state of producers
//! and transactions with its batches. The world decides what is committed and who is elected,
//! because the simulation of clusters tests that.
//!
//! Transactions v1 are spared the faults that they do not survive in Kafka either (KAFKA-17754): a
//! delayed EndTxn or marker.

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

/// The simulation of transactions.
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
