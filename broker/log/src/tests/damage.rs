//! Invalid files, and how the log handles each.

use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::super::producers::Producers;
use super::deletion::open_dir_shown;
use super::*;

/// A change of the files of [`log`] while no broker runs.
type Harm = fn(&Faulty);

/// The base offsets of the segments of [`log`].
const BASES: [i64; 4] = [0, 6, 12, 18];

fn path(base: i64, extension: &str) -> String {
    format!("{DIR}/{base:020}.{extension}")
}

/// Batches of two records from offset 0 on: three in each segment, four in the last one. Offsets
/// 0..22 are flushed and in the catalogue, 22..26 are not. The process is dead.
fn log() -> Faulty {
    let fs = Faulty::default();
    let mut opened = Opened::new(&fs).unwrap();
    for index in 0..13 {
        let value_bytes = if index < 9 { 280 } else { 200 };
        opened.append(batch(2, value_bytes, 1_000 + i64::from(index), index), 0).unwrap();
        if index == 10 {
            opened.dir.checkpoint().unwrap();
        }
    }
    assert_eq!((opened.log.flushed_offset(), opened.log.log_end_offset()), (22, 26));
    let bases: Vec<_> =
        opened.log.segments.load().iter().map(|segment| segment.base_offset()).collect();
    assert_eq!(bases, BASES);
    fs.after_kill()
}

/// All batches up to an offset.
fn up_to(end: i64) -> Vec<i64> {
    (0..end).step_by(2).collect()
}

/// Opens the log, reads everything readable, and checks that it can be appended to: now, and after
/// a clean stop.
fn reopened(fs: &Faulty, what: &str) -> (Vec<i64>, i64) {
    let mut opened = Opened::new(fs).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (bases, end) = (opened.base_offsets(), opened.log.log_end_offset());
    let added =
        opened.append(batch(1, 10, 5_000, 99), 1).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(added.first_offset, end, "{what}");
    let with_added: Vec<_> = bases.iter().copied().chain([end]).collect();
    assert_eq!(opened.base_offsets(), with_added, "{what}");
    let late = opened.log.offset_for_timestamp(5_000, i64::MAX).unwrap().unwrap();
    assert_eq!((late.offset, late.leader_epoch.0), (end, 1), "{what}");
    opened.close().unwrap();
    drop(opened);
    assert_eq!(Opened::new(fs).unwrap().base_offsets(), with_added, "{what}");
    (bases, end)
}

#[test]
fn what_was_not_flushed_is_cut_where_it_is_not_whole() {
    let harms: [(&str, Harm, i64); 6] = [
        (
            "a torn tail",
            |fs| fs.edit(path(18, "log"), |bytes| bytes.truncate(bytes.len() - 10)),
            24,
        ),
        (
            "a torn header",
            |fs| fs.edit(path(18, "log"), |bytes| bytes.truncate(bytes.len() / 4 * 3 + 30)),
            24,
        ),
        (
            "a flipped bit",
            |fs| fs.edit(path(18, "log"), |bytes| *bytes.last_mut().unwrap() ^= 1),
            24,
        ),
        (
            "zeros behind the end",
            |fs| fs.edit(path(18, "log"), |bytes| bytes.resize(bytes.len() + 5_000, 0)),
            26,
        ),
        ("a segment of no length", |fs| fs.put(path(26, "log"), b""), 26),
        ("a segment that begins behind the end", |fs| fs.put(path(28, "log"), b""), 26),
    ];
    for (what, harm, end) in harms {
        let fs = log();
        harm(&fs);
        assert_eq!(reopened(&fs, what), (up_to(end), end), "{what}");
    }
}

