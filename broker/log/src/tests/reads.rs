//! The results of reads and lookups: bounds, whole batches, holes, times, epochs, and the state
//! after truncation and deletion.

use super::super::reader::Tail;
use super::*;

/// Six batches of three records, two in a segment, with a new epoch from the fourth on. Timestamps
/// are 100, 200, ..., except that the second one is the largest.
fn log() -> (Faulty, Opened) {
    let fs = Faulty::default();
    let mut opened = Opened::new(&fs).unwrap();
    for (index, timestamp) in [100, 900, 300, 400, 500, 600].into_iter().enumerate() {
        opened.append(batch(3, 280, timestamp, index as u8), (index >= 3).into()).unwrap();
    }
    opened.log.advance_high_watermark(18);
    let bases: Vec<_> =
        opened.log.segments.load().iter().map(|segment| segment.base_offset()).collect();
    assert_eq!(bases, [0, 6, 12]);
    (fs, opened)
}

#[test]
fn a_read_gives_whole_batches_within_its_bounds() {
    let (_, opened) = log();
    let size = opened.log.read(0, 3, 1, true).unwrap().unwrap().length;
    let read = |from, bound, bytes_max, at_least_one| {
        let slice = opened.log.read(from, bound, bytes_max, at_least_one).unwrap();
        slice.map(|slice| (slice.base_offset, slice.length))
    };
    let table = [
        (
            (0, 18, 1, true),
            Some((0, size)),
            "the first batch, though it is larger than what was asked for",
        ),
        ((0, 18, 1, false), None, "not even one"),
        ((1, 18, size, false), Some((0, size)), "the batch that holds the offset"),
        ((2, 18, 10 * size, true), Some((0, 2 * size)), "not over the end of a segment"),
        ((3, 18, 10 * size, true), Some((3, size)), ""),
        ((0, 3, 10 * size, true), Some((0, size)), "not over the bound"),
        ((6, 9, 10 * size, true), Some((6, size)), "not over the bound in another segment"),
        ((3, 3, 10 * size, true), None, "at the bound"),
        ((5, 3, 10 * size, true), None, "behind the bound"),
        ((18, 100, 10 * size, true), None, "at the end"),
        (
            (0, 18, size + size / 2, true),
            Some((0, size + size / 2)),
            "the last batch may be cut off",
        ),
    ];
    for ((from, bound, bytes_max, at_least_one), expected, why) in table {
        assert_eq!(read(from, bound, bytes_max, at_least_one), expected, "{from}..{bound} {why}");
    }
    for asked in [-1, 19, i64::MAX] {
        let refused = opened.log.read(asked, i64::MAX, 1, true);
        assert!(
            matches!(refused, Err(ReadError::OutOfRange { asked: it, start: 0, end: 18 }) if it == asked),
            "{refused:?}"
        );
    }
}

#[test]
fn times_are_found() {
    let (fs, mut opened) = log();
    opened.close().unwrap();
    drop(opened);
    // Both from memory and from the files.
    for kept in [false, true] {
        let fs = if kept { fs.after_kill() } else { fs.after_crash(0) };
        let opened = Opened::new(&fs).unwrap();
        let found = |timestamp, bound| {
            opened
                .log
                .offset_for_timestamp(timestamp, bound)
                .unwrap()
                .map(|it| (it.offset, it.timestamp, it.leader_epoch.0))
        };
        assert_eq!([found(-1, 18), found(0, 18), found(100, 18)], [Some((0, 100, 0)); 3]);
        assert_eq!(
            [found(101, 18), found(700, 18), found(900, 18)],
            [Some((3, 900, 0)); 3],
            "the first that is not older"
        );
        assert_eq!([found(901, 18), found(900, 3)], [None; 2], "none is, or none before the bound");
        let newest = opened.log.offset_of_max_timestamp(18).unwrap().unwrap();
        assert_eq!((newest.offset, newest.timestamp), (3, 900));
    }
}

