//! The controller RPC over the loopback interface, with brokers that the test plays.
#![allow(clippy::unwrap_used, reason = "a test")]

mod replicas;
mod support;

use tonic::Code;
use weir_operator::rpc::Desk;
use weir_protocol::api::ApiKey;
use weir_protocol::controller::{self as rpc, broker_message, controller_message};
use weir_protocol::error::ErrorCode;

use support::{FakeBroker, item, next, open, refusal, registration, serve, serve_desk, serve_from};

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
    assert_eq!(response.topics[0].num_partitions, 2);
    let configs = response.topics[0].configs.as_deref().unwrap_or_default();
    assert!(configs.is_empty(), "the broker that was asked describes the settings");
    let update = broker.metadata().await;
    assert!(update.version >= version, "the answer names the version that holds the topic");
    assert_eq!(update.topics[0].name, "orders");
    assert_eq!(update.topics[0].id, response.topics[0].topic_id.as_bytes());
    assert_eq!(
        update.topics[0].partitions.iter().map(|partition| partition.leader).collect::<Vec<_>>(),
        [0, 0]
    );
    assert!(served.store.committed().topic_by_name("orders").is_some());

    let first = broker.producer_ids(broker.epoch).await;
    let second = broker.producer_ids(broker.epoch).await;
    assert_eq!((first.first, first.count, second.first), (0, 10_000, 10_000));

    // A request that changes nothing is answered as of the newest version. Brokers get that version
    // too, in an update without any other content.
    let (response, version) = broker.create("orders").await.unwrap();
    assert_eq!(ErrorCode::from_code(response.topics[0].error_code), ErrorCode::TopicAlreadyExists);
    while broker.metadata().await.version < version {}

    broker
        .heartbeat(rpc::Heartbeat { ready: true, wants_shutdown: true, ..Default::default() })
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
    let (code, reason) =
        refusal(&served, rpc::Registration { cluster_id: "another".into(), ..registration(0, 1) })
            .await;
    assert_eq!((code, reason.contains("another")), (ErrorCode::InconsistentClusterId, true));
    assert_eq!(
        refusal(&served, rpc::Registration { incarnation: vec![1; 3], ..registration(0, 1) })
            .await
            .0,
        ErrorCode::InvalidRegistration
    );
    assert_eq!(
        refusal(&served, rpc::Registration { endpoints: Vec::new(), ..registration(0, 1) }).await.0,
        ErrorCode::InvalidRegistration
    );
    let _first = FakeBroker::join(&served, registration(0, 1)).await;
    assert_eq!(
        refusal(&served, registration(0, 2)).await.0,
        ErrorCode::DuplicateBrokerRegistration
    );
    let other_broker_same_disk =
        rpc::Registration { log_dir_id: vec![100; 16], ..registration(1, 3) };
    assert_eq!(refusal(&served, other_broker_same_disk).await.0, ErrorCode::InvalidRegistration);
}

#[tokio::test]
async fn who_runs_on_in_a_cluster_that_recovers_is_to_begin_anew() {
    let desk = Desk::default();
    let served = serve_desk("cluster", &desk).await;
    let (code, reason) = refusal(&served, registration(0, 1)).await;
    assert_eq!(
        (code, reason.contains("this process ends")),
        (ErrorCode::InvalidRegistration, true),
        "{reason}"
    );
    let elsewhere = broker_message::Message::Registration(rpc::Registration {
        cluster_id: "another".into(),
        ..registration(0, 1)
    });
    let (_client, _out, mut inbound) = open(&served, elsewhere).await;
    assert_eq!(
        item(&mut inbound).await.unwrap().unwrap_err().code(),
        Code::Unavailable,
        "that one may come yet"
    );
    // Its next process comes to the desk.
    let mut client =
        rpc::controller_client::ControllerClient::connect(format!("http://{}", served.address))
            .await
            .unwrap();
    let mut request = tonic::Request::new(rpc::TakeStockRequest {
        incarnation: vec![2; 16],
        inventory: Some(rpc::Inventory::default()),
        ..Default::default()
    });
    request.metadata_mut().insert(rpc::CLUSTER_HEADER, "cluster".parse().unwrap());
    let answer = client.take_stock(request).await.unwrap().into_inner();
    assert!(answer.heard && desk.read(std::collections::BTreeMap::len) == 1);
    let nowhere = client.take_stock(rpc::TakeStockRequest::default()).await.unwrap_err();
    assert_eq!(nowhere.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_a_registration_ends() {
    let served = serve().await;
    let (_client, _out, mut inbound) =
        open(&served, broker_message::Message::Heartbeat(rpc::Heartbeat::default())).await;
    assert_eq!(item(&mut inbound).await.unwrap().unwrap_err().code(), Code::InvalidArgument);
    let (_client, out, mut inbound) =
        open(&served, broker_message::Message::Registration(registration(0, 1))).await;
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
