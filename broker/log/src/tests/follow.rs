//! A follower's log: what it accepts from a leader, what it refuses, and how it truncates.

use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::super::faulty::Done;
use super::*;

/// A batch as a leader sends it.
fn sent(base_offset: i64, epoch: i32, records: i32, salt: u8) -> BytesMut {
    let mut bytes = batch(records, 100, 1_000 + base_offset, salt);
    batch::set_offset_and_epoch(&mut bytes, base_offset, LeaderEpoch(epoch));
    bytes
}

/// A follower's log of ten batches of two records each, in epochs 0 and 3, over several segments.
fn follower() -> (Faulty, Opened) {
    let fs = Faulty::default();
    let mut opened = Opened::new(&fs).unwrap();
    for index in 0..10_u8 {
        let epoch = if index < 5 { 0 } else { 3 };
        let end = opened.writer.append_as_follower(
            &sent(i64::from(index) * 2, epoch, 2, index),
            LeaderEpoch(3),
            1_000,
        );
        assert_eq!(end, Ok(i64::from(index) * 2 + 2));
    }
    assert!(opened.log.segments.load().len() > 1);
    (fs, opened)
}

#[test]
fn batches_are_taken_as_they_are() {
    let (_fs, mut opened) = follower();
    let mut two = sent(20, 3, 2, 1);
    // A gap that compaction left on the leader.
    two.extend_from_slice(&sent(30, 4, 1, 2));
    let cut_off = sent(31, 4, 3, 3);
    two.extend_from_slice(&cut_off[..cut_off.len() - 1]);
    assert_eq!(
        opened.writer.append_as_follower(&two, LeaderEpoch(4), 1_000),
        Ok(31),
        "the last one is not whole"
    );
    assert_eq!(opened.base_offsets().last(), Some(&30));
    let ends =
        [0, 3, 4].map(|epoch| opened.log.end_offset_for_epoch(LeaderEpoch(epoch)).unwrap().offset);
    assert_eq!(ends, [10, 30, 31]);
    let batches = opened.batches().unwrap();
    assert_eq!(batches[3].1, &sent(6, 0, 2, 3)[..], "byte by byte");
}

/// A follower gets a compacted log, whose first record lies behind the log start offset: compaction
/// does not move that, and a crash must not.
#[test]
fn a_log_without_records_at_its_start_begins_where_it_began() {
    for checkpoint in [false, true] {
        let fs = Faulty::default();
        let mut opened = Opened::new(&fs).unwrap();
        if checkpoint {
            opened.dir.checkpoint().unwrap();
        }
        opened.writer.append_as_follower(&sent(39, 2, 2, 1), LeaderEpoch(2), 1_000).unwrap();
        opened.flush();
        for fs in [fs.after_kill(), fs.after_crash(1)] {
            let again = Opened::new(&fs).unwrap();
            assert_eq!((again.log.log_start_offset(), again.log.log_end_offset()), (0, 41));
            assert_eq!(again.log.read(5, i64::MAX, 1, true).unwrap().unwrap().base_offset, 39);
            assert_eq!(again.log.end_offset_for_epoch(LeaderEpoch(1)).unwrap().offset, 39);
        }
        // Where the log does begin later, it does so after a crash as well.
        opened.log.advance_high_watermark(41);
        opened.writer.advance_log_start_offset(20).unwrap();
        opened.flush();
        assert_eq!(Opened::new(&fs.after_kill()).unwrap().log.log_start_offset(), 20);
    }
}

