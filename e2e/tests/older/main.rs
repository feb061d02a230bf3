//! Data directories that older versions wrote: today's broker and controller open them, tell what
//! was told before, and go on.
//!
//! `recorded/` holds them. `NAME.tar.gz` is the directory of a `weir local` with one broker, and
//! `NAME.txt` what a client read before the broker ended. `today_reads_what_today_wrote` records
//! the same with the binary under test, so it shows that the recordings are right. To record a
//! directory of another version, run that test with its binary as `WEIR_BIN`, and take the files
//! from `target/tmp/recorded`.
#![allow(clippy::unwrap_used, missing_docs)]

mod observe;
mod write;

use std::path::{Path, PathBuf};
use std::process::Command;

use weir_e2e::batch::Batch;
use weir_e2e::cluster::Local;
use weir_e2e::kubernetes::eventually;
use weir_e2e::txn::{self, Version, committed_offset, end, init, send};
use weir_e2e::wire::{Connection, await_topic, create_topic, error, list_offset, produce};

use self::observe::{LATEST, observe};
use self::write::{GROUP, IDLE, OPEN, PENDING_OFFSET, TOPICS, TRANSACTIONAL, write};

/// How the processes end before the directory is packed.
const ENDS: [&str; 2] = ["stopped", "killed"];

/// These tests need `weir local` itself.
fn own() -> bool {
    std::env::var_os("WEIR_E2E_BOOTSTRAP").is_none()
}

fn tar(arguments: &[&str]) {
    let output = Command::new("tar").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Records a directory, and returns the path of its archive.
fn record(end: &str) -> PathBuf {
    let local = Local::start(Some(write::CLUSTER)).unwrap();
    write(&local);
    let told = observe(&local).unwrap();
    if end == "stopped" {
        local.run(&["down"]).unwrap();
    } else {
        local.run(&["kill", "0"]).unwrap();
        local.run(&["kill", "controller"]).unwrap();
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recorded");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{end}.txt")), told).unwrap();
    let archive = folder.join(format!("{end}.tar.gz"));
    let what = ["--exclude=*.log.old", "--exclude=logs", "-C"];
    let (data, to) = (local.data(), archive.to_string_lossy().into_owned());
    tar(&[&["-czf", &to], &what[..], &[&*data.to_string_lossy(), "."]].concat());
    archive
}

/// Opens a recording with the binary under test, and compares: as if the machine had run on since,
/// and as if it had been started anew.
fn reads(archive: &Path) {
    let this = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    for boot in [this.trim(), "another"] {
        let local = Local::start_on(|data| {
            tar(&["-xzf", &archive.to_string_lossy(), "-C", &data.to_string_lossy()]);
            let run = data.join("broker-0/run");
            let mut of: serde_json::Value =
                serde_json::from_slice(&std::fs::read(&run).unwrap()).unwrap();
            of["boot_id"] = boot.into();
            std::fs::write(&run, of.to_string()).unwrap();
        })
        .unwrap();
        compares(&local, archive);
    }
}

fn compares(local: &Local, archive: &Path) {
    let name = archive.to_string_lossy().replace(".tar.gz", "");
    let expected = std::fs::read_to_string(format!("{name}.txt")).unwrap();
    let told = eventually("the cluster tells everything", || observe(local).map(Some));
    assert_eq!(told, expected, "{name}");
    its_open_transaction_ends(&local.bootstrap());
    goes_on(&local.bootstrap());
    local.run(&["down"]).unwrap();
    local.run(&["up", "--detach"]).unwrap();
    let again = eventually("the cluster tells everything", || observe(local).map(Some));
    let kept = |text: &str| -> Vec<String> {
        let stays = |line: &&str| line.starts_with("topic ") || line.starts_with("resource ");
        text.lines().filter(stays).map(str::to_owned).collect()
    };
    let (before, after) = (kept(&expected), kept(&again));
    assert!(
        before.iter().all(|line| after.contains(line)),
        "{name}, after another stop: {after:?}"
    );
}

