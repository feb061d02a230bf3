use proptest::prelude::*;
use weir_protocol::batch::{checked, set_max_timestamp};
use weir_protocol::error::ErrorCode;
use weir_protocol::record::{BatchBuilder, Records, section};
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::super::config::Cleanup;
use super::*;

const NOW: i64 = 1_700_000_000_000;
const VERSION: i16 = 13;

fn with_codec(codec: Codec, records: &[(Option<&str>, i64)]) -> BytesMut {
    let mut builder = BatchBuilder::new(0).codec(codec);
    for ((key, timestamp), offset) in records.iter().zip(0..) {
        builder.append(offset, *timestamp, key.map(str::as_bytes), Some(b"value"), []);
    }
    builder.build(default_level(codec)).unwrap()
}

fn batch(records: &[(Option<&str>, i64)]) -> BytesMut {
    with_codec(Codec::None, records)
}

/// Changes the header at a byte and corrects the checksum.
fn patched<const N: usize>(mut batch: BytesMut, at: usize, value: [u8; N]) -> BytesMut {
    batch[at..at + N].copy_from_slice(&value);
    let header = BatchHeader::parse(&batch).unwrap();
    set_max_timestamp(&mut batch, header.is_log_append_time(), header.max_timestamp);
    batch
}

const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const MAX_TIMESTAMP: usize = 35;
const PRODUCER_ID: usize = 43;
const RECORDS_COUNT: usize = 57;

fn compacted() -> LogConfig {
    let cleanup = Cleanup { delete: false, compact: true };
    LogConfig { cleanup, ..LogConfig::default() }
}

fn headers_only() -> LogConfig {
    LogConfig { record_validation: RecordValidation::Header, ..LogConfig::default() }
}

fn always(codec: Codec) -> LogConfig {
    let level = default_level(codec);
    LogConfig { compression: Compression::Always { codec, level }, ..LogConfig::default() }
}

fn keys_and_timestamps(batch: &[u8]) -> Vec<(Option<Vec<u8>>, i64)> {
    let header = checked(batch).unwrap();
    let section = section(&header, batch, 1 << 20).unwrap();
    Records::new(&section, header.records_count)
        .zip(0..)
        .map(|(record, index)| {
            let record = record.unwrap();
            assert_eq!(record.offset_delta, index);
            (record.key.map(<[u8]>::to_vec), record.timestamp(&header))
        })
        .collect()
}

#[test]
fn a_good_batch_passes_as_it_is() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let bytes = with_codec(codec, &[(None, NOW - 5), (Some("k"), NOW)]);
        let prepared = validate(bytes.clone(), &LogConfig::default(), VERSION, NOW).unwrap();
        assert_eq!(prepared.bytes, bytes);
        assert_eq!(prepared.headers, [BatchHeader::parse(&bytes).unwrap()]);
    }
}

#[test]
fn where_only_headers_are_validated_nothing_is_decompressed_without_need() {
    // The header claims gzip falsely; the records are not read.
    let bytes = patched(batch(&[(Some("k"), NOW)]), ATTRIBUTES, 1_i16.to_be_bytes());
    assert!(validate(bytes.clone(), &headers_only(), VERSION, NOW).is_ok());
    for config in [compacted(), always(Codec::Zstd)] {
        let config = LogConfig { record_validation: RecordValidation::Header, ..config };
        assert!(matches!(
            validate(bytes.clone(), &config, VERSION, NOW),
            Err(Refusal::Undecodable(_))
        ));
    }
    let low =
        patched(batch(&[(None, NOW - 7), (None, NOW)]), MAX_TIMESTAMP, (NOW - 7).to_be_bytes());
    let prepared = validate(low, &headers_only(), VERSION, NOW).unwrap();
    assert_eq!(prepared.headers[0].max_timestamp, NOW - 7, "the header is believed");
}

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// A batch with these bytes as its records.
fn with_section(codec: Codec, count: i32, section: &[u8]) -> BytesMut {
    let mut bytes = with_codec(codec, &[(None, NOW)]);
    bytes.truncate(batch::HEADER_BYTES);
    bytes.extend_from_slice(
        &weir_protocol::compression::compress(codec, default_level(codec), section).unwrap(),
    );
    let length = i32::try_from(bytes.len() - batch::LOG_OVERHEAD).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let bytes = patched(bytes, LAST_OFFSET_DELTA, (count - 1).to_be_bytes());
    patched(bytes, RECORDS_COUNT, count.to_be_bytes())
}

