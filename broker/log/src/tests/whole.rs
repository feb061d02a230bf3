//! Whether a run counts as whole: what was done to the files while no process ran, after a stop and
//! after a kill, and if the start that would notice it dies.

use super::super::catalogue;
use super::super::faulty::Fault;
use super::transactions::written;
use super::*;

/// A change of the files while no broker runs.
type Harm = fn(&Faulty);

const EPOCH: i64 = 17;

/// A log over several segments with aborted transactions. The process has a broker epoch, and the
/// catalogue was written before the last segments.
fn killed() -> Faulty {
    let (fs, mut opened, ..) = written();
    opened.dir.set_broker_epoch(EPOCH).unwrap();
    opened.dir.checkpoint().unwrap();
    let mut index = 0;
    while index < 40 || fs.bytes(newest(&fs)).unwrap().len() < 1_000 {
        opened.append(batch(1, 100, 1_001 + i64::from(index), 1), 1 + index / 30).unwrap();
        index += 1;
    }
    opened.flush();
    assert!(opened.log.checkpointed_offset() + 30 < opened.log.log_end_offset());
    fs.after_kill()
}

fn stopped() -> Faulty {
    let fs = killed();
    let mut opened = Opened::new(&fs).unwrap();
    assert!(opened.dir.left().whole && !opened.dir.left().orderly);
    opened.close().unwrap();
    drop(opened);
    fs.after_kill()
}

/// The paths of the files with this ending, in order.
fn files(fs: &Faulty, extension: &str) -> Vec<String> {
    let entries = fs.list(Path::new(DIR)).unwrap().into_iter();
    let mut names: Vec<_> =
        entries.map(|entry| entry.name).filter(|name| name.ends_with(extension)).collect();
    names.sort();
    names.iter().map(|name| format!("{DIR}/{name}")).collect()
}

fn remove(fs: &Faulty, path: &str) {
    fs.remove_file(Path::new(path)).unwrap();
}

fn newest(fs: &Faulty) -> String {
    files(fs, ".log").pop().unwrap()
}

fn is_whole(fs: &Faulty) -> bool {
    let opened = Opened::new(fs).unwrap();
    assert_eq!(opened.dir.left().broker_epoch, Some(EPOCH));
    opened.dir.left().whole
}

fn remove_newest(fs: &Faulty) {
    remove(fs, &newest(fs));
}

fn remove_all_segments(fs: &Faulty) {
    files(fs, ".log").iter().for_each(|path| remove(fs, path));
}

fn remove_directory(fs: &Faulty) {
    fs.rename(Path::new(DIR), Path::new("/data/elsewhere")).unwrap();
}

fn halve_newest(fs: &Faulty) {
    fs.edit(newest(fs), |bytes| bytes.truncate(bytes.len() / 2));
}

/// The segments behind the last catalogue: their names are known from what was written at each
/// roll.
fn remove_last_two(fs: &Faulty) {
    remove_newest(fs);
    remove_newest(fs);
}

/// A start after each harm, and a start after one that died at each of its operations.
fn is_noticed(fs: &Faulty, harms: &[(&str, Harm)]) {
    for (what, harm) in harms {
        let fs = fs.after_kill();
        harm(&fs);
        assert!(!is_whole(&fs.after_kill()), "{what}");
        let mut deaths = 0;
        for at in fs.changes().. {
            let dying = fs.after_kill();
            dying.fail_at(at, Fault::Crash);
            let died = Opened::new(&dying).is_err();
            if !dying.crashed() {
                break;
            }
            deaths += 1;
            let next = dying.after_death();
            assert!(!is_whole(&next), "{what}: a start that died at operation {at} ({died})");
        }
        assert!(deaths > 3, "{what}");
        // The log takes records, and the controller hears of it once.
        let mut opened = Opened::new(&fs).unwrap();
        let end = opened.log.log_end_offset();
        let appended = opened.append(batch(1, 10, 9_000, 1), 5).unwrap();
        assert_eq!((appended.first_offset, opened.dir.failure()), (end, None), "{what}");
        opened.dir.set_broker_epoch(EPOCH).unwrap();
        drop(opened);
        assert!(is_whole(&fs.after_kill()), "{what}: heard");
    }
}

