//! A controller with a store in memory, and brokers as the controller sees them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::Streaming;
use tonic::transport::Channel;
use weir_operator::controller::state::{Cluster, State};
use weir_operator::rpc::{ControllerRpc, Controllers, Desk};
use weir_operator::shell::Controller;
use weir_operator::store::Store;
use weir_operator::store::memory::MemoryStore;
use weir_protocol::controller::controller_client::ControllerClient;
use weir_protocol::controller::{self as rpc, broker_message, controller_message};
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::create_topics_request::CreatableTopic;
use weir_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, Message, Request};

/// A controller that serves, with a store that the test can inspect.
pub(crate) struct Served {
    pub(crate) store: MemoryStore,
    pub(crate) address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

pub(crate) async fn serve() -> Served {
    let object = serde_json::json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "test"}, "spec": {"brokers": {"replicas": 9}}});
    let cluster = Cluster::new("cluster".to_owned(), serde_json::from_value(object).unwrap());
    serve_from(MemoryStore::new(State::new(cluster))).await
}

pub(crate) async fn serve_from(store: MemoryStore) -> Served {
    serve_over(store.clone(), store).await
}

/// Serves the desk of a cluster without a controller.
pub(crate) async fn serve_desk(cluster: &str, desk: &Desk) -> Served {
    let controllers = Controllers::default();
    controllers.put_desk(cluster.to_owned(), desk.clone(), None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(ControllerRpc::service(controllers))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let object = serde_json::json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "test"}, "spec": {}});
    Served {
        store: MemoryStore::new(State::new(Cluster::new(
            cluster.to_owned(),
            serde_json::from_value(object).unwrap(),
        ))),
        address,
        tasks: vec![tokio::spawn(async { drop(server.await) })],
    }
}

/// Serves a controller with the store `kept_in`; the test inspects `store`.
pub(crate) async fn serve_over(kept_in: impl Store, store: MemoryStore) -> Served {
    let (controller, shell) = Controller::start(kept_in).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(ControllerRpc::service(Controllers::one(controller, "local")))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let tasks =
        vec![tokio::spawn(async { drop(server.await) }), tokio::spawn(async { drop(shell.await) })];
    Served { store, address, tasks }
}

/// A broker as the controller sees it.
pub(crate) struct FakeBroker {
    pub(crate) client: ControllerClient<Channel>,
    pub(crate) out: mpsc::Sender<rpc::BrokerMessage>,
    pub(crate) inbound: Streaming<rpc::ControllerMessage>,
    pub(crate) id: i32,
    pub(crate) epoch: i64,
    pub(crate) applied: u64,
    pub(crate) metadata: rpc::MetadataUpdate,
}

pub(crate) fn registration(id: i32, process: u8) -> rpc::Registration {
    let endpoint = rpc::Endpoint {
        listener: "PLAINTEXT".into(),
        host: "127.0.0.1".into(),
        port: 9092,
        security_protocol: "PLAINTEXT".into(),
    };
    rpc::Registration {
        cluster_id: "cluster".to_owned(),
        broker_id: id,
        incarnation: vec![process; 16],
        log_dir_id: vec![u8::try_from(id).unwrap() + 100; 16],
        endpoints: vec![endpoint],
        ..rpc::Registration::default()
    }
}

pub(crate) async fn open(
    served: &Served,
    first: broker_message::Message,
) -> (ControllerClient<Channel>, mpsc::Sender<rpc::BrokerMessage>, Streaming<rpc::ControllerMessage>)
{
    let mut client = ControllerClient::connect(format!("http://{}", served.address)).await.unwrap();
    let (out, outbound) = mpsc::channel(16);
    out.send(rpc::BrokerMessage { message: Some(first) }).await.unwrap();
    let inbound = client.session(ReceiverStream::new(outbound)).await.unwrap().into_inner();
    (client, out, inbound)
}

/// The next message of a stream; `None` at its end. The test fails if none comes.
pub(crate) async fn item(
    inbound: &mut Streaming<rpc::ControllerMessage>,
) -> Option<Result<rpc::ControllerMessage, tonic::Status>> {
    tokio::time::timeout(Duration::from_secs(60), inbound.next()).await.expect("nothing comes")
}

