//! What a history is about: the size of the cluster, its topics, and how bad its world is. Drawn
//! from the seed, before anything happens.

use crate::mutation::Mutation;
use crate::rng::Rng;

/// `replica.lag.time.max.ms` here: short, so that ISRs shrink within a history.
pub const LAG_MS_MAX: u64 = 1_500;

/// When the first fault may happen: by then the topics have their partitions.
pub const FAULTS_BEGIN_MS: u64 = 1_500;

/// How long a healed cluster may take until everything is in sync.
pub const CONVERGENCE_MS_MAX: u64 = 60_000;

/// The plan of one history.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// What is deliberately wrong.
    pub mutation: Option<Mutation>,
    /// Brokers.
    pub brokers: usize,
    /// Topics, with one partition each: each lies in another shard of the store.
    pub topics: Vec<TopicPlan>,
    /// `flush.mode=group`: only what is on the disk counts as had. Else what is in the page cache.
    pub group_flush: bool,
    /// When the faults stop.
    pub faults_end_ms: u64,
    /// The time between two faults, at most.
    pub fault_pause_ms_max: u64,
    /// Messages that are lost, per thousand.
    pub loss: u64,
    /// Messages that take long, per thousand.
    pub slow: u64,
    /// Writes to the store whose answer is lost, per thousand.
    pub lost_answers: u64,
    /// Wiped disks and lost power, per thousand faults.
    pub destruction: u64,
    /// Reassignments that somebody asks for, or cancels, in the midst of it: per thousand faults.
    pub reassignment: u64,
    /// Deletions of records that somebody asks for: per thousand faults.
    pub deletion: u64,
    /// Changes of `min.insync.replicas`: per thousand faults.
    pub configuration: u64,
    /// Topics that are deleted and made anew: per thousand faults.
    pub renewal: u64,
    /// Times without any operator, in which every broker is restarted: per thousand faults.
    pub outages: u64,
}

/// One topic.
#[derive(Clone, Debug)]
pub struct TopicPlan {
    /// Replicas.
    pub replicas: usize,
    /// `min.insync.replicas` in the beginning.
    pub min_isr: usize,
    /// `unclean.leader.election.enable`.
    pub unclean: bool,
    /// Heartbeats at which a replica deletes what is old: per thousand.
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

    /// Whether this is what is deliberately wrong.
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
