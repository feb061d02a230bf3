//! Requests of transactions by hand, in the versions of both protocols: each says who it is from,
//! so that a test can lie, repeat and come late.

use anyhow::{Context, Result, ensure};

use crate::wire::{Body, Connection, Reply};

/// Kafka's error codes of transactions, beside those of `wire`.
pub mod error {
    /// Nobody knows the transactional id under this producer id.
    pub const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
    /// Not positive, or above `transaction.max.timeout.ms`.
    pub const INVALID_TRANSACTION_TIMEOUT: i16 = 50;
    /// Markers of the transaction before are being written.
    pub const CONCURRENT_TRANSACTIONS: i16 = 51;
    /// A marker of a coordinator that was deposed.
    pub const TRANSACTION_COORDINATOR_FENCED: i16 = 52;
    /// Somebody newer has the transactional id.
    pub const PRODUCER_FENCED: i16 = 90;
}

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Partitions are added by requests of their own, the epoch stays.
    V1,
    /// KIP-890: the epoch is raised at every end.
    V2,
}

/// Both.
pub const VERSIONS: [Version; 2] = [Version::V1, Version::V2];

/// Who a request says it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct From<'a> {
    /// The transactional id.
    pub id: &'a str,
    /// The producer id.
    pub producer: i64,
    /// The producer epoch.
    pub epoch: i16,
    /// The protocol.
    pub version: Version,
}

impl From<'_> {
    /// The same in another epoch.
    #[must_use]
    pub fn in_epoch(self, epoch: i16) -> Self {
        Self { epoch, ..self }
    }
}

/// A length as flexible versions write it, one more than it is.
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

/// Bytes or text as flexible versions write them.
pub(crate) fn compact(body: Body, text: &[u8]) -> Body {
    let mut body = length(body, text.len());
    body.0.extend(text);
    body
}

/// A request of a flexible version: its header ends with tagged fields, and so does that of its
/// answer.
pub(crate) fn flexible(c: &mut Connection, api: i16, version: i16, body: Body) -> Result<Reply> {
    let mut reply = c.call(api, version, &Body([vec![0], body.0].concat()))?;
    reply.i8()?;
    Ok(reply)
}

/// InitProducerId: the code and who the caller is from now on.
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

/// InitProducerId of a producer that goes on after an error (KIP-360): the code and who the caller
/// is from now on.
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

/// AddPartitionsToTxn of one partition, as clients of transactions v1 send it.
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

/// AddOffsetsToTxn, as clients of transactions v1 send it.
///
/// # Errors
/// When the connection ends.
pub fn add_offsets(c: &mut Connection, from: From<'_>, group: &str) -> Result<i16> {
    let body = Body::default().str(from.id).i64(from.producer).i16(from.epoch).str(group);
    let mut reply = c.call(25, 2, &body)?;
    reply.i32()?;
    reply.i16()
}

/// Produce of one batch in a transaction: the code and its offset.
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

/// EndTxn: the code, and with transactions v2 the producer from now on.
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

/// WriteTxnMarkers of one partition, by whoever wants to end somebody's transaction.
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

/// What a Fetch with `read_committed` shows of a partition.
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
    /// The bytes of the batches.
    pub records: usize,
}

/// Fetches with `read_committed` from this very broker, leader or follower.
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

/// What a Fetch gives of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The error code.
    pub code: i16,
    /// The high watermark.
    pub high_watermark: i64,
    /// The last stable offset.
    pub last_stable_offset: i64,
    /// Where the log begins.
    pub log_start_offset: i64,
    /// Aborted transactions: producer id and first offset; none without `read_committed`.
    pub aborted: Vec<(i64, i64)>,
    /// The batches.
    pub records: Vec<u8>,
}

/// Fetches from this very broker, leader or follower, with `read_committed` or without.
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

/// The offset that a group has committed, -1 for none.
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