pub(crate) async fn next(
    inbound: &mut Streaming<rpc::ControllerMessage>,
) -> controller_message::Message {
    item(inbound).await.unwrap().unwrap().message.unwrap()
}

pub(crate) async fn refusal(
    served: &Served,
    registration: rpc::Registration,
) -> (ErrorCode, String) {
    let (_client, _out, mut inbound) =
        open(served, broker_message::Message::Registration(registration)).await;
    match next(&mut inbound).await {
        controller_message::Message::Refused(refused) => {
            (ErrorCode::from_code(i16::try_from(refused.error_code).unwrap()), refused.reason)
        }
        other => panic!("{other:?}"),
    }
}

impl FakeBroker {
    /// Registers and receives the whole metadata.
    pub(crate) async fn join(served: &Served, registration: rpc::Registration) -> Self {
        let id = registration.broker_id;
        let (client, out, mut inbound) =
            open(served, broker_message::Message::Registration(registration)).await;
        let controller_message::Message::Registered(registered) = next(&mut inbound).await else {
            panic!("not registered")
        };
        let controller_message::Message::Metadata(metadata) = next(&mut inbound).await else {
            panic!("no metadata")
        };
        assert!(metadata.full);
        assert!(registered.heartbeat_interval_ms < registered.session_timeout_ms);
        Self {
            client,
            out,
            inbound,
            id,
            epoch: registered.broker_epoch,
            applied: metadata.version,
            metadata,
        }
    }

    pub(crate) async fn heartbeat(&mut self, heartbeat: rpc::Heartbeat) {
        let heartbeat =
            rpc::Heartbeat { broker_epoch: self.epoch, applied_version: self.applied, ..heartbeat };
        self.out
            .send(rpc::BrokerMessage {
                message: Some(broker_message::Message::Heartbeat(heartbeat)),
            })
            .await
            .unwrap();
    }

    /// The next metadata update; skips other messages.
    pub(crate) async fn metadata(&mut self) -> rpc::MetadataUpdate {
        loop {
            if let controller_message::Message::Metadata(update) = next(&mut self.inbound).await {
                assert!(update.version > self.applied && !update.full);
                self.applied = update.version;
                return update;
            }
        }
    }

    pub(crate) async fn heartbeat_reply(&mut self) -> rpc::HeartbeatReply {
        loop {
            if let controller_message::Message::HeartbeatReply(reply) =
                next(&mut self.inbound).await
            {
                return reply;
            }
        }
    }

    pub(crate) async fn serve(&mut self) {
        self.heartbeat(rpc::Heartbeat { ready: true, ..Default::default() }).await;
        assert!(!self.metadata().await.brokers[0].fenced);
        assert!(!self.heartbeat_reply().await.fenced);
    }

    pub(crate) async fn create(
        &mut self,
        name: &str,
    ) -> Result<(CreateTopicsResponse, u64), tonic::Status> {
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: 2,
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        self.ask(7, &request).await
    }

    /// Forwards a request of a Kafka client; returns the response and the metadata version that
    /// contains the result.
    pub(crate) async fn ask<Q: Request>(
        &mut self,
        version: i16,
        request: &Q,
    ) -> Result<(Q::Response, u64), tonic::Status> {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).unwrap();
        let forward = rpc::ForwardRequest {
            broker_id: self.id,
            broker_epoch: self.epoch,
            api_key: Q::API_KEY.into(),
            api_version: version.into(),
            request: body.to_vec(),
            ..Default::default()
        };
        let response = self.client.forward(forward).await?.into_inner();
        let mut body = Bytes::from(response.response);
        let decoded = Q::Response::decode(&mut body, version).unwrap();
        assert!(body.is_empty());
        Ok((decoded, response.metadata_version))
    }

    pub(crate) async fn producer_ids(
        &mut self,
        broker_epoch: i64,
    ) -> rpc::AllocateProducerIdsResponse {
        let request = rpc::AllocateProducerIdsRequest { broker_id: self.id, broker_epoch };
        self.client.allocate_producer_ids(request).await.unwrap().into_inner()
    }
}
