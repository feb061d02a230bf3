//! The Fetch response, encoded without copying its records.
//!
//! The frame is a list of chunks in wire order: bytes encoded here, and between them the caller's
//! references to records in a file or in memory. The length of the frame is known before any record
//! is read. Only the Fetch handler calls it. It never reads records.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

pub use crate::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, LeaderIdAndEpoch, NodeEndpoint, SnapshotId,
};

use crate::api::ApiKey;
use crate::frame::write_length;
use crate::header::write_response_header;
use crate::messages::{self, Failing, Measured, Message};
use crate::primitive::{EncodeError, Version, Wire, write_array, write_long_length};
use crate::tagged::{TagWriter, refuse_unsupported, write_no_tags};

#[cfg(test)]
mod tests;

/// The most bytes of a response without its topics and endpoints, of a topic without its name and
/// partitions, and of a partition without its aborted transactions.
const ENVELOPE_BYTES_MAX: usize = 64;
const TOPIC_BYTES_MAX: usize = 32;
/// Public because callers reserve memory for a response before they build it.
pub const PARTITION_BYTES_MAX: usize = 128;

/// A reference to records with a known number of bytes.
pub trait RecordsLength {
    /// The exact number of bytes to send.
    fn length(&self) -> usize;
}

impl RecordsLength for Bytes {
    fn length(&self) -> usize {
        self.len()
    }
}

/// A piece of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk<R> {
    /// Encoded bytes.
    Bytes(Bytes),
    /// Records, which the caller sends.
    Records(R),
}

/// A whole response frame.
#[derive(Clone, Debug)]
pub struct Frame<R> {
    /// The bytes of all chunks, including the four of the frame's length.
    pub length: usize,
    /// The frame's pieces in the order of the wire.
    pub chunks: Vec<Chunk<R>>,
}

/// A Fetch response.
#[derive(Clone, Debug)]
pub struct FetchResponse<R> {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// The error of the whole request (version 7 on).
    pub error_code: i16,
    /// The fetch session, 0 for none (version 7 on, KIP-227).
    pub session_id: i32,
    /// The partitions by topic.
    pub topics: Vec<FetchTopic<R>>,
    /// The endpoints of the leaders that the partitions name (version 16 on, KIP-951).
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// The partitions of one topic.
#[derive(Clone, Debug)]
pub struct FetchTopic<R> {
    /// The topic's name, sent up to version 12.
    pub topic: String,
    /// The topic's id, sent from version 13 on.
    pub topic_id: Uuid,
    /// The partitions.
    pub partitions: Vec<FetchPartition<R>>,
}

/// The response of one partition.
#[derive(Clone, Debug)]
pub struct FetchPartition<R> {
    /// The partition's index.
    pub partition_index: i32,
    /// The partition's error.
    pub error_code: i16,
    /// The high watermark; -1 with an error.
    pub high_watermark: i64,
    /// The last stable offset; -1 when it is not known.
    pub last_stable_offset: i64,
    /// The log start offset; -1 when it is not known (version 5 on).
    pub log_start_offset: i64,
    /// Where the fetcher's log diverges from the leader's; the default means that it does not
    /// (version 12 on, KIP-595).
    pub diverging_epoch: EpochEndOffset,
    /// The leader, when the fetcher asked another broker; the default means none (version 12 on,
    /// KIP-951).
    pub current_leader: LeaderIdAndEpoch,
    /// The snapshot to fetch instead; only Raft logs use it (version 12 on).
    pub snapshot_id: SnapshotId,
    /// The aborted transactions in the records, for `read_committed` only.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// The follower to fetch from instead; -1 for none (version 11 on, KIP-392).
    pub preferred_read_replica: i32,
    /// Record batches. `None` is sent as zero bytes and not as null, as in Kafka, because some
    /// clients cannot read null.
    pub records: Option<R>,
}

impl<R> Failing for FetchResponse<R> {
    fn has_error(&self) -> bool {
        let mut partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        self.error_code != 0 || partitions.any(|partition| partition.error_code != 0)
    }
}

/// The encoded bytes, without the records.
impl<R> Measured for FetchResponse<R> {
    fn encoded_bytes_max(&self) -> usize {
        let topics: usize = self.topics.iter().map(|topic| topic.encoded_bytes_max()).sum();
        ENVELOPE_BYTES_MAX + topics + self.node_endpoints.encoded_bytes_max()
    }
}

impl<R> Measured for FetchTopic<R> {
    fn encoded_bytes_max(&self) -> usize {
        let aborted =
            |partition: &FetchPartition<R>| partition.aborted_transactions.encoded_bytes_max();
        let partitions: usize =
            self.partitions.iter().map(|partition| PARTITION_BYTES_MAX + aborted(partition)).sum();
        TOPIC_BYTES_MAX + self.topic.len() + partitions
    }
}

impl<R> Default for FetchResponse<R> {
    fn default() -> Self {
        Self {
            throttle_time_ms: 0,
            error_code: 0,
            session_id: 0,
            topics: Vec::new(),
            node_endpoints: Vec::new(),
        }
    }
}

impl<R> Default for FetchPartition<R> {
    fn default() -> Self {
        let messages::fetch_response::PartitionData {
            partition_index,
            error_code,
            high_watermark,
            last_stable_offset,
            log_start_offset,
            diverging_epoch,
            current_leader,
            snapshot_id,
            aborted_transactions,
            preferred_read_replica,
            records: _,
        } = Default::default();
        Self {
            partition_index,
            error_code,
            high_watermark,
            last_stable_offset,
            log_start_offset,
            diverging_epoch,
            current_leader,
            snapshot_id,
            aborted_transactions,
            preferred_read_replica,
            records: None,
        }
    }
}

impl<R: RecordsLength> FetchResponse<R> {
    /// Encodes the whole frame: length, header and body.
    ///
    /// When the version does not exist, it cannot carry the value of a field, or the frame would
    /// exceed the longest possible one.
    pub fn encode(self, version: i16, correlation_id: i32) -> Result<Frame<R>, EncodeError> {
        if !messages::FetchResponse::VERSIONS.contains(&version) {
            return Err(EncodeError::Version { message: messages::FetchResponse::NAME, version });
        }
        let v = Version {
            number: version,
            flexible: version >= messages::FetchResponse::FIRST_FLEXIBLE_VERSION,
        };
        let mut writer = Writer {
            v,
            buf: BytesMut::with_capacity(self.encoded_bytes_max()),
            records: Vec::new(),
        };
        writer.buf.put_i32(0);
        write_response_header(&mut writer.buf, ApiKey::Fetch, version, correlation_id);
        writer.response(self)?;
        writer.finish()
    }
}

/// The bytes of the frame without records, and the positions of the records in them.
struct Writer<R> {
    v: Version,
    buf: BytesMut,
    /// Records, and the position in `buf` where they belong.
    records: Vec<(usize, R)>,
}

impl<R: RecordsLength> Writer<R> {
    fn response(&mut self, response: FetchResponse<R>) -> Result<(), EncodeError> {
        let v = self.v;
        self.buf.put_i32(response.throttle_time_ms);
        if v.number >= 7 {
            self.buf.put_i16(response.error_code);
            self.buf.put_i32(response.session_id);
        } else {
            refuse_unsupported(response.session_id != 0, "SessionId", v)?;
        }
        write_long_length(&mut self.buf, Some(response.topics.len()), v.flexible)?;
        for topic in response.topics {
            self.topic(topic)?;
        }
        let mut tags = TagWriter::default();
        if !response.node_endpoints.is_empty() {
            refuse_unsupported(v.number < 16, "NodeEndpoints", v)?;
            tags.add(0, &response.node_endpoints, v)?;
        }
        tags.finish(&mut self.buf, v);
        Ok(())
    }