#[test]
fn what_is_deleted_under_a_read_is_no_error() {
    for _ in 0..10 {
        let mut opened = Opened::new(&Faulty::default()).unwrap();
        for round in 0..60 {
            opened.append(batch(1, 900, round, 1), 0).unwrap();
        }
        opened.log.advance_high_watermark(60);
        let log = Arc::clone(&opened.log);
        std::thread::scope(|scope| {
            let deleting = scope.spawn(|| {
                (1..60).try_for_each(|offset| opened.writer.advance_log_start_offset(offset))
            });
            while !deleting.is_finished() {
                let read = log.read(log.log_start_offset(), 60, 1_000, true);
                assert!(matches!(read, Ok(_) | Err(ReadError::OutOfRange { .. })), "{read:?}");
                assert!(
                    log.offset_for_timestamp(0, 60).is_ok()
                        && log.offset_of_max_timestamp(60).is_ok()
                );
            }
            deleting.join().unwrap().unwrap();
        });
    }
}

#[test]
fn where_no_record_has_a_timestamp_the_first_is_the_newest() {
    let mut opened = Opened::new(&Faulty::default()).unwrap();
    assert_eq!(opened.log.offset_of_max_timestamp(0).unwrap(), None, "there is none");
    for _ in 0..3 {
        opened.append(batch(2, 900, -1, 1), 0).unwrap();
    }
    let newest = |opened: &Opened, bound| {
        let found = opened.log.offset_of_max_timestamp(bound).unwrap();
        found.map(|found| (found.offset, found.timestamp))
    };
    assert!(opened.log.segments.load().len() > 1);
    assert_eq!([newest(&opened, 6), newest(&opened, 0)], [Some((0, -1)), None]);
    opened.append(batch(2, 900, 7, 1), 0).unwrap();
    assert_eq!(newest(&opened, 8), Some((6, 7)));
}

#[test]
fn epochs_end_where_the_next_begins() {
    let (fs, mut opened) = log();
    opened.close().unwrap();
    drop(opened);
    let mut opened = Opened::new(&fs).unwrap();
    let end = |opened: &Opened, epoch| {
        opened.log.end_offset_for_epoch(LeaderEpoch(epoch)).map(|end| (end.epoch.0, end.offset))
    };
    assert_eq!(
        [end(&opened, 0), end(&opened, 1), end(&opened, 2)],
        [Some((0, 9)), Some((1, 18)), None]
    );
    opened.append(batch(1, 1, 1, 1), 5).unwrap();
    assert_eq!(
        [end(&opened, 1), end(&opened, 4), end(&opened, 5)],
        [Some((1, 18)), Some((1, 18)), Some((5, 19))]
    );
    assert_eq!(opened.log.latest_epoch(), Some(LeaderEpoch(5)));
}

#[test]
fn an_epoch_in_which_nothing_is_written_ends_where_it_began() {
    const FILE: &str = "/data/orders-0/leader-epoch-checkpoint";
    let (fs, mut opened) = log();
    let ends = |opened: &Opened| {
        [1, 2, 3, 4].map(|epoch| {
            opened.log.end_offset_for_epoch(LeaderEpoch(epoch)).map(|end| (end.epoch.0, end.offset))
        })
    };
    for epoch in [2, 3] {
        opened.writer.begin_epoch(LeaderEpoch(epoch));
    }
    assert_eq!(ends(&opened), [Some((1, 18)), Some((1, 18)), Some((3, 18)), None]);
    // The next leader does not have the epoch.
    assert_eq!(opened.writer.truncate_to(18).unwrap(), 18);
    assert_eq!(opened.log.latest_epoch(), Some(LeaderEpoch(1)));
    // An epoch reaches the disk with its first record.
    opened.writer.begin_epoch(LeaderEpoch(4));
    opened.flush();
    opened.dir.checkpoint().unwrap();
    let text = |fs: &Faulty| String::from_utf8(fs.bytes(FILE).unwrap()).unwrap();
    assert!(text(&fs).starts_with("0\n2\n0 0\n1 9\nstart "), "{}", text(&fs));
    opened.append(batch(1, 1, 1, 1), 4).unwrap();
    opened.flush();
    assert!(text(&fs).starts_with("0\n3\n0 0\n1 9\n4 18\nstart "), "{}", text(&fs));
    let again = Opened::new(&fs.after_crash(0)).unwrap();
    assert_eq!(ends(&again), [Some((1, 18)), Some((1, 18)), Some((1, 18)), Some((4, 19))]);
}

