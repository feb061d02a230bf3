//! The rules hold over many histories, the same seed gives the same history, and each rule finds
//! its violation.
//!
//! Without optimisation a history takes ten times as long. `cargo test --release -p weir-sim` plays
//! 20,000 and all deliberate faults in less than a minute. `cargo test` plays some hundred and
//! repeats the same seeds.
#![allow(clippy::unwrap_used, missing_docs)]

use weir_sim::Clusters;
use weir_sim::checks::Rule;
use weir_sim::history::{Simulation as _, first_to_break, play};
use weir_sim::mutation::Mutation;

/// The number of histories, and of the seeds in which a deliberate fault must show.
const HISTORIES: u64 = if cfg!(debug_assertions) { 400 } else { 20_000 };

#[test]
fn histories_keep_the_rules() {
    let counts = play::<Clusters>(0..HISTORIES, None, None, None::<fn(&str)>)
        .unwrap_or_else(|failure| panic!("{failure}"));
    // Histories without activity would keep all rules.
    assert!(counts.acknowledged > 10 * HISTORIES && counts.read > 5 * HISTORIES, "{counts:?}");
    assert!(
        counts.elections > HISTORIES
            && counts.isr_changes > 3 * HISTORIES
            && counts.faults > 10 * HISTORIES,
        "{counts:?}"
    );
    assert!(
        counts.conflicts > HISTORIES / 2
            && counts.truncations > HISTORIES / 4
            && counts.losses > HISTORIES / 20,
        "{counts:?}"
    );
    assert!(
        counts.deletions > HISTORIES
            && counts.restarts > HISTORIES / 8
            && counts.renewals > HISTORIES / 10
            && counts.reassigned > HISTORIES / 10,
        "{counts:?}"
    );
    assert!(
        counts.resumed > HISTORIES / 2
            && counts.resumed_acknowledged > HISTORIES / 4
            && counts.told_too_late > HISTORIES / 10,
        "{counts:?}"
    );
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 0..20 {
        let [first, second] = [(); 2].map(|()| Clusters::run(seed, None, None, true).trace);
        assert!(first.len() > 50);
        for (line, (first, second)) in first.iter().zip(&second).enumerate() {
            assert_eq!(first, second, "seed {seed}, line {line}");
        }
        assert_eq!(first.len(), second.len());
    }
}

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "takes minutes without optimisation: cargo test --release -p weir-sim"
)]
fn each_rule_sees_what_it_is_there_for() {
    use Mutation as M;
    use Rule as R;
    let rows = [
        (R::OneLeaderPerEpoch, M::ComparesNothing),
        (R::StateIsSound, M::WritesNonsense),
        (R::EpochsOnlyGoUp, M::ComparesNothing),
        (R::ElectedFromIsr, M::ElectsAnyone),
        (R::InSyncHoldsAll, M::CountsWhatNobodyHas),
        (R::InSyncHoldsAll, M::ForgetsProposals),
        (R::InSyncHoldsAll, M::RemovesAtOnce),
        (R::InSyncHoldsAll, M::LetsAnyoneJoin),
        (R::InSyncHoldsAll, M::BelievesOldFetches),
        (R::InSyncHoldsAll, M::TruncatesToHighWatermark),
        (R::InSyncHoldsAll, M::CountsUnflushed),
        (R::InSyncHoldsAll, M::CallsItselfWhole),
        (R::InSyncHoldsAll, M::TakesUpWhileClosing),
        (R::InSyncHoldsAll, M::WritesBootIdEarly),
        (R::InSyncHoldsAll, M::TakesUpAnOlderImage),
        (R::LeadersHaveEverything, M::TakesUpAfterALoss),
        (R::InSyncHoldsAll, M::TrustsItsOldRole),
        (R::InSyncHoldsAll, M::TellsBeforeCommit),
        (R::InSyncHoldsAll, M::LooksAtNoEpoch),
        (R::InSyncHoldsAll, M::OverlooksTheEligible),
        (R::InSyncHoldsAll, M::CompletesReassignmentsAtOnce),
        (R::InSyncHoldsAll, M::KeepsOldLogs),
        (R::InSyncHoldsAll, M::LooksAtNoTopicId),
        (R::CommittedStays, M::CountsWhatNobodyHas),
        (R::InOrderAndOnce, M::IgnoresSequences),
        (R::AcknowledgedIsCommitted, M::AcknowledgesEarly),
        (R::DeposedAcknowledgesNothing, M::AcknowledgesEarly),
        (R::DeposedAcknowledgesNothing, M::TrustsItsOldRole),
        (R::SeenIsCommitted, M::ReadsUncommitted),
        (R::EpochsHaveEnds, M::BeginsNoEpoch),
        (R::LatestNeverGoesBack, M::LatestGoesBack),
        (R::HighWatermarkIsMonotone, M::HighWatermarkGoesBack),
        (R::NoAdvanceBelowMinIsr, M::IgnoresMinIsr),
        (R::NoAdvanceBelowMinIsr, M::KeepsOldMinIsr),
        (R::OnlyCommittedIsDeleted, M::DeletesUncommitted),
        (R::LogsAgree, M::LooksAtNoEpoch),
        (R::LeadersHaveEverything, M::CallsItselfWhole),
        (R::BrokerEpochsAreUnique, M::ForgetsBrokers),
        (R::Converges, M::NeverExpands),
        (R::Converges, M::FencesNoShard),
        (R::Converges, M::NeverBeginsAnew),
    ];
    let blind: Vec<_> = rows
        .into_iter()
        .filter(|(rule, mutation)| {
            first_to_break::<Clusters>(*rule, *mutation, 0..20_000).is_none()
        })
        .collect();
    assert!(blind.is_empty(), "not seen: {blind:?}");
}
