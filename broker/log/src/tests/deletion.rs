//! The deletion of a log: its name is free at once, its files go later, and nothing fails because
//! of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn named(fs: &Faulty, suffix: &str) -> usize {
    fs.list(Path::new(ROOT))
        .unwrap()
        .iter()
        .filter(|entry| entry.name.starts_with("orders-0") && entry.name.ends_with(suffix))
        .count()
}

#[test]
fn a_deleted_log_stays_on_the_disk_for_a_while_and_can_be_read_on() {
    let fs = Faulty::default();
    let mut opened = Opened::new(&fs).unwrap();
    for index in 0..4 {
        opened.append(batch(2, 100, 1_000, index), 0).unwrap();
    }
    let slice = opened.log.read(0, 8, 1, true).unwrap().unwrap();
    opened.log.request_flush();
    opened.writer.delete().unwrap();
    assert_eq!((named(&fs, "orders-0"), named(&fs, "-delete")), (0, 1));
    opened.dir.empty_trash();
    assert_eq!(named(&fs, "-delete"), 1, "its time has not come");
    slice.file.read_exact_at(&mut vec![0; slice.length], slice.position).unwrap();
    assert_eq!(opened.base_offsets(), [0, 2, 4, 6]);
    // A flush, a checkpoint and a new log of the same name do not touch it.
    opened.flush();
    opened.dir.checkpoint().unwrap();
    let other = TopicPartition { topic: TopicId(Uuid::from_u128(8)), index: 0 };
    let mut next = opened.dir.open_log(other, &"orders".into(), Arc::new(config())).unwrap();
    next.append_as_leader(&mut [prepared(batch(1, 10, 1, 1))], LeaderEpoch(0), 1)
        .remove(0)
        .unwrap();
    assert_eq!((named(&fs, "orders-0"), opened.dir.failure()), (1, None));
    opened.dir.close(std::slice::from_mut(&mut next)).unwrap();
    drop(opened);
    // The next start completes the deletion, also after a clean stop.
    let opened = Opened::new(&fs).unwrap();
    opened.dir.empty_trash();
    assert_eq!(named(&fs, "-delete"), 0);
}

#[test]
fn without_a_delay_its_files_go_at_once() {
    let fs = Faulty::default();
    let config = LogConfig { delete_delay_ms: 0, ..config() };
    let mut opened = Opened::with(&fs, config).unwrap();
    opened.append(batch(2, 100, 1_000, 1), 0).unwrap();
    opened.writer.delete().unwrap();
    opened.dir.empty_trash();
    assert_eq!((named(&fs, "orders-0"), named(&fs, "-delete")), (0, 0));
    assert_eq!(opened.dir.failure(), None);
}

#[test]
fn a_flush_that_is_asked_for_of_a_deleted_log_is_answered_each_time() {
    let fs = Faulty::default();
    let mut opened = Opened::new(&fs).unwrap();
    let answers = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answers);
    opened.log.notify_flushed(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    opened.append(batch(2, 100, 1_000, 1), 0).unwrap();
    opened.writer.delete().unwrap();
    for asked in 1..=3 {
        opened.flush();
        assert_eq!(answers.load(Ordering::SeqCst), asked);
    }
}

/// A log of another topic with the same name, or this log after it came back.
fn made_anew(opened: &Opened, topic: u128) -> LogWriter {
    opened.dir.open_log(id_of(topic), &"orders".into(), Arc::new(config())).unwrap()
}

fn id_of(topic: u128) -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(topic)), index: 0 }
}

fn open_dir(storage: Arc<dyn Storage>, root: &Path) -> LogDir {
    open_dir_shown(storage, root, &Recovery::default())
}

/// Opens a log directory of the tests, with progress.
pub(super) fn open_dir_shown(
    storage: Arc<dyn Storage>,
    root: &Path,
    recovery: &Recovery,
) -> LogDir {
    let identity = Identity { cluster_id: "test".into(), broker_id: 0 };
    let options = LogDirOptions { open_files_max: 3, recovery_threads: 1 };
    LogDir::open_shown(storage, root, &identity, options, recovery).unwrap()
}

