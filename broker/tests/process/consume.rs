//! Fetch: sessions, long polls and response limits.

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::FetchRequest;
use weir_protocol::messages::fetch_request::FetchPartition;
use weir_protocol::messages::fetch_response::FetchableTopicResponse;

use crate::support::{Client, Cluster, batch, fetch_from, offsets_and_values, topic};

const VERSION: i16 = 12;

/// Longer than any test runs, so no response comes because the wait has ended.
const FOR_EVER_MS: i32 = 24 * 60 * 60 * 1000;

fn partitions(responses: &[FetchableTopicResponse]) -> Vec<(i32, Vec<(i64, String)>)> {
    let all = responses.iter().flat_map(|topic| &topic.partitions);
    all.map(|partition| {
        assert_eq!(partition.error_code, 0);
        (
            partition.partition_index,
            offsets_and_values(partition.records.as_deref().unwrap_or_default()),
        )
    })
    .collect()
}

/// Fetches both partitions from these offsets.
fn fetch_both(offsets: [i64; 2]) -> FetchRequest {
    let mut request = fetch_from("t", 0, offsets[0]);
    let second = FetchPartition {
        partition: 1,
        fetch_offset: offsets[1],
        ..request.topics[0].partitions[0].clone()
    };
    request.topics[0].partitions.push(second);
    request
}

async fn two_partitions() -> (Cluster, Client) {
    let cluster = Cluster::start(vec![topic(1, "t", 2, &[])]).await;
    let client = cluster.client().await;
    (cluster, client)
}

#[tokio::test]
async fn a_session_says_only_what_changed() {
    let (_cluster, mut client) = two_partitions().await;
    client.produce("t", 0, -1, batch(&["a"])).await;
    let opened =
        client.call(VERSION, &FetchRequest { session_epoch: 0, ..fetch_both([0, 0]) }).await;
    assert_eq!(partitions(&opened.responses), [(0, vec![(0, "a".to_owned())]), (1, vec![])]);
    assert_ne!(opened.session_id, 0);
    let session = |epoch, mut request: FetchRequest| {
        (request.session_id, request.session_epoch) = (opened.session_id, epoch);
        request
    };
    let nothing_named = || FetchRequest { topics: Vec::new(), ..fetch_both([0, 0]) };
    // The consumer advances in one partition; the other has nothing new.
    let moved = client.call(VERSION, &session(1, fetch_from("t", 0, 1))).await;
    assert_eq!(partitions(&moved.responses), []);
    client.produce("t", 1, -1, batch(&["b"])).await;
    let news = client.call(VERSION, &session(2, nothing_named())).await;
    assert_eq!(partitions(&news.responses), [(1, vec![(0, "b".to_owned())])]);
    let wrong_epoch = client.call(VERSION, &session(7, nothing_named())).await;
    assert_eq!(ErrorCode::from_code(wrong_epoch.error_code), ErrorCode::InvalidFetchSessionEpoch);
    let unknown = FetchRequest {
        session_id: opened.session_id.wrapping_add(1),
        ..session(3, nothing_named())
    };
    assert_eq!(
        ErrorCode::from_code(client.call(VERSION, &unknown).await.error_code),
        ErrorCode::FetchSessionIdNotFound
    );
}

#[tokio::test]
async fn a_long_poll_wakes_when_there_is_enough() {
    let (cluster, mut consumer) = two_partitions().await;
    let mut producer = cluster.client().await;
    let one = batch(&["a"]);
    let rows = [
        // Any byte of any partition is enough.
        (1, vec![(1, "a")]),
        // One batch is not enough; the batches of two partitions are.
        (i32::try_from(one.len()).unwrap() + 1, vec![(0, "a"), (1, "a")]),
    ];
    let mut next = [0, 0];
    for (min_bytes, produced) in rows {
        let request = FetchRequest { max_wait_ms: FOR_EVER_MS, min_bytes, ..fetch_both(next) };
        consumer.send(VERSION, &request).await;
        let mut expected = vec![(0, vec![]), (1, vec![])];
        for (partition, value) in produced {
            let told = producer.produce("t", partition, 1, batch(&[value])).await;
            let at = usize::try_from(partition).unwrap();
            expected[at].1.push((told.base_offset, value.to_owned()));
            next[at] = told.base_offset + 1;
        }
        let response = consumer.receive::<FetchRequest>(VERSION).await;
        assert_eq!(partitions(&response.responses), expected, "min_bytes={min_bytes}");
    }
    // Without enough bytes the fetch ends after its wait.
    let request = FetchRequest { max_wait_ms: 10, min_bytes: 1, ..fetch_both(next) };
    assert_eq!(
        partitions(&consumer.call(VERSION, &request).await.responses),
        [(0, vec![]), (1, vec![])]
    );
}

#[tokio::test]
async fn one_append_wakes_all_who_wait_for_it() {
    const CONSUMERS: usize = 50;
    let (cluster, mut producer) = two_partitions().await;
    let mut consumers = Vec::new();
    for _ in 0..CONSUMERS {
        let mut consumer = cluster.client().await;
        let request = FetchRequest { max_wait_ms: FOR_EVER_MS, min_bytes: 1, ..fetch_both([0, 0]) };
        consumer.send(VERSION, &request).await;
        consumers.push(consumer);
    }
    producer.produce("t", 0, -1, batch(&["a"])).await;
    for consumer in &mut consumers {
        let response = consumer.receive::<FetchRequest>(VERSION).await;
        assert_eq!(partitions(&response.responses)[0].1, [(0, "a".to_owned())]);
    }
}

#[tokio::test]
async fn a_response_is_bounded_but_never_empty_handed() {
    let (_cluster, mut client) = two_partitions().await;
    for partition in [0, 1] {
        for values in [["a", "b"], ["c", "d"]] {
            assert_eq!(client.produce("t", partition, -1, batch(&values)).await.error_code, 0);
        }
    }
    let first = vec![(0, "a".to_owned()), (1, "b".to_owned())];
    let second = vec![(2, "c".to_owned()), (3, "d".to_owned())];
    let both = [first.clone(), second.clone()].concat();
    let with = |max_bytes, partition_max_bytes, offsets| {
        let mut request = fetch_both(offsets);
        request.max_bytes = max_bytes;
        for partition in &mut request.topics[0].partitions {
            partition.partition_max_bytes = partition_max_bytes;
        }
        request
    };
    let large = 1 << 20;
    let rows = [
        ("no bound matters", with(large, large, [0, 0]), [both.clone(), both.clone()]),
        (
            "the first batch goes out whatever its size",
            with(1, large, [0, 0]),
            [first.clone(), vec![]],
        ),
        (
            "one that is larger than its partition may have",
            with(large, 1, [0, 0]),
            [first.clone(), vec![]],
        ),
        (
            "a whole batch for an offset inside it",
            with(large, large, [3, 4]),
            [second.clone(), vec![]],
        ),
        ("the end", with(large, large, [4, 4]), [vec![], vec![]]),
    ];
    for (what, request, expected) in rows {
        let response = client.call(VERSION, &request).await;
        assert_eq!(response.error_code, 0);
        let found = partitions(&response.responses);
        assert_eq!([found[0].1.clone(), found[1].1.clone()], expected, "{what}");
    }
    for offset in [-1, 5, i64::MAX] {
        let answer = client.fetch("t", 0, offset).await;
        assert_eq!(
            ErrorCode::from_code(answer.error_code),
            ErrorCode::OffsetOutOfRange,
            "{offset}"
        );
    }
}
