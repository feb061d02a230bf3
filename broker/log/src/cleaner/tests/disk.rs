//! Cleaning a log on the disk while it is in use.

use std::sync::Arc;

use weir_protocol::types::{LeaderEpoch, TopicId, TopicPartition};

use super::super::super::dir::{LogDir, LogDirOptions};
use super::super::super::faulty::{Fault, Faulty};
use super::super::super::storage::Disk;
use super::super::super::validate::Prepared;
use super::super::super::{Identity, LogWriter};
use super::*;

const OPTIONS: LogDirOptions = LogDirOptions { open_files_max: 4, recovery_threads: 1 };

fn append(writer: &mut LogWriter, records: &[KeyValue]) {
    let bytes = write(writer.reader().log_end_offset(), Codec::None, None, records);
    let header = BatchHeader::parse(&bytes).unwrap();
    let results = writer.append_as_leader(
        &mut [Prepared {
            origin: super::super::super::Origin::Client(None),
            bytes,
            headers: vec![header],
        }],
        LeaderEpoch(1),
        50,
    );
    assert!(results.iter().all(Result::is_ok));
}

/// All batches of a log, as a consumer gets them.
fn consume(writer: &LogWriter) -> Vec<u8> {
    let reader = writer.reader();
    let (mut next, end) = (reader.log_start_offset(), reader.log_end_offset());
    let mut log = Vec::new();
    while let Some(slice) = reader.read(next, end, 1 << 20, true).unwrap() {
        let mut bytes = vec![0; slice.length];
        slice.file.read_exact_at(&mut bytes, slice.position).unwrap();
        next = Batches::new(&bytes).map(|batch| batch.unwrap().0.next_offset()).last().unwrap();
        log.extend_from_slice(&bytes);
    }
    log
}

#[test]
fn a_log_on_the_disk_is_cleaned_while_it_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity { cluster_id: "c".into(), broker_id: 0 };
    let open = || LogDir::open(Arc::new(Disk), dir.path(), &identity, OPTIONS).unwrap();
    let id = TopicPartition { topic: TopicId::random(), index: 0 };
    let config = Arc::new(LogConfig { segment_bytes: 300, index_interval_bytes: 1, ..config() });
    let log_dir = open();
    let mut writer = log_dir.open_log(id, &"t".into(), Arc::clone(&config)).unwrap();
    for round in 0..20 {
        append(&mut writer, &[(Some(round % 3), Some(round)), (Some(9), None)]);
    }
    let reader = writer.reader();
    log_dir.checkpoint().unwrap();
    assert_eq!(reader.flushed_offset(), 40);
    let before = read(&consume(&writer));
    let old_slice = reader.read(0, 40, 1 << 20, true).unwrap().unwrap();

    assert_eq!(assess(&reader, &config, 100), None, "nothing is committed");
    reader.advance_high_watermark(40);
    let count = reader.segments.load().len();
    let plan = assess(&reader, &config, 100).unwrap();
    let mut map = OffsetMap::new(100, [1; 16]);
    let larger = LogConfig { segment_bytes: 600, ..config.as_ref().clone() };
    let cleaned = clean(&reader, &larger, &plan, &mut map, &writer.last_records(100).unwrap(), 100)
        .unwrap()
        .unwrap();
    assert_eq!(read(&consume(&writer)), before, "nothing changes before it is swapped in");
    assert!(cleaned.bytes.1 < cleaned.bytes.0 / 4);
    let end = cleaned.end_offset;
    assert!(cleaned.swap_in(&mut writer).unwrap());
    let expected = model(&before, end, true);
    assert_eq!(read(&consume(&writer)), expected);
    assert!(reader.segments.load().len() < count);

    // A reader that held the old file continues.
    let mut bytes = vec![0; old_slice.length];
    old_slice.file.read_exact_at(&mut bytes, old_slice.position).unwrap();
    assert!(Batches::new(&bytes).all(|batch| batch.is_ok()));

    append(&mut writer, &[(Some(1), Some(99))]);
    let expected = [expected, vec![(40, (Some(1), Some(99)))]].concat();
    assert_eq!(read(&consume(&writer)), expected);
    // A crash: nothing is closed.
    drop((reader, writer, log_dir));
    let log_dir = open();
    let writer = log_dir.open_log(id, &"t".into(), config).unwrap();
    assert_eq!(read(&consume(&writer)), expected);
    let left: Vec<_> = std::fs::read_dir(dir.path().join("t-0"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        !left.iter().any(|name| name.contains("cleaned") || name.contains("damaged")),
        "{left:?}"
    );
}

#[test]
fn a_segment_that_went_meanwhile_stays_gone() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity { cluster_id: "c".into(), broker_id: 0 };
    let log_dir = LogDir::open(Arc::new(Disk), dir.path(), &identity, OPTIONS).unwrap();
    let id = TopicPartition { topic: TopicId::random(), index: 0 };
    let config = Arc::new(LogConfig { segment_bytes: 100, ..config() });
    let mut writer = log_dir.open_log(id, &"t".into(), Arc::clone(&config)).unwrap();
    for round in 0..6 {
        append(&mut writer, &[(Some(1), Some(round))]);
    }
    let reader = writer.reader();
    log_dir.checkpoint().unwrap();
    reader.advance_high_watermark(6);
    let plan = assess(&reader, &config, 100).unwrap();
    let mut map = OffsetMap::new(100, [1; 16]);
    let cleaned = clean(&reader, &config, &plan, &mut map, &BTreeMap::new(), 100).unwrap().unwrap();
    writer.advance_log_start_offset(2).unwrap();
    let before = read(&consume(&writer));
    assert!(!cleaned.swap_in(&mut writer).unwrap());
    assert_eq!(read(&consume(&writer)), before, "all of it is put in place, or nothing");
    assert_eq!(read(&consume(&writer)).last(), Some(&(5, (Some(1), Some(5)))));
    assert_eq!(reader.log_start_offset(), 2);
}

