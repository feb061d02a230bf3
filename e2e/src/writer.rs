//! A client that writes numbered records during faults and remembers what was acknowledged.
//!
//! Its assertions are part of the tests: it panics when the client gives up.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::driver::{Client, Driver, From, Produce};
use crate::record::Record;

/// Records per call; the client answers once all of them are acknowledged.
const CHUNK: usize = 50;

/// How long a client may wait until the cluster works again.
pub const PATIENCE: Duration = Duration::from_secs(140);

/// A client that writes numbered records to a partition of its own until it is stopped.
#[derive(Debug)]
pub struct Writer {
    client: Client,
    topic: String,
    partition: i32,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    longest: Arc<Mutex<Duration>>,
    /// Returns the offset of each record, in the order of their numbers.
    thread: JoinHandle<Vec<i64>>,
}

impl Writer {
    /// Starts to write, idempotently and with `acks=all`.
    #[must_use]
    pub fn start(client: Client, bootstrap: &str, topic: &str, partition: i32) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let longest = Arc::new(Mutex::new(Duration::ZERO));
        let mut driver = Driver::start(client, bootstrap).unwrap();
        let (stopping, counter, pause, name) =
            (Arc::clone(&stop), Arc::clone(&written), Arc::clone(&longest), topic.to_owned());
        let thread = std::thread::spawn(move || {
            let mut offsets = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                let records: Vec<Record> = (offsets.len()..offsets.len() + CHUNK)
                    .map(|number| Record::new("k", number.to_string()).to(partition))
                    .collect();
                let produce = Produce::records(&name, &records)
                    .set("acks", "all")
                    .set("idempotent", true)
                    // Longer than a client waits for a broker that is cut off (librdkafka:
                    // `socket.timeout.ms`, one minute).
                    .set("timeout_ms", 130_000);
                let begun = Instant::now();
                let told = driver
                    .produce(produce)
                    .unwrap_or_else(|failure| panic!("{client:?}: {failure:?}"));
                // The first call includes the client's own start.
                if !offsets.is_empty() {
                    let mut longest = pause.lock().unwrap();
                    *longest = begun.elapsed().max(*longest);
                }
                offsets.extend(told.into_iter().map(|(_, offset)| offset));
                counter.store(offsets.len(), Ordering::Relaxed);
            }
            offsets
        });
        Self { client, topic: topic.to_owned(), partition, stop, written, longest, thread }
    }

    /// Waits for further acknowledgements.
    pub fn moves(&self) {
        let (before, deadline) = (self.written.load(Ordering::Relaxed), Instant::now() + PATIENCE);
        while self.written.load(Ordering::Relaxed) == before {
            assert!(
                !self.thread.is_finished() && Instant::now() < deadline,
                "{:?} does not move any more",
                self.client
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The longest call so far, without the first. It is for people: no test asserts a time.
    #[must_use]
    pub fn longest(&self) -> Duration {
        *self.longest.lock().unwrap()
    }

    /// Stops, and returns the offset of each record.
    #[must_use]
    pub fn finish(self) -> Vec<i64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }

    /// Stops, and reads everything back: each record must be there once, in order, at its
    /// acknowledged offset, and nothing else.
    pub fn finish_and_check(self, driver: &mut Driver) {
        let (topic, partition) = (self.topic.clone(), self.partition);
        let offsets = self.finish();
        check(driver, &topic, partition, &offsets);
    }
}

/// Checks that each record is there once, in order, at its acknowledged offset, and nothing else.
pub fn check(driver: &mut Driver, topic: &str, partition: i32, offsets: &[i64]) {
    let read = driver.consume(topic, &[partition], From::Beginning, offsets.len()).unwrap();
    let found: Vec<_> = read.iter().map(|record| (record.text(), record.offset)).collect();
    let expected: Vec<_> =
        offsets.iter().enumerate().map(|(number, offset)| (number.to_string(), *offset)).collect();
    assert!(
        found == expected,
        "{topic}-{partition}: {} acknowledged, {} read; they differ first at {:?}",
        expected.len(),
        found.len(),
        found.iter().zip(&expected).find(|(found, expected)| found != expected)
    );
    let end = driver.list_offset(topic, partition, "latest").unwrap().0;
    assert_eq!(usize::try_from(end).unwrap(), offsets.len(), "nothing else is in the log");
}
