//! A controller that the test plays: it knows its topics beforehand, takes every registration, and can go away and come back at the same address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

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

/// The one version of the metadata: nothing changes here.
const METADATA_VERSION: u64 = 1;
const PRODUCER_IDS: u32 = 1000;

/// A topic of which the broker that registers has every partition; the first byte of its id tells it from others.
pub(crate) fn topic(id: u8, name: &str, partitions: i32, configs: &[(&str, &str)]) -> rpc::Topic {
    let partition = |index| rpc::Partition { index, ..Default::default() };
    rpc::Topic {
        id: [id; 16].to_vec(),
        name: name.to_owned(),
        internal: false,
        configs: Some(rpc::Configs {
            entries: configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }),
        partitions: (0..partitions).map(partition).collect(),
    }
}

/// The controller.
pub(crate) struct FakeController {
    state: Arc<State>,
    address: SocketAddr,
    /// Holds the port while nobody listens.
    _port: TcpSocket,
    runtime: Option<Runtime>,
}

struct State {
    topics: Vec<rpc::Topic>,
    registrations: watch::Sender<Vec<rpc::Registration>>,
    next_producer_id: AtomicI64,
    log_dir_failure: Mutex<String>,
}

impl FakeController {
    pub(crate) fn start(topics: Vec<rpc::Topic>) -> Self {
        let port = socket("127.0.0.1:0".parse().unwrap());
        let mut controller = Self {
            state: Arc::new(State {
                topics,
                registrations: watch::Sender::default(),
                next_producer_id: AtomicI64::default(),
                log_dir_failure: Mutex::default(),
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

    /// Ends as a killed process does: every connection breaks, and new ones are refused.
    pub(crate) fn go_away(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Serves, again.
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

    /// The broker's registrations so far, once there are this many.
    pub(crate) async fn registrations(&self, count: usize) -> Vec<rpc::Registration> {
        let mut registrations = self.state.registrations.subscribe();
        let enough = registrations.wait_for(|registrations| registrations.len() >= count);
        super::soon("a registration", enough).await.unwrap().clone()
    }

    /// Why the broker says that its log directory is offline.
    pub(crate) fn log_dir_failure(&self) -> String {
        self.state.log_dir_failure.lock().clone()
    }
}

impl Drop for FakeController {
    fn drop(&mut self) {
        self.go_away();
    }
}

/// A socket that shares its address with the one that holds the port.
fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

fn say(message: FromController) -> Result<rpc::ControllerMessage, Status> {
    Ok(rpc::ControllerMessage {
        controller_epoch: 1,
        message: Some(message),
    })
}

impl State {
    /// What is said to a message of a broker.
    fn answers(&self, message: FromBroker) -> Vec<FromController> {
        match message {
            FromBroker::Registration(registration) if registration.cluster_id != CLUSTER => vec![FromController::Refused(rpc::Refused {
                error_code: i32::from(ErrorCode::InconsistentClusterId.code()),
                reason: format!("this is the controller of cluster {CLUSTER}"),
            })],
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
                vec![
                    FromController::Registered(registered),
                    FromController::Metadata(self.metadata(&registration, epoch)),
                ]
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

    fn metadata(&self, registration: &rpc::Registration, epoch: i64) -> rpc::MetadataUpdate {
        let mut topics = self.topics.clone();
        for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.leader = registration.broker_id;
            partition.replicas = vec![registration.broker_id];
            partition.isr = vec![registration.broker_id];
        }
        rpc::MetadataUpdate {
            version: METADATA_VERSION,
            full: true,
            brokers: vec![rpc::Broker {
                id: registration.broker_id,
                epoch,
                endpoints: registration.endpoints.clone(),
                ..Default::default()
            }],
            topics,
            cluster_configs: Some(rpc::Configs::default()),
            ..Default::default()
        }
    }
}

/// The RPC's face of the state.
struct Service(Arc<State>);

#[tonic::async_trait]
impl Controller for Service {
    type SessionStream = ReceiverStream<Result<rpc::ControllerMessage, Status>>;

    async fn session(&self, request: tonic::Request<Streaming<rpc::BrokerMessage>>) -> Result<Response<Self::SessionStream>, Status> {
        let mut stream = request.into_inner();
        let (sender, receiver) = mpsc::channel(16);
        let state = Arc::clone(&self.0);
        tokio::spawn(async move {
            while let Ok(Some(message)) = stream.message().await {
                for answer in message.message.into_iter().flat_map(|message| state.answers(message)) {
                    // A broker that is gone hears nothing.
                    let _ = sender.send(say(answer)).await;
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
        _request: tonic::Request<rpc::AlterPartitionsRequest>,
    ) -> Result<Response<rpc::AlterPartitionsResponse>, Status> {
        Err(Status::unimplemented("a single broker has no ISR to change"))
    }

    async fn forward(&self, request: tonic::Request<rpc::ForwardRequest>) -> Result<Response<rpc::ForwardResponse>, Status> {
        Ok(Response::new(rpc::ForwardResponse {
            response: admin::carried_out(&request.into_inner()),
            metadata_version: METADATA_VERSION,
        }))
    }
}
