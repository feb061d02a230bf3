//! What a client can read of a cluster, as text.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_e2e::cluster::Local;
use weir_e2e::group::described;
use weir_e2e::topics::describe;
use weir_e2e::txn::fetch;
use weir_e2e::wire::{Body, Connection, committed, error, list_offset};

use super::write::{GROUPS, TIMES, TOPICS};

/// The sentinel of ListOffsets.
pub(super) const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// Bits of a batch's attributes.
pub(super) const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
const HEADER_BYTES: usize = 61;
/// The types of config resources, and the sources of values that were set by clients.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const DYNAMIC: std::ops::RangeInclusive<i8> = 1..=3;

/// The header of a batch.
pub(super) struct Header {
    pub(super) base: i64,
    pub(super) producer: i64,
    attributes: i16,
    text: String,
    end: i64,
}

impl Header {
    pub(super) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub(super) fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }
}

/// The complete batches in these bytes, whose checksums are right.
pub(super) fn batches(mut bytes: &[u8]) -> Vec<Header> {
    let mut found = Vec::new();
    while bytes.len() >= HEADER_BYTES {
        let long = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let int = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let short = |at: usize| i16::from_be_bytes(bytes[at..at + 2].try_into().unwrap());
        let size = 12 + usize::try_from(int(8)).unwrap();
        let Some(whole) = bytes.get(..size) else { break };
        let (base, producer, checksum) = (long(0), long(43), int(17).cast_unsigned());
        assert_eq!(crc32c::crc32c(&whole[21..]), checksum, "the batch at {base}");
        let end = base + i64::from(int(23)) + 1;
        let text = format!(
            "  {base} to {end}, leader epoch {}, attributes {:#b}, {} to {} ms, producer {producer} \
             epoch {} sequence {}, {} records, checksum {checksum:08x}",
            int(12),
            short(21),
            long(27),
            long(35),
            short(51),
            int(53),
            int(57),
        );
        found.push(Header { base, producer, attributes: short(21), text, end });
        bytes = &bytes[size..];
    }
    found
}

/// Everything that stays as it is until the next version reads it. Left out is what time ends:
/// open transactions, idle transactional ids, and producers.
pub(super) fn observe(local: &Local) -> Result<String> {
    let mut text = String::new();
    let bootstrap = local.bootstrap();
    let mut c = Connection::open(&bootstrap)?;
    for topic in TOPICS {
        let described = describe(&mut c, topic)?.context("the topic is there")?;
        let id: String = described.id.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "topic {topic} id {id}, {} partitions", described.partitions.len())?;
        log(&mut text, &mut c, topic)?;
        configs(&mut text, &mut c, TOPIC, topic)?;
    }
    for broker in ["", "0"] {
        writeln!(text, "broker {broker:?}")?;
        configs(&mut text, &mut c, BROKER, broker)?;
    }
    for group in GROUPS {
        let offsets = committed(&bootstrap, group).context("somebody coordinates the group")?;
        let is = described(&bootstrap, group).context("the group is there")?;
        writeln!(text, "group {group} {} with {} members: {offsets:?}", is.state, is.members)?;
    }
    let topics: Value = serde_json::from_str(&local.run(&["get", "topics", "-o", "json"])?)?;
    let mut resources: Vec<_> = topics["items"].as_array().context("a list")?.iter().collect();
    resources.sort_by_key(|topic| topic["metadata"]["name"].to_string());
    for topic in resources {
        let (name, spec) = (&topic["metadata"]["name"], &topic["spec"]);
        writeln!(
            text,
            "resource {name} partitions {} config {}",
            spec["partitions"], spec["config"]
        )?;
    }
    Ok(text)
}

/// A whole partition under `read_committed`, up to its last stable offset.
pub(super) struct Log {
    pub(super) end: i64,
    pub(super) stable: i64,
    /// Aborted transactions: producer id and first offset.
    pub(super) aborted: BTreeSet<(i64, i64)>,
    pub(super) batches: Vec<Header>,
}

/// Reads partition 0 from this offset on. An answer ends with its segment at the latest.
pub(super) fn read(c: &mut Connection, topic: &str, mut from: i64) -> Result<Log> {
    let mut log = Log { end: 0, stable: 0, aborted: BTreeSet::new(), batches: Vec::new() };
    loop {
        let part = fetch(c, topic, 0, from, true)?;
        ensure!(part.code == error::NONE, "Fetch answers {}", part.code);
        (log.end, log.stable) = (part.high_watermark, part.last_stable_offset);
        log.aborted.extend(part.aborted);
        log.batches.extend(batches(&part.records));
        match log.batches.last() {
            Some(last) if last.end > from => from = last.end,
            _ => return Ok(log),
        }
    }
}

fn log(text: &mut String, c: &mut Connection, topic: &str) -> Result<()> {
    let mut offset = |time| -> Result<i64> {
        let (code, offset) = list_offset(c, topic, 0, time)?;
        ensure!(code == error::NONE, "ListOffsets answers {code}");
        Ok(offset)
    };
    let start = offset(EARLIEST)?;
    let found: Vec<_> =
        TIMES.iter().map(|time| Ok((*time, offset(*time)?))).collect::<Result<_>>()?;
    let all = read(c, topic, start)?;
    let read = all.batches.last().map_or(start, |last| last.end);
    ensure!(
        (all.end, all.stable) == (read, read),
        "read up to {read}, stable up to {}",
        all.stable
    );
    writeln!(text, "  from {start} to {read}, at times {found:?}, aborted {:?}", all.aborted)?;
    all.batches.iter().try_for_each(|batch| writeln!(text, "{}", batch.text))?;
    Ok(())
}

/// The values that a client has set (DescribeConfigs version 1).
fn configs(text: &mut String, c: &mut Connection, kind: i8, name: &str) -> Result<()> {
    let body = Body::default().i32(1).i8(kind).str(name).i32(-1).i8(0);
    let mut reply = c.call(32, 1, &body)?;
    reply.i32()?;
    ensure!(reply.i32()? == 1 && reply.i16()? == error::NONE, "of the resource");
    reply.str()?;
    reply.i8()?;
    reply.str()?;
    for _ in 0..reply.i32()? {
        let (key, value) = (reply.str()?, reply.str()?);
        reply.i8()?;
        let source = reply.i8()?;
        reply.i8()?;
        ensure!(reply.i32()? == 0, "no synonyms were asked for");
        // A topic has those of the broker too.
        if DYNAMIC.contains(&source) {
            writeln!(text, "  {key}={value} of source {source}")?;
        }
    }
    Ok(())
}
