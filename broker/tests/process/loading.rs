//! The answers of the group APIs while the coordinator loads its log, and after another broker has
//! become the leader of its partition; as `GroupCoordinatorService` in Apache Kafka.

use std::collections::HashSet;

use weir_protocol::api::ApiKey;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::leave_group_request::MemberIdentity;
use weir_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use weir_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, HeartbeatRequest, LeaveGroupRequest,
    ListGroupsRequest, ListGroupsResponse, Message, OffsetCommitRequest, OffsetFetchResponse,
    Request, SyncGroupRequest, TxnOffsetCommitRequest,
};

use crate::apis::{ID, NAME};
use crate::consumer_groups::{FEATURE, describe, heartbeat, is_finalised};
use crate::groups::{COORDINATORS, commit, delete_offsets, fetch, found, join, name_protocol};
use crate::support::{Client, Cluster, placed_topic, soon, topic};

/// The group of all requests, and a member id that it does not have.
const GROUP: &str = "g";
const MEMBER: &str = "m";

/// The name of an API, and the error codes of its answers over all its versions.
type Answers = (&'static str, HashSet<ErrorCode>);

/// Sends the request in every version.
async fn over<R: Request>(
    client: &mut Client,
    make: impl Fn(i16) -> R,
    code: impl Fn(R::Response, i16) -> i16,
) -> Answers {
    let mut told = HashSet::new();
    for version in ApiKey::from_key(R::API_KEY).unwrap().versions() {
        let response = client.call(version, &make(version)).await;
        told.insert(ErrorCode::from_code(code(response, version)));
    }
    (R::NAME, told)
}

/// Sends every API that goes to the coordinator.
async fn asked(client: &mut Client) -> Vec<Answers> {
    vec![
        over(client, |_| join(GROUP, MEMBER), |it, _| it.error_code).await,
        over(client, sync, |it, _| it.error_code).await,
        over(client, |_| beat(), |it, _| it.error_code).await,
        over(client, leave, |it, _| it.error_code).await,
        over(
            client,
            |version| commit(version, GROUP, 9),
            |it, _| it.topics[0].partitions[0].error_code,
        )
        .await,
        over(client, commit_in_transaction, |it, _| it.topics[0].partitions[0].error_code).await,
        over(client, |version| fetch(version, GROUP), of_fetched).await,
        over(client, |_| delete_offsets(GROUP), |it, _| it.error_code).await,
        over(client, |_| describe_groups(), |it, _| it.groups[0].error_code).await,
        over(client, |_| delete_groups(), |it, _| it.results[0].error_code).await,
        over(client, |_| heartbeat(GROUP, MEMBER, 0), |it, _| it.error_code).await,
        over(client, |_| describe(GROUP), |it, _| it.groups[0].error_code).await,
        over(client, |_| ListGroupsRequest::default(), of_listed).await,
    ]
}

fn sync(version: i16) -> SyncGroupRequest {
    let mut request = SyncGroupRequest {
        group_id: GROUP.to_owned(),
        member_id: MEMBER.to_owned(),
        ..Default::default()
    };
    name_protocol(&mut request, version);
    request
}

fn beat() -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: GROUP.to_owned(),
        member_id: MEMBER.to_owned(),
        ..Default::default()
    }
}

fn leave(version: i16) -> LeaveGroupRequest {
    let mut request = LeaveGroupRequest { group_id: GROUP.to_owned(), ..Default::default() };
    if version < 3 {
        request.member_id = MEMBER.to_owned();
    } else {
        request.members =
            vec![MemberIdentity { member_id: MEMBER.to_owned(), ..Default::default() }];
    }
    request
}

fn describe_groups() -> DescribeGroupsRequest {
    DescribeGroupsRequest { groups: vec![GROUP.to_owned()], ..Default::default() }
}

fn delete_groups() -> DeleteGroupsRequest {
    DeleteGroupsRequest { groups_names: vec![GROUP.to_owned()] }
}

/// OffsetFetch reports its error in different places by version.
fn of_fetched(response: OffsetFetchResponse, version: i16) -> i16 {
    match version {
        ..2 => response.topics[0].partitions[0].error_code,
        2..8 => response.error_code,
        _ => response.groups[0].error_code,
    }
}

fn of_listed(response: ListGroupsResponse, _: i16) -> i16 {
    assert!(response.groups.is_empty(), "{response:?}");
    response.error_code
}