#[test]
fn what_is_gone_since_a_clean_stop() {
    let fs = stopped();
    assert!(is_whole(&fs.after_kill()));
    is_noticed(
        &fs,
        &[
            ("the newest segment", remove_newest),
            ("half of the newest segment", halve_newest),
            ("all of the newest segment", |fs| fs.edit(newest(fs), Vec::clear)),
            ("an old segment", |fs| remove(fs, &files(fs, ".log")[1])),
            ("all segments", remove_all_segments),
            ("the directory", remove_directory),
        ],
    );
}

#[test]
fn what_is_gone_since_a_kill() {
    let fs = killed();
    assert!(is_whole(&fs.after_kill()));
    is_noticed(
        &fs,
        &[
            ("the newest segment", remove_newest),
            ("the last segments", remove_last_two),
            ("all segments", remove_all_segments),
            ("the directory", remove_directory),
            ("all that was written since the catalogue", |fs| {
                while files(fs, ".log").len() > 9 {
                    remove_newest(fs);
                }
            }),
            ("batches in the middle of the newest segment", |fs| {
                fs.edit(newest(fs), |bytes| {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                });
            }),
        ],
    );
}

/// Makes the files what a version wrote that knew nothing of all this: no file of changes,
/// directories that do not name their partition, and a catalogue without what is new in it.
fn as_an_earlier_version(fs: &Faulty) {
    let _ = fs.remove_file(Path::new("/data/directories"));
    fs.edit(format!("{DIR}/partition.metadata"), |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let lines = text.split_inclusive('\n').take(2).collect::<String>();
        assert!(lines.contains("topic_id: "), "{text}");
        *bytes = format!("{lines}crc32c: {:08x}\n", crc32c::crc32c(lines.as_bytes())).into_bytes();
    });
    let mut logs = catalogue::read(fs, Path::new(ROOT)).unwrap();
    let aborted = logs[0].segments.iter_mut().map(|segment| &mut segment.has_aborted);
    assert_eq!(
        aborted.map(std::mem::take).filter(|had| *had).count(),
        files(fs, ".txnindex").len()
    );
    catalogue::write(fs, Path::new(ROOT), &logs).unwrap();
}

/// An upgrade costs no replica its place in the ISR, nor a scan after a clean stop.
#[test]
fn what_an_earlier_version_left_is_whole() {
    for fs in [stopped(), killed()] {
        let end = Opened::new(&fs.after_kill()).unwrap().log.log_end_offset();
        let stopped_in_order = Opened::new(&fs.after_kill()).unwrap().dir.left().orderly;
        as_an_earlier_version(&fs);
        let mut opened = Opened::new(&fs).unwrap();
        let left = opened.dir.left();
        assert_eq!((left.whole, left.orderly), (true, stopped_in_order));
        assert_eq!(opened.log.log_end_offset(), end);
        opened.append(batch(1, 10, 9_000, 1), 5).unwrap();
        drop(opened);
        let fs = fs.after_kill();
        assert!(is_whole(&fs.after_kill()), "from then on as ever");
        remove_newest(&fs);
        assert!(!is_whole(&fs));
    }
}

/// Without its last segment the log ends where the segment before it ends: the rest comes from the
/// leader.
#[test]
fn a_log_without_its_last_segment_ends_with_the_one_before_it() {
    for fs in [stopped(), killed()] {
        let base: i64 = newest(&fs)[DIR.len() + 1..].trim_end_matches(".log").parse().unwrap();
        remove_newest(&fs);
        assert_eq!(Opened::new(&fs).unwrap().log.log_end_offset(), base);
    }
}

/// A log whose end is cut off goes on where it ended, and no offset is used twice. As a follower it
/// is cut to what there is, and fetches the rest.
#[test]
fn what_is_missing_at_the_end_comes_from_a_leader() {
    let fs = stopped();
    let end = Opened::new(&fs.after_kill()).unwrap().log.log_end_offset();
    halve_newest(&fs);
    let mut opened = Opened::new(&fs).unwrap();
    assert_eq!(opened.log.log_end_offset(), end);
    let last_read = opened.log.read(end - 1, i64::MAX, 1, true);
    assert!(matches!(last_read, Err(ReadError::Corrupt { .. })), "{last_read:?}");
    opened.close().unwrap();
    drop(opened);
    let mut opened = Opened::new(&fs.after_kill()).unwrap();
    opened.writer.cut_missing().unwrap();
    let cut = opened.log.log_end_offset();
    assert!(cut < end);
    assert!(opened.log.read(cut - 1, i64::MAX, 1, true).unwrap().is_some());
    opened.writer.cut_missing().unwrap();
    assert_eq!(opened.log.log_end_offset(), cut, "once");
}