#[test]
fn what_is_derived_is_built_anew() {
    fn every(fs: &Faulty, extension: &str, harm: fn(&mut Vec<u8>)) {
        BASES
            .iter()
            .map(|base| path(*base, extension))
            .filter(|path| fs.bytes(path).is_some())
            .for_each(|path| fs.edit(path, harm));
    }
    fn remove(fs: &Faulty, extension: &str) {
        BASES.iter().for_each(|base| drop(fs.remove_file(Path::new(&path(*base, extension)))));
    }
    let harms: [(&str, Harm); 13] = [
        ("no harm", |_| {}),
        ("no offset index", |fs| remove(fs, "index")),
        ("no time index", |fs| remove(fs, "timeindex")),
        ("an index of zeros", |fs| every(fs, "index", |bytes| bytes.fill(0))),
        ("an index that is cut off", |fs| {
            every(fs, "index", |bytes| bytes.truncate(bytes.len() / 2 + 3))
        }),
        ("an index into nowhere", |fs| every(fs, "index", |bytes| bytes.fill(0x7f))),
        ("an index that lies", |fs| {
            every(fs, "index", |bytes| bytes.chunks_mut(8).for_each(|entry| entry[7] ^= 4))
        }),
        ("an index out of order", |fs| every(fs, "index", |bytes| bytes.rotate_left(8))),
        ("no epochs", |fs| {
            fs.remove_file(Path::new("/data/orders-0/leader-epoch-checkpoint")).unwrap()
        }),
        ("epochs of garbage", |fs| fs.put("/data/orders-0/leader-epoch-checkpoint", &[0xff; 100])),
        ("no catalogue", |fs| fs.remove_file(Path::new("/data/catalogue")).unwrap()),
        ("a catalogue of garbage", |fs| fs.edit("/data/catalogue", |bytes| bytes[40] ^= 1)),
        ("no run file", |fs| fs.remove_file(Path::new("/data/run")).unwrap()),
    ];
    for (what, harm) in harms {
        let fs = log();
        harm(&fs);
        assert_eq!(reopened(&fs, what), (up_to(26), 26), "{what}");
        let opened = Opened::new(&fs).unwrap();
        for offset in 0..26 {
            assert_eq!(
                opened.log.read(offset, i64::MAX, 1, true).unwrap().unwrap().base_offset,
                offset / 2 * 2,
                "{what}"
            );
            assert_eq!(opened.log.epoch_of(offset), Some(LeaderEpoch(0)), "{what}");
        }
        for index in 0..13 {
            assert_eq!(
                opened.log.offset_for_timestamp(1_000 + index, 26).unwrap().unwrap().offset,
                2 * index,
                "{what}"
            );
        }
    }
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let fs = log();
    let foreign = [
        "/data/notes.txt",
        "/data/orders-0/notes.txt",
        "/data/orders-0/7.log",
        "/data/orders-0/99999999999999999999.log",
    ];
    foreign.iter().for_each(|path| fs.put(path, b"precious"));
    for dir in ["/data/lost+found", "/data/photos", "/data/orders-x"] {
        fs.create_dir(Path::new(dir)).unwrap();
        fs.put(format!("{dir}/1.jpg"), b"precious");
    }
    assert_eq!(reopened(&fs, "unknown files"), (up_to(26), 26));
    for path in foreign.into_iter().chain([
        "/data/lost+found/1.jpg",
        "/data/photos/1.jpg",
        "/data/orders-x/1.jpg",
    ]) {
        assert_eq!(fs.bytes(path).as_deref(), Some(&b"precious"[..]), "{path}");
    }
}

#[test]
fn flushed_records_are_never_cut_off_for_damage() {
    // A flipped bit in the records of the batch at 20: the log serves the batch as it is, and its
    // consumer refuses it.
    let fs = log();
    fs.edit(path(18, "log"), |bytes| bytes[800] ^= 1);
    assert_eq!(reopened(&fs, "records"), (up_to(26), 26));

    // The header of the batch at 20 is gone: reads of it fail, those around it work.
    let fs = log();
    fs.edit(path(18, "log"), |bytes| {
        let size = bytes.len() / 4;
        bytes[size..size + 61].fill(0xee);
    });
    let mut opened = Opened::new(&fs).unwrap();
    let check = |opened: &Opened| {
        for offset in (0..20).chain(22..26) {
            assert_eq!(
                opened.log.read(offset, i64::MAX, 1, true).unwrap().unwrap().base_offset,
                offset / 2 * 2
            );
        }
        for offset in [20, 21] {
            assert!(
                matches!(
                    opened.log.read(offset, i64::MAX, 1, true),
                    Err(ReadError::Corrupt { segment: 18, .. })
                ),
                "{offset}"
            );
        }
    };
    check(&opened);
    assert_eq!(opened.append(batch(1, 1, 1, 1), 0).unwrap().first_offset, 26);
    opened.close().unwrap();
    drop(opened);
    check(&Opened::new(&fs).unwrap());

    // The segment of the recovery point has lost its end: no offset is assigned twice.
    let fs = log();
    fs.edit(path(18, "log"), |bytes| bytes.truncate(100));
    let mut opened = Opened::new(&fs).unwrap();
    assert_eq!(
        (opened.log.log_end_offset(), opened.append(batch(1, 1, 1, 1), 0).unwrap().first_offset),
        (22, 22)
    );
    assert_eq!(opened.log.read(17, i64::MAX, 1, true).unwrap().unwrap().base_offset, 16);
    assert!(matches!(
        opened.log.read(18, i64::MAX, 1, true),
        Err(ReadError::Corrupt { segment: 18, .. })
    ));
    assert_eq!(opened.log.read(22, i64::MAX, 1, true).unwrap().unwrap().base_offset, 22);
}