#[test]
fn a_batch_holds_the_records_that_it_says_under_every_codec() {
    let code = |bytes: BytesMut, config: &LogConfig| {
        validate(bytes, config, VERSION, NOW)
            .map_err(|refusal| (refusal.code(), refusal.tells_log_start()))
            .err()
    };
    // Its length, attributes, timestamp, offset, no key, no value, no headers.
    let record = [12, 0, 0, 0, 1, 1, 0];
    let second = [12, 0, 0, 2, 1, 1, 0];
    let invalid = Some((ErrorCode::InvalidRecord, true));
    for codec in CODECS {
        for (count, section, expected, why) in [
            (1, record.to_vec(), None, "a record"),
            (2, [record, second].concat(), None, "two"),
            (1, [record, second].concat(), invalid, "more than it says"),
            (2, [&record[..], &[12, 0]].concat(), invalid, "the second is cut off"),
            (2, record.to_vec(), invalid, "fewer than it says"),
            (i32::MAX, record.to_vec(), invalid, "far fewer than it says"),
            (1, b"no record at all".to_vec(), invalid, "garbage"),
            (1, vec![12, 0, 0, 0, 9, 1, 0], invalid, "a key that is longer than the record"),
            (1, vec![12, 0, 0, 0, 1, 1, 2], invalid, "a header that is not there"),
            (1, vec![14, 0, 0, 0, 1, 1, 2, 1], invalid, "a header without a key"),
        ] {
            let bytes = with_section(codec, count, &section);
            assert_eq!(code(bytes.clone(), &LogConfig::default()), expected, "{codec:?}: {why}");
            let taken = codec != Codec::None && count < i32::MAX;
            assert!(
                expected.is_none() || !taken || code(bytes, &headers_only()).is_none(),
                "{codec:?}: nobody looks for {why}"
            );
        }
        // If it were accepted, every batch that claims the maximum of records would begin a new
        // segment.
        let many = with_section(codec, i32::MAX, &record);
        assert_eq!(code(many, &headers_only()), invalid, "{codec:?}");
    }
    for codec in &CODECS[1..] {
        let other = patched(
            with_section(Codec::None, 1, &record),
            ATTRIBUTES,
            (*codec as i16).to_be_bytes(),
        );
        assert_eq!(
            code(other, &LogConfig::default()),
            Some((ErrorCode::UnknownServerError, true)),
            "{codec:?}: not compressed at all"
        );
    }
}

#[test]
fn a_limit_on_single_records_holds_for_compressed_batches() {
    let limited = LogConfig { decompressed_message_bytes_max: 20, ..LogConfig::default() };
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let large =
            with_codec(codec, &[(Some("k"), NOW), (Some("a key of more than 20 bytes"), NOW)]);
        let refusal = validate(large, &limited, VERSION, NOW).err().map(|refusal| refusal.code());
        assert_eq!(
            refusal,
            (codec != Codec::None).then_some(ErrorCode::InvalidRecord),
            "{codec:?}"
        );
        assert!(validate(with_codec(codec, &[(Some("k"), NOW)]), &limited, VERSION, NOW).is_ok());
    }
}

