//! The producers and transactions of a log in its writer. They are loaded on demand, checked before
//! an append, and updated by each one.

use std::collections::BTreeMap;
use std::io;

use tracing::{info, warn};
use weir_protocol::batch::BatchHeader;
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::super::producers::{
    Described, Duplicate, Guard, LastRecord, ProducerError, Producers, Standing,
};
use super::super::transactions::{Aborted, Transactions, is_damage};
use super::super::validate::{Origin, Prepared};
use super::super::{AppendError, snapshots};
use super::LogWriter;

impl LogWriter {
    /// Loads the log's transactions for its readers
    /// ([`LogReader::last_stable_offset`](super::super::LogReader::last_stable_offset)).
    ///
    /// # Errors
    /// When they cannot be read; the log directory is then offline.
    pub fn load_transactions(&mut self, now_ms: i64) -> Result<(), AppendError> {
        self.producers(now_ms).map(|_| ())
    }

    /// Returns whether the producers must be loaded before use.
    pub(super) fn lacks_producers(&self) -> bool {
        self.producers.is_none() || self.reader.distrusts_transaction_index()
    }

    pub(super) fn load_producers(&mut self, now_ms: i64) -> io::Result<()> {
        if self.reader.distrusts_transaction_index() {
            self.restore_transaction_index(now_ms)?;
        }
        let (producers, transactions) = match snapshots::load(&self.dir, &self.reader, now_ms) {
            Err(error) if is_damage(&error) => {
                warn!(topic = %self.reader.topic, partition = self.reader.id.index, log = %self.reader.path().display(), %error, "a file of aborted transactions is damaged or of an older version");
                self.restore_transaction_index(now_ms)?;
                snapshots::load(&self.dir, &self.reader, now_ms)?
            }
            loaded => loaded?,
        };
        *self.reader.transactions.write() = transactions;
        self.producers = Some(Box::new(producers));
        Ok(())
    }

    /// Reads the aborted transactions from the log and rewrites every `.txnindex` file: one of them
    /// is damaged, or the process was killed before it wrote them. No compaction swaps segments
    /// meanwhile, because a swap needs the writer too.
    fn restore_transaction_index(&mut self, now_ms: i64) -> io::Result<()> {
        info!(topic = %self.reader.topic, partition = self.reader.id.index, log = %self.reader.path().display(), "the aborted transactions are read from the log, and their files are written anew");
        let aborted = snapshots::find_aborted(&self.dir, &self.reader, now_ms)?;
        self.write_transactions(&aborted, 0)?;
        self.reader.trust_transaction_index();
        Ok(())
    }

    /// Drops the producers and transactions, because the log was truncated.
    pub(super) fn forget_producers(&mut self) {
        self.producers = None;
        *self.reader.transactions.write() = Transactions::default();
    }

    /// Resets the producers and transactions, because the log starts again, empty.
    pub(super) fn begin_without_producers(&mut self, offset: i64) {
        self.producers = Some(Box::default());
        *self.reader.transactions.write() = Transactions::none(offset);
    }

    /// Checks batches against the loaded producers.
    pub(super) fn admit_producer(
        &mut self,
        append: &Prepared,
    ) -> Result<Option<Duplicate>, ProducerError> {
        let Some(producers) = &self.producers else { return Ok(None) };
        match append.origin {
            Origin::Client(guard) => {
                let standing = append.headers.first().map_or(Standing::NotAsked, |header| {
                    self.verifications.standing(header.producer_id, header.producer_epoch, guard)
                });
                producers.admit(&append.headers, standing)
            }
            Origin::Coordinator => producers.admit_from_coordinator(&append.headers).map(|()| None),
            Origin::Marker(marker) => producers.admit_marker(&marker).map(|()| None),
        }
    }

    /// Records a batch that is about to be written, from any origin. If the producers are not
    /// loaded, a later load finds it in the log.
    pub(super) fn note_producer(&mut self, header: &BatchHeader, batch: &[u8], now_ms: i64) {
        if !header.has_producer() {
            return;
        }
        let change =
            self.producers.as_mut().and_then(|producers| producers.replay(header, batch, now_ms));
        if let Some(change) = change {
            let high_watermark = self.reader.high_watermark();
            self.reader.transactions.write().changed(change, high_watermark);
        }
        self.verifications.appended(header, change.is_some());
    }

