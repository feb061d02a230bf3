//! Hand-built transaction requests in both versions of transactions. Each names its producer
//! explicitly, so that a test can lie, repeat and delay.

use anyhow::{Context, Result, ensure};

use crate::wire::{Body, Connection, Reply};

/// Kafka's error codes for transactions, in addition to those of `wire`.
pub mod error {
    /// The coordinator does not have the transactional id with this producer id.
    pub const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
    /// The timeout is not positive, or exceeds `transaction.max.timeout.ms`.
    pub const INVALID_TRANSACTION_TIMEOUT: i16 = 50;
    /// The markers of the previous transaction are being written.
    pub const CONCURRENT_TRANSACTIONS: i16 = 51;
    /// The marker is from a deposed coordinator.
    pub const TRANSACTION_COORDINATOR_FENCED: i16 = 52;
    /// A newer producer has the transactional id.
    pub const PRODUCER_FENCED: i16 = 90;
}

/// The version of transactions that a client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The client adds partitions by separate requests, and the epoch stays.
    V1,
    /// KIP-890: the epoch rises with the end of each transaction.
    V2,
}

/// Both versions.
pub const VERSIONS: [Version; 2] = [Version::V1, Version::V2];

/// The producer that a request claims to be from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct From<'a> {
    /// The transactional id.
    pub id: &'a str,
    /// The producer id.
    pub producer: i64,
    /// The producer epoch.
    pub epoch: i16,
    /// The version of transactions.
    pub version: Version,
}

impl From<'_> {
    /// The same producer in another epoch.
    #[must_use]
    pub fn in_epoch(self, epoch: i16) -> Self {
        Self { epoch, ..self }
    }
}

/// Writes a length in the flexible form, which is one more.
pub(crate) fn length(body: Body, length: usize) -> Body {
    let mut rest = length + 1;
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    Body([body.0, bytes].concat())
}

/// Writes bytes or text in the flexible form.
pub(crate) fn compact(body: Body, text: &[u8]) -> Body {
    let mut body = length(body, text.len());
    body.0.extend(text);
    body
}

/// A request of a flexible version: its header ends with tagged fields, and so does the response's.
pub(crate) fn flexible(c: &mut Connection, api: i16, version: i16, body: Body) -> Result<Reply> {
    let mut reply = c.call(api, version, &Body([vec![0], body.0].concat()))?;
    reply.i8()?;
    Ok(reply)
}

/// InitProducerId: the error code, and the producer from now on.
///
/// # Errors
/// When the connection ends.
pub fn init<'a>(
    c: &mut Connection,
    id: &'a str,
    timeout_ms: i32,
    version: Version,
) -> Result<(i16, From<'a>)> {
    let mut reply = match version {
        Version::V1 => c.call(22, 1, &Body::default().str(id).i32(timeout_ms))?,
        Version::V2 => flexible(
            c,
            22,
            5,
            compact(Body::default(), id.as_bytes()).i32(timeout_ms).i64(-1).i16(-1).i8(0),
        )?,
    };
    reply.i32()?;
    let code = reply.i16()?;
    let (producer, epoch) = (reply.i64()?, reply.i16()?);
    Ok((code, From { id, producer, epoch, version }))
}

/// InitProducerId of a producer that continues after an error (KIP-360): the error code, and the
/// producer from now on.
///
/// # Errors
/// When the connection ends.
pub fn init_again<'a>(
    c: &mut Connection,
    from: From<'a>,
    timeout_ms: i32,
) -> Result<(i16, From<'a>)> {
    let body = compact(Body::default(), from.id.as_bytes()).i32(timeout_ms);
    let mut reply = flexible(c, 22, 5, body.i64(from.producer).i16(from.epoch).i8(0))?;
    reply.i32()?;
    let code = reply.i16()?;
    let (producer, epoch) = (reply.i64()?, reply.i16()?);
    Ok((code, From { producer, epoch, ..from }))
}

