//! How group coordinators handle damage in their log, missing topics, and replicas that do not
//! follow.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::{BufMut, BytesMut};
use weir_protocol::batch::Batches;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::describe_configs_request::DescribeConfigsResource;
use weir_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use weir_protocol::messages::{DescribeConfigsRequest, OffsetCommitResponse};
use weir_protocol::record::BatchBuilder;

use crate::apis::NAME;
use crate::groups::{COORDINATORS, commit, fetch, found};
use crate::support::{Client, Cluster, placed_topic, soon, topic};

/// The resource type of a broker in DescribeConfigs.
const BROKER_RESOURCE: i8 = 4;

fn code(response: &OffsetCommitResponse, topic: usize) -> ErrorCode {
    ErrorCode::from_code(response.topics[topic].partitions[0].error_code)
}

async fn committed(client: &mut Client, group: &str) -> i64 {
    let fetched = client.call(9, &fetch(9, group)).await;
    assert_eq!(fetched.groups[0].error_code, 0, "{group}");
    fetched.groups[0].topics[0].partitions[0].committed_offset
}

fn text(bytes: &mut BytesMut, text: &str) {
    bytes.put_i16(i16::try_from(text.len()).unwrap());
    bytes.put_slice(text.as_bytes());
}

/// The key of a group's committed offset for the test topic.
fn offset_key(group: &str) -> BytesMut {
    let mut key = BytesMut::new();
    key.put_i16(1);
    text(&mut key, group);
    text(&mut key, NAME);
    key.put_i32(0);
    key
}

fn offset_value(offset: i64) -> BytesMut {
    let mut value = BytesMut::new();
    value.put_i16(3);
    value.put_i64(offset);
    value.put_i32(-1);
    text(&mut value, "");
    value.put_i64(1_700_000_000_000);
    value
}

/// Appends a batch with a valid checksum after the last one of a log that no process has open;
/// returns the offset of its first record.
fn append(log: &Path, records: &[(Option<&[u8]>, Option<&[u8]>)]) -> i64 {
    let written = std::fs::read(log).unwrap();
    let (last, bytes) = Batches::new(&written).map_while(Result::ok).last().unwrap();
    let mut builder = BatchBuilder::new(last.next_offset());
    for (offset, (key, value)) in (last.next_offset()..).zip(records) {
        builder.append(offset, 1_700_000_000_000, *key, *value, []);
    }
    let mut batch = builder.build(0).unwrap();
    // The checksum does not cover the base offset and the leader epoch.
    batch[..8].copy_from_slice(&last.next_offset().to_be_bytes());
    batch[12..16].copy_from_slice(&bytes[12..16]);
    OpenOptions::new().append(true).open(log).unwrap().write_all(&batch).unwrap();
    last.next_offset()
}

/// The log of the only coordinator partition.
fn log_of(cluster: &Cluster) -> PathBuf {
    cluster.launch.data.join(format!("{COORDINATORS}-0/00000000000000000000.log"))
}

/// An unreadable record costs only itself: the coordinator loads the records before, between and
/// after such records, and logs the offset of each.
#[tokio::test]
async fn a_record_that_means_nothing_costs_that_record() {
    let mut cluster =
        Cluster::start(vec![topic(1, NAME, 2, &[]), topic(2, COORDINATORS, 1, &[])]).await;
    let mut client = cluster.client().await;
    found(&mut client, "before").await;
    for (group, offset) in [("before", 7), ("overwritten", 8)] {
        assert_eq!(code(&client.call(9, &commit(9, group, offset)).await, 0), ErrorCode::None);
    }
    cluster.broker.kill().await;
    let log = log_of(&cluster);
    let (cut_off, between, garbage, behind) =
        (offset_key("x"), offset_key("between"), offset_key("garbage"), offset_key("behind"));
    let group_key = [&b"\0\x02"[..], &b"\0\x01g"[..]].concat();
    let records: [(Option<&[u8]>, Option<&[u8]>); 8] = [
        (Some(&cut_off[..7]), Some(&offset_value(1))),
        (Some(&between), Some(&offset_value(9))),
        (Some(&garbage), Some(b"\0\x03\xff")),
        (None, Some(b"no key")),
        (Some(b"\0"), None),
        (Some(&group_key), Some(b"\0\x63 a version that nobody knows")),
        (Some(b"\0\x63 a type that nobody knows"), Some(b"anything")),
        (Some(&behind), Some(&offset_value(10))),
    ];
    let first = append(&log, &records);
    cluster.restart().await;
    let mut client = cluster.client().await;
    found(&mut client, "before").await;
    for (group, offset) in
        [("before", 7), ("overwritten", 8), ("between", 9), ("behind", 10), ("garbage", -1)]
    {
        assert_eq!(committed(&mut client, group).await, offset, "{group}");
    }
    let said = cluster.broker.log();
    let is_told = |offset: i64| {
        said.lines().any(|line| {
            line.contains("a record of a coordinator is left out")
                && line.contains(&format!("\"offset\":{offset},"))
        })
    };
    // A record of an unknown type may be from a later version, so the broker does not log it.
    let told: Vec<i64> = (0..records.len() as i64).filter(|at| is_told(first + at)).collect();
    assert_eq!(told, [0, 2, 3, 4, 5], "{said}");
    // The coordinator works, and loads everything after a restart.
    assert_eq!(code(&client.call(9, &commit(9, "garbage", 11)).await, 0), ErrorCode::None);
    cluster.broker.kill().await;
    cluster.restart().await;
    let mut client = cluster.client().await;
    found(&mut client, "before").await;
    assert_eq!(
        (committed(&mut client, "garbage").await, committed(&mut client, "between").await),
        (11, 9)
    );
}

