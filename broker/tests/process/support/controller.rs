//! A fake controller in the test process. It has its topics from the start, accepts every
//! registration, changes ISRs on request, and can stop and return at the same address.
//!
//! The test makes the controller's other decisions: leaders and fencing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Response, Status, Streaming};
use weir_protocol::controller as rpc;
use weir_protocol::controller::broker_message::Message as FromBroker;
use weir_protocol::controller::controller_message::Message as FromController;
use weir_protocol::controller::controller_server::{Controller, ControllerServer};
use weir_protocol::error::ErrorCode;

use super::{CLUSTER, admin};

const PRODUCER_IDS: u32 = 1000;

/// A topic whose partitions all belong to the broker that registers. All bytes of its id are `id`.
pub(crate) fn topic(id: u8, name: &str, partitions: i32, configs: &[(&str, &str)]) -> rpc::Topic {
    let partition = |index| rpc::Partition { index, ..Default::default() };
    rpc::Topic {
        id: [id; 16].to_vec(),
        name: name.to_owned(),
        internal: name.starts_with("__"),
        configs: Some(rpc::Configs {
            entries: configs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        }),
        partitions: (0..partitions).map(partition).collect(),
    }
}

/// A topic whose partitions are all on `replicas`, with the first of them as the leader.
pub(crate) fn placed_topic(
    id: u8,
    name: &str,
    partitions: i32,
    replicas: &[i32],
    configs: &[(&str, &str)],
) -> rpc::Topic {
    let mut topic = topic(id, name, partitions, configs);
    for partition in &mut topic.partitions {
        partition.leader = replicas[0];
        (partition.replicas, partition.isr) = (replicas.to_vec(), replicas.to_vec());
    }
    topic
}

/// The controller.
pub(crate) struct FakeController {
    state: Arc<State>,
    address: SocketAddr,
    /// Holds the port while no server listens.
    _port: TcpSocket,
    runtime: Option<Runtime>,
}

struct State {
    world: Mutex<World>,
    /// Counts the changes of `world`.
    changes: watch::Sender<u64>,
    registrations: watch::Sender<Vec<rpc::Registration>>,
    next_producer_id: AtomicI64,
    log_dir_failure: Mutex<String>,
    /// The operator hosts no controller, because the cluster's tables are lost.
    has_lost_tables: AtomicBool,
}

/// The metadata that the controller sends.
#[derive(Default)]
struct World {
    version: u64,
    topics: Vec<rpc::Topic>,
    brokers: BTreeMap<i32, rpc::Broker>,
    configs: rpc::Configs,
    features: rpc::Features,
    streams: Vec<mpsc::UnboundedSender<FromController>>,
    /// No broker gets updates.
    holds_back: bool,
}

impl World {
    /// Sends the current metadata to all brokers.
    fn tell(&mut self) {
        self.version += 1;
        if self.holds_back {
            return;
        }
        let update = self.update();
        self.streams.retain(|stream| stream.send(FromController::Metadata(update.clone())).is_ok());
    }

    fn update(&self) -> rpc::MetadataUpdate {
        rpc::MetadataUpdate {
            version: self.version,
            full: true,
            brokers: self.brokers.values().cloned().collect(),
            topics: self.topics.clone(),
            cluster_configs: Some(self.configs.clone()),
            features: Some(self.features.clone()),
            ..Default::default()
        }
    }

    fn partition(&mut self, topic: &[u8], index: i32) -> &mut rpc::Partition {
        let topic = self.topics.iter_mut().find(|it| it.id == topic).unwrap();
        &mut topic.partitions[usize::try_from(index).unwrap()]
    }

