//! One table for each rule. The leader is broker 0 unless a test says otherwise, its followers are
//! 1 and 2. The broker epoch of each is 10 + its id.

mod reading;
mod taken_up;

use weir_protocol::types::PartitionEpoch;

use super::*;
use crate::replica::core::{FetchFrom, Peer};
use weir_log::Epochs;

const LAG: u64 = 30_000;

fn state(isr: &[i32], partition_epoch: i32) -> PartitionState {
    PartitionState {
        replicas: [0, 1, 2].map(BrokerId).to_vec(),
        isr: isr.iter().copied().map(BrokerId).collect(),
        leader_epoch: LeaderEpoch(5),
        partition_epoch: PartitionEpoch(partition_epoch),
        recovering: false,
        has_eligible: false,
    }
}

fn leader_of(isr: &[i32], min_isr: usize, epoch_start: i64, high_watermark: i64) -> Leadership {
    let start = Start {
        own: BrokerId(0),
        own_epoch: BrokerEpoch(10),
        state: state(isr, 7),
        epoch_start,
        high_watermark,
        resumed: false,
        settings: Settings { min_isr, lag_ms_max: LAG },
    };
    Leadership::begin(start, 0)
}

fn all_alive(id: BrokerId) -> Option<Peer> {
    Some(Peer { epoch: BrokerEpoch(10 + i64::from(id.0)), fenced: false, shutting_down: false })
}

fn fetch(replica: i32, offset: i64) -> Fetched {
    Fetched {
        replica: BrokerId(replica),
        broker_epoch: BrokerEpoch(10 + i64::from(replica)),
        offset,
        log_start: 0,
    }
}

fn ends(end: i64) -> Ends {
    Ends { end, had: end }
}

fn isr_of(proposal: Option<Proposal>) -> Option<Vec<(i32, i64)>> {
    proposal.map(|proposal| proposal.isr.iter().map(|(id, epoch)| (id.0, epoch.0)).collect())
}

/// `min.insync.replicas` was raised from 1 to 2, and the controller has removed follower 1 since.
/// It may still be elected, so it must have all committed records.
#[test]
fn nothing_is_committed_while_others_may_be_elected_besides_the_isr() {
    let mut leader = leader_of(&[0, 1], 1, 0, 0);
    leader.fetched(fetch(1, 8), ends(10), &all_alive, 0).unwrap().proposal.take();
    assert_eq!(leader.high_watermark(), 8);
    let eligible = PartitionState { has_eligible: true, ..state(&[0], 8) };
    assert!(!leader.updated(eligible, ends(10), &all_alive, 2 * LAG).advanced);
    assert_eq!(
        (leader.high_watermark(), leader.accepts(true)),
        (8, Err(ErrorCode::NotEnoughReplicas))
    );
    // The minimum was lowered again, or the ISR has grown: the controller counts no other replica
    // as eligible.
    assert!(leader.updated(state(&[0], 9), ends(10), &all_alive, 2 * LAG).advanced);
    assert_eq!((leader.high_watermark(), leader.accepts(true)), (10, Ok(())));
}

#[test]
fn the_high_watermark_is_the_least_of_who_counts() {
    // ISR, min ISR, the flushed end of the leader's 10 records, fetch offsets of 1 and 2 at time 0,
    // and the expected high watermark.
    let rows: &[(&[i32], usize, i64, i64, i64, i64)] = &[
        (&[0, 1, 2], 1, 10, 8, 6, 6),
        (&[0, 1, 2], 1, 5, 8, 6, 5),
        (&[0, 1], 1, 10, 8, 3, 8),
        (&[0], 1, 10, 8, 3, 10),
        // The high watermark waits for a caught-up follower that may join.
        (&[0, 1], 1, 10, 10, 10, 10),
        // The committed ISR is too small, so nothing is committed, however far the replicas are.
        (&[0, 1], 3, 10, 10, 10, 0),
        (&[0], 2, 10, 10, 10, 0),
        (&[0, 1], 2, 10, 10, 4, 10),
        // The minimum counts as no more than the number of replicas.
        (&[0, 1, 2], 5, 10, 9, 9, 9),
    ];
    for &(isr, min_isr, had, one, two, expected) in rows {
        let mut leader = leader_of(isr, min_isr, 9, 0);
        let ends = Ends { end: 10, had };
        for (id, offset) in [(1, one), (2, two)] {
            let _ = leader.fetched(fetch(id, offset), ends, &all_alive, 0).unwrap();
        }
        leader.grew(ends, &all_alive, 0);
        assert_eq!(leader.high_watermark(), expected, "{isr:?} min {min_isr} {one} {two}");
    }
}

