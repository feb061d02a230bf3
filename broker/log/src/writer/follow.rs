//! Appends a leader's batches unchanged, with their offsets and epochs.
//!
//! The follower decides nothing again and rewrites nothing. It refuses batches that a leader cannot
//! have sent, and the partition's fetcher retries. This is no fault of the disk.

use std::io::{self, IoSlice};

use weir_protocol::batch::{self, BatchError, BatchHeader, Batches};
use weir_protocol::types::LeaderEpoch;

use super::{LogWriter, Next};

/// Why batches from a leader were not appended.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FollowError {
    /// The log directory is offline.
    #[error("the log directory is offline")]
    Storage,
    /// The log is deleted, or another log that is being deleted still has its name.
    #[error("a log that is being deleted still has this one's name")]
    Nameless,
    /// A batch is damaged.
    #[error("a batch from the leader is damaged: {0}")]
    Corrupt(#[from] BatchError),
    /// A batch does not follow the log end offset.
    #[error(
        "a batch from the leader begins at offset {first} and ends at {last}, but the log ends at {end}"
    )]
    Offset {
        /// Its first offset.
        first: i64,
        /// Its last offset.
        last: i64,
        /// The log end offset at that point.
        end: i64,
    },
    /// The first batch has a later epoch than the fetch: its sender has lost the leadership, or the
    /// batch is damaged where no checksum covers it.
    #[error("a batch from the leader is of epoch {epoch}, and was fetched in {fetched}")]
    Later {
        /// Its epoch.
        epoch: LeaderEpoch,
        /// The epoch of the fetch.
        fetched: LeaderEpoch,
    },
    /// A batch has an older epoch than the one before it.
    #[error("a batch from the leader is of epoch {epoch}, the one before it of {latest}")]
    Epoch {
        /// Its epoch.
        epoch: LeaderEpoch,
        /// The newest epoch before it.
        latest: LeaderEpoch,
    },
}

/// Consecutive batches that are not written yet.
#[derive(Default)]
struct Span {
    from: usize,
    bytes: usize,
    headers: Vec<BatchHeader>,
}

impl Span {
    /// Whether no batch was accepted yet.
    fn is_first(&self) -> bool {
        self.from == 0 && self.headers.is_empty()
    }
}

impl LogWriter {
    /// Appends the whole batches of `records` unchanged. An incomplete last batch is left for the
    /// next fetch. Returns the log end offset.
    ///
    /// `epoch` is the epoch of the fetch. The append ends before a batch of a later epoch, because
    /// its sender has lost the leadership meanwhile (KAFKA-18723).
    ///
    /// # Errors
    /// The reason why no more was appended. Earlier batches of `records` may have been.
    pub fn append_as_follower(
        &mut self,
        records: &[u8],
        epoch: LeaderEpoch,
        now_ms: i64,
    ) -> Result<i64, FollowError> {
        if self.dir.is_offline() {
            return Err(FollowError::Storage);
        }
        if !self.has_name() {
            return Err(FollowError::Nameless);
        }
        self.open_newest_segment(now_ms);
        if self.dir.is_offline() {
            return Err(FollowError::Storage);
        }
        let mut span = Span::default();
        let (mut end, mut latest) = (self.reader.log_end_offset(), self.reader.latest_epoch());
        let mut result = Ok(());
        for found in Batches::new(records) {
            let (header, batch) =
                match found.and_then(|(_, batch)| Ok((batch::checked(batch)?, batch))) {
                    Ok(found) => found,
                    Err(BatchError::Incomplete { .. }) if !span.is_first() => break,
                    Err(error) => {
                        result = Err(error.into());
                        break;
                    }
                };
            if header.leader_epoch > epoch {
                // Without any progress the same fetch would follow at once, and again.
                if span.is_first() {
                    result = Err(FollowError::Later { epoch: header.leader_epoch, fetched: epoch });
                }
                break;
            }
            if let Err(error) = follows(&header, end, latest) {
                result = Err(error);
                break;
            }
            if self.must_roll_before(&header, span.bytes as u64, now_ms) {
                self.write_span(records, &mut span, now_ms)?;
                self.roll(now_ms).map_err(|error| self.fence("begin a segment in", &error))?;
            }
            if header.has_producer() {
                // The leader has admitted it, so the follower only records it.
                self.producers(now_ms).map_err(|_| FollowError::Storage)?;
                self.note_producer(&header, batch, now_ms);
            }
            (end, latest) = (header.next_offset(), Some(header.leader_epoch));
            span.bytes += header.size_bytes();
            span.headers.push(header);
        }
        self.write_span(records, &mut span, now_ms)?;
        result.map(|()| self.reader.log_end_offset())
    }

    fn must_roll_before(&self, header: &BatchHeader, waiting_bytes: u64, now_ms: i64) -> bool {
        let next = Next {
            bytes: header.size_bytes() as u64,
            last_offset: header.last_offset(),
            max_timestamp: header.max_timestamp,
        };
        self.must_roll(&next, waiting_bytes, now_ms)
    }

    fn write_span(
        &mut self,
        records: &[u8],
        span: &mut Span,
        now_ms: i64,
    ) -> Result<(), FollowError> {
        let Span { from, bytes, headers } = std::mem::take(span);
        span.from = from + bytes;
        if headers.is_empty() {
            return Ok(());
        }
        let slice = IoSlice::new(records.get(from..from + bytes).unwrap_or_default());
        self.write_slices(vec![slice], bytes as u64, now_ms)
            .map_err(|error| self.fence("write to", &error))?;
        self.publish(headers.iter(), bytes as u64, now_ms);
        Ok(())
    }

    fn fence(&self, what: &str, error: &io::Error) -> FollowError {
        self.dir.fail(format!("cannot {what} {}: {error}", self.reader.path().display()));
        FollowError::Storage
    }
}

fn follows(header: &BatchHeader, end: i64, latest: Option<LeaderEpoch>) -> Result<(), FollowError> {
    if header.base_offset < end {
        return Err(FollowError::Offset {
            first: header.base_offset,
            last: header.last_offset(),
            end,
        });
    }
    match latest {
        Some(latest) if header.leader_epoch < latest => {
            Err(FollowError::Epoch { epoch: header.leader_epoch, latest })
        }
        _ => Ok(()),
    }
}