    /// Returns a guard if the coordinator must verify the transaction before this producer's batch
    /// is appended (`Partition.maybeStartTransactionVerification`). Returns `None` if the
    /// transaction is already open here.
    ///
    /// # Errors
    /// When the producers cannot be read.
    pub fn ask_to_verify(
        &mut self,
        producer: ProducerId,
        epoch: ProducerEpoch,
        sequence: i32,
        raises_epoch: bool,
        now_ms: i64,
    ) -> Result<Option<Guard>, AppendError> {
        if self.producers(now_ms)?.has_open_transaction(producer, epoch) {
            return Ok(None);
        }
        Ok(Some(self.verifications.ask(producer, epoch, sequence, raises_epoch)))
    }

    /// Writes the producers and transactions for a later load at the end of the log: at the next
    /// start, or after a crash. Writes nothing if they are not loaded.
    ///
    /// The order matters. A load from a producer snapshot does not look for aborted transactions
    /// before it. So their files must be on the disk before the snapshot.
    pub(super) fn leave_producers(&mut self) -> io::Result<()> {
        let Some(producers) = &self.producers else { return Ok(()) };
        if !self.reader.transactions.read().is_known {
            return Ok(());
        }
        self.write_transaction_index()?;
        snapshots::write(&self.dir, &self.reader, producers)
    }

    /// Writes the aborted transactions that are in memory to their files.
    fn write_transaction_index(&self) -> io::Result<()> {
        let (aborted, in_memory_from) = {
            let transactions = self.reader.transactions.read();
            (transactions.aborted().to_vec(), transactions.in_memory_from())
        };
        self.write_transactions(&aborted, in_memory_from)
    }

    /// Writes the files of the segments that begin at `from` or later. Each gets the entries of
    /// `aborted` whose markers are in its segment.
    fn write_transactions(&self, aborted: &[Aborted], from: i64) -> io::Result<()> {
        let segments = self.reader.segments.load();
        for (index, segment) in segments.iter().enumerate() {
            let (base, next) = (
                segment.base_offset(),
                segments.get(index + 1).map_or(i64::MAX, |next| next.base_offset()),
            );
            if base < from {
                continue;
            }
            let inside: Vec<_> = aborted
                .iter()
                .filter(|it| (base..next).contains(&it.last_offset))
                .copied()
                .collect();
            segment.write_aborted(&self.dir.files, &inside)?;
        }
        Ok(())
    }

    /// Forgets producers that have not written for `producer.id.expiration.ms`.
    pub fn expire_producers(&mut self, now_ms: i64) {
        let expiration_ms = self.config.producer_expiration_ms;
        if let Some(producers) = &mut self.producers {
            producers.expire(now_ms, expiration_ms);
        }
    }

    /// The last batches of the log's producers, which compaction must keep.
    ///
    /// # Errors
    /// When their state cannot be read.
    pub fn last_records(
        &mut self,
        now_ms: i64,
    ) -> Result<BTreeMap<ProducerId, LastRecord>, AppendError> {
        Ok(self.producers(now_ms)?.last_records())
    }

    /// Returns a copy of the producers, for a caller that continues without reading the log.
    ///
    /// # Errors
    /// When their state cannot be read.
    pub fn known_producers(&mut self, now_ms: i64) -> Result<Producers, AppendError> {
        Ok(self.producers(now_ms)?.clone())
    }

    /// The producers, for DescribeProducers.
    ///
    /// # Errors
    /// When their state cannot be read.
    pub fn described_producers(&mut self, now_ms: i64) -> Result<Vec<Described>, AppendError> {
        Ok(self.producers(now_ms)?.described())
    }
}

impl Prepared {
    /// Iterates over the batches with their bytes.
    pub fn batches(&self) -> impl Iterator<Item = (BatchHeader, &[u8])> {
        let mut position = 0;
        self.headers.iter().map(move |header| {
            let begin = position;
            position += header.size_bytes();
            (*header, self.bytes.get(begin..position).unwrap_or_default())
        })
    }

    /// Builds the batch of a transaction marker.
    ///
    /// # Errors
    /// Never in practice: a marker is small and not compressed.
    pub fn marker(
        marker: super::super::producers::Marker,
        now_ms: i64,
    ) -> Result<Self, AppendError> {
        let bytes = super::super::producers::marker_batch(&marker, now_ms)
            .map_err(|_| AppendError::Storage)?;
        let header = BatchHeader::parse(&bytes).map_err(|_| AppendError::Storage)?;
        Ok(Self { bytes, headers: vec![header], origin: Origin::Marker(marker) })
    }
}