/// The transaction that was open has timed out meanwhile, or its producer comes back. Its records
/// were not committed; those of others behind it stay, and so does the offset that was committed
/// outside of it.
fn its_open_transaction_ends(bootstrap: &str) {
    let mut c = Connection::open(bootstrap).unwrap();
    eventually("the open transaction is ended", || {
        Ok((init(&mut c, OPEN, 60_000, Version::V2)?.0 == error::NONE).then_some(()))
    });
    let ended = eventually("its marker", || {
        let all = observe::read(&mut c, "open", 0)?;
        Ok((all.stable == all.end).then_some(all))
    });
    let mut own =
        ended.batches.iter().filter(|batch| batch.is_transactional() && !batch.is_control());
    let first = own.next().map(|batch| (batch.producer, batch.base));
    assert_eq!(ended.aborted.into_iter().collect::<Vec<_>>(), Vec::from_iter(first));
    assert_eq!(committed_offset(&mut c, IDLE, "open").unwrap(), PENDING_OFFSET);
}

/// Everything takes new records behind the old ones, and transactions, groups and topics go on.
fn goes_on(bootstrap: &str) {
    let mut c = Connection::open(bootstrap).unwrap();
    let batch = Batch::of(&[b"of today"], 1_760_000_900_000);
    for topic in TOPICS {
        let (_, latest) = list_offset(&mut c, topic, 0, LATEST).unwrap();
        let mut one = batch.clone();
        if topic == "compact" {
            one.payload = weir_e2e::batch::record(0, Some(b"new"), Some(b"of today"));
        }
        assert_eq!(produce(&mut c, topic, 0, &one.encode()).unwrap(), (error::NONE, latest));
    }
    for (id, version) in TRANSACTIONAL {
        let (code, mut from) = init(&mut c, id, 60_000, version).unwrap();
        assert_eq!(code, error::NONE, "{id}");
        for commit in [true, false] {
            if version == Version::V1 {
                assert_eq!(txn::add(&mut c, from, "transactions", 0).unwrap(), error::NONE);
            }
            let mut one = Batch::of(&[b"of today"], 1).from_producer(from.producer, from.epoch, 0);
            one.attributes = observe::TRANSACTIONAL;
            let (_, latest) = list_offset(&mut c, "transactions", 0, LATEST).unwrap();
            assert_eq!(
                send(&mut c, from, "transactions", 0, &one.encode()).unwrap(),
                (error::NONE, latest)
            );
            let (code, next) = end(&mut c, from, commit).unwrap();
            assert_eq!(code, error::NONE, "{id}");
            from = eventually("the end of a transaction", || {
                let (code, again) = init(&mut c, id, 60_000, version)?;
                Ok((code == error::NONE).then_some(again))
            });
            assert!(from.epoch > next.epoch || from.producer != next.producer, "{id}");
        }
    }
    write::commit(&mut c, GROUP, "none", 9);
    assert_eq!(committed_offset(&mut c, GROUP, "none").unwrap(), 9);
    assert_eq!(create_topic(&mut c, b"today", 2, 1, &[]).unwrap(), error::NONE);
    await_topic(bootstrap, "today", 2).unwrap();
    assert_eq!(produce(&mut c, "today", 1, &batch.encode()).unwrap(), (error::NONE, 0));
}

/// What is recorded, and how, is right: today's binary reads its own recordings.
#[test]
fn today_reads_what_today_wrote() {
    if !own() {
        return;
    }
    for end in ENDS {
        reads(&record(end));
    }
}

#[test]
fn today_reads_what_older_versions_wrote() {
    if !own() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/older/recorded");
    let mut archives: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "gz"))
        .collect();
    archives.sort();
    assert!(archives.len() >= ENDS.len(), "{}", folder.display());
    archives.iter().for_each(|archive| reads(archive));
}
