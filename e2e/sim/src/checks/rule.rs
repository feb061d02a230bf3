//! The rules, and access to the copies.

use crate::log::Log;

/// The rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rule {
    /// At most one leader per partition and leader epoch.
    OneLeaderPerEpoch,
    /// The leader is in the ISR, the ISR is a subset of the replicas, and so on
    /// (`Partition::check`).
    StateIsSound,
    /// The epochs of a partition only rise, and each new leader has a new leader epoch.
    EpochsOnlyGoUp,
    /// The controller elects only from the ISR and the ELR, unless unclean election is allowed or
    /// only the last leader is left.
    ElectedFromIsr,
    /// Every member of the ISR and of the ELR has all committed records, unless it lost them with
    /// its power or disk.
    InSyncHoldsAll,
    /// Committed records never change.
    CommittedStays,
    /// The records of an idempotent producer are committed once each and in order.
    InOrderAndOnce,
    /// A leader acknowledges with `acks=all` only committed records, at their offset.
    AcknowledgedIsCommitted,
    /// A deposed leader acknowledges no record that its successor lacked at its start.
    DeposedAcknowledgesNothing,
    /// Consumers read only committed records, and these stay.
    SeenIsCommitted,
    /// A client that asks for the end of an epoch that the leader knows gets it, and not an offset
    /// below what it has read of that epoch.
    EpochsHaveEnds,
    /// The latest offset never goes back for a consumer.
    LatestNeverGoesBack,
    /// The high watermark never goes back within a leader epoch.
    HighWatermarkIsMonotone,
    /// The high watermark does not advance while the ISR is below its minimum.
    NoAdvanceBelowMinIsr,
    /// Only committed records are deleted.
    OnlyCommittedIsDeleted,
    /// Logs are equal below the lowest of their high watermarks.
    LogsAgree,
    /// A broker that returns with an empty or shortened log is not elected for what it had before.
    LeadersHaveEverything,
    /// Each broker epoch is assigned once.
    BrokerEpochsAreUnique,
    /// After the faults every partition with a live copy has a leader, all replicas are in sync
    /// with equal logs, and producers get answers.
    Converges,
}

/// The log of a broker, and its end before a fault that took records and that the controller does
/// not know yet; 0 if there was none.
pub type LogOf<'a> = &'a dyn Fn(usize) -> (&'a Log, i64);
