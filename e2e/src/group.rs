//! Groups as their coordinators describe them; and a member that joins and then stays idle, so that
//! a rebalance stays open.

use std::collections::BTreeSet;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::driver::{Driver, From};
use crate::record::{Bytes64, Record};
use crate::wire::{self, Body, Connection, PATIENCE, Reply, error};

/// Kafka's error codes for members, in addition to those of `wire`.
pub mod errors {
    /// Another member has joined with this instance id.
    pub const FENCED_INSTANCE_ID: i64 = 82;
    /// Another member owns this instance id and has not released it.
    pub const UNRELEASED_INSTANCE_ID: i64 = 111;
}

/// The topic in which coordinators keep groups.
const OFFSETS: &str = "__consumer_offsets";
/// The types of its records' keys.
const CLASSIC_GROUP: i16 = 2;
const CONSUMER_GROUP: i16 = 3;
/// The state of an unknown group in DescribeGroups. A group of the consumer protocol counts as
/// unknown there.
const DEAD: &str = "Dead";

/// A coordinator's description of a group, of either protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// Kafka's name of its state.
    pub state: String,
    /// The assignor or protocol that assigns its partitions.
    pub assignor: String,
    /// The number of its members.
    pub members: usize,
    /// With the consumer protocol: the rack of its first member.
    pub rack: Option<String>,
    /// With the consumer protocol: the member's subscribed regular expression.
    pub regex: Option<String>,
}

/// Describes a group, if one of the brokers coordinates it.
#[must_use]
pub fn described(bootstrap: &str, group: &str) -> Option<Described> {
    bootstrap.split(',').find_map(|broker| described_at(broker, group).ok())
}

/// Uses DescribeGroups version 0, and ConsumerGroupDescribe version 0 for a group that is unknown
/// to it.
fn described_at(broker: &str, group: &str) -> Result<Described> {
    let mut c = Connection::open(broker)?;
    let mut reply = c.call(15, 0, &Body::default().i32(1).str(group))?;
    ensure!(reply.i32()? == 1 && reply.i16()? == error::NONE, "of the group");
    reply.str()?;
    let state = reply.str()?;
    reply.str()?;
    let assignor = reply.str()?;
    if state != DEAD {
        let members = usize::try_from(reply.i32()?)?;
        return Ok(Described { state, assignor, members, ..Described::default() });
    }
    // One group, no authorized operations. Each part of a flexible version ends with tagged fields.
    let body = compact(Body::default().i8(0).i8(2), group).i8(0).i8(0);
    let mut reply = c.call(69, 0, &body)?;
    reply.i8()?;
    reply.i32()?;
    ensure!(length(&mut reply)? == Some(1) && reply.i16()? == error::NONE, "of the group");
    text(&mut reply)?;
    text(&mut reply)?;
    let state = text(&mut reply)?.context("a state")?;
    reply.i32()?;
    reply.i32()?;
    let assignor = text(&mut reply)?.context("an assignor")?;
    let mut described = Described {
        state,
        assignor,
        members: length(&mut reply)?.unwrap_or(0),
        ..Described::default()
    };
    if described.members > 0 {
        text(&mut reply)?;
        text(&mut reply)?;
        described.rack = text(&mut reply)?;
        reply.i32()?;
        text(&mut reply)?;
        text(&mut reply)?;
        for _ in 0..length(&mut reply)?.unwrap_or(0) {
            text(&mut reply)?;
        }
        described.regex = text(&mut reply)?;
    }
    Ok(described)
}

/// A short text in the flexible form.
fn compact(body: Body, text: &str) -> Body {
    let mut body = body.i8(i8::try_from(text.len() + 1).unwrap_or(i8::MAX));
    body.0.extend(text.as_bytes());
    body
}

/// A length in the flexible form; `None` for null.
fn length(reply: &mut Reply) -> Result<Option<usize>> {
    let (mut more, mut shift, mut length) = (true, 0, 0_usize);
    while more {
        let byte = reply.i8()? as u8;
        length |= usize::from(byte & 0x7f) << shift;
        (more, shift) = (byte & 0x80 != 0, shift + 7);
    }
    Ok(length.checked_sub(1))
}

fn text(reply: &mut Reply) -> Result<Option<String>> {
    let Some(length) = length(reply)? else { return Ok(None) };
    let bytes: Result<Vec<u8>> = (0..length).map(|_| Ok(reply.i8()? as u8)).collect();
    Ok(Some(String::from_utf8(bytes?)?))
}

