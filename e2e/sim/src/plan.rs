//! The plan of a history: the size of the cluster, its topics, and the rates of faults. All of it
//! is drawn from the seed before the first event.

use crate::mutation::Mutation;
use crate::rng::Rng;

/// `replica.lag.time.max.ms` here: short, so that ISRs shrink within a history.
pub const LAG_MS_MAX: u64 = 1_500;

/// The time of the first fault; by then the topics have their partitions.
pub const FAULTS_BEGIN_MS: u64 = 1_500;

/// The limit for a healed cluster to get everything in sync.
pub const CONVERGENCE_MS_MAX: u64 = 60_000;

/// The plan of one history.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// The deliberate fault.
    pub mutation: Option<Mutation>,
    /// The number of brokers.
    pub brokers: usize,
    /// The topics, with one partition each, each in another shard of the store.
    pub topics: Vec<TopicPlan>,
    /// `flush.mode=group`: only flushed records count. Otherwise records in the page cache count
    /// too.
    pub group_flush: bool,
    /// The end of the faults.
    pub faults_end_ms: u64,
    /// The maximum time between two faults.
    pub fault_pause_ms_max: u64,
    /// Lost messages, per thousand.
    pub loss: u64,
    /// Delayed messages, per thousand.
    pub slow: u64,
    /// Writes to the store whose response is lost, per thousand.
    pub lost_answers: u64,
    /// Disk losses and power failures, per thousand faults.
    pub destruction: u64,
    /// Reassignments that an administrator requests, or cancels midway, per thousand faults.
    pub reassignment: u64,
    /// DeleteRecords requests, per thousand faults.
    pub deletion: u64,
    /// Changes of `min.insync.replicas`, per thousand faults.
    pub configuration: u64,
    /// Topics that are deleted and created again, per thousand faults.
    pub renewal: u64,
    /// Outages of all operators, with a restart of every broker, per thousand faults.
    pub outages: u64,
}

/// One topic.
#[derive(Clone, Debug)]
pub struct TopicPlan {
    /// The replication factor.
    pub replicas: usize,
    /// The initial `min.insync.replicas`.
    pub min_isr: usize,
    /// `unclean.leader.election.enable`.
    pub unclean: bool,
    /// Retention runs of a replica, per thousand heartbeats.
    pub retention: u64,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut rng = Rng::new(seed);
        let brokers = rng.between(3, 5) as usize;
        let topics = (0..rng.between(1, 2)).map(|_| topic(&mut rng, brokers)).collect();
        Self {
            seed,
            mutation,
            brokers,
            topics,
            group_flush: rng.chance(500),
            faults_end_ms: rng.between(5_000, 11_000),
            fault_pause_ms_max: rng.between(200, 1_400),
            loss: [0, 10, 50][rng.index(3)],
            slow: [5, 30, 100][rng.index(3)],
            lost_answers: [0, 20, 100][rng.index(3)],
            destruction: [0, 100, 400][rng.index(3)],
            reassignment: [0, 0, 100, 300][rng.index(4)],
            deletion: [0, 0, 100, 300][rng.index(4)],
            configuration: [0, 0, 100][rng.index(3)],
            renewal: [0, 0, 60][rng.index(3)],
            outages: [0, 60, 200][rng.index(3)],
        }
    }

    /// Whether this is the plan's deliberate fault.
    pub fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

fn topic(rng: &mut Rng, brokers: usize) -> TopicPlan {
    let replicas = if rng.chance(700) { 3 } else { rng.between(2, brokers as u64) as usize };
    let min_isr = if rng.chance(600) { 2 } else { rng.between(1, replicas as u64) as usize };
    TopicPlan {
        replicas,
        min_isr,
        unclean: rng.chance(150),
        retention: [0, 0, 20, 100][rng.index(4)],
    }
}