fn commit_in_transaction(version: i16) -> TxnOffsetCommitRequest {
    let partition = TxnOffsetCommitRequestPartition { committed_offset: 9, ..Default::default() };
    TxnOffsetCommitRequest {
        transactional_id: "t".to_owned(),
        group_id: GROUP.to_owned(),
        producer_id: 7,
        generation_id_or_member_epoch: -1,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: if version < 6 { NAME.to_owned() } else { String::new() },
            topic_id: if version < 6 { Default::default() } else { ID },
            partitions: vec![partition],
        }],
        ..Default::default()
    }
}

/// The answers of all APIs except the named ones.
fn all_but<'a>(answers: &'a [Answers], named: &[&str]) -> Vec<&'a Answers> {
    answers.iter().filter(|(api, _)| !named.contains(api)).collect()
}

/// Waits until the coordinator answers with this error.
async fn is_told(client: &mut Client, error: ErrorCode) {
    soon("the coordinator's state", async {
        loop {
            let response = client.call(9, &fetch(9, GROUP)).await;
            if response.groups[0].error_code == error.code() {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_asks_a_coordinator_that_is_not_ready_or_not_there() {
    let cluster = Cluster::start(vec![
        topic(1, NAME, 2, &[]),
        placed_topic(2, COORDINATORS, 1, &[0, 1], &[]),
    ])
    .await;
    // The other replica never fetches but stays in the ISR.
    cluster.controller.configure("replica.lag.time.max.ms", "3600000");
    cluster.controller.finalise(FEATURE.0, FEATURE.1);
    let mut client = cluster.client().await;
    found(&mut client, GROUP).await;
    is_finalised(&mut client).await;

    // A commit is in the log but not committed. Loading reads only committed records, so the
    // coordinator of the next epoch keeps loading until it is.
    let log = cluster.launch.data.join(format!("{COORDINATORS}-0/00000000000000000000.log"));
    let mut waiting = cluster.client().await;
    waiting.send(9, &commit(9, GROUP, 8)).await;
    soon("the commit in the log", async {
        while std::fs::metadata(&log).map_or(0, |found| found.len()) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    cluster.controller.elect(2, 0, 0, &[0, 1]);
    let refused = waiting.receive::<OffsetCommitRequest>(9).await;
    assert_eq!(
        ErrorCode::from_code(refused.topics[0].partitions[0].error_code),
        ErrorCode::NotCoordinator,
        "it waited"
    );
    is_told(&mut client, ErrorCode::CoordinatorLoadInProgress).await;
    let answers = asked(&mut client).await;
    for (api, told) in all_but(&answers, &[HeartbeatRequest::NAME, TxnOffsetCommitRequest::NAME]) {
        assert_eq!(*told, HashSet::from([ErrorCode::CoordinatorLoadInProgress]), "{api}");
    }
    // Producers before Kafka 2.0, which use versions 0 and 1, do not know
    // COORDINATOR_LOAD_IN_PROGRESS.
    let of_old =
        HashSet::from([ErrorCode::CoordinatorLoadInProgress, ErrorCode::CoordinatorNotAvailable]);
    assert!(answers.contains(&(TxnOffsetCommitRequest::NAME, of_old)), "{answers:?}");
    // A member need not leave its group because the coordinator loads.
    assert!(
        answers.contains(&(HeartbeatRequest::NAME, HashSet::from([ErrorCode::None]))),
        "{answers:?}"
    );

    // Records in the log count once they are committed.
    cluster.controller.change(2, 0, |partition| partition.isr = vec![0]);
    found(&mut client, GROUP).await;
    let fetched = client.call(9, &fetch(9, GROUP)).await;
    assert_eq!(fetched.groups[0].topics[0].partitions[0].committed_offset, 8);

    cluster.controller.elect(2, 0, 1, &[1]);
    is_told(&mut client, ErrorCode::NotCoordinator).await;
    let answers = asked(&mut client).await;
    for (api, told) in all_but(&answers, &[ListGroupsRequest::NAME]) {
        assert_eq!(*told, HashSet::from([ErrorCode::NotCoordinator]), "{api}");
    }
    // A broker lists the groups that it coordinates; here there are none.
    assert!(
        answers.contains(&(ListGroupsRequest::NAME, HashSet::from([ErrorCode::None]))),
        "{answers:?}"
    );
}