#[test]
fn bad_batches_are_refused() {
    use ErrorCode::{CorruptMessage, InvalidRecord, UnknownServerError};
    let good = || batch(&[(Some("a"), NOW), (Some("b"), NOW)]);
    let two = [good(), good()].concat();
    let mut wrong_crc = good();
    wrong_crc[70] ^= 1;
    let mut other_offset = good();
    batch::set_offset_and_epoch(&mut other_offset, 5, weir_protocol::types::LeaderEpoch(0));
    let mut negative_count = good();
    negative_count[RECORDS_COUNT..][..4].copy_from_slice(&(-1_i32).to_be_bytes());
    let mut negative_delta = good();
    negative_delta[LAST_OFFSET_DELTA..][..4].copy_from_slice(&(-1_i32).to_be_bytes());
    let mut short_length = good();
    short_length[8..12].copy_from_slice(&3_i32.to_be_bytes());
    let magic = |magic| {
        let mut bytes = good();
        bytes[16] = magic;
        bytes
    };
    let with_sequence = |sequence| {
        let mut builder = BatchBuilder::new(0).producer(ProducerId(1), ProducerEpoch(0), sequence);
        builder.append(0, NOW, Option::None, Option::None, []);
        builder.build(0).unwrap()
    };
    for (bytes, code, why) in [
        (BytesMut::new(), InvalidRecord, "no batch"),
        (BytesMut::from(&two[..]), InvalidRecord, "two batches"),
        (BytesMut::from(&good()[..80]), InvalidRecord, "cut off"),
        (BytesMut::from(&good()[..20]), InvalidRecord, "cut off in the header"),
        (BytesMut::from(&[&good()[..], &[0]].concat()[..]), InvalidRecord, "a byte too many"),
        (wrong_crc, CorruptMessage, "checksum"),
        (short_length, InvalidRecord, "a length below that of a header"),
        (negative_count, InvalidRecord, "a negative count"),
        (negative_delta, InvalidRecord, "a negative offset"),
        (magic(0), InvalidRecord, "magic 0"),
        (magic(1), InvalidRecord, "magic 1"),
        (magic(3), InvalidRecord, "magic 3"),
        (other_offset, InvalidRecord, "base offset"),
        (
            patched(good(), RECORDS_COUNT, 3_i32.to_be_bytes()),
            InvalidRecord,
            "count above the offsets",
        ),
        (patched(good(), RECORDS_COUNT, 0_i32.to_be_bytes()), InvalidRecord, "no records"),
        (
            patched(good(), LAST_OFFSET_DELTA, 2_i32.to_be_bytes()),
            InvalidRecord,
            "offsets above the count",
        ),
        (patched(good(), ATTRIBUTES, 0b10_0000_i16.to_be_bytes()), InvalidRecord, "control"),
        (patched(good(), ATTRIBUTES, 0b1_0000_i16.to_be_bytes()), InvalidRecord, "transactional"),
        (patched(good(), ATTRIBUTES, 5_i16.to_be_bytes()), UnknownServerError, "codec 5"),
        (
            patched(good(), PRODUCER_ID, 9_i64.to_be_bytes()),
            InvalidRecord,
            "a producer without epoch and sequence",
        ),
        (with_sequence(-1), InvalidRecord, "a producer without a sequence"),
    ] {
        let refusal = validate(bytes, &LogConfig::default(), VERSION, NOW).unwrap_err();
        assert_eq!(refusal.code(), code, "{why}: {refusal}");
        assert!(refusal.bad_records().is_empty());
    }
}

#[test]
fn sizes_are_checked_before_and_after_recompression() {
    let bytes = with_codec(Codec::Gzip, &[(Some(&"a".repeat(2_000)), NOW)]);
    let size = bytes.len();
    let allowing = |message_bytes_max| LogConfig { message_bytes_max, ..always(Codec::Gzip) };
    assert!(validate(bytes.clone(), &allowing(size as u32), VERSION, NOW).is_ok());
    let refused = |config: LogConfig| validate(bytes.clone(), &config, VERSION, NOW).unwrap_err();
    assert_eq!(refused(allowing(size as u32 - 1)), Refusal::TooLarge { size, limit: size - 1 });
    let grown = refused(LogConfig { message_bytes_max: 1_000, ..always(Codec::None) });
    assert!(matches!(grown, Refusal::TooLarge { size: 2_000.., limit: 1_000 }), "{grown}");
    let segment = refused(LogConfig { segment_bytes: 50, ..LogConfig::default() });
    assert_eq!(segment.code(), ErrorCode::RecordListTooLarge);
}

#[test]
fn a_bomb_is_refused_where_it_must_be_held() {
    let mut builder = BatchBuilder::new(0).codec(Codec::Zstd);
    let zeros = vec![0; 4 << 20];
    for offset in 0..5 {
        builder.append(offset, NOW, Some(b"k"), Some(&zeros), []);
    }
    let bomb = builder.build(3).unwrap();
    assert!(validate(bomb.clone(), &LogConfig::default(), VERSION, NOW).is_ok());
    let refusal = validate(bomb, &compacted(), VERSION, NOW).unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::MessageTooLarge);
}

#[test]
fn zstd_needs_a_client_that_knows_it() {
    let bytes = with_codec(Codec::Zstd, &[(None, NOW)]);
    assert_eq!(
        validate(bytes.clone(), &LogConfig::default(), 6, NOW).unwrap_err(),
        Refusal::ZstdTooEarly(6)
    );
    assert!(validate(bytes, &LogConfig::default(), 7, NOW).is_ok());
}

