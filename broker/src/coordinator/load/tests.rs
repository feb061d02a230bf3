//! A load of a damaged log: every bit of a batch's header, and files that are cut off or gone.

mod driven;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_protocol::types::{LeaderEpoch, ProducerEpoch, ProducerId, TopicId, TopicPartition};
use weir_settings::Layers;

use super::*;
use crate::coordinator::append::Batches;
use crate::coordinator::{Now, Outcome, Record, ReplyTo};
use crate::metadata::MetadataImage;
use weir_log::{Disk, Identity, LogConfig, LogDir, LogDirOptions, LogWriter};

/// A machine that notes which records it has seen.
struct Noted(Vec<i64>);

impl StateMachine for Noted {
    const TOPIC: &'static str = "__noted";
    /// Asks which records it has seen.
    type Request = ReplyTo<Vec<i64>>;
    type Shared = ();

    fn new(_: Origin, (): &()) -> Self {
        Self(Vec::new())
    }

    fn replay(&mut self, record: &Logged<'_>) -> Result<(), String> {
        let key = std::str::from_utf8(record.key).map_err(|error| error.to_string())?;
        self.0.push(key.parse().map_err(|_| "no number".to_owned())?);
        Ok(())
    }

    fn end_transaction(&mut self, _: ProducerId, _: ProducerEpoch, _: bool) {}

    fn metadata(&mut self, _: &Arc<MetadataImage>, _: &Layers<'_>, _: Now, _: &mut Outcome) {}

    fn writes(_: &ReplyTo<Vec<i64>>) -> bool {
        true
    }

    fn decide(&mut self, request: ReplyTo<Vec<i64>>, _: Now, outcome: &mut Outcome) {
        outcome.reply(request, self.0.clone());
    }

    fn wake(&mut self, _: Now, _: &mut Outcome) {}

    fn next_wake(&self) -> Option<u64> {
        None
    }
}

const ID: TopicPartition = TopicPartition { topic: TopicId::ZERO, index: 0 };

/// The batches of the log: one record each, whose key is its offset.
const BATCHES: i64 = 24;

fn open(root: &Path) -> (LogDir, LogWriter) {
    let identity = Identity { cluster_id: "c".into(), broker_id: 0 };
    let options = LogDirOptions { open_files_max: 4, recovery_threads: 1 };
    let dir = LogDir::open(Arc::new(Disk), root, &identity, options).unwrap();
    let config =
        LogConfig { segment_bytes: 600, index_interval_bytes: 150, ..LogConfig::default() };
    let writer = dir.open_log(ID, &Noted::TOPIC.into(), Arc::new(config)).unwrap();
    (dir, writer)
}

/// A log that was closed in order.
fn written() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let (dir, mut writer) = open(root.path());
    for offset in 0..BATCHES {
        let mut batches = Batches::default();
        let record = Record { key: offset.to_string().into(), value: Some("value".into()) };
        batches.add(&[record], None, 1_000);
        let prepared = batches.finish().unwrap().unwrap();
        writer.append_as_leader(&mut [prepared], LeaderEpoch(3), 1_000).remove(0).unwrap();
    }
    dir.close(std::slice::from_mut(&mut writer)).unwrap();
    root
}

fn segments(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join("__noted-0")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    assert!(paths.len() > 2);
    paths
}

fn loaded(log: &LogReader) -> Loaded<Noted> {
    let origin = Origin { partition: 0, epoch: LeaderEpoch(4), seed: 1 };
    load::<Noted>(log, origin, &(), Unreadable::Fails).unwrap()
}

