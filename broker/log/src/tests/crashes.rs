//! The log against a `Vec`, with a crash at every operation of every run.

use proptest::prelude::*;
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::super::faulty::Fault;
use super::super::producers::{Marker, marker_batch};
use super::*;

/// The kind of a batch.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    /// In a producer's transaction.
    Data(i64),
    /// The marker of the transaction: true commits.
    End(i64, bool),
}

/// The kind, the number of records and the bytes of each value. A marker ignores the numbers.
type Wanted = (Kind, i32, usize);

/// A step of a run.
#[derive(Clone, Debug)]
enum Step {
    /// Batches in one append.
    Append(Vec<Wanted>),
    /// The same, as a follower gets them from its leader.
    Follow(Vec<Wanted>),
    /// Cuts off this many records.
    Truncate(i64),
    /// Empties the log and continues this far after or before its end.
    StartAt(i64),
    /// A new leader epoch.
    Elect,
    Flush,
    Roll,
    Checkpoint,
    /// Raises the log start offset by this many records.
    Delete(i64),
    /// A clean stop and start.
    Restart,
    /// The process is killed and started again.
    Kill,
}

/// A run, printed on one line.
#[derive(Clone)]
struct Steps(Vec<Step>);

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        3 => Just(Kind::Plain),
        2 => (1..3_i64).prop_map(Kind::Data),
        2 => (1..3_i64, any::<bool>()).prop_map(|(producer, commits)| Kind::End(producer, commits)),
    ];
    let batches = prop::collection::vec((kind, 1..4, 0..400_usize), 1..4);
    prop_oneof![
        6 => batches.clone().prop_map(Step::Append),
        4 => batches.prop_map(Step::Follow),
        2 => (1..20_i64).prop_map(Step::Truncate),
        1 => (-20..20_i64).prop_map(Step::StartAt),
        1 => Just(Step::Elect),
        3 => Just(Step::Flush),
        1 => Just(Step::Roll),
        2 => Just(Step::Checkpoint),
        1 => (1..30_i64).prop_map(Step::Delete),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
    ]
}

/// The expected content of the log.
#[derive(Default)]
struct Model {
    /// Base offset, next offset and bytes of each batch that an append tried to write.
    batches: Vec<(i64, i64, Vec<u8>)>,
    epoch: i32,
    /// The log start offset.
    start: i64,
    /// Every append before this offset was confirmed.
    end: i64,
    /// Everything before it was reported as flushed.
    flushed: i64,
    /// The log was emptied, and no append since is known. It may be empty at any offset.
    anew: bool,
    /// Records were deleted, or the log was emptied.
    partial: bool,
    /// Whether to check the transactions after each step, or only when they are loaded anyway.
    asks: bool,
}

impl Model {
    /// Records the batches as they should be in the log.
    fn try_append(&mut self, batches: &[Wanted]) -> BytesMut {
        self.try_both(batches).0
    }

    /// The same as a leader gets them from a client, and as a follower gets them from its leader.
    fn try_both(&mut self, batches: &[Wanted]) -> (BytesMut, BytesMut) {
        let (mut all, mut stamped) = (BytesMut::new(), BytesMut::new());
        let mut next = self.end;
        for wanted in batches {
            let count = self.batches.len();
            let mut batch = written(*wanted, timestamp_of(count), count as u8);
            all.extend_from_slice(&batch);
            batch::set_offset_and_epoch(&mut batch, next, LeaderEpoch(self.epoch));
            stamped.extend_from_slice(&batch);
            let base = next;
            next = BatchHeader::parse(&batch).unwrap().next_offset();
            self.batches.push((base, next, batch.to_vec()));
        }
        (all, stamped)
    }

    /// The log's transactions match its batches.
    fn check_told(&self, fs: &Faulty, opened: &mut Opened) {
        if !self.asks && !opened.has_been_asked() {
            return;
        }
        // This may trigger a fault too: an unreadable snapshot is removed, and an index is
        // rewritten.
        let readable = opened.writer.load_transactions(1_000).is_ok() && opened.batches().is_ok();
        if !readable || fs.crashed() {
            return assert!(fs.faulted(), "{:?}", opened.dir.failure());
        }
        let end = opened.log.log_end_offset();
        let history = self.batches.iter().filter(|(_, next, _)| *next <= end);
        opened.tells_what_its_batches_say(history.map(|(.., bytes)| &bytes[..]), !self.partial);
    }

