use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use proptest::prelude::*;
use weir_protocol::batch::{self, BatchHeader, Batches, Codec, checked};
use weir_protocol::compression::default_level;
use weir_protocol::record::{BatchBuilder, Records, section};
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::super::config::Cleanup;
use super::super::producers::LastRecord;
use super::super::producers::{Marker, marker_batch};
use super::filter::{Outcomes, Round, index};
use super::*;

mod disk;

const HORIZON_MS: i64 = 100;

fn config() -> LogConfig {
    let cleanup = Cleanup { delete: false, compact: true };
    LogConfig { cleanup, delete_retention_ms: HORIZON_MS, ..LogConfig::default() }
}

/// A record: its key, and its value unless it is a tombstone.
type KeyValue = (Option<u8>, Option<u8>);

/// The readable records of a log: offset, key, value.
type Read = Vec<(i64, KeyValue)>;

fn write(
    base_offset: i64,
    codec: Codec,
    producer: Option<(i64, i32)>,
    records: &[KeyValue],
) -> BytesMut {
    let mut builder = BatchBuilder::new(base_offset).codec(codec);
    if let Some((id, sequence)) = producer {
        builder = builder.producer(ProducerId(id), ProducerEpoch(0), sequence);
    }
    for ((key, value), offset) in records.iter().zip(base_offset..) {
        builder.append(
            offset,
            10 + offset,
            key.as_ref().map(std::slice::from_ref),
            value.as_ref().map(std::slice::from_ref),
            [(&b"h"[..], None)],
        );
    }
    builder.build(default_level(codec)).unwrap()
}

fn read(batches: &[u8]) -> Read {
    let mut found = Vec::new();
    for batch in Batches::new(batches) {
        let (_, bytes) = batch.unwrap();
        let header = checked(bytes).unwrap();
        let section = section(&header, bytes, 1 << 20).unwrap();
        for record in Records::new(&section, header.records_count) {
            let record = record.unwrap();
            assert_eq!(
                (record.timestamp(&header), record.headers().count()),
                (10 + record.offset(&header), 1)
            );
            let first = |bytes: Option<&[u8]>| bytes.map(|bytes| bytes[0]);
            found.push((record.offset(&header), (first(record.key), first(record.value))));
        }
    }
    found
}

fn map_of(log: &[u8], first_dirty: i64, end: i64, keys_max: usize) -> OffsetMap {
    let mut map = OffsetMap::new(keys_max, [7; 16]);
    for batch in Batches::new(log) {
        let (header, bytes) = batch.unwrap();
        if header.next_offset() > end
            || !index(&mut map, (&config(), &Outcomes::default()), first_dirty, &header, bytes)
        {
            break;
        }
    }
    map
}

fn filtered(
    log: &[u8],
    map: &OffsetMap,
    last_records: &BTreeMap<ProducerId, LastRecord>,
    now_ms: i64,
) -> Vec<u8> {
    filtered_with(log, map, last_records, now_ms, &Outcomes::default())
}

fn filtered_with(
    log: &[u8],
    map: &OffsetMap,
    last_records: &BTreeMap<ProducerId, LastRecord>,
    now_ms: i64,
    outcomes: &Outcomes,
) -> Vec<u8> {
    let mut round = Round {
        outcomes,
        observed: BTreeSet::new(),
        config: &config(),
        map,
        last_records,
        now_ms,
        unread: None,
    };
    let kept = Batches::new(log)
        .map(Result::unwrap)
        .filter_map(|(header, bytes)| round.filter(&header, bytes));
    kept.flat_map(Cow::into_owned).collect()
}

/// A topic may have taken larger batches before it was compacted, or before its
/// `max.message.bytes` was lowered.
#[test]
fn a_tombstone_stays_while_what_it_deletes_cannot_be_read() {
    let large = {
        let value = vec![0; 1 << 20];
        let mut builder = BatchBuilder::new(0).codec(Codec::Zstd);
        for offset in 0..17 {
            builder.append(offset, 10 + offset, Some(b"a"), Some(&value), []);
        }
        builder.build(default_level(Codec::Zstd)).unwrap()
    };
    let later = write(17, Codec::None, None, &[(Some(b'a'), None), (Some(b'b'), Some(1))]);
    let log = [&large[..], &later].concat();
    let map = map_of(&log, 0, 19, 100);
    // The first round sets the time from which a tombstone may go, the second would remove it.
    let kept = filtered(&log, &map, &BTreeMap::new(), 0);
    let kept = filtered(&kept, &map, &BTreeMap::new(), HORIZON_MS);
    assert!(kept.starts_with(&large));
    assert_eq!(read(&kept[large.len()..]), [(17, (Some(b'a'), None)), (18, (Some(b'b'), Some(1)))]);
    // Without the large batch it goes.
    let kept = filtered(&kept[large.len()..], &map, &BTreeMap::new(), HORIZON_MS);
    assert_eq!(read(&kept), [(18, (Some(b'b'), Some(1)))]);
}