#[test]
fn an_epoch_whose_first_record_is_published_while_a_flush_runs_comes_to_the_disk_with_the_next() {
    let (fs, mut opened) = log();
    opened.append(batch(1, 1, 1, 1), 1).unwrap();
    opened.flush();
    opened.writer.begin_epoch(LeaderEpoch(4));
    // Its first record is being published: the flush takes the mark, and the log does not end after
    // the record yet.
    opened.log.unsynced.epochs.store(true, std::sync::atomic::Ordering::Release);
    opened.flush();
    let tail = *opened.log.tail.read();
    *opened.log.tail.write() = Tail { offset: 20, ..tail };
    opened.flush();
    let text =
        String::from_utf8(fs.bytes("/data/orders-0/leader-epoch-checkpoint").unwrap()).unwrap();
    assert!(text.starts_with("0\n3\n0 0\n1 9\n4 19\nstart "), "{text}");
}

#[test]
fn a_log_that_was_emptied_remembers_where_it_goes_on_whoever_leads() {
    let (fs, mut opened) = log();
    opened.writer.advance_log_start_offset(18).unwrap();
    opened.writer.begin_epoch(LeaderEpoch(7));
    opened.flush();
    // Another broker leads, and has no record of that epoch either.
    opened.writer.truncate_to(18).unwrap();
    assert_eq!(opened.log.latest_epoch(), None);
    opened.flush();
    for fs in [fs.after_kill(), fs.after_crash(0)] {
        let again = Opened::new(&fs).unwrap();
        assert_eq!((again.log.log_start_offset(), again.log.log_end_offset()), (18, 18));
    }
}

#[test]
fn deleted_records_cannot_be_read_and_held_files_can() {
    let (fs, mut opened) = log();
    let held = opened.log.read(0, 18, 1, true).unwrap().unwrap();
    opened.writer.advance_log_start_offset(7).unwrap();
    assert!(matches!(
        opened.log.read(6, 18, 1, true),
        Err(ReadError::OutOfRange { asked: 6, start: 7, end: 18 })
    ));
    assert_eq!(
        opened.base_offsets(),
        [6, 9, 12, 15],
        "the batch that holds the first offset is whole"
    );
    assert!(fs.bytes("/data/orders-0/00000000000000000000.log").is_none());
    let mut bytes = vec![0; held.length];
    held.file.read_exact_at(&mut bytes, held.position).unwrap();
    assert_eq!(batch::checked(&bytes).unwrap().base_offset, 0);
    opened.writer.advance_log_start_offset(3).unwrap();
    assert_eq!(opened.log.log_start_offset(), 7, "it is never lowered");
    opened.writer.advance_log_start_offset(i64::MAX).unwrap();
    assert_eq!(
        (opened.log.log_start_offset(), opened.log.log_end_offset()),
        (18, 18),
        "at most to the high watermark"
    );
    assert_eq!(opened.base_offsets(), Vec::<i64>::new());
    opened.dir.checkpoint().unwrap();
    let again = Opened::new(&fs.after_kill()).unwrap();
    assert_eq!((again.log.log_start_offset(), again.log.log_end_offset()), (18, 18));
    assert_eq!(again.log.end_offset_for_epoch(LeaderEpoch(1)).unwrap().offset, 18);
}

