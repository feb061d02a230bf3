//! The log when the disk fails or is full, and the cost of a start.

use std::path::PathBuf;

use super::super::faulty::{Done, Fault};
use super::*;

/// A log of six batches of two records each; the first three are flushed.
fn half_flushed() -> (Faulty, Opened) {
    let fs = Faulty::default();
    let mut opened = Opened::new(&fs).unwrap();
    for index in 0..6 {
        opened.append(batch(2, 100, 1_000, index), 0).unwrap();
        if index == 2 {
            opened.flush();
        }
    }
    (fs, opened)
}

#[test]
fn a_full_disk_makes_no_part_of_a_batch_visible() {
    let (fs, mut opened) = half_flushed();
    let (total, _) = opened.dir.space().unwrap();
    assert_eq!(total, u64::MAX);
    fs.set_capacity(fs.used_bytes() + 100);
    assert_eq!(opened.append(batch(2, 100, 1_000, 7), 0), Err(AppendError::Storage));
    assert!(
        opened.dir.failure().unwrap().starts_with("cannot write to /data/orders-0: No space left"),
        "{:?}",
        opened.dir.failure()
    );
    assert_eq!((opened.log.log_end_offset(), opened.log.flushed_offset()), (12, 6));
    assert_eq!(opened.base_offsets(), [0, 2, 4, 6, 8, 10], "what is there can be read");
    // The directory stays offline. Recovery determines the state of the file system.
    fs.set_capacity(u64::MAX);
    assert_eq!(opened.append(batch(2, 100, 1_000, 7), 0), Err(AppendError::Storage));
    assert!(opened.close().is_err() && opened.dir.checkpoint().is_err());
    drop(opened);
    let mut opened = Opened::new(&fs.after_kill()).unwrap();
    assert_eq!(opened.base_offsets(), [0, 2, 4, 6, 8, 10]);
    assert_eq!(opened.append(batch(1, 100, 1_000, 7), 0).unwrap().first_offset, 12);
}

#[test]
fn a_flush_that_failed_is_never_repeated() {
    let (fs, mut opened) = half_flushed();
    fs.fail_at(fs.changes(), Fault::Io);
    opened.flush();
    assert_eq!(opened.log.flushed_offset(), 6);
    assert!(
        opened.dir.failure().unwrap().starts_with("cannot flush: "),
        "{:?}",
        opened.dir.failure()
    );
    fs.take_journal();
    opened.flush();
    assert_eq!(opened.append(batch(1, 1, 1, 1), 0), Err(AppendError::Storage));
    assert_eq!(
        (opened.log.flushed_offset(), fs.take_journal()),
        (6, vec![]),
        "nothing is written or synced any more"
    );
    let left = Opened::new(&fs.after_crash(3)).unwrap();
    assert!(left.log.log_end_offset() >= 6);
}

#[test]
fn observers_and_waiters_hear_of_it() {
    #[derive(Clone, Default)]
    struct Heard(Arc<parking_lot::Mutex<Vec<String>>>);
    impl LogDirObserver for Heard {
        fn flushed(&self, logs: usize, _took: std::time::Duration) {
            self.0.lock().push(format!("flushed {logs}"));
        }
        fn offline(&self, reason: &str) {
            self.0.lock().push(reason.to_owned());
        }
    }
    let (fs, opened) = half_flushed();
    let heard = Heard::default();
    opened.dir.observe(heard.clone());
    let told = heard.clone();
    opened.log.notify_flushed(move || told.0.lock().push("told".to_owned()));
    opened.flush();
    fs.fail_at(fs.changes(), Fault::Io);
    opened.flush();
    let heard = heard.0.lock().clone();
    assert_eq!(
        heard.iter().map(|what| what.split(':').next().unwrap()).collect::<Vec<_>>(),
        ["flushed 1", "told", "cannot flush", "told"]
    );
}

#[test]
fn a_checkpoint_does_not_wait_for_a_moment_without_flushes() {
    let (fs, opened) = half_flushed();
    // Under load, the next flush is requested before the last one ends.
    let again = Arc::downgrade(&opened.log);
    opened.log.notify_flushed(move || {
        if let Some(log) = again.upgrade() {
            log.request_flush();
        }
    });
    opened.log.request_flush();
    // It ends; it used to wait forever.
    opened.dir.checkpoint().unwrap();
    assert_eq!((opened.log.checkpointed_offset(), opened.log.flushed_offset()), (12, 12));
    drop(opened);
    assert_eq!(Opened::new(&fs.after_crash(1)).unwrap().log.log_end_offset(), 12);
}

