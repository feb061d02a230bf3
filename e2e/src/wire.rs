//! A hand-made Kafka connection: frames, headers and the few requests that the tests need, in
//! versions without tagged fields.
//!
//! It can send what no client would. It shares no code with the broker, so that both do not have
//! the same mistake.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The limit of a wait for an answer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Kafka's error codes that the tests expect.
pub mod error {
    /// A failure without a code of its own.
    pub const UNKNOWN_SERVER_ERROR: i16 = -1;
    /// No error.
    pub const NONE: i16 = 0;
    /// The offset lies outside the log.
    pub const OFFSET_OUT_OF_RANGE: i16 = 1;
    /// The checksum or the size of a batch is wrong.
    pub const CORRUPT_MESSAGE: i16 = 2;
    /// The topic or partition does not exist.
    pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    /// The partition has no leader yet.
    pub const LEADER_NOT_AVAILABLE: i16 = 5;
    /// Another broker leads the partition, or none.
    pub const NOT_LEADER_OR_FOLLOWER: i16 = 6;
    /// A batch exceeds `max.message.bytes`.
    pub const MESSAGE_TOO_LARGE: i16 = 10;
    /// The topic name is not legal.
    pub const INVALID_TOPIC_EXCEPTION: i16 = 17;
    /// The group has no such member.
    pub const UNKNOWN_MEMBER_ID: i16 = 25;
    /// A record's timestamp is out of the topic's bounds.
    pub const INVALID_TIMESTAMP: i16 = 32;
    /// The broker does not serve the version.
    pub const UNSUPPORTED_VERSION: i16 = 35;
    /// A topic of this name exists already.
    pub const TOPIC_ALREADY_EXISTS: i16 = 36;
    /// The number of partitions is not valid.
    pub const INVALID_PARTITIONS: i16 = 37;
    /// The replication factor is not valid.
    pub const INVALID_REPLICATION_FACTOR: i16 = 38;
    /// The value is not valid, or the configuration does not exist.
    pub const INVALID_CONFIG: i16 = 40;
    /// The request is not valid.
    pub const INVALID_REQUEST: i16 = 42;
    /// The batch has a format that brokers no longer accept.
    pub const UNSUPPORTED_FOR_MESSAGE_FORMAT: i16 = 43;
    /// A gap in a producer's sequence.
    pub const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
    /// A sequence number that is too old to find its offset.
    pub const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
    /// An epoch below the producer's current one.
    pub const INVALID_PRODUCER_EPOCH: i16 = 47;
    /// A transactional batch without an open transaction.
    pub const INVALID_TXN_STATE: i16 = 48;
    /// A transactional batch in a request without a transactional id.
    pub const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
    /// A leader epoch below the partition's current one.
    pub const FENCED_LEADER_EPOCH: i16 = 74;
    /// A leader epoch above the partition's current one.
    pub const UNKNOWN_LEADER_EPOCH: i16 = 75;
    /// The codec does not exist, or not in this version.
    pub const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
    /// A record violates the format.
    pub const INVALID_RECORD: i16 = 87;
}

/// Writes a request's body; all integers are big-endian.
#[derive(Debug, Default, Clone)]
pub struct Body(pub Vec<u8>);

impl Body {
    /// One byte.
    #[must_use]
    pub fn i8(mut self, v: i8) -> Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    /// Two bytes.
    #[must_use]
    pub fn i16(mut self, v: i16) -> Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    /// Four bytes.
    #[must_use]
    pub fn i32(mut self, v: i32) -> Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    /// Eight bytes.
    #[must_use]
    pub fn i64(mut self, v: i64) -> Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    /// A string with its length in two bytes.
    #[must_use]
    pub fn str(self, v: &str) -> Self {
        self.text(v.as_bytes())
    }
    /// The same as `str`, for bytes that need not be text.
    #[must_use]
    pub fn text(mut self, v: &[u8]) -> Self {
        self = self.i16(i16::try_from(v.len()).unwrap_or(i16::MAX));
        self.0.extend(v);
        self
    }
    /// Bytes with their length in four bytes.
    #[must_use]
    pub fn bytes(mut self, v: &[u8]) -> Self {
        self = self.i32(i32::try_from(v.len()).unwrap_or(i32::MAX));
        self.0.extend(v);
        self
    }
}