/// A bit costs the batch whose header it is in, and no other.
#[test]
fn one_bit_costs_at_most_its_batch() {
    let root = written();
    let (_dir, writer) = open(root.path());
    let log = writer.reader();
    let all: Vec<i64> = (0..BATCHES).collect();
    assert_eq!((loaded(&log).machine.0, loaded(&log).left_out), (all.clone(), 0));
    for path in segments(root.path()) {
        let whole = fs::read(&path).unwrap();
        let mut position = 0;
        for found in batch::Batches::new(&whole) {
            let (header, bytes) = found.unwrap();
            for bit in 0..weir_protocol::batch::HEADER_BYTES * 8 {
                let mut damaged = whole.clone();
                damaged[position + bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, damaged).unwrap();
                let Loaded { machine, end, left_out } = loaded(&log);
                let lacks: Vec<i64> =
                    all.iter().copied().filter(|key| !machine.0.contains(key)).collect();
                let what = format!("bit {bit} of the batch at {}", header.base_offset);
                assert!(lacks.iter().all(|key| *key == header.base_offset), "{what}: {lacks:?}");
                assert_eq!(machine.0.len() + lacks.len(), all.len(), "{what}: none twice");
                assert_eq!(left_out > 0, !lacks.is_empty(), "{what}");
                assert_eq!(end, BATCHES, "{what}");
            }
            position += bytes.len();
        }
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(loaded(&log).machine.0, all);
}

/// A file that is cut off, emptied or gone costs what it held, and a load ends all the same.
#[test]
fn a_file_costs_at_most_what_it_held() {
    for index in 0..3 {
        let harms: [fn(&Path); 3] = [
            |path| {
                let half = fs::metadata(path).unwrap().len() / 2;
                fs::File::options().write(true).open(path).unwrap().set_len(half).unwrap();
            },
            |path| fs::write(path, []).unwrap(),
            |path| fs::remove_file(path).unwrap(),
        ];
        for (number, harm) in harms.into_iter().enumerate() {
            let root = written();
            let (_dir, writer) = open(root.path());
            let log = writer.reader();
            let paths = segments(root.path());
            let base = |path: &Path| -> i64 {
                path.file_stem().unwrap().to_str().unwrap().parse().unwrap()
            };
            let from = base(&paths[index]);
            let to = paths.get(index + 1).map_or(BATCHES, |path| base(path));
            harm(&paths[index]);
            let Loaded { machine, left_out, .. } = loaded(&log);
            let rest: Vec<i64> =
                machine.0.iter().copied().filter(|key| !(from..to).contains(key)).collect();
            let others: Vec<i64> = (0..BATCHES).filter(|key| !(from..to).contains(key)).collect();
            assert_eq!(rest, others, "harm {number} to segment {index}");
            let held = (to - from) as usize;
            let expected = machine.0.len() + left_out as usize;
            assert_eq!(expected, others.len() + held, "harm {number} to segment {index}");
        }
    }
}

/// A disk that does not return a segment: a directory is in its place.
struct Failing(PathBuf);

impl Failing {
    fn begin(path: &Path) -> Self {
        fs::rename(path, path.with_extension("aside")).unwrap();
        fs::create_dir(path).unwrap();
        Self(path.to_owned())
    }

    fn end(self) {
        fs::remove_dir(&self.0).unwrap();
        fs::rename(self.0.with_extension("aside"), &self.0).unwrap();
    }
}

/// One load after the others, as the coordinator does it.
fn try_to_load(log: &LogReader, tries: &mut Tries) -> Option<Loaded<Noted>> {
    let origin = Origin { partition: 0, epoch: LeaderEpoch(4), seed: 1 };
    let loaded = load::<Noted>(log, origin, &(), tries.unreadable()).map_err(DiskFailed);
    let loaded = loaded.map_err(|error| tries.failed(&anyhow::Error::from(error)));
    loaded.inspect_err(|pause| assert!((1..=30).contains(&pause.as_secs()))).ok()
}

/// What comes back is not left out, however often the load has failed before for other reasons.
#[test]
fn a_disk_that_fails_for_a_while_costs_nothing() {
    for others in [0, 3, 20] {
        let root = written();
        let (_dir, writer) = open(root.path());
        let log = writer.reader();
        let mut tries = Tries::with_pause(PAUSE);
        for _ in 0..others {
            tries.failed(&anyhow::anyhow!("this broker does not hold the partition"));
        }
        let failing = Failing::begin(&segments(root.path())[1]);
        for _ in 0..3 {
            assert!(try_to_load(&log, &mut tries).is_none(), "after {others} others");
        }
        failing.end();
        let Loaded { machine, left_out, .. } = try_to_load(&log, &mut tries).unwrap();
        assert_eq!((machine.0.len() as i64, left_out), (BATCHES, 0), "after {others} others");
    }
}

/// What the disk never returns is left out in the end, and nothing else is.
#[test]
fn a_disk_that_fails_for_good_costs_what_it_does_not_return() {
    for index in 0..2 {
        let root = written();
        let (_dir, writer) = open(root.path());
        let log = writer.reader();
        let paths = segments(root.path());
        let base =
            |path: &Path| -> i64 { path.file_stem().unwrap().to_str().unwrap().parse().unwrap() };
        let (from, to) = (base(&paths[index]), base(&paths[index + 1]));
        let failing = Failing::begin(&paths[index]);
        let mut tries = Tries::with_pause(PAUSE);
        let failed = (0..100).take_while(|_| try_to_load(&log, &mut tries).is_none()).count();
        assert_eq!(failed, 5);
        assert!(tries.are_of_no_use());
        let Loaded { machine, left_out, end } = try_to_load(&log, &mut tries).unwrap();
        let others: Vec<i64> = (0..BATCHES).filter(|key| !(from..to).contains(key)).collect();
        assert_eq!((machine.0, left_out, end), (others, (to - from) as u64, BATCHES));
        failing.end();
        assert_eq!(try_to_load(&log, &mut tries).unwrap().left_out, 0);
    }
}

#[test]
fn ranges_are_told_in_one_line() {
    let mut left_out = LeftOut::default();
    left_out.add(3, 5);
    left_out.add(5, 9);
    left_out.add(12, 13);
    assert_eq!((left_out.to_string().as_str(), left_out.offsets), ("3..9, 12..13", 7));
    (20..60).step_by(2).for_each(|from| left_out.add(from, from + 1));
    assert!(left_out.to_string().ends_with(", and 2 ranges more"), "{left_out}");
}