#[test]
fn the_high_watermark_waits_for_who_has_not_fetched_and_never_goes_back() {
    let mut leader = leader_of(&[0, 1], 1, 10, 4);
    assert!(!leader.grew(ends(10), &all_alive, 0));
    assert!(leader.fetched(fetch(1, 10), ends(10), &all_alive, 0).unwrap().advanced);
    assert_eq!(leader.high_watermark(), 10);
    // A later fetch has overtaken this one.
    assert!(!leader.fetched(fetch(1, 7), ends(10), &all_alive, 0).unwrap().advanced);
    assert_eq!(leader.high_watermark(), 10);
}

#[test]
fn one_that_has_caught_up_is_waited_for_until_it_lags() {
    let mut leader = leader_of(&[0, 1], 1, 20, 20);
    // Broker 2 is at the leader's end and may join, but the controller refuses it.
    let _ = leader.fetched(fetch(1, 20), ends(20), &all_alive, 1_000).unwrap();
    let proposal =
        leader.fetched(fetch(2, 20), ends(20), &all_alive, 1_000).unwrap().proposal.unwrap();
    let refused =
        leader.answered(&proposal, Err(ErrorCode::IneligibleReplica), ends(20), &all_alive, 1_000);
    assert_eq!(refused, Outcome::default(), "not at once again");
    let _ = leader.fetched(fetch(1, 30), ends(30), &all_alive, 1_001).unwrap();
    assert_eq!(leader.high_watermark(), 20);
    assert_eq!(leader.next_check_ms(30, 1_001), Some(1_000 + PROPOSAL_BACKOFF_MS));
    let again = leader.check(ends(30), &all_alive, 1_000 + PROPOSAL_BACKOFF_MS).proposal.unwrap();
    let refused = leader.answered(
        &again,
        Err(ErrorCode::IneligibleReplica),
        ends(30),
        &all_alive,
        1_000 + LAG,
    );
    assert_eq!(refused, Outcome::default(), "still waited for");
    assert!(leader.check(ends(30), &all_alive, 1_000 + LAG + 1).advanced);
    assert_eq!(leader.high_watermark(), 30);
}

#[test]
fn who_may_join() {
    // Epoch start, high watermark, the follower's offset, its broker epoch in the fetch, fenced,
    // shutting down, and whether the leader proposes it.
    let rows = [
        (0, 8, 8, 12, false, false, true),
        (0, 8, 7, 12, false, false, false),
        (9, 8, 8, 12, false, false, false),
        (9, 8, 9, 12, false, false, true),
        (0, 8, 8, 12, true, false, false),
        (0, 8, 8, 12, false, true, false),
        (0, 8, 8, 13, false, false, false),
    ];
    for (epoch_start, high_watermark, offset, broker_epoch, fenced, shutting_down, joins) in rows {
        let mut leader = leader_of(&[0, 1], 1, epoch_start, high_watermark);
        let peers = |id: BrokerId| {
            all_alive(id).map(|peer| Peer {
                fenced: fenced && id.0 == 2,
                shutting_down: shutting_down && id.0 == 2,
                ..peer
            })
        };
        let fetch = Fetched { broker_epoch: BrokerEpoch(broker_epoch), ..fetch(2, offset) };
        let outcome = leader.fetched(fetch, ends(10), &peers, 0).unwrap();
        // Broker 1 has not fetched from this leader yet, so its epoch is unknown.
        assert_eq!(
            isr_of(outcome.proposal),
            joins.then(|| vec![(0, 10), (1, -1), (2, 12)]),
            "{fetch:?}"
        );
    }
}