/// Reads a reply; reading past its end is an error.
#[derive(Debug)]
pub struct Reply(pub Vec<u8>, usize);

impl Reply {
    /// Reads bytes from another source, such as a record.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec(), 0)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let end = self.1 + N;
        let bytes = self.0.get(self.1..end).context("the reply ends early")?;
        self.1 = end;
        Ok(bytes.try_into()?)
    }
    /// One byte.
    ///
    /// # Errors
    /// When the reply ends.
    pub fn i8(&mut self) -> Result<i8> {
        self.take().map(i8::from_be_bytes)
    }
    /// Two bytes.
    ///
    /// # Errors
    /// When the reply ends.
    pub fn i16(&mut self) -> Result<i16> {
        self.take().map(i16::from_be_bytes)
    }
    /// Four bytes.
    ///
    /// # Errors
    /// When the reply ends.
    pub fn i32(&mut self) -> Result<i32> {
        self.take().map(i32::from_be_bytes)
    }
    /// Eight bytes.
    ///
    /// # Errors
    /// When the reply ends.
    pub fn i64(&mut self) -> Result<i64> {
        self.take().map(i64::from_be_bytes)
    }
    /// A string with its length in two bytes; null is empty.
    ///
    /// # Errors
    /// When the reply ends.
    pub fn str(&mut self) -> Result<String> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        let bytes = self.0.get(self.1..self.1 + length).context("the reply ends early")?;
        self.1 += length;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }
    /// All bytes that were not read yet.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        self.0.get(self.1..).unwrap_or_default()
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    correlation: i32,
}

impl Connection {
    /// Connects to the first of the addresses.
    ///
    /// # Errors
    /// When no process listens there.
    pub fn open(bootstrap: &str) -> Result<Self> {
        let first = bootstrap.split(',').next().unwrap_or(bootstrap);
        let address = first.to_socket_addrs()?.next().context("no address")?;
        let stream = TcpStream::connect_timeout(&address, PATIENCE).context("connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, correlation: 0 })
    }

    /// Sends raw bytes. It ignores an error, which means that the peer has closed already.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// A whole request frame: header version 1 with the client id `e2e`, then the body.
    #[must_use]
    pub fn frame(&mut self, api: i16, version: i16, body: &Body) -> Vec<u8> {
        self.correlation += 1;
        let header = Body::default().i16(api).i16(version).i32(self.correlation).str("e2e");
        Body::default().bytes(&[header.0, body.0.clone()].concat()).0
    }

    /// Sends a request and reads its reply.
    ///
    /// # Errors
    /// When the connection ends, or the reply is for another request.
    pub fn call(&mut self, api: i16, version: i16, body: &Body) -> Result<Reply> {
        let frame = self.frame(api, version, body);
        self.stream.write_all(&frame).context("send")?;
        let mut reply = self.reply()?;
        let correlation = reply.i32()?;
        ensure!(
            correlation == self.correlation,
            "the reply to request {correlation}, not {}",
            self.correlation
        );
        Ok(reply)
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn reply(&mut self) -> Result<Reply> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).context("read a reply's size")?;
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(size))?];
        self.stream.read_exact(&mut frame).context("read a reply")?;
        Ok(Reply(frame, 0))
    }

    /// Checks that the broker closes the connection within the time without sending anything.
    ///
    /// # Errors
    /// When it sends something, or keeps the connection open.
    pub fn closed(&mut self, within: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(within))?;
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => Ok(()),
            Ok(_) => bail!("it answered"),
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                Ok(())
            }
            Err(e) => bail!("it stays open: {e}"),
        }
    }
}