#[test]
fn what_a_leader_cannot_have_sent_is_refused_and_harms_nothing() {
    let (_fs, mut opened) = follower();
    let mut damaged = sent(20, 3, 2, 1);
    *damaged.last_mut().unwrap() ^= 1;
    let mut follow =
        |bytes: &[u8], epoch| opened.writer.append_as_follower(bytes, LeaderEpoch(epoch), 1_000);
    assert!(matches!(follow(&damaged, 3), Err(FollowError::Corrupt(BatchError::Crc { .. }))));
    let first = follow(&sent(18, 3, 4, 1), 3);
    assert_eq!(first, Err(FollowError::Offset { first: 18, last: 21, end: 20 }));
    let older = follow(&sent(20, 2, 1, 1), 3);
    assert_eq!(older, Err(FollowError::Epoch { epoch: LeaderEpoch(2), latest: LeaderEpoch(3) }));
    // The sender has lost the leadership since: left for the next fetch.
    let later = follow(&sent(20, 4, 1, 1), 3);
    assert!(matches!(later, Err(FollowError::Later { .. })), "{later:?}");
    // The batch before the fault is appended.
    let mut half = sent(20, 3, 1, 1);
    half.extend_from_slice(&damaged);
    assert!(follow(&half, 3).is_err());
    assert_eq!((opened.log.log_end_offset(), opened.dir.failure()), (21, None));
}

#[test]
fn a_follower_knows_the_producers_when_it_leads() {
    let (_fs, mut opened) = follower();
    let of_producer = |sequence, base_offset| {
        let mut builder = BatchBuilder::new(0).producer(ProducerId(9), ProducerEpoch(0), sequence);
        builder.append(0, 1_000, None, None, []);
        let mut bytes = builder.build(0).unwrap();
        batch::set_offset_and_epoch(&mut bytes, base_offset, LeaderEpoch(3));
        bytes
    };
    for sequence in 0..3 {
        let bytes = of_producer(sequence, i64::from(sequence) + 20);
        opened.writer.append_as_follower(&bytes, LeaderEpoch(3), 1_000).unwrap();
    }
    assert_eq!(opened.append(of_producer(2, 0), 4).unwrap().first_offset, 22, "a duplicate");
    // The third one is cut off and fetched again.
    assert_eq!(opened.writer.truncate_to(22).unwrap(), 22);
    assert!(matches!(opened.append(of_producer(3, 0), 4), Err(AppendError::Producer(_))), "a gap");
    assert_eq!(opened.append(of_producer(2, 0), 4).unwrap().first_offset, 22);
}

#[test]
fn a_cut_takes_whole_batches_and_whatever_knows_of_them() {
    for (offset, end, epoch) in
        [(20, 20, 3), (17, 16, 3), (16, 16, 3), (11, 10, 0), (3, 2, 0), (1, 0, -1), (0, 0, -1)]
    {
        let (fs, mut opened) = follower();
        opened.flush();
        opened.log.advance_high_watermark(20);
        opened.dir.checkpoint().unwrap();
        assert_eq!(opened.writer.truncate_to(offset).unwrap(), end, "at {offset}");
        let log = &opened.log;
        assert_eq!(
            (log.log_end_offset(), log.flushed_offset(), log.high_watermark()),
            (end, end, end)
        );
        assert!(log.checkpointed_offset() <= end);
        assert_eq!(log.latest_epoch().map_or(-1, |epoch| epoch.0), epoch);
        assert!(opened.base_offsets().iter().copied().eq((0..end).step_by(2)));
        // It continues with other batches, and finds them by time and offset.
        let bytes = sent(end, 7, 3, 77);
        assert_eq!(opened.writer.append_as_follower(&bytes, LeaderEpoch(7), 2_000), Ok(end + 3));
        opened.flush();
        let found = opened.log.offset_for_timestamp(1_000 + end, i64::MAX).unwrap().unwrap();
        assert_eq!((found.offset, found.leader_epoch), (end, LeaderEpoch(7)));
        let again = Opened::new(&fs.after_crash(offset as u64)).unwrap();
        assert_eq!(again.log.log_end_offset(), end + 3, "nothing of what was cut off comes back");
        assert_eq!(again.batches().unwrap().last().unwrap().1, &bytes[..]);
    }
}