/// AddPartitionsToTxn of one partition, as in transactions v1.
///
/// # Errors
/// When the connection ends.
pub fn add(c: &mut Connection, from: From<'_>, topic: &str, partition: i32) -> Result<i16> {
    let body = Body::default().str(from.id).i64(from.producer).i16(from.epoch);
    let mut reply = c.call(24, 2, &body.i32(1).str(topic).i32(1).i32(partition))?;
    reply.i32()?;
    ensure!(reply.i32()? == 1, "one topic");
    reply.str()?;
    reply.i32()?;
    reply.i32()?;
    reply.i16()
}

/// AddOffsetsToTxn, as in transactions v1.
///
/// # Errors
/// When the connection ends.
pub fn add_offsets(c: &mut Connection, from: From<'_>, group: &str) -> Result<i16> {
    let body = Body::default().str(from.id).i64(from.producer).i16(from.epoch).str(group);
    let mut reply = c.call(25, 2, &body)?;
    reply.i32()?;
    reply.i16()
}

/// Produce of one batch in a transaction: the error code and the offset.
///
/// # Errors
/// When the connection ends.
pub fn send(
    c: &mut Connection,
    from: From<'_>,
    topic: &str,
    partition: i32,
    batch: &[u8],
) -> Result<(i16, i64)> {
    match from.version {
        Version::V1 => {
            let body = Body::default().str(from.id).i16(-1).i32(10_000).i32(1).str(topic).i32(1);
            let mut reply = c.call(0, 7, &body.i32(partition).bytes(batch))?;
            reply.i32()?;
            reply.str()?;
            reply.i32()?;
            reply.i32()?;
            Ok((reply.i16()?, reply.i64()?))
        }
        Version::V2 => {
            let body = length(compact(Body::default(), from.id.as_bytes()).i16(-1).i32(10_000), 1);
            let body = length(compact(body, topic.as_bytes()), 1).i32(partition);
            let mut reply = flexible(c, 0, 12, compact(body, batch).i8(0).i8(0).i8(0))?;
            reply.i8()?;
            let name = reply.i8()?;
            for _ in 1..name {
                reply.i8()?;
            }
            reply.i8()?;
            reply.i32()?;
            Ok((reply.i16()?, reply.i64()?))
        }
    }
}

/// TxnOffsetCommit of one partition.
///
/// # Errors
/// When the connection ends.
pub fn commit_offset(
    c: &mut Connection,
    from: From<'_>,
    group: &str,
    topic: &str,
    offset: i64,
) -> Result<i16> {
    match from.version {
        Version::V1 => {
            let body = Body::default().str(from.id).str(group).i64(from.producer).i16(from.epoch);
            let mut reply =
                c.call(28, 2, &body.i32(1).str(topic).i32(1).i32(0).i64(offset).i32(-1).str(""))?;
            reply.i32()?;
            reply.i32()?;
            reply.str()?;
            reply.i32()?;
            reply.i32()?;
            reply.i16()
        }
        Version::V2 => {
            let body = compact(compact(Body::default(), from.id.as_bytes()), group.as_bytes());
            let body = compact(body.i64(from.producer).i16(from.epoch).i32(-1), b"").i8(0);
            let body = length(compact(length(body, 1), topic.as_bytes()), 1);
            let body = compact(body.i32(0).i64(offset).i32(-1), b"").i8(0).i8(0).i8(0);
            let mut reply = flexible(c, 28, 5, body)?;
            reply.i32()?;
            reply.i8()?;
            for _ in 0..reply.i8()? {
                reply.i8()?;
            }
            reply.i32()?;
            reply.i16()
        }
    }
}

/// EndTxn: the error code, and with transactions v2 the producer from now on.
///
/// # Errors
/// When the connection ends.
pub fn end<'a>(c: &mut Connection, from: From<'a>, commit: bool) -> Result<(i16, From<'a>)> {
    match from.version {
        Version::V1 => {
            let body = Body::default().str(from.id).i64(from.producer).i16(from.epoch);
            let mut reply = c.call(26, 2, &body.i8(commit.into()))?;
            reply.i32()?;
            Ok((reply.i16()?, from))
        }
        Version::V2 => {
            let body =
                compact(Body::default(), from.id.as_bytes()).i64(from.producer).i16(from.epoch);
            let mut reply = flexible(c, 26, 5, body.i8(commit.into()).i8(0))?;
            reply.i32()?;
            let code = reply.i16()?;
            let (producer, epoch) = (reply.i64()?, reply.i16()?);
            Ok((code, From { producer, epoch, ..from }))
        }
    }
}