    /// Truncates the log. Once this has begun, flushed records after the cut may be gone; once it
    /// is done, they must be gone.
    fn truncate(&mut self, opened: &mut Opened, offset: i64) -> bool {
        let whole = self
            .batches
            .iter()
            .find(|(_, next, _)| *next > offset)
            .map_or(offset, |(base, ..)| *base);
        self.flushed = self.flushed.min(offset.min(whole));
        // A cut at or before the log start offset empties the log.
        self.anew |= offset <= self.start;
        self.partial |= self.anew;
        let Ok(end) = opened.writer.truncate_to(offset) else { return false };
        assert!(
            end == offset.min(whole) || (end == offset && self.anew),
            "cut at {offset}, and the log ends at {end}"
        );
        self.batches.retain(|(_, next, _)| *next <= end);
        (self.start, self.end) = (self.start.min(end), end);
        true
    }

    fn start_at(&mut self, opened: &mut Opened, offset: i64) -> bool {
        (self.flushed, self.anew, self.partial) = (0, true, true);
        if opened.writer.truncate_fully_and_start_at(offset).is_err() {
            return false;
        }
        self.batches.clear();
        (self.start, self.end) = (offset, offset);
        true
    }

    /// Checks the log after a restart. It must be a prefix of the tried batches that contains the
    /// flushed ones, all readable and found by offset, time and epoch.
    fn check(&mut self, opened: &Opened) -> Result<(), ReadError> {
        let log = &opened.log;
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        assert!(end >= self.flushed, "flushed up to {}, and the log ends at {end}", self.flushed);
        assert!(
            start <= self.start.max(end),
            "the log start offset was {}, and is {start}",
            self.start
        );
        self.batches.retain(|(base, ..)| *base < end);
        // A log that lost all its records, none of them flushed, keeps its start offset. It may be
        // in the middle of a batch if records of that batch were deleted.
        if start == end && (self.anew || end <= self.start) {
            self.batches.retain(|(_, next, _)| *next <= end);
        } else {
            assert_eq!(
                end,
                self.batches.last().map_or(0, |(_, next, _)| *next),
                "the log ends with a batch"
            );
            self.anew = false;
        }
        let expected: Vec<_> = self.batches.iter().filter(|(_, next, _)| *next > start).collect();
        let found = opened.batches()?;
        let offsets = (
            found.iter().map(|(base, _)| *base).collect::<Vec<_>>(),
            expected.iter().map(|(base, ..)| *base).collect::<Vec<_>>(),
        );
        assert_eq!(offsets.0, offsets.1, "from {start} on");
        assert!(
            found.iter().map(|(_, bytes)| bytes).eq(expected.iter().map(|(.., bytes)| bytes)),
            "other bytes"
        );
        for (base, next, bytes) in &expected {
            for offset in (*base).max(start)..*next {
                let slice = log.read(offset, end, 1, true)?.unwrap();
                assert_eq!(
                    (slice.base_offset, slice.length),
                    (*base, bytes.len()),
                    "offset {offset}"
                );
            }
            let header = BatchHeader::parse(bytes).unwrap();
            assert_eq!(
                log.epoch_of((*base).max(start)),
                Some(header.leader_epoch),
                "the epoch at {base}"
            );
            let first = expected.iter().find(|(base, _, bytes)| {
                *base >= start && timestamp_in(bytes) >= header.max_timestamp
            });
            // Other tests cover a batch that spans the log start offset.
            if expected.first().is_some_and(|(base, ..)| *base >= start) {
                let found = log.offset_for_timestamp(header.max_timestamp, end)?;
                assert_eq!(
                    found.map(|found| found.offset),
                    first.map(|(base, ..)| *base),
                    "the first at {} or later",
                    header.max_timestamp
                );
            }
        }
        (self.start, self.end, self.flushed) = (start, end, end);
        Ok(())
    }
}

