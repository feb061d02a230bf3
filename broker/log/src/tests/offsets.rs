//! The offset in the header of a batch, which its checksum does not cover.

use super::*;

/// Bits of the base offset, which comes first in the header.
const BITS: usize = 64;

/// Batches of two records from offset 0 on: those up to 6 are flushed and in the catalogue, the
/// rest is on the disk and nobody knows it.
fn log() -> Faulty {
    let fs = Faulty::default();
    let mut opened = Opened::with(&fs, LogConfig::default()).unwrap();
    opened.dir.set_broker_epoch(1).unwrap();
    for index in 0..6 {
        opened.append(batch(2, 50, 1_000, index), 3).unwrap();
        if index == 2 {
            opened.dir.checkpoint().unwrap();
        }
    }
    assert_eq!((opened.log.flushed_offset(), opened.log.log_end_offset()), (6, 12));
    drop(opened);
    fs.sync_all(Path::new(ROOT)).unwrap();
    fs
}

fn newest(fs: &Faulty) -> String {
    let names = fs.list(Path::new(DIR)).unwrap().into_iter().map(|entry| entry.name);
    format!("{DIR}/{}", names.filter(|name| name.ends_with(".log")).max().unwrap())
}

/// The positions and offsets of the batches of the newest segment.
fn batches(fs: &Faulty) -> Vec<(usize, i64)> {
    let bytes = fs.bytes(newest(fs)).unwrap();
    let found = batch::Batches::new(&bytes).map(|found| found.unwrap());
    let places = found.scan(0, |position, (header, bytes)| {
        *position += bytes.len();
        Some((*position - bytes.len(), header.base_offset))
    });
    places.collect()
}

/// After a power failure no log ends behind the offsets that it gave, and none loses what was
/// flushed: whichever bit of an offset is wrong, and whether the batch behind is whole or torn.
#[test]
fn after_a_power_failure_no_offset_is_taken_that_was_never_given() {
    let whole = log().after_crash(1);
    let all = Opened::new(&whole.after_kill()).unwrap().batches().unwrap();
    assert_eq!(all.len(), 6);
    for (position, offset) in batches(&whole).into_iter().filter(|(_, offset)| *offset >= 6) {
        for (bit, torn) in (0..BITS).flat_map(|bit| [(bit, 0), (bit, 1), (bit, 200)]) {
            let fs = whole.after_kill();
            fs.edit(newest(&fs), |bytes| {
                bytes[position + bit / 8] ^= 1 << (bit % 8);
                let torn = if offset == 10 { 0 } else { torn };
                bytes.truncate(bytes.len() - torn);
            });
            let what = format!("bit {bit} of {offset}, {torn} bytes torn off");
            let mut opened = Opened::new(&fs).unwrap();
            let (found, end) = (opened.batches().unwrap(), opened.log.log_end_offset());
            assert!((6..=offset).contains(&end), "{what}: {end}");
            assert_eq!(found, all[..found.len()], "{what}");
            assert_eq!(found.len() as i64 * 2, end, "{what}");
            let added = opened.append(batch(1, 10, 2_000, 1), 3).unwrap();
            assert_eq!(added.first_offset, end, "{what}");
        }
    }
}

/// Bytes of a leader that has compacted its log: 20 records are gone before the last batch.
fn follow(opened: &mut Opened, epoch: i32) {
    let mut bytes = batch(1, 50, 1_000, 7);
    batch::set_offset_and_epoch(&mut bytes, 32, LeaderEpoch(epoch));
    opened.writer.append_as_follower(&bytes, LeaderEpoch(epoch), 1_000).unwrap();
    assert_eq!(opened.log.log_end_offset(), 33);
}

/// The gaps of a follower stay where the kernel wrote everything, where a whole batch stands behind
/// them, and where the checkpoint or the epochs know of them.
#[test]
fn a_gap_that_a_follower_got_from_its_leader_stays() {
    let ends = |fs: &Faulty| Opened::new(fs).unwrap().log.log_end_offset();
    let begin = |epoch| {
        let fs = log();
        let mut opened = Opened::new(&fs).unwrap();
        opened.dir.set_broker_epoch(2).unwrap();
        follow(&mut opened, epoch);
        (fs, opened)
    };
    let (fs, opened) = begin(3);
    drop(opened);
    let killed = fs.after_kill();
    assert!(Opened::new(&killed).unwrap().dir.left().whole);
    assert_eq!(ends(&killed.after_kill()), 33);
    fs.sync_all(Path::new(ROOT)).unwrap();
    assert_eq!(ends(&fs.after_crash(1)), 12, "the leader has it, or nobody");

    let (fs, mut opened) = begin(3);
    opened.append(batch(1, 50, 1_000, 7), 3).unwrap();
    drop(opened);
    fs.sync_all(Path::new(ROOT)).unwrap();
    assert_eq!(ends(&fs.after_crash(1)), 34);

    let (fs, opened) = begin(3);
    opened.dir.checkpoint().unwrap();
    drop(opened);
    assert_eq!(ends(&fs.after_crash(1)), 33);

    let (fs, opened) = begin(4);
    opened.flush();
    drop(opened);
    assert_eq!(ends(&fs.after_crash(1)), 33);
}
