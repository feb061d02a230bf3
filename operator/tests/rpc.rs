//! The controller RPC over the loopback interface, with a broker that is played by the test.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use weir_operator::controller::state::{Cluster, State};
use weir_operator::rpc::ControllerRpc;
use weir_operator::shell::Controller;
use weir_operator::store::memory::MemoryStore;
use weir_protocol::api::ApiKey;
use weir_protocol::controller::controller_client::ControllerClient;
use weir_protocol::controller::{self as rpc, broker_message, controller_message};
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::create_topics_request::CreatableTopic;
use weir_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, Message};

/// A controller that serves, over a store that the test can look into.
struct Served {
    store: MemoryStore,
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn serve() -> Served {
    let object = serde_json::json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "test"}, "spec": {}});
    let cluster = Cluster::new("cluster".to_owned(), serde_json::from_value(object).unwrap());
    serve_from(MemoryStore::new(State::new(cluster))).await
}

async fn serve_from(store: MemoryStore) -> Served {
    let (controller, shell) = Controller::start(store.clone()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(ControllerRpc::service(controller))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let tasks = vec![tokio::spawn(async { drop(server.await) }), tokio::spawn(async { drop(shell.await) })];
    Served { store, address, tasks }
}

/// A broker as far as the controller sees it.
struct FakeBroker {
    client: ControllerClient<Channel>,
    out: mpsc::Sender<rpc::BrokerMessage>,
    inbound: Streaming<rpc::ControllerMessage>,
    epoch: i64,
    applied: u64,
    metadata: rpc::MetadataUpdate,
}

fn registration(id: i32, process: u8) -> rpc::Registration {
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

async fn open(
    served: &Served,
    first: broker_message::Message,
) -> (
    ControllerClient<Channel>,
    mpsc::Sender<rpc::BrokerMessage>,
    Streaming<rpc::ControllerMessage>,
) {
    let mut client = ControllerClient::connect(format!("http://{}", served.address)).await.unwrap();
    let (out, outbound) = mpsc::channel(16);
    out.send(rpc::BrokerMessage { message: Some(first) }).await.unwrap();
    let inbound = client.session(ReceiverStream::new(outbound)).await.unwrap().into_inner();
    (client, out, inbound)
}

/// What comes next on a stream, `None` at its end. A test that waits in vain fails.
async fn item(inbound: &mut Streaming<rpc::ControllerMessage>) -> Option<Result<rpc::ControllerMessage, tonic::Status>> {
    tokio::time::timeout(Duration::from_secs(60), inbound.next())
        .await
        .expect("nothing comes")
}

async fn next(inbound: &mut Streaming<rpc::ControllerMessage>) -> controller_message::Message {
    item(inbound).await.unwrap().unwrap().message.unwrap()
}

async fn refusal(served: &Served, registration: rpc::Registration) -> (ErrorCode, String) {
    let (_client, _out, mut inbound) = open(served, broker_message::Message::Registration(registration)).await;
    match next(&mut inbound).await {
        controller_message::Message::Refused(refused) => (ErrorCode::from_code(i16::try_from(refused.error_code).unwrap()), refused.reason),
        other => panic!("{other:?}"),
    }
}

impl FakeBroker {
    /// Registers and takes the whole metadata.
    async fn join(served: &Served, registration: rpc::Registration) -> Self {
        let (client, out, mut inbound) = open(served, broker_message::Message::Registration(registration)).await;
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
            epoch: registered.broker_epoch,
            applied: metadata.version,
            metadata,
        }
    }

    async fn heartbeat(&mut self, heartbeat: rpc::Heartbeat) {
        let heartbeat = rpc::Heartbeat {
            broker_epoch: self.epoch,
            applied_version: self.applied,
            ..heartbeat
        };
        self.out
            .send(rpc::BrokerMessage {
                message: Some(broker_message::Message::Heartbeat(heartbeat)),
            })
            .await
            .unwrap();
    }

    /// The next change of the metadata; what else comes is passed over.
    async fn metadata(&mut self) -> rpc::MetadataUpdate {
        loop {
            if let controller_message::Message::Metadata(update) = next(&mut self.inbound).await {
                assert!(update.version > self.applied && !update.full);
                self.applied = update.version;
                return update;
            }
        }
    }

    async fn heartbeat_reply(&mut self) -> rpc::HeartbeatReply {
        loop {
            if let controller_message::Message::HeartbeatReply(reply) = next(&mut self.inbound).await {
                return reply;
            }
        }
    }

    async fn serve(&mut self) {
        self.heartbeat(rpc::Heartbeat {
            ready: true,
            ..Default::default()
        })
        .await;
        assert!(!self.metadata().await.brokers[0].fenced);
        assert!(!self.heartbeat_reply().await.fenced);
    }

    async fn create(&mut self, name: &str) -> Result<(CreateTopicsResponse, u64), tonic::Status> {
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: 2,
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..Default::default()
        };
        let mut body = BytesMut::new();
        request.encode(&mut body, 7).unwrap();
        let forward = rpc::ForwardRequest {
            broker_id: 0,
            broker_epoch: self.epoch,
            api_key: ApiKey::CreateTopics.key().into(),
            api_version: 7,
            request: body.to_vec(),
            ..Default::default()
        };
        let response = self.client.forward(forward).await?.into_inner();
        let mut body = Bytes::from(response.response);
        let decoded = CreateTopicsResponse::decode(&mut body, 7).unwrap();
        assert!(body.is_empty());
        Ok((decoded, response.metadata_version))
    }

    async fn producer_ids(&mut self, broker_epoch: i64) -> rpc::AllocateProducerIdsResponse {
        let request = rpc::AllocateProducerIdsRequest { broker_id: 0, broker_epoch };
        self.client.allocate_producer_ids(request).await.unwrap().into_inner()
    }
}

