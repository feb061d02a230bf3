//! Which deletions are allowed, step by step.

use weir_protocol::types::{BrokerId, LeaderEpoch, PartitionEpoch};

use super::*;
use crate::topics::topic_id;

/// A leader's log of this many records of one epoch.
fn log_of(records: i64) -> Log {
    let mut log = Log::default();
    for value in 0..records {
        log.append(Record {
            epoch: LeaderEpoch(0),
            producer: 1,
            sequence: -1,
            value: value as u64,
        });
    }
    log.flush();
    log
}

/// Broker 0 leads, and `committed` of its records are committed.
fn led(committed: i64) -> Checks {
    let mut checks = Checks::new(&Plan::new(1, None), None);
    let state = Partition::new(vec![BrokerId(0), BrokerId(1)], vec![BrokerId(0), BrokerId(1)]);
    checks.committed(0, topic_id(0, 0), &state, &|_| unreachable!("no election is unclean"));
    checks.began(0, topic_id(0, 0), 0, 0, &Log::default());
    checks.high_watermark(0, topic_id(0, 0), 0, 0, true, &Log::default());
    checks.high_watermark(0, topic_id(0, 0), 0, committed, true, &log_of(committed));
    checks
}

/// Broker 1, which has all records committed so far, was elected uncleanly. Neither it nor broker 0
/// knows that yet, and broker 0 continues to lead up to this high watermark.
fn deposed(committed: i64, high_watermark: i64) -> Checks {
    let mut checks = led(committed);
    let state = Partition {
        leader_epoch: LeaderEpoch(1),
        partition_epoch: PartitionEpoch(1),
        recovering: true,
        ..Partition::new(vec![BrokerId(0), BrokerId(1)], vec![BrokerId(1)])
    };
    let log = log_of(committed);
    checks.committed(0, topic_id(0, 0), &state, &|_| (&log, 0));
    checks.high_watermark(0, topic_id(0, 0), 0, high_watermark, true, &log_of(high_watermark));
    assert_eq!(checks.ledger(0).records().len() as i64, committed);
    checks
}

fn is_broken(mut checks: Checks, epoch: i32, start: i64, leads: bool) -> bool {
    checks.deleted(0, topic_id(0, 0), epoch, start, leads);
    checks.verdict.failure.is_some()
}

#[test]
fn only_what_is_committed_is_deleted() {
    for leads in [true, false] {
        assert!(!is_broken(led(5), 0, 5, leads));
        assert!(is_broken(led(5), 0, 6, leads));
    }
}

#[test]
fn who_believes_a_deposed_leader_deletes_no_more_than_that_one_took_to_be_committed() {
    assert!(!is_broken(deposed(5, 8), 0, 8, true));
    assert!(is_broken(deposed(5, 8), 0, 9, true));
    // A follower keeps its high watermark when it starts to follow the new leader.
    for epoch in [0, 1] {
        assert!(!is_broken(deposed(5, 8), epoch, 8, false));
        assert!(is_broken(deposed(5, 8), epoch, 9, false));
    }
    assert!(is_broken(deposed(5, 8), 1, 6, true), "the new leader itself is not excused");
}
