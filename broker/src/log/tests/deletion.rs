//! The end of a log: its name is free at once, its files go later, and nothing trips over it.

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
    // A flush, a checkpoint and a new log of the same name know nothing of it.
    opened.flush();
    opened.dir.checkpoint().unwrap();
    let other = TopicPartition {
        topic: TopicId(Uuid::from_u128(8)),
        index: 0,
    };
    let mut next = opened.dir.open_log(other, &"orders".into(), Arc::new(config())).unwrap();
    next.append_as_leader(&mut [prepared(batch(1, 10, 1, 1))], LeaderEpoch(0), 1)
        .remove(0)
        .unwrap();
    assert_eq!((named(&fs, "orders-0"), opened.dir.failure()), (1, None));
    opened.dir.close(std::slice::from_mut(&mut next)).unwrap();
    drop(opened);
    // The next start finishes what the last one did not, also when that ended in order.
    let opened = Opened::new(&fs).unwrap();
    opened.dir.empty_trash();
    assert_eq!(named(&fs, "-delete"), 0);
}

#[test]
fn without_a_delay_its_files_go_at_once() {
    let fs = Faulty::default();
    let config = LogConfig {
        delete_delay_ms: 0,
        ..config()
    };
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