fn written((kind, records, value_bytes): Wanted, timestamp: i64, salt: u8) -> BytesMut {
    let marker = |producer, commit| Marker {
        producer: ProducerId(producer),
        epoch: ProducerEpoch(0),
        coordinator_epoch: 0,
        commit,
        transaction_version: 1,
    };
    match kind {
        Kind::Plain => batch(records, value_bytes, timestamp, salt),
        Kind::Data(producer) => {
            let builder = BatchBuilder::new(0).producer(ProducerId(producer), ProducerEpoch(0), -1);
            fill(builder.transactional(), records, value_bytes, timestamp, salt)
        }
        Kind::End(producer, commit) => marker_batch(&marker(producer, commit), timestamp).unwrap(),
    }
}

/// Timestamps that mostly rise.
fn timestamp_of(batch: usize) -> i64 {
    1_000 + 10 * batch as i64 - if batch.is_multiple_of(5) { 35 } else { 0 }
}

fn timestamp_in(batch: &[u8]) -> i64 {
    BatchHeader::parse(batch).unwrap().max_timestamp
}

/// Runs the steps until one fails, which only an injected fault may cause.
fn run(fs: &mut Faulty, model: &mut Model, steps: &[Step]) {
    let Some(mut opened) = open(fs, model) else { return };
    // From here on the controller knows of all that a power failure has cost.
    if opened.dir.set_broker_epoch(1).is_err() {
        return assert!(fs.faulted());
    }
    for step in steps {
        let went_well = match step {
            Step::Append(batches) => {
                let bytes = model.try_append(batches);
                let appended = opened.append_from(Origin::Coordinator, bytes, model.epoch);
                model.end = opened.log.log_end_offset();
                appended.is_ok()
            }
            Step::Follow(batches) => {
                let bytes = model.try_both(batches).1;
                let appended =
                    opened.writer.append_as_follower(&bytes, LeaderEpoch(model.epoch), 1_000);
                model.end = opened.log.log_end_offset();
                appended.is_ok()
            }
            Step::Truncate(records) => {
                let offset = (model.end - records).max(0);
                model.truncate(&mut opened, offset)
            }
            // Nothing on the disk could keep it.
            Step::StartAt(_) if opened.log.segments.load().is_empty() => true,
            Step::StartAt(distance) => {
                let offset = (model.end + distance).max(0);
                model.start_at(&mut opened, offset)
            }
            Step::Elect => {
                model.epoch += 1;
                true
            }
            Step::Flush => {
                opened.flush();
                !opened.log.is_offline()
            }
            Step::Roll => opened.writer.roll(2_000).is_ok(),
            Step::Checkpoint => opened.dir.checkpoint().is_ok(),
            Step::Delete(records) => {
                model.partial = true;
                model.start = (model.start + records).min(model.end);
                opened.log.advance_high_watermark(model.end);
                opened.writer.advance_log_start_offset(model.start).is_ok()
            }
            Step::Restart => opened.close().is_ok(),
            Step::Kill => true,
        };
        opened.settle();
        model.flushed = model.flushed.max(opened.log.flushed_offset());
        assert!(went_well || fs.faulted(), "{step:?} failed: {:?}", opened.dir.failure());
        if !went_well || fs.crashed() {
            return;
        }
        assert!(model.flushed <= model.end);
        model.check_told(fs, &mut opened);
        if matches!(step, Step::Restart | Step::Kill) {
            drop(opened);
            if matches!(step, Step::Kill) {
                *fs = fs.after_kill();
            }
            let end = model.end;
            match open(fs, model) {
                Some(again) => opened = again,
                None => return,
            }
            let left = opened.dir.left();
            assert!(left.whole || fs.faulted(), "{left:?}");
            assert_eq!(opened.log.log_end_offset(), end, "nothing is lost while the machine runs");
        }
    }
}