#[tokio::test]
async fn a_broker_joins_serves_and_leaves() {
    let served = serve().await;
    let mut broker = FakeBroker::join(&served, registration(0, 1)).await;
    assert!(broker.metadata.brokers[0].fenced);
    broker.heartbeat(rpc::Heartbeat::default()).await;
    assert!(broker.heartbeat_reply().await.fenced, "recovery is not over");
    broker.serve().await;

    let (response, version) = broker.create("orders").await.unwrap();
    assert_eq!(response.topics[0].error_code, 0);
    assert!(
        response.topics[0]
            .configs
            .as_ref()
            .unwrap()
            .iter()
            .any(|config| config.name == "retention.ms")
    );
    let update = broker.metadata().await;
    assert!(update.version >= version, "the answer names the version that holds the topic");
    assert_eq!(update.topics[0].name, "orders");
    assert_eq!(update.topics[0].id, response.topics[0].topic_id.as_bytes());
    assert_eq!(
        update.topics[0].partitions.iter().map(|partition| partition.leader).collect::<Vec<_>>(),
        [0, 0]
    );
    assert!(served.store.committed().topic_by_name("orders").is_some());
    let (response, _) = broker.create("orders").await.unwrap();
    assert_eq!(ErrorCode::from_code(response.topics[0].error_code), ErrorCode::TopicAlreadyExists);

    let first = broker.producer_ids(broker.epoch).await;
    let second = broker.producer_ids(broker.epoch).await;
    assert_eq!((first.first, first.count, second.first), (0, 1000, 1000));

    broker
        .heartbeat(rpc::Heartbeat {
            ready: true,
            wants_shutdown: true,
            ..Default::default()
        })
        .await;
    let update = broker.metadata().await;
    assert!(
        update.topics[0].partitions.iter().all(|partition| partition.leader == -1),
        "leadership goes before the broker does"
    );
    assert!(broker.heartbeat_reply().await.may_shut_down);
}