#[test]
fn a_start_after_a_clean_stop_reads_no_log() {
    let (fs, mut opened) = half_flushed();
    opened.close().unwrap();
    drop(opened);
    for _ in 0..2 {
        fs.take_journal();
        let mut opened = Opened::new(&fs).unwrap();
        let touched: Vec<(Done, PathBuf)> =
            fs.take_journal().into_iter().filter(|(_, path)| path.starts_with(DIR)).collect();
        // The names of its files, its owner, and the length of the newest segment.
        let is_read = |(done, path): &&(Done, PathBuf)| {
            *done == Done::Read && !path.ends_with("partition.metadata")
        };
        assert_eq!(touched.iter().filter(is_read).count(), 0, "{touched:?}");
        assert_eq!(touched.len(), 4, "{touched:?}");
        assert_eq!(
            (opened.log.log_end_offset(), opened.log.flushed_offset(), opened.log.size_bytes() > 0),
            (12, 12, true)
        );
        assert_eq!(opened.base_offsets(), [0, 2, 4, 6, 8, 10]);
        opened.close().unwrap();
    }
}

#[test]
fn a_log_without_records_costs_no_operation() {
    let fs = Faulty::default();
    let mut opened = Opened::new(&fs).unwrap();
    fs.take_journal();
    for index in 1..1_000 {
        opened
            .dir
            .open_log(TopicPartition { index, ..partition() }, &"orders".into(), Arc::new(config()))
            .unwrap();
    }
    assert_eq!(fs.take_journal(), []);
    opened.close().unwrap();
    assert_eq!(fs.take_journal().iter().filter(|(_, path)| path.starts_with(DIR)).count(), 0);
}

/// The syncs of a clean stop with this many logs, each with records that are not flushed and a new
/// epoch.
fn syncs_of_a_stop(logs: i32) -> usize {
    let fs = Faulty::default();
    let opened = Opened::new(&fs).unwrap();
    opened.dir.set_broker_epoch(17).unwrap();
    let mut writers: Vec<_> = (0..logs)
        .map(|index| {
            let id = TopicPartition { index: index + 1, ..partition() };
            let mut writer = opened.dir.open_log(id, &"orders".into(), Arc::new(config())).unwrap();
            for (epoch, flushes) in [(0, true), (1, false)] {
                let mut append = [prepared(batch(1, 10, 1_000, 1))];
                writer.append_as_leader(&mut append, LeaderEpoch(epoch), 1_000).remove(0).unwrap();
                if flushes {
                    writer.reader().request_flush();
                    opened.settle();
                }
            }
            writer
        })
        .collect();
    fs.take_journal();
    opened.dir.close(&mut writers).unwrap();
    let is_sync = |done: &Done| matches!(done, Done::Sync | Done::SyncDir | Done::SyncAll);
    let syncs = fs.take_journal().iter().filter(|(done, _)| is_sync(done)).count();
    drop((writers, opened));
    // A power failure afterwards takes nothing.
    let opened = Opened::new(&fs.after_crash(7)).unwrap();
    assert!(opened.dir.left().orderly && opened.dir.left().whole);
    for index in 1..=logs {
        let id = TopicPartition { index, ..partition() };
        let writer = opened.dir.open_log(id, &"orders".into(), Arc::new(config())).unwrap();
        let log = writer.reader();
        assert_eq!((log.log_end_offset(), log.latest_epoch()), (2, Some(LeaderEpoch(1))));
    }
    syncs
}

#[test]
fn a_clean_stop_syncs_as_often_for_many_logs_as_for_one() {
    assert_eq!(syncs_of_a_stop(1), syncs_of_a_stop(40));
}

/// After a failed sync the kernel returns data that is not on the disk, so nothing may count the
/// run as whole.
#[test]
fn nothing_vouches_for_a_run_whose_last_sync_failed() {
    let stop = |at: Option<u64>| {
        let fs = Faulty::default();
        let mut opened = Opened::new(&fs).unwrap();
        opened.dir.set_broker_epoch(17).unwrap();
        opened.append(batch(1, 1, 1, 1), 0).unwrap();
        fs.take_journal();
        at.inspect(|at| fs.fail_at(fs.changes() + at, Fault::Io));
        let result = opened.close();
        drop(opened);
        (fs, result)
    };
    let (fs, result) = stop(None);
    result.unwrap();
    assert!(Opened::new(&fs.after_kill()).unwrap().dir.left().whole);
    let changes =
        |(done, _): &(Done, PathBuf)| !matches!(done, Done::Open | Done::List | Done::Read);
    let done = fs.take_journal().into_iter().filter(changes);
    let syncs: Vec<_> =
        (0..).zip(done).filter(|(_, (done, _))| *done == Done::SyncAll).map(|(at, _)| at).collect();
    assert!(!syncs.is_empty());
    for at in syncs {
        let (fs, result) = stop(Some(at));
        assert!(result.is_err());
        let left = Opened::new(&fs.after_death()).unwrap().dir.left();
        assert!(!left.whole && !left.orderly && left.disowned, "operation {at}: {left:?}");
    }
}

