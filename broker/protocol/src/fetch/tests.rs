//! Compares the Fetch response with the generated codec, which copies.

use super::*;
use crate::frame::encode_response;
use crate::messages::sample::sample;

/// A random response in both forms. This codec encodes absent records as zero bytes, so the
/// generated form gets them too.
fn both(seed: u64, version: i16) -> (FetchResponse<Bytes>, messages::FetchResponse) {
    let mut generated: messages::FetchResponse = sample(seed, version);
    for partition in generated.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
        partition.records.get_or_insert_default();
    }
    let topics = generated.responses.iter().cloned().map(|topic| FetchTopic {
        topic: topic.topic,
        topic_id: topic.topic_id,
        partitions: topic.partitions.into_iter().map(from_generated).collect(),
    });
    let ours = FetchResponse {
        throttle_time_ms: generated.throttle_time_ms,
        error_code: generated.error_code,
        session_id: generated.session_id,
        topics: topics.collect(),
        node_endpoints: generated.node_endpoints.clone(),
    };
    (ours, generated)
}

fn from_generated(partition: messages::fetch_response::PartitionData) -> FetchPartition<Bytes> {
    FetchPartition {
        partition_index: partition.partition_index,
        error_code: partition.error_code,
        high_watermark: partition.high_watermark,
        last_stable_offset: partition.last_stable_offset,
        log_start_offset: partition.log_start_offset,
        diverging_epoch: partition.diverging_epoch,
        current_leader: partition.current_leader,
        snapshot_id: partition.snapshot_id,
        aborted_transactions: partition.aborted_transactions,
        preferred_read_replica: partition.preferred_read_replica,
        records: partition.records,
    }
}

#[test]
fn the_frame_is_that_of_the_generated_codec() {
    for version in 4..=18 {
        for seed in 0..100 {
            let (ours, generated) = both(seed, version);
            let bytes_max = ours.encoded_bytes_max();
            let frame = ours.encode(version, 11).unwrap();
            let encoded = frame.chunks.iter().map(|chunk| match chunk {
                Chunk::Bytes(piece) => piece.len(),
                Chunk::Records(_) => 0,
            });
            assert!(encoded.sum::<usize>() <= bytes_max, "{version} seed {seed}");
            let mut bytes = BytesMut::new();
            for chunk in &frame.chunks {
                let (Chunk::Bytes(piece) | Chunk::Records(piece)) = chunk;
                assert!(!piece.is_empty());
                bytes.put_slice(piece);
            }
            assert_eq!(frame.length, bytes.len());
            assert_eq!(
                bytes,
                encode_response(&generated, ApiKey::Fetch, version, 11).unwrap(),
                "{version} seed {seed}"
            );
        }
    }
}

#[test]
fn the_defaults_are_those_of_the_schema() {
    let partition = FetchPartition::<Bytes>::default();
    assert_eq!(
        (
            partition.last_stable_offset,
            partition.log_start_offset,
            partition.preferred_read_replica
        ),
        (-1, -1, -1)
    );
    assert_eq!(
        (
            partition.diverging_epoch.epoch,
            partition.current_leader.leader_id,
            partition.snapshot_id.epoch
        ),
        (-1, -1, -1)
    );
}

#[test]
fn what_a_version_cannot_carry_is_refused() {
    let one = |partition| {
        let topic =
            FetchTopic { topic: "t".into(), topic_id: Uuid::nil(), partitions: vec![partition] };
        FetchResponse::<Bytes> { topics: vec![topic], ..Default::default() }
    };
    let epoch = EpochEndOffset { epoch: 1, end_offset: 2 };
    let table = [
        (6, "SessionId", FetchResponse { session_id: 1, ..Default::default() }),
        (
            15,
            "NodeEndpoints",
            FetchResponse { node_endpoints: vec![NodeEndpoint::default()], ..Default::default() },
        ),
        (
            10,
            "PreferredReadReplica",
            one(FetchPartition { preferred_read_replica: 1, ..Default::default() }),
        ),
        (
            11,
            "DivergingEpoch",
            one(FetchPartition { diverging_epoch: epoch, ..Default::default() }),
        ),
    ];
    for (version, field, response) in table {
        assert_eq!(
            response.clone().encode(version, 0).unwrap_err(),
            EncodeError::Unsupported { field, version }
        );
        response.encode(version + 1, 0).unwrap();
    }
}

/// Claims a length without having the bytes, as a part of a file would.
#[derive(Clone, Copy, Debug)]
struct Region(usize);

impl RecordsLength for Region {
    fn length(&self) -> usize {
        self.0
    }
}

#[test]
fn the_length_is_known_without_the_records_and_has_a_limit() {
    let response = |lengths: &[usize]| {
        let partitions = lengths
            .iter()
            .map(|length| FetchPartition { records: Some(Region(*length)), ..Default::default() });
        let topic = FetchTopic {
            topic: String::new(),
            topic_id: Uuid::nil(),
            partitions: partitions.collect(),
        };
        FetchResponse { topics: vec![topic], ..Default::default() }
    };
    let empty = response(&[0, 0]).encode(11, 0).unwrap();
    assert_eq!(empty.chunks.len(), 1);
    let frame = response(&[1 << 30, 5]).encode(11, 0).unwrap();
    assert_eq!(frame.length, empty.length + (1 << 30) + 5);
    assert_eq!(frame.chunks.len(), 4);
    assert!(matches!(response(&[1 << 30, 1 << 30]).encode(11, 0), Err(EncodeError::TooLong(_))));
    assert!(matches!(response(&[1 << 31]).encode(11, 0), Err(EncodeError::TooLong(_))));
}
