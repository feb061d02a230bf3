//! Derived files never override the log. After a clean stop and after a crash, these tests damage
//! each byte of each file beside the segments in turn. The log's answers stay the same.

use super::transactions::written;
use super::*;

/// The answers of a log.
#[derive(Debug, PartialEq)]
struct Told {
    end_offset: i64,
    batches: Vec<i64>,
    /// For each time, the offset of the first record that is not older.
    by_time: Vec<Option<i64>>,
    stable: i64,
    aborted: Vec<(i64, i64, i64)>,
    epochs: Vec<(i32, Option<i64>)>,
    producers: Vec<(i64, i16, i32, i32, i64)>,
}

/// Asks the reader and the writer as requests do: what is not loaded is loaded and asked again.
fn told(opened: &mut Opened) -> Told {
    let log = Arc::clone(&opened.log);
    let stable = opened.stable();
    let mut aborted = log.known_aborted_transactions(0, i64::MAX).unwrap();
    if aborted.is_none() {
        assert_eq!(log.last_stable_offset(), None, "nothing is told until it is known");
        assert_eq!(opened.stable(), stable);
        aborted = log.known_aborted_transactions(0, i64::MAX).unwrap();
    }
    let aborted = aborted.expect("known once it is loaded");
    let epoch = |epoch| {
        let end = log.end_offset_for_epoch(LeaderEpoch(epoch));
        (epoch, end.map(|end| end.offset))
    };
    let producers = opened.writer.described_producers(1_000).unwrap();
    Told {
        end_offset: log.log_end_offset(),
        batches: opened.base_offsets(),
        by_time: (990..1_040)
            .map(|time| log.offset_for_timestamp(time, i64::MAX).unwrap())
            .map(|found| found.map(|found| found.offset))
            .collect(),
        stable,
        aborted: aborted
            .iter()
            .map(|it| (it.producer.0, it.first_offset, it.last_offset))
            .collect(),
        epochs: (0..4).map(epoch).collect(),
        producers: producers
            .iter()
            .map(|it| {
                (
                    it.id.0,
                    it.epoch.0,
                    it.last_sequence,
                    it.coordinator_epoch,
                    it.transaction_first_offset,
                )
            })
            .collect(),
    }
}

/// The log of [`written`], and then batches of three more epochs, a millisecond each.
fn grown() -> (Faulty, Opened) {
    let (fs, mut opened, ..) = written();
    for index in 0..30 {
        let sent = batch(1, 100, 1_001 + i64::from(index), 1);
        opened.append(sent, 1 + index / 10).unwrap();
    }
    opened.flush();
    (fs, opened)
}

/// The files beside the segments, except the one that names the owner: without it the directory
/// does not open.
fn derived(fs: &Faulty) -> Vec<String> {
    let names = |dir: &str| {
        let entries = fs.list(Path::new(dir)).unwrap().into_iter().filter(|entry| !entry.is_dir);
        entries.map(|entry| format!("{dir}/{}", entry.name)).collect::<Vec<_>>()
    };
    let not = [".log", "/meta.properties", "/run", "/.lock", "/.kafka_cleanshutdown"];
    let mut files = [names(ROOT), names(DIR)].concat();
    files.retain(|path| not.iter().all(|end| !path.ends_with(end)));
    files
}

/// Damages each file at each place, and compares the answers with those of the undamaged log.
fn whatever_is_damaged(stopped: &Faulty) {
    let whole = told(&mut Opened::new(&stopped.after_kill()).unwrap());
    assert!(
        whole.aborted.len() > 3 && whole.producers.len() > 1 && whole.stable < whole.end_offset
    );
    let files = derived(stopped);
    for kind in
        ["index", "timeindex", "txnindex", "snapshot", "checkpoint", "catalogue", "metadata"]
    {
        assert!(files.iter().any(|path| path.ends_with(kind)), "{kind} in {files:?}");
    }
    for path in files {
        let bytes = stopped.bytes(&path).unwrap();
        // Some bytes of a large file, such as the catalogue; every byte of the others.
        let step = if bytes.len() > 1_000 { 7 } else { 1 };
        for at in (0..bytes.len()).step_by(step) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let cut = (at % 5 == 0).then_some(&bytes[..at]);
            for damaged in cut.into_iter().chain([&flipped[..]]) {
                let fs = stopped.after_kill();
                fs.put(&path, damaged);
                let mut opened = Opened::new(&fs).unwrap();
                let is_cut = damaged.len() < bytes.len();
                assert_eq!(told(&mut opened), whole, "{path} at {at}, cut off: {is_cut}");
                assert_eq!(opened.dir.failure(), None);
            }
        }
    }
}

#[test]
fn after_a_clean_stop() {
    let (fs, mut opened) = grown();
    opened.close().unwrap();
    drop(opened);
    whatever_is_damaged(&fs);
}

#[test]
fn after_a_crash() {
    let (fs, mut opened) = grown();
    opened.dir.checkpoint().unwrap();
    opened.append(batch(1, 100, 1_031, 1), 3).unwrap();
    whatever_is_damaged(&fs.after_kill());
}

