use bytes::BytesMut;
use proptest::prelude::*;
use weir_protocol::batch::{checked, set_max_timestamp};
use weir_protocol::record::BatchBuilder;

use super::*;

/// A batch of `count` records at `offset`.
fn sent(producer: i64, epoch: i16, sequence: i32, count: i32, offset: i64) -> BatchHeader {
    let mut builder =
        BatchBuilder::new(offset).producer(ProducerId(producer), ProducerEpoch(epoch), sequence);
    builder.append(offset, 1_000 + offset, None, None, []);
    let header = checked(&builder.build(0).unwrap()).unwrap();
    BatchHeader { last_offset_delta: count - 1, records_count: count, ..header }
}

fn one(producer: i64, epoch: i16, sequence: i32, offset: i64) -> BatchHeader {
    sent(producer, epoch, sequence, 1, offset)
}

fn code(producers: &Producers, header: BatchHeader) -> Option<ErrorCode> {
    producers.admit(&[header], Standing::NotAsked).err().map(|error| error.code())
}

fn after(batches: &[BatchHeader]) -> Producers {
    let mut producers = Producers::default();
    for header in batches {
        producers.appended(header, 0);
    }
    producers
}

#[test]
fn batches_follow_each_other() {
    use ErrorCode::{InvalidProducerEpoch as Fenced, OutOfOrderSequenceNumber as OutOfOrder};
    let producers = after(&[sent(1, 3, 0, 10, 0), sent(1, 3, 10, 5, 10)]);
    for (header, expected, why) in [
        (one(1, 3, 15, 99), None, "the next one"),
        (one(1, 3, 16, 99), Some(OutOfOrder), "a gap"),
        (one(1, 3, 14, 99), Some(OutOfOrder), "a part of what was appended"),
        (one(1, 3, 0, 99), Some(OutOfOrder), "it begins as one that was longer"),
        (one(1, 2, 15, 99), Some(Fenced), "an older epoch"),
        (one(1, 4, 0, 99), None, "a new epoch begins at 0"),
        (one(1, 4, 15, 99), Some(OutOfOrder), "a new epoch does not go on"),
        (one(2, 7, 123, 99), None, "an unknown producer begins anywhere"),
        (one(-1, -1, -1, 99), None, "no producer"),
    ] {
        assert_eq!(code(&producers, header), expected, "{why}");
        assert_eq!(producers.admit(&[header], Standing::NotAsked).ok().flatten(), None, "{why}");
    }
}

#[test]
fn five_batches_are_known_again() {
    let batches: Vec<_> = (0..7).map(|n| sent(1, 0, n * 3, 3, i64::from(n) * 3)).collect();
    let producers = after(&batches);
    for (index, header) in batches.iter().enumerate() {
        if index < 2 {
            assert_eq!(code(&producers, *header), Some(ErrorCode::OutOfOrderSequenceNumber));
            continue;
        }
        let again = BatchHeader { base_offset: 99, ..*header };
        let duplicate = producers.admit(&[again], Standing::NotAsked).unwrap().unwrap();
        assert_eq!(
            (duplicate.first_offset, duplicate.last_offset, duplicate.max_timestamp),
            (header.base_offset, header.last_offset(), header.max_timestamp)
        );
    }
    // The same sequence numbers in another epoch are another batch.
    assert_eq!(code(&producers, one(1, 1, 18, 99)), Some(ErrorCode::OutOfOrderSequenceNumber));
}

#[test]
fn sequence_numbers_begin_again() {
    let last = sent(1, 0, i32::MAX - 1, 4, 50);
    assert_eq!(last.last_sequence(), 1);
    let producers = after(&[last]);
    assert_eq!(
        producers
            .admit(&[last], Standing::NotAsked)
            .unwrap()
            .map(|duplicate| duplicate.first_offset),
        Some(50)
    );
    assert_eq!(code(&producers, one(1, 0, 2, 99)), None);
    let at_the_end = after(&[one(1, 0, i32::MAX, 50)]);
    assert_eq!(code(&at_the_end, one(1, 0, 0, 99)), None);
    assert_eq!(code(&at_the_end, one(1, 0, 1, 99)), Some(ErrorCode::OutOfOrderSequenceNumber));
}

#[test]
fn silent_producers_are_forgotten() {
    let mut producers = Producers::default();
    producers.appended(&one(1, 0, 0, 0), 1_000);
    producers.appended(&one(2, 0, 0, 1), 1_500);
    producers.expire(1_999, 1_000);
    assert_eq!(producers.len(), 2);
    producers.expire(2_000, 1_000);
    assert_eq!(producers.last_records(), BTreeMap::from([(ProducerId(2), LastRecord::Data(1))]));
}

