use std::path::Path;
use std::sync::Arc;

use super::*;
use weir_log::{Disk, Identity, LogDirOptions};

fn open(root: &Path) -> LogDir {
    let identity = Identity { cluster_id: "c".to_owned(), broker_id: 1 };
    let options = LogDirOptions { open_files_max: 16, recovery_threads: 1 };
    LogDir::open(Arc::new(Disk), root, &identity, options).unwrap()
}

fn topic(id: u8, partitions: i32, leader_epoch: i32) -> rpc::Topic {
    let partition = |index| rpc::Partition {
        index,
        replicas: vec![1, 2, 3],
        isr: vec![1, 2],
        leader: 1,
        leader_epoch,
        partition_epoch: 10 + leader_epoch,
        ..Default::default()
    };
    rpc::Topic {
        id: vec![id; 16],
        name: format!("topic-{id}"),
        partitions: (0..partitions).map(partition).collect(),
        ..Default::default()
    }
}

fn told(version: u64, full: bool, topics: Vec<rpc::Topic>) -> rpc::MetadataUpdate {
    rpc::MetadataUpdate { version, full, topics, ..Default::default() }
}

/// A run that receives updates one after the other.
struct Run {
    log_dir: LogDir,
    keeper: Keeper,
    image: MetadataImage,
    epoch: i64,
}

impl Run {
    fn registered(root: &Path, epoch: i64) -> Self {
        let log_dir = open(root);
        log_dir.set_broker_epoch(epoch).unwrap();
        Self { log_dir, keeper: Keeper::default(), image: MetadataImage::default(), epoch }
    }

    fn is_told(&mut self, update: rpc::MetadataUpdate) {
        let (next, _) = self.image.after(ControllerEpoch(4), &update).unwrap();
        self.keeper.keep(&self.log_dir, self.epoch, update, &next);
        self.image = next;
    }
}

fn length(root: &Path) -> u64 {
    std::fs::metadata(root.join("image")).unwrap().len()
}

#[test]
fn the_next_run_finds_all_that_this_one_acted_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::registered(dir.path(), 7);
    run.is_told(told(1, true, vec![topic(1, 2, 5), topic(2, 1, 5)]));
    run.is_told(told(2, false, vec![topic(2, 1, 6)]));
    // The proposal of an older broker.
    run.log_dir.keep_change(&[PROPOSAL, 1]);
    run.is_told(told(3, false, vec![topic(3, 1, 0)]));
    run.keeper.keep_producer_ids(&run.log_dir, [5..10, 20..30]);
    let image = run.image.whole();
    drop(run);
    for _ in 0..2 {
        // A run that continues with the state and dies leaves it unchanged.
        let log_dir = open(dir.path());
        let left = left(&log_dir).unwrap();
        assert_eq!(
            (left.image.whole(), left.image.controller_epoch),
            (image.clone(), ControllerEpoch(4))
        );
        assert_eq!(left.producer_ids, [5..10, 20..30]);
        Keeper::default().adopt_previous(&log_dir, 7, &left);
    }
}

#[test]
fn nothing_is_left_by_a_run_whose_log_may_be_shortened_or_under_another_registration() {
    let dir = tempfile::tempdir().unwrap();
    assert!(left(&open(dir.path())).is_none(), "the first run");
    let mut run = Run::registered(dir.path(), 7);
    run.is_told(told(1, true, vec![topic(1, 1, 5)]));
    drop(run);
    assert!(left(&open(dir.path())).is_some());
    // A process that was killed, on a machine that has rebooted since.
    let file = dir.path().join("run");
    let same_boot = std::fs::read_to_string(&file).unwrap();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(&file, same_boot.replace(boot_id.trim(), "another")).unwrap();
    assert!(left(&open(dir.path())).is_none());
    // Such a run registers, and is killed before it gets its metadata.
    drop(Run::registered(dir.path(), 8));
    assert!(left(&open(dir.path())).is_none());
}

#[test]
fn what_makes_no_sense_is_not_believed() {
    let whole = metadata_frame(ControllerEpoch(1), told(1, true, vec![topic(1, 1, 5)]));
    assert!(read(std::slice::from_ref(&whole)).is_some());
    let gap = metadata_frame(
        ControllerEpoch(1),
        told(2, false, vec![rpc::Topic { id: vec![1], ..topic(1, 1, 5) }]),
    );
    for wrong in [vec![], vec![b'x'], vec![METADATA, 0xff], vec![PRODUCER_IDS], gap] {
        assert!(read(&[whole.clone(), wrong]).is_none());
    }
    assert!(read(&[]).is_none());
}

#[test]
fn an_election_among_thousands_of_partitions_costs_a_few_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::registered(dir.path(), 7);
    run.is_told(told(1, true, vec![topic(1, 5_000, 5)]));
    let whole = length(dir.path());
    assert!(whole < 250_000, "{whole}");
    let one = topic(1, 1, 6);
    run.is_told(told(2, false, vec![one]));
    assert!(length(dir.path()) - whole < 100, "{}", length(dir.path()) - whole);
    // However much changes, the file stays within a few times its content.
    for version in 3..30 {
        run.is_told(told(version, false, vec![topic(1, 5_000, 6)]));
        assert!(length(dir.path()) < 5 * whole, "{}", length(dir.path()));
    }
    let image = run.image.whole();
    drop(run);
    assert_eq!(left(&open(dir.path())).unwrap().image.whole(), image);
}
