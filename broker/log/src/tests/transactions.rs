//! Transactions on disk: the last stable offset and the aborted ones, known again after a stop, a
//! crash and a truncation.

use std::sync::atomic::{AtomicBool, Ordering};

use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::super::producers::{Marker, ProducerError};
use super::*;

fn data(producer: i64, epoch: i16, sequence: i32) -> BytesMut {
    let mut builder = BatchBuilder::new(0)
        .producer(ProducerId(producer), ProducerEpoch(epoch), sequence)
        .transactional();
    builder.append(0, 1_000, None, Some(&[7; 200]), []);
    builder.build(0).unwrap()
}

fn marker(producer: i64, epoch: i16, commit: bool, transaction_version: i8) -> Prepared {
    let marker = Marker {
        producer: ProducerId(producer),
        epoch: ProducerEpoch(epoch),
        coordinator_epoch: 3,
        commit,
        transaction_version,
    };
    Prepared::marker(marker, 1_000).unwrap()
}

impl Opened {
    /// Appends a batch of a transaction; the first one is verified.
    fn send(&mut self, producer: i64, epoch: i16, sequence: i32) -> Result<i64, AppendError> {
        let (id, epoch_of) = (ProducerId(producer), ProducerEpoch(epoch));
        let guard = self.writer.ask_to_verify(id, epoch_of, sequence, true, 1_000)?;
        let mut prepared = prepared(data(producer, epoch, sequence));
        prepared.origin = Origin::Client(guard);
        self.put(prepared)
    }

    fn end(&mut self, producer: i64, epoch: i16, commit: bool) -> Result<i64, AppendError> {
        self.put(marker(producer, epoch, commit, 2))
    }

    fn put(&mut self, prepared: Prepared) -> Result<i64, AppendError> {
        let result = self.writer.append_as_leader(&mut [prepared], LeaderEpoch(1), 1_000).remove(0);
        self.settle();
        self.log.advance_high_watermark(self.log.log_end_offset());
        result.map(|info| info.first_offset)
    }

    pub(super) fn stable(&mut self) -> i64 {
        self.writer.load_transactions(1_000).unwrap();
        self.log.advance_high_watermark(self.log.log_end_offset());
        self.log.last_stable_offset().unwrap()
    }

    fn aborted(&self) -> Vec<(i64, i64, i64)> {
        let found = self.log.aborted_transactions(self.log.log_start_offset(), i64::MAX).unwrap();
        found.iter().map(|it| (it.producer.0, it.first_offset, it.last_offset)).collect()
    }
}

/// A log of many transactions over several segments. Every third one is aborted; the last one is
/// open.
pub(super) fn written() -> (Faulty, Opened, Vec<(i64, i64, i64)>, i64) {
    let fs = Faulty::default();
    let mut opened = Opened::new(&fs).unwrap();
    let mut aborted = Vec::new();
    for round in 0..30_i16 {
        let first = opened.send(1, round, 0).unwrap();
        opened.send(1, round, 1).unwrap();
        let last = opened.end(1, round + 1, round % 3 != 0).unwrap();
        if round % 3 == 0 {
            aborted.push((1, first, last));
        }
    }
    let open = opened.send(2, 0, 0).unwrap();
    opened.send(1, 30, 0).unwrap();
    opened.end(1, 31, true).unwrap();
    assert!(opened.log.segments.load().len() > 3);
    (fs, opened, aborted, open)
}

#[test]
fn what_was_aborted_and_is_open_is_known_whatever_happened() {
    let (_fs, mut opened, aborted, open) = written();
    assert_eq!((opened.aborted(), opened.stable()), (aborted.clone(), open));
    for close in [false, true] {
        let (fs, mut opened, ..) = written();
        opened.flush();
        if close {
            opened.close().unwrap();
        }
        drop(opened);
        for fs in [fs.after_crash(1), fs.after_crash(2), fs] {
            let mut again = Opened::new(&fs).unwrap();
            assert_eq!(again.log.last_stable_offset(), None, "nobody has asked yet");
            assert_eq!(
                (again.stable(), again.aborted()),
                (open, aborted.clone()),
                "closed: {close}"
            );
            again.end(2, 1, false).unwrap();
            assert_eq!(again.stable(), again.log.log_end_offset());
            assert_eq!(again.aborted().len(), aborted.len() + 1);
        }
    }
}