/// The same holds for records in the middle. As a follower the log is cut to the first gap, and
/// fetches all from there on.
#[test]
fn what_is_missing_in_the_middle_comes_from_a_leader() {
    let harms: [(&str, Harm); 3] = [
        ("a segment", |fs| remove(fs, &files(fs, ".log")[2])),
        ("two segments", |fs| {
            let all = files(fs, ".log");
            [&all[2], &all[4]].into_iter().for_each(|path| remove(fs, path));
        }),
        // Alone it would be seen by who reads there: the catalogue knows how long the segment was.
        ("a segment, and the last batches of one before it", |fs| {
            remove(fs, &files(fs, ".log")[3]);
            fs.edit(files(fs, ".log")[1].clone(), |bytes| {
                let first = u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize + 12;
                bytes.truncate(first);
            });
        }),
    ];
    for (what, harm) in harms {
        let fs = stopped();
        let end = Opened::new(&fs.after_kill()).unwrap().log.log_end_offset();
        let base = |at: usize| -> i64 {
            files(&fs, ".log")[at][DIR.len() + 1..].trim_end_matches(".log").parse().unwrap()
        };
        let (second, third) = (base(1), base(2));
        harm(&fs);
        assert!(!is_whole(&fs.after_kill()), "{what}");
        // A start that dies forgets nothing of it.
        let dying = fs.after_kill();
        dying.fail_at(dying.changes() + 2, Fault::Crash);
        let _ = Opened::new(&dying);
        for fs in [fs.after_kill(), dying.after_death()] {
            let mut opened = Opened::new(&fs).unwrap();
            assert_eq!(opened.log.log_end_offset(), end, "{what}");
            opened.close().unwrap();
            drop(opened);
            let mut opened = Opened::new(&fs.after_kill()).unwrap();
            opened.writer.cut_missing().unwrap();
            let cut = opened.log.log_end_offset();
            assert!((second..=third).contains(&cut), "{what}: cut to {cut}");
            assert!(opened.log.read(cut - 1, i64::MAX, 1, true).unwrap().is_some(), "{what}");
        }
    }
}

/// A kill alone is none of this, whatever the log did before it.
#[test]
fn a_kill_alone_leaves_a_whole_log() {
    let deeds: [(&str, fn(&mut Opened)); 6] = [
        ("nothing", |_| {}),
        ("a roll", |opened| opened.writer.roll(2_000).unwrap()),
        ("a truncation", |opened| {
            opened.writer.truncate_to(40).unwrap();
        }),
        ("a truncation behind the catalogue", |opened| {
            let end = opened.log.log_end_offset();
            opened.dir.checkpoint().unwrap();
            opened.append(batch(3, 100, 1_001, 1), 2).unwrap();
            opened.writer.truncate_to(end + 1).unwrap();
        }),
        ("a new begin", |opened| {
            opened.writer.truncate_fully_and_start_at(7).unwrap();
        }),
        ("a deletion of records", |opened| {
            opened.log.advance_high_watermark(80);
            opened.writer.advance_log_start_offset(80).unwrap();
        }),
    ];
    for (what, deed) in deeds {
        for appends in [0, 1, 60] {
            let fs = killed();
            let mut opened = Opened::new(&fs).unwrap();
            deed(&mut opened);
            for _ in 0..appends {
                opened.append(batch(1, 100, 1_001, 1), 3).unwrap();
            }
            assert!(is_whole(&fs.after_kill()), "{what}, {appends} appends");
        }
    }
}

fn open_dir(fs: &Faulty) -> LogDir {
    let identity = Identity { cluster_id: "test".into(), broker_id: 0 };
    let options = LogDirOptions { open_files_max: 3, recovery_threads: 2 };
    LogDir::open(Arc::new(fs.clone()), Path::new(ROOT), &identity, options).unwrap()
}

fn id(topic: u128, index: i32) -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(topic)), index }
}

fn open_log(dir: &LogDir, topic: u128, index: i32) -> LogWriter {
    let name = format!("t{topic}").as_str().into();
    dir.open_log(id(topic, index), &name, Arc::new(config())).unwrap()
}

fn send(writer: &mut LogWriter) -> i64 {
    let appended =
        writer.append_as_leader(&mut [prepared(batch(1, 9, 1, 1))], LeaderEpoch(0), 1_000);
    appended[0].as_ref().unwrap().first_offset
}

