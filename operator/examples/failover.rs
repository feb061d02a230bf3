//! The cost of a failover for the operator on Kubernetes: deciding the new leaders of a dead
//! broker's partitions, and writing them to PartitionTables.
//!
//! ```text
//! kubectl -n weir-system scale deployment weir-operator --replicas=0
//! cargo run --release -p weir-operator --example failover -- 5000 100000
//! ```
//!
//! It is the controller of a cluster of its own, `failover-figures` in the namespace `default` of
//! the cluster in `KUBECONFIG`, so no other operator may run. The cluster has three brokers that
//! exist only as registrations. It has the given number of partitions with three replicas, in a
//! hundred topics over all shards. In each round the broker that leads a third of them dies and
//! registers again. The program prints the median and the worst time of each part, and deletes the
//! cluster.
#![allow(clippy::print_stdout, reason = "it is what the program is for")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use uuid::Uuid;
use weir_crds::{KafkaCluster, Topic};
use weir_operator::controller::sessions::{SESSION_TIMEOUT_MS, Sessions, StreamId, Timestamp};
use weir_operator::controller::state::{Change, Endpoint, State};
use weir_operator::controller::{Event, Heartbeat, Moment, Registration, Reply, Resource, decide};
use weir_operator::store::Store as _;
use weir_operator::store::kube::{ClusterCache, KubeStore};
use weir_protocol::types::{BrokerId, ControllerEpoch};

const NAME: &str = "failover-figures";
const TOPICS: usize = 100;
const ROUNDS: usize = 20;
const BROKERS: std::ops::Range<i32> = 0..3;

struct Controller {
    store: KubeStore,
    state: State,
    sessions: Sessions,
    now: Timestamp,
}

impl Controller {
    /// Decides and commits; returns the reply, and the milliseconds of both.
    async fn put(&mut self, event: Event) -> Result<(Reply, [f64; 2])> {
        let moment = Moment {
            now: self.now,
            wall: Time(jiff::Timestamp::UNIX_EPOCH),
            seed: Uuid::new_v4().as_u128(),
            given: BTreeMap::new(),
        };
        let began = Instant::now();
        let outcome = decide(&self.state, &self.sessions, event, &moment);
        for change in &outcome.changes {
            self.state.apply(change);
        }
        let decided = began.elapsed();
        self.store.commit(&self.state, &outcome.changes).await?;
        let ms = [decided, began.elapsed() - decided].map(|time| time.as_secs_f64() * 1000.0);
        Ok((outcome.reply, ms))
    }

    /// A broker registers and reports ready.
    async fn registers(&mut self, broker: BrokerId, incarnation: u128) -> Result<()> {
        let before = self.state.brokers.get(&broker).map(|known| known.epoch);
        let registration = Registration {
            cluster_id: NAME.to_owned(),
            broker,
            incarnation: Uuid::from_u128(incarnation),
            log_dir: Uuid::from_u128(u128::from(broker.0.unsigned_abs()) + 1),
            endpoints: vec![Endpoint {
                listener: "PLAIN".to_owned(),
                host: "127.0.0.1".to_owned(),
                port: 9092,
                security_protocol: "PLAINTEXT".to_owned(),
            }],
            rack: None,
            previous_epoch: before,
            clean: true,
            controller_epoch: ControllerEpoch(0),
            leader_epochs: Vec::new(),
            is_certified: false,
        };
        let epoch = match self.put(Event::Register(registration)).await?.0 {
            Reply::Registered(epoch) => epoch,
            other => anyhow::bail!("broker {broker} is not registered: {other:?}"),
        };
        self.sessions.opened(broker, StreamId(incarnation as u64), self.now, self.state.version);
        self.sessions.heard(broker, self.state.version, self.now);
        let heartbeat = Heartbeat {
            broker,
            epoch,
            applied_version: self.state.version,
            ready: true,
            wants_shutdown: false,
            log_dir_failed: false,
        };
        self.put(Event::Heartbeat(heartbeat)).await?;
        ensure!(self.state.is_usable(broker), "broker {broker} is fenced");
        Ok(())
    }