#[test]
fn an_addition_counts_from_its_proposal_and_a_removal_from_its_commit() {
    let mut leader = leader_of(&[0, 1], 1, 0, 0);
    let _ = leader.fetched(fetch(1, 10), ends(10), &all_alive, 0).unwrap();
    let proposal = leader.fetched(fetch(2, 10), ends(10), &all_alive, 0).unwrap().proposal.unwrap();
    assert_eq!(leader.maximal_isr(), [0, 1, 2].map(BrokerId));
    let _ = leader.fetched(fetch(1, 20), ends(20), &all_alive, 1).unwrap();
    assert_eq!(leader.high_watermark(), 10, "broker 2 counts already");
    let _ = leader.answered(&proposal, Ok(state(&[0, 1, 2], 8)), ends(20), &all_alive, 2);
    assert_eq!(leader.committed().partition_epoch, PartitionEpoch(8));

    let late = LAG + 10;
    let shrunk = leader.check(ends(30), &all_alive, late).proposal.unwrap();
    assert_eq!(isr_of(Some(shrunk.clone())), Some(vec![(0, 10)]));
    assert_eq!(leader.maximal_isr().len(), 3);
    assert_eq!(leader.high_watermark(), 10);
    assert!(leader.answered(&shrunk, Ok(state(&[0], 9)), ends(30), &all_alive, late).advanced);
    assert_eq!(leader.high_watermark(), 30);
}

#[test]
fn a_leader_asks_under_the_epoch_that_it_is_registered_under_now() {
    let mut leader = leader_of(&[0, 1], 1, 0, 10);
    leader.registered(BrokerEpoch(40));
    let proposal = leader.fetched(fetch(2, 10), ends(10), &all_alive, 0).unwrap().proposal;
    assert_eq!(isr_of(proposal), Some(vec![(0, 40), (1, -1), (2, 12)]));
}

#[test]
fn who_lags_is_removed() {
    // The leader's end was 10 at time 0. Fetches of broker 1 as (time, offset, the leader's end),
    // and whether it lags at LAG + 100.
    let rows: &[(&[(u64, i64, i64)], bool)] = &[
        // It has never fetched.
        (&[], true),
        // It has everything, so it need not fetch, however old its last fetch is.
        (&[(0, 10, 20), (1, 20, 20)], false),
        // Stuck.
        (&[(50, 10, 10)], true),
        // It is never at the end, but always where the end was at the fetch before.
        (&[(50, 8, 10), (LAG, 10, 12), (LAG + 50, 12, 20)], false),
        // It falls a little further behind each time.
        (&[(50, 8, 10), (LAG, 9, 12), (LAG + 50, 10, 20)], true),
        // It was caught up within the tolerated lag.
        (&[(150, 12, 12)], false),
    ];
    for (fetches, lags) in rows {
        let mut leader = leader_of(&[0, 1], 1, 0, 0);
        for &(at, offset, end) in *fetches {
            let _ = leader.fetched(fetch(1, offset), ends(end), &all_alive, at).unwrap();
        }
        let removed = isr_of(leader.check(ends(20), &all_alive, LAG + 100).proposal);
        assert_eq!(removed, lags.then(|| vec![(0, 10)]), "{fetches:?}");
    }
}

#[test]
fn an_idle_partition_needs_no_timer() {
    let mut leader = leader_of(&[0, 1], 1, 10, 0);
    assert_eq!(leader.next_check_ms(10, 0), Some(LAG + 1), "broker 1 must show itself");
    let _ = leader.fetched(fetch(1, 10), ends(10), &all_alive, 5).unwrap();
    assert_eq!(leader.next_check_ms(10, 5), None);
    assert_eq!(leader.next_check_ms(11, 6), Some(5 + LAG + 1), "a record that it lacks");
}