#[test]
fn what_does_not_parse_is_no_fault_of_the_disk() {
    const MAGIC_AT: usize = 16;
    let size = |fs: &Faulty| fs.bytes(path(18, "log")).unwrap().len() / 4;
    let harms: [(&str, Harm, usize); 6] = [
        (
            "the magic of the first batch",
            |fs| fs.edit(path(18, "log"), |bytes| bytes[MAGIC_AT] ^= 1),
            1,
        ),
        (
            "the magic of every batch",
            |fs| {
                fs.edit(path(18, "log"), |bytes| {
                    let size = bytes.len() / 4;
                    (0..4).for_each(|batch| bytes[batch * size + MAGIC_AT] ^= 1);
                })
            },
            4,
        ),
        (
            "the magic of the last batch",
            |fs| {
                fs.edit(path(18, "log"), |bytes| {
                    let size = bytes.len() / 4;
                    bytes[3 * size + MAGIC_AT] ^= 1;
                })
            },
            1,
        ),
        ("the end of the file", |fs| fs.edit(path(18, "log"), |bytes| bytes.truncate(100)), 4),
        ("all of the file", |fs| fs.edit(path(18, "log"), Vec::clear), 4),
        (
            "the length of a batch",
            |fs| fs.edit(path(18, "log"), |bytes| bytes[8..12].fill(0x7f)),
            1,
        ),
    ];
    for (what, harm, lost) in harms {
        let fs = log();
        assert!(size(&fs) > 0);
        let mut opened = Opened::new(&fs).unwrap();
        opened.close().unwrap();
        drop(opened);
        harm(&fs);
        // A clean start relies on the catalogue, so the next writer meets the damage.
        let mut opened = Opened::new(&fs).unwrap();
        assert_eq!(opened.log.log_end_offset(), 26, "{what}");
        for offset in [26, 27] {
            let appended = opened.append(batch(1, 10, 5_000, 99), 1);
            assert_eq!(
                (appended.map(|info| info.first_offset), opened.dir.failure()),
                (Ok(offset), None),
                "{what}"
            );
        }
        opened.writer.load_transactions(1_000).unwrap();
        opened.writer.roll(1_000).unwrap();
        let broken = (18..26)
            .step_by(2)
            .filter(|offset| opened.log.read(*offset, i64::MAX, 1, true).is_err());
        assert_eq!((broken.count(), opened.dir.failure()), (lost, None), "{what}");
        for offset in (0..18).chain(26..28) {
            assert!(
                opened.log.read(offset, i64::MAX, 1, true).unwrap().is_some(),
                "{what}: {offset}"
            );
        }
        opened.close().unwrap();
        drop(opened);
        let again = Opened::new(&fs).unwrap();
        assert_eq!((again.log.log_end_offset(), again.dir.failure()), (28, None), "{what}");
    }
}