#[test]
fn a_cut_takes_ends_of_transactions_back() {
    for at in [90, 89, 60, 33, 10, 2, 1] {
        let (_fs, mut opened, aborted, _) = written();
        let end = opened.writer.truncate_to(at).unwrap();
        // Each transaction has three records, the third of which is the marker.
        let left: Vec<_> = aborted.iter().filter(|(.., last)| *last < end).copied().collect();
        assert_eq!((opened.stable(), opened.aborted()), (end / 3 * 3, left), "cut at {at}");
    }
    let (_fs, mut opened, ..) = written();
    opened.writer.truncate_fully_and_start_at(7).unwrap();
    assert_eq!((opened.stable(), opened.aborted()), (7, Vec::new()));
}

#[test]
fn a_cut_after_a_clean_stop_keeps_what_was_aborted_before_it() {
    let (fs, mut opened, aborted, _) = written();
    opened.close().unwrap();
    drop(opened);
    let mut opened = Opened::new(&fs).unwrap();
    let end = opened.log.log_end_offset();
    opened.send(9, 0, 0).unwrap();
    opened.writer.truncate_to(end).unwrap();
    opened.stable();
    assert_eq!(opened.aborted(), aborted);
}

#[test]
fn a_follower_knows_the_same() {
    let (_fs, leader, aborted, open) = written();
    let mut follower = Opened::new(&Faulty::default()).unwrap();
    for (_, batch) in leader.batches().unwrap() {
        follower.writer.append_as_follower(&batch, LeaderEpoch(1), 1_000).unwrap();
    }
    assert_eq!((follower.stable(), follower.aborted()), (open, aborted));
}

/// Reads all stable batches, and checks that the log reports the aborted ones. Every third
/// transaction is aborted, and each has two records and a marker.
fn read_and_compare(log: &LogReader, stable: i64) {
    let mut from = 0;
    while let (Some(slice), aborted) = log.read_committed(from, stable, 1 << 20, true).unwrap() {
        let aborted = aborted.expect("they are known");
        let mut bytes = vec![0; slice.length];
        slice.file.read_exact_at(&mut bytes, slice.position).unwrap();
        for (header, _) in batch::Batches::new(&bytes).map(Result::unwrap) {
            let is_aborted = !header.is_control()
                && header.records_count > 0
                && header.base_offset / 3 % 3 == 0
                && header.base_offset < 90;
            let is_named = aborted.iter().any(|it| it.first_offset / 3 == header.base_offset / 3);
            assert!(
                !is_aborted || is_named,
                "a batch of an aborted transaction at {}",
                header.base_offset
            );
            from = header.next_offset();
        }
    }
}

#[test]
fn who_reads_while_a_log_is_compacted_is_told_what_was_aborted() {
    let compacted = LogConfig {
        cleanup: super::super::config::Cleanup { delete: false, compact: true },
        dirty_ratio_min: 0.0,
        ..config()
    };
    for _ in 0..10 {
        let (_fs, mut opened, ..) = written();
        let stable = opened.stable();
        opened.dir.checkpoint().unwrap();
        let log = Arc::clone(&opened.log);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    read_and_compare(&log, stable);
                    if done.load(Ordering::Acquire) {
                        break;
                    }
                }
            });
            let plan = cleaner::assess(&log, &compacted, 1_000).unwrap();
            let last_records = opened.writer.last_records(1_000).unwrap();
            let mut map = cleaner::OffsetMap::new(100, [7; 16]);
            let cleaned = cleaner::clean(&log, &compacted, &plan, &mut map, &last_records, 1_000)
                .unwrap()
                .unwrap();
            assert!(cleaned.swap_in(&mut opened.writer).unwrap());
            done.store(true, Ordering::Release);
        });
    }
}