/// Produce version 7 of one batch; returns error code and base offset.
///
/// # Errors
/// When the connection ends.
pub fn produce(
    c: &mut Connection,
    topic: &str,
    partition: i32,
    batch: &[u8],
) -> Result<(i16, i64)> {
    let mut reply = c.call(0, 7, &produce_body(topic, partition, batch, -1))?;
    ensure!(reply.i32()? == 1, "one topic");
    reply.str()?;
    ensure!(reply.i32()? == 1 && reply.i32()? == partition, "one partition");
    Ok((reply.i16()?, reply.i64()?))
}

/// The body of a Produce request of version 7.
#[must_use]
pub fn produce_body(topic: &str, partition: i32, batch: &[u8], acks: i16) -> Body {
    Body::default()
        .i16(-1)
        .i16(acks)
        .i32(10_000)
        .i32(1)
        .str(topic)
        .i32(1)
        .i32(partition)
        .bytes(batch)
}

/// A Fetch of one partition.
#[derive(Debug, Clone, Copy)]
pub struct FetchOf<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// -1 for consumers.
    pub replica_id: i32,
    /// The client's leader epoch, -1 for none.
    pub leader_epoch: i32,
    /// The offset to begin at.
    pub offset: i64,
    /// The limit of the whole reply and of the partition.
    pub max_bytes: i32,
}

impl FetchOf<'_> {
    /// The body in version 11, without a session.
    #[must_use]
    pub fn body(&self) -> Body {
        let head = Body::default()
            .i32(self.replica_id)
            .i32(0)
            .i32(1)
            .i32(self.max_bytes)
            .i8(0)
            .i32(0)
            .i32(-1)
            .i32(1)
            .str(self.topic)
            .i32(1);
        head.i32(self.partition)
            .i32(self.leader_epoch)
            .i64(self.offset)
            .i64(-1)
            .i32(self.max_bytes)
            .i32(0)
            .str("")
    }

    /// Returns the partition's error code, or that of the whole reply, with the high watermark and
    /// the size of the records in bytes.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn send(&self, c: &mut Connection) -> Result<(i16, i64, usize)> {
        let mut reply = c.call(1, 11, &self.body())?;
        reply.i32()?;
        let whole = reply.i16()?;
        reply.i32()?;
        if whole != 0 || reply.i32()? == 0 {
            return Ok((whole, -1, 0));
        }
        reply.str()?;
        reply.i32()?;
        reply.i32()?;
        let (code, high_watermark) = (reply.i16()?, reply.i64()?);
        reply.i64()?;
        reply.i64()?;
        for _ in 0..reply.i32()?.max(0) {
            reply.i64()?;
            reply.i64()?;
        }
        reply.i32()?;
        let bytes = usize::try_from(reply.i32()?).unwrap_or(0);
        Ok((code, high_watermark, bytes))
    }
}

/// CreateTopics version 4 of one topic; returns its error code.
///
/// # Errors
/// When the connection ends.
pub fn create_topic(
    c: &mut Connection,
    name: &[u8],
    partitions: i32,
    replicas: i16,
    configs: &[(&str, &str)],
) -> Result<i16> {
    let mut body = Body::default()
        .i32(1)
        .text(name)
        .i32(partitions)
        .i16(replicas)
        .i32(0)
        .i32(i32::try_from(configs.len())?);
    for (key, value) in configs {
        body = body.str(key).str(value);
    }
    let mut reply = c.call(19, 4, &body.i32(20_000).i8(0))?;
    reply.i32()?;
    ensure!(reply.i32()? == 1, "one topic");
    reply.str()?;
    reply.i16()
}

