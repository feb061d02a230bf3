//! Deliberate faults, one for each rule. They show that the checks find violations.
//!
//! Each changes the input of a core, or what happens with its output. The cores themselves know
//! nothing of them.

use clap::ValueEnum;

/// The deliberate faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mutation {
    /// A leader counts each follower as having everything.
    CountsWhatNobodyHas,
    /// A leader uses `min.insync.replicas` 1.
    IgnoresMinIsr,
    /// A leader keeps the `min.insync.replicas` that it began with.
    KeepsOldMinIsr,
    /// A leader commits what its ISR has although the controller knows a higher minimum and may
    /// still elect others.
    OverlooksTheEligible,
    /// A leader does not wait for the replicas that it proposed to add.
    ForgetsProposals,
    /// A leader treats a removal that it proposed as done.
    RemovesAtOnce,
    /// A leader proposes every follower that fetches, however far it lags.
    LetsAnyoneJoin,
    /// A leader claims that a follower with a new registration fetched under its new epoch (before
    /// KIP-903).
    BelievesOldFetches,
    /// A leader's high watermark restarts when its metadata changes.
    HighWatermarkGoesBack,
    /// A follower truncates its log to its high watermark when there is a new leader (before
    /// KIP-101).
    TruncatesToHighWatermark,
    /// Neither the leader nor the follower checks the leader epoch of messages.
    LooksAtNoEpoch,
    /// A leader answers `acks=all` once it has the record itself.
    AcknowledgesEarly,
    /// A broker takes messages for a deleted topic as meant for the topic that has its name now.
    LooksAtNoTopicId,
    /// The log of a deleted topic becomes that of the next topic of its name.
    KeepsOldLogs,
    /// A leader deletes uncommitted records.
    DeletesUncommitted,
    /// A follower that lacks records that its leader has deleted does not restart its log after
    /// them.
    NeverBeginsAnew,
    /// A leader begins its epoch only with its first record.
    BeginsNoEpoch,
    /// Consumers read to the end of the log.
    ReadsUncommitted,
    /// The latest offset is always the high watermark (before KIP-207).
    LatestGoesBack,
    /// The leader does not check the producer's sequence numbers.
    IgnoresSequences,
    /// With `flush.mode=group`, unflushed records count too.
    CountsUnflushed,
    /// A broker whose log may have lost records reports it as complete.
    CallsItselfWhole,
    /// A broker writes the kernel's boot id before the controller knows what the previous boot
    /// lost.
    WritesBootIdEarly,
    /// A broker that restarts without a controller adopts the image that its last session began
    /// with, not the last one that it acted on.
    TakesUpAnOlderImage,
    /// A broker whose log may have lost records adopts its old roles nevertheless.
    TakesUpAfterALoss,
    /// A broker that closes its logs takes up the metadata that it is told meanwhile.
    TakesUpWhileClosing,
    /// A leader that resumes its role waits for no replica outside its ISR, which the previous
    /// process may have proposed, or which may have been elected uncleanly.
    TrustsItsOldRole,
    /// No replica ever joins an ISR.
    NeverExpands,
    /// The operator sends metadata before it commits.
    TellsBeforeCommit,
    /// The store accepts every write.
    ComparesNothing,
    /// A new operator raises its epoch in the registry, but not in the shards.
    FencesNoShard,
    /// The operator never writes brokers and counters.
    ForgetsBrokers,
    /// The operator allows unclean elections everywhere.
    ElectsAnyone,
    /// The operator completes a reassignment before the new replicas have caught up.
    CompletesReassignmentsAtOnce,
    /// The operator writes an ISR without the leader.
    WritesNonsense,
}