    /// Kafka's rules for AlterPartition, as far as the tests need them.
    fn alter(&mut self, change: &rpc::IsrChange) -> Result<rpc::Partition, ErrorCode> {
        let stale = |member: &rpc::IsrMember| {
            self.brokers
                .get(&member.broker_id)
                .is_none_or(|it| it.fenced || it.epoch != member.broker_epoch)
        };
        let ineligible = change.isr.iter().any(stale);
        let partition = self.partition(&change.topic_id, change.partition);
        if change.leader_epoch != partition.leader_epoch {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if change.partition_epoch != partition.partition_epoch {
            return Err(ErrorCode::InvalidUpdateVersion);
        }
        if ineligible {
            return Err(ErrorCode::IneligibleReplica);
        }
        partition.isr = change.isr.iter().map(|member| member.broker_id).collect();
        partition.partition_epoch += 1;
        Ok(partition.clone())
    }
}

impl FakeController {
    pub(crate) fn start(topics: Vec<rpc::Topic>) -> Self {
        let port = socket("127.0.0.1:0".parse().unwrap());
        let mut controller = Self {
            state: Arc::new(State {
                world: Mutex::new(World { topics, ..World::default() }),
                changes: watch::Sender::default(),
                registrations: watch::Sender::default(),
                next_producer_id: AtomicI64::default(),
                log_dir_failure: Mutex::default(),
                has_lost_tables: AtomicBool::default(),
            }),
            address: port.local_addr().unwrap(),
            _port: port,
            runtime: None,
        };
        controller.come_back();
        controller
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops like a killed process: every connection breaks, and new ones are refused.
    pub(crate) fn go_away(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Serves again.
    pub(crate) fn come_back(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (state, address) = (Arc::clone(&self.state), self.address);
        let listener = {
            let _entered = runtime.enter();
            socket(address).listen(16).unwrap()
        };
        runtime.spawn(async move {
            let served = tonic::transport::Server::builder()
                .add_service(ControllerServer::new(Service(state)))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await;
            served.unwrap();
        });
        self.runtime = Some(runtime);
    }

    /// Loses the cluster's tables: refuses every registration from here on, without an epoch, as
    /// an operator does that is no controller of the cluster.
    pub(crate) fn lose_tables(&self) {
        self.state.has_lost_tables.store(true, Ordering::SeqCst);
    }

    /// The broker's registrations so far, once there are this many.
    pub(crate) async fn registrations(&self, count: usize) -> Vec<rpc::Registration> {
        let mut registrations = self.state.registrations.subscribe();
        let enough = registrations.wait_for(|registrations| registrations.len() >= count);
        super::soon("a registration", enough).await.unwrap().clone()
    }

    /// Waits until the controller has allocated this many blocks of producer ids.
    pub(crate) async fn gave_producer_ids(&self, blocks: i64) {
        let enough = async {
            while self.state.next_producer_id.load(Ordering::SeqCst)
                < blocks * i64::from(PRODUCER_IDS)
            {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        super::soon("producer ids are asked for", enough).await;
    }

    /// Changes a partition and sends the update to the connected brokers.
    pub(crate) fn change(&self, topic: u8, index: i32, change: impl FnOnce(&mut rpc::Partition)) {
        let mut world = self.state.world.lock();
        let partition = world.partition(&[topic; 16], index);
        change(partition);
        partition.partition_epoch += 1;
        world.tell();
        self.state.changes.send_modify(|count| *count += 1);
    }

    /// Sets a configuration of the whole cluster.
    pub(crate) fn configure(&self, key: &str, value: &str) {
        let mut world = self.state.world.lock();
        world.configs.entries.insert(key.to_owned(), value.to_owned());
        world.tell();
    }

    /// Holds updates back, or ends that and sends the current metadata.
    pub(crate) fn hold_back(&self, holds_back: bool) {
        let mut world = self.state.world.lock();
        world.holds_back = holds_back;
        world.tell();
    }

    /// Finalises a feature of the cluster (KIP-584).
    pub(crate) fn finalise(&self, feature: &str, level: u32) {
        let mut world = self.state.world.lock();
        world.features.epoch += 1;
        world.features.levels.insert(feature.to_owned(), level);
        world.tell();
    }

    /// Creates a topic with given replicas.
    pub(crate) fn create(&self, topic: rpc::Topic) {
        let mut world = self.state.world.lock();
        world.topics.push(topic);
        world.tell();
    }

    /// Replaces the topic of this name by a new one. No broker sees a state between the two.
    pub(crate) fn remake(&self, topic: rpc::Topic) {
        let mut world = self.state.world.lock();
        world.topics.retain(|it| it.name != topic.name);
        world.topics.push(topic);
        world.tell();
    }

    /// Deletes a topic.
    pub(crate) fn delete(&self, topic: u8) {
        let mut world = self.state.world.lock();
        world.topics.retain(|it| it.id != [topic; 16]);
        world.tell();
    }

    /// Elects another leader, or none for -1, with this ISR.
    pub(crate) fn elect(&self, topic: u8, index: i32, leader: i32, isr: &[i32]) {
        self.change(topic, index, |partition| {
            (partition.leader, partition.isr) = (leader, isr.to_vec());
            partition.leader_epoch += 1;
        });
    }

    /// Changes what is told of a broker.
    pub(crate) fn change_broker(&self, id: i32, change: impl FnOnce(&mut rpc::Broker)) {
        let mut world = self.state.world.lock();
        change(world.brokers.get_mut(&id).unwrap());
        world.tell();
    }

    /// Waits until a partition fulfils the condition.
    pub(crate) async fn partition(
        &self,
        topic: u8,
        index: i32,
        is_so: impl Fn(&rpc::Partition) -> bool,
    ) -> rpc::Partition {
        let mut changes = self.state.changes.subscribe();
        let state = &self.state;
        super::soon("a change of a partition", async {
            loop {
                let partition = state.world.lock().partition(&[topic; 16], index).clone();
                if is_so(&partition) {
                    return partition;
                }
                changes.changed().await.unwrap();
            }
        })
        .await
    }

    /// The reason with which the broker reports its log directory offline.
    pub(crate) fn log_dir_failure(&self) -> String {
        self.state.log_dir_failure.lock().clone()
    }
}

impl Drop for FakeController {
    fn drop(&mut self) {
        self.go_away();
    }
}

/// A socket that shares its address with the one that reserves the port.
fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

impl State {
    fn say(&self, message: FromController) -> Result<rpc::ControllerMessage, Status> {
        let controller_epoch = i64::from(!self.has_lost_tables.load(Ordering::SeqCst));
        Ok(rpc::ControllerMessage { controller_epoch, message: Some(message) })
    }

    /// The answers to a broker's message.
    fn answers(&self, message: FromBroker) -> Vec<FromController> {
        match message {
            FromBroker::Registration(_) if self.has_lost_tables.load(Ordering::SeqCst) => {
                vec![FromController::Refused(rpc::Refused {
                    error_code: i32::from(ErrorCode::InvalidRegistration.code()),
                    reason: "the cluster has lost its tables and recovers".to_owned(),
                })]
            }
            FromBroker::Registration(registration) if registration.cluster_id != CLUSTER => {
                vec![FromController::Refused(rpc::Refused {
                    error_code: i32::from(ErrorCode::InconsistentClusterId.code()),
                    reason: format!("this is the controller of cluster {CLUSTER}"),
                })]
            }
            FromBroker::Registration(registration) => {
                let mut epoch = 0;
                self.registrations.send_modify(|registrations| {
                    registrations.push(registration.clone());
                    epoch = i64::try_from(registrations.len()).unwrap();
                });
                let registered = rpc::Registered {
                    broker_epoch: epoch,
                    heartbeat_interval_ms: 100,
                    session_timeout_ms: 30_000,
                };
                self.register(&registration, epoch);
                vec![FromController::Registered(registered)]
            }
            FromBroker::Heartbeat(heartbeat) => {
                *self.log_dir_failure.lock() = heartbeat.log_dir_failure;
                vec![FromController::HeartbeatReply(rpc::HeartbeatReply {
                    fenced: !heartbeat.ready,
                    may_shut_down: heartbeat.wants_shutdown,
                })]
            }
        }
    }

    /// Registers a broker. It gets every partition without replicas.
    fn register(&self, registration: &rpc::Registration, epoch: i64) {
        let mut world = self.world.lock();
        let broker = rpc::Broker {
            id: registration.broker_id,
            epoch,
            endpoints: registration.endpoints.clone(),
            rack: registration.rack.clone(),
            ..Default::default()
        };
        world.brokers.insert(registration.broker_id, broker);
        let unplaced = |partition: &&mut rpc::Partition| partition.replicas.is_empty();
        for partition in
            world.topics.iter_mut().flat_map(|topic| &mut topic.partitions).filter(unplaced)
        {
            partition.leader = registration.broker_id;
            partition.replicas = vec![registration.broker_id];
            partition.isr = vec![registration.broker_id];
        }
    }
}

/// The RPC service over the state.
struct Service(Arc<State>);

#[tonic::async_trait]
impl Controller for Service {
    type SessionStream = ReceiverStream<Result<rpc::ControllerMessage, Status>>;

    async fn session(
        &self,
        request: tonic::Request<Streaming<rpc::BrokerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut stream = request.into_inner();
        let (sender, receiver) = mpsc::channel(16);
        let state = Arc::clone(&self.0);
        tokio::spawn(async move {
            let (told, mut telling) = mpsc::unbounded_channel();
            loop {
                tokio::select! {
                    biased;
                    message = stream.message() => {
                        let Ok(Some(message)) = message else { return };
                        for answer in message.message.into_iter().flat_map(|message| state.answers(message)) {
                            let registered = matches!(answer, FromController::Registered(_));
                            // Ignore the error of a closed stream: that broker is gone.
                            let _ = sender.send(state.say(answer)).await;
                            if registered {
                                let mut world = state.world.lock();
                                world.streams.push(told.clone());
                                world.tell();
                            }
                        }
                    }
                    Some(update) = telling.recv() => {
                        let _ = sender.send(state.say(update)).await;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn allocate_producer_ids(
        &self,
        _: tonic::Request<rpc::AllocateProducerIdsRequest>,
    ) -> Result<Response<rpc::AllocateProducerIdsResponse>, Status> {
        Ok(Response::new(rpc::AllocateProducerIdsResponse {
            error_code: 0,
            first: self.0.next_producer_id.fetch_add(i64::from(PRODUCER_IDS), Ordering::SeqCst),
            count: PRODUCER_IDS,
        }))
    }

    async fn alter_partitions(
        &self,
        request: tonic::Request<rpc::AlterPartitionsRequest>,
    ) -> Result<Response<rpc::AlterPartitionsResponse>, Status> {
        let request = request.into_inner();
        let mut world = self.0.world.lock();
        let changed = request.changes.iter().map(|change| {
            let result = world.alter(change);
            rpc::IsrChanged {
                topic_id: change.topic_id.clone(),
                partition: change.partition,
                error_code: result.as_ref().err().map_or(0, |code| i32::from(code.code())),
                state: result.ok(),
            }
        });
        let results = changed.collect();
        world.tell();
        self.0.changes.send_modify(|count| *count += 1);
        Ok(Response::new(rpc::AlterPartitionsResponse {
            error_code: 0,
            results,
            metadata_version: world.version,
        }))
    }

    async fn take_stock(
        &self,
        _: tonic::Request<rpc::TakeStockRequest>,
    ) -> Result<Response<rpc::TakeStockResponse>, Status> {
        Err(Status::unavailable("this cluster has its tables"))
    }

    async fn forward(
        &self,
        request: tonic::Request<rpc::ForwardRequest>,
    ) -> Result<Response<rpc::ForwardResponse>, Status> {
        Ok(Response::new(rpc::ForwardResponse {
            response: admin::carried_out(&request.into_inner()),
            metadata_version: self.0.world.lock().version,
            error_code: 0,
        }))
    }
}