/// The records that compaction of everything before `end` leaves, before or after tombstones are
/// due.
fn model(log: &Read, end: i64, with_tombstones: bool) -> Read {
    let newest: BTreeMap<_, _> = log
        .iter()
        .filter(|(offset, _)| *offset < end)
        .map(|(offset, (key, _))| (*key, *offset))
        .collect();
    let stays = |(offset, (key, value)): &&(i64, KeyValue)| {
        *offset >= end
            || (key.is_some() && newest[key] == *offset && (value.is_some() || with_tombstones))
    };
    log.iter().filter(stays).copied().collect()
}

fn batches() -> impl Strategy<Value = Vec<(u8, Vec<KeyValue>)>> {
    let key = prop_oneof![12 => (0..6_u8).prop_map(Some), 1 => Just(None)];
    let record = (key, proptest::option::weighted(0.8, any::<u8>()));
    proptest::collection::vec((0..5_u8, proptest::collection::vec(record, 1..6)), 1..25)
}

fn log_of(batches: &[(u8, Vec<KeyValue>)]) -> Vec<u8> {
    let mut log = Vec::new();
    let mut next = 0;
    for (codec, records) in batches {
        log.extend_from_slice(&write(next, Codec::from_id(*codec).unwrap(), None, records));
        next += records.len() as i64;
    }
    log
}

proptest! {
    #[test]
    fn it_leaves_what_the_model_leaves(batches in batches(), end in 0..100_i64) {
        let log = log_of(&batches);
        let before = read(&log);
        let map = map_of(&log, 0, end, 100);
        let cleaned = filtered(&log, &map, &BTreeMap::new(), 1_000);
        let expected = |with_tombstones| model(&before, map.end_offset(), with_tombstones);
        prop_assert_eq!(read(&cleaned), expected(true));

        // Nothing changes until the tombstones are due. Then only they go.
        let again = filtered(&cleaned, &map, &BTreeMap::new(), 1_000 + HORIZON_MS - 1);
        prop_assert_eq!(&again, &cleaned);
        let due = filtered(&cleaned, &map, &BTreeMap::new(), 1_000 + HORIZON_MS);
        prop_assert_eq!(read(&due), expected(false));

        // A batch still marks the end of the cleaned part.
        let last = Batches::new(&due).map(|batch| batch.unwrap().0.next_offset()).max();
        prop_assert_eq!(last, before.last().map(|(offset, _)| offset + 1));
    }

    #[test]
    fn with_a_full_map_it_leaves_more_and_loses_nothing(batches in batches(), keys_max in 1..6_usize) {
        let log = log_of(&batches);
        let before = read(&log);
        let map = map_of(&log, 0, i64::MAX, keys_max);
        let left = read(&filtered(&log, &map, &BTreeMap::new(), 0));
        // The map ended inside a batch and holds a part of it. So some records that this part
        // supersedes may be gone too.
        prop_assert!(model(&before, i64::MAX, true).iter().all(|record| left.contains(record)));
        let at_most = model(&before, map.end_offset(), true);
        prop_assert!(left.iter().all(|record| at_most.contains(record)));
        prop_assert!(before.iter().filter(|(offset, _)| *offset >= map.end_offset()).all(|record| left.contains(record)));
    }

    #[test]
    fn in_two_rounds_it_leaves_the_same(batches in batches(), first in 0..100_i64) {
        let log = log_of(&batches);
        let before = read(&log);
        let map = map_of(&log, 0, first, 100);
        let cleaned = filtered(&log, &map, &BTreeMap::new(), 1_000);
        let second = map_of(&cleaned, map.end_offset(), i64::MAX, 100);
        prop_assert_eq!(read(&filtered(&cleaned, &second, &BTreeMap::new(), 1_000)), model(&before, second.end_offset(), true));
    }
}

