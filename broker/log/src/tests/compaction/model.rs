//! The expected content of a compacted log, from the full history, and the view of a
//! `read_committed` consumer.

use std::collections::{BTreeMap, BTreeSet};

use weir_protocol::batch::{Batches, checked};
use weir_protocol::record::{Records, section};
use weir_protocol::types::ProducerId;

use super::*;

/// An appended record.
#[derive(Clone, Debug)]
struct Written {
    offset: i64,
    key: u8,
    epoch: i32,
    has_value: bool,
    producer: Option<u8>,
    /// It is the first record of its batch.
    first: bool,
    /// The record that superseded it was compacted with it and then cut off, so it may be gone.
    may_be_gone: bool,
}

/// The outcome of a record's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    Aborted,
    Open,
}

/// The full history of a log.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    records: Vec<Written>,
    /// Producer, offset, leader epoch, and whether it commits.
    markers: Vec<(u8, i64, i32, bool)>,
    /// Everything before it may be compacted.
    compacted: i64,
}

/// The value of a record, unique even among records at the same offset.
pub(super) fn value_of(offset: i64, epoch: i32) -> Vec<u8> {
    format!("{offset} {epoch}").into_bytes()
}

impl Model {
    pub(super) fn appended(&mut self, first: i64, epoch: i32, producer: Option<u8>, pairs: &Pairs) {
        self.records.extend(pairs.iter().zip(first..).map(|(&(key, has_value), offset)| Written {
            offset,
            key,
            epoch,
            has_value,
            producer,
            first: offset == first,
            may_be_gone: false,
        }));
    }

    pub(super) fn ended(&mut self, producer: u8, offset: i64, epoch: i32, commit: bool) {
        self.markers.push((producer, offset, epoch, commit));
    }

    /// Everything before `end` may have been compacted.
    pub(super) fn compacted(&mut self, end: i64) {
        self.compacted = self.compacted.max(end);
    }

    /// The log ends at `end` from now on. A remaining record may be gone if the cut removed the one
    /// that superseded it.
    pub(super) fn cut(&mut self, end: i64) {
        let newest: BTreeSet<i64> =
            self.newest(0, i64::MAX).into_values().map(|record| record.offset).collect();
        let gone = |record: &Written| {
            record.offset < self.compacted
                && self.fate(record) != Fate::Open
                && !newest.contains(&record.offset)
        };
        let gone: BTreeSet<i64> =
            self.records.iter().filter(|record| gone(record)).map(|record| record.offset).collect();
        for record in &mut self.records {
            record.may_be_gone |= gone.contains(&record.offset);
        }
        self.records.retain(|record| record.offset < end);
        self.markers.retain(|(_, offset, ..)| *offset < end);
        self.compacted = self.compacted.min(end);
    }

    /// Every record is in the log as it was written.
    pub(super) fn whole(&mut self) {
        self.compacted = 0;
        self.records.iter_mut().for_each(|record| record.may_be_gone = false);
    }

    /// Every batch of the history from the one that contains `start` on, with its epoch.
    pub(super) fn batches(&self, start: i64) -> Vec<(i32, BytesMut)> {
        let mut batches = BTreeMap::new();
        for (index, record) in self.records.iter().enumerate().filter(|(_, record)| record.first) {
            let rest = self.records.get(index + 1..).unwrap_or_default();
            let others = rest
                .iter()
                .zip(record.offset + 1..)
                .take_while(|(next, offset)| !next.first && next.offset == *offset);
            let pairs: Pairs = std::iter::once(record)
                .chain(others.map(|(next, _)| next))
                .map(|it| (it.key, it.has_value))
                .collect();
            batches.insert(
                record.offset,
                (
                    record.epoch,
                    pairs.len(),
                    batch_of(record.offset, record.epoch, record.producer, &pairs),
                ),
            );
        }
        for &(producer, offset, epoch, commit) in &self.markers {
            batches.insert(
                offset,
                (epoch, 1, Prepared::marker(marker_of(producer, commit), 1_000).unwrap().bytes),
            );
        }
        let with_offset = |(offset, (epoch, records, mut bytes)): (i64, (i32, usize, BytesMut))| {
            batch::set_offset_and_epoch(&mut bytes, offset, LeaderEpoch(epoch));
            (offset + records as i64 > start).then_some((epoch, bytes))
        };
        batches.into_iter().filter_map(with_offset).collect()
    }

    fn fate(&self, record: &Written) -> Fate {
        let Some(producer) = record.producer else {
            return Fate::Committed;
        };
        let mut ends = self
            .markers
            .iter()
            .filter(|(of, offset, ..)| *of == producer && *offset > record.offset);
        match ends.next() {
            Some((.., true)) => Fate::Committed,
            Some((.., false)) => Fate::Aborted,
            None => Fate::Open,
        }
    }