#[test]
fn a_log_that_is_given_up_goes_on_elsewhere() {
    for offset in [500, 20, 10, 4, 3, 0] {
        let (fs, mut opened) = follower();
        opened.flush();
        opened.dir.checkpoint().unwrap();
        assert_eq!(opened.writer.truncate_fully_and_start_at(offset).unwrap(), offset);
        let offsets = |log: &LogReader| {
            (
                log.log_start_offset(),
                log.log_end_offset(),
                log.high_watermark(),
                log.flushed_offset(),
            )
        };
        assert_eq!(offsets(&opened.log), (offset, offset, offset, offset));
        assert_eq!((opened.log.latest_epoch(), opened.log.size_bytes()), (None, 0));
        let again = Opened::new(&fs.after_crash(offset as u64)).unwrap();
        assert_eq!(offsets(&again.log), (offset, offset, offset, offset), "also after a crash");
        assert_eq!(again.log.latest_epoch(), None);
        let bytes = sent(offset, 5, 2, 9);
        assert_eq!(opened.writer.append_as_follower(&bytes, LeaderEpoch(5), 1_000), Ok(offset + 2));
        assert_eq!(opened.batches().unwrap(), [(offset, bytes.to_vec())]);
    }
}

#[test]
fn a_log_that_never_held_anything_remembers_where_it_goes_on() {
    let fs = Faulty::default();
    let mut opened = Opened::new(&fs).unwrap();
    assert_eq!(opened.writer.truncate_fully_and_start_at(500).unwrap(), 500);
    for fs in [fs.after_crash(1), fs.after_crash(2)] {
        let mut again = Opened::new(&fs).unwrap();
        assert_eq!(
            (again.log.log_start_offset(), again.log.log_end_offset()),
            (500, 500),
            "after a crash"
        );
        assert_eq!(
            again.writer.append_as_follower(&sent(500, 5, 2, 9), LeaderEpoch(5), 1_000),
            Ok(502)
        );
    }
}

#[test]
fn the_recovery_point_goes_down_before_the_first_byte_goes() {
    let (fs, mut opened) = follower();
    opened.flush();
    opened.dir.checkpoint().unwrap();
    fs.take_journal();
    opened.writer.truncate_to(5).unwrap();
    let journal = fs.take_journal();
    let first = |wanted: &dyn Fn(&(Done, std::path::PathBuf)) -> bool| {
        journal.iter().position(wanted).unwrap()
    };
    let lowered = first(&|(done, path)| *done == Done::SyncDir && path == Path::new(ROOT));
    let cut = first(&|(done, path)| {
        matches!(done, Done::Remove | Done::Truncate)
            && path.starts_with(DIR)
            && path.extension().is_some_and(|it| it == "log")
    });
    assert!(lowered < cut, "{journal:?}");
    // A cut after the checkpoint needs no new one.
    opened.writer.append_as_follower(&sent(4, 9, 4, 1), LeaderEpoch(9), 1_000).unwrap();
    fs.take_journal();
    opened.writer.truncate_to(4).unwrap();
    assert!(fs.take_journal().iter().all(|(_, path)| path.starts_with(DIR)));
}

/// A leader epoch is not covered by the checksum. A follower that takes nothing of an answer must
/// say so: its fetcher would ask again at once, for ever.
#[test]
fn a_batch_of_a_later_epoch_is_refused_where_nothing_comes_before_it() {
    let (_fs, mut opened) = follower();
    let later = sent(20, 1 << 20, 1, 7);
    let refused = opened.writer.append_as_follower(&later, LeaderEpoch(3), 1_000);
    let (epoch, fetched) = (LeaderEpoch(1 << 20), LeaderEpoch(3));
    assert_eq!(refused, Err(FollowError::Later { epoch, fetched }));
    let mut two = sent(20, 3, 1, 7);
    two.extend_from_slice(&sent(21, 4, 1, 8));
    let taken = opened.writer.append_as_follower(&two, LeaderEpoch(3), 1_000);
    assert_eq!(taken, Ok(21), "the other comes with the next fetch");
    let cut_off = &sent(21, 3, 1, 9)[..70];
    let refused = opened.writer.append_as_follower(cut_off, LeaderEpoch(3), 1_000);
    assert!(matches!(refused, Err(FollowError::Corrupt(_))), "{refused:?}");
    assert_eq!(opened.dir.failure(), None);
}