#[test]
fn the_last_batch_of_a_producer_keeps_its_header() {
    let log = [
        write(0, Codec::None, Some((1, 0)), &[(Some(1), Some(1)); 2]),
        write(2, Codec::Gzip, Some((1, 2)), &[(Some(1), Some(2))]),
    ];
    let log = [&log[0][..], &log[1], &write(3, Codec::None, None, &[(Some(1), Some(3))])].concat();
    let map = map_of(&log, 0, 100, 10);
    let last = BTreeMap::from([(ProducerId(1), LastRecord::Data(2))]);
    let cleaned = filtered(&log, &map, &last, 0);
    let headers: Vec<BatchHeader> = Batches::new(&cleaned).map(|batch| batch.unwrap().0).collect();
    assert_eq!(
        headers.iter().map(|header| (header.base_offset, header.records_count)).collect::<Vec<_>>(),
        [(2, 0), (3, 1)]
    );
    assert_eq!((headers[0].producer_id, headers[0].last_sequence()), (ProducerId(1), 2));
    assert_eq!(
        filtered(&cleaned, &map, &last, 0),
        cleaned,
        "an empty batch stays as long as it is the last one"
    );
    assert_eq!(read(&filtered(&cleaned, &map, &BTreeMap::new(), 0)), [(3, (Some(1), Some(3)))]);
}

#[test]
fn what_compaction_cannot_judge_stays() {
    let flagged = |bits: u8| {
        let mut bytes = write(0, Codec::None, Some((1, 0)), &[(Some(1), Some(1))]);
        bytes[22] |= bits;
        batch::set_max_timestamp(&mut bytes, false, 10);
        bytes
    };
    for (first, why) in [
        (flagged(0b10_0000), "control, of a kind that is not known"),
        (flagged(1), "not gzip"),
        (flagged(7), "no codec"),
    ] {
        let log = [&first[..], &write(1, Codec::None, None, &[(Some(1), Some(2))])].concat();
        let map = map_of(&log, 0, 100, 10);
        assert_eq!(map.end_offset(), 2);
        assert_eq!(filtered(&log, &map, &BTreeMap::new(), 0), log, "{why}");
    }
}

/// A marker of producer 1 at this offset.
fn marker(offset: i64, commit: bool) -> BytesMut {
    let marker = Marker {
        producer: ProducerId(1),
        epoch: ProducerEpoch(0),
        coordinator_epoch: 0,
        commit,
        transaction_version: 1,
    };
    let mut bytes = marker_batch(&marker, 10).unwrap();
    batch::set_offset_and_epoch(&mut bytes, offset, weir_protocol::types::LeaderEpoch(0));
    bytes
}

#[test]
fn aborted_records_go_and_markers_when_nothing_is_left_that_they_end() {
    let transactional = |offset, sequence, value| {
        let mut bytes = write(offset, Codec::None, Some((1, sequence)), &[(Some(1), Some(value))]);
        bytes[22] |= 0b1_0000;
        batch::set_max_timestamp(&mut bytes, false, 10 + offset);
        bytes
    };
    let log = [
        &transactional(0, 0, 1)[..],
        &marker(1, true),
        &transactional(2, 1, 2),
        &marker(3, false),
        &write(4, Codec::None, None, &[(Some(2), Some(9))]),
        &marker(5, false),
    ]
    .concat();
    let outcomes = Outcomes::of(&[super::super::Aborted {
        producer: ProducerId(1),
        first_offset: 2,
        last_offset: 3,
        last_stable_offset: 4,
    }]);
    let map_of = |log: &[u8]| {
        let mut map = OffsetMap::new(10, [7; 16]);
        for batch in Batches::new(log) {
            let (header, bytes) = batch.unwrap();
            assert!(index(&mut map, (&config(), &outcomes), 0, &header, bytes));
        }
        map
    };
    let offsets = |log: &[u8]| {
        Batches::new(log).map(|batch| batch.unwrap().0.base_offset).collect::<Vec<_>>()
    };
    let none = BTreeMap::new();
    let first = filtered_with(&log, &map_of(&log), &none, 1_000, &outcomes);
    assert_eq!(
        offsets(&first),
        [0, 1, 3, 4, 5],
        "the aborted record is gone, and supersedes nothing"
    );
    let second = filtered_with(&first, &map_of(&first), &none, 1_000, &Outcomes::default());
    assert_eq!(offsets(&second), [0, 1, 3, 4, 5], "markers of nothing wait as tombstones do");
    let third =
        filtered_with(&second, &map_of(&second), &none, 1_000 + HORIZON_MS, &Outcomes::default());
    assert_eq!(offsets(&third), [0, 1, 4, 5], "the last one tells where it ends");
    let last = BTreeMap::from([(ProducerId(1), LastRecord::Marker(ProducerEpoch(0)))]);
    let kept =
        filtered_with(&second, &map_of(&second), &last, 1_000 + HORIZON_MS, &Outcomes::default());
    assert_eq!(offsets(&kept), [0, 1, 3, 4, 5], "a producer's last marker keeps its header");
    let again =
        filtered_with(&third, &map_of(&third), &none, 1_000 + HORIZON_MS, &Outcomes::default());
    assert_eq!(again, third);
}