#[test]
fn what_is_left_to_who_begins_behind_damage_knows_nothing_that_is_not_written_yet() {
    fn sent() -> BytesMut {
        fill(BatchBuilder::new(0).producer(ProducerId(7), ProducerEpoch(0), 0), 1, 10, 5_000, 99)
    }
    let by_leader = |opened: &mut Opened| {
        opened.append(sent(), 1).unwrap();
    };
    let by_follower = |opened: &mut Opened| {
        let mut bytes = sent();
        batch::set_offset_and_epoch(&mut bytes, 26, LeaderEpoch(1));
        opened.writer.append_as_follower(&bytes, LeaderEpoch(1), 1_000).unwrap();
    };
    for append in [by_leader as fn(&mut Opened), by_follower] {
        let fs = log();
        let mut opened = Opened::new(&fs).unwrap();
        opened.close().unwrap();
        drop(opened);
        let mut opened = Opened::new(&fs).unwrap();
        fs.edit(path(18, "log"), Vec::clear);
        append(&mut opened);
        assert_eq!(opened.log.log_end_offset(), 27);
        let left = Producers::from_snapshot(&fs.bytes(path(26, "snapshot")).unwrap(), 0).unwrap();
        assert!(left.producers.is_empty(), "{left:?}");
    }
}

#[test]
fn segments_that_overlap_or_are_missing_are_not_read_twice_or_cut() {
    // The state after a compaction that did not remove the replaced segments.
    let fs = log();
    let both = [fs.bytes(path(0, "log")).unwrap(), fs.bytes(path(6, "log")).unwrap()].concat();
    fs.put(path(0, "log"), &both);
    assert_eq!(reopened(&fs, "overlapping segments"), (up_to(26), 26));
    assert!(fs.bytes(path(6, "log.damaged")).is_some(), "nothing is thrown away");

    let fs = log();
    fs.remove_file(Path::new(&path(6, "log"))).unwrap();
    let without: Vec<_> = up_to(26).into_iter().filter(|base| !(6..12).contains(base)).collect();
    assert_eq!(reopened(&fs, "a missing segment"), (without, 26));
}

#[test]
fn a_directory_that_does_not_say_whose_it_is_is_not_written_over() {
    for content in [&b""[..], b"version: 0\ntopic_id: nonsense\n"] {
        let fs = log();
        fs.put("/data/orders-0/partition.metadata", content);
        let records = fs.bytes(path(0, "log")).unwrap();
        assert_eq!(reopened(&fs.after_kill(), "by the catalogue"), (up_to(26), 26));
        fs.remove_file(Path::new("/data/catalogue")).unwrap();
        let mut opened = Opened::new(&fs).unwrap();
        assert_eq!(opened.log.log_end_offset(), 0);
        assert_eq!(opened.append(batch(1, 1, 1, 1), 0).unwrap().first_offset, 0);
        let stray = fs
            .list(Path::new(ROOT))
            .unwrap()
            .into_iter()
            .find(|entry| entry.name.ends_with("-stray"))
            .unwrap();
        assert_eq!(fs.bytes(format!("{ROOT}/{}/{:020}.log", stray.name, 0)).unwrap(), records);
    }
}

/// The offsets of the batches that a read returns as they were written, each by its own read.
fn readable(opened: &Opened, whole: &[(i64, Vec<u8>)]) -> Vec<i64> {
    let is_read = |base: i64, expected: &[u8]| {
        let Ok(Some(slice)) = opened.log.read(base, i64::MAX, 1, true) else { return false };
        let mut bytes = vec![0; slice.length];
        slice.file.read_exact_at(&mut bytes, slice.position).is_ok() && bytes == expected
    };
    let read = whole.iter().filter(|(base, bytes)| is_read(*base, bytes));
    read.map(|(base, _)| *base).collect()
}

