//! Tests of the log: against a model with a crash at every step, against faults of the disk, and
//! with invalid files.

mod compaction;
mod crashes;
mod damage;
mod deletion;
mod derived;
mod faults;
mod follow;
mod offsets;
mod reads;
mod replicas;
mod settings;
mod told;
mod transactions;
mod whole;

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use uuid::Uuid;
use weir_protocol::batch::{self, BatchError, BatchHeader, HEADER_BYTES};
use weir_protocol::record::BatchBuilder;
use weir_protocol::types::{LeaderEpoch, TopicId, TopicPartition};

use super::faulty::Faulty;
use super::*;

const ROOT: &str = "/data";
const DIR: &str = "/data/orders-0";

/// Segments of a few batches each, with an index entry for every second batch.
fn config() -> LogConfig {
    LogConfig { segment_bytes: 2000, index_interval_bytes: 300, ..LogConfig::default() }
}

fn partition() -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(7)), index: 0 }
}

/// An open log directory and the one log in it.
#[derive(Debug)]
struct Opened {
    dir: LogDir,
    writer: LogWriter,
    log: Arc<LogReader>,
}

impl Opened {
    fn new(fs: &Faulty) -> Result<Self, OpenError> {
        Self::with(fs, config())
    }

    fn with(fs: &Faulty, config: LogConfig) -> Result<Self, OpenError> {
        let identity = Identity { cluster_id: "test".into(), broker_id: 0 };
        let dir = LogDir::open(
            Arc::new(fs.clone()),
            Path::new(ROOT),
            &identity,
            LogDirOptions { open_files_max: 3, recovery_threads: 1 },
        )?;
        let writer = dir.open_log(partition(), &"orders".into(), Arc::new(config));
        let writer = writer.map_err(|error| OpenError::Io { path: DIR.into(), error })?;
        let log = writer.reader();
        Ok(Self { dir, writer, log })
    }

    /// Appends one run of batches and waits for the background flush that it causes.
    fn append(&mut self, bytes: BytesMut, epoch: i32) -> Result<AppendInfo, AppendError> {
        self.append_from(Origin::Client(None), bytes, epoch)
    }

    fn append_from(
        &mut self,
        origin: Origin,
        bytes: BytesMut,
        epoch: i32,
    ) -> Result<AppendInfo, AppendError> {
        let append = Prepared { origin, ..prepared(bytes) };
        let result =
            self.writer.append_as_leader(&mut [append], LeaderEpoch(epoch), 1_000).remove(0);
        self.settle();
        result
    }

    fn settle(&self) {
        self.log.flushes.wait_until_flushed();
    }

    fn flush(&self) {
        self.log.request_flush();
        self.settle();
    }

    fn close(&mut self) -> std::io::Result<()> {
        self.dir.close(std::slice::from_mut(&mut self.writer))
    }

    /// Every batch from the log start offset on, as a consumer gets it: each by its own read.
    fn batches(&self) -> Result<Vec<(i64, Vec<u8>)>, ReadError> {
        let mut batches = Vec::new();
        let mut from = self.log.log_start_offset();
        while let Some(slice) = self.log.read(from, i64::MAX, 1, true)? {
            let mut bytes = vec![0; slice.length];
            slice.file.read_exact_at(&mut bytes, slice.position)?;
            let header = BatchHeader::parse(&bytes).unwrap();
            assert!(
                slice.base_offset == header.base_offset && header.last_offset() >= from,
                "the batch that holds {from}, or the next one"
            );
            from = header.next_offset();
            batches.push((header.base_offset, bytes));
        }
        Ok(batches)
    }

    fn base_offsets(&self) -> Vec<i64> {
        self.batches().unwrap().iter().map(|(base, _)| *base).collect()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.log.flushes.stop();
    }
}

fn prepared(bytes: BytesMut) -> Prepared {
    let headers = batch::Batches::new(&bytes).map(|batch| batch.unwrap().0).collect();
    Prepared { bytes, headers, origin: Origin::Client(None) }
}

/// A batch of records with equal timestamps, and values of `value_bytes` that differ by `salt`.
fn batch(records: i32, value_bytes: usize, timestamp: i64, salt: u8) -> BytesMut {
    fill(BatchBuilder::new(0), records, value_bytes, timestamp, salt)
}

fn fill(
    mut builder: BatchBuilder,
    records: i32,
    value_bytes: usize,
    timestamp: i64,
    salt: u8,
) -> BytesMut {
    let value: Vec<u8> = (0..value_bytes).map(|byte| salt ^ byte as u8).collect();
    for offset in 0..i64::from(records) {
        builder.append(offset, timestamp, None, Some(&value), []);
    }
    builder.build(0).unwrap()
}
