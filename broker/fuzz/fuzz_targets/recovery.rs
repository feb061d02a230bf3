//! A log directory whose partition holds what the fuzzer made up: it is opened, read to its end,
//! appended to, closed and opened again.
//!
//! Nothing panics, offsets rise, and what is appended is read back. Slow on a disk: run it with
//! `TMPDIR` in memory, and with `-detect_leaks=0`, since the flusher of a directory that was
//! dropped may still be on its way out when leaks are looked for.

#![no_main]

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;
use weir_log::{
    Disk, Identity, LogConfig, LogDir, LogDirOptions, LogReader, LogWriter, validate,
};
use weir_protocol::batch::{self, Batches};
use weir_protocol::record::BatchBuilder;
use weir_protocol::types::{LeaderEpoch, TopicId, TopicPartition};

const TOPIC: TopicPartition = TopicPartition { topic: TopicId(Uuid::from_u128(7)), index: 0 };

/// The produce version of the batch that is appended, and its time.
const VERSION: i16 = 9;
const NOW_MS: i64 = 1_700_000_000_000;

/// Bytes that are read at a time: small, so that batches are cut off.
const READ_BYTES: usize = 200;

/// What a byte of the input stands for: the file that the bytes after it go to.
const FILES: [&str; 8] = [
    "00000000000000000000.log",
    "00000000000000000003.log",
    "00000000000000000000.index",
    "00000000000000000000.timeindex",
    "leader-epoch-checkpoint",
    "00000000000000000003.snapshot",
    CATALOGUE,
    CLEAN,
];
const CATALOGUE: &str = "catalogue";
const CLEAN: &str = ".kafka_cleanshutdown";

/// This bit of the same byte sets the checksums of a segment's batches right: behind a wrong one,
/// nothing is looked at.
const FIX_CHECKSUMS: u8 = 0x80;

fuzz_target!(|data: &[u8]| {
    let root = tempfile::tempdir().expect("a directory");
    let root = root.path();
    drop(open(root));
    // A damaged log says so and ends; one that the catalogue vouches for may also hold what nobody
    // has checked.
    let vouched = lay_out(root, data);
    let Some((dir, mut writer)) = open(root) else { return };
    let log = writer.reader();
    let sound = read_to_end(&log);
    assert!(sound || vouched, "what recovery leaves is whole");
    let end = log.log_end_offset();
    let epoch = LeaderEpoch(log.latest_epoch().map_or(0, |epoch| epoch.0));
    let mut builder = BatchBuilder::new(0);
    builder.append(0, NOW_MS, Some(b"key"), Some(b"value"), []);
    let bytes = builder.build(0).expect("nothing is compressed");
    let prepared =
        validate::validate(bytes, writer.config(), VERSION, NOW_MS).expect("the batch is one");
    let appended = writer.append_as_leader(&mut [prepared], epoch, NOW_MS).remove(0);
    match &appended {
        Ok(info) => {
            assert_eq!((info.first_offset, log.log_end_offset()), (end, end + 1));
            let found = log
                .read(end, end + 1, READ_BYTES, true)
                .ok()
                .flatten()
                .map(|slice| slice.base_offset);
            assert!(found == Some(end) || vouched, "what is appended is read back: {found:?}");
        }
        Err(_) => assert!(vouched, "what recovery leaves can be appended to: {appended:?}"),
    }
    if dir.close(&mut [writer]).is_err() {
        assert!(vouched);
        return;
    }
    let end = log.log_end_offset();
    drop((log, dir));
    let (_dir, writer) = open(root).expect("what was closed in order can be opened");
    assert_eq!(writer.reader().log_end_offset(), end);
});

fn open(root: &Path) -> Option<(LogDir, LogWriter)> {
    let identity = Identity { cluster_id: "fuzz".to_owned(), broker_id: 0 };
    let options = LogDirOptions { open_files_max: 16, recovery_threads: 1 };
    let dir = LogDir::open(Arc::new(Disk), root, &identity, options).ok()?;
    let writer = dir.open_log(TOPIC, &Arc::from("t"), Arc::new(LogConfig::default())).ok()?;
    Some((dir, writer))
}

/// Writes the files; returns whether there is a catalogue, which vouches for what is in them.
fn lay_out(root: &Path, mut data: &[u8]) -> bool {
    let dir = root.join("t-0");
    std::fs::create_dir(&dir).expect("a directory");
    let metadata = format!("version: 0\ntopic_id: {}\n", TOPIC.topic);
    std::fs::write(dir.join("partition.metadata"), metadata).expect("a file");
    let mut vouched = false;
    while let Some((&[kind, high, low], rest)) = data.split_first_chunk() {
        let (content, rest) =
            rest.split_at(usize::from(u16::from_be_bytes([high, low])).min(rest.len()));
        data = rest;
        let name = FILES[usize::from(kind) % FILES.len()];
        let (path, content) = match name {
            CATALOGUE => {
                vouched = true;
                let head = format!("weir-catalogue-1 {:08x}\n", crc32c::crc32c(content));
                (root.join(name), [head.as_bytes(), content].concat())
            }
            CLEAN => (root.join(name), content.to_vec()),
            _ if kind & FIX_CHECKSUMS != 0 && name.ends_with(".log") => {
                (dir.join(name), with_checksums(content))
            }
            _ => (dir.join(name), content.to_vec()),
        };
        std::fs::write(path, content).expect("a file");
    }
    vouched
}

fn with_checksums(content: &[u8]) -> Vec<u8> {
    let mut fixed = content.to_vec();
    let mut at = 0;
    for (header, bytes) in Batches::new(content).map_while(Result::ok) {
        batch::set_max_timestamp(
            &mut fixed[at..at + bytes.len()],
            header.is_log_append_time(),
            header.max_timestamp,
        );
        at += bytes.len();
    }
    fixed
}

/// Reads as a consumer does, from the log start offset on; returns whether all of it could be read
/// and rises.
fn read_to_end(log: &LogReader) -> bool {
    let end = log.log_end_offset();
    for timestamp in [0, NOW_MS, i64::MAX] {
        let _ = log.offset_for_timestamp(timestamp, end);
    }
    let _ = log.offset_of_max_timestamp(end);
    let mut offset = log.log_start_offset();
    while offset < end {
        let slice = match log.read(offset, end, READ_BYTES, true) {
            Ok(Some(slice)) => slice,
            Ok(None) => return true,
            Err(_) => return false,
        };
        let mut bytes = BytesMut::zeroed(slice.length);
        if slice.file.read_exact_at(&mut bytes, slice.position).is_err() {
            return false;
        }
        let before = offset;
        for (header, _) in Batches::new(&bytes).map_while(Result::ok) {
            if header.next_offset() <= offset {
                return false;
            }
            offset = header.next_offset();
        }
        if offset == before {
            return false;
        }
    }
    offset == end
}
