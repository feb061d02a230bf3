//! A replica of a partition: the broker's log on files that the caller provides, with its producers
//! and transactions.
//!
//! The same log is written as a leader, follows a leader, is truncated and is reopened. Batches
//! hold one record, so an offset is a count.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::io;
use std::path::Path;
use std::sync::Arc;

use weir_protocol::batch::BatchHeader;
use weir_protocol::error::ErrorCode;
use weir_protocol::record::BatchBuilder;
use weir_protocol::types::{LeaderEpoch, TopicId, TopicPartition};

use super::{Aborted, Described, Guard, Marker, Producer};
use weir_log::{
    AppendError, Identity, LogConfig, LogDir, LogDirOptions, LogReader, LogWriter, Origin,
    Prepared, Storage,
};

const ROOT: &str = "/data";

/// Segments of some twelve batches, so that the transactions are spread over files and memory.
const SEGMENT_BYTES: u32 = 1_200;

/// The producers of a replica and their transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Each producer, by its id.
    pub producers: Vec<Described>,
    /// The aborted transactions, in the order of their markers.
    pub aborted: Vec<Aborted>,
    /// The high watermark.
    pub high_watermark: i64,
    /// The last stable offset; -1 if it is not known.
    pub stable: i64,
}

/// The replica.
#[derive(Debug)]
pub struct Partition {
    storage: Arc<dyn Storage>,
    dir: LogDir,
    writer: LogWriter,
    log: Arc<LogReader>,
}

impl Partition {
    /// Opens the existing log, or an empty one.
    ///
    /// # Errors
    /// When the existing log cannot be read.
    pub fn open(storage: Arc<dyn Storage>) -> io::Result<Self> {
        let identity = Identity { cluster_id: "sim".to_owned(), broker_id: 0 };
        let options = LogDirOptions { open_files_max: 16, recovery_threads: 1 };
        let dir = LogDir::open(Arc::clone(&storage), Path::new(ROOT), &identity, options)
            .map_err(io::Error::other)?;
        let config = LogConfig { segment_bytes: SEGMENT_BYTES, ..LogConfig::default() };
        let id = TopicPartition { topic: TopicId(uuid::Uuid::from_u128(1)), index: 0 };
        let writer = dir.open_log(id, &"t".into(), Arc::new(config))?;
        let log = writer.reader();
        Ok(Self { storage, dir, writer, log })
    }

    /// Ends the process, cleanly or not, and opens the log again as another process.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn open_again(mut self, orderly: bool) -> io::Result<Self> {
        if orderly {
            self.dir.close(std::slice::from_mut(&mut self.writer))?;
        } else {
            // The background flush has come this far.
            self.dir.checkpoint()?;
        }
        let Self { storage, dir, writer, log } = self;
        drop((writer, log));
        drop(dir);
        Self::open(storage)
    }

    /// The offset after the last batch.
    pub fn end(&self) -> i64 {
        self.log.log_end_offset()
    }

    /// The leader epoch of a batch; `None` if there is no such batch.
    pub fn epoch_of(&self, offset: i64) -> Option<LeaderEpoch> {
        self.log.epoch_of(offset)
    }

    /// Notes that the transaction's coordinator is asked before its first batch is appended.
    /// Returns `None` if the transaction is open here.
    ///
    /// # Errors
    /// The error code for the client.
    pub fn ask_to_verify(
        &mut self,
        (id, epoch): Producer,
        sequence: i32,
        raises_epoch: bool,
        ms: u64,
    ) -> Result<Option<Guard>, ErrorCode> {
        self.writer.ask_to_verify(id, epoch, sequence, raises_epoch, time(ms)).map_err(code)
    }

    /// Appends a client's batch as a leader. Returns its offset, from this append or an earlier
    /// one.
    ///
    /// # Errors
    /// The error code for the client.
    pub fn write(
        &mut self,
        (id, producer_epoch): Producer,
        sequence: i32,
        guard: Option<Guard>,
        epoch: LeaderEpoch,
        ms: u64,
    ) -> Result<i64, ErrorCode> {
        let mut builder =
            BatchBuilder::new(0).producer(id, producer_epoch, sequence).transactional();
        builder.append(0, time(ms), None, Some(b"value"), []);
        let bytes = builder.build(0).map_err(|_| ErrorCode::UnknownServerError)?;
        let header = BatchHeader::parse(&bytes).map_err(|_| ErrorCode::UnknownServerError)?;
        let batch = Prepared { bytes, headers: vec![header], origin: Origin::Client(guard) };
        self.append(batch, epoch, ms)
    }

    /// Appends a marker as a leader. Returns its offset.
    ///
    /// # Errors
    /// For a late marker.
    pub fn end_transaction(
        &mut self,
        marker: Marker,
        epoch: LeaderEpoch,
        ms: u64,
    ) -> Result<i64, ErrorCode> {
        let batch = Prepared::marker(marker, time(ms)).map_err(code)?;
        self.append(batch, epoch, ms)
    }

    fn append(&mut self, batch: Prepared, epoch: LeaderEpoch, ms: u64) -> Result<i64, ErrorCode> {
        let said = self.writer.append_as_leader(&mut [batch], epoch, time(ms)).pop();
        let info = said.unwrap_or(Err(AppendError::Storage)).map_err(code)?;
        Ok(info.first_offset)
    }

    /// Reads the batches of `from..bound`, one after the other, as an answer to a follower contains
    /// them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read(&self, from: i64, bound: i64) -> io::Result<Vec<u8>> {
        let (mut bytes, mut next) = (Vec::new(), from);
        while let Some(slice) =
            self.log.read(next, bound, usize::MAX, true).map_err(io::Error::other)?
        {
            let begin = bytes.len();
            bytes.resize(begin + slice.length, 0);
            slice.file.read_exact_at(bytes.get_mut(begin..).unwrap_or_default(), slice.position)?;
            next = self.log.end_of(&slice)?;
        }
        Ok(bytes)
    }

    /// Appends records that a leader has sent. Returns the log end offset.
    ///
    /// # Errors
    /// The reason why they cannot be appended.
    pub fn follow(&mut self, records: &[u8], epoch: LeaderEpoch, ms: u64) -> io::Result<i64> {
        self.writer.append_as_follower(records, epoch, time(ms)).map_err(io::Error::other)
    }

    /// Removes the records that the leader does not have.
    ///
    /// # Errors
    /// When the truncation fails.
    pub fn truncate(&mut self, offset: i64) -> io::Result<i64> {
        self.writer.truncate_to(offset)
    }

    /// Raises the high watermark, at most to the log end offset.
    pub fn commit(&self, high_watermark: i64) {
        self.log.advance_high_watermark(high_watermark.min(self.end()));
    }

    /// Returns the producers and transactions.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn known(&mut self, ms: u64) -> io::Result<Known> {
        let producers = self.writer.described_producers(time(ms)).map_err(io::Error::other)?;
        Ok(Known {
            producers,
            aborted: self.log.aborted_transactions(self.log.log_start_offset(), i64::MAX)?,
            high_watermark: self.log.high_watermark(),
            stable: self.log.last_stable_offset().unwrap_or(-1),
        })
    }
}

fn time(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn code(error: AppendError) -> ErrorCode {
    match error {
        AppendError::Producer(error) => error.code(),
        AppendError::NotLeader => ErrorCode::NotLeaderOrFollower,
        AppendError::NotEnoughReplicasAfterAppend
        | AppendError::Storage
        | AppendError::Nameless => ErrorCode::KafkaStorageError,
    }
}
