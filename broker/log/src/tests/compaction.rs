//! Compaction against a model, while the log is appended to, trimmed at its start, truncated at its
//! end, copied, stopped, killed and crashed.
//!
//! The model keeps every record that was ever appended and the outcome of its transaction. After
//! each step the model gives the newest committed record of every key in the log. A
//! `read_committed` consumer must find it from any offset. It must find nothing older in its place,
//! and no record of an aborted or open transaction.

mod model;

use proptest::prelude::*;
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::super::cleaner::{Cleaned, OffsetMap, assess, clean};
use super::super::config::Cleanup;
use super::super::faulty::Fault;
use super::super::producers::Marker;
use super::*;
use model::Model;

const RETENTION_MS: i64 = 50;

/// A key, and whether the record has a value or is a tombstone.
type Pairs = Vec<(u8, bool)>;

/// A step of a run.
#[derive(Clone, Debug)]
enum Step {
    Append(Pairs),
    /// In a producer's transaction.
    Write(u8, Pairs),
    /// Ends a producer's transaction: true commits, false aborts.
    End(u8, bool),
    /// Enough batches for a compaction of several groups of segments at once. Those of a producer
    /// are transactions, committed or aborted.
    Fill(Vec<(Option<u8>, Pairs, bool)>),
    Roll,
    /// Flushes and writes the catalogue, so that stable records may be compacted.
    Checkpoint,
    /// Raises the log start offset by this many records.
    Delete(i64),
    /// Cuts off this many records, committed ones too, as an unclean election does. Another leader
    /// continues.
    Truncate(i64),
    /// Empties the log and fetches it again unchanged.
    FetchAnew,
    /// Reads and rewrites, with a map of this many keys. Nothing changes yet.
    Clean(usize),
    /// Swaps in the rewritten segments.
    Swap,
    /// Cleans, and deletes this many records before the swap.
    CleanWhileDeleted(i64),
    /// The same, with a crash at that disk operation.
    SwapAndCrash(u64, u64),
    /// Enough time for tombstones to be due.
    Later,
    Restart,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let pairs = || prop::collection::vec((0..4_u8, prop::bool::weighted(0.7)), 1..4);
    prop_oneof![
        8 => pairs().prop_map(Step::Append),
        8 => (0..3_u8, pairs()).prop_map(|(producer, pairs)| Step::Write(producer, pairs)),
        5 => (0..3_u8, any::<bool>()).prop_map(|(producer, commit)| Step::End(producer, commit)),
        2 => prop::collection::vec((prop::option::of(0..3_u8), pairs(), any::<bool>()), 12..24).prop_map(Step::Fill),
        4 => Just(Step::Roll),
        5 => Just(Step::Checkpoint),
        3 => (1..8_i64).prop_map(Step::Delete),
        1 => (1..12_i64).prop_map(Step::Truncate),
        1 => Just(Step::FetchAnew),
        6 => prop_oneof![1 => 1..4_usize, 4 => Just(100)].prop_map(Step::Clean),
        5 => Just(Step::Swap),
        3 => (1..24_i64).prop_map(Step::CleanWhileDeleted),
        2 => (0..24_u64, any::<u64>()).prop_map(|(at, seed)| Step::SwapAndCrash(at, seed)),
        3 => Just(Step::Later),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
    ]
}

fn compacted() -> LogConfig {
    LogConfig {
        segment_bytes: 250,
        index_interval_bytes: 100,
        delete_retention_ms: RETENTION_MS,
        dirty_ratio_min: 0.0,
        cleanup: Cleanup { delete: false, compact: true },
        ..LogConfig::default()
    }
}

fn batch_of(first: i64, epoch: i32, producer: Option<u8>, pairs: &Pairs) -> BytesMut {
    let mut builder = BatchBuilder::new(0);
    if let Some(id) = producer {
        builder = builder.producer(ProducerId(i64::from(id)), ProducerEpoch(0), -1).transactional();
    }
    for (&(key, has_value), offset) in pairs.iter().zip(0..) {
        let value = model::value_of(first + offset, epoch);
        builder.append(offset, 1_000, Some(&[key]), has_value.then_some(&value), []);
    }
    builder.build(0).unwrap()
}

fn marker_of(producer: u8, commit: bool) -> Marker {
    Marker {
        producer: ProducerId(i64::from(producer)),
        epoch: ProducerEpoch(0),
        coordinator_epoch: 0,
        commit,
        transaction_version: 1,
    }
}

