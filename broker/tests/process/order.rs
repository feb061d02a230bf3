//! Pipelining: responses come in the order of the requests, and appends of one connection are in the order of its requests.

use weir_protocol::messages::metadata_request::MetadataRequestTopic;
use weir_protocol::messages::{MetadataRequest, ProduceRequest};

use crate::support::{Cluster, batch, produce_to, topic};

const PIPELINED: usize = 64;
const PRODUCE_VERSION: i16 = 9;
const METADATA_VERSION: i16 = 12;

#[tokio::test]
async fn pipelined_produces_are_answered_in_order_and_what_follows_them_after_them() {
    let cluster = Cluster::start(vec![
        topic(1, "group", 4, &[("flush.mode", "group")]),
        topic(2, "none", 4, &[("flush.mode", "none")]),
    ])
    .await;
    let mut client = cluster.client().await;
    // Partitions of both modes in turn: what need not wait for a flush must not overtake what does.
    let target = |index: usize| (["group", "none"][index % 2], i32::try_from(index / 2 % 4).unwrap());
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

/// What is large is carried out elsewhere: it is answered in its turn all the same, and one that makes no sense ends its connection and no other.
#[tokio::test]
async fn a_large_request_keeps_its_place_and_its_connection() {
    const NAMES: usize = 20_000;
    let cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    let (mut client, mut bystander) = (cluster.client().await, cluster.client().await);
    let name = |index: usize| MetadataRequestTopic {
        name: Some(format!("unknown-{index}")),
        ..Default::default()
    };
    let large = MetadataRequest {
        topics: Some((0..NAMES).map(name).collect()),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    client.send(PRODUCE_VERSION, &produce_to("t", 0, -1, batch(&["a"]))).await;
    client.send(METADATA_VERSION, &large).await;
    client.send(PRODUCE_VERSION, &produce_to("t", 0, -1, batch(&["b"]))).await;
    let offset = |response: weir_protocol::messages::ProduceResponse| response.responses[0].partition_responses[0].base_offset;
    assert_eq!(offset(client.receive::<ProduceRequest>(PRODUCE_VERSION).await), 0);
    let unknown = client.receive::<MetadataRequest>(METADATA_VERSION).await.topics;
    assert!(unknown.len() == NAMES && unknown.iter().all(|topic| topic.error_code == 3));
    assert_eq!(offset(client.receive::<ProduceRequest>(PRODUCE_VERSION).await), 1);
    // A Metadata request of version 12 whose array ends too early.
    let mut broken = b"\0\x03\0\x0c\0\0\0\x01\xff\xff\0".to_vec();
    broken.resize(100_000, 0xff);
    client.send_raw(&broken).await;
    client.closed().await;
    assert_eq!(bystander.call(METADATA_VERSION, &MetadataRequest::default()).await.brokers.len(), 1);
}
