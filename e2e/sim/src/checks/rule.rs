//! What must hold, and where the checks find a copy.

use crate::log::Log;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rule {
    /// At most one leader per partition and leader epoch.
    OneLeaderPerEpoch,
    /// The leader is in the ISR, the ISR within the replicas, and so on (`Partition::check`).
    StateIsSound,
    /// Epochs of a partition only go up, and a new leader has a new one.
    EpochsOnlyGoUp,
    /// Elected only from the ISR and the eligible, unless unclean election is allowed or only the
    /// last leader is left.
    ElectedFromIsr,
    /// Who is in the ISR or eligible holds all that is committed, unless it lost it with its power
    /// or disk.
    InSyncHoldsAll,
    /// What is committed never changes.
    CommittedStays,
    /// An idempotent producer's records are committed once each, and in order.
    InOrderAndOnce,
    /// `acks=all` is answered only for what is committed, and at its offset.
    AcknowledgedIsCommitted,
    /// A deposed leader acknowledges nothing that its successor began without.
    DeposedAcknowledgesNothing,
    /// What a consumer reads is committed; what it saw stays.
    SeenIsCommitted,
    /// Who asks where an epoch ends that a leader knows is told so, and not an end before what it
    /// read of it.
    EpochsHaveEnds,
    /// For a consumer the latest offset never goes back.
    LatestNeverGoesBack,
    /// The high watermark does not go back within a leader epoch.
    HighWatermarkIsMonotone,
    /// The high watermark stands still while the ISR is below its minimum.
    NoAdvanceBelowMinIsr,
    /// What is deleted was committed.
    OnlyCommittedIsDeleted,
    /// Logs are equal below the least of their high watermarks.
    LogsAgree,
    /// A broker that returns empty or shortened leads nothing for what it was.
    LeadersHaveEverything,
    /// A broker epoch is given once.
    BrokerEpochsAreUnique,
    /// Once faults stop, every partition with a live copy has a leader, all replicas are in sync
    /// and their logs equal, and producers get their answers.
    Converges,
}

/// The log of a broker, and where it ended before a fault took something of it that the controller
/// has not heard of; 0 without one.
pub type LogOf<'a> = &'a dyn Fn(usize) -> (&'a Log, i64);