/// ListOffsets version 4 of one partition; returns error code and offset.
///
/// # Errors
/// When the connection ends.
pub fn list_offset(
    c: &mut Connection,
    topic: &str,
    partition: i32,
    timestamp: i64,
) -> Result<(i16, i64)> {
    let body = Body::default()
        .i32(-1)
        .i8(0)
        .i32(1)
        .str(topic)
        .i32(1)
        .i32(partition)
        .i32(-1)
        .i64(timestamp);
    let mut reply = c.call(2, 4, &body)?;
    reply.i32()?;
    reply.i32()?;
    reply.str()?;
    reply.i32()?;
    reply.i32()?;
    let code = reply.i16()?;
    reply.i64()?;
    Ok((code, reply.i64()?))
}

/// InitProducerId version 1 without a transactional id: the error code, the producer id and its
/// epoch.
///
/// # Errors
/// When the connection ends.
pub fn init_producer_id(c: &mut Connection) -> Result<(i16, i64, i16)> {
    let mut reply = c.call(22, 1, &Body::default().i16(-1).i32(60_000))?;
    reply.i32()?;
    Ok((reply.i16()?, reply.i64()?, reply.i16()?))
}

/// Waits until some broker answers ListOffsets for every partition of a topic. Apache Kafka replies
/// to CreateTopics before its broker knows the topic.
///
/// # Errors
/// When that does not happen in time.
pub fn await_topic(bootstrap: &str, topic: &str, partitions: i32) -> Result<()> {
    let mut brokers = bootstrap.split(',').map(Connection::open).collect::<Result<Vec<_>>>()?;
    let deadline = Instant::now() + PATIENCE;
    for partition in 0..partitions {
        while !leads_somewhere(&mut brokers, topic, partition)? {
            ensure!(Instant::now() < deadline, "{topic}-{partition} does not come up");
        }
    }
    Ok(())
}

fn leads_somewhere(brokers: &mut [Connection], topic: &str, partition: i32) -> Result<bool> {
    for broker in brokers {
        if list_offset(broker, topic, partition, -1)?.0 == error::NONE {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The broker that coordinates a group.
///
/// # Errors
/// When no broker does, or the broker does not answer.
pub fn coordinator(bootstrap: &str, group: &str) -> Result<i32> {
    let mut reply = Connection::open(bootstrap)?.call(10, 0, &Body::default().str(group))?;
    let error = reply.i16()?;
    ensure!(error == error::NONE, "FindCoordinator answers {error}");
    reply.i32()
}

/// A group's committed offsets, by topic and partition (OffsetFetch version 5); `None` while none
/// of the brokers coordinates it.
#[must_use]
pub fn committed(bootstrap: &str, group: &str) -> Option<BTreeMap<(String, i32), i64>> {
    let all = Body::default().str(group).i32(-1);
    bootstrap.split(',').find_map(|broker| committed_at(broker, &all).ok())
}

/// Whether a group is marked for deletion once it has no members. Weir commits an offset for that
/// mark, which a fetch of all offsets leaves out.
#[must_use]
pub fn is_marked_for_deletion(bootstrap: &str, group: &str) -> bool {
    let mark = ("weir.dev/reset".to_owned(), 64);
    let one = Body::default().str(group).i32(1).str(&mark.0).i32(1).i32(mark.1);
    let mut answers = bootstrap.split(',').filter_map(|broker| committed_at(broker, &one).ok());
    answers.any(|offsets| offsets.get(&mark) == Some(&1))
}

fn committed_at(broker: &str, question: &Body) -> Result<BTreeMap<(String, i32), i64>> {
    let mut reply = Connection::open(broker)?.call(9, 5, question)?;
    reply.i32()?;
    let mut offsets = BTreeMap::new();
    for _ in 0..reply.i32()?.max(0) {
        let topic = reply.str()?;
        for _ in 0..reply.i32()?.max(0) {
            let (partition, offset) = (reply.i32()?, reply.i64()?);
            reply.i32()?;
            reply.str()?;
            ensure!(reply.i16()? == error::NONE, "of a partition");
            offsets.insert((topic.clone(), partition), offset);
        }
    }
    ensure!(reply.i16()? == error::NONE, "not the coordinator");
    Ok(offsets)
}