#[test]
fn how_a_directory_was_left_is_known() {
    let fs = Faulty::default();
    let left = |fs: &Faulty| {
        let left = Opened::new(fs).unwrap().dir.left();
        (left.orderly, left.whole, left.broker_epoch, left.disowned)
    };
    let mut opened = Opened::new(&fs).unwrap();
    opened.append(batch(1, 1, 1, 1), 0).unwrap();
    opened.dir.set_broker_epoch(17).unwrap();
    let (killed, crashed) = (fs.after_kill(), fs.after_crash(1));
    opened.close().unwrap();
    drop(opened);
    assert_eq!(left(&killed), (false, true, Some(17), false));
    assert_eq!(left(&crashed), (false, false, Some(17), false));
    assert_eq!(
        left(&crashed.after_kill()),
        (false, false, Some(17), false),
        "killed before anyone was told of what is lost"
    );
    let mut untold = Opened::new(&crashed).unwrap();
    untold.close().unwrap();
    drop(untold);
    assert_eq!(
        left(&crashed),
        (true, false, Some(17), false),
        "and stopped in order before anyone was told"
    );
    assert_eq!(left(&fs.after_crash(2)), (true, true, Some(17), false));
    assert_eq!(left(&fs), (true, true, Some(17), false));
    assert_eq!(left(&fs), (false, true, Some(17), false), "the mark holds for one start");
}

#[test]
fn nothing_vouches_for_a_log_whose_flush_failed() {
    let fs = Faulty::default();
    let mut opened = Opened::new(&fs).unwrap();
    opened.dir.set_broker_epoch(17).unwrap();
    opened.append(batch(1, 1, 1, 1), 0).unwrap();
    opened.flush();
    opened.append(batch(2, 1, 1, 1), 0).unwrap();
    fs.fail_at(fs.changes(), Fault::Io);
    opened.flush();
    assert!(opened.dir.failure().is_some());
    assert!(opened.dir.set_broker_epoch(18).is_err());
    drop(opened);
    let again = fs.after_kill();
    let opened = Opened::new(&again).unwrap();
    let left = opened.dir.left();
    assert_eq!((left.whole, left.broker_epoch, left.disowned), (false, None, true));
    // The kernel still returns data that it never wrote. From here on it is on the disk.
    assert_eq!(opened.base_offsets(), [0, 1]);
    drop(opened);
    assert_eq!(Opened::new(&again.after_crash(3)).unwrap().base_offsets(), [0, 1]);
}

#[test]
fn a_directory_that_is_not_ours_is_refused_and_left_alone() {
    let fs = Faulty::default();
    let open = |fs: &Faulty, cluster: &str, broker_id| {
        let identity = Identity { cluster_id: cluster.into(), broker_id };
        let options = LogDirOptions { open_files_max: 3, recovery_threads: 1 };
        LogDir::open(Arc::new(fs.clone()), Path::new(ROOT), &identity, options)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let opened = Opened::new(&fs).unwrap();
    assert_eq!(open(&fs, "test", 0), Err("/data is in use by another process".into()));
    drop(opened);
    fs.take_journal();
    assert_eq!(
        open(&fs, "other", 0),
        Err("/data belongs to broker 0 of cluster test, this is broker 0 of cluster other".into())
    );
    assert_eq!(
        open(&fs, "test", 1),
        Err("/data belongs to broker 0 of cluster test, this is broker 1 of cluster test".into())
    );
    assert!(
        fs.take_journal()
            .iter()
            .all(|(done, _)| matches!(done, Done::Open | Done::Read | Done::List))
    );
    fs.put("/data/meta.properties", b"version=1\nnode.id=none\n");
    assert_eq!(open(&fs, "test", 0), Err("/data/meta.properties: it has no cluster.id".into()));
    fs.remove_file(Path::new("/data/meta.properties")).unwrap();
    assert!(
        open(&fs, "test", 0)
            .unwrap_err()
            .starts_with("/data is not empty and has no meta.properties")
    );
    let file = Faulty::default();
    file.put("/data", b"");
    assert!(
        open(&file, "test", 0).unwrap_err().starts_with("/data: "),
        "a file where the directory is expected"
    );
}

#[test]
fn a_failure_is_not_forgotten_by_who_writes_the_broker_epoch_at_that_moment() {
    let (fs, opened) = half_flushed();
    let shared = Arc::clone(&opened.log.dir);
    let (sender, receiver) = std::sync::mpsc::channel();
    fs.before_rename_to("/data/run", move || {
        let failing = Arc::clone(&shared);
        let thread = std::thread::spawn(move || failing.fail("a disk that fails".into()));
        // It fails before the file exists. If nothing delays it, it also removes the file before.
        while !shared.is_offline() {
            std::thread::yield_now();
        }
        for _ in 0..100 {
            if !thread.is_finished() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        sender.send(thread).unwrap();
    });
    let _ = opened.dir.set_broker_epoch(17);
    receiver.recv().unwrap().join().unwrap();
    drop(opened);
    let left = Opened::new(&fs.after_kill()).unwrap().dir.left();
    assert!(left.disowned && !left.whole, "{left:?}");
}