#[test]
fn the_time_of_the_append_stays() {
    let mut bytes =
        write(0, Codec::Lz4, None, &[(Some(1), Some(1)), (Some(2), Some(2)), (Some(1), Some(3))]);
    batch::set_max_timestamp(&mut bytes, true, 77);
    let cleaned = filtered(&bytes, &map_of(&bytes, 0, 100, 10), &BTreeMap::new(), 0);
    let header = checked(&cleaned).unwrap();
    assert_eq!(
        (header.records_count, header.is_log_append_time(), header.max_timestamp),
        (2, true, 77)
    );
    assert_eq!((header.last_offset(), header.codec()), (2, Some(Codec::Lz4)));
}

/// Segments of ten offsets and 100 bytes, last appended to at these times; the last one is active.
fn segments(times: &[i64]) -> Vec<SegmentSummary> {
    let segment = |(base, &time)| SegmentSummary {
        size_bytes: 100,
        max_timestamp: time,
        ..SegmentSummary::empty(base, time)
    };
    (0..).step_by(10).zip(times).map(segment).collect()
}

#[test]
fn a_log_is_due_when_it_is_dirty_or_old() {
    let plan_of = |config: &LogConfig, cleaned, start, committed| {
        plan(&segments(&[100, 200, 300, 400, 500]), config, cleaned, start, committed, 1_000)
            .map(|plan| (plan.first_dirty_offset, plan.end_offset))
    };
    let half = config();
    let lag = LogConfig { compaction_lag_ms_min: 750, ..half.clone() };
    let old = LogConfig { compaction_lag_ms_max: 650, dirty_ratio_min: 1.0, ..half.clone() };
    for (config, cleaned, start, committed, expected, why) in [
        (&half, 0, 0, 100, Some((0, 40)), "all but the active segment"),
        (&half, 10, 0, 100, Some((10, 40)), "three quarters are dirty"),
        (&half, 20, 0, 100, None, "a half is not more than a half"),
        (&half, 40, 0, 100, None, "nothing is dirty"),
        (&half, 99, 0, 100, Some((0, 40)), "an offset behind the end is none"),
        (&half, 0, 15, 100, Some((15, 40)), "what is before the log start offset is gone"),
        (&half, 0, 0, 29, Some((0, 20)), "whole segments that are committed"),
        (&half, 0, 0, 9, None, "nothing is committed"),
        (&lag, 0, 0, 100, Some((0, 20)), "what is younger than the lag has to wait"),
        (&old, 20, 0, 100, Some((20, 40)), "its first dirty segment is old"),
        (&old, 30, 0, 100, None, "its first dirty segment is not that old"),
    ] {
        assert_eq!(plan_of(config, cleaned, start, committed), expected, "{why}");
    }
    assert_eq!(plan(&[], &half, 0, 0, 0, 0), None);
    assert_eq!(plan(&segments(&[1]), &half, 0, 0, 100, 1_000), None, "only the active segment");
}

#[test]
fn small_segments_are_put_together() {
    let sizes = |config: &LogConfig| groups(&segments(&[1; 5]), 50, config);
    for (segment_bytes, expected) in
        [(1_000, vec![5]), (499, vec![4, 1]), (200, vec![2, 2, 1]), (50, vec![1; 5])]
    {
        assert_eq!(sizes(&LogConfig { segment_bytes, ..config() }), expected);
    }
    let far = [
        SegmentSummary::empty(0, 0),
        SegmentSummary::empty(10, 0),
        SegmentSummary::empty(i64::from(i32::MAX) - 5, 0),
    ];
    assert_eq!(groups(&far, i64::from(i32::MAX) + 1, &config()), [2, 1]);
}
