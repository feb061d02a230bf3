//! A client of one broker that repeatedly reads all committed records of a compacted topic during
//! the faults.
//!
//! Each reading must show, for each key, the record of the previous reading or a newer one, unless
//! it was deleted. It never shows aborted records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use weir_e2e::numbered::ABORTED;
use weir_e2e::replica::{Replica, read};
use weir_e2e::topics::describe;
use weir_e2e::wire::{Connection, error, list_offset};
use weir_e2e::writer::PATIENCE;

/// The pause between two readings: the writers share the processors.
const PAUSE: Duration = Duration::from_millis(200);

/// After this long without a reading, the previous one does not count any more: a tombstone may
/// have come and gone (`delete.retention.ms`).
const REMEMBERED: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Progress {
    stop: AtomicBool,
    readings: AtomicUsize,
}

/// A reader.
#[derive(Debug)]
pub(crate) struct Reading {
    broker: String,
    progress: Arc<Progress>,
    thread: JoinHandle<()>,
}

impl Reading {
    /// Starts to read partition 0 of a topic at this broker. `bootstrap` has all brokers in the
    /// order of their ids.
    pub(crate) fn start(broker: &str, bootstrap: &str, topic: &'static str) -> Self {
        let progress = Arc::new(Progress::default());
        let (shared, at, bootstrap) =
            (Arc::clone(&progress), broker.to_owned(), bootstrap.to_owned());
        let work = move || {
            let mut shown = Shown::new(format!("{topic} at {at}"));
            while !shared.stop.load(Ordering::Relaxed) {
                let end = end_of(&bootstrap, topic);
                std::thread::sleep(PAUSE);
                // The broker was just killed, or has not caught up.
                let found = end.and_then(|end| Some((read(&at, topic, 0, end).ok()??, end)));
                let Some((replica, end)) = found else { continue };
                shown.take(&replica, end);
                shared.readings.fetch_add(1, Ordering::Relaxed);
            }
        };
        Self { broker: broker.to_owned(), progress, thread: std::thread::spawn(work) }
    }

    /// Waits for one more complete reading.
    pub(crate) fn goes_on(&self) {
        let before = self.progress.readings.load(Ordering::Relaxed);
        let deadline = Instant::now() + PATIENCE;
        while self.progress.readings.load(Ordering::Relaxed) == before {
            assert!(
                !self.thread.is_finished(),
                "what {} shows is wrong, as was said before",
                self.broker
            );
            assert!(Instant::now() < deadline, "nothing can be read at {} any more", self.broker);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops.
    pub(crate) fn finish(self) {
        self.progress.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// The end of the committed records, from the leader.
fn end_of(bootstrap: &str, topic: &str) -> Option<i64> {
    let mut addresses = bootstrap.split(',');
    let found = addresses
        .clone()
        .find_map(|address| describe(&mut Connection::open(address).ok()?, topic).ok()?)?;
    let leader = addresses.nth(usize::try_from(found.partitions.get(&0)?.leader).ok()?)?;
    let (code, end) = list_offset(&mut Connection::open(leader).ok()?, topic, 0, -1).ok()?;
    (code == error::NONE).then_some(end)
}

/// The previous reading.
struct Shown {
    whose: String,
    at: Instant,
    /// The last offset of each key, and whether it has a value.
    last: BTreeMap<String, (i64, bool)>,
}

impl Shown {
    fn new(whose: String) -> Self {
        Self { whose, at: Instant::now(), last: BTreeMap::new() }
    }

    /// Compares a new reading, which reaches at least `end`, and keeps it.
    fn take(&mut self, replica: &Replica, end: i64) {
        let whose = &self.whose;
        let aborted = replica
            .records
            .iter()
            .find(|record| record.value.as_ref().is_some_and(|value| value.contains(ABORTED)));
        assert!(aborted.is_none(), "{whose}: aborted, and shown: {aborted:?}");
        let is_sorted = replica.records.is_sorted_by(|a, b| a.offset < b.offset);
        assert!(is_sorted, "{whose}: not in the order of their offsets");
        let mut last: BTreeMap<String, (i64, bool)> = BTreeMap::new();
        for record in &replica.records {
            if let Some(key) = &record.key {
                last.insert(key.clone(), (record.offset, record.value.is_some()));
            }
        }
        if self.at.elapsed() < REMEMBERED {
            let there = replica.log_start_offset..replica.last_stable_offset.min(end);
            for (key, (offset, is_value)) in
                self.last.iter().filter(|(_, (offset, _))| there.contains(offset))
            {
                let now = last.get(key);
                let is_kept = now.map_or(!is_value, |(now, _)| now >= offset);
                assert!(
                    is_kept,
                    "{whose}: {key} was at {offset}, and is at {now:?}; the log is {there:?}, answered {:?}",
                    replica.answers
                );
            }
        }
        (self.at, self.last) = (Instant::now(), last);
    }
}
