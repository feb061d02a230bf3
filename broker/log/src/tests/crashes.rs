//! The log against a `Vec`, with a crash at every operation of every run.

mod model;

use model::Model;
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
    /// Commits all but this many records.
    Commit(i64),
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
        2 => (0..10_i64).prop_map(Step::Commit),
        1 => (1..30_i64).prop_map(Step::Delete),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
    ]
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
    model.has_epoch = true;
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
            Step::Commit(but) => {
                model.committed = model.committed.clamp(model.end - but, model.end);
                opened.log.advance_high_watermark(model.committed);
                true
            }
            Step::Delete(records) => {
                model.partial = true;
                model.start = (model.start + records).min(model.end);
                model.committed = model.end;
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

/// The number of operations of the steps, each of which may fail.
fn operations(steps: &[Step]) -> usize {
    let (mut fs, mut model) = (Faulty::default(), Model::default());
    run(&mut fs, &mut model, steps);
    usize::try_from(fs.changes()).unwrap()
}

/// Many runs with a fault at one operation each find more than few with one at every operation:
/// most faults of the log need certain steps and a certain moment.
fn check(
    steps: &[Step],
    at: prop::sample::Index,
    (fault, then): (Fault, Then),
    seed: u64,
    asks: bool,
) -> Result<(), TestCaseError> {
    let at = at.index(operations(steps)) as u64;
    let failed = std::panic::catch_unwind(|| fail_then(steps, (at, fault), then, seed, asks));
    prop_assert!(failed.is_ok(), "with {fault:?}, then {then:?}, at operation {at}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2 * ProptestConfig::default().cases, max_shrink_iters: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_anywhere_loses_nothing_that_was_flushed(steps in prop::collection::vec(step(), 1..12).prop_map(Steps), at: prop::sample::Index, seed: u64, asks: bool) {
        check(&steps.0, at, (Fault::Crash, Then::Crash), seed, asks)?;
    }

    #[test]
    fn a_process_that_dies_anywhere_loses_nothing_that_was_written(steps in prop::collection::vec(step(), 1..12).prop_map(Steps), at: prop::sample::Index, seed: u64, asks: bool) {
        check(&steps.0, at, (Fault::Crash, Then::Death), seed, asks)?;
    }

    #[test]
    fn a_disk_that_fails_anywhere_loses_nothing_that_was_flushed(steps in prop::collection::vec(step(), 1..12).prop_map(Steps), at: prop::sample::Index, seed: u64, full: bool, asks: bool) {
        let fault = if full { Fault::NoSpace } else { Fault::Io };
        check(&steps.0, at, (fault, Then::Crash), seed, asks)?;
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

/// How a run ends after its fault.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// The machine loses what is not synced.
    Crash,
    /// The process is gone, and the machine runs on.
    Death,
}

/// Runs the steps with a fault at an operation and a crash at the end, and continues with the
/// result. Returns false when the steps end before the fault.
fn fail_and_go_on(steps: &[Step], fault: (u64, Fault), seed: u64, asks: bool) -> bool {
    fail_then(steps, fault, Then::Crash, seed, asks)
}

fn fail_then(steps: &[Step], (at, fault): (u64, Fault), then: Then, seed: u64, asks: bool) -> bool {
    let mut fs = Faulty::default();
    let mut model = Model { asks, ..Model::default() };
    fs.fail_at(at, fault);
    run(&mut fs, &mut model, steps);
    if !fs.faulted() {
        return false;
    }
    // The result must be a usable log, even if its recovery is interrupted.
    let mut left = match then {
        Then::Crash => {
            let left = fs.after_crash(seed ^ at);
            left.fail_at(at % 7, Fault::Crash);
            let _ = Opened::new(&left);
            left.after_crash(seed)
        }
        Then::Death => {
            let left = fs.after_death();
            left.fail_at(seed % 40, Fault::Crash);
            let _ = Opened::new(&left);
            // Nothing that was written is lost, and nothing but a truncation looks like a loss.
            if !model.cuts && model.has_epoch {
                model.flushed = model.end;
                let opened = Opened::new(&left.after_death()).unwrap();
                assert!(opened.dir.left().whole, "{:?}", opened.dir.left());
            }
            left.after_death()
        }
    };
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

/// The properties above found these cases: a crash while a log was emptied to begin anew took its
/// last segment and left another file of it, and the log ended before where it had begun anew.
#[test]
fn a_log_that_is_being_emptied_does_not_end_before_where_it_begins_anew() {
    let steps = [
        Step::Append(vec![(Kind::Plain, 1, 215)]),
        Step::Follow(vec![(Kind::Plain, 3, 340), (Kind::Plain, 2, 77), (Kind::Plain, 1, 305)]),
        Step::Kill,
        Step::StartAt(0),
    ];
    for at in 0.. {
        if !fail_and_go_on(&steps, (at, Fault::Crash), 6_296_421_312_694_451, false) {
            break;
        }
    }
    let steps = [
        Step::Append(vec![(Kind::Plain, 1, 0)]),
        Step::Roll,
        Step::Append(vec![(Kind::Plain, 1, 34), (Kind::Plain, 2, 367)]),
        Step::Append(vec![(Kind::Plain, 2, 338), (Kind::Plain, 1, 10), (Kind::Plain, 3, 57)]),
        Step::StartAt(0),
    ];
    for at in 0.. {
        if !fail_and_go_on(&steps, (at, Fault::Io), 2_545_910_092_169_786_252, false) {
            break;
        }
    }
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

/// A snapshot of the version before does not say which transactions had ended. Beyond the high
/// watermark only the log does.
#[test]
fn an_older_snapshot_beyond_the_high_watermark_decides_no_transaction() {
    for roll in [false, true] {
        let (fs, mut model) = (Faulty::default(), Model::default());
        let mut opened = open(&fs, &mut model).unwrap();
        for wanted in [(Kind::Data(1), 2, 0), (Kind::End(1, true), 1, 0)] {
            let bytes = model.try_append(&[wanted]);
            opened.append_from(Origin::Coordinator, bytes, 0).unwrap();
            model.end = opened.log.log_end_offset();
        }
        opened.log.advance_high_watermark(1);
        if roll {
            opened.writer.roll(2_000).unwrap();
        }
        opened.close().unwrap();
        drop(opened);
        fs.edit(format!("{DIR}/{:020}.snapshot", 3), |bytes| {
            // One ended transaction and the number of them.
            bytes.truncate(bytes.len() - 20);
            let checksum = crc32c::crc32c(&bytes[6..]);
            bytes[..2].copy_from_slice(&1_i16.to_be_bytes());
            bytes[2..6].copy_from_slice(&checksum.to_be_bytes());
        });
        let mut opened = Opened::new(&fs).unwrap();
        opened.writer.load_transactions(1_000).unwrap();
        assert_eq!(opened.log.last_stable_offset(), Some(0), "rolled: {roll}");
        opened.log.advance_high_watermark(3);
        assert_eq!(opened.log.last_stable_offset(), Some(3));
    }
}
