//! Tests the generated codecs against `kafka-protocol`, which generates its own from the same
//! definitions (up to Kafka 4.1), and against broken bytes.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{
    Decodable, Encodable, Message as TheirMessage, Request as TheirRequest,
};

use super::sample::{Random, Sample, sample, sample_bytes};
use super::*;
use crate::primitive::DecodeError;

const SEEDS: u64 = 60;

/// Decoding returns what was encoded and leaves exactly the bytes after it.
fn round_trips<M: Message + Sample>() {
    for version in M::VERSIONS {
        for seed in 0..SEEDS {
            let message: M = sample(seed, version);
            let mut buf = BytesMut::new();
            message.encode(&mut buf, version).unwrap();
            buf.put_slice(b"next");
            let mut bytes = buf.freeze();
            let decoded = M::decode(&mut bytes, version)
                .unwrap_or_else(|error| panic!("{} {version} seed {seed}: {error}", M::NAME));
            assert_eq!(decoded, message, "{} {version} seed {seed}", M::NAME);
            assert_eq!(bytes, "next", "{} {version} seed {seed}", M::NAME);
        }
        let mut buf = BytesMut::new();
        M::default().encode(&mut buf, version).unwrap();
        assert!(
            buf.len().max(1) >= M::MIN_SIZE,
            "{} {version} takes {} bytes at least, not {}",
            M::NAME,
            buf.len(),
            M::MIN_SIZE
        );
    }
}

/// The oracle reads what we wrote and writes the same bytes.
fn agrees_with_oracle<M: Message + Sample, Theirs: TheirMessage + Encodable + Decodable>() {
    let theirs = Theirs::VERSIONS;
    let common = M::VERSIONS.filter(|version| (theirs.min..=theirs.max).contains(version));
    let mut compared = 0;
    for version in common {
        for seed in 0..SEEDS {
            let bytes = sample_bytes::<M>(seed, version);
            let mut rest = bytes.clone();
            let decoded = Theirs::decode(&mut rest, version)
                .unwrap_or_else(|error| panic!("{} {version} seed {seed}: {error}", M::NAME));
            assert!(
                rest.is_empty(),
                "{} {version} seed {seed}: the oracle leaves {} bytes",
                M::NAME,
                rest.len()
            );
            let mut again = BytesMut::new();
            decoded.encode(&mut again, version).unwrap();
            assert_eq!(again.freeze(), bytes, "{} {version} seed {seed}", M::NAME);
            compared += 1;
        }
    }
    assert!(compared > 0, "{} has no version in common with the oracle", M::NAME);
}

/// How many positions of a message the test breaks. In a small message it breaks every one.
const PLACES: usize = 128;

/// No truncated message decodes as a whole one, and a change of a few bytes makes decoding only
/// succeed or fail.
fn survives_broken_bytes<M: Message + Sample>() {
    let claims: [&[u8]; 5] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xfe],
        &[0xff, 0xff, 0xff, 0xff, 0x07],
        &[0xff, 0xff, 0xff, 0xff, 0xff],
        &[0],
    ];
    for version in M::VERSIONS {
        let mut random = Random(u64::from(version.unsigned_abs()));
        for seed in 0..4 {
            let bytes = sample_bytes::<M>(seed, version);
            let step = bytes.len() / PLACES + 1;
            for length in (0..bytes.len()).step_by(step) {
                assert!(
                    M::decode(&mut bytes.slice(..length), version).is_err(),
                    "{} {version} seed {seed} cut to {length}",
                    M::NAME
                );
            }
            for at in (0..bytes.len()).step_by(step) {
                for claim in claims {
                    let mut broken = bytes.to_vec();
                    broken.splice(at..(at + claim.len()).min(bytes.len()), claim.iter().copied());
                    let _ = M::decode(&mut Bytes::from(broken), version);
                }
                let mut broken = bytes.to_vec();
                broken[at] ^= 1 << random.below(8);
                let _ = M::decode(&mut Bytes::from(broken), version);
            }
        }
    }
}

/// No version is longer than the measured maximum.
fn is_measured<M: Message + Sample + Measured>() {
    for version in M::VERSIONS {
        for seed in 0..SEEDS {
            let (message, bytes) = (sample::<M>(seed, version), sample_bytes::<M>(seed, version));
            let bytes_max = message.encoded_bytes_max();
            assert!(
                bytes.len() <= bytes_max,
                "{} {version} seed {seed}: {} bytes of {bytes_max}",
                M::NAME,
                bytes.len()
            );
        }
    }
}

