//! What brokers tell clients when the leader changes: the new leader, the end offsets that are
//! certain, and that a leader with a failed disk no longer leads.

use rustix::process::{Resource, Rlimit, prlimit};
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use weir_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use weir_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use weir_protocol::messages::{ListOffsetsRequest, OffsetForLeaderEpochRequest};

use crate::support::{Brokers, Client, batch, fetch_from, placed_topic, produce_to, soon};

const LATEST: i64 = -1;

async fn latest(client: &mut Client, version: i16) -> ListOffsetsPartitionResponse {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: "t".to_owned(),
            partitions: vec![ListOffsetsPartition {
                timestamp: LATEST,
                current_leader_epoch: -1,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    client.call(version, &request).await.topics.remove(0).partitions.remove(0)
}

/// KIP-951: a former leader names the new one.
#[tokio::test]
async fn who_asks_a_former_leader_is_told_the_new_one() {
    let brokers = Brokers::start(2, vec![placed_topic(1, "t", 1, &[0, 1], &[])]).await;
    let mut client = brokers.client(0).await;
    assert_eq!(client.produce("t", 0, -1, batch(&["a"])).await.error_code, 0);
    brokers.controller.elect(1, 0, 1, &[1, 0]);
    client.knows("t", |partition| partition.leader_id == 1).await;

    let refused = client.call(10, &produce_to("t", 0, -1, batch(&["b"]))).await;
    let partition = &refused.responses[0].partition_responses[0];
    assert_eq!(ErrorCode::from_code(partition.error_code), ErrorCode::NotLeaderOrFollower);
    assert_eq!((partition.current_leader.leader_id, partition.current_leader.leader_epoch), (1, 1));
    let node = &refused.node_endpoints[0];
    assert_eq!((node.node_id, refused.node_endpoints.len()), (1, 1));

    // A client can connect to the endpoint in the answer.
    let mut leader = Client::connect(format!("{}:{}", node.host, node.port).parse().unwrap()).await;
    leader.knows("t", |partition| partition.leader_id == 1).await;
    assert_eq!(leader.produce("t", 0, -1, batch(&["b"])).await.base_offset, 1);

    // A consumer with the new epoch that asks the old leader as a leader gets the same answer.
    let mut request = fetch_from("t", 0, 0);
    request.topics[0].topic_id = uuid::Uuid::from_bytes([1; 16]);
    request.topics[0].partitions[0].current_leader_epoch = 0;
    let refused = client.call(16, &request).await;
    let partition = &refused.responses[0].partitions[0];
    assert_eq!(ErrorCode::from_code(partition.error_code), ErrorCode::FencedLeaderEpoch);
    assert_eq!((partition.current_leader.leader_id, partition.current_leader.leader_epoch), (1, 1));
    assert_eq!(refused.node_endpoints[0].node_id, 1);
}

async fn end_of_epoch(client: &mut Client, leader_epoch: i32) -> (i32, i64) {
    let topic = OffsetForLeaderTopic {
        topic: "t".to_owned(),
        partitions: vec![OffsetForLeaderPartition {
            current_leader_epoch: -1,
            leader_epoch,
            ..Default::default()
        }],
    };
    let request = OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic] };
    let end = client.call(4, &request).await.topics.remove(0).partitions.remove(0);
    assert_eq!(end.error_code, 0);
    (end.leader_epoch, end.end_offset)
}

