//! A leadership that resumes in another process.

use super::*;

/// A proposal of the process before may have added a replica to the ISR, which was elected then, or
/// a replica outside the ISR was elected uncleanly. Such a leader does not fetch in the epoch of
/// this one.
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
