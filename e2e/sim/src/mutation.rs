//! Deliberate faults, one for each rule: what shows that the checkers see.
//!
//! Each changes what a core is told, or what is done with what it says; the cores themselves know
//! nothing of this.

use clap::ValueEnum;

/// What is deliberately wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mutation {
    /// A leader takes each follower to have everything.
    CountsWhatNobodyHas,
    /// A leader goes by `min.insync.replicas` 1.
    IgnoresMinIsr,
    /// A leader goes by the `min.insync.replicas` that it began with.
    KeepsOldMinIsr,
    /// A leader commits what its ISR has though others may still be elected: the controller knows
    /// of a higher minimum.
    OverlooksTheEligible,
    /// A leader does not wait for the additions that it proposed.
    ForgetsProposals,
    /// A leader takes a removal that it proposed for done.
    RemovesAtOnce,
    /// A leader proposes every follower that fetches, however far behind.
    LetsAnyoneJoin,
    /// A leader says of a follower that was registered anew that it fetched under its new epoch
    /// (before KIP-903).
    BelievesOldFetches,
    /// A leader's high watermark begins anew when its metadata changes.
    HighWatermarkGoesBack,
    /// A follower cuts its log at its high watermark when there is a new leader (before KIP-101).
    TruncatesToHighWatermark,
    /// Neither a leader nor a follower looks at the leader epoch of what it gets.
    LooksAtNoEpoch,
    /// `acks=all` is answered once the leader has the record.
    AcknowledgesEarly,
    /// A broker takes what is meant for a topic that is deleted to be for the one that bears its
    /// name now.
    LooksAtNoTopicId,
    /// The log of a topic that is deleted is there for the one that bears its name next.
    KeepsOldLogs,
    /// A leader deletes what is not committed.
    DeletesUncommitted,
    /// A follower that lacks what its leader has deleted does not begin anew behind that.
    NeverBeginsAnew,
    /// A leader's epoch begins with its first record.
    BeginsNoEpoch,
    /// Consumers read to the end of the log.
    ReadsUncommitted,
    /// The latest offset is the high watermark, always (before KIP-207).
    LatestGoesBack,
    /// The producer's sequence is not looked at.
    IgnoresSequences,
    /// With `flush.mode=group`, what is written counts as had.
    CountsUnflushed,
    /// A broker whose log may be shortened calls it whole.
    CallsItselfWhole,
    /// The kernel's boot id is written down before the controller knows what the last boot cost.
    WritesBootIdEarly,
    /// A broker that restarts without a controller takes up the image that its last session began
    /// with, not the one that it acted on last.
    TakesUpAnOlderImage,
    /// A broker whose log may be shortened takes up its roles all the same.
    TakesUpAfterALoss,
    /// A leader that takes up its role again does not know whom the process before asked for.
    ForgetsWhatWasAsked,
    /// Nobody ever joins an ISR.
    NeverExpands,
    /// The operator tells before it commits.
    TellsBeforeCommit,
    /// The store takes whatever is written.
    ComparesNothing,
    /// A new operator raises its epoch, but not in the shards.
    FencesNoShard,
    /// The operator never writes its brokers and counters.
    ForgetsBrokers,
    /// The operator takes unclean elections to be allowed everywhere.
    ElectsAnyone,
    /// What is written of a partition lacks its leader in the ISR.
    WritesNonsense,
}