/// A log of twenty appends, all committed and flushed.
fn filled(
    storage: &Faulty,
    identity: &Identity,
    id: TopicPartition,
    config: &Arc<LogConfig>,
) -> (LogDir, LogWriter) {
    let log_dir =
        LogDir::open(Arc::new(storage.clone()), "/data".as_ref(), identity, OPTIONS).unwrap();
    let mut writer = log_dir.open_log(id, &"t".into(), Arc::clone(config)).unwrap();
    for round in 0..20 {
        append(&mut writer, &[(Some(round % 3), Some(round)), (Some(round), None)]);
    }
    log_dir.checkpoint().unwrap();
    writer.reader().advance_high_watermark(40);
    (log_dir, writer)
}

#[test]
fn no_crash_loses_a_record_that_was_to_stay() {
    let identity = Identity { cluster_id: "c".into(), broker_id: 0 };
    let id = TopicPartition { topic: TopicId::random(), index: 0 };
    let config = Arc::new(LogConfig { segment_bytes: 400, ..config() });
    let larger = LogConfig { segment_bytes: 1_000, ..config.as_ref().clone() };
    for step in 0.. {
        let storage = Faulty::default();
        let (_log_dir, mut writer) = filled(&storage, &identity, id, &config);
        let before = read(&consume(&writer));
        storage.fail_at(storage.changes() + step, Fault::Crash);
        let reader = writer.reader();
        let plan = assess(&reader, &config, 100).unwrap();
        let mut map = OffsetMap::new(100, [1; 16]);
        let swapped = clean(&reader, &larger, &plan, &mut map, &BTreeMap::new(), 100)
            .and_then(|cleaned| cleaned.unwrap().swap_in(&mut writer));
        for seed in 0..4 {
            let left = storage.after_crash(seed);
            let log_dir =
                LogDir::open(Arc::new(left), "/data".as_ref(), &identity, OPTIONS).unwrap();
            let writer = log_dir.open_log(id, &"t".into(), Arc::clone(&config)).unwrap();
            let found = read(&consume(&writer));
            assert_eq!(writer.reader().log_end_offset(), 40, "step {step}, seed {seed}");
            assert!(
                model(&before, plan.end_offset, true).iter().all(|record| found.contains(record)),
                "step {step}, seed {seed}"
            );
            assert!(
                found.iter().all(|record| before.contains(record)) && found.is_sorted(),
                "step {step}, seed {seed}"
            );
        }
        if swapped.is_ok() && !storage.crashed() {
            assert!(step > 10, "each of the steps was tried");
            return;
        }
    }
}

#[test]
fn what_was_cut_since_it_was_planned_is_not_cleaned() {
    let identity = Identity { cluster_id: "c".into(), broker_id: 0 };
    let id = TopicPartition { topic: TopicId::random(), index: 0 };
    let config = Arc::new(LogConfig { segment_bytes: 400, ..config() });
    for cut_before_reading in [true, false] {
        let (_log_dir, mut writer) = filled(&Faulty::default(), &identity, id, &config);
        let reader = writer.reader();
        let plan = assess(&reader, &config, 100).unwrap();
        let clean = || {
            let mut map = OffsetMap::new(100, [1; 16]);
            clean(&reader, &config, &plan, &mut map, &BTreeMap::new(), 100).unwrap()
        };
        let cleaned = if cut_before_reading { None } else { clean() };
        // Only the active segment is shorter: everything that was read is still there.
        writer.truncate_to(39).unwrap();
        let before = read(&consume(&writer));
        match cleaned {
            Some(cleaned) => assert!(!cleaned.swap_in(&mut writer).unwrap()),
            None => assert!(clean().is_none(), "and nobody knows what was aborted"),
        }
        assert_eq!(read(&consume(&writer)), before);
        assert_eq!(reader.cleaned_offset(), 0);
    }
}

#[test]
fn a_log_that_gives_up_segments_while_it_is_read_is_not_damaged() {
    let identity = Identity { cluster_id: "c".into(), broker_id: 0 };
    let id = TopicPartition { topic: TopicId::random(), index: 0 };
    let config = Arc::new(LogConfig { segment_bytes: 400, ..config() });
    for _ in 0..30 {
        let (_log_dir, mut writer) = filled(&Faulty::default(), &identity, id, &config);
        let reader = writer.reader();
        std::thread::scope(|scope| {
            let trimming = scope.spawn(move || {
                (1..40).try_for_each(|offset| writer.advance_log_start_offset(offset))
            });
            while !trimming.is_finished() {
                let Some(plan) = assess(&reader, &config, 100) else {
                    continue;
                };
                let mut map = OffsetMap::new(100, [1; 16]);
                assert!(clean(&reader, &config, &plan, &mut map, &BTreeMap::new(), 100).is_ok());
            }
            trimming.join().unwrap().unwrap();
        });
    }
}