#[test]
fn too_many_producers_push_out_the_oldest() {
    let mut producers = Producers::default();
    let header = one(0, 0, 0, 0);
    for id in 0..=PRODUCERS_MAX as i64 {
        producers
            .appended(&BatchHeader { producer_id: ProducerId(id), base_offset: id, ..header }, 0);
    }
    assert_eq!(producers.len(), PRODUCERS_KEPT);
    assert!(
        producers.last_records().keys().all(|id| id.0 as usize > PRODUCERS_MAX - PRODUCERS_KEPT)
    );
}

/// A control batch as the coordinator writes it. The key holds version and type, the value version
/// and epoch.
fn marker(producer: i64, epoch: i16, offset: i64, coordinator_epoch: i32) -> BytesMut {
    let mut builder =
        BatchBuilder::new(offset).producer(ProducerId(producer), ProducerEpoch(epoch), -1);
    let value = [&[0, 0][..], &coordinator_epoch.to_be_bytes()].concat();
    builder.append(offset, 5, Some(&[0, 0, 0, 1]), Some(&value), []);
    let mut bytes = builder.build(0).unwrap();
    bytes[22] |= 0b11_0000;
    set_max_timestamp(&mut bytes, false, 5);
    bytes
}

#[test]
fn a_foreign_log_with_transactions_is_replayed() {
    let mut producers = Producers::default();
    let data = one(1, 2, 0, 7);
    let transactional = BatchHeader { attributes: 0b1_0000, ..data };
    producers.replay(&transactional, &[], 0);
    assert_eq!(producers.entries[&1].transaction_first_offset, 7);
    producers.expire(i64::MAX, 0);
    assert_eq!(producers.len(), 1, "an open transaction keeps its producer");

    let end = marker(1, 3, 8, 42);
    producers.replay(&checked(&end).unwrap(), &end, 0);
    let entry = &producers.entries[&1];
    assert_eq!(
        (entry.transaction_first_offset, entry.coordinator_epoch, entry.epoch),
        (-1, 42, ProducerEpoch(3))
    );
    assert_eq!(
        producers.last_records(),
        BTreeMap::from([(ProducerId(1), LastRecord::Marker(ProducerEpoch(3)))])
    );
    assert_eq!(code(&producers, one(1, 3, 0, 9)), None);
    let ended = vec![Ended { first_offset: 3, marker_offset: 8 }];
    let found = Producers::from_snapshot(&producers.to_snapshot(&ended), 0).unwrap();
    assert_eq!(found, Snapshot { producers, ended: Some(ended) });
}

/// A snapshot of a version, with a valid checksum.
fn snapshot(version: i16, entries: &[u8]) -> Vec<u8> {
    [&version.to_be_bytes()[..], &crc32c::crc32c(entries).to_be_bytes(), entries].concat()
}

#[test]
fn a_snapshot_has_kafkas_bytes_and_the_undecided_transactions() {
    let mut producers = after(&[sent(0x0102, 3, 4, 2, 100)]);
    producers.entries.get_mut(&0x0102).unwrap().coordinator_epoch = 9;
    let of_kafka = [
        &[0, 0, 0, 1][..],
        &0x0102_i64.to_be_bytes(),
        &3_i16.to_be_bytes(),
        &5_i32.to_be_bytes(),
        &101_i64.to_be_bytes(),
        &1_i32.to_be_bytes(),
        &1_100_i64.to_be_bytes(),
        &9_i32.to_be_bytes(),
        &(-1_i64).to_be_bytes(),
    ]
    .concat();
    let ended = [Ended { first_offset: 7, marker_offset: 99 }];
    let ours = [&of_kafka[..], &[0, 0, 0, 1], &7_i64.to_be_bytes(), &99_i64.to_be_bytes()].concat();
    assert_eq!(producers.to_snapshot(&ended), snapshot(2, &ours));
    let found = Producers::from_snapshot(&snapshot(1, &of_kafka), 0).unwrap();
    assert_eq!(found.ended, None, "Kafka's says nothing of them");
    assert_eq!(found.producers.last_records(), producers.last_records());
}

#[test]
fn damaged_snapshots_are_refused() {
    let ended = [Ended { first_offset: 0, marker_offset: 2 }];
    let whole = after(&[one(1, 0, 0, 0), one(2, 0, 0, 1)]).to_snapshot(&ended);
    for end in 0..whole.len() {
        assert!(Producers::from_snapshot(&whole[..end], 0).is_err());
        let mut flipped = whole.clone();
        flipped[end] ^= 4;
        assert!(Producers::from_snapshot(&flipped, 0).is_err());
    }
    // A valid checksum over wrong counts, and over too much.
    let entries = &whole[6..];
    let counts = [0..4, entries.len() - 20..entries.len() - 16];
    for (count, wrong) in counts.into_iter().flat_map(|at| [(at.clone(), i32::MAX), (at, -1)]) {
        let mut lying = entries.to_vec();
        lying[count].copy_from_slice(&wrong.to_be_bytes());
        let refused = Producers::from_snapshot(&snapshot(2, &lying), 0);
        assert_eq!(refused, Err(SnapshotError::Length(whole.len())));
    }
    let refused = Producers::from_snapshot(&snapshot(2, &[entries, &[0]].concat()), 0);
    assert_eq!(refused, Err(SnapshotError::Length(whole.len() + 1)));
    assert_eq!(Producers::from_snapshot(&snapshot(3, entries), 0), Err(SnapshotError::Version(3)));
    let none = Producers::from_snapshot(&Producers::default().to_snapshot(&[]), 0).unwrap();
    assert!(none.producers.is_empty());
}

