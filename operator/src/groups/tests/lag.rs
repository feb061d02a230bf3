use serde_json::json;

use super::super::lag::{lag, outside, two_digits};
use super::*;

#[test]
fn messages_are_counted_from_the_committed_offset() {
    let group = observed("Stable", 2, &[(Some(5), 0, 10), (Some(10), 0, 10), (None, 3, 9)]);
    let all = lag(&group, &[], 0);
    assert_eq!((all.messages, all.partitions, all.partitions_behind), (5, 2, 1));
    let worst = all.worst.unwrap();
    assert_eq!(
        (worst.partition, worst.messages, worst.client_id.as_deref()),
        (0, 5, Some("client-0"))
    );
    // All partitions of a named topic count.
    let named = lag(&group, &["t".to_owned()], 0);
    assert_eq!((named.messages, named.partitions, named.worst.unwrap().partition), (11, 3, 2));
    // Deleted records no longer count, nor do those beyond the end.
    assert_eq!(
        lag(&observed("Empty", 0, &[(Some(2), 8, 10), (Some(99), 0, 10)]), &[], 0).messages,
        2
    );
}

#[test]
fn seconds_are_the_age_of_the_oldest_record() {
    let mut group = observed("Stable", 1, &[(Some(5), 0, 10), (Some(7), 0, 10)]);
    assert_eq!(lag(&group, &[], 9_000).seconds, None, "not looked up yet");
    for (log, at) in group.partitions.values_mut().zip([4_000, 6_000]) {
        log.oldest_ms = Some(at);
    }
    assert_eq!(lag(&group, &[], 9_999).seconds, Some(5));
    assert_eq!(lag(&group, &[], 0).seconds, Some(0), "from the future");
    assert_eq!(lag(&observed("Stable", 1, &[(Some(10), 0, 10)]), &[], 9_000).seconds, Some(0));
    let rounded =
        [(7, 7), (99, 99), (123, 120), (86_399, 86_000), (i64::MAX, 9_200_000_000_000_000_000)];
    for (seconds, shown) in rounded {
        assert_eq!(two_digits(seconds), shown);
    }
}

#[test]
fn offsets_outside_of_the_log_are_told() {
    let said = |committed| {
        outside(&observed("Empty", 0, &[(Some(committed), 5, 10)]), &[]).map(|(reason, _)| reason)
    };
    assert_eq!([4, 5, 10, 11].map(said), [Some("RecordsLost"), None, None, Some("BeyondEnd")]);
}

#[test]
fn the_policy_is_broken_after_its_time_and_stays_so_until_it_is_kept() {
    let group = resource(json!({"lagPolicy": {"maxMessages": 3, "forSeconds": 10}}));
    let behind = observed("Stable", 1, &[(Some(0), 0, 10)]);
    let caught_up = observed("Stable", 1, &[(Some(9), 0, 10)]);
    let mut memory = Memory::default();
    let mut status = ConsumerGroupStatus::default();
    let mut at = |observed: &Observed, now_ms: i64, memory: &mut Memory| {
        status = decide(&group, &status, observed, memory, now_ms).status;
        says(&status, "LagWithinPolicy")
    };
    assert_eq!(at(&caught_up, 0, &mut memory), "True/WithinPolicy");
    assert_eq!(at(&behind, 1_000, &mut memory), "True/LagRising");
    assert_eq!(at(&behind, 10_999, &mut memory), "True/LagRising");
    assert_eq!(at(&behind, 11_000, &mut memory), "False/LagExceeded");
    // A restarted operator does not report the policy as kept.
    assert_eq!(at(&behind, 12_000, &mut Memory::default()), "False/LagExceeded");
    assert_eq!(at(&caught_up, 13_000, &mut memory), "True/WithinPolicy");
    assert_eq!(at(&behind, 14_000, &mut memory), "True/LagRising");
}
