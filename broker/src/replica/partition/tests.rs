//! The removal of a partition from this broker: every wait for it ends, and a deleted log is not
//! changed any more.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;
use weir_protocol::batch;
use weir_protocol::record::BatchBuilder;
use weir_protocol::types::{PartitionEpoch, TopicId};

use super::*;
use crate::replica::core::{FetchAnswer, FetchFrom, Next, Todo};
use crate::replica::fetcher::wait_for_flush;
use crate::replica::serial_executor::TURN_JOBS_MAX;
use weir_log::{Disk, Identity, LogDir, LogDirOptions};

/// Longer than any flush in these tests.
const PATIENCE: Duration = Duration::from_secs(60);

fn log_dir(root: &Path) -> LogDir {
    let identity = Identity { cluster_id: "test".into(), broker_id: 0 };
    let options = LogDirOptions { open_files_max: 10, recovery_threads: 1 };
    LogDir::open(Arc::new(Disk), root, &identity, options).unwrap()
}

/// A partition of broker 0 that has no role yet. Each of its segments holds one batch of
/// [`records`].
fn partition(dir: &LogDir) -> Arc<Partition> {
    let id = TopicPartition { topic: TopicId(Uuid::from_u128(7)), index: 0 };
    let config = Arc::new(LogConfig {
        segment_bytes: 100,
        flush_mode: FlushMode::Group,
        ..LogConfig::default()
    });
    let writer = dir.open_log(id, &"orders".into(), Arc::clone(&config)).unwrap();
    Partition::new(writer, config, &Arc::new(Shared::new(BrokerId(0))))
}

fn led_by(partition: &Arc<Partition>, leader: i32, epoch: i32) {
    let state = PartitionState {
        replicas: vec![BrokerId(0), BrokerId(1)],
        isr: vec![BrokerId(0), BrokerId(1)],
        leader_epoch: LeaderEpoch(epoch),
        partition_epoch: PartitionEpoch(epoch),
        recovering: false,
        has_eligible: false,
    };
    partition.apply(Some(BrokerId(leader)), state);
}

/// A batch of one record, as a leader sends it.
fn records(offset: i64) -> Bytes {
    let mut builder = BatchBuilder::new(offset);
    builder.append(offset, 1, None, Some(b"value"), []);
    let mut bytes = builder.build(0).unwrap();
    batch::set_offset_and_epoch(&mut bytes, offset, LeaderEpoch(1));
    bytes.freeze()
}

/// Appends as a follower, and requests no flush.
async fn append(partition: &Arc<Partition>, offset: i64) {
    let appended = partition.with_writer(move |writer| {
        writer.append_as_follower(&records(offset), LeaderEpoch(1), 1).unwrap()
    });
    assert_eq!(appended.await.unwrap(), offset + 1);
}

/// What this broker does when a topic is deleted, or when a replica moves away.
async fn delete(partition: &Arc<Partition>) {
    partition.retire();
    partition.with_writer(|writer| writer.delete().unwrap()).await.unwrap();
}

#[tokio::test]
async fn nobody_waits_for_the_flush_of_a_log_that_is_deleted_or_led_otherwise() {
    let root = tempfile::tempdir().unwrap();
    let dir = log_dir(root.path());
    let deleted = partition(&dir);
    led_by(&deleted, 1, 1);
    append(&deleted, 0).await;
    delete(&deleted).await;
    assert!(wait_for_flush(&[(deleted, LeaderEpoch(1))], PATIENCE).await);

    let other = partition(&dir);
    led_by(&other, 1, 1);
    append(&other, 0).await;
    let follows = [(Arc::clone(&other), LeaderEpoch(1))];
    assert!(wait_for_flush(&follows, PATIENCE).await && other.ends().had == 1);
    // Without the directory no flush comes any more.
    drop(dir);
    append(&other, 1).await;
    assert!(!wait_for_flush(&follows, Duration::from_millis(20)).await, "the wait has a bound");
    led_by(&other, 1, 2);
    assert!(wait_for_flush(&follows, PATIENCE).await);
}

