//! Several brokers: the followers have the leader's records, whichever broker dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use weir_protocol::messages::fetch_request::ReplicaState;
use weir_protocol::messages::fetch_response::PartitionData;
use weir_protocol::messages::{DeleteRecordsRequest, FetchRequest};

use crate::support::{Brokers, Client, Launch, batch, fetch_from, placed_topic, soon};

const GROUP: &[(&str, &str)] = &[("flush.mode", "group"), ("min.insync.replicas", "2")];
const NONE: &[(&str, &str)] = &[("flush.mode", "none"), ("min.insync.replicas", "2")];

fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code)
}

fn values(records: &[(i64, String)]) -> Vec<&str> {
    records.iter().map(|(_, value)| value.as_str()).collect()
}

/// Fetches from a replica from `offset` on, until the answer fulfils the condition.
async fn fetched(
    client: &mut Client,
    topic: &str,
    offset: i64,
    is_so: impl Fn(&PartitionData) -> bool,
) -> PartitionData {
    soon("what a replica should answer", async {
        loop {
            let data = client.fetch(topic, 0, offset).await;
            if is_so(&data) {
                return data;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Produces until it succeeds: a new leader learns of its election a moment later.
async fn produced(client: &mut Client, topic: &str, value: &str) -> i64 {
    soon("a produce", async {
        loop {
            let answer = client.produce(topic, 0, -1, batch(&[value])).await;
            match code(answer.error_code) {
                ErrorCode::None => return answer.base_offset,
                ErrorCode::NotLeaderOrFollower | ErrorCode::NotEnoughReplicas => {
                    tokio::task::yield_now().await
                }
                other => panic!("{other:?}"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_is_acknowledged_is_on_every_replica_and_outlives_the_leader() {
    let topics = vec![
        placed_topic(1, "group", 1, &[0, 1, 2], GROUP),
        placed_topic(2, "none", 1, &[0, 1, 2], NONE),
    ];
    let mut brokers = Brokers::start(3, topics).await;
    let mut client = brokers.client(0).await;
    for topic in ["group", "none"] {
        for value in ["a", "b", "c"] {
            produced(&mut client, topic, value).await;
        }
        let leader = client.read_all(topic, 0).await;
        assert_eq!(values(&leader), ["a", "b", "c"]);
        // Followers serve consumers too, up to the high watermark that they know. The leader sends
        // it to them without another record.
        for follower in [1, 2] {
            let mut client = brokers.client(follower).await;
            fetched(&mut client, topic, 3, |data| data.error_code == 0 && data.high_watermark == 3)
                .await;
            assert_eq!(client.read_all(topic, 0).await, leader);
            let refused = client.produce(topic, 0, -1, batch(&["x"])).await;
            assert_eq!(code(refused.error_code), ErrorCode::NotLeaderOrFollower);
        }
    }
    brokers.kill(0).await;
    for (id, topic) in [(1, "group"), (2, "none")] {
        brokers.controller.elect(id, 0, 1, &[1, 2]);
        let mut client = brokers.client(1).await;
        assert_eq!(produced(&mut client, topic, "d").await, 3);
        assert_eq!(values(&client.read_all(topic, 0).await), ["a", "b", "c", "d"]);
    }
    // The killed broker returns, follows, and joins the ISR.
    brokers.restart(0).await;
    for (id, topic) in [(1, "group"), (2, "none")] {
        let state =
            brokers.controller.partition(id, 0, |partition| partition.isr.contains(&0)).await;
        assert_eq!(state.leader, 1);
        let mut client = brokers.client(0).await;
        fetched(&mut client, topic, 4, |data| data.error_code == 0 && data.high_watermark == 4)
            .await;
        assert_eq!(values(&client.read_all(topic, 0).await), ["a", "b", "c", "d"]);
    }
}

#[tokio::test]
async fn a_tail_that_was_never_committed_is_cut_off() {
    let mut brokers =
        Brokers::start(2, vec![placed_topic(1, "t", 1, &[0, 1], &[("min.insync.replicas", "1")])])
            .await;
    let mut client = brokers.client(0).await;
    produced(&mut client, "t", "both").await;
    // The follower is dead, but the controller has not noticed: only the leader has what it now
    // appends.
    brokers.broker(1).kill().await;
    for value in ["alone", "alone too"] {
        assert_eq!(client.produce("t", 0, 1, batch(&[value])).await.error_code, 0);
    }
    assert_eq!(values(&client.read_all("t", 0).await), ["both"], "it is not committed");
    brokers.kill(0).await;
    brokers.controller.elect(1, 0, 1, &[1]);
    brokers.restart(1).await;
    let mut client = brokers.client(1).await;
    assert_eq!(produced(&mut client, "t", "instead").await, 1);
    brokers.restart(0).await;
    brokers.controller.partition(1, 0, |partition| partition.isr.len() == 2).await;
    let line = brokers.broker(0).wait_for_line("cut the log to follow its leader").await;
    assert_eq!((&line["before"], &line["end_offset"]), (&3.into(), &1.into()), "{line}");
    assert_eq!(produced(&mut client, "t", "together").await, 2);
    let mut follower = brokers.client(0).await;
    fetched(&mut follower, "t", 3, |data| data.high_watermark == 3).await;
    assert_eq!(values(&follower.read_all("t", 0).await), ["both", "instead", "together"]);
}

#[tokio::test]
async fn fewer_replicas_than_asked_for_take_nothing() {
    let mut brokers = Brokers::start(2, vec![placed_topic(1, "t", 1, &[0, 1], GROUP)]).await;
    let mut client = brokers.client(0).await;
    produced(&mut client, "t", "a").await;
    brokers.kill(1).await;
    // The follower is in the ISR but silent, so the request times out.
    let mut request = crate::support::produce_to("t", 0, -1, batch(&["b"]));
    request.timeout_ms = 100;
    let response = client.call(9, &request).await;
    assert_eq!(
        code(response.responses[0].partition_responses[0].error_code),
        ErrorCode::RequestTimedOut
    );
    brokers.controller.change(1, 0, |partition| partition.isr = vec![0]);
    client.knows("t", |partition| partition.isr_nodes.len() == 1).await;
    let refused = client.produce("t", 0, -1, batch(&["c"])).await;
    assert_eq!(code(refused.error_code), ErrorCode::NotEnoughReplicas);
    assert_eq!(client.produce("t", 0, 1, batch(&["d"])).await.error_code, 0, "acks=1 does not ask");
    assert_eq!(
        values(&client.read_all("t", 0).await),
        ["a"],
        "nothing is committed below the minimum"
    );
    brokers.restart(1).await;
    brokers.controller.partition(1, 0, |partition| partition.isr.len() == 2).await;
    produced(&mut client, "t", "e").await;
    assert_eq!(values(&client.read_all("t", 0).await), ["a", "b", "d", "e"]);
}

#[tokio::test]
async fn an_empty_disk_is_filled_again_also_where_the_leader_has_deleted() {
    let mut brokers =
        Brokers::start(2, vec![placed_topic(1, "t", 1, &[0, 1], &[("flush.mode", "group")])]).await;
    let mut client = brokers.client(0).await;
    for value in ["a", "b", "c", "d"] {
        produced(&mut client, "t", value).await;
    }
    assert_eq!(client.delete_records("t", 0, 2).await, (0, 2), "on both replicas");
    let mut follower = brokers.client(1).await;
    fetched(&mut follower, "t", 2, |data| data.log_start_offset == 2).await;
    brokers.kill(1).await;
    brokers.controller.change(1, 0, |partition| partition.isr = vec![0]);
    brokers.wipe(1);
    brokers.restart(1).await;
    brokers.controller.partition(1, 0, |partition| partition.isr.len() == 2).await;
    brokers.kill(0).await;
    brokers.controller.elect(1, 0, 1, &[1]);
    let mut client = brokers.client(1).await;
    assert_eq!(produced(&mut client, "t", "e").await, 4);
    let found: Vec<_> = client.read_from("t", 0, 2).await;
    assert_eq!(found, [(2, "c".to_owned()), (3, "d".to_owned()), (4, "e".to_owned())]);
}

/// `ReplicaManager.deleteRecords` deletes in all partitions first and then waits for all of them.
#[tokio::test]
async fn a_topic_whose_replica_does_not_answer_holds_up_no_other_topics_deletion() {
    let topics =
        vec![placed_topic(1, "held", 1, &[0, 1], GROUP), placed_topic(2, "own", 1, &[0], &[])];
    let mut brokers = Brokers::start(2, topics).await;
    let mut client = brokers.client(0).await;
    for value in ["a", "b", "c"] {
        produced(&mut client, "held", value).await;
        produced(&mut client, "own", value).await;
    }
    brokers.broker(1).signal(Signal::STOP);
    let topic = |name: &str| DeleteRecordsTopic {
        name: name.to_owned(),
        partitions: vec![DeleteRecordsPartition { offset: 2, ..Default::default() }],
        ..Default::default()
    };
    let request = DeleteRecordsRequest {
        topics: vec![topic("held"), topic("own")],
        timeout_ms: 600_000,
        ..Default::default()
    };
    client.send(2, &request).await;
    let mut other = brokers.client(0).await;
    fetched(&mut other, "own", 2, |data| data.log_start_offset == 2).await;
    brokers.broker(1).signal(Signal::CONT);
    let response = client.receive::<DeleteRecordsRequest>(2).await;
    let results = response.topics.iter().map(|topic| (&topic.name[..], &topic.partitions[0]));
    let results: Vec<_> =
        results.map(|(name, result)| (name, result.error_code, result.low_watermark)).collect();
    assert_eq!(results, [("held", 0, 2), ("own", 0, 2)]);
}

#[tokio::test]
async fn a_partition_that_moves_away_leaves_nothing_behind() {
    let brokers = Brokers::start(3, vec![placed_topic(1, "t", 1, &[0, 1], GROUP)]).await;
    let mut client = brokers.client(0).await;
    produced(&mut client, "t", "a").await;
    brokers.controller.change(1, 0, |partition| partition.replicas = vec![0, 1, 2]);
    brokers.controller.partition(1, 0, |partition| partition.isr.len() == 3).await;
    brokers.controller.change(1, 0, |partition| {
        (partition.replicas, partition.isr) = (vec![0, 2], vec![0, 2]);
        partition.leader_epoch += 1;
    });
    // A batch that waits while the epoch changes gets an error although it stays in the log. So the
    // test produces only once the leader knows the change.
    client.knows("t", |partition| partition.replica_nodes.len() == 2).await;
    produced(&mut client, "t", "b").await;
    let mut moved = brokers.client(2).await;
    fetched(&mut moved, "t", 2, |data| data.high_watermark == 2).await;
    assert_eq!(values(&moved.read_all("t", 0).await), ["a", "b"]);
    let mut left = brokers.client(1).await;
    fetched(&mut left, "t", 0, |data| code(data.error_code) == ErrorCode::NotLeaderOrFollower)
        .await;
}

/// Writes to a partition until the topic is deleted.
async fn write_until_deleted(
    mut client: Client,
    topic: String,
    index: i32,
    written: Arc<AtomicUsize>,
) {
    let mut has_begun = false;
    loop {
        let answer = client.produce(&topic, index, 1, batch(&["x"; 20])).await;
        match code(answer.error_code) {
            ErrorCode::None => {
                has_begun = true;
                written.fetch_add(1, Ordering::SeqCst);
            }
            _ if has_begun => return,
            _ => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test]
async fn a_topic_that_is_deleted_while_it_is_written_to_holds_up_no_other() {
    let brokers = Brokers::start(2, vec![placed_topic(1, "other", 1, &[0, 1], GROUP)]).await;
    let mut client = brokers.client(0).await;
    for id in 2..8 {
        let (name, written) = (format!("victim-{id}"), Arc::default());
        brokers.controller.create(placed_topic(id, &name, 6, &[0, 1], GROUP));
        let mut writers = tokio::task::JoinSet::new();
        for index in 0..6 {
            writers.spawn(write_until_deleted(
                brokers.client(0).await,
                name.clone(),
                index,
                Arc::clone(&written),
            ));
        }
        soon("the topic is written to", async {
            while written.load(Ordering::SeqCst) < 60 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // The follower does not flush what it has appended to the deleted log.
        brokers.controller.delete(id);
        soon("the topic is gone", writers.join_all()).await;
        assert_eq!(produced(&mut client, "other", "still").await, i64::from(id - 2));
    }
}

#[tokio::test]
async fn a_follower_learns_of_a_leader_that_writes_nothing_where_the_logs_parted() {
    let mut brokers =
        Brokers::start(2, vec![placed_topic(1, "t", 1, &[0, 1], &[("min.insync.replicas", "1")])])
            .await;
    let mut client = brokers.client(0).await;
    produced(&mut client, "t", "both").await;
    brokers.kill(1).await;
    assert_eq!(client.produce("t", 0, 1, batch(&["alone"])).await.error_code, 0);
    brokers.kill(0).await;
    // The new leader lacks the second record.
    brokers.controller.elect(1, 0, 1, &[1]);
    brokers.restart(1).await;
    let mut client = brokers.client(1).await;
    assert_eq!(produced(&mut client, "t", "other").await, 1);
    brokers.kill(1).await;
    // The first broker returns. Its log has an older epoch and the same length, and nobody writes
    // to it.
    brokers.controller.elect(1, 0, 0, &[0]);
    brokers.restart(0).await;
    brokers.restart(1).await;
    brokers.controller.partition(1, 0, |partition| partition.isr.len() == 2).await;
    let mut follower = brokers.client(1).await;
    fetched(&mut follower, "t", 2, |data| data.error_code == 0 && data.high_watermark == 2).await;
    assert_eq!(values(&follower.read_all("t", 0).await), ["both", "alone"]);
}

/// A refusal is an answer, and still nothing is replicated.
#[tokio::test]
async fn a_follower_that_its_leader_refuses_says_so_and_does_not_hurry() {
    let topic = placed_topic(1, "t", 1, &[0, 1], &[("min.insync.replicas", "1")]);
    let mut brokers = Brokers::start(2, vec![topic]).await;
    let mut client = brokers.client(0).await;
    produced(&mut client, "t", "a").await;
    brokers.controller.partition(1, 0, |partition| partition.isr.len() == 2).await;
    // The leader knows of a registration that the follower does not.
    brokers.controller.change_broker(1, |broker| broker.epoch += 1);
    let follower = brokers.broker(1);
    follower.wait_for_line("following a leader").await;
    follower
        .wait_for_line(
            "cannot follow a leader: its partitions are not replicated to this broker, which tries \
             again every second",
        )
        .await;
    let log = follower.log();
    assert_eq!(log.matches("following a leader").count(), 1, "{log}");
}

#[tokio::test]
async fn a_follower_that_lags_leaves_the_isr_and_comes_back() {
    let mut brokers =
        Brokers::start(2, vec![placed_topic(1, "t", 1, &[0, 1], &[("flush.mode", "none")])]).await;
    brokers.controller.configure("replica.lag.time.max.ms", "300");
    let mut client = brokers.client(0).await;
    produced(&mut client, "t", "a").await;
    // The broker is dead, and the controller has not noticed. Without writes for longer than the
    // maximum lag, the follower does not count as lagging.
    brokers.broker(1).kill().await;
    let waits = client.produce("t", 0, -1, batch(&["b"]));
    assert_eq!(waits.await.error_code, 0, "it is committed once the ISR is smaller");
    assert_eq!(
        brokers.controller.partition(1, 0, |partition| partition.isr == [0]).await.leader_epoch,
        0
    );
    brokers.restart(1).await;
    brokers.controller.partition(1, 0, |partition| partition.isr == [0, 1]).await;
    produced(&mut client, "t", "c").await;
    assert_eq!(values(&client.read_all("t", 0).await), ["a", "b", "c"]);
}

#[tokio::test]
async fn an_isr_is_taken_up_with_the_settings_under_which_it_was_committed() {
    let mut brokers =
        Brokers::start(2, vec![placed_topic(1, "t", 1, &[0, 1], &[("flush.mode", "none")])]).await;
    brokers.controller.configure("replica.lag.time.max.ms", "300");
    let mut client = brokers.client(0).await;
    produced(&mut client, "t", "a").await;
    // `min.insync.replicas` rises to 2 before the leader removes its lagging follower. The
    // controller removes the follower under the new setting, which keeps it eligible for an
    // election.
    brokers.controller.hold_back(true);
    brokers.controller.configure("min.insync.replicas", "2");
    brokers.broker(1).kill().await;
    let mut request = crate::support::produce_to("t", 0, -1, batch(&["b"]));
    request.timeout_ms = 1_500;
    client.send(9, &request).await;
    brokers.controller.partition(1, 0, |partition| partition.isr == [0]).await;
    let response: weir_protocol::messages::ProduceResponse =
        client.receive::<weir_protocol::messages::ProduceRequest>(9).await;
    let answer = code(response.responses[0].partition_responses[0].error_code);
    assert_eq!(
        answer,
        ErrorCode::RequestTimedOut,
        "the leader has heard of one and not of the other"
    );
    brokers.controller.hold_back(false);
    soon("the leader knows", async {
        while code(client.produce("t", 0, -1, batch(&["c"])).await.error_code)
            != ErrorCode::NotEnoughReplicas
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(values(&client.read_all("t", 0).await), ["a"]);
}

#[tokio::test]
async fn a_consumer_is_sent_to_the_replica_in_its_rack() {
    let rack = |launch: Launch| Launch { rack: format!("rack-{}", launch.id), ..launch };
    let brokers = Brokers::start_with(2, vec![placed_topic(1, "t", 1, &[0, 1], GROUP)], rack).await;
    let mut leader = brokers.client(0).await;
    produced(&mut leader, "t", "a").await;
    let fetch = |rack: &str| FetchRequest { rack_id: rack.to_owned(), ..fetch_from("t", 0, 0) };
    let mut answer = async |rack: &str| {
        leader.call(12, &fetch(rack)).await.responses.remove(0).partitions.remove(0)
    };
    for rack in ["rack-0", "rack-9", ""] {
        let data = answer(rack).await;
        assert_eq!(
            (data.preferred_read_replica, data.records.unwrap().is_empty()),
            (-1, false),
            "{rack}"
        );
    }
    // The leader may get the follower's fetches before the controller tells it the follower's rack.
    let sent_away = soon("the leader knows of the rack", async {
        loop {
            let data = answer("rack-1").await;
            if data.preferred_read_replica != -1 {
                return data;
            }
        }
    });
    let data = sent_away.await;
    assert_eq!((data.preferred_read_replica, data.records.unwrap().len()), (1, 0));
    let mut follower = brokers.client(1).await;
    fetched(&mut follower, "t", 0, |data| data.high_watermark == 1).await;
    let data = follower.call(12, &fetch("rack-1")).await.responses.remove(0).partitions.remove(0);
    assert_eq!((data.preferred_read_replica, data.records.unwrap().is_empty()), (-1, false));
    // Older clients, which cannot fetch from followers, get NOT_LEADER_OR_FOLLOWER.
    let old =
        follower.call(10, &fetch_from("t", 0, 0)).await.responses.remove(0).partitions.remove(0);
    assert_eq!(code(old.error_code), ErrorCode::NotLeaderOrFollower);
}

#[tokio::test]
async fn a_deleted_topic_is_put_aside_by_all_and_removed_later() {
    let configs = &[("file.delete.delay.ms", "600000")];
    let later = placed_topic(1, "later", 1, &[0, 1], configs);
    let at_once = placed_topic(2, "at-once", 1, &[0, 1], &[("file.delete.delay.ms", "0")]);
    let mut brokers = Brokers::start(2, vec![later, at_once]).await;
    let mut client = brokers.client(0).await;
    for topic in ["later", "at-once"] {
        produced(&mut client, topic, "a").await;
    }
    brokers.controller.delete(1);
    brokers.controller.delete(2);
    for id in [0, 1] {
        brokers.broker(id).wait_for_line("removed a deleted log").await;
        let names = brokers.directories(id);
        let count = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
        assert_eq!((count("later-0"), count("later-0."), count("at-once")), (1, 1, 0), "{names:?}");
        assert!(brokers.broker(id).stop().await.success());
    }
}

/// Otherwise a client that may fetch as a broker could open a session for every possible broker id.
#[tokio::test]
async fn who_is_no_broker_follows_nothing_and_leaves_nothing() {
    const VERSION: i16 = 15;
    let brokers = Brokers::start(2, vec![placed_topic(1, "t", 1, &[0, 1], GROUP)]).await;
    let leader_epoch =
        brokers.controller.partition(1, 0, |partition| partition.leader == 0).await.leader_epoch;
    let mut client = brokers.client(0).await;
    client.knows("t", |partition| partition.leader_id == 0).await;
    let mut request = fetch_from("t", 0, 0);
    request.topics[0].topic.clear();
    request.topics[0].topic_id = uuid::Uuid::from_bytes([1; 16]);
    request.topics[0].partitions[0].current_leader_epoch = leader_epoch;
    (request.session_id, request.session_epoch) = (0, 0);
    for replica_id in [7, 8] {
        request.replica_state = ReplicaState { replica_id, replica_epoch: 1 };
        let response = client.call(VERSION, &request).await;
        assert_eq!((response.error_code, response.session_id), (0, 0));
        assert_eq!(
            code(response.responses[0].partitions[0].error_code),
            ErrorCode::UnknownLeaderEpoch
        );
    }
}
