//! Settings that time an action of the log: flushes without a waiting request, and segments that
//! must be sealed.

use super::*;

fn opened(config: LogConfig) -> Opened {
    Opened::with(&Faulty::default(), config).unwrap()
}

/// Appends a batch of this many records.
fn append(opened: &mut Opened, records: i32, timestamp: i64) -> i64 {
    opened.append(batch(records, 10, timestamp, 0), 0).unwrap();
    opened.log.flushed_offset()
}

#[test]
fn a_flush_is_asked_for_after_so_many_records() {
    let mut opened = opened(LogConfig { flush_records: 5, ..config() });
    assert_eq!([4, 1, 3, 3, 1].map(|records| append(&mut opened, records, 0)), [0, 5, 5, 11, 11]);
}

#[test]
fn a_flush_is_due_after_some_time() {
    let mut opened = opened(LogConfig { flush_ms: 1, ..config() });
    append(&mut opened, 3, 0);
    // However slow the machine is, the flush comes, and comes again.
    while opened.log.flushed_offset() < 3 {
        std::thread::yield_now();
    }
    append(&mut opened, 2, 0);
    while opened.log.flushed_offset() < 5 {
        std::thread::yield_now();
    }
}

#[test]
fn without_a_setting_nothing_is_flushed() {
    let mut opened = opened(config());
    assert_eq!([9, 9].map(|records| append(&mut opened, records, 0)), [0, 0]);
    assert!(!opened.log.flush_scheduled.load(std::sync::atomic::Ordering::Acquire));
}

#[test]
fn what_must_be_compacted_in_time_is_sealed_in_time() {
    for (compact, segments) in [(false, 1), (true, 2)] {
        let mut opened = opened(LogConfig {
            compaction_lag_ms_max: 100,
            cleanup: Cleanup { delete: !compact, compact },
            ..config()
        });
        append(&mut opened, 1, 1_000);
        append(&mut opened, 1, 1_101);
        assert_eq!(opened.log.segments.load().len(), segments);
    }
}