#[tokio::test]
async fn a_retired_partition_takes_up_no_role_that_was_on_its_way() {
    let root = tempfile::tempdir().unwrap();
    let partition = partition(&log_dir(root.path()));
    let retired = Arc::clone(&partition);
    // This job has the writer while both calls arrive, so the new role is queued behind it.
    let both = partition.with_writer(move |_| {
        led_by(&retired, 1, 1);
        retired.retire();
    });
    both.await.unwrap();
    partition.with_writer(|_| ()).await.unwrap();
    assert_eq!(partition.role(), Role::Idle { epoch: LeaderEpoch(1) });
}

/// More comes while the executor is taken than one thread does in its turn: a task does the rest.
#[tokio::test]
async fn what_a_thread_leaves_is_done_by_a_task_in_its_order() {
    let root = tempfile::tempdir().unwrap();
    let partition = partition(&log_dir(root.path()));
    let (jobs, done) = (10 * TURN_JOBS_MAX, Arc::new(Mutex::new(Vec::new())));
    let (busy, all) = (Arc::clone(&partition), Arc::clone(&done));
    partition.spawn_on_writer(move |_| {
        for job in 0..jobs {
            let done = Arc::clone(&all);
            busy.spawn_on_writer(move |_| done.lock().push(job));
        }
    });
    assert_eq!(done.lock().len(), TURN_JOBS_MAX - 1, "this thread goes on with its own tasks");
    let until = Instant::now() + PATIENCE;
    while done.lock().len() < jobs {
        assert!(Instant::now() < until, "{} of {jobs}", done.lock().len());
        tokio::task::yield_now().await;
    }
    assert_eq!(*done.lock(), (0..jobs).collect::<Vec<_>>());
    assert!(partition.take_writer().await.is_some());
}

/// A log that lacks records at its end: its newest segment was cut short while its broker was
/// stopped.
fn that_lacks_its_end(root: &Path) -> (LogDir, Arc<Partition>, i64) {
    let dir = log_dir(root);
    let id = TopicPartition { topic: TopicId(Uuid::from_u128(7)), index: 0 };
    let mut writer = dir.open_log(id, &"orders".into(), Arc::default()).unwrap();
    for offset in 0..4 {
        writer.append_as_follower(&records(offset), LeaderEpoch(1), 1).unwrap();
    }
    let mut writers = [writer];
    dir.close(&mut writers).unwrap();
    drop((writers, dir));
    let segment = root.join("orders-0/00000000000000000000.log");
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..bytes.len() / 2]).unwrap();
    let dir = log_dir(root);
    assert!(!dir.left().whole);
    let partition = partition(&dir);
    let end = partition.log().log_end_offset();
    (dir, partition, end)
}

/// Who is in sync keeps its end, because others count on it. Who is not gets the rest from its
/// leader; not while it follows, when a fetch is on its way.
#[tokio::test]
async fn a_log_that_lacks_its_end_is_cut_when_it_begins_to_follow_out_of_sync() {
    let both = [BrokerId(0), BrokerId(1)];
    let other = [BrokerId(1)];
    // The roles that it takes up: the leader, its epoch, the ISR, and the end of the log then.
    let roles: [&[(i32, i32, &[BrokerId], i64)]; 4] = [
        &[(1, 1, &other, 2), (0, 2, &both, 2)],
        &[(1, 1, &both, 4), (1, 1, &other, 4), (1, 2, &other, 2)],
        &[(0, 1, &both, 4), (1, 2, &other, 4)],
        &[(-1, 1, &other, 4), (1, 2, &other, 2)],
    ];
    for roles in roles {
        let root = tempfile::tempdir().unwrap();
        let (_dir, partition, end) = that_lacks_its_end(root.path());
        assert_eq!(end, 4, "no offset is used twice");
        for (change, (leader, epoch, isr, end)) in (1..).zip(roles) {
            let state = PartitionState {
                replicas: both.to_vec(),
                isr: isr.to_vec(),
                leader_epoch: LeaderEpoch(*epoch),
                partition_epoch: PartitionEpoch(change),
                recovering: false,
                has_eligible: false,
            };
            partition.apply((*leader >= 0).then_some(BrokerId(*leader)), state);
            partition.with_writer(|_| ()).await.unwrap();
            assert_eq!(partition.log().log_end_offset(), *end, "{change} of {roles:?}");
        }
    }
}