#[test]
fn what_may_be_written_in_a_transaction() {
    let mut opened = Opened::new(&Faulty::default()).unwrap();
    let unverified = opened.put(prepared(data(1, 0, 0))).unwrap_err();
    assert_eq!(unverified, AppendError::Producer(ProducerError::NotVerified(ProducerId(1))));
    let guard = opened.writer.ask_to_verify(ProducerId(1), ProducerEpoch(0), 0, false, 0).unwrap();
    // The transaction ends before the coordinator's answer is used.
    opened.put(marker(1, 0, false, 1)).unwrap();
    let mut late = prepared(data(1, 0, 0));
    late.origin = Origin::Client(guard);
    assert!(matches!(opened.put(late), Err(AppendError::Producer(ProducerError::NotVerified(_)))));
    assert_eq!(opened.stable(), 1, "an empty transaction holds nothing back");
    assert_eq!(opened.aborted(), []);

    assert_eq!(opened.send(1, 0, 0), Ok(1));
    assert_eq!(
        opened.writer.ask_to_verify(ProducerId(1), ProducerEpoch(0), 1, false, 0),
        Ok(None),
        "it is open here"
    );
    let mut plain = BatchBuilder::new(0).producer(ProducerId(1), ProducerEpoch(0), 1);
    plain.append(0, 1, None, None, []);
    let plain = opened.put(prepared(plain.build(0).unwrap())).unwrap_err();
    assert_eq!(plain, AppendError::Producer(ProducerError::NotTransactional(ProducerId(1))));
    // A sequence that does not begin the transaction of an unknown producer.
    assert!(matches!(
        opened.send(5, 0, 3),
        Err(AppendError::Producer(ProducerError::OutOfOrder { .. }))
    ));

    let ends = |opened: &mut Opened, epoch, version, coordinator_epoch| {
        let mut prepared = marker(1, epoch, true, version);
        if let Origin::Marker(marker) = &mut prepared.origin {
            marker.coordinator_epoch = coordinator_epoch;
        }
        opened.put(prepared).map_err(|error| match error {
            AppendError::Producer(error) => error.code(),
            other => panic!("{other}"),
        })
    };
    use weir_protocol::error::ErrorCode::{InvalidProducerEpoch, TransactionCoordinatorFenced};
    assert_eq!(ends(&mut opened, 0, 2, 3), Err(InvalidProducerEpoch), "version 2 raises the epoch");
    assert_eq!(ends(&mut opened, 1, 2, 2), Err(TransactionCoordinatorFenced));
    assert!(ends(&mut opened, 1, 2, 3).is_ok());
    assert!(ends(&mut opened, 1, 2, 3).is_ok(), "once more");
    assert_eq!(ends(&mut opened, 0, 1, 3), Err(InvalidProducerEpoch));
    assert!(
        matches!(opened.send(1, 0, 1), Err(AppendError::Producer(_))),
        "the old epoch is fenced"
    );
    assert!(opened.send(1, 1, 0).is_ok());
}

#[test]
fn any_number_of_transactions_may_be_open() {
    // More than the limit of remembered producers without an open transaction.
    const OPEN: i64 = 100_010;
    let fs = Faulty::default();
    let large =
        LogConfig { segment_bytes: i32::MAX as u32, index_interval_bytes: 1 << 20, ..config() };
    let mut opened = Opened::with(&fs, large.clone()).unwrap();
    let mut all = BytesMut::new();
    for producer in 0..OPEN {
        let mut builder = BatchBuilder::new(0)
            .producer(ProducerId(producer), ProducerEpoch(0), 0)
            .transactional();
        builder.append(0, 1_000, None, None, []);
        all.extend_from_slice(&builder.build(0).unwrap());
    }
    opened.append_from(Origin::Coordinator, all, 1).unwrap();
    opened.close().unwrap();
    drop(opened);
    let mut opened = Opened::with(&fs, large).unwrap();
    assert_eq!((opened.stable(), opened.dir.failure()), (0, None));
    opened.end(0, 1, false).unwrap();
    assert_eq!((opened.stable(), opened.aborted()), (1, vec![(0, 0, OPEN)]));
    // The producer whose transaction has ended is one too many.
    assert_eq!(opened.writer.described_producers(1_000).unwrap().len(), OPEN as usize - 1);
}

#[test]
fn a_snapshot_that_cannot_be_read_is_made_from_the_log() {
    let harms: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.clear(),
        |bytes| bytes.extend_from_slice(&[0; 7]),
        |bytes| bytes[20] ^= 1,
    ];
    for harm in harms {
        let (fs, mut opened, aborted, open) = written();
        opened.close().unwrap();
        drop(opened);
        for entry in fs
            .list(Path::new(DIR))
            .unwrap()
            .iter()
            .filter(|entry| entry.name.ends_with(".snapshot"))
        {
            fs.edit(Path::new(DIR).join(&entry.name), harm);
        }
        let mut opened = Opened::new(&fs).unwrap();
        assert_eq!(
            (opened.stable(), opened.aborted(), opened.dir.failure()),
            (open, aborted, None)
        );
    }
}