fn try_append(writer: &mut LogWriter, salt: u8) -> Result<i64, AppendError> {
    let result = writer
        .append_as_leader(&mut [prepared(batch(2, 100, 1_000, salt))], LeaderEpoch(0), 1_000)
        .remove(0);
    writer.reader().flushes.wait_until_flushed();
    result.map(|info| info.first_offset)
}

#[test]
fn a_name_is_not_handed_out_while_a_writer_is_at_work_that_its_log_is_to_be_deleted_by() {
    // A topic created again, and a partition that has moved away and back.
    for topic in [8, 7] {
        let fs = Faulty::default();
        let mut opened = Opened::new(&fs).unwrap();
        for index in 0..8 {
            opened.append(batch(2, 300, 1_000, index), 0).unwrap();
        }
        let mut next = made_anew(&opened, topic);
        assert_eq!(try_append(&mut next, 1), Err(AppendError::Nameless));
        let mut sent = batch(2, 100, 1_000, 1);
        batch::set_offset_and_epoch(&mut sent, 0, LeaderEpoch(0));
        assert_eq!(
            next.append_as_follower(&sent, LeaderEpoch(0), 1_000),
            Err(FollowError::Nameless)
        );
        assert!(next.truncate_fully_and_start_at(5).is_err());
        // Work that the writer may have in progress.
        opened.log.advance_high_watermark(16);
        opened.writer.advance_log_start_offset(10).unwrap();
        opened.writer.roll(1_000).unwrap();
        assert_eq!((opened.dir.failure(), named(&fs, "stray")), (None, 0));
        opened.writer.delete().unwrap();

        assert_eq!(try_append(&mut next, 2), Ok(0));
        assert_eq!(
            opened.append(batch(1, 1, 1, 1), 0),
            Err(AppendError::Nameless),
            "it is deleted"
        );
        assert!(opened.writer.truncate_to(0).is_err());
        assert_eq!(opened.base_offsets().first(), Some(&10), "who still reads it reads on");
        opened.dir.checkpoint().unwrap();
        assert_eq!(try_append(&mut next, 3), Ok(2));
        assert_eq!(
            (named(&fs, "orders-0"), named(&fs, "-delete"), opened.dir.failure()),
            (1, 1, None)
        );
        let killed = fs.after_kill();
        opened.dir.close(std::slice::from_mut(&mut next)).unwrap();
        drop((opened, next));
        for fs in [killed, fs] {
            let dir = open_dir(Arc::new(fs), Path::new(ROOT));
            let again = dir.open_log(id_of(topic), &"orders".into(), Arc::new(config())).unwrap();
            assert_eq!(again.reader().log_end_offset(), 4, "topic {topic}");
        }
    }
}

#[test]
fn a_log_that_never_had_a_directory_takes_nobodys_with_it() {
    let fs = Faulty::default();
    let mut opened = Opened::new(&fs).unwrap();
    let mut never_written = made_anew(&opened, 8);
    opened.append(batch(2, 100, 1_000, 1), 0).unwrap();
    never_written.delete().unwrap();
    assert_eq!((named(&fs, "orders-0"), named(&fs, "-delete")), (1, 0));
    opened.append(batch(2, 100, 1_000, 2), 0).unwrap();
    drop(opened);
    assert_eq!(Opened::new(&fs.after_kill()).unwrap().base_offsets(), [0, 2]);
}

#[test]
fn a_log_can_be_deleted_again_and_whatever_its_topic_is_called() {
    let root = tempfile::tempdir().unwrap();
    let dir = open_dir(Arc::new(Disk), root.path());
    // The longest name that a topic may have.
    let name: Arc<str> = "t".repeat(249).into();
    for salt in 0..3 {
        let mut writer = dir.open_log(partition(), &name, Arc::new(config())).unwrap();
        assert_eq!(try_append(&mut writer, salt), Ok(0), "it begins anew");
        writer.delete().unwrap();
    }
    let entries = || {
        std::fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
    };
    assert_eq!(entries().filter(|entry| entry.ends_with("-delete")).count(), 3);
    assert_eq!(
        entries().filter(|entry| entry.starts_with('t') && !entry.ends_with("-delete")).count(),
        0
    );
}
