//! Shared by the tests of bad input: a second client that must not notice anything.
//!
//! Its assertions are part of the tests: it panics when it is harmed.
#![allow(clippy::unwrap_used)]

use crate::batch::Batch;
use crate::cluster::Cluster;
use crate::wire::{Connection, await_topic, create_topic, error, list_offset, produce};

/// The most that the broker's memory may grow, whatever it receives. Each of its threads may
/// decompress one batch at a time, of up to 16 times `max.message.bytes`, into a buffer that
/// doubles as it grows. The allocator returns memory later.
const RSS_GROWTH_BYTES: u64 = 192 << 20;

/// Another client of the same broker.
#[derive(Debug)]
pub struct Bystander {
    /// Its cluster.
    pub cluster: Cluster,
    /// Its topic, with one partition.
    pub topic: String,
    connection: Connection,
    /// The number of records in its partition. A test that appends some itself must add them here.
    pub produced: i64,
    rss_before: u64,
}

impl Bystander {
    /// Starts a new cluster with a topic that has these settings.
    #[must_use]
    pub fn start(configs: &[(&str, &str)]) -> Self {
        let cluster = Cluster::start().unwrap();
        let mut connection = Connection::open(&cluster.bootstrap).unwrap();
        let topic = cluster.topic("bad");
        assert_eq!(
            create_topic(&mut connection, topic.as_bytes(), 1, 1, configs).unwrap(),
            error::NONE
        );
        await_topic(&cluster.bootstrap, &topic, 1).unwrap();
        let rss_before = cluster.local().map_or(0, |l| l.broker_rss().unwrap());
        let mut bystander = Self { cluster, topic, connection, produced: 0, rss_before };
        bystander.unharmed();
        bystander
    }

    /// A new connection.
    #[must_use]
    pub fn attacker(&self) -> Connection {
        Connection::open(&self.cluster.bootstrap).unwrap()
    }

    /// Checks that its next record gets the next offset, so no refused batch was appended.
    pub fn unharmed(&mut self) {
        let batch = Batch::of(&[b"fine"], now_ms()).encode();
        assert_eq!(
            produce(&mut self.connection, &self.topic, 0, &batch).unwrap(),
            (error::NONE, self.produced)
        );
        self.produced += 1;
        assert_eq!(
            list_offset(&mut self.connection, &self.topic, 0, -1).unwrap(),
            (error::NONE, self.produced)
        );
        if let Some(local) = self.cluster.local() {
            let rss = local.broker_rss().unwrap();
            assert!(
                rss < self.rss_before + RSS_GROWTH_BYTES,
                "memory grew from {} to {rss} bytes",
                self.rss_before
            );
        }
    }

    /// Sends a batch on a new connection and returns the error code.
    pub fn refused(&self, batch: &Batch) -> i16 {
        produce(&mut self.attacker(), &self.topic, 0, &batch.encode()).unwrap().0
    }
}

/// The time in milliseconds since 1970.
#[must_use]
pub fn now_ms() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

/// Pseudo-random bytes; the same in every run.
#[must_use]
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}