#[test]
fn a_quiet_follower_lags_from_when_it_lacks_something_and_is_asked_for_again() {
    const QUIET: u64 = 100 * LAG;
    let mut leader = leader_of(&[0, 1], 1, 20, 20);
    let _ = leader.fetched(fetch(1, 20), ends(20), &all_alive, 1).unwrap();
    // Nothing is written for a long time, so nothing is fetched. Then the log grows.
    assert!(!leader.grew(ends(21), &all_alive, QUIET));
    assert_eq!(leader.next_check_ms(21, QUIET), Some(QUIET + LAG + 1));
    assert_eq!(leader.check(ends(21), &all_alive, QUIET + LAG), Outcome::default());
    assert_eq!(
        isr_of(leader.check(ends(21), &all_alive, QUIET + LAG + 1).proposal),
        Some(vec![(0, 10)])
    );

    let mut leader = leader_of(&[0], 1, 20, 20);
    let proposal = leader.fetched(fetch(1, 20), ends(20), &all_alive, 1).unwrap().proposal.unwrap();
    let refused =
        leader.answered(&proposal, Err(ErrorCode::IneligibleReplica), ends(20), &all_alive, 2);
    assert_eq!(refused, Outcome::default());
    let again = leader.next_check_ms(20, 2).unwrap();
    assert_eq!(again, 2 + PROPOSAL_BACKOFF_MS);
    assert_eq!(
        isr_of(leader.check(ends(20), &all_alive, again).proposal),
        Some(vec![(0, 10), (1, 11)])
    );
}

#[test]
fn what_an_answer_leads_to() {
    use ErrorCode::{
        FencedLeaderEpoch, IneligibleReplica, InvalidRequest, InvalidUpdateVersion,
        NetworkException, NewLeaderElected, NotController, OperationNotAttempted, StaleBrokerEpoch,
        UnknownTopicId,
    };
    // The answer to a proposal to add broker 2, whether the high watermark still waits for it, and
    // when the leader asks the controller again.
    let rows: &[(Result<PartitionState, ErrorCode>, bool, Option<u64>)] = &[
        (Ok(state(&[0, 1, 2], 8)), true, None),
        // The controller changed nothing. The next row is an answer with an older state, which does
        // not count.
        (Ok(state(&[0, 1], 7)), false, None),
        (Ok(state(&[0, 1], 6)), true, None),
        (Err(OperationNotAttempted), false, Some(100 + PROPOSAL_BACKOFF_MS)),
        (Err(IneligibleReplica), false, Some(100 + PROPOSAL_BACKOFF_MS)),
        (Err(FencedLeaderEpoch), true, None),
        (Err(InvalidUpdateVersion), true, None),
        (Err(InvalidRequest), true, None),
        (Err(NewLeaderElected), true, None),
        (Err(UnknownTopicId), true, None),
        (Err(NotController), true, Some(100 + PROPOSAL_BACKOFF_MS)),
        (Err(StaleBrokerEpoch), true, Some(100 + PROPOSAL_BACKOFF_MS)),
        (Err(NetworkException), true, Some(100 + PROPOSAL_BACKOFF_MS)),
    ];
    for (answer, waits, asks_at) in rows {
        let mut leader = leader_of(&[0, 1], 1, 0, 0);
        let _ = leader.fetched(fetch(1, 10), ends(10), &all_alive, 0).unwrap();
        let proposal =
            leader.fetched(fetch(2, 10), ends(10), &all_alive, 0).unwrap().proposal.unwrap();
        let outcome = leader.answered(&proposal, answer.clone(), ends(10), &all_alive, 100);
        assert_eq!(outcome.proposal, None);
        assert_eq!(leader.maximal_isr().contains(&BrokerId(2)), *waits, "{answer:?}");
        assert_eq!(leader.next_check_ms(10, 100), *asks_at, "{answer:?}");
        if let Some(at) = *asks_at {
            assert_eq!(leader.check(ends(10), &all_alive, at - 1).proposal, None);
            assert_eq!(
                leader.check(ends(10), &all_alive, at).proposal,
                Some(proposal),
                "the same again"
            );
        }
    }
}