/// One bit in the header of a batch, of those that a checksum covers and of the others: the batch
/// is damaged, and all others can be read. No offset is lost to the log, whether it was stopped or
/// killed.
#[test]
fn a_bit_in_a_header_costs_the_reads_of_its_batch_alone() {
    let killed = log();
    let mut opened = Opened::new(&killed.after_kill()).unwrap();
    let whole = opened.batches().unwrap();
    opened.close().unwrap();
    drop(opened);
    let stopped = killed.after_kill();
    Opened::new(&stopped).unwrap().close().unwrap();
    for (fs, what) in [(&stopped, "stopped"), (&killed, "killed")] {
        for base in [6, 18] {
            let bytes = fs.bytes(path(base, "log")).unwrap();
            let mut position = 0;
            for found in batch::Batches::new(&bytes) {
                let (header, of_batch) = found.unwrap();
                // What was not flushed is cut off, which other tests have.
                let bits = if header.base_offset < 22 { HEADER_BYTES * 8 } else { 0 };
                for bit in 0..bits {
                    let fs = fs.after_kill();
                    fs.edit(path(base, "log"), |bytes| {
                        bytes[position + bit / 8] ^= 1 << (bit % 8);
                    });
                    let opened = Opened::new(&fs).unwrap();
                    let what = format!("{what}: bit {bit} of {}", header.base_offset);
                    assert_eq!(opened.log.log_end_offset(), 26, "{what}");
                    let read = readable(&opened, &whole);
                    let expected: Vec<i64> =
                        up_to(26).into_iter().filter(|base| *base != header.base_offset).collect();
                    assert_eq!(read, expected, "{what}");
                    assert_eq!(opened.dir.failure(), None, "{what}");
                }
                position += of_batch.len();
            }
        }
    }
}

/// A file that somebody has cut off: a read returns what is there, and an error for the rest. A
/// slice behind the end of the file would end the connection, and with it the reads of other
/// partitions.
#[test]
fn a_sealed_segment_that_is_cut_off_is_read_as_far_as_it_goes() {
    let fs = log();
    let mut opened = Opened::new(&fs).unwrap();
    opened.close().unwrap();
    drop(opened);
    let size = fs.bytes(path(6, "log")).unwrap().len() / 3;
    for left in [size, size + 70, 2 * size - 1] {
        let fs = fs.after_kill();
        // As after a clean stop: the catalogue is believed.
        fs.edit(path(6, "log"), |bytes| bytes.truncate(left));
        let opened = Opened::new(&fs).unwrap();
        for offset in 0..26 {
            let read = opened.log.read(offset, i64::MAX, 1 << 20, true);
            let what = format!("{offset} of a segment of {left} bytes: {read:?}");
            let Ok(slice) = read else {
                assert!((8..12).contains(&offset), "{what}");
                continue;
            };
            let slice = slice.unwrap();
            assert!(!(8..12).contains(&offset), "{what}");
            let mut bytes = vec![0; slice.length];
            slice.file.read_exact_at(&mut bytes, slice.position).unwrap();
        }
        assert_eq!(opened.dir.failure(), None);
    }
}

#[test]
fn recovery_of_any_bytes_ends_well() {
    let segment = log().bytes(path(0, "log")).unwrap();
    recover_bytes(&segment);
    for at in 0..segment.len() {
        let mut damaged = segment.clone();
        damaged[at] ^= 1 << (at % 8);
        if at % 3 == 0 {
            damaged.truncate(at * 7 % segment.len());
        }
        recover_bytes(&damaged);
    }
}

/// The progress of recovery.
fn recovered(fs: &Faulty) -> Recovered {
    let recovery = Recovery::default();
    drop(open_dir_shown(Arc::new(fs.clone()), Path::new(ROOT), &recovery));
    recovery.now()
}

/// The progress counts every log and every byte once, whatever recovery finds in them.
#[test]
fn how_far_recovery_is_ends_with_all_that_there_was() {
    let harms: [(&str, Harm); 4] = [
        ("nothing", |_| {}),
        ("a torn tail", |fs| fs.edit(path(18, "log"), |bytes| bytes.truncate(bytes.len() - 3))),
        ("damage where it was flushed", |fs| fs.edit(path(6, "log"), |bytes| bytes[100] ^= 1)),
        ("a segment that is missing", |fs| fs.edit(path(12, "log"), Vec::clear)),
    ];
    for (what, harm) in harms {
        let fs = log();
        harm(&fs);
        let bytes: u64 =
            BASES.iter().map(|base| fs.bytes(path(*base, "log")).unwrap().len() as u64).sum();
        let now = recovered(&fs);
        assert_eq!(
            (now.logs_done, now.logs, now.bytes_done, now.bytes),
            (1, 1, bytes, bytes),
            "{what}"
        );
    }
    // After a clean stop there is nothing to recover.
    let fs = log();
    Opened::new(&fs).unwrap().close().unwrap();
    assert_eq!(recovered(&fs), Recovered::default());
}