/// The logs t7-0, t7-1 and t8-0 with two records each, all of the same size.
fn several(stop: bool) -> Faulty {
    let fs = Faulty::default();
    let dir = open_dir(&fs);
    dir.set_broker_epoch(EPOCH).unwrap();
    let logs = [(7, 0), (7, 1), (8, 0)];
    let mut writers: Vec<_> =
        logs.into_iter().map(|(topic, index)| open_log(&dir, topic, index)).collect();
    for writer in &mut writers {
        send(writer);
        send(writer);
    }
    if stop {
        dir.close(&mut writers).unwrap();
    }
    drop((writers, dir));
    fs.after_kill()
}

/// Directories that are exchanged have the same names and sizes of files. What they say of their
/// owners tells them apart: each log begins anew, and its records are set aside.
#[test]
fn exchanged_directories_are_set_aside() {
    for stop in [true, false] {
        for (one, two) in [("t7-0", "t7-1"), ("t7-0", "t8-0")] {
            let fs = several(stop);
            let path = |name: &str| Path::new(ROOT).join(name);
            for (from, to) in [(one, "x"), (two, one), ("x", two)] {
                fs.rename(&path(from), &path(to)).unwrap();
            }
            let dir = open_dir(&fs);
            assert!(!dir.left().whole, "{one} and {two}, stopped: {stop}");
            let ends = [(7, 0), (7, 1), (8, 0)].map(|(topic, index)| {
                let mut writer = open_log(&dir, topic, index);
                let end = writer.reader().log_end_offset();
                assert_eq!(send(&mut writer), end);
                (format!("t{topic}-{index}"), end)
            });
            for (name, end) in ends {
                assert_eq!(end, if name == one || name == two { 0 } else { 2 }, "{name}");
            }
            assert_eq!(dir.failure(), None);
            let entries = fs.list(Path::new(ROOT)).unwrap();
            let strays = entries.iter().filter(|entry| entry.name.ends_with("-stray")).count();
            assert_eq!(strays, 2, "{one} and {two}, stopped: {stop}");
        }
    }
}

/// A log that was made after the last catalogue is missed as well, and one that was deleted is not.
#[test]
fn a_kill_does_not_hide_which_logs_there_were() {
    let fs = several(false);
    assert!(open_dir(&fs.after_kill()).left().whole);
    let moved = fs.after_kill();
    moved.rename(Path::new("/data/t8-0"), Path::new("/data/elsewhere")).unwrap();
    assert!(!open_dir(&moved).left().whole);
    for (checkpoint, again) in [(false, false), (true, false), (false, true), (true, true)] {
        let dir = open_dir(&fs.after_kill());
        drop(dir);
        let fs = fs.after_kill();
        let dir = open_dir(&fs);
        let mut writer = open_log(&dir, 8, 0);
        if checkpoint {
            send(&mut writer);
            dir.checkpoint().unwrap();
        }
        writer.delete().unwrap();
        drop(writer);
        if again {
            let mut writer = dir.open_log(id(9, 0), &"t8".into(), Arc::new(config())).unwrap();
            send(&mut writer);
            let killed = fs.after_kill();
            killed.rename(Path::new("/data/t8-0"), Path::new("/data/elsewhere")).unwrap();
            assert!(!open_dir(&killed).left().whole, "the new one is missed");
        }
        assert!(open_dir(&fs.after_kill()).left().whole, "{checkpoint} {again}");
    }
}

/// The file of a segment's aborted transactions is made from the log.
#[test]
fn a_file_of_aborted_transactions_that_is_gone_is_made_anew() {
    for fs in [stopped(), killed()] {
        let told = |fs: &Faulty| {
            let mut opened = Opened::new(fs).unwrap();
            opened.writer.load_transactions(1_000).unwrap();
            let found = opened.log.known_aborted_transactions(0, i64::MAX).unwrap();
            if found.is_none() {
                opened.writer.load_transactions(1_000).unwrap();
            }
            let found = opened.log.known_aborted_transactions(0, i64::MAX).unwrap().unwrap();
            assert!(opened.dir.left().whole);
            found
        };
        let whole = told(&fs.after_kill());
        let paths = files(&fs, ".txnindex");
        assert!(paths.len() > 2 && whole.len() > 5);
        for path in &paths {
            let fs = fs.after_kill();
            remove(&fs, path);
            assert_eq!(told(&fs), whole, "{path}");
        }
    }
}
