//! Measures how long decisions about many partitions take. Ignored by default, because a person has
//! to judge the numbers. Run with `cargo test -p weir-operator --release speed -- --ignored
//! --nocapture`.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a measurement")]

use std::time::Instant;

use weir_protocol::types::BrokerId;

use super::world::World;
use crate::controller::image;
use crate::controller::state::State;
use crate::controller::{AlterPartitions, Event, IsrChange};
use crate::store::file::FileStore;
use crate::store::{Store, packed::write_shard};

/// A cluster of three brokers with `topics` of `partitions` each on all of them.
fn cluster(topics: usize, partitions: usize) -> World {
    let mut world = World::new();
    for id in 0..3 {
        world.play(&format!("register {id} process=1"));
        world.play(&format!("heartbeat {id} ready"));
    }
    let on = " on=0,1,2".repeat(partitions);
    for topic in 0..topics {
        world.play(&format!("create t{topic}{on}"));
    }
    world
}

/// Removes the last replica of every partition from its ISR.
fn shrink_all(state: &State) -> AlterPartitions {
    let broker = |id| (BrokerId(id), state.brokers[&BrokerId(id)].epoch);
    let change = |(topic, index): (&crate::controller::state::Topic, usize)| IsrChange {
        topic: topic.id,
        partition: index.try_into().unwrap(),
        leader_epoch: topic.partitions[index].leader_epoch,
        partition_epoch: topic.partitions[index].partition_epoch,
        isr: vec![broker(0), broker(1)],
        recovered: false,
    };
    let all = state
        .topics
        .values()
        .flat_map(|topic| (0..topic.partitions.len()).map(move |index| (&**topic, index)));
    AlterPartitions { broker: BrokerId(0), epoch: broker(0).1, changes: all.map(change).collect() }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn of_decisions_about_many_partitions() {
    for (topics, partitions) in [(1, 5_000), (100, 50), (5_000, 1)] {
        let mut world = cluster(topics, partitions);
        let request = shrink_all(&world.state);
        let timed = |what: &str, started: Instant| {
            println!("{topics} x {partitions}: {what} {:?}", started.elapsed())
        };
        let started = Instant::now();
        let (_, changes) = world.event(Event::AlterPartitions(request));
        assert_eq!(changes.len(), 5_000);
        timed("change 5,000 ISRs:", started);
        let before = world.state.clone();
        world.sessions.broke(BrokerId(0), crate::controller::sessions::StreamId(0), world.now);
        world.now = world.now.plus(600);
        let started = Instant::now();
        let (_, changes) = world.tick();
        assert_eq!(changes.len(), 5_001);
        timed("fence the leader of 5,000:", started);
        let started = Instant::now();
        image::delta(&before, &world.state, &changes).unwrap();
        timed("make their delta:", started);
        let started = Instant::now();
        let lines = world.state.topics.iter().flat_map(|(id, topic)| {
            (0..).zip(&topic.partitions).map(|(index, partition)| (*id, index, partition))
        });
        let bytes = write_shard(lines, std::iter::empty(), "n").len();
        timed(&format!("write their {bytes} bytes of text:"), started);
        let root = tempfile::tempdir().unwrap();
        let mut store = FileStore::open(root.path()).unwrap();
        store.create("id".to_owned(), (*world.state.cluster.resource).clone()).unwrap();
        let started = Instant::now();
        store.commit(&world.state, &changes).await.unwrap();
        timed("commit them to files:", started);
    }
}