    fn topic(&mut self, topic: FetchTopic<R>) -> Result<(), EncodeError> {
        if self.v.number >= 13 {
            topic.topic_id.write(&mut self.buf, self.v)?;
        } else {
            topic.topic.write(&mut self.buf, self.v)?;
        }
        write_long_length(&mut self.buf, Some(topic.partitions.len()), self.v.flexible)?;
        for partition in topic.partitions {
            self.partition(partition)?;
        }
        write_no_tags(&mut self.buf, self.v);
        Ok(())
    }

    fn partition(&mut self, partition: FetchPartition<R>) -> Result<(), EncodeError> {
        let v = self.v;
        let mut tags = TagWriter::default();
        partition.tags(&mut tags, v)?;
        self.buf.put_i32(partition.partition_index);
        self.buf.put_i16(partition.error_code);
        self.buf.put_i64(partition.high_watermark);
        self.buf.put_i64(partition.last_stable_offset);
        if v.number >= 5 {
            self.buf.put_i64(partition.log_start_offset);
        }
        write_array(&mut self.buf, partition.aborted_transactions.as_deref(), v)?;
        if v.number >= 11 {
            self.buf.put_i32(partition.preferred_read_replica);
        } else {
            refuse_unsupported(partition.preferred_read_replica != -1, "PreferredReadReplica", v)?;
        }
        let length = partition.records.as_ref().map_or(0, R::length);
        write_long_length(&mut self.buf, Some(length), v.flexible)?;
        if let Some(records) = partition.records.filter(|_| length > 0) {
            self.records.push((self.buf.len(), records));
        }
        tags.finish(&mut self.buf, v);
        Ok(())
    }

    /// Writes the frame's length and splits the bytes at the positions of the records.
    fn finish(mut self) -> Result<Frame<R>, EncodeError> {
        let length = self
            .records
            .iter()
            .fold(self.buf.len(), |sum, (_, records)| sum.saturating_add(records.length()));
        write_length(&mut self.buf, length)?;
        let mut bytes = self.buf.freeze();
        let mut chunks = Vec::with_capacity(2 * self.records.len() + 1);
        let mut written = 0;
        for (position, records) in self.records {
            chunks.push(Chunk::Bytes(bytes.split_to(position - written)));
            chunks.push(Chunk::Records(records));
            written = position;
        }
        if !bytes.is_empty() {
            chunks.push(Chunk::Bytes(bytes));
        }
        Ok(Frame { length, chunks })
    }
}

impl<R> FetchPartition<R> {
    /// Collects the tagged fields. All exist since version 12 and are absent while they hold their
    /// defaults.
    fn tags(&self, tags: &mut TagWriter, v: Version) -> Result<(), EncodeError> {
        if self.diverging_epoch != EpochEndOffset::default() {
            refuse_unsupported(v.number < 12, "DivergingEpoch", v)?;
            tags.add(0, &self.diverging_epoch, v)?;
        }
        if self.current_leader != LeaderIdAndEpoch::default() {
            refuse_unsupported(v.number < 12, "CurrentLeader", v)?;
            tags.add(1, &self.current_leader, v)?;
        }
        if self.snapshot_id != SnapshotId::default() {
            refuse_unsupported(v.number < 12, "SnapshotId", v)?;
            tags.add(2, &self.snapshot_id, v)?;
        }
        Ok(())
    }
}
