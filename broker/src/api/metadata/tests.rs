//! Requests of all versions to the cluster of the fixtures.

use weir_protocol::messages::create_topics_response::CreatableTopicResult;

use super::*;
use crate::api::fixtures::{A, B, assert_encodes, everyone, image, nobody, request, request_on};

fn named(names: &[&str]) -> MetadataRequest {
    let topic =
        |name: &&str| MetadataRequestTopic { name: Some((*name).to_owned()), ..Default::default() };
    MetadataRequest { topics: Some(names.iter().map(topic).collect()), ..Default::default() }
}

fn ids(ids: &[Uuid]) -> MetadataRequest {
    let topic = |id: &Uuid| MetadataRequestTopic { topic_id: *id, name: None };
    MetadataRequest { topics: Some(ids.iter().map(topic).collect()), ..Default::default() }
}

/// The names (`?` without one) and error codes of the answer.
fn ask(
    authorizer: &Authorizer,
    version: i16,
    request_body: &MetadataRequest,
) -> Result<Vec<(String, i16)>, ErrorCode> {
    let (image, cx) = (image(), request(version));
    let asked = select(&image, authorizer, &cx, request_body)?;
    let topics =
        asked.into_iter().map(|asked| answer(&image, authorizer, &cx, request_body, asked));
    Ok(topics
        .map(|topic| (topic.name.unwrap_or_else(|| "?".to_owned()), topic.error_code))
        .collect())
}

fn rows(rows: &[(&str, i16)]) -> Result<Vec<(String, i16)>, ErrorCode> {
    Ok(rows.iter().map(|(name, code)| ((*name).to_owned(), *code)).collect())
}

#[test]
fn all_some_or_none() {
    let all = rows(&[("__consumer_offsets", 0), ("a", 0), ("b", 0)]);
    let nothing = MetadataRequest { topics: None, ..Default::default() };
    assert_eq!(ask(&everyone(), 0, &named(&[])), all);
    assert_eq!(ask(&everyone(), 1, &named(&[])), rows(&[]));
    assert_eq!(ask(&everyone(), 13, &nothing), all);
    assert_eq!(ask(&nobody(), 13, &nothing), rows(&[]));
    let mixed = named(&["b", "none", "b", "no/name", "a"]);
    assert_eq!(
        ask(&everyone(), 9, &mixed),
        rows(&[("b", 0), ("none", 3), ("no/name", 17), ("a", 0)])
    );
    assert_eq!(ask(&nobody(), 9, &named(&["a", "none"])), rows(&[("a", 29), ("none", 29)]));
}

#[test]
fn by_id() {
    let unknown = Uuid::from_u128(99);
    assert_eq!(ask(&everyone(), 12, &ids(&[B, unknown, B])), rows(&[("b", 0), ("?", 100)]));
    assert_eq!(ask(&nobody(), 12, &ids(&[A, unknown])), rows(&[("?", 29), ("?", 100)]));
    for version in [10, 11] {
        assert_eq!(ask(&everyone(), version, &ids(&[A])), Err(ErrorCode::InvalidRequest));
    }
    assert_eq!(ask(&everyone(), 12, &ids(&[Uuid::nil()])), rows(&[("?", 17)]));
    let refused = refuse(&ids(&[A]), ErrorCode::InvalidRequest);
    assert_eq!((refused.topics[0].error_code, refused.topics[0].name.as_deref()), (42, Some("")));
}

