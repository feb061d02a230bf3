//! A leadership that resumes in another process.

use super::*;

#[test]
fn a_leadership_that_is_taken_up_again_waits_for_whom_the_process_before_asked_for() {
    let asked = |base| PendingProposal {
        leader_epoch: LeaderEpoch(5),
        base: PartitionEpoch(base),
        members: [(0, 10), (1, 11), (2, 12)]
            .map(|(id, epoch)| (BrokerId(id), BrokerEpoch(epoch)))
            .to_vec(),
    };
    let begin = |base| {
        let start = Start {
            own: BrokerId(0),
            own_epoch: BrokerEpoch(10),
            state: state(&[0, 1], 7),
            epoch_start: 10,
            high_watermark: 4,
            asked: Some(asked(base)),
            resumed: false,
            settings: Settings { min_isr: 1, lag_ms_max: LAG },
        };
        Leadership::begin(start, 0)
    };
    let mut leader = begin(8);
    assert_eq!(leader.maximal_isr(), [0, 1, 2].map(BrokerId));
    let _ = leader.fetched(fetch(1, 10), ends(10), &all_alive, 0).unwrap();
    assert_eq!(leader.high_watermark(), 4, "broker 2 may be a member by now");
    // The proposal builds on a later state than the known one, which says nothing about the
    // proposal.
    let _ = leader.updated(state(&[0, 1], 8), ends(10), &all_alive, 0);
    assert_eq!(leader.high_watermark(), 4);
    let _ = leader.updated(state(&[0, 1], 9), ends(10), &all_alive, LAG * 2);
    assert_eq!(leader.maximal_isr(), [0, 1].map(BrokerId));
    // Broker 2 has fetched, so the high watermark no longer waits in vain for it.
    let mut leader = begin(7);
    let _ = leader.fetched(fetch(1, 10), ends(10), &all_alive, 0).unwrap();
    assert!(leader.fetched(fetch(2, 10), ends(10), &all_alive, 0).unwrap().advanced);
    assert_eq!(leader.high_watermark(), 10);
    // The known state was committed after the proposal.
    let mut leader = begin(6);
    assert!(leader.fetched(fetch(1, 10), ends(10), &all_alive, 0).unwrap().advanced);
}

/// While the process was down, a controller may have elected a replica outside the ISR, uncleanly.
/// Such a leader does not fetch in the epoch of this one.
#[test]
fn a_role_that_no_controller_confirmed_waits_for_every_replica() {
    let begin = |replicas: &[i32]| {
        let mut state = state(&[0], 7);
        state.replicas = replicas.iter().copied().map(BrokerId).collect();
        let start = Start {
            own: BrokerId(0),
            own_epoch: BrokerEpoch(10),
            state,
            epoch_start: 10,
            high_watermark: 4,
            asked: None,
            resumed: true,
            settings: Settings { min_isr: 1, lag_ms_max: LAG },
        };
        Leadership::begin(start, 0)
    };
    let mut leader = begin(&[0, 1, 2]);
    let proposal = leader.check(ends(10), &all_alive, 0).proposal.unwrap();
    assert_eq!(proposal.isr.len(), 1, "the controller is asked to commit the ISR once more");
    assert_eq!(leader.high_watermark(), 4, "another broker may lead by now");
    let committed =
        PartitionState { partition_epoch: PartitionEpoch(8), ..leader.committed().clone() };
    assert!(leader.answered(&proposal, Ok(committed), ends(10), &all_alive, 0).advanced);
    // All of them fetch in this epoch.
    let mut leader = begin(&[0, 1, 2]);
    let _ = leader.fetched(fetch(1, 10), ends(10), &all_alive, 0).unwrap();
    assert!(leader.fetched(fetch(2, 10), ends(10), &all_alive, 0).unwrap().advanced);
    // There is no other replica.
    assert!(begin(&[0]).grew(ends(10), &all_alive, 0));
}
