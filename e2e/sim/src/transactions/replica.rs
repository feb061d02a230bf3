//! A replica of a data partition: the real log, and the state of producers and transactions that
//! follows from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_broker::sim_api::{Guard, Known, Marker, Partition, Producer, Record};
use weir_protocol::batch;
use weir_protocol::error::ErrorCode;
use weir_protocol::record::BatchBuilder;
use weir_protocol::types::LeaderEpoch;

use super::disk::Memory;
use super::message::Value;

/// The entry at one offset.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A transaction coordinator's record.
    Record(Record),
    /// An offset that was written in a transaction.
    Offset(Producer, Record),
    /// A client's record, with its sequence number.
    Data(Producer, i32, Value),
    /// The end of a transaction.
    Marker(Marker),
}

/// The state of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fact {
    id: i64,
    epoch: i16,
    last_sequence: i32,
    coordinator_epoch: i32,
    /// The first offset of its open transaction, -1 if there is none.
    first: i64,
}

/// The state that follows from a log, computed batch by batch in the simplest way.
#[derive(Debug, Default)]
struct Truth {
    producers: BTreeMap<i64, Fact>,
    /// First offset and marker of each ended transaction, and whether it was aborted.
    ended: Vec<(Producer, i64, i64, bool)>,
    /// How many of them had ended when the log was last read again. A snapshot does not say which
    /// markers were uncommitted then. No outcome depends on that: the coordinator decides and
    /// commits an end before its marker is written.
    reread: usize,
    end: i64,
}

impl Truth {
    fn takes(&mut self, entry: &Entry) {
        let offset = self.end;
        self.end += 1;
        let (producer, marker) = match entry {
            Entry::Data(producer, ..) => (*producer, None),
            Entry::Marker(marker) => ((marker.producer, marker.epoch), Some(marker)),
            Entry::Record(_) | Entry::Offset(..) => return,
        };
        let id = producer.0.0;
        let fact = self.producers.entry(id).or_insert(Fact {
            id,
            epoch: -1,
            last_sequence: -1,
            coordinator_epoch: -1,
            first: -1,
        });
        if fact.epoch != producer.1.0 {
            (fact.epoch, fact.last_sequence) = (producer.1.0, -1);
        }
        match (marker, entry) {
            (Some(marker), _) => {
                if fact.first >= 0 {
                    self.ended.push((producer, fact.first, offset, !marker.commit));
                }
                (fact.first, fact.coordinator_epoch) = (-1, marker.coordinator_epoch);
            }
            (None, Entry::Data(_, sequence, _)) => {
                fact.last_sequence = *sequence;
                if fact.first < 0 {
                    fact.first = offset;
                }
            }
            (None, _) => {}
        }
    }

    /// The last stable offset: a lower and an upper bound.
    fn stable(&self, high_watermark: i64) -> (i64, i64) {
        let open = self.producers.values().map(|fact| fact.first).filter(|first| *first >= 0);
        let open = open.fold(high_watermark, i64::min);
        let uncommitted = |ended: &[(Producer, i64, i64, bool)]| {
            let uncommitted = ended.iter().filter(|(_, _, marker, _)| *marker >= high_watermark);
            uncommitted.map(|(_, first, ..)| *first).fold(open, i64::min)
        };
        (uncommitted(&self.ended), uncommitted(&self.ended[self.reread..]))
    }

    /// Where the known state differs from the expected one.
    fn differs(&self, known: &Known) -> Option<String> {
        let facts: Vec<Fact> = self.producers.values().copied().collect();
        let known_facts: Vec<Fact> = known
            .producers
            .iter()
            .map(|it| Fact {
                id: it.id.0,
                epoch: it.epoch.0,
                last_sequence: it.last_sequence,
                coordinator_epoch: it.coordinator_epoch,
                first: it.transaction_first_offset,
            })
            .collect();
        if facts != known_facts {
            return Some(format!("its producers are {facts:?}; {known_facts:?} are known"));
        }
        let aborted = self.ended.iter().filter(|(.., aborted)| *aborted);
        let aborted: Vec<(i64, i64, i64)> =
            aborted.map(|((id, _), first, marker, _)| (id.0, *first, *marker)).collect();
        let known_aborted: Vec<(i64, i64, i64)> = known
            .aborted
            .iter()
            .map(|it| (it.producer.0, it.first_offset, it.last_offset))
            .collect();
        if aborted != known_aborted {
            return Some(format!("aborted are {aborted:?}; {known_aborted:?} are known"));
        }
        let (least, most) = self.stable(known.high_watermark);
        let is_right = (least..=most).contains(&known.stable);
        (!is_right).then(|| {
            format!(
                "of {} committed are {least} to {most} stable; {} are known",
                known.high_watermark, known.stable
            )
        })
    }
}

/// A replica.
#[derive(Debug)]
pub struct Replica {
    core: Partition,
    truth: Truth,
    /// The entries of its log.
    pub log: Vec<Entry>,
}

impl Replica {
    /// An empty replica.
    ///
    /// # Errors
    /// When its log cannot be opened.
    pub fn new() -> Result<Self, String> {
        Ok(Self {
            core: Partition::open(Arc::new(Memory::default())).map_err(failed)?,
            truth: Truth::default(),
            log: Vec::new(),
        })
    }

    fn takes(&mut self, entry: Entry) {
        self.truth.takes(&entry);
        self.log.push(entry);
    }

    /// As [`Partition::ask_to_verify`].
    ///
    /// # Errors
    /// The error for the client.
    pub fn ask_to_verify(
        &mut self,
        producer: Producer,
        sequence: i32,
        raises_epoch: bool,
        now: u64,
    ) -> Result<Option<Guard>, ErrorCode> {
        self.core.ask_to_verify(producer, sequence, raises_epoch, now)
    }