#[test]
fn partitions_as_each_version_and_listener_sees_them() {
    let image = image();
    let topic = image.topic_by_name("a").unwrap();
    // Version, listener, partition; error, leader; replicas, and the offline ones.
    type Row = ((i16, &'static str, i32), (i16, i32), (&'static [i32], &'static [i32]));
    let rows: [Row; 7] = [
        ((9, "PLAINTEXT", 0), (0, 0), (&[0, 1], &[])),
        ((9, "PLAINTEXT", 1), (0, 0), (&[0, 2], &[2])),
        ((9, "PLAINTEXT", 2), (5, -1), (&[2], &[2])),
        ((0, "PLAINTEXT", 1), (9, 0), (&[0], &[2])),
        ((9, "OTHER", 0), (0, 0), (&[0, 1], &[1])),
        ((5, "NONE", 0), (5, -1), (&[0, 1], &[0, 1])),
        ((6, "NONE", 0), (72, -1), (&[0, 1], &[0, 1])),
    ];
    for ((version, listener, index), (error, leader), (replicas, offline)) in rows {
        let shown = describe_partition(
            &image,
            &request_on(listener, version),
            topic.partition(index).unwrap(),
            index,
        );
        assert_eq!(
            (shown.error_code, shown.leader_id, shown.partition_index, shown.leader_epoch),
            (error, leader, index, 5),
            "{version} {listener} {index}"
        );
        assert_eq!(
            (shown.replica_nodes.as_slice(), shown.offline_replicas.as_slice()),
            (replicas, offline),
            "{version} {listener} {index}"
        );
    }
}

#[test]
fn brokers_and_operations() {
    let image = image();
    let shown = brokers(image.live_brokers().collect(), &request(9));
    assert_eq!(
        shown.iter().map(|broker| (broker.node_id, broker.host.as_str())).collect::<Vec<_>>(),
        [(0, "plaintext0"), (1, "plaintext1")]
    );
    assert_eq!(brokers(image.live_brokers().collect(), &request_on("OTHER", 9)).len(), 1);
    let cx = request(9);
    assert_eq!(topic_operations(&everyone(), &cx, true, "a"), 0b1101_1111_1000);
    assert_eq!(topic_operations(&everyone(), &cx, false, "a"), i32::MIN);
}

#[test]
fn only_what_may_be_created_is() {
    let (image, cx) = (image(), request(9));
    let asked = || {
        select(&image, &everyone(), &cx, &named(&["a", "new", "no/name", "__transaction_state"]))
            .unwrap()
    };
    let mut allowed = asked();
    assert_eq!(take_creatable(&image, &everyone(), &cx, &mut allowed), ["new"]);
    assert_eq!(allowed.len(), 3);
    let mut denied = asked();
    assert!(take_creatable(&image, &nobody(), &cx, &mut denied).is_empty());
    assert_eq!(
        denied[1],
        RequestedTopic::Refused(
            ErrorCode::TopicAuthorizationFailed,
            Some("new".to_owned()),
            Uuid::nil()
        )
    );
    assert!(take_creatable(&MetadataImage::default(), &everyone(), &cx, &mut asked()).is_empty());
}

#[test]
fn what_came_of_a_creation() {
    let image = image();
    let answered = |error: ErrorCode| {
        let result = CreatableTopicResult {
            name: "new".to_owned(),
            error_code: error.code(),
            ..Default::default()
        };
        Ok(errors_by_name(CreateTopicsResponse { topics: vec![result], ..Default::default() }))
    };
    for (created, expected) in [
        (answered(ErrorCode::None), ErrorCode::LeaderNotAvailable),
        (answered(ErrorCode::TopicAlreadyExists), ErrorCode::LeaderNotAvailable),
        (answered(ErrorCode::InvalidReplicationFactor), ErrorCode::InvalidReplicationFactor),
        (Err(ErrorCode::NotController), ErrorCode::LeaderNotAvailable),
    ] {
        assert_eq!(
            outcome(&image, &created, "new".to_owned()),
            RequestedTopic::Refused(expected, Some("new".to_owned()), Uuid::nil())
        );
        assert!(matches!(outcome(&image, &created, "a".to_owned()), RequestedTopic::Found(_)));
    }
}

#[test]
fn every_version_can_carry_its_answer() {
    let image = image();
    for version in ApiKey::Metadata.versions() {
        let mut bodies = vec![
            named(&["a", "none", "no/name"]),
            MetadataRequest { include_topic_authorized_operations: version >= 8, ..named(&["b"]) },
        ];
        if version >= 1 {
            bodies.push(MetadataRequest { topics: None, ..Default::default() });
        }
        if version >= 10 {
            bodies.push(ids(&[A, Uuid::from_u128(9)]));
        }
        let cx = request(version);
        for (authorizer, body) in
            bodies.iter().flat_map(|body| [(everyone(), body), (nobody(), body)])
        {
            let response = match select(&image, &authorizer, &cx, body) {
                Ok(asked) => respond(&image, &authorizer, &cx, body, asked, BrokerId(0)),
                Err(error) => refuse(body, error),
            };
            assert_encodes(&response, version);
        }
    }
}