#[test]
fn a_compacted_topic_wants_keys() {
    let bytes = batch(&[(Some("a"), NOW), (None, NOW), (Some(""), NOW), (None, i64::MAX)]);
    let refusal = validate(bytes, &compacted(), VERSION, NOW).unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::InvalidRecord);
    let indexes: Vec<_> = refusal.bad_records().iter().map(|record| record.index).collect();
    assert_eq!(indexes, [1, 3]);
    assert!(validate(batch(&[(Some(""), NOW)]), &compacted(), VERSION, NOW).is_ok());
    let many = batch(&[(None, NOW); 1000]);
    let refusal = validate(many, &compacted(), VERSION, NOW).unwrap_err();
    assert!(
        refusal.bad_records().len() < 1000 && refusal.to_string().contains("1000 record errors")
    );
}

#[test]
fn timestamps_out_of_bounds_are_named() {
    let after = LogConfig { timestamp_after_ms_max: 100, ..LogConfig::default() };
    let before = LogConfig { timestamp_before_ms_max: 100, ..after.clone() };
    for (config, timestamps, bad) in [
        (&after, &[NOW, NOW + 100, NOW - i64::MAX, 0][..], &[][..]),
        (&after, &[NOW + 101, NOW, i64::MAX], &[0, 2]),
        // Timestamps whose age overflows in Java.
        (&after, &[i64::MIN, NOW, NOW - i64::MAX - 2], &[0, 2]),
        (&before, &[NOW - 100, NOW + 100, -1], &[]),
        (&before, &[NOW - 101, NOW, 0, -2], &[0, 2, 3]),
    ] {
        let records: Vec<_> = timestamps.iter().map(|timestamp| (None, *timestamp)).collect();
        for codec in [Codec::None, Codec::Lz4] {
            let result = validate(with_codec(codec, &records), config, VERSION, NOW);
            if bad.is_empty() {
                assert!(result.is_ok(), "{timestamps:?}");
                continue;
            }
            let refusal = result.unwrap_err();
            assert_eq!(refusal.code(), ErrorCode::InvalidTimestamp, "{timestamps:?}");
            let indexes: Vec<_> = refusal.bad_records().iter().map(|record| record.index).collect();
            assert_eq!(indexes, bad, "{timestamps:?}");
        }
    }
}

#[test]
fn the_largest_timestamp_is_made_true() {
    for codec in CODECS {
        for claim in [-1, 0, NOW - 9, NOW - 8, NOW - 7, NOW, NOW + 1_000, i64::MAX] {
            let bytes = patched(
                with_codec(codec, &[(None, NOW - 9), (None, NOW - 7), (None, NOW - 8)]),
                MAX_TIMESTAMP,
                i64::to_be_bytes(claim),
            );
            let prepared = validate(bytes, &LogConfig::default(), VERSION, NOW).unwrap();
            assert_eq!(
                checked(&prepared.bytes).unwrap().max_timestamp,
                NOW - 7,
                "{codec:?} says {claim}"
            );
        }
        let without = patched(with_codec(codec, &[(None, -1)]), MAX_TIMESTAMP, NOW.to_be_bytes());
        let prepared = validate(without, &LogConfig::default(), VERSION, NOW).unwrap();
        assert_eq!(
            checked(&prepared.bytes).unwrap().max_timestamp,
            -1,
            "{codec:?}: no record has one"
        );
    }
}

#[test]
fn a_wrong_timestamp_decides_the_code_wherever_it_is() {
    let bytes = batch(&[(None, NOW), (Some("a"), NOW), (Some("b"), i64::MAX)]);
    let refusal = validate(bytes, &compacted(), VERSION, NOW).unwrap_err();
    assert_eq!((refusal.code(), refusal.bad_records().len()), (ErrorCode::InvalidTimestamp, 2));
}

#[test]
fn the_append_time_replaces_what_the_client_says() {
    let config = LogConfig { timestamp_type: TimestampType::LogAppendTime, ..LogConfig::default() };
    let prepared = validate(batch(&[(None, 5)]), &config, VERSION, NOW).unwrap();
    let header = checked(&prepared.bytes).unwrap();
    assert!(header.is_log_append_time());
    assert_eq!((header.max_timestamp, prepared.headers[0]), (NOW, header));

    let claims = patched(batch(&[(None, NOW)]), ATTRIBUTES, 0b1000_i16.to_be_bytes());
    assert_eq!(
        validate(claims.clone(), &config, VERSION, NOW).unwrap_err().code(),
        ErrorCode::InvalidTimestamp
    );
    let cleared = validate(claims, &LogConfig::default(), VERSION, NOW).unwrap();
    assert!(!checked(&cleared.bytes).unwrap().is_log_append_time());
}

