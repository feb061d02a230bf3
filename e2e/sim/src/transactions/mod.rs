//! Transactions: the transaction coordinator, the group coordinator's offsets and the partitions' transactions, each the real core, under elections, crashes of clients, zombies of both,
//! and lost, late and repeated requests. Chains of clients consume, transform and produce, in both versions of transactions, and the checkers demand that the outcome is exactly once.
//!
//! Replication is not part of it: a log is what its leader has, and a new leader has all that is committed and some of what is not. The simulation of the cluster shows that.

pub mod checks;
pub mod client;
pub mod leader;
pub mod message;
pub mod plan;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::checks::{Counts, Failure, Rule};
use self::plan::{Mutation, Plan};
use self::world::World;

/// What came of a history.
#[derive(Debug)]
pub struct History {
    /// The rule that was broken, if one was.
    pub failure: Option<Failure>,
    /// What was counted.
    pub counts: Counts,
    /// What happened, line by line, if that was wanted.
    pub trace: Vec<String>,
}

/// Runs the history of a seed, with this deliberately wrong; with `only`, no other rule counts.
pub fn run(seed: u64, mutation: Option<Mutation>, only: Option<Rule>, traced: bool) -> History {
    let (checks, trace) = World::new(Plan::new(seed, mutation), only, traced).run();
    History {
        failure: checks.failure,
        counts: checks.counts,
        trace,
    }
}

/// The first of these seeds whose history breaks the rule, with this deliberately wrong.
pub fn first_to_break(rule: Rule, mutation: Mutation, seeds: std::ops::Range<u64>) -> Option<u64> {
    let breaks = |seed: &u64| catch_unwind(AssertUnwindSafe(|| run(*seed, Some(mutation), Some(rule), false).failure.is_some())).unwrap_or(false);
    seeds.into_iter().find(breaks)
}

/// The command that plays a seed again.
pub fn replay(seed: u64, mutation: Option<Mutation>) -> String {
    let mutation = mutation.map_or_else(String::new, |mutation| format!(" --mutation {mutation}"));
    format!("cargo run --release -p weir-sim --bin weir-sim-transactions -- --seed {seed} --trace{mutation}")
}