/// A consumer would read an unknown end offset as a truncated log (KIP-320).
#[tokio::test]
async fn an_epoch_in_which_nothing_was_written_has_an_end() {
    let mut brokers = Brokers::start(2, vec![placed_topic(1, "t", 1, &[0, 1], &[])]).await;
    let mut client = brokers.client(0).await;
    assert_eq!(end_of_epoch(&mut client, 0).await, (0, 0), "of an empty log");
    brokers.controller.elect(1, 0, 1, &[1, 0]);
    brokers.controller.elect(1, 0, 0, &[0, 1]);
    client.knows("t", |partition| partition.leader_epoch == 2).await;
    assert_eq!(end_of_epoch(&mut client, 0).await, (0, 0), "of a log that is still empty");
    for value in ["a", "b", "c"] {
        assert_eq!(client.produce("t", 0, -1, batch(&[value])).await.error_code, 0);
    }
    brokers.controller.elect(1, 0, 1, &[1, 0]);
    brokers.controller.elect(1, 0, 0, &[0, 1]);
    client.knows("t", |partition| partition.leader_epoch == 4).await;
    let ends = [(1, (1, 0)), (2, (2, 3)), (3, (2, 3)), (4, (4, 3)), (5, (-1, -1))];
    for (epoch, end) in ends {
        assert_eq!(end_of_epoch(&mut client, epoch).await, end, "epoch {epoch}");
    }
    // A fetch with such an epoch as its last fetched one gets the same end, and not
    // OFFSET_OUT_OF_RANGE.
    let mut request = fetch_from("t", 0, 3);
    request.topics[0].partitions[0].last_fetched_epoch = 3;
    let data = client.call(12, &request).await.responses.remove(0).partitions.remove(0);
    assert_eq!(
        (data.error_code, data.diverging_epoch.epoch, data.diverging_epoch.end_offset),
        (0, 2, 3)
    );
    // The other replica has led in an epoch that this broker's log does not have, and follows all
    // the same.
    assert_eq!(client.produce("t", 0, -1, batch(&["d"])).await.error_code, 0);
    brokers.kill(0).await;
    brokers.restart(0).await;
    let mut client = brokers.client(0).await;
    client.knows("t", |partition| partition.leader_id == 0).await;
    soon("it leads again", async {
        while end_of_epoch(&mut client, 4).await != (4, 4) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// KIP-207: a new leader reports no end offset before it knows the high watermark.
#[tokio::test]
async fn a_new_leader_does_not_tell_an_end_that_may_be_older_than_one_that_was_told() {
    let mut brokers =
        Brokers::start(2, vec![placed_topic(1, "t", 1, &[0, 1], &[("min.insync.replicas", "1")])])
            .await;
    let mut client = brokers.client(0).await;
    for value in ["a", "b"] {
        assert_eq!(client.produce("t", 0, -1, batch(&[value])).await.error_code, 0);
    }
    assert_eq!(latest(&mut client, 7).await.offset, 2);
    // Both brokers die. The new leader has all records but does not know the high watermark, and
    // the other replica is in the ISR but down.
    brokers.kill(0).await;
    brokers.kill(1).await;
    brokers.controller.elect(1, 0, 1, &[1, 0]);
    brokers.restart(1).await;
    let mut client = brokers.client(1).await;
    client.knows("t", |partition| partition.leader_id == 1).await;
    let uncertain = latest(&mut client, 7).await;
    assert_eq!(
        (ErrorCode::from_code(uncertain.error_code), uncertain.offset),
        (ErrorCode::OffsetNotAvailable, -1)
    );
    let older = latest(&mut client, 4).await;
    assert_eq!(
        ErrorCode::from_code(older.error_code),
        ErrorCode::LeaderNotAvailable,
        "who does not know the newer error"
    );
    brokers.restart(0).await;
    soon("an end that is certain", async {
        while latest(&mut client, 7).await.offset != 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_leader_whose_disk_fails_is_replaced_and_nothing_is_lost() {
    let mut brokers =
        Brokers::start(2, vec![placed_topic(1, "t", 1, &[0, 1], &[("min.insync.replicas", "1")])])
            .await;
    let mut client = brokers.client(0).await;
    assert_eq!(client.produce("t", 0, -1, batch(&["a"])).await.error_code, 0);
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    prlimit(Some(brokers.broker(0).pid()), Resource::Fsize, nothing).unwrap();
    let refused = client.produce("t", 0, -1, batch(&["b"])).await;
    assert_eq!(ErrorCode::from_code(refused.error_code), ErrorCode::KafkaStorageError);
    soon("the controller hears of it", async {
        while brokers.controller.log_dir_failure().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The controller's reaction.
    brokers.controller.elect(1, 0, 1, &[1]);
    let mut successor = brokers.client(1).await;
    successor.knows("t", |partition| partition.leader_id == 1).await;
    assert_eq!(successor.produce("t", 0, -1, batch(&["b"])).await.base_offset, 1);
    client.knows("t", |partition| partition.leader_id == 1).await;
    let refused = client.produce("t", 0, -1, batch(&["c"])).await;
    assert_eq!(
        ErrorCode::from_code(refused.error_code),
        ErrorCode::NotLeaderOrFollower,
        "its clients go on"
    );
    let values: Vec<_> =
        successor.read_all("t", 0).await.into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, ["a", "b"]);
}