#[test]
fn a_topic_with_its_own_codec_recompresses() {
    let records = [(Some("a"), NOW), (None, NOW - 3)];
    let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    for from in codecs {
        for to in codecs {
            let mut builder =
                BatchBuilder::new(0).codec(from).producer(ProducerId(3), ProducerEpoch(1), 10);
            for ((key, timestamp), offset) in records.iter().zip(0..) {
                builder.append(offset, *timestamp, key.map(str::as_bytes), None, []);
            }
            let bytes = builder.build(default_level(from)).unwrap();
            let prepared = validate(bytes, &always(to), VERSION, NOW).unwrap();
            let header = checked(&prepared.bytes).unwrap();
            assert_eq!(
                (header.codec(), header.producer_id, header.last_sequence()),
                (Some(to), ProducerId(3), 11)
            );
            let expected: Vec<_> = records
                .iter()
                .map(|(key, timestamp)| (key.map(|key| key.as_bytes().to_vec()), *timestamp))
                .collect();
            assert_eq!(keys_and_timestamps(&prepared.bytes), expected, "{from:?} to {to:?}");
        }
    }
}

#[test]
fn offsets_of_old_clients_are_put_right_where_they_are_seen() {
    let mut builder = BatchBuilder::new(0);
    for key in ["a", "b"] {
        builder.append(1, NOW, Some(key.as_bytes()), None, []);
    }
    for config in [LogConfig::default(), compacted()] {
        let prepared = validate(builder.clone().build(0).unwrap(), &config, VERSION, NOW).unwrap();
        assert_eq!(keys_and_timestamps(&prepared.bytes).len(), 2);
    }
}

proptest! {
    #[test]
    fn what_is_damaged_never_panics(
        codec in 0_u8..5, flips in proptest::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..4), cut in any::<prop::sample::Index>(), whole: bool, fix_crc: bool,
    ) {
        let mut bytes = with_codec(Codec::from_id(codec).unwrap(), &[(Some("a"), NOW), (Some("b"), -1), (Some("c"), NOW)]);
        for (at, flip) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        if fix_crc && let Ok(header) = BatchHeader::parse(&bytes) {
            set_max_timestamp(&mut bytes, header.is_log_append_time(), header.max_timestamp);
        }
        for config in [LogConfig::default(), compacted(), always(Codec::Gzip), always(Codec::None)] {
            if let Ok(prepared) = validate(bytes.clone(), &config, VERSION, NOW) {
                let header = checked(&prepared.bytes).unwrap();
                prop_assert_eq!(prepared.headers, vec![header]);
                prop_assert_eq!(header.size_bytes(), prepared.bytes.len());
                prop_assert_eq!(header.base_offset, 0);
                let largest = keys_and_timestamps(&prepared.bytes).iter().map(|(_, timestamp)| *timestamp).max();
                prop_assert_eq!(Some(header.max_timestamp), largest.map(|largest| largest.max(-1)), "the header tells the truth about the records");
            }
        }
    }
}

/// A request with many slow batches must not begin each of them again.
#[test]
fn what_takes_long_is_given_back_as_it_was_and_what_comes_after_it_too() {
    let of_value = |codec, length: usize| {
        let mut builder = BatchBuilder::new(0).codec(codec);
        builder.append(0, NOW, None, Some(&vec![b'v'; length]), []);
        builder.build(default_level(codec)).unwrap()
    };
    let config = LogConfig::default();
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let (small, large) = (of_value(codec, 1_000), of_value(codec, 100_000));
        let mut effort = Effort(50_000);
        let judge = |bytes: &BytesMut, effort: &mut Effort| {
            validate_within(bytes.clone(), &config, VERSION, NOW, effort)
        };
        judge(&small, &mut effort).unwrap();
        for bytes in [&large, &small] {
            let Err(NotReady::TakesLong(back)) = judge(bytes, &mut effort) else {
                panic!("{codec:?}")
            };
            assert_eq!(back, bytes);
        }
        validate(large, &config, VERSION, NOW).unwrap();
    }
    // An uncompressed batch counts by its records, whose number is known.
    let mut builder = BatchBuilder::new(0);
    for offset in 0..100 {
        builder.append(offset, NOW, None, None, []);
    }
    let records = builder.build(0).unwrap();
    for (effort, takes_long) in
        [(100 * EFFORT_OF_RECORD - 1, true), (100 * EFFORT_OF_RECORD, false)]
    {
        let judged = validate_within(records.clone(), &config, VERSION, NOW, &mut Effort(effort));
        assert_eq!(matches!(judged, Err(NotReady::TakesLong(_))), takes_long);
    }
}
