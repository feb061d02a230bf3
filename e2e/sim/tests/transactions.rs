//! The transaction rules hold over many histories, the same seed gives the same history, and each
//! rule finds its violation.
//!
//! `cargo test --release -p weir-sim` plays 5,000, whose replicas write real logs. Without
//! optimisation a history takes ten times as long.
#![allow(clippy::unwrap_used, missing_docs)]

use weir_sim::history::{Simulation as _, first_to_break, play};
use weir_sim::transactions::Transactions;
use weir_sim::transactions::checks::Rule;
use weir_sim::transactions::plan::Mutation;

const HISTORIES: u64 = if cfg!(debug_assertions) { 200 } else { 5_000 };

#[test]
fn transactions_keep_the_rules() {
    let counts = play::<Transactions>(0..HISTORIES, None, None, None::<fn(&str)>)
        .unwrap_or_else(|failure| panic!("{failure}"));
    // Histories without activity would keep all rules.
    assert!(
        counts.commits > 7 * HISTORIES
            && counts.aborts > 2 * HISTORIES
            && counts.unknown > 4 * HISTORIES,
        "{counts:?}"
    );
    assert!(
        counts.elections > 7 * HISTORIES
            && counts.fenced > 2 * HISTORIES
            && counts.seen > 14 * HISTORIES,
        "{counts:?}"
    );
    assert!(
        counts.fetches > 10 * HISTORIES
            && counts.outlived > HISTORIES / 10
            && counts.renewed > HISTORIES / 5,
        "{counts:?}"
    );
}

#[test]
fn the_same_seed_is_the_same_history_of_transactions() {
    for seed in 0..20 {
        let [first, second] = [(); 2].map(|()| Transactions::run(seed, None, None, true).trace);
        assert!(first.len() > 50);
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "takes minutes without optimisation: cargo test --release -p weir-sim"
)]
fn each_rule_of_transactions_sees_what_it_is_there_for() {
    use Mutation as M;
    use Rule as R;
    let rows = [
        (R::ExactlyOnce, M::CompletesEarly),
        (R::ExactlyOnce, M::TakesLateMarkers),
        (R::ExactlyOnce, M::KeepsEpochs),
        (R::ExactlyOnce, M::ForgetsAborted),
        (R::ExactlyOnce, M::LoadsHalf),
        (R::AbortedIsUnseen, M::ForgetsAborted),
        (R::AbortedIsUnseen, M::ReadsToHighWatermark),
        (R::AllOrNothing, M::KeepsEpochs),
        (R::AllOrNothing, M::AnswersBeforeCommit),
        (R::AllOrNothing, M::TakesLateMarkers),
        (R::OffsetsMoveAlong, M::CommitsOffsetsAlways),
        (R::OffsetsMoveAlong, M::AsksOfAnother),
        (R::FencedWritesNothing, M::VerifiesNothing),
        (R::FencedWritesNothing, M::ForgetsGuards),
        (R::FencedWritesNothing, M::ForgetsOffsetGuards),
        (R::StableStays, M::ReadsToHighWatermark),
        (R::OpenIsOpen, M::AsksOnce),
        (R::ReplicasKnow, M::HidesMarkers),
        (R::GoesOn, M::TakesRepeatsForZombies),
        (R::Ends, M::NeverRenews),
        (R::Ends, M::NeverMarks),
        (R::Ends, M::VerifiesNothing),
        (R::Ends, M::CompletesEarly),
    ];
    let blind: Vec<_> = rows
        .into_iter()
        .filter(|(rule, mutation)| {
            first_to_break::<Transactions>(*rule, *mutation, 0..20_000).is_none()
        })
        .collect();
    assert!(blind.is_empty(), "not seen: {blind:?}");
}