#[test]
fn reads_go_on_over_holes() {
    // The state after a compaction: a batch is gone within a segment, and the whole next segment.
    let (fs, opened) = log();
    opened.dir.checkpoint().unwrap();
    let fs = fs.after_kill();
    fs.edit("/data/orders-0/00000000000000000000.log", |bytes| {
        drop(bytes.drain(bytes.len() / 2..))
    });
    fs.put("/data/orders-0/00000000000000000006.log", b"");
    let opened = Opened::new(&fs).unwrap();
    assert_eq!((opened.log.log_start_offset(), opened.log.log_end_offset()), (0, 18));
    assert_eq!(opened.base_offsets(), [0, 12, 15]);
    for from in 3..12 {
        assert_eq!(opened.log.read(from, 18, 1, true).unwrap().unwrap().base_offset, 12, "{from}");
    }
    assert_eq!(opened.log.offset_for_timestamp(200, 18).unwrap().unwrap().offset, 12);
}

#[test]
fn a_log_keeps_its_end_when_all_of_it_is_old() {
    let fs = Faulty::default();
    let mut opened =
        Opened::with(&fs, LogConfig { retention_ms: Some(1_000), ..config() }).unwrap();
    for index in 0..6 {
        opened.append(batch(3, 280, 500, index), 0).unwrap();
    }
    opened.log.advance_high_watermark(18);
    assert_eq!(opened.writer.apply_retention(10_000).unwrap(), 3);
    assert_eq!((opened.log.log_start_offset(), opened.log.log_end_offset()), (18, 18));
    opened.settle();
    for seed in 0..20 {
        let mut left = Opened::new(&fs.after_crash(seed)).unwrap();
        assert_eq!((left.log.log_start_offset(), left.log.log_end_offset()), (18, 18), "{seed}");
        assert_eq!(left.append(batch(1, 1, 1, 1), 0).unwrap().first_offset, 18);
    }
}

#[test]
fn old_and_large_segments_are_rolled() {
    let fs = Faulty::default();
    let mut opened = Opened::with(&fs, LogConfig { segment_ms: 1_000, ..config() }).unwrap();
    let mut append = |timestamp, now_ms| {
        let result = opened.writer.append_as_leader(
            &mut [prepared(batch(1, 10, timestamp, 0))],
            LeaderEpoch(0),
            now_ms,
        );
        result.into_iter().next().unwrap().unwrap();
        opened.log.segments.load().len()
    };
    assert_eq!(
        [append(5_000, 0), append(6_000, 10), append(6_001, 20)],
        [1, 1, 2],
        "by the records' time"
    );
    let mut many = vec![
        prepared(batch(1, 900, 6_001, 0)),
        prepared(batch(1, 900, 6_001, 1)),
        prepared(batch(1, 900, 6_001, 2)),
    ];
    let results = opened.writer.append_as_leader(&mut many, LeaderEpoch(0), 30);
    let offsets: Vec<_> = results.into_iter().map(|result| result.unwrap().first_offset).collect();
    assert_eq!(
        (offsets, opened.log.segments.load().len()),
        (vec![3, 4, 5], 3),
        "within one run of appends too"
    );
    opened.settle();
}

/// `LogConfig.randomSegmentJitter`: the jitter is a part of the time that a segment lives.
#[test]
fn a_jitter_longer_than_a_segment_lives_rolls_not_for_each_batch() {
    let fs = Faulty::default();
    let long = LogConfig { segment_ms: 1_000_000, segment_jitter_ms: i64::MAX, ..config() };
    let mut opened = Opened::with(&fs, long).unwrap();
    for now_ms in 0..5 {
        let mut batches = [prepared(batch(1, 10, 5_000 + now_ms, 0))];
        let results = opened.writer.append_as_leader(&mut batches, LeaderEpoch(0), now_ms);
        results.into_iter().next().unwrap().unwrap();
    }
    assert_eq!(opened.log.segments.load().len(), 1);
    opened.settle();
}