/// The generations or epochs of a group that its coordinators have written since the cluster
/// started. A client reads them from the internal topic, which has this many partitions.
///
/// # Errors
/// The client's error, or a record that is not one of Kafka's.
pub fn generations(
    driver: &mut Driver,
    bootstrap: &str,
    partitions: i32,
    group: &str,
) -> Result<BTreeSet<i32>> {
    let mut generations = BTreeSet::new();
    for partition in 0..partitions {
        let count = usize::try_from(end_of(bootstrap, partition)?)?;
        if count == 0 {
            continue;
        }
        let records = driver.consume(OFFSETS, &[partition], From::Beginning, count);
        let records = records.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
        ensure!(
            records.len() == count,
            "{} of {count} records of partition {partition}",
            records.len()
        );
        for record in &records {
            generations.extend(generation(record, group)?);
        }
    }
    ensure!(!generations.is_empty(), "nobody has written down the group {group}");
    Ok(generations)
}

/// The end of a partition of the coordinators' topic, from its leader.
fn end_of(bootstrap: &str, partition: i32) -> Result<i64> {
    for broker in bootstrap.split(',') {
        let (code, end) =
            wire::list_offset(&mut Connection::open(broker)?, OFFSETS, partition, -1)?;
        if code == error::NONE {
            return Ok(end);
        }
    }
    bail!("nobody leads partition {partition}")
}

/// The group's generation in a record, if the record has one.
fn generation(record: &Record, group: &str) -> Result<Option<i32>> {
    let (Some(Bytes64(key)), Some(Bytes64(value))) = (&record.key, &record.value) else {
        return Ok(None);
    };
    let (mut key, mut value) = (Reply::of(key), Reply::of(value));
    let kind = key.i16()?;
    if ![CLASSIC_GROUP, CONSUMER_GROUP].contains(&kind) || key.str()? != group {
        return Ok(None);
    }
    value.i16()?;
    if kind == CLASSIC_GROUP {
        value.str()?;
    }
    Ok(Some(value.i32()?))
}

/// A member of the classic protocol that joins, takes its assignment, and then stays idle. It does
/// not rejoin, so the next rebalance stays open.
#[derive(Debug)]
pub struct Idle {
    group: String,
    id: String,
}

impl Idle {
    /// Joins while the caller keeps the other members polling.
    #[must_use]
    pub fn join(
        bootstrap: &str,
        group: &str,
        topic: &str,
        assignor: &str,
    ) -> JoinHandle<Result<Self>> {
        let [bootstrap, group, topic, assignor] =
            [bootstrap, group, topic, assignor].map(str::to_owned);
        std::thread::spawn(move || {
            let tried =
                bootstrap.split(',').map(|broker| Self::joined(broker, &group, &topic, &assignor));
            let mut failures = Vec::new();
            for one in tried {
                match one {
                    Ok(idle) => return Ok(idle),
                    Err(failure) => failures.push(format!("{failure:#}")),
                }
            }
            bail!("nobody lets it in: {failures:?}")
        })
    }

    /// Uses JoinGroup version 1 and SyncGroup version 0. The session timeout is longer than the
    /// test.
    fn joined(broker: &str, group: &str, topic: &str, assignor: &str) -> Result<Self> {
        // Version 1 lists the owned partitions, here none. A leader with librdkafka's cooperative
        // assignor crashes on a subscription without the list.
        let subscription = Body::default().i16(1).i32(1).str(topic).i32(-1).i32(0);
        let body = Body::default().str(group).i32(300_000).i32(300_000).str("").str("consumer");
        let mut c = Connection::open(broker)?;
        let mut reply = c.call(11, 1, &body.i32(1).str(assignor).bytes(&subscription.0))?;
        let code = reply.i16()?;
        ensure!(code == error::NONE, "JoinGroup answers {code}");
        let generation = reply.i32()?;
        reply.str()?;
        let (leader, id) = (reply.str()?, reply.str()?);
        ensure!(leader != id, "it leads, and cannot assign");
        let mut reply =
            c.call(14, 0, &Body::default().str(group).i32(generation).str(&id).i32(0))?;
        let code = reply.i16()?;
        ensure!(code == error::NONE, "SyncGroup answers {code}");
        Ok(Self { group: group.to_owned(), id })
    }

    /// Leaves the group at its current coordinator (LeaveGroup version 0).
    ///
    /// # Errors
    /// When no broker coordinates the group.
    pub fn leave(self, bootstrap: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for broker in bootstrap.split(',') {
                if let Ok(error::NONE | error::UNKNOWN_MEMBER_ID) = self.leaves(broker) {
                    return Ok(());
                }
            }
        }
        bail!("nobody coordinates {}", self.group)
    }

    fn leaves(&self, broker: &str) -> Result<i16> {
        let body = Body::default().str(&self.group).str(&self.id);
        Connection::open(broker)?.call(13, 0, &body)?.i16()
    }
}