    /// The newest committed record of each key in a part of the log.
    fn newest(&self, from: i64, end: i64) -> BTreeMap<u8, &Written> {
        let inside = self.records.iter().filter(|record| (from..end).contains(&record.offset));
        inside
            .filter(|record| self.fate(record) == Fate::Committed)
            .map(|record| (record.key, record))
            .collect()
    }

    /// The records that a consumer may see as the newest of a key. Usually this is the newest
    /// committed record, or none if it is a tombstone. If that record may be gone, an older one may
    /// be seen.
    fn may_be_seen(&self, key: u8, from: i64, end: i64) -> Vec<Option<i64>> {
        let mut may_be = Vec::new();
        let inside =
            self.records.iter().rev().filter(|record| (from..end).contains(&record.offset));
        for record in
            inside.filter(|record| record.key == key && self.fate(record) == Fate::Committed)
        {
            may_be.push(Some(record.offset));
            if !record.has_value {
                may_be.push(None);
            }
            if !record.may_be_gone {
                return may_be;
            }
        }
        may_be.push(None);
        may_be
    }

    /// Compares everything that a consumer can see with the history.
    pub(super) fn check(&self, opened: &mut Opened) {
        opened.writer.load_transactions(1_000).unwrap();
        opened.log.advance_high_watermark(opened.log.log_end_offset());
        let (start, stable) =
            (opened.log.log_start_offset(), opened.log.last_stable_offset().unwrap());
        let open = |record: &&Written| {
            (start..stable).contains(&record.offset)
                && self.fate(record) == Fate::Open
                && !record.may_be_gone
        };
        assert!(
            !self.records.iter().any(|record| open(&record)),
            "open below the last stable offset {stable}"
        );
        let seen = view(&opened.log, start, stable);
        for &(offset, key, ref value) in &seen {
            let record = self
                .records
                .iter()
                .find(|record| record.offset == offset)
                .expect("it was appended");
            assert_eq!(self.fate(record), Fate::Committed, "what is seen at {offset}");
            let expected = record.has_value.then(|| value_of(offset, record.epoch));
            assert_eq!((key, value), (record.key, &expected), "what is seen at {offset}");
        }
        let found: BTreeMap<u8, i64> =
            seen.iter().map(|(offset, key, _)| (*key, *offset)).collect();
        for key in 0..4 {
            let found = found.get(&key).copied();
            let may_be = self.may_be_seen(key, start, stable);
            assert!(
                may_be.contains(&found),
                "of key {key}, {found:?} is seen from {start} to {stable}, and not one of {may_be:?}"
            );
        }
        for from in (start..stable).step_by(3) {
            let expected: Vec<_> =
                seen.iter().filter(|(offset, ..)| *offset >= from).cloned().collect();
            assert_eq!(view(&opened.log, from, stable), expected, "from {from} on");
        }
    }
}

/// The view of a `read_committed` consumer from an offset on, as in Kafka's Java client: offset,
/// key and value.
fn view(log: &LogReader, from: i64, stable: i64) -> Vec<(i64, u8, Option<Vec<u8>>)> {
    let (mut next, mut seen) = (from, Vec::new());
    while let Some(slice) = log.read(next, stable, 1 << 20, true).unwrap() {
        let mut bytes = vec![0; slice.length];
        slice.file.read_exact_at(&mut bytes, slice.position).unwrap();
        let end = log.end_of(&slice).unwrap();
        let mut aborted = log.aborted_transactions(next, stable).unwrap();
        aborted.retain(|it| it.first_offset < end);
        aborted.sort_by_key(|it| it.first_offset);
        let mut aborted = aborted.into_iter().peekable();
        let mut skipped: BTreeSet<ProducerId> = BTreeSet::new();
        for batch in Batches::new(&bytes) {
            let (header, batch) = batch.unwrap();
            assert_eq!(checked(batch), Ok(header));
            while let Some(it) = aborted.next_if(|it| it.first_offset <= header.last_offset()) {
                skipped.insert(it.producer);
            }
            if header.is_control() {
                if Marker::read(&header, batch).is_some_and(|marker| !marker.commit) {
                    skipped.remove(&header.producer_id);
                }
                continue;
            }
            if header.is_transactional() && skipped.contains(&header.producer_id) {
                continue;
            }
            let section = section(&header, batch, 1 << 20).unwrap();
            for record in Records::new(&section, header.records_count).map(Result::unwrap) {
                let offset = record.offset(&header);
                if offset >= next {
                    seen.push((offset, record.key.unwrap()[0], record.value.map(<[u8]>::to_vec)));
                }
            }
        }
        next = end;
    }
    seen
}