/// Opens the log and checks it. Returns `None` if the machine stopped meanwhile.
fn open(fs: &Faulty, model: &mut Model) -> Option<Opened> {
    let opened = Opened::new(fs).map_err(|error| error.to_string());
    let checked = opened.and_then(|opened| {
        model.check(&opened).map(|()| opened).map_err(|error| error.to_string())
    });
    assert!(checked.is_ok() || fs.faulted(), "{checked:?}");
    let mut opened = checked.ok()?;
    model.check_told(fs, &mut opened);
    Some(opened)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 16, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_anywhere_loses_nothing_that_was_flushed(steps in prop::collection::vec(step(), 1..12).prop_map(Steps), seed: u64, asks: bool) {
        for crash_at in 0.. {
            match std::panic::catch_unwind(|| fail_and_go_on(&steps.0, (crash_at, Fault::Crash), seed, asks)) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => prop_assert!(false, "with a crash at operation {crash_at}"),
            }
        }
    }

    #[test]
    fn a_disk_that_fails_anywhere_loses_nothing_that_was_flushed(steps in prop::collection::vec(step(), 1..12).prop_map(Steps), seed: u64, full: bool, asks: bool) {
        let fault = if full { Fault::NoSpace } else { Fault::Io };
        for at in 0.. {
            match std::panic::catch_unwind(|| fail_and_go_on(&steps.0, (at, fault), seed, asks)) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => prop_assert!(false, "with {fault:?} at operation {at}"),
            }
        }
    }
}

/// The property above found this case: of the files that were being removed, the crash brought back
/// the begin of a transaction and not its end.
#[test]
fn what_a_crash_brings_back_from_before_the_log_start_says_nothing_of_transactions() {
    let steps = [
        Step::Append(vec![(Kind::Plain, 1, 292), (Kind::Data(1), 3, 212)]),
        Step::Follow(vec![
            (Kind::Plain, 3, 189),
            (Kind::Plain, 1, 190),
            (Kind::End(1, true), 1, 0),
        ]),
        Step::Append(vec![(Kind::End(1, false), 1, 0)]),
        Step::Append(vec![(Kind::Plain, 2, 241), (Kind::Plain, 3, 312)]),
        Step::Delete(10),
    ];
    for at in 0.. {
        if !fail_and_go_on(&steps, (at, Fault::Io), 9_731_723_082_223_083_082, false) {
            break;
        }
    }
}

/// Runs the steps with a fault at an operation and a crash at the end, and continues with the
/// result. Returns false when the steps end before the fault.
fn fail_and_go_on(steps: &[Step], (at, fault): (u64, Fault), seed: u64, asks: bool) -> bool {
    let mut fs = Faulty::default();
    let mut model = Model { asks, ..Model::default() };
    fs.fail_at(at, fault);
    run(&mut fs, &mut model, steps);
    if !fs.faulted() {
        return false;
    }
    // The result must be a usable log, even if its recovery is interrupted.
    let left = fs.after_crash(seed ^ at);
    left.fail_at(at % 7, Fault::Crash);
    let _ = Opened::new(&left);
    let mut left = left.after_crash(seed);
    model.asks |= seed.is_multiple_of(2);
    let goes_on = [
        Step::Append(vec![(Kind::Plain, 2, 100), (Kind::End(1, false), 1, 0)]),
        Step::Elect,
        Step::Follow(vec![
            (Kind::Data(1), 1, 2_000),
            (Kind::End(2, false), 1, 0),
            (Kind::Plain, 1, 300),
        ]),
        Step::Restart,
    ];
    run(&mut left, &mut model, &goes_on);
    assert!(!left.crashed() && model.end > 0);
    true
}

/// The first property found this case: a crash in the middle of a truncation brought back a segment
/// and a producer snapshot, but not the `.txnindex` file between them.
#[test]
fn a_cut_midway_leaves_no_snapshot_that_vouches_for_a_file_that_is_gone() {
    let steps = [
        Step::Append(vec![(Kind::Plain, 1, 0)]),
        Step::Roll,
        Step::Append(vec![(Kind::Data(1), 1, 153)]),
        Step::Follow(vec![(Kind::Plain, 1, 10), (Kind::End(1, false), 1, 0)]),
        Step::Restart,
        Step::Truncate(3),
    ];
    for at in 0.. {
        if !fail_and_go_on(&steps, (at, Fault::Crash), 7_899_825_428_448_673_242, false) {
            break;
        }
    }
}