    /// Appends a client's record as the leader of an epoch; returns whether it is new.
    ///
    /// # Errors
    /// The error for the client.
    pub fn write(
        &mut self,
        entry: Entry,
        guard: Option<Guard>,
        epoch: i32,
        now: u64,
    ) -> Result<bool, ErrorCode> {
        let Entry::Data(producer, sequence, _) = entry else {
            return Err(ErrorCode::UnknownServerError);
        };
        let offset = self.core.write(producer, sequence, guard, LeaderEpoch(epoch), now)?;
        let is_new = offset == self.log.len() as i64;
        if is_new {
            self.takes(entry);
        }
        Ok(is_new)
    }

    /// Appends a marker as the leader of an epoch.
    ///
    /// # Errors
    /// When the marker is too late.
    pub fn end_transaction(
        &mut self,
        marker: Marker,
        epoch: i32,
        now: u64,
    ) -> Result<(), ErrorCode> {
        self.core.end_transaction(marker, LeaderEpoch(epoch), now)?;
        self.takes(Entry::Marker(marker));
        Ok(())
    }

    /// Appends a marker even if it is late.
    pub fn force(&mut self, marker: Marker, epoch: i32, now: u64) {
        let types = if marker.commit { 1 } else { 0 };
        let batch = control(marker, types, self.log.len(), epoch);
        if self.core.follow(&batch, LeaderEpoch(epoch), now).is_ok() {
            self.takes(Entry::Marker(marker));
        }
    }

    /// Truncates what the leader does not have and appends at most `limit` batches from it, in one
    /// answer. Returns whether that changed anything. With `hides`, all markers but the last arrive
    /// as other control batches.
    ///
    /// # Errors
    /// When that fails.
    pub fn follow(
        &mut self,
        leader: &Self,
        limit: usize,
        epoch: i32,
        hides: bool,
        now: u64,
    ) -> Result<bool, String> {
        let common = self.common(leader);
        let is_cut = common < self.log.len();
        if is_cut {
            let end = self.core.truncate(common as i64).map_err(failed)?;
            if end != common as i64 {
                return Err(format!("cut at {common}, it ends at {end}"));
            }
            self.log.truncate(common);
            self.truth = Truth::default();
            self.log.iter().for_each(|entry| self.truth.takes(entry));
            self.truth.reread = self.truth.ended.len();
        }
        let bound = leader.log.len().min(common + limit);
        if bound == common {
            return Ok(is_cut);
        }
        let mut bytes = leader.core.read(common as i64, bound as i64).map_err(failed)?;
        if hides {
            bytes = leader.hidden(common, bound)?;
        }
        let end = self.core.follow(&bytes, LeaderEpoch(epoch), now).map_err(failed)?;
        if end != bound as i64 {
            return Err(format!("sent {common} to {bound}, it ends at {end}"));
        }
        leader.log[common..bound].iter().for_each(|entry| self.takes(entry.clone()));
        Ok(true)
    }

    /// The offset up to which two logs are equal, by the leader epochs of their batches.
    fn common(&self, other: &Self) -> usize {
        let epoch = |replica: &Self, at: usize| replica.core.epoch_of(at as i64);
        let least = self.log.len().min(other.log.len());
        (0..=least)
            .rev()
            .find(|end| *end == 0 || epoch(self, end - 1) == epoch(other, end - 1))
            .unwrap_or(0)
    }

    /// The batches of `from..bound`, with other control batches in place of all markers except one
    /// at the end.
    fn hidden(&self, from: usize, bound: usize) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for at in from..bound {
            match &self.log[at] {
                Entry::Marker(marker) if at + 1 < bound => {
                    let epoch = self.core.epoch_of(at as i64).map_or(0, |epoch| epoch.0);
                    bytes.extend(control(*marker, 9, at, epoch));
                }
                _ => bytes.extend(self.core.read(at as i64, at as i64 + 1).map_err(failed)?),
            }
        }
        Ok(bytes)
    }

    /// Sets the high watermark that this replica knows.
    pub fn commit(&mut self, high_watermark: usize) {
        self.core.commit(high_watermark as i64);
    }

    /// Its process ends, in order or not, and a new one opens its log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn restart(mut self, orderly: bool) -> Result<Self, String> {
        self.core = self.core.open_again(orderly).map_err(failed)?;
        self.truth.reread = self.truth.ended.len();
        Ok(self)
    }

    /// Its state, after checking that it matches its log.
    ///
    /// # Errors
    /// When it does not match.
    pub fn known(&mut self, now: u64) -> Result<Known, String> {
        let known = self.core.known(now).map_err(failed)?;
        let (end, expected) = (self.core.end(), self.log.len() as i64);
        if end != expected {
            return Err(format!("it ends at {end} and not at {expected}"));
        }
        self.truth.differs(&known).map_or(Ok(known), Err)
    }
}

/// A control batch of this type in place of a marker.
fn control(marker: Marker, kind: u8, offset: usize, epoch: i32) -> Vec<u8> {
    let value = [&[0, 0][..], &marker.coordinator_epoch.to_be_bytes()].concat();
    let mut builder =
        BatchBuilder::new(0).producer(marker.producer, marker.epoch, -1).transactional().control();
    builder.append(0, 0, Some(&[0, 0, 0, kind]), Some(&value), []);
    let Ok(mut bytes) = builder.build(0) else { return Vec::new() };
    batch::set_offset_and_epoch(&mut bytes, offset as i64, LeaderEpoch(epoch));
    bytes.to_vec()
}

fn failed(error: impl std::fmt::Display) -> String {
    error.to_string()
}