/// The coordinators' topic is deleted and created again between two metadata updates. Both topics
/// begin with the same leader epoch, but they have different logs.
#[tokio::test]
async fn their_topic_is_deleted_and_made_anew() {
    let cluster =
        Cluster::start(vec![topic(1, NAME, 2, &[]), topic(2, COORDINATORS, 1, &[])]).await;
    let mut client = cluster.client().await;
    found(&mut client, "g").await;
    assert_eq!(code(&client.call(9, &commit(9, "g", 7)).await, 0), ErrorCode::None);
    cluster.controller.remake(placed_topic(3, COORDINATORS, 1, &[cluster.launch.id], &[]));
    soon("the old one is gone and the new one coordinates", async {
        loop {
            let fetched = client.call(9, &fetch(9, "g")).await.groups.remove(0);
            if fetched.error_code == 0 && fetched.topics[0].partitions[0].committed_offset == -1 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(code(&client.call(9, &commit(9, "g", 8)).await, 0), ErrorCode::None);
    assert_eq!(committed(&mut client, "g").await, 8);
}

/// A commit for an unknown topic, by name or by id, is refused; the rest of the request is
/// committed.
#[tokio::test]
async fn a_commit_for_a_topic_that_is_not_there() {
    let cluster =
        Cluster::start(vec![topic(1, NAME, 2, &[]), topic(2, COORDINATORS, 1, &[])]).await;
    let mut client = cluster.client().await;
    found(&mut client, "g").await;
    for (version, error) in
        [(9, ErrorCode::UnknownTopicOrPartition), (10, ErrorCode::UnknownTopicId)]
    {
        let mut request = commit(version, "g", i64::from(version));
        let unknown = OffsetCommitRequestTopic {
            name: if version < 10 { "nope".to_owned() } else { String::new() },
            topic_id: if version < 10 { Default::default() } else { uuid::Uuid::from_u128(99) },
            ..request.topics[0].clone()
        };
        request.topics.push(unknown);
        let response = client.call(version, &request).await;
        let is_unknown = |at: usize| {
            response.topics[at].name == "nope"
                || response.topics[at].topic_id == uuid::Uuid::from_u128(99)
        };
        for at in 0..2 {
            let expected = if is_unknown(at) { error } else { ErrorCode::None };
            assert_eq!(code(&response, at), expected, "{version}");
        }
        assert_eq!(committed(&mut client, "g").await, i64::from(version));
    }
}

/// `offsets.commit.timeout.ms`: the client gets a retriable error when the replicas do not follow
/// within that time, and not earlier.
#[tokio::test]
async fn a_commit_that_is_not_replicated_in_time_is_to_be_asked_again() {
    let topics = vec![topic(1, NAME, 2, &[]), placed_topic(2, COORDINATORS, 1, &[0, 1], &[])];
    let cluster = Cluster::start(topics).await;
    // The other replica never fetches but stays in the ISR.
    cluster.controller.configure("replica.lag.time.max.ms", "3600000");
    let mut patient = cluster.client().await;
    configured(&cluster, &mut patient, "3600000").await;
    found(&mut patient, "g").await;
    patient.send(9, &commit(9, "g", 7)).await;
    let log = log_of(&cluster);
    soon("the commit in the log", async {
        while std::fs::metadata(&log).map_or(0, |found| found.len()) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut hurried = cluster.client().await;
    configured(&cluster, &mut hurried, "50").await;
    let refused = soon("an answer", hurried.call(9, &commit(9, "h", 8))).await;
    assert_eq!(code(&refused, 0), ErrorCode::CoordinatorNotAvailable);
    cluster.controller.change(2, 0, |partition| partition.isr = vec![0]);
    let response: OffsetCommitResponse =
        soon("an answer", patient.receive::<weir_protocol::messages::OffsetCommitRequest>(9)).await;
    assert_eq!(code(&response, 0), ErrorCode::None, "it was still waiting");
}

/// Sets the timeout of commits and waits until the broker has it.
async fn configured(cluster: &Cluster, client: &mut Client, value: &str) {
    cluster.controller.configure("offsets.commit.timeout.ms", value);
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: BROKER_RESOURCE,
            resource_name: "0".to_owned(),
            configuration_keys: Some(vec!["offsets.commit.timeout.ms".to_owned()]),
        }],
        ..Default::default()
    };
    soon("the setting", async {
        loop {
            let response = client.call(4, &request).await;
            if response.results[0]
                .configs
                .iter()
                .any(|config| config.value.as_deref() == Some(value))
            {
                return;
            }
        }
    })
    .await;
}