#[test]
fn a_refusal_proves_nothing_about_a_copy_that_was_not_answered() {
    let mut leader = leader_of(&[0, 1], 1, 0, 0);
    let _ = leader.fetched(fetch(1, 10), ends(10), &all_alive, 0).unwrap();
    let proposal = leader.fetched(fetch(2, 10), ends(10), &all_alive, 0).unwrap().proposal.unwrap();
    let _ = leader.answered(&proposal, Err(ErrorCode::NetworkException), ends(10), &all_alive, 0);
    assert!(leader.check(ends(10), &all_alive, 200).proposal.is_some());
    let _ =
        leader.answered(&proposal, Err(ErrorCode::IneligibleReplica), ends(10), &all_alive, 200);
    assert!(leader.maximal_isr().contains(&BrokerId(2)), "the first copy may still arrive");
    assert_eq!(
        leader.answered(&proposal, Ok(state(&[0, 1], 9)), ends(10), &all_alive, 200),
        Outcome::default(),
        "nothing is asked now"
    );

    // Broker 2 is fenced, so it is not simply proposed again. The leader proposes the ISR as it is,
    // which invalidates the old copy.
    let fenced = |id: BrokerId| all_alive(id).map(|peer| Peer { fenced: id.0 == 2, ..peer });
    assert_eq!(leader.next_check_ms(10, 200), Some(200 + PROPOSAL_BACKOFF_MS));
    let barrier = leader.check(ends(10), &fenced, 200 + PROPOSAL_BACKOFF_MS).proposal.unwrap();
    assert_eq!(isr_of(Some(barrier.clone())), Some(vec![(0, 10), (1, 11)]));
    let mut settled = leader.clone();
    let _ = settled.answered(&barrier, Ok(state(&[0, 1], 8)), ends(10), &fenced, 400);
    assert_eq!(settled.maximal_isr(), [0, 1].map(BrokerId));
    let _ = leader.answered(&barrier, Ok(state(&[0, 1], 7)), ends(10), &fenced, 400);
    assert_eq!(
        leader.maximal_isr(),
        [0, 1, 2].map(BrokerId),
        "the same partition epoch proves nothing"
    );

    // Nor can a copy take effect once the broker has registered again.
    let restarted = |id: BrokerId| {
        all_alive(id).map(|peer| Peer {
            epoch: if id.0 == 2 { BrokerEpoch(40) } else { peer.epoch },
            ..peer
        })
    };
    let _ = leader.check(ends(10), &restarted, 401);
    assert_eq!(leader.maximal_isr(), [0, 1].map(BrokerId));
}

#[test]
fn new_metadata_counts_only_if_it_is_newer() {
    let mut leader = leader_of(&[0, 1], 1, 0, 0);
    let _ = leader.fetched(fetch(1, 10), ends(10), &all_alive, 0).unwrap();
    let proposal = leader.fetched(fetch(2, 10), ends(10), &all_alive, 0).unwrap().proposal.unwrap();
    for old in [state(&[0], 6), state(&[0], 7)] {
        let _ = leader.updated(old, ends(10), &all_alive, 0);
        assert_eq!(leader.maximal_isr().len(), 3, "the proposal is still on its way");
    }
    let other = PartitionState { leader_epoch: LeaderEpoch(6), ..state(&[0], 9) };
    let _ = leader.updated(other, ends(10), &all_alive, 0);
    assert_eq!(leader.committed().partition_epoch, PartitionEpoch(7));
    // Broker 2 was removed from the replicas, broker 3 was added.
    let mut moved = state(&[0, 1], 9);
    moved.replicas = [0, 1, 3].map(BrokerId).to_vec();
    let _ = leader.updated(moved, ends(10), &all_alive, 0);
    assert_eq!(leader.maximal_isr(), [0, 1].map(BrokerId));
    assert_eq!(
        leader.fetched(fetch(2, 10), ends(10), &all_alive, 0),
        Err(ErrorCode::UnknownLeaderEpoch)
    );
    assert!(leader.fetched(fetch(3, 10), ends(10), &all_alive, 0).unwrap().proposal.is_some());
    let late = leader.answered(&proposal, Ok(state(&[0, 1, 2], 8)), ends(10), &all_alive, 0);
    assert_eq!(late, Outcome::default());
}

