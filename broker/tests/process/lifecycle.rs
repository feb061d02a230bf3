//! Starts, stops, crashes, and a missing controller.

use std::collections::BTreeMap;

use weir_protocol::messages::create_topics_request::CreatableTopic;
use weir_protocol::messages::{CreateTopicsRequest, MetadataRequest};

use crate::support::{Client, Cluster, batch, topic};

const PARTITIONS: i32 = 4;
const LOST_CONTROLLER: &str = "lost the controller; serving on with the metadata at hand";
const OPENED: &str = "opened the log directory";

#[tokio::test]
async fn it_serves_on_without_the_controller_and_registers_when_it_is_back() {
    let mut cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    let mut client = cluster.client().await;
    assert_eq!(client.produce("t", 0, -1, batch(&["with"])).await.error_code, 0);
    cluster.controller.go_away();
    cluster.broker.wait_for_line(LOST_CONTROLLER).await;
    // Existing and new clients see no difference.
    for client in [&mut client, &mut cluster.client().await] {
        assert_eq!(client.produce("t", 0, -1, batch(&["without"])).await.error_code, 0);
        assert_eq!(client.call(12, &MetadataRequest::default()).await.brokers.len(), 1);
    }
    cluster.broker.ready().await;
    cluster.controller.come_back();
    let registrations = cluster.controller.registrations(2).await;
    let (first, second) = (&registrations[0], &registrations[1]);
    assert_eq!((first.previous_broker_epoch, second.previous_broker_epoch), (None, Some(1)));
    assert_eq!(
        (&first.incarnation, &first.log_dir_id, &first.endpoints),
        (&second.incarnation, &second.log_dir_id, &second.endpoints)
    );
    assert!(second.clean, "the process lives: its log is whole");
    let values: Vec<_> =
        client.read_all("t", 0).await.into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, ["with", "without", "without"]);
    // The broker also stops in order without a controller.
    cluster.controller.go_away();
    assert!(cluster.broker.stop().await.success(), "{}", cluster.broker.log());
}

#[tokio::test]
async fn after_a_stop_in_order_nothing_is_scanned() {
    let mut cluster = Cluster::start(vec![topic(1, "t", PARTITIONS, &[])]).await;
    let mut client = cluster.client().await;
    for partition in 0..PARTITIONS {
        assert_eq!(client.produce("t", partition, -1, batch(&["a", "b"])).await.error_code, 0);
    }
    assert!(cluster.broker.stop().await.success(), "{}", cluster.broker.log());
    assert!(cluster.broker.log().contains("\"stopped\""));
    cluster.restart().await;
    let opened = cluster.broker.wait_for_line(OPENED).await;
    assert_eq!(
        (&opened["orderly"], &opened["logs"]),
        (&true.into(), &PARTITIONS.into()),
        "{opened}"
    );
    let again = cluster.controller.registrations(2).await.remove(1);
    assert_eq!((again.clean, again.previous_broker_epoch), (true, Some(1)));
    // The registration has the leader epochs of the logs, so that a controller whose store was
    // restored does not assign them again.
    let log = &again.logs[0];
    assert_eq!(
        (&log.topic_id[..], log.partitions.len(), &log.leader_epochs),
        (&[1; 16][..], PARTITIONS as usize, &vec![0; PARTITIONS as usize])
    );
    let mut client = cluster.client().await;
    for partition in 0..PARTITIONS {
        assert_eq!(client.produce("t", partition, -1, batch(&["c"])).await.base_offset, 2);
        assert_eq!(client.read_all("t", partition).await.len(), 3);
    }
}

/// Sends batch after batch to one partition and records what is acknowledged, until the broker is
/// gone.
async fn load(
    mut client: Client,
    partition: i32,
    round: usize,
    acknowledged: tokio::sync::mpsc::UnboundedSender<(i32, i64, String)>,
) {
    const PIPELINED: usize = 8;
    let value = |number: usize| format!("{round}-{partition}-{number}");
    for number in 0..PIPELINED {
        client.send_produce("t", partition, 1, batch(&[&value(number)])).await;
    }
    for number in 0.. {
        let Some(answered) = client.try_receive_produce().await else { return };
        assert_eq!(answered.error_code, 0, "{answered:?}");
        if acknowledged.send((partition, answered.base_offset, value(number))).is_err() {
            return;
        }
        if !client.try_send_produce("t", partition, 1, batch(&[&value(number + PIPELINED)])).await {
            return;
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_kill_under_load() {
    const ROUNDS: usize = 3;
    /// The acknowledged batches before the broker is killed. By then flushes overlap with appends.
    const ACKNOWLEDGED_MIN: usize = 200;
    let mut cluster =
        Cluster::start(vec![topic(1, "t", PARTITIONS, &[("flush.mode", "group")])]).await;
    let mut acknowledged: BTreeMap<(i32, i64), String> = BTreeMap::new();
    for round in 0..ROUNDS {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let mut producers = tokio::task::JoinSet::new();
        for partition in 0..PARTITIONS {
            producers.spawn(load(cluster.client().await, partition, round, sender.clone()));
        }
        drop(sender);
        let mut count = 0;
        while let Some((partition, offset, value)) = receiver.recv().await {
            assert_eq!(
                acknowledged.insert((partition, offset), value),
                None,
                "an offset is given once"
            );
            count += 1;
            if count == ACKNOWLEDGED_MIN {
                cluster.broker.kill().await;
            }
        }
        while let Some(ended) = producers.join_next().await {
            ended.unwrap();
        }
        cluster.restart().await;
        let opened = cluster.broker.wait_for_line(OPENED).await;
        assert_eq!(
            (&opened["orderly"], &opened["whole"]),
            (&false.into(), &true.into()),
            "{opened}"
        );
        let mut client = cluster.client().await;
        for partition in 0..PARTITIONS {
            let found: BTreeMap<i64, String> =
                client.read_all("t", partition).await.into_iter().collect();
            for ((_, offset), value) in acknowledged.range((partition, 0)..=(partition, i64::MAX)) {
                assert_eq!(
                    found.get(offset),
                    Some(value),
                    "round {round}, partition {partition}, offset {offset}"
                );
            }
        }
    }
}

/// The controller carries out requests, but the broker gets no metadata updates: its session is
/// open and silent.
#[tokio::test]
async fn who_asks_the_controller_is_answered_though_the_broker_does_not_hear_of_it() {
    let mut cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    let mut client = cluster.client().await;
    cluster.controller.hold_back(true);
    cluster.controller.configure("min.insync.replicas", "2");
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: "new".to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(client.call(7, &request).await.topics[0].error_code, 0);
    let said = "the controller has carried out a request, and this broker does not hear of it; the client is answered all the same";
    cluster.broker.wait_for_line(said).await;
}
