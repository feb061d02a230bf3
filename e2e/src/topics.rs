//! Requests about topics and their partitions, built by hand: describe, produce by topic id,
//! reassign, delete records, delete.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::txn::{compact, flexible, length};
use crate::wire::{Body, Connection, Reply, error};

/// Distinguishes topics of the same name.
pub type TopicId = [u8; 16];

/// The replicas of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The leader's broker id, -1 if there is none.
    pub leader: i32,
    /// All replicas.
    pub replicas: Vec<i32>,
    /// The in-sync replicas.
    pub isr: Vec<i32>,
}

/// A topic in a broker's Metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its id.
    pub id: TopicId,
    /// Its partitions by their numbers.
    pub partitions: BTreeMap<i32, Place>,
}

fn raw(mut body: Body, bytes: &[u8]) -> Body {
    body.0.extend(bytes);
    body
}

/// Reads an unsigned variable-length integer.
fn varint(reply: &mut Reply) -> Result<usize> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let byte = reply.i8()?.cast_unsigned();
        number |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Ok(number)
}

/// Reads a length in the flexible form; null is 0.
fn count(reply: &mut Reply) -> Result<usize> {
    Ok(varint(reply)?.saturating_sub(1))
}

fn skip(reply: &mut Reply, bytes: usize) -> Result<()> {
    (0..bytes).try_for_each(|_| reply.i8().map(drop))
}

fn skip_text(reply: &mut Reply) -> Result<()> {
    let bytes = count(reply)?;
    skip(reply, bytes)
}

fn skip_tags(reply: &mut Reply) -> Result<()> {
    for _ in 0..varint(reply)? {
        varint(reply)?;
        let bytes = varint(reply)?;
        skip(reply, bytes)?;
    }
    Ok(())
}

fn brokers(reply: &mut Reply) -> Result<Vec<i32>> {
    (0..count(reply)?).map(|_| reply.i32()).collect()
}

/// Metadata version 12 of one topic; `None` if the broker does not know the name.
///
/// # Errors
/// When the connection ends.
pub fn describe(c: &mut Connection, name: &str) -> Result<Option<Topic>> {
    let body = raw(length(Body::default(), 1), &[0; 16]);
    let mut reply = flexible(c, 3, 12, compact(body, name.as_bytes()).i8(0).i8(0).i8(0).i8(0))?;
    reply.i32()?;
    for _ in 0..count(&mut reply)? {
        reply.i32()?;
        skip_text(&mut reply)?;
        reply.i32()?;
        skip_text(&mut reply)?;
        skip_tags(&mut reply)?;
    }
    skip_text(&mut reply)?;
    reply.i32()?;
    ensure!(count(&mut reply)? == 1, "one topic");
    let code = reply.i16()?;
    skip_text(&mut reply)?;
    let mut id = [0; 16];
    for byte in &mut id {
        *byte = reply.i8()?.cast_unsigned();
    }
    reply.i8()?;
    let mut partitions = BTreeMap::new();
    for _ in 0..count(&mut reply)? {
        reply.i16()?;
        let (number, leader) = (reply.i32()?, reply.i32()?);
        reply.i32()?;
        let (replicas, isr) = (brokers(&mut reply)?, brokers(&mut reply)?);
        brokers(&mut reply)?;
        skip_tags(&mut reply)?;
        partitions.insert(number, Place { leader, replicas, isr });
    }
    Ok((code == error::NONE).then_some(Topic { id, partitions }))
}

/// Produce version 13 of one batch with `acks=all` to the topic of this id; returns error code and
/// base offset.
///
/// # Errors
/// When the connection ends.
pub fn produce_to(
    c: &mut Connection,
    id: &TopicId,
    partition: i32,
    batch: &[u8],
) -> Result<(i16, i64)> {
    let body = Body::default().i8(0).i16(-1).i32(10_000);
    let body = length(raw(length(body, 1), id), 1).i32(partition);
    let mut reply = flexible(c, 0, 13, compact(body, batch).i8(0).i8(0).i8(0))?;
    ensure!(count(&mut reply)? == 1, "one topic");
    skip(&mut reply, id.len())?;
    ensure!(count(&mut reply)? == 1 && reply.i32()? == partition, "one partition");
    Ok((reply.i16()?, reply.i64()?))
}

/// AlterPartitionReassignments version 0 of a topic's partitions, each to these brokers; returns
/// the code of the request, or the first code of a partition.
///
/// # Errors
/// When the connection ends.
pub fn reassign(c: &mut Connection, name: &str, to: &BTreeMap<i32, Vec<i32>>) -> Result<i16> {
    let body = compact(length(Body::default().i32(10_000), 1), name.as_bytes());
    let mut body = length(body, to.len());
    for (partition, brokers) in to {
        body = length(body.i32(*partition), brokers.len());
        body = brokers.iter().fold(body, |body, broker| body.i32(*broker)).i8(0);
    }
    let mut reply = flexible(c, 45, 0, body.i8(0).i8(0))?;
    reply.i32()?;
    let whole = reply.i16()?;
    skip_text(&mut reply)?;
    if whole != error::NONE {
        return Ok(whole);
    }
    ensure!(count(&mut reply)? == 1, "one topic");
    skip_text(&mut reply)?;
    for _ in 0..count(&mut reply)? {
        reply.i32()?;
        let code = reply.i16()?;
        if code != error::NONE {
            return Ok(code);
        }
        skip_text(&mut reply)?;
        skip_tags(&mut reply)?;
    }
    Ok(error::NONE)
}

/// DeleteRecords version 1 of one partition up to an offset; returns error code and low watermark.
///
/// # Errors
/// When the connection ends.
pub fn delete_records(
    c: &mut Connection,
    name: &str,
    partition: i32,
    offset: i64,
) -> Result<(i16, i64)> {
    let body = Body::default().i32(1).str(name).i32(1).i32(partition).i64(offset).i32(10_000);
    let mut reply = c.call(21, 1, &body)?;
    reply.i32()?;
    ensure!(reply.i32()? == 1, "one topic");
    reply.str()?;
    ensure!(reply.i32()? == 1 && reply.i32()? == partition, "one partition");
    let low_watermark = reply.i64()?;
    Ok((reply.i16()?, low_watermark))
}

/// DeleteTopics version 3 of one topic; returns its error code.
///
/// # Errors
/// When the connection ends.
pub fn delete_topic(c: &mut Connection, name: &str) -> Result<i16> {
    let mut reply = c.call(20, 3, &Body::default().i32(1).str(name).i32(10_000))?;
    reply.i32()?;
    ensure!(reply.i32()? == 1, "one topic");
    reply.str()?;
    reply.i16()
}