    fn led_by(&self, broker: BrokerId) -> usize {
        let partitions = self.state.topics.values().flat_map(|topic| &topic.partitions);
        partitions.filter(|partition| partition.leader == Some(broker)).count()
    }

    /// Puts all replicas back in sync, with the preferred replica as the leader of every partition.
    /// In a real cluster leaders would propose that one by one.
    async fn heals(&mut self) -> Result<()> {
        let mut changes = Vec::new();
        for (id, topic) in &self.state.topics {
            for (index, partition) in (0..).zip(&topic.partitions) {
                let mut whole = partition.clone();
                whole.isr.clone_from(&whole.replicas);
                whole.elr.clear();
                whole.leader = whole.replicas.first().copied();
                whole.leader_epoch.0 += 1;
                whole.partition_epoch.0 += 1;
                changes.push(Change::Partition(*id, index, whole));
            }
        }
        for change in &changes {
            self.state.apply(change);
        }
        self.store.commit(&self.state, &changes).await?;
        Ok(())
    }
}

async fn measure(client: &Client, resource: &KafkaCluster, partitions: usize) -> Result<()> {
    let mut store = KubeStore::new(
        client.clone(),
        resource,
        Arc::new(|| Box::pin(async { true })),
        ClusterCache::default(),
    );
    store.create(NAME.to_owned(), resource.clone()).await?;
    let state = store.load().await?;
    let mut controller =
        Controller { store, state, sessions: Sessions::default(), now: Timestamp(0) };
    for broker in BROKERS {
        controller.registers(BrokerId(broker), 1).await?;
    }
    for number in 0..TOPICS {
        let topic: Topic = serde_json::from_value(json!({
            "apiVersion": weir_crds::API_VERSION, "kind": "Topic", "metadata": {"name": format!("{NAME}-{number}"), "namespace": "default"},
            "spec": {"clusterRef": {"name": NAME}, "partitions": partitions / TOPICS, "replicas": 3},
        }))?;
        let reply = controller.put(Event::Apply(vec![Resource::Topic(Box::new(topic))])).await?.0;
        ensure!(matches!(reply, Reply::Applied(_)), "{reply:?}");
    }
    let (mut decided, mut stored) = (Vec::new(), Vec::new());
    let dies = BrokerId(0);
    let mut led = 0;
    for round in 0..ROUNDS {
        led = controller.led_by(dies);
        // It has been silent longer than a session, and the others have just sent a heartbeat.
        controller.now = controller.now.plus(u64::from(SESSION_TIMEOUT_MS) + 1);
        for broker in BROKERS.skip(1) {
            controller.sessions.heard(BrokerId(broker), controller.state.version, controller.now);
        }
        let (_, [decides, stores]) = controller.put(Event::Tick).await?;
        ensure!(controller.led_by(dies) == 0, "the dead broker leads");
        decided.push(decides);
        stored.push(stores);
        controller.sessions.ended(dies);
        controller.registers(dies, 2 + round as u128).await?;
        controller.heals().await?;
    }
    for (what, mut times) in [("decided", decided), ("stored", stored)] {
        times.sort_by(f64::total_cmp);
        let (median, worst) = (times[ROUNDS / 2], times[ROUNDS - 1]);
        println!(
            "{partitions} partitions, {led} of them led by the broker that dies: {what} in {median:.1} ms (median of {ROUNDS}; worst {worst:.1})"
        );
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let client = Client::try_default().await?;
    let clusters: Api<KafkaCluster> = Api::namespaced(client.clone(), "default");
    let resource = serde_json::from_value(json!({
        "apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": NAME}, "spec": {"paused": true, "brokers": {"replicas": 3}},
    }))?;
    for argument in std::env::args().skip(1) {
        let partitions = argument.parse().context("a number of partitions")?;
        let resource = clusters.create(&PostParams::default(), &resource).await?;
        let measured = measure(&client, &resource, partitions).await;
        // Dependents are deleted first, so that the next cluster starts empty.
        clusters.delete(NAME, &DeleteParams::foreground()).await?;
        while clusters.get_opt(NAME).await?.is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        measured?;
    }
    Ok(())
}
