//! Pipelining: responses and appends of one connection have the order of its requests.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use weir_protocol::batch::Codec;
use weir_protocol::messages::fetch_request::FetchPartition;
use weir_protocol::messages::metadata_request::MetadataRequestTopic;
use weir_protocol::messages::{FetchRequest, MetadataRequest, ProduceRequest};
use weir_protocol::record::BatchBuilder;

use crate::support::{Client, Cluster, batch, fetch_from, produce_to, topic};

const PIPELINED: usize = 64;
const PRODUCE_VERSION: i16 = 9;
const METADATA_VERSION: i16 = 12;
const FETCH_VERSION: i16 = 12;

#[tokio::test]
async fn pipelined_produces_are_answered_in_order_and_what_follows_them_after_them() {
    let cluster = Cluster::start(vec![
        topic(1, "group", 4, &[("flush.mode", "group")]),
        topic(2, "none", 4, &[("flush.mode", "none")]),
    ])
    .await;
    let mut client = cluster.client().await;
    // Partitions of both modes alternate: a response that needs no flush must not overtake one that
    // does.
    let target =
        |index: usize| (["group", "none"][index % 2], i32::try_from(index / 2 % 4).unwrap());
    for index in 0..PIPELINED {
        let (name, partition) = target(index);
        client
            .send(PRODUCE_VERSION, &produce_to(name, partition, -1, batch(&[&index.to_string()])))
            .await;
    }
    client.send(METADATA_VERSION, &MetadataRequest::default()).await;
    let mut next = std::collections::BTreeMap::new();
    for index in 0..PIPELINED {
        let response = client.receive::<ProduceRequest>(PRODUCE_VERSION).await;
        let answered = &response.responses[0].partition_responses[0];
        let offset = next.entry(target(index)).or_insert(0);
        assert_eq!((answered.error_code, answered.base_offset), (0, *offset), "request {index}");
        *offset += 1;
    }
    assert_eq!(client.receive::<MetadataRequest>(METADATA_VERSION).await.brokers.len(), 1);
    for ((name, partition), _) in next {
        let values: Vec<usize> = client
            .read_all(name, partition)
            .await
            .iter()
            .map(|(_, value)| value.parse().unwrap())
            .collect();
        assert!(values.is_sorted(), "{name}-{partition}: {values:?}");
    }
}

#[tokio::test]
async fn a_refused_produce_keeps_its_place() {
    let cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    let mut client = cluster.client().await;
    for index in 0..PIPELINED {
        let partition = i32::from(index % 3 == 1);
        client
            .send(PRODUCE_VERSION, &produce_to("t", partition, 1, batch(&[&index.to_string()])))
            .await;
    }
    for index in 0..PIPELINED {
        let response = client.receive::<ProduceRequest>(PRODUCE_VERSION).await;
        let refused = response.responses[0].partition_responses[0].error_code != 0;
        assert_eq!(refused, index % 3 == 1, "request {index}");
    }
}

/// The broker handles a large request on another thread. The response still comes in order, and a
/// malformed large request closes only its own connection.
#[tokio::test]
async fn a_large_request_keeps_its_place_and_its_connection() {
    const NAMES: usize = 20_000;
    let cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    let (mut client, mut bystander) = (cluster.client().await, cluster.client().await);
    let large = metadata_of_unknown(NAMES);
    client.send(PRODUCE_VERSION, &produce_to("t", 0, -1, batch(&["a"]))).await;
    client.send(METADATA_VERSION, &large).await;
    client.send(PRODUCE_VERSION, &produce_to("t", 0, -1, batch(&["b"]))).await;
    let offset = |response: weir_protocol::messages::ProduceResponse| {
        response.responses[0].partition_responses[0].base_offset
    };
    assert_eq!(offset(client.receive::<ProduceRequest>(PRODUCE_VERSION).await), 0);
    let unknown = client.receive::<MetadataRequest>(METADATA_VERSION).await.topics;
    assert!(unknown.len() == NAMES && unknown.iter().all(|topic| topic.error_code == 3));
    assert_eq!(offset(client.receive::<ProduceRequest>(PRODUCE_VERSION).await), 1);
    // A Metadata request of version 12 with an array that ends too early.
    let mut broken = b"\0\x03\0\x0c\0\0\0\x01\xff\xff\0".to_vec();
    broken.resize(100_000, 0xff);
    client.send_raw(&broken).await;
    client.closed().await;
    assert_eq!(
        bystander.call(METADATA_VERSION, &MetadataRequest::default()).await.brokers.len(),
        1
    );
}

/// A Metadata request may name hundreds of thousands of topics. Other clients do not wait until the
/// broker has looked each of them up.
#[tokio::test]
async fn metadata_of_very_many_topics_holds_up_nobody_else() {
    const NAMES: usize = 400_000;
    let cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    let mut client = cluster.client().await;
    let mut bystanders = bystanders(&cluster).await;
    client.send(METADATA_VERSION, &metadata_of_unknown(NAMES)).await;
    let (response, rounds) =
        rounds_until(client.receive::<MetadataRequest>(METADATA_VERSION), &mut bystanders).await;
    assert_eq!(response.topics.len(), NAMES);
    assert!(rounds >= ROUNDS_MIN, "{rounds}");
}