macro_rules! each_api {
    ($($api:ident, $request:ident, $min:literal, $max:literal;)*) => {
        #[test]
        fn it_is_known_what_a_response_takes_before_it_is_encoded() {
            $(is_measured::<<$request as Request>::Response>();)*
        }

        #[test]
        fn every_message_round_trips_in_every_version() {
            $(round_trips::<$request>(); round_trips::<<$request as Request>::Response>();)*
            round_trips::<RequestHeader>();
            round_trips::<ResponseHeader>();
        }

        #[test]
        fn every_message_agrees_with_the_oracle() {
            $(
                agrees_with_oracle::<$request, kafka_protocol::messages::$request>();
                agrees_with_oracle::<<$request as Request>::Response, <kafka_protocol::messages::$request as TheirRequest>::Response>();
            )*
            agrees_with_oracle::<RequestHeader, kafka_protocol::messages::RequestHeader>();
            agrees_with_oracle::<ResponseHeader, kafka_protocol::messages::ResponseHeader>();
        }

        #[test]
        fn no_message_trusts_broken_bytes() {
            $(survives_broken_bytes::<$request>(); survives_broken_bytes::<<$request as Request>::Response>();)*
        }
    };
}

crate::for_each_api!(each_api);

macro_rules! coordinator_records {
    ($($key:ident, $value:ident;)*) => {
        #[test]
        fn every_coordinator_record_round_trips_agrees_with_the_oracle_and_survives_broken_bytes() {
            $(
                assert_eq!($key::RECORD_TYPE, $value::RECORD_TYPE);
                round_trips::<$key>();
                round_trips::<$value>();
                survives_broken_bytes::<$key>();
                survives_broken_bytes::<$value>();
            )*
            round_trips::<ConsumerProtocolSubscription>();
            round_trips::<ConsumerProtocolAssignment>();
            agrees_with_oracle::<ConsumerProtocolSubscription, kafka_protocol::messages::ConsumerProtocolSubscription>();
            agrees_with_oracle::<ConsumerProtocolAssignment, kafka_protocol::messages::ConsumerProtocolAssignment>();
        }
    };
}

coordinator_records! {
    OffsetCommitKey, OffsetCommitValue;
    TransactionLogKey, TransactionLogValue;
    GroupMetadataKey, GroupMetadataValue;
    ConsumerGroupMetadataKey, ConsumerGroupMetadataValue;
    ConsumerGroupPartitionMetadataKey, ConsumerGroupPartitionMetadataValue;
    ConsumerGroupMemberMetadataKey, ConsumerGroupMemberMetadataValue;
    ConsumerGroupTargetAssignmentMetadataKey, ConsumerGroupTargetAssignmentMetadataValue;
    ConsumerGroupTargetAssignmentMemberKey, ConsumerGroupTargetAssignmentMemberValue;
    ConsumerGroupCurrentMemberAssignmentKey, ConsumerGroupCurrentMemberAssignmentValue;
    ConsumerGroupRegularExpressionKey, ConsumerGroupRegularExpressionValue;
}

#[test]
fn the_api_keys_are_those_of_the_schema() {
    macro_rules! keys {
        ($($api:ident, $request:ident, $min:literal, $max:literal;)*) => {
            $(
                assert_eq!($request::API_KEY, crate::api::ApiKey::$api.key());
                assert_eq!(<$request as Request>::Response::API_KEY, $request::API_KEY);
                assert!(<$request as Request>::Response::VERSIONS.contains(&$max));
            )*
        };
    }
    crate::for_each_api!(keys);
}

#[test]
fn an_error_is_found_at_any_depth() {
    let mut response = DeleteRecordsResponse::default();
    response.topics.push(delete_records_response::DeleteRecordsTopicResult::default());
    response.topics[0].partitions.resize_with(2, Default::default);
    assert!(!response.has_error());
    response.topics[0].partitions[1].error_code = 3;
    assert!(response.has_error());
    let response = OffsetForLeaderEpochResponse::default();
    assert!(!response.has_error());
    let response = ApiVersionsResponse { error_code: 35, ..Default::default() };
    assert!(response.has_error());
    assert!(!InitProducerIdResponse::default().has_error(), "one that is not an array");
}

#[test]
fn a_count_that_the_bytes_cannot_hold_is_refused_at_once() {
    // Metadata 1 with only the count of topics.
    let claim =
        |count: i32| MetadataRequest::decode(&mut Bytes::copy_from_slice(&count.to_be_bytes()), 1);
    assert_eq!(
        claim(i32::MAX),
        Err(DecodeError::Truncated { needed: 2 * (i32::MAX as usize), remaining: 0 })
    );
    assert_eq!(claim(-2), Err(DecodeError::Length(-2)));
    assert_eq!(claim(i32::MIN), Err(DecodeError::Length(i64::from(i32::MIN))));
    assert_eq!(claim(-1).unwrap().topics, None);
    assert_eq!(claim(0).unwrap().topics, Some(vec![]));
}