/// WriteTxnMarkers of one partition, sent by any client for any producer.
///
/// # Errors
/// When the connection ends.
pub fn write_marker(
    c: &mut Connection,
    from: From<'_>,
    coordinator_epoch: i32,
    topic: &str,
    partition: i32,
) -> Result<i16> {
    let body = length(Body::default(), 1).i64(from.producer).i16(from.epoch).i8(0);
    let body = length(compact(length(body, 1), topic.as_bytes()), 1).i32(partition).i8(0);
    let mut reply = flexible(c, 27, 1, body.i32(coordinator_epoch).i8(0).i8(0))?;
    reply.i8()?;
    reply.i64()?;
    reply.i8()?;
    for _ in 0..reply.i8()? {
        reply.i8()?;
    }
    reply.i32()?;
    reply.i16()
}

/// The result of a Fetch with `read_committed` of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The error code.
    pub code: i16,
    /// The high watermark.
    pub high_watermark: i64,
    /// The last stable offset.
    pub last_stable_offset: i64,
    /// Aborted transactions: producer id and first offset.
    pub aborted: Vec<(i64, i64)>,
    /// The size of the batches in bytes.
    pub records: usize,
}

/// Fetches with `read_committed` from this broker, leader or follower.
///
/// # Errors
/// When the connection ends.
pub fn fetch_committed(
    c: &mut Connection,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<Committed> {
    let fetched = fetch(c, topic, partition, offset, true)?;
    Ok(Committed {
        code: fetched.code,
        high_watermark: fetched.high_watermark,
        last_stable_offset: fetched.last_stable_offset,
        aborted: fetched.aborted,
        records: fetched.records.len(),
    })
}

/// The result of a Fetch of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The error code.
    pub code: i16,
    /// The high watermark.
    pub high_watermark: i64,
    /// The last stable offset.
    pub last_stable_offset: i64,
    /// The log start offset.
    pub log_start_offset: i64,
    /// Aborted transactions: producer id and first offset; none without `read_committed`.
    pub aborted: Vec<(i64, i64)>,
    /// The batches.
    pub records: Vec<u8>,
}

/// Fetches from this broker, leader or follower, with or without `read_committed`.
///
/// # Errors
/// When the connection ends.
pub fn fetch(
    c: &mut Connection,
    topic: &str,
    partition: i32,
    offset: i64,
    committed: bool,
) -> Result<Fetched> {
    let head = Body::default()
        .i32(-1)
        .i32(0)
        .i32(1)
        .i32(1 << 20)
        .i8(committed.into())
        .i32(0)
        .i32(-1)
        .i32(1)
        .str(topic)
        .i32(1);
    let body = head.i32(partition).i32(-1).i64(offset).i64(-1).i32(1 << 20).i32(0).str("");
    let mut reply = c.call(1, 11, &body)?;
    reply.i32()?;
    reply.i16()?;
    reply.i32()?;
    ensure!(reply.i32()? == 1, "one topic");
    reply.str()?;
    reply.i32()?;
    reply.i32()?;
    let code = reply.i16()?;
    let (high_watermark, last_stable_offset, log_start_offset) =
        (reply.i64()?, reply.i64()?, reply.i64()?);
    let mut aborted = Vec::new();
    for _ in 0..reply.i32()?.max(0) {
        aborted.push((reply.i64()?, reply.i64()?));
    }
    reply.i32()?;
    let length = usize::try_from(reply.i32()?).unwrap_or(0);
    Ok(Fetched {
        code,
        high_watermark,
        last_stable_offset,
        log_start_offset,
        aborted,
        records: reply.rest().get(..length).context("the records are cut off")?.to_vec(),
    })
}

/// A group's committed offset, -1 if there is none.
///
/// # Errors
/// When the connection ends.
pub fn committed_offset(c: &mut Connection, group: &str, topic: &str) -> Result<i64> {
    let mut reply = c.call(9, 5, &Body::default().str(group).i32(1).str(topic).i32(1).i32(0))?;
    reply.i32()?;
    reply.i32()?;
    reply.str()?;
    reply.i32()?;
    reply.i32()?;
    reply.i64()
}
