//! What a history of transactions is about, drawn from its seed, and what may deliberately be wrong
//! in it.

use clap::ValueEnum;

use crate::rng::Rng;

/// `transaction.timeout.ms` here: short, so that transactions time out within a history.
pub const TIMEOUT_MS: i32 = 1_500;

/// How long a healed cluster may take until nothing is open, and everybody has got on.
pub const CONVERGENCE_MS_MAX: u64 = 30_000;

/// The plan of one history.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// What is deliberately wrong.
    pub mutation: Option<Mutation>,
    /// Partitions that are produced to.
    pub partitions: usize,
    /// The version of transactions that each chain's client speaks.
    pub versions: Vec<i16>,
    /// When the faults stop.
    pub faults_end_ms: u64,
    /// The time between two faults, at most.
    pub fault_pause_ms_max: u64,
    /// Messages that are lost, per thousand.
    pub loss: u64,
    /// Messages that take long, per thousand.
    pub slow: u64,
    /// Leaders that go on as such for a while after another was elected, per thousand.
    pub zombies: u64,
    /// Transactions that their client aborts, per thousand.
    pub aborts: u64,
    /// Steps of an open transaction before which a client is held up for longer than the
    /// transaction may take, per thousand.
    pub naps: u64,
    /// The epoch that each chain's producer has come to already, near the last that it may have;
    /// `None` of a new one.
    pub first_epochs: Vec<Option<i16>>,
    /// When each chain's clients go for good, in the middle of a transaction: in the last epoch, if
    /// one comes to that before; `None` for one that stays.
    pub leaves: Vec<Option<u64>>,
    /// Fetches that a follower makes of those that it could, per thousand.
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

    /// Whether this is what is deliberately wrong.
    pub fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

/// What is deliberately wrong: around the cores, never in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mutation {
    /// The coordinator answers before what it has written is committed.
    AnswersBeforeCommit,
    /// A new coordinator lacks the last record of its log.
    LoadsHalf,
    /// No marker is ever written.
    NeverMarks,
    /// A transaction counts as complete after its first marker.
    CompletesEarly,
    /// A partition takes markers whatever their epochs.
    TakesLateMarkers,
    /// A partition appends what was verified whatever happened since.
    ForgetsGuards,
    /// Who verifies asks once, though the end of the transaction before made the answer worthless.
    AsksOnce,
    /// What was asked of one transaction v1 is asked again of the next.
    AsksOfAnother,
    /// The group coordinator takes offsets that were verified whatever happened since.
    ForgetsOffsetGuards,
    /// Nobody asks the transaction's coordinator (before KIP-890).
    VerifiesNothing,
    /// The epoch stays at the end of a transaction, though the network brings requests late and
    /// twice (before KIP-890).
    KeepsEpochs,
    /// Consumers read to the high watermark.
    ReadsToHighWatermark,
    /// Consumers are not told of aborted transactions.
    ForgetsAborted,
    /// Offsets count whether their transaction was committed or aborted.
    CommitsOffsetsAlways,
    /// A follower takes the markers in the middle of what it is sent for something else.
    HidesMarkers,
    /// Nobody brings a producer id for a transaction that took too long and whose producer has no
    /// epoch left.
    NeverRenews,
    /// An abort that comes again, or after another's, is taken for a zombie's.
    TakesRepeatsForZombies,
}