/// The catalogue of a clean stop does not override directories that it does not know. Acknowledged
/// records would be lost, and the broker would report that its logs are whole.
#[test]
fn a_catalogue_that_does_not_know_what_is_there() {
    let (fs, mut opened) = grown();
    opened.dir.set_broker_epoch(17).unwrap();
    let whole = told(&mut opened);
    opened.close().unwrap();
    drop(opened);
    let named = fs.bytes("/data/catalogue").unwrap();
    for replaced in [
        // The catalogue of a run that took the logs for new ones, or had none.
        r#"[]"#,
        r#"[{"topic":"orders","topic_id":"00000000-0000-0000-0000-000000000007","partition":0,
            "log_start_offset":0,"log_end_offset":0,"high_watermark":0,"recovery_point":0,
            "segments":[],"epochs":[]}]"#,
    ] {
        let fs = fs.after_kill();
        let head = format!("weir-catalogue-1 {:08x}\n", crc32c::crc32c(replaced.as_bytes()));
        assert!(named.starts_with(b"weir-catalogue-1 "));
        fs.put("/data/catalogue", &[head.as_bytes(), replaced.as_bytes()].concat());
        let mut opened = Opened::new(&fs).unwrap();
        let left = opened.dir.left();
        assert!(left.orderly && left.whole, "{left:?}");
        assert_eq!(told(&mut opened), whole);
    }
}

/// A log that existed at the clean stop and is gone makes the directory incomplete. A leader
/// elected with the remaining data would make the others truncate theirs.
#[test]
fn a_log_that_is_gone_since_a_clean_stop() {
    let (fs, mut opened) = grown();
    opened.dir.set_broker_epoch(17).unwrap();
    opened.close().unwrap();
    drop(opened);
    fs.rename(Path::new(DIR), Path::new("/data/elsewhere")).unwrap();
    for _ in 0..2 {
        let mut opened = Opened::new(&fs).unwrap();
        let left = opened.dir.left();
        assert!(left.orderly && !left.whole, "until the controller has heard of it: {left:?}");
        assert_eq!(opened.log.log_end_offset(), 0);
        opened.close().unwrap();
    }
    let opened = Opened::new(&fs).unwrap();
    opened.dir.set_broker_epoch(18).unwrap();
    drop(opened);
    assert!(Opened::new(&fs).unwrap().dir.left().whole);
}

/// A process that dies while it writes leaves a batch that is not whole, and nothing behind it.
/// Where whole batches lie behind damage, they are cut off: other replicas may have them, and would
/// cut theirs if this broker led.
#[test]
fn a_log_that_is_cut_in_front_of_whole_batches_is_not_whole() {
    let (fs, mut opened) = grown();
    opened.dir.set_broker_epoch(17).unwrap();
    opened.dir.checkpoint().unwrap();
    let bytes = batch(1, 100, 1_031, 1).len();
    let newest = |fs: &Faulty| {
        let base = opened_at(fs);
        (format!("{DIR}/{base:020}.log"), fs.bytes(format!("{DIR}/{base:020}.log")).unwrap().len())
    };
    while opened.log.flushed_offset() == opened.log.log_end_offset() || newest(&fs).1 < 3 * bytes {
        opened.append(batch(1, 100, 1_031, 1), 3).unwrap();
    }
    let left = |harm: fn(&mut Vec<u8>)| {
        let fs = fs.after_kill();
        let (path, _) = newest(&fs);
        fs.edit(path, harm);
        let opened = Opened::new(&fs).unwrap();
        let left = opened.dir.left();
        assert!(!left.orderly && left.broker_epoch == Some(17));
        left.whole
    };
    assert!(left(|_| {}));
    assert!(left(|bytes| bytes.truncate(bytes.len() - 20)), "an interrupted write");
    assert!(!left(|bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }));
}

/// The base offset of the newest segment on a disk.
fn opened_at(fs: &Faulty) -> i64 {
    let entries = fs.list(Path::new(DIR)).unwrap();
    let bases = entries.iter().filter_map(|entry| entry.name.strip_suffix(".log")?.parse().ok());
    bases.max().unwrap()
}

/// Without a catalogue every log is scanned, and what its files say of aborted transactions counts
/// for nothing: those that are not there may be lost.
#[test]
fn without_a_catalogue_aborted_transactions_are_taken_from_the_log() {
    let (fs, mut opened) = grown();
    let whole = told(&mut opened);
    opened.close().unwrap();
    drop(opened);
    let fs = fs.after_kill();
    let indexes: Vec<_> =
        derived(&fs).into_iter().filter(|path| path.ends_with(".txnindex")).collect();
    assert!(indexes.len() > 2);
    for path in indexes.iter().map(String::as_str).chain(["/data/catalogue"]) {
        fs.remove_file(Path::new(path)).unwrap();
    }
    // Nobody asks the first process, which is killed.
    drop(Opened::new(&fs).unwrap());
    let fs = fs.after_kill();
    assert_eq!(told(&mut Opened::new(&fs).unwrap()), whole);
    assert_eq!(
        derived(&fs).iter().filter(|path| path.ends_with(".txnindex")).count(),
        indexes.len()
    );
}

/// An empty index would look like a lost one.
#[test]
fn a_segment_with_records_has_entries_however_small_it_is() {
    let fs = Faulty::default();
    let mut opened = Opened::new(&fs).unwrap();
    opened.append(batch(1, 1, 1_000, 1), 0).unwrap();
    opened.close().unwrap();
    for extension in ["index", "timeindex"] {
        assert_ne!(fs.bytes(format!("{DIR}/{:020}.{extension}", 0)).unwrap(), b"", "{extension}");
    }
}