#[test]
fn null_is_refused_where_the_version_does_not_know_it() {
    // Metadata 0 cannot say null for all topics, and 9 cannot for a name.
    assert_eq!(
        MetadataRequest::decode(&mut Bytes::from_static(b"\xff\xff\xff\xff"), 0),
        Err(DecodeError::Null("Topics"))
    );
    assert_eq!(
        MetadataRequest::decode(&mut Bytes::from_static(b"\x02\0\0\x01\0\0\0"), 9),
        Err(DecodeError::Null("Name"))
    );
    let request = MetadataRequest { topics: None, ..Default::default() };
    assert_eq!(request.encode(&mut BytesMut::new(), 0), Err(EncodeError::Null("Topics")));
}

#[test]
fn a_value_that_a_version_cannot_carry_is_refused_unless_it_is_ignorable() {
    let request = MetadataRequest { allow_auto_topic_creation: false, ..Default::default() };
    let refused = EncodeError::Unsupported { field: "AllowAutoTopicCreation", version: 3 };
    assert_eq!(request.encode(&mut BytesMut::new(), 3), Err(refused));
    let response = MetadataResponse {
        throttle_time_ms: 5,
        cluster_id: Some("c".into()),
        ..Default::default()
    };
    response.encode(&mut BytesMut::new(), 0).unwrap();
}

#[test]
fn versions_outside_of_the_schema_do_not_exist() {
    for version in [-1, 14, i16::MAX] {
        let missing = DecodeError::Version { message: "MetadataRequest", version };
        assert_eq!(MetadataRequest::decode(&mut Bytes::new(), version), Err(missing));
    }
    // Version 6 is unstable in Kafka 4.4 (KIP-939).
    assert_eq!(InitProducerIdRequest::VERSIONS, 0..=5);
}

#[test]
fn tagged_fields_are_skipped_when_unknown_and_refused_when_malformed() {
    // ApiVersions 3: two empty strings, then the tagged fields.
    let decode = |tags: &'static [u8]| {
        ApiVersionsRequest::decode(&mut Bytes::from([b"\x01\x01", tags].concat()), 3).map(|_| ())
    };
    let short = |needed, remaining| Err(DecodeError::Truncated { needed, remaining });
    let table: [(&'static [u8], Result<(), DecodeError>); 9] = [
        (b"\0", Ok(())),
        (b"\x01\x07\x02ab", Ok(())),
        (b"\x02\x07\x01a\x08\0", Ok(())),
        (b"\x02\x07\x01a\x07\0", Err(DecodeError::Tags)),
        (b"\x02\x07\x01a\x06\0", Err(DecodeError::Tags)),
        (b"\x01\x07\xff\xff\xff\xff\x0f", short(u32::MAX as usize, 0)),
        (b"\xff\xff\xff\xff\x0f", short(1, 0)),
        (b"\xff\xff\xff\xff\x1f", Err(DecodeError::Varint)),
        (b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", Err(DecodeError::Varint)),
    ];
    for (tags, expected) in table {
        assert_eq!(decode(tags), expected, "{tags:02x?}");
    }
}

#[test]
fn strings_are_checked() {
    let decode = |bytes: &'static [u8]| {
        DeleteTopicsRequest::decode(&mut Bytes::from_static(bytes), 1)
            .map(|request| request.topic_names)
    };
    assert_eq!(decode(b"\0\0\0\x01\0\x02\xc3\x28\0\0\0\0"), Err(DecodeError::Utf8));
    assert_eq!(decode(b"\0\0\0\x01\xff\xfe\0\0\0\0"), Err(DecodeError::Length(-2)));
    assert_eq!(decode(b"\0\0\0\x01\0\x01\0\0\0\0\0"), Ok(vec!["\0".to_owned()]));
    // A flexible string may not be longer than the classic form allows.
    let mut long = BytesMut::from(&b"\x81\x80\x02"[..]);
    long.put_bytes(b'a', 0x8000);
    assert_eq!(ApiVersionsRequest::decode(&mut long.freeze(), 3), Err(DecodeError::Length(0x8000)));
    let request =
        ApiVersionsRequest { client_software_name: "a".repeat(0x8000), ..Default::default() };
    assert_eq!(request.encode(&mut BytesMut::new(), 3), Err(EncodeError::TooLong(0x8000)));
}

/// An error message may repeat client input. In every version that has one, it is cut when it would
/// not fit.
#[test]
fn long_error_messages_are_cut() {
    let long = "\u{e9}".repeat(40_000);
    for version in CreateTopicsResponse::VERSIONS {
        let mut response = CreateTopicsResponse::default();
        response.topics.push(create_topics_response::CreatableTopicResult {
            name: "t".to_owned(),
            error_message: Some(long.clone()),
            ..Default::default()
        });
        let mut frame = BytesMut::new();
        response.encode(&mut frame, version).unwrap();
        let read = CreateTopicsResponse::decode(&mut Bytes::from(frame), version).unwrap();
        let message = read.topics.into_iter().next().unwrap().error_message.unwrap_or_default();
        assert!(
            message.len() <= 1024 && long.starts_with(&message),
            "version {version}: {} bytes",
            message.len()
        );
    }
}
