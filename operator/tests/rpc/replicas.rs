//! Several brokers: ISR changes, leaders that die and leaders that shut down.

use std::time::{Duration, Instant};

use tonic::Code;
use weir_operator::store::Store;
use weir_operator::store::file::FileStore;
use weir_protocol::controller as rpc;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::CreateTopicsRequest;
use weir_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};

use crate::support::{FakeBroker, Served, registration, serve, serve_over};

/// Three brokers that serve, and a topic with partitions on all of them; the first broker is the
/// preferred leader.
async fn three_brokers(served: &Served, partitions: i32) -> ([FakeBroker; 3], rpc::Topic) {
    let mut brokers = [
        FakeBroker::join(served, registration(0, 1)).await,
        FakeBroker::join(served, registration(1, 1)).await,
        FakeBroker::join(served, registration(2, 1)).await,
    ];
    for broker in &mut brokers {
        broker.beat().await;
        while broker.heartbeat_reply().await.fenced {
            broker.beat().await;
        }
    }
    let assignments = (0..partitions).map(|partition_index| CreatableReplicaAssignment {
        partition_index,
        broker_ids: vec![0, 1, 2],
    });
    let topic = CreatableTopic {
        name: "orders".to_owned(),
        num_partitions: -1,
        replication_factor: -1,
        assignments: assignments.collect(),
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    let (response, _) = brokers[0].ask(7, &request).await.unwrap();
    assert_eq!(response.topics[0].error_code, 0, "{response:?}");
    let mut told = None;
    for broker in &mut brokers {
        told = Some(broker.topic().await);
    }
    (brokers, told.unwrap())
}

impl FakeBroker {
    async fn beat(&mut self) {
        self.heartbeat(rpc::Heartbeat { ready: true, ..Default::default() }).await;
    }

    /// The next metadata update of a topic.
    async fn topic(&mut self) -> rpc::Topic {
        loop {
            if let Some(topic) = self.metadata().await.topics.into_iter().next() {
                return topic;
            }
        }
    }
}

fn change(topic: &rpc::Topic, index: usize, isr: &[&FakeBroker]) -> rpc::IsrChange {
    let partition = &topic.partitions[index];
    let member =
        |broker: &&FakeBroker| rpc::IsrMember { broker_id: broker.id, broker_epoch: broker.epoch };
    rpc::IsrChange {
        topic_id: topic.id.clone(),
        partition: partition.index,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        isr: isr.iter().map(member).collect(),
        recovered: false,
    }
}

#[tokio::test]
async fn a_leader_changes_isrs_and_is_answered_after_the_commit() {
    let served = serve().await;
    let ([leader, mut second, third], topic) = three_brokers(&served, 2).await;
    let mut client = leader.client.clone();
    let good = change(&topic, 0, &[&leader, &second]);
    let unknown = rpc::IsrChange { topic_id: vec![9; 16], ..good.clone() };
    let request = rpc::AlterPartitionsRequest {
        broker_id: 0,
        broker_epoch: leader.epoch,
        changes: vec![good.clone(), unknown, change(&topic, 1, &[&second, &third])],
    };
    let response = client.alter_partitions(request.clone()).await.unwrap().into_inner();
    let codes = response.results.iter().map(|result| i16::try_from(result.error_code).unwrap());
    assert_eq!(
        codes.map(ErrorCode::from_code).collect::<Vec<_>>(),
        [ErrorCode::None, ErrorCode::UnknownTopicId, ErrorCode::InvalidRequest]
    );
    let state = response.results[0].state.clone().unwrap();
    assert_eq!(
        (state.isr.as_slice(), state.partition_epoch, state.leader),
        ([0, 1].as_slice(), 1, 0)
    );
    assert!(response.results[1].state.is_none());
    let committed = served.store.committed();
    let partition = &committed.topic_by_name("orders").unwrap().partitions[0];
    assert_eq!(partition.isr.iter().map(|id| id.0).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(second.topic().await.partitions, [state], "the others hear of it");

    let stale = rpc::AlterPartitionsRequest { broker_epoch: leader.epoch + 7, ..request.clone() };
    let response = client.alter_partitions(stale).await.unwrap().into_inner();
    assert_eq!(response.error_code, i32::from(ErrorCode::StaleBrokerEpoch as i16));
    let senseless = rpc::AlterPartitionsRequest {
        changes: vec![rpc::IsrChange { topic_id: vec![1; 3], ..good }],
        ..request
    };
    assert_eq!(client.alter_partitions(senseless).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_leader_whose_process_ends_is_replaced_at_once() {
    let served = serve().await;
    let ([leader, mut second, _third], _) = three_brokers(&served, 2).await;
    drop(leader);
    let topic = second.topic().await;
    assert!(
        topic.partitions.iter().all(|partition| partition.leader == 1 && partition.isr == [1, 2])
    );
}

#[tokio::test]
async fn a_shutdown_is_granted_as_soon_as_all_know_the_new_leaders() {
    let served = serve().await;
    let ([mut leader, mut second, mut third], _) = three_brokers(&served, 1).await;
    let stop = rpc::Heartbeat { ready: true, wants_shutdown: true, ..Default::default() };
    leader.heartbeat(stop).await;
    assert!(!leader.heartbeat_reply().await.may_shut_down);
    for broker in [&mut second, &mut third] {
        assert_eq!(broker.topic().await.partitions[0].leader, 1);
        broker.beat().await;
    }
    let reply = leader.heartbeat_reply().await;
    assert!(reply.may_shut_down && reply.fenced, "it is told without having asked again");
}

#[tokio::test]
#[ignore = "a measurement: run with --nocapture"]
#[allow(clippy::print_stdout, reason = "a measurement")]
async fn how_long_the_replacement_of_a_leader_of_5000_takes() {
    let root = tempfile::tempdir().unwrap();
    let mut store = FileStore::open(root.path()).unwrap();
    let object = serde_json::json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "test"}, "spec": {}});
    store.create("cluster".to_owned(), serde_json::from_value(object).unwrap()).unwrap();
    let state = store.load().await.unwrap();
    let served = serve_over(store, weir_operator::store::memory::MemoryStore::new(state)).await;
    let ([leader, mut second, mut third], _) = three_brokers(&served, 5_000).await;
    let started = Instant::now();
    drop(leader);
    let alive = async {
        loop {
            third.beat().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        topic = second.topic() => println!("{} partitions had another leader after {:?}", topic.partitions.len(), started.elapsed()),
        () = alive => {}
    }
}
