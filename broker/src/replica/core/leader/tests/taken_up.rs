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