#[tokio::test]
async fn nothing_is_done_to_a_deleted_log() {
    let root = tempfile::tempdir().unwrap();
    let dir = log_dir(root.path());
    let partition = partition(&dir);
    led_by(&partition, 1, 1);
    for offset in 0..3 {
        append(&partition, offset).await;
    }
    partition.log().advance_high_watermark(3);
    delete(&partition).await;
    // A DeleteRecords that waited behind the deletion. It would look for files that have another
    // name by now, or that belong to the topic created anew.
    let late = partition.with_writer(|writer| writer.advance_log_start_offset(3));
    assert!(matches!(late.await, Err(ErrorCode::NotLeaderOrFollower)));
    assert_eq!(dir.failure(), None);
}

#[tokio::test]
async fn a_flush_that_ends_while_roles_change_commits_nothing_of_what_was_cut() {
    let root = tempfile::tempdir().unwrap();
    let dir = log_dir(root.path());
    let partition = partition(&dir);
    led_by(&partition, 1, 1);
    for offset in 0..3 {
        append(&partition, offset).await;
    }
    assert!(wait_for_flush(&[(Arc::clone(&partition), LeaderEpoch(1))], PATIENCE).await);
    // The thread that reports the flush blocks where it reads the role.
    let mut role = partition.role.write();
    let flushed = {
        let partition = Arc::clone(&partition);
        std::thread::spawn(move || partition.flushed())
    };
    std::thread::sleep(Duration::from_millis(50));
    // Meanwhile the log is cut, and this broker leads alone.
    assert!(
        partition
            .executor
            .submit(Job::Other(Box::new(|writer| drop(writer.truncate_to(1)))), |writer, jobs| {
                for job in jobs {
                    if let Job::Other(act) = job {
                        act(writer);
                    }
                }
            })
            .is_ok()
    );
    let alone = PartitionState {
        replicas: vec![BrokerId(0)],
        isr: vec![BrokerId(0)],
        leader_epoch: LeaderEpoch(2),
        partition_epoch: PartitionEpoch(2),
        recovering: false,
        has_eligible: false,
    };
    *partition.core.lock() = Core::Leader(Box::new(partition.begin_to_lead(alone)));
    *role = Role::Leader { epoch: LeaderEpoch(2) };
    drop(role);
    flushed.join().unwrap();
    assert_eq!((partition.log().log_end_offset(), partition.high_watermark()), (1, 1));
}

/// DeleteRecords waits for it on the leader, which gets only changes of a quiet partition.
#[tokio::test]
async fn the_next_fetch_says_what_was_deleted_though_the_writer_was_at_work() {
    let root = tempfile::tempdir().unwrap();
    let dir = log_dir(root.path());
    let partition = partition(&dir);
    led_by(&partition, 1, 1);
    append(&partition, 0).await;
    append(&partition, 1).await;
    assert!(wait_for_flush(&[(Arc::clone(&partition), LeaderEpoch(1))], PATIENCE).await);
    let Some(Next::Fetch(sent)) = partition.next_fetch(LeaderEpoch(1)) else {
        panic!("it follows");
    };
    let (busy, is_busy) = std::sync::mpsc::channel();
    let (free, is_free) = std::sync::mpsc::channel::<()>();
    let other = Arc::clone(&partition);
    let at_work = std::thread::spawn(move || {
        other.spawn_on_writer(move |_| {
            busy.send(()).unwrap();
            let _ = is_free.recv_timeout(PATIENCE);
        });
    });
    is_busy.recv_timeout(PATIENCE).unwrap();
    let answer = FetchAnswer {
        error: ErrorCode::None,
        high_watermark: 2,
        log_start: 1,
        diverging: None,
        has_records: false,
    };
    assert_eq!(partition.fetch_answered(LeaderEpoch(1), &sent, &answer), Todo::Nothing);
    partition.step();
    assert_eq!(partition.log().log_start_offset(), 0, "the writer is at work");
    let heard = Arc::clone(&partition);
    let follows = tokio::spawn(async move { heard.follow_log_start(LeaderEpoch(1)).await });
    drop(free);
    tokio::time::timeout(PATIENCE, follows).await.unwrap().unwrap();
    let says = FetchFrom { log_start: 1, ..sent };
    assert!(
        matches!(partition.next_fetch(LeaderEpoch(1)), Some(Next::Fetch(from)) if from == says)
    );
    at_work.join().unwrap();
}