#[tokio::test]
async fn registrations_that_cannot_be_are_refused() {
    let served = serve().await;
    let (code, reason) = refusal(
        &served,
        rpc::Registration {
            cluster_id: "another".into(),
            ..registration(0, 1)
        },
    )
    .await;
    assert_eq!((code, reason.contains("another")), (ErrorCode::InconsistentClusterId, true));
    assert_eq!(
        refusal(
            &served,
            rpc::Registration {
                incarnation: vec![1; 3],
                ..registration(0, 1)
            }
        )
        .await
        .0,
        ErrorCode::InvalidRegistration
    );
    assert_eq!(
        refusal(
            &served,
            rpc::Registration {
                endpoints: Vec::new(),
                ..registration(0, 1)
            }
        )
        .await
        .0,
        ErrorCode::InvalidRegistration
    );
    let _first = FakeBroker::join(&served, registration(0, 1)).await;
    assert_eq!(refusal(&served, registration(0, 2)).await.0, ErrorCode::DuplicateBrokerRegistration);
    let other_broker_same_disk = rpc::Registration {
        log_dir_id: vec![100; 16],
        ..registration(1, 3)
    };
    assert_eq!(refusal(&served, other_broker_same_disk).await.0, ErrorCode::InvalidRegistration);
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_a_registration_ends() {
    let served = serve().await;
    let (_client, _out, mut inbound) = open(&served, broker_message::Message::Heartbeat(rpc::Heartbeat::default())).await;
    assert_eq!(item(&mut inbound).await.unwrap().unwrap_err().code(), Code::InvalidArgument);
    let (_client, out, mut inbound) = open(&served, broker_message::Message::Registration(registration(0, 1))).await;
    next(&mut inbound).await;
    next(&mut inbound).await;
    out.send(rpc::BrokerMessage {
        message: Some(broker_message::Message::Registration(registration(0, 1))),
    })
    .await
    .unwrap();
    assert_eq!(item(&mut inbound).await.unwrap().unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_carries_an_old_epoch_is_fenced() {
    let served = serve().await;
    let mut broker = FakeBroker::join(&served, registration(0, 1)).await;
    broker.serve().await;
    assert_eq!(
        ErrorCode::from_code(i16::try_from(broker.producer_ids(99).await.error_code).unwrap()),
        ErrorCode::StaleBrokerEpoch
    );
    broker.epoch += 1;
    assert_eq!(broker.create("orders").await.unwrap_err().code(), Code::FailedPrecondition);
    broker.heartbeat(rpc::Heartbeat::default()).await;
    let controller_message::Message::Refused(refused) = next(&mut broker.inbound).await else {
        panic!("not refused")
    };
    assert_eq!(
        ErrorCode::from_code(i16::try_from(refused.error_code).unwrap()),
        ErrorCode::StaleBrokerEpoch
    );
    assert!(
        item(&mut broker.inbound).await.is_none_or(|message| message.is_err()),
        "and its stream ends"
    );
}

#[tokio::test]
async fn a_broker_comes_back_to_a_new_controller_as_what_it_was() {
    let served = serve().await;
    let mut broker = FakeBroker::join(&served, registration(0, 1)).await;
    broker.serve().await;
    broker.create("orders").await.unwrap();
    let version = broker.metadata().await.version;
    let store = served.store.clone();
    drop(served);

    let served = serve_from(store).await;
    let again = FakeBroker::join(&served, registration(0, 1)).await;
    assert_eq!(again.epoch, broker.epoch);
    assert!(!again.metadata.brokers[0].fenced, "its partitions were led all the time");
    assert!(
        again.metadata.version > version,
        "versions of a new controller are above those of the old one"
    );
    assert_eq!(again.metadata.topics[0].partitions[0].leader_epoch, 0);
}

#[tokio::test]
async fn nothing_is_said_that_was_not_committed() {
    let served = serve().await;
    let mut broker = FakeBroker::join(&served, registration(0, 1)).await;
    broker.serve().await;
    served.store.fail_after(0);
    assert_eq!(broker.create("orders").await.unwrap_err().code(), Code::Unavailable);
    assert!(
        item(&mut broker.inbound).await.is_none_or(|message| message.is_err()),
        "the stream ends: the broker begins anew"
    );
    assert!(served.store.committed().topic_by_name("orders").is_none());
    let mut again = FakeBroker::join(&served, registration(0, 1)).await;
    assert!(again.metadata.topics.is_empty());
    assert_eq!(again.create("orders").await.unwrap().0.topics[0].error_code, 0);
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let served = serve().await;
    let mut broker = FakeBroker::join(&served, registration(0, 1)).await;
    let forward = |api_key, api_version, request: &[u8]| rpc::ForwardRequest {
        broker_id: 0,
        broker_epoch: 0,
        api_key,
        api_version,
        request: request.to_vec(),
        ..Default::default()
    };
    let create = i32::from(ApiKey::CreateTopics.key());
    for request in [
        forward(0, 7, b""),
        forward(create, 99, b""),
        forward(create, 70_000, b""),
        forward(create, 7, b"\x7f\xff\xff\xff\xff"),
    ] {
        assert_eq!(broker.client.forward(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
}