#[test]
fn a_former_registration_is_fenced() {
    let mut leader = leader_of(&[0, 1], 1, 0, 0);
    let newer = Fetched { broker_epoch: BrokerEpoch(30), ..fetch(1, 4) };
    let _ = leader.fetched(newer, ends(10), &all_alive, 0).unwrap();
    assert_eq!(
        leader.fetched(fetch(1, 10), ends(10), &all_alive, 0),
        Err(ErrorCode::NotLeaderOrFollower),
        "the leader met the new one"
    );
    let registered_anew =
        |id: BrokerId| all_alive(id).map(|peer| Peer { epoch: BrokerEpoch(40), ..peer });
    assert_eq!(
        leader.fetched(newer, ends(10), &registered_anew, 0),
        Err(ErrorCode::NotLeaderOrFollower),
        "the metadata says so"
    );
    assert_eq!(leader.high_watermark(), 4);
}

#[test]
fn an_unclean_leader_first_says_that_it_has_recovered() {
    let mut recovering = state(&[0], 7);
    recovering.recovering = true;
    let start = Start {
        own: BrokerId(0),
        own_epoch: BrokerEpoch(10),
        state: recovering,
        epoch_start: 3,
        high_watermark: 3,
        resumed: false,
        settings: Settings { min_isr: 1, lag_ms_max: LAG },
    };
    let mut leader = Leadership::begin(start, 0);
    assert_eq!(
        leader.fetched(fetch(1, 3), ends(3), &all_alive, 0).unwrap().proposal,
        None,
        "its ISR does not grow yet"
    );
    assert_eq!(leader.next_check_ms(3, 0), Some(0));
    let proposal = leader.check(ends(3), &all_alive, 0).proposal.unwrap();
    assert!(proposal.recovered && proposal.isr == [(BrokerId(0), BrokerEpoch(10))]);
    let next =
        leader.answered(&proposal, Ok(state(&[0], 8)), ends(3), &all_alive, 0).proposal.unwrap();
    assert_eq!((next.recovered, isr_of(Some(next.clone()))), (false, Some(vec![(0, 10), (1, 11)])));
}

#[test]
fn what_is_accepted_and_acknowledged() {
    // Committed ISR, min ISR, high watermark, whether acks=all may be appended, and whether offset
    // 5 is acknowledged.
    let rows: &[(&[i32], usize, i64, Result<(), ErrorCode>, Result<bool, ErrorCode>)] = &[
        (&[0, 1], 2, 5, Ok(()), Ok(true)),
        (&[0, 1], 2, 4, Ok(()), Ok(false)),
        (&[0], 2, 4, Err(ErrorCode::NotEnoughReplicas), Ok(false)),
        (
            &[0],
            2,
            5,
            Err(ErrorCode::NotEnoughReplicas),
            Err(ErrorCode::NotEnoughReplicasAfterAppend),
        ),
        (&[0, 1, 2], 9, 5, Ok(()), Ok(true)),
    ];
    for &(isr, min_isr, high_watermark, appends, acknowledges) in rows {
        let leader = leader_of(isr, min_isr, 0, high_watermark);
        assert_eq!(leader.accepts(true), appends);
        assert_eq!(leader.accepts(false), Ok(()));
        assert_eq!(leader.acknowledges(5), acknowledges, "{isr:?} {min_isr} {high_watermark}");
    }
}

#[test]
fn the_latest_offset_never_goes_back() {
    for (epoch_start, high_watermark, latest) in
        [(5, 4, Err(ErrorCode::OffsetNotAvailable)), (5, 5, Ok(5)), (5, 9, Ok(9)), (0, 0, Ok(0))]
    {
        assert_eq!(leader_of(&[0, 1], 1, epoch_start, high_watermark).latest_offset(), latest);
    }
}
