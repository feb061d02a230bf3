//! The simulation: whole clusters of the real pure cores (the controller's, the leader's and the
//! follower's) on one thread, driven by a seed through faults, and checked against the rules of
//! `checks`.
//!
//! Processes die and pause. Power and disks are lost. Messages are lost, delayed and repeated. The
//! store has conflicts, and two operators write at once. Producers have several records in flight.
//! Administrators and retention delete records, `min.insync.replicas` changes, and topics are
//! deleted and created again under their names.
//!
//! The same seed gives the same history, line by line. Around the cores is a model of their shells.
//! It does the same steps in the same order (decide, apply, commit, tell; append, flush,
//! acknowledge), and nothing else. It does not cover a shell that uses another order.

pub mod broker;
pub mod checks;
pub mod client;
pub mod ctx;
pub mod history;
pub mod log;
pub mod message;
pub mod mutation;
pub mod network;
pub mod operator;
pub mod pauses;
pub mod plan;
pub mod queue;
pub mod rng;
pub mod store;
pub mod topics;
pub mod transactions;
pub mod world;

use crate::checks::{Counts, Rule};
use crate::history::{History, Simulation};
use crate::mutation::Mutation;
use crate::plan::Plan;
use crate::world::World;

/// The simulation of whole clusters.
#[derive(Debug)]
pub struct Clusters;

impl Simulation for Clusters {
    type Rule = Rule;
    type Mutation = Mutation;
    type Counts = Counts;
    const PROGRAM: &'static str = "weir-sim";

    fn run(
        seed: u64,
        mutation: Option<Mutation>,
        only: Option<Rule>,
        traced: bool,
    ) -> History<Self> {
        let ended = World::new(Plan::new(seed, mutation), only, traced).run();
        History {
            failure: ended.checks.verdict.failure,
            counts: ended.checks.counts,
            trace: ended.trace,
        }
    }
}