/// The history of a producer, without bounds: every batch of its newest epoch.
#[derive(Default)]
struct Model(BTreeMap<i64, (i16, Vec<BatchHeader>)>);

impl Model {
    fn admit(&self, header: &BatchHeader) -> Result<Option<i64>, ErrorCode> {
        let Some((epoch, batches)) = self.0.get(&header.producer_id.0) else {
            return Ok(None);
        };
        let recent = &batches[batches.len().saturating_sub(5)..];
        let same = |batch: &&BatchHeader| {
            (batch.base_sequence, batch.last_sequence())
                == (header.base_sequence, header.last_sequence())
        };
        let last = batches.last().map_or(-1, BatchHeader::last_sequence);
        match header.producer_epoch.0 - epoch {
            ..0 => Err(ErrorCode::InvalidProducerEpoch),
            0 if recent.iter().any(|batch| same(&batch)) => {
                Ok(recent.iter().find(same).map(|batch| batch.base_offset))
            }
            0 if header.base_sequence == last.wrapping_add(1) & i32::MAX => Ok(None),
            1.. if header.base_sequence == 0 => Ok(None),
            _ => Err(ErrorCode::OutOfOrderSequenceNumber),
        }
    }

    fn append(&mut self, header: BatchHeader) {
        let (epoch, batches) = self.0.entry(header.producer_id.0).or_default();
        if *epoch != header.producer_epoch.0 {
            (*epoch, *batches) = (header.producer_epoch.0, Vec::new());
        }
        batches.push(header);
    }
}

#[derive(Clone, Debug)]
struct Step {
    producer: i64,
    epoch_bump: i16,
    /// The batch to send: the next one (0), an earlier one (negative), or one after a gap.
    ahead: i32,
    count: i32,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0..3_i64,
        prop_oneof![8 => Just(0), 1 => Just(1), 1 => Just(-1)],
        prop_oneof![6 => Just(0), 3 => -9..0, 1 => 1..3],
        1..4,
    );
    proptest::collection::vec(
        step.prop_map(|(producer, epoch_bump, ahead, count)| Step {
            producer,
            epoch_bump,
            ahead,
            count,
        }),
        1..80,
    )
}

proptest! {
    #[test]
    fn it_decides_as_the_model_does(steps in steps(), start in prop_oneof![Just(0), Just(i32::MAX - 12)], reload: bool) {
        let (mut producers, mut model) = (Producers::default(), Model::default());
        let mut offset = 0;
        let mut sends: Vec<BatchHeader> = Vec::new();
        for step in steps {
            let of_producer: Vec<_> = sends.iter().filter(|sent| sent.producer_id.0 == step.producer).collect();
            let header = match (of_producer.last(), step.ahead) {
                (None, _) => sent(step.producer, 5, start, step.count, offset),
                (Some(_), ahead @ ..0) => {
                    let back = usize::try_from(-ahead).unwrap();
                    let again = of_producer.get(of_producer.len().saturating_sub(back)).unwrap();
                    BatchHeader { base_offset: offset, ..**again }
                }
                (Some(last), ahead) => {
                    let next = if step.epoch_bump == 0 { last.last_sequence().wrapping_add(1 + ahead) & i32::MAX } else { ahead };
                    sent(step.producer, last.producer_epoch.0 + step.epoch_bump, next, step.count, offset)
                }
            };
            let expected = model.admit(&header);
            let actual = producers.admit(&[header], Standing::NotAsked);
            prop_assert_eq!(actual.map(|duplicate| duplicate.map(|duplicate| duplicate.first_offset)).map_err(|error| error.code()), expected);
            if expected == Ok(None) {
                producers.appended(&header, 0);
                model.append(header);
                sends.push(header);
                offset = header.next_offset();
            }
        }
        if reload {
            // A snapshot has only the last batch; decisions that need no more stay the same.
            let loaded = Producers::from_snapshot(&producers.to_snapshot(&[]), 0).unwrap().producers;
            prop_assert_eq!(loaded.last_records(), producers.last_records());
            for (id, (epoch, batches)) in &model.0 {
                let last = batches.last().unwrap();
                let again = loaded.admit(&[*last], Standing::NotAsked).unwrap();
                prop_assert_eq!(again.map(|duplicate| duplicate.first_offset), Some(last.base_offset));
                let next = sent(*id, *epoch, last.last_sequence().wrapping_add(1) & i32::MAX, 1, offset);
                prop_assert_eq!(loaded.admit(&[next], Standing::NotAsked), Ok(None));
            }
        }
    }
}