/// Compaction merges several segments.
fn cleaning() -> LogConfig {
    LogConfig { segment_bytes: 900, ..compacted() }
}

/// A log, its model, and a cleaning in progress.
struct World {
    fs: Faulty,
    opened: Option<Opened>,
    model: Model,
    cleaned: Option<Cleaned>,
    now_ms: i64,
    epoch: i32,
}

impl World {
    fn new() -> Self {
        let fs = Faulty::default();
        Self {
            opened: Some(Opened::with(&fs, compacted()).unwrap()),
            fs,
            model: Model::default(),
            cleaned: None,
            now_ms: 1_000,
            epoch: 1,
        }
    }

    fn opened(&mut self) -> &mut Opened {
        self.opened.as_mut().unwrap()
    }

    fn put(&mut self, prepared: Prepared) -> bool {
        let (now_ms, epoch) = (self.now_ms, LeaderEpoch(self.epoch));
        let opened = self.opened();
        let appended = opened.writer.append_as_leader(&mut [prepared], epoch, now_ms).remove(0);
        opened.settle();
        opened.log.advance_high_watermark(opened.log.log_end_offset());
        match appended {
            Ok(_) => true,
            Err(AppendError::Producer(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn append(&mut self, producer: Option<u8>, pairs: &Pairs) {
        let first = self.opened().log.log_end_offset();
        let prepared = Prepared {
            origin: Origin::Coordinator,
            ..prepared(batch_of(first, self.epoch, producer, pairs))
        };
        if self.put(prepared) {
            self.model.appended(first, self.epoch, producer, pairs);
        }
    }

    fn end(&mut self, producer: u8, commit: bool) {
        let offset = self.opened().log.log_end_offset();
        if self.put(Prepared::marker(marker_of(producer, commit), 1_000).unwrap()) {
            self.model.ended(producer, offset, self.epoch, commit);
        }
    }

    fn delete(&mut self, records: i64) {
        let to = self.opened().log.log_start_offset() + records;
        self.opened().writer.advance_log_start_offset(to).unwrap();
    }

    fn truncate(&mut self, records: i64) {
        let opened = self.opened();
        let offset = (opened.log.log_end_offset() - records).max(0);
        let end = opened.writer.truncate_to(offset).unwrap();
        self.model.cut(end);
        self.epoch += 1;
    }

    /// Fetches the log like a replica whose disk was lost, while the others have every record as
    /// written.
    fn fetch_anew(&mut self) {
        let start = self.opened().log.log_start_offset();
        if self.opened().log.segments.load().is_empty() {
            return;
        }
        let batches: Vec<_> = self.model.batches(start);
        self.follow(start, batches.iter().map(|(_, batch)| &batch[..]));
        self.model.whole();
    }

    /// Empties the log, and takes these batches from a leader whose log begins at `start`.
    fn follow<'b>(&mut self, start: i64, batches: impl Iterator<Item = &'b [u8]> + Clone) {
        let first =
            batches.clone().next().map(|first| BatchHeader::parse(first).unwrap().base_offset);
        let opened = self.opened();
        opened.writer.truncate_fully_and_start_at(first.unwrap_or(start).min(start)).unwrap();
        for batch in batches {
            opened.writer.append_as_follower(batch, LeaderEpoch(i32::MAX), 1_000).unwrap();
        }
        opened.settle();
        opened.log.advance_high_watermark(opened.log.log_end_offset());
        opened.writer.advance_log_start_offset(start).unwrap();
    }

    fn clean(&mut self, keys_max: usize) {
        // One cleaning at a time, because they write to the same files.
        self.cleaned = None;
        let now_ms = self.now_ms;
        let opened = self.opened.as_mut().unwrap();
        if assess(&opened.log, &cleaning(), now_ms).is_none() {
            return;
        }
        opened.writer.load_transactions(now_ms).unwrap();
        opened.log.advance_high_watermark(opened.log.log_end_offset());
        let Some(plan) = assess(&opened.log, &cleaning(), now_ms) else {
            return;
        };
        let last_records = opened.writer.last_records(now_ms).unwrap();
        let mut map = OffsetMap::new(keys_max, [7; 16]);
        self.cleaned =
            clean(&opened.log, &cleaning(), &plan, &mut map, &last_records, now_ms).unwrap();
    }

    fn swap(&mut self) {
        let Some(cleaned) = self.cleaned.take() else {
            return;
        };
        let end_offset = cleaned.end_offset;
        match cleaned.swap_in(&mut self.opened().writer) {
            Ok(true) => self.model.compacted(end_offset),
            Ok(false) => {}
            Err(error) => {
                assert!(self.fs.crashed(), "{error}");
                // The swap may have happened or not.
                self.model.compacted(end_offset);
            }
        }
    }

    fn swap_and_crash(&mut self, at: u64, seed: u64) {
        let flushed = self.opened().log.flushed_offset();
        self.fs.fail_at(self.fs.changes() + at, Fault::Crash);
        self.swap();
        self.opened = None;
        self.fs = self.fs.after_crash(seed);
        self.open();
        let end = self.opened().log.log_end_offset();
        assert!(end >= flushed, "flushed up to {flushed}, and the log ends at {end}");
        self.model.cut(end);
        self.epoch += 1;
    }

    fn open(&mut self) {
        let opened = Opened::with(&self.fs, compacted()).unwrap();
        opened.log.advance_high_watermark(opened.log.log_end_offset());
        self.opened = Some(opened);
        self.cleaned = None;
    }

    fn restart(&mut self, clean_stop: bool) {
        if clean_stop {
            self.opened().close().unwrap();
        }
        self.opened = None;
        if !clean_stop {
            self.fs = self.fs.after_kill();
        }
        self.open();
    }

    fn step(&mut self, step: &Step) {
        self.now_ms += 1;
        match step {
            Step::Append(pairs) => self.append(None, pairs),
            Step::Write(producer, pairs) => self.append(Some(*producer), pairs),
            Step::End(producer, commit) => self.end(*producer, *commit),
            Step::Fill(batches) => {
                for (producer, pairs, commit) in batches {
                    self.append(*producer, pairs);
                    if let Some(producer) = producer {
                        self.end(*producer, *commit);
                    }
                }
            }
            Step::Roll => self.opened().writer.roll(2_000).unwrap(),
            Step::Checkpoint => self.opened().dir.checkpoint().unwrap(),
            Step::Delete(records) => self.delete(*records),
            Step::Truncate(records) => self.truncate(*records),
            Step::FetchAnew => self.fetch_anew(),
            Step::Clean(keys_max) => self.clean(*keys_max),
            Step::Swap => self.swap(),
            Step::CleanWhileDeleted(records) => {
                self.opened().dir.checkpoint().unwrap();
                self.clean(100);
                self.delete(*records);
                self.swap();
            }
            Step::SwapAndCrash(at, seed) => self.swap_and_crash(*at, *seed),
            Step::Later => self.now_ms += RETENTION_MS,
            Step::Restart => self.restart(true),
            Step::Kill => self.restart(false),
        }
        let model = &self.model;
        model.check(self.opened.as_mut().unwrap());
    }

    /// A new follower has the same state, before and after it compacts its copy.
    fn copy(&mut self) {
        let (start, batches) =
            (self.opened().log.log_start_offset(), self.opened().batches().unwrap());
        let mut copy = Self {
            model: self.model.clone(),
            now_ms: self.now_ms,
            epoch: self.epoch,
            ..Self::new()
        };
        copy.follow(start, batches.iter().map(|(_, batch)| &batch[..]));
        for step in
            [Step::Roll, Step::Checkpoint, Step::Clean(100), Step::Swap, Step::Later, Step::Kill]
        {
            copy.step(&step);
        }
    }
}

fn run(steps: &[Step]) {
    let mut world = World::new();
    for step in steps {
        world.step(step);
    }
    for step in
        [Step::Roll, Step::Checkpoint, Step::Clean(100), Step::Swap, Step::Later, Step::Kill]
    {
        world.step(&step);
    }
    world.copy();
}

/// A run, printed on one line.
#[derive(Clone)]
struct Steps(Vec<Step>);

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// A record that was compacted away because its transaction was aborted stays away. An unclean
/// election may cut off the abort, and a commit may follow; an older record is then visible.
#[test]
fn what_was_compacted_as_aborted_stays_away_whatever_its_transaction_becomes() {
    let one = |producer| (producer, vec![(0, false)], false);
    let fill = std::iter::repeat_n(one(None), 10).chain([one(Some(1)), one(Some(0))]).collect();
    run(&[
        Step::Fill(fill),
        Step::Restart,
        Step::Clean(1),
        Step::SwapAndCrash(2, 0),
        Step::Truncate(3),
        Step::End(1, true),
    ]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, max_shrink_iters: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_newest_committed_record_of_every_key_is_there_whatever_happens_meanwhile(steps in prop::collection::vec(step(), 1..60).prop_map(Steps)) {
        run(&steps.0);
    }
}
