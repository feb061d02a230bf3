//! The simulation: whole clusters of the real pure cores (the controller's, the leader's and the follower's) on one thread, driven by a seed through
//! crashes, lost power and disks, lost, late and repeated messages, conflicts in the store and two operators at once, and checked against the rules
//! of `checks`.
//!
//! The same seed is the same history, line by line. What surrounds the cores is a model of their shells: it does in the same order what the
//! shells do (decide, apply, commit, tell; append, flush, acknowledge), and nothing else.

pub mod broker;
pub mod checks;
pub mod client;
pub mod log;
pub mod message;
pub mod mutation;
pub mod network;
pub mod operator;
pub mod plan;
pub mod rng;
pub mod store;
pub mod transactions;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::checks::{Counts, Failure, Rule};
use crate::mutation::Mutation;
use crate::plan::Plan;
use crate::world::World;

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
    let ended = World::new(Plan::new(seed, mutation), only, traced).run();
    History {
        failure: ended.checks.failure,
        counts: ended.checks.counts,
        trace: ended.trace,
    }
}

/// The first of these seeds whose history breaks the rule, with this deliberately wrong. Other rules do not count, and neither do the assertions of the
/// cores: where one of them ends a history, another seed shows what the rule sees.
pub fn first_to_break(rule: Rule, mutation: Mutation, seeds: std::ops::Range<u64>) -> Option<u64> {
    let breaks = |seed: &u64| catch_unwind(AssertUnwindSafe(|| run(*seed, Some(mutation), Some(rule), false).failure.is_some())).unwrap_or(false);
    seeds.into_iter().find(breaks)
}

/// The command that plays a seed again.
pub fn replay(seed: u64, mutation: Option<Mutation>) -> String {
    let mutation = mutation.map_or_else(String::new, |mutation| format!(" --mutation {mutation}"));
    format!("cargo run --release -p weir-sim -- --seed {seed} --trace{mutation}")
}
