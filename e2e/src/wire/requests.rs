//! The few requests that the tests need, in versions without tagged fields.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::{Body, Connection, PATIENCE, error};

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
