//! The plan of a transaction history, drawn from its seed, and its possible deliberate faults.

use clap::ValueEnum;

use crate::rng::Rng;

/// `transaction.timeout.ms` here: short, so that transactions time out within a history.
pub const TIMEOUT_MS: i32 = 1_500;

/// The limit for a healed cluster to end all transactions and for every client to make progress.
pub const CONVERGENCE_MS_MAX: u64 = 30_000;

/// The plan of one history.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// The deliberate fault.
    pub mutation: Option<Mutation>,
    /// The number of data partitions.
    pub partitions: usize,
    /// The version of transactions of each chain's client.
    pub versions: Vec<i16>,
    /// The end of the faults.
    pub faults_end_ms: u64,
    /// The maximum time between two faults.
    pub fault_pause_ms_max: u64,
    /// Lost messages, per thousand.
    pub loss: u64,
    /// Delayed messages, per thousand.
    pub slow: u64,
    /// Elections after which the old leader continues for a while, per thousand.
    pub zombies: u64,
    /// Transactions that their client aborts, per thousand.
    pub aborts: u64,
    /// Steps of an open transaction before which the client pauses for longer than the transaction
    /// timeout, per thousand.
    pub naps: u64,
    /// The initial epoch of each chain's producer, near the highest possible one; `None` for a new
    /// producer.
    pub first_epochs: Vec<Option<i16>>,
    /// When each chain's clients leave for good, in the middle of a transaction. A client in its
    /// last epoch leaves earlier. `None` for a chain that stays.
    pub leaves: Vec<Option<u64>>,
    /// Fetches that a follower makes, per thousand possible ones.
    pub fetches: u64,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut rng = Rng::new(seed ^ 0x7478);
        let partitions = rng.between(1, 2) as usize;
        let versions: Vec<i16> =
            (0..rng.between(1, 2)).map(|_| if rng.chance(600) { 2 } else { 0 }).collect();
        let is_old = |rng: &mut Rng| rng.chance(400).then(|| i16::MAX - rng.between(1, 8) as i16);
        let faults_end_ms = rng.between(1_000, 4_000);
        let leaves =
            |rng: &mut Rng| rng.chance(200).then(|| rng.between(faults_end_ms / 2, faults_end_ms));
        Self {
            seed,
            mutation,
            partitions,
            first_epochs: versions.iter().map(|_| is_old(&mut rng)).collect(),
            leaves: versions.iter().map(|_| leaves(&mut rng)).collect(),
            versions,
            faults_end_ms,
            fault_pause_ms_max: rng.between(60, 600),
            loss: [0, 10, 60][rng.index(3)],
            slow: [5, 40, 120][rng.index(3)],
            zombies: [0, 300, 800][rng.index(3)],
            aborts: [50, 200, 500][rng.index(3)],
            naps: [0, 5, 40][rng.index(3)],
            fetches: [30, 200, 900][rng.index(3)],
        }
    }

    /// Whether this is the plan's deliberate fault.
    pub fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

/// The deliberate faults. They change what happens around the cores, never in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mutation {
    /// The coordinator answers before its records are committed.
    AnswersBeforeCommit,
    /// A new coordinator lacks the last record of its log.
    LoadsHalf,
    /// The coordinator never writes markers.
    NeverMarks,
    /// A transaction counts as complete after its first marker.
    CompletesEarly,
    /// A partition accepts markers of any epoch.
    TakesLateMarkers,
    /// A partition appends a verified record whatever happened since the verification.
    ForgetsGuards,
    /// A leader asks the coordinator only once, although the end of the previous transaction made
    /// the answer useless.
    AsksOnce,
    /// A leader asks again about the next transaction v1 what it asked about the previous one.
    AsksOfAnother,
    /// The group coordinator accepts verified offsets whatever happened since the verification.
    ForgetsOffsetGuards,
    /// Leaders do not ask the transaction coordinator (before KIP-890).
    VerifiesNothing,
    /// The epoch stays the same after a transaction, although the network delays and repeats
    /// requests (before KIP-890).
    KeepsEpochs,
    /// Consumers read to the high watermark.
    ReadsToHighWatermark,
    /// Consumers do not get the list of aborted transactions.
    ForgetsAborted,
    /// Offsets count even if their transaction was aborted.
    CommitsOffsetsAlways,
    /// A follower does not recognise markers in the middle of an answer.
    HidesMarkers,
    /// The coordinator does not get a new producer id for a transaction that timed out and whose
    /// producer has no epoch left.
    NeverRenews,
    /// A repeated abort, or one after another producer's, counts as a zombie's.
    TakesRepeatsForZombies,
}