fn metadata_of_unknown(names: usize) -> MetadataRequest {
    let topic = |index| MetadataRequestTopic {
        name: Some(format!("unknown-{index}")),
        ..Default::default()
    };
    MetadataRequest {
        topics: Some((0..names).map(topic).collect()),
        allow_auto_topic_creation: false,
        ..Default::default()
    }
}

/// A fetch may name hundreds of thousands of partitions, and the broker looks each of them up.
/// Other clients do not wait for that, on any thread.
#[tokio::test]
async fn a_fetch_of_very_many_partitions_holds_up_nobody_else() {
    const PARTITIONS: i32 = 300_000;
    let cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    let mut client = cluster.client().await;
    let mut bystanders = bystanders(&cluster).await;
    let mut large = fetch_from("t", 0, 0);
    let first = large.topics[0].partitions[0].clone();
    large.topics[0].partitions =
        (0..PARTITIONS).map(|partition| FetchPartition { partition, ..first.clone() }).collect();
    client.send(FETCH_VERSION, &large).await;
    let (response, rounds) =
        rounds_until(client.receive::<FetchRequest>(FETCH_VERSION), &mut bystanders).await;
    assert_eq!(response.responses[0].partitions.len(), usize::try_from(PARTITIONS).unwrap());
    assert!(rounds >= ROUNDS_MIN, "{rounds}");
}

/// A small request can hold a hundred million bytes or records. Other clients do not wait until
/// they are read. The next request of the same client does, because it is appended after them.
#[tokio::test]
async fn records_that_take_long_to_read_hold_up_nobody_else() {
    const RECORDS: i64 = 1_500_000;
    let cluster =
        Cluster::start(vec![topic(1, "t", 1, &[("max.message.bytes", "100000000")])]).await;
    let mut client = cluster.client().await;
    let mut bystanders = bystanders(&cluster).await;
    let mut builder = BatchBuilder::new(0).codec(Codec::Gzip);
    for offset in 0..RECORDS {
        builder.append(offset, 1, None, None, []);
    }
    let long = builder.build(1).unwrap().freeze();
    client.send(PRODUCE_VERSION, &produce_to("t", 0, -1, long)).await;
    client.send(PRODUCE_VERSION, &produce_to("t", 0, -1, batch(&["next"]))).await;
    let (response, rounds) =
        rounds_until(client.receive::<ProduceRequest>(PRODUCE_VERSION), &mut bystanders).await;
    let answered = &response.responses[0].partition_responses[0];
    assert_eq!((answered.error_code, answered.base_offset), (0, 0));
    assert!(rounds >= ROUNDS_MIN, "{rounds}");
    assert_eq!(client.receive_produce().await.base_offset, RECORDS);
}

const ROUNDS_MIN: usize = 20;

/// Connections of other clients. With four of them, some share a thread with the connection under
/// test.
async fn bystanders(cluster: &Cluster) -> Vec<Client> {
    let mut bystanders = Vec::new();
    for _ in 0..4 {
        bystanders.push(cluster.client().await);
    }
    bystanders
}

/// How often all bystanders get an answer before the response comes.
async fn rounds_until<R>(
    response: impl Future<Output = R>,
    bystanders: &mut [Client],
) -> (R, usize) {
    let mut response = Box::pin(response);
    let mut rounds = 0;
    loop {
        let round = async {
            for bystander in &mut *bystanders {
                bystander.call(METADATA_VERSION, &MetadataRequest::default()).await;
            }
        };
        tokio::select! {
            biased;
            response = &mut response => return (response, rounds),
            () = round => rounds += 1,
        }
    }
}

/// Requests without records have memory of their own. So a follower with many partitions, a
/// rebalancing group or an ending transaction does not wait for producers with slow connections.
#[tokio::test]
async fn who_sends_records_slowly_holds_up_producers_alone() {
    const FRAME_BYTES: u32 = 100_000_000;
    let cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    let mut slow = Vec::new();
    // Together more than the memory for requests, which is 256 MiB.
    for _ in 0..4 {
        let mut stream = TcpStream::connect(cluster.broker.kafka()).await.unwrap();
        stream.write_all(&FRAME_BYTES.to_be_bytes()).await.unwrap();
        stream.write_all(b"\0\0\0\x09").await.unwrap();
        slow.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut client = cluster.client().await;
    let mut fetch = fetch_from("t", 0, 0);
    let first = fetch.topics[0].partitions[0].clone();
    // More partitions than a connection may name without reserving memory.
    let partitions = (0..1_000).map(|partition| FetchPartition { partition, ..first.clone() });
    fetch.topics[0].partitions = partitions.collect();
    let fetched =
        tokio::time::timeout(Duration::from_secs(10), client.call(FETCH_VERSION, &fetch)).await;
    assert_eq!(fetched.unwrap().responses[0].partitions.len(), 1_000);
}
