//! The loop that loads a coordinator for as long as this broker leads its partition.

use std::time::Duration;

use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, span};
use weir_protocol::controller as rpc;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerId, ControllerEpoch};

use super::*;
use crate::coordinator::Coordinator;
use crate::coordinator::shard::{Shard, Status, Tenure};
use crate::metadata::Metadata;
use crate::replica::Replicas;

const OWN: BrokerId = BrokerId(0);
const EPOCH: LeaderEpoch = LeaderEpoch(4);

/// Not an expectation of speed: the bound only turns a hang into a failure.
const LOST: Duration = Duration::from_secs(60);

/// Notes how many loads have failed, as the log lines say it.
struct Said(watch::Sender<u64>);

impl tracing::Subscriber for Said {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Failed(&self.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Failed<'a>(&'a watch::Sender<u64>);

impl Visit for Failed<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "failed" {
            self.0.send_replace(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// A coordinator on a broker that leads its partition, and what its log lines say.
struct Driven {
    root: tempfile::TempDir,
    coordinator: Arc<Coordinator<Noted>>,
    failed: watch::Receiver<u64>,
    _said: DefaultGuard,
}

impl Driven {
    fn new() -> Self {
        let root = written();
        let identity = Identity { cluster_id: "c".into(), broker_id: OWN.0 };
        let options = LogDirOptions { open_files_max: 4, recovery_threads: 1 };
        let dir = LogDir::open(Arc::new(Disk), root.path(), &identity, options).unwrap();
        let replicas = Arc::new(Replicas::new(OWN, dir));
        let mut coordinator =
            Coordinator::<Noted>::new(OWN, Arc::new(Metadata::new()), replicas, ());
        coordinator.load_pause = Duration::from_millis(1);
        let (said, failed) = watch::channel(0);
        let _said = tracing::subscriber::set_default(Said(said));
        Self { root, coordinator: Arc::new(coordinator), failed, _said }
    }

    /// This broker has the partition and leads it.
    fn lead(&self) {
        let partition = rpc::Partition {
            replicas: vec![OWN.0],
            isr: vec![OWN.0],
            leader: OWN.0,
            leader_epoch: EPOCH.0,
            ..Default::default()
        };
        let topic = rpc::Topic {
            id: ID.topic.0.as_bytes().to_vec(),
            name: Noted::TOPIC.to_owned(),
            partitions: vec![partition],
            ..Default::default()
        };
        let update = rpc::MetadataUpdate { full: true, topics: vec![topic], ..Default::default() };
        let none = MetadataImage::default();
        let (image, touched) = none.after(ControllerEpoch(1), &update).unwrap();
        self.coordinator.replicas.apply(&none, &image, &touched);
    }

    /// The loop, as it begins when the metadata say that this broker leads.
    fn load(&self) -> tokio::task::JoinHandle<()> {
        let shard = Arc::new(Shard::new());
        let tenure = Tenure { topic: ID.topic, epoch: EPOCH };
        shard.set_status(Status::Loading(tenure));
        self.coordinator.shards.write().push(Arc::clone(&shard));
        tokio::spawn(Arc::clone(&self.coordinator).keep_loading(shard, 0, tenure))
    }

    /// Waits until so many loads have failed.
    async fn failed(&mut self, times: u64) {
        let failed = self.failed.wait_for(|failed| *failed >= times);
        tokio::time::timeout(LOST, failed).await.expect("no load fails").unwrap();
    }

    fn refusal(&self) -> Option<ErrorCode> {
        self.coordinator.checked(0, false).err()
    }

    async fn records(&self) -> Result<Vec<i64>, ErrorCode> {
        self.coordinator.ask_partition(0, |to| to).await
    }
}

async fn ends(load: tokio::task::JoinHandle<()>) {
    tokio::time::timeout(LOST, load).await.expect("the loop goes on").unwrap();
}

#[tokio::test]
async fn a_disk_that_fails_for_a_while_delays_the_coordinator_and_costs_nothing() {
    let mut driven = Driven::new();
    driven.lead();
    let failing = Failing::begin(&segments(driven.root.path())[1]);
    let load = driven.load();
    driven.failed(2).await;
    assert_eq!(driven.refusal(), Some(ErrorCode::CoordinatorLoadInProgress));
    failing.end();
    ends(load).await;
    assert_eq!(driven.records().await, Ok((0..BATCHES).collect()));
    assert_eq!(driven.coordinator.left_out(), 0);
}

#[tokio::test]
async fn a_disk_that_fails_for_good_ends_in_a_coordinator_that_says_what_it_lacks() {
    let mut driven = Driven::new();
    driven.lead();
    let paths = segments(driven.root.path());
    let base =
        |path: &Path| -> i64 { path.file_stem().unwrap().to_str().unwrap().parse().unwrap() };
    let lacks = base(&paths[1])..base(&paths[2]);
    let _failing = Failing::begin(&paths[1]);
    ends(driven.load()).await;
    assert_eq!(*driven.failed.borrow_and_update(), 5, "loads failed");
    let others: Vec<i64> = (0..BATCHES).filter(|key| !lacks.contains(key)).collect();
    assert_eq!(driven.records().await, Ok(others));
    assert_eq!(driven.coordinator.left_out(), lacks.count() as u64);
}

/// Clients wait no longer for a coordinator whose loads fail again and again; the loads go on.
#[tokio::test]
async fn a_partition_that_comes_late_is_loaded_then() {
    let mut driven = Driven::new();
    let load = driven.load();
    driven.failed(6).await;
    assert_eq!(driven.refusal(), Some(ErrorCode::CoordinatorNotAvailable));
    driven.lead();
    ends(load).await;
    assert_eq!(driven.records().await, Ok((0..BATCHES).collect()));
    assert_eq!(driven.coordinator.left_out(), 0);
}

#[tokio::test]
async fn a_load_ends_with_the_leadership() {
    let mut driven = Driven::new();
    let load = driven.load();
    driven.failed(1).await;
    driven.coordinator.end();
    ends(load).await;
    assert_eq!(driven.refusal(), Some(ErrorCode::NotCoordinator));
}
