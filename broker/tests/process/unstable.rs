//! Offsets that an open transaction may still change: a client that requires stable offsets gets
//! UNSTABLE_OFFSET_COMMIT (KIP-447), for one group or for several.

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::offset_fetch_response::OffsetFetchResponsePartitions;
use weir_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use weir_protocol::messages::{
    AddOffsetsToTxnRequest, EndTxnRequest, InitProducerIdRequest, InitProducerIdResponse,
    TxnOffsetCommitRequest,
};

use crate::apis::NAME;
use crate::groups::{COORDINATORS, commit, fetch, found};
use crate::support::{Client, Cluster, soon, topic};

const ID: &str = "a-transactional-id";
/// A group with an offset in a transaction, and an unrelated one.
const HELD: &str = "held";
const FREE: &str = "free";
/// The first version of OffsetFetch with `RequireStable`, and the first with several groups.
const STABLE_SINCE: i16 = 7;
const GROUPS_SINCE: i16 = 8;
const NEWEST: i16 = 10;

async fn producer(client: &mut Client) -> InitProducerIdResponse {
    let request = InitProducerIdRequest {
        transactional_id: Some(ID.to_owned()),
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    soon("a producer id", async {
        loop {
            let response = client.call(4, &request).await;
            match ErrorCode::from_code(response.error_code) {
                ErrorCode::None => return response,
                ErrorCode::NotCoordinator
                | ErrorCode::CoordinatorLoadInProgress
                | ErrorCode::CoordinatorNotAvailable => {
                    tokio::task::yield_now().await;
                }
                error => panic!("{error}"),
            }
        }
    })
    .await
}

/// Commits an offset of the first group in the producer's transaction, which may begin with it.
async fn commit_in_transaction(
    client: &mut Client,
    producer: &InitProducerIdResponse,
    offset: i64,
) {
    let add = AddOffsetsToTxnRequest {
        transactional_id: ID.to_owned(),
        producer_id: producer.producer_id,
        producer_epoch: producer.producer_epoch,
        group_id: HELD.to_owned(),
    };
    soon("the transaction before has ended", async {
        loop {
            match ErrorCode::from_code(client.call(3, &add).await.error_code) {
                ErrorCode::None => return,
                ErrorCode::ConcurrentTransactions => tokio::task::yield_now().await,
                error => panic!("{error}"),
            }
        }
    })
    .await;
    let request = TxnOffsetCommitRequest {
        transactional_id: ID.to_owned(),
        group_id: HELD.to_owned(),
        producer_id: producer.producer_id,
        producer_epoch: producer.producer_epoch,
        generation_id_or_member_epoch: -1,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: NAME.to_owned(),
            partitions: vec![TxnOffsetCommitRequestPartition {
                committed_offset: offset,
                committed_leader_epoch: -1,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let response = client.call(3, &request).await;
    assert_eq!(response.topics[0].partitions[0].error_code, 0, "{response:?}");
}

async fn end(client: &mut Client, producer: &InitProducerIdResponse, committed: bool) {
    let request = EndTxnRequest {
        transactional_id: ID.to_owned(),
        producer_id: producer.producer_id,
        producer_epoch: producer.producer_epoch,
        committed,
    };
    assert_eq!(client.call(3, &request).await.error_code, 0);
}

/// Error and offset of the only partition of each group. Versions before several groups return only
/// the first one.
async fn fetched(client: &mut Client, version: i16, require_stable: bool) -> Vec<(ErrorCode, i64)> {
    let mut request = fetch(version, HELD);
    request.require_stable = require_stable;
    request.groups.extend(fetch(version, FREE).groups);
    let response = client.call(version, &request).await;
    if version < GROUPS_SINCE {
        assert_eq!(response.error_code, 0, "{version}: the error is the partition's");
        let partition = &response.topics[0].partitions[0];
        return vec![(ErrorCode::from_code(partition.error_code), partition.committed_offset)];
    }
    let of = |partition: &OffsetFetchResponsePartitions| {
        (ErrorCode::from_code(partition.error_code), partition.committed_offset)
    };
    let groups = response.groups.iter();
    groups
        .map(|group| {
            assert_eq!(group.error_code, 0, "{version}: the error is the partition's");
            of(&group.topics[0].partitions[0])
        })
        .collect()
}

/// Checks the answers in every version with `RequireStable`, with and without it set; `free` is the
/// offset of the other group.
async fn is_so(client: &mut Client, require_stable: bool, held: (ErrorCode, i64)) {
    for version in STABLE_SINCE..=NEWEST {
        let answers = fetched(client, version, require_stable).await;
        let free = (version >= GROUPS_SINCE).then_some((ErrorCode::None, 3));
        let expected: Vec<_> = std::iter::once(held).chain(free).collect();
        assert_eq!(answers, expected, "{version}, stable: {require_stable}");
    }
}

#[tokio::test]
async fn an_offset_that_a_transaction_holds_is_unstable() {
    let topics = vec![
        topic(1, NAME, 2, &[]),
        topic(2, COORDINATORS, 1, &[]),
        topic(3, "__transaction_state", 1, &[]),
    ];
    let cluster = Cluster::start(topics).await;
    let mut client = cluster.client().await;
    found(&mut client, HELD).await;
    for (group, offset) in [(HELD, 5), (FREE, 3)] {
        assert_eq!(
            client.call(9, &commit(9, group, offset)).await.topics[0].partitions[0].error_code,
            0
        );
    }
    let producer = producer(&mut client).await;
    is_so(&mut client, true, (ErrorCode::None, 5)).await;
    for (offset, commits, after) in [(6, false, 5), (7, true, 7)] {
        let before = 5;
        commit_in_transaction(&mut client, &producer, offset).await;
        is_so(&mut client, true, (ErrorCode::UnstableOffsetCommit, -1)).await;
        // A client that does not require stable offsets gets the previously committed one.
        is_so(&mut client, false, (ErrorCode::None, before)).await;
        end(&mut client, &producer, commits).await;
        soon("the transaction's marker", async {
            while fetched(&mut client, NEWEST, true).await[0].0 == ErrorCode::UnstableOffsetCommit {
                tokio::task::yield_now().await;
            }
        })
        .await;
        is_so(&mut client, true, (ErrorCode::None, after)).await;
    }
}
