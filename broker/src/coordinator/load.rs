//! Reads a partition of a coordinator's topic from start to end into a machine.

use std::time::Instant;

use tracing::{error, info, warn};
use weir_protocol::batch::{self, BatchHeader};
use weir_protocol::record::{Records, section};

use super::machine::{Logged, Machine, Origin};
use crate::log::{LogReader, ReadError, ReadSlice};

/// Bytes per read; a larger batch is read whole.
const CHUNK_BYTES: usize = 1 << 20;

/// The most bytes of a decompressed batch.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;

/// Reads the log into a machine; returns it with the log end offset. Blocks while it reads.
///
/// # Errors
/// When the log cannot be read. A damaged record or batch is logged and skipped.
pub(super) fn load<M: Machine>(
    log: &LogReader,
    origin: Origin,
    shared: &M::Shared,
) -> Result<(M, i64), ReadError> {
    let started = Instant::now();
    let mut loading = Loading {
        machine: M::new(origin, shared),
        records: 0,
        skipped: 0,
        partition: origin.partition,
    };
    let end = log.log_end_offset();
    let mut offset = log.log_start_offset();
    while offset < end {
        let Some(slice) = log.read(offset, end, CHUNK_BYTES, true)? else { break };
        let bytes = read(&slice)?;
        let before = offset;
        loading.chunk(&bytes, &mut offset);
        if offset <= before {
            // Not even one whole batch at this offset, so the log is damaged.
            error!(
                topic = M::TOPIC,
                partition = origin.partition,
                offset,
                "a coordinator's log is damaged and cannot be read on: what is behind this offset is not known"
            );
            break;
        }
    }
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let Loading { machine, records, skipped, .. } = loading;
    info!(
        topic = M::TOPIC,
        partition = origin.partition,
        leader_epoch = origin.epoch.0,
        records,
        skipped,
        took_ms,
        "loaded a coordinator"
    );
    Ok((machine, end))
}

fn read(slice: &ReadSlice) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; slice.length];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match slice.file.read_at(rest, slice.position + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

struct Loading<M> {
    machine: M,
    records: u64,
    skipped: u64,
    partition: i32,
}

impl<M: Machine> Loading<M> {
    /// Replays the whole batches at the start of `bytes`, and moves `offset` behind them.
    fn chunk(&mut self, mut bytes: &[u8], offset: &mut i64) {
        while let Ok(header) = BatchHeader::parse(bytes) {
            let Some((batch, rest)) = bytes.split_at_checked(header.size_bytes()) else {
                return;
            };
            self.batch(&header, batch, *offset);
            *offset = header.next_offset().max(*offset);
            bytes = rest;
        }
    }

    fn batch(&mut self, header: &BatchHeader, batch: &[u8], from: i64) {
        if let Err(error) = batch::checked(batch) {
            return self.skip(header.base_offset, &error.to_string());
        }
        let section = match section(header, batch, DECOMPRESSED_BYTES_MAX) {
            Ok(section) => section,
            Err(error) => return self.skip(header.base_offset, &error.to_string()),
        };
        for record in Records::new(&section, header.records_count) {
            let record = match record {
                Ok(record) => record,
                Err(error) => return self.skip(header.base_offset, &error.to_string()),
            };
            let offset = record.offset(header);
            if offset < from {
                continue;
            }
            self.records += 1;
            if header.is_control() {
                match record.key.and_then(marker) {
                    Some(committed) => self.machine.end_transaction(
                        header.producer_id,
                        header.producer_epoch,
                        committed,
                    ),
                    None => self.skip(offset, "a control record of an unknown type"),
                }
                continue;
            }
            let Some(key) = record.key else {
                self.skip(offset, "a record without a key");
                continue;
            };
            let logged = Logged {
                key,
                value: record.value,
                transaction: header
                    .is_transactional()
                    .then_some((header.producer_id, header.producer_epoch)),
            };
            if let Err(reason) = self.machine.replay(&logged) {
                self.skip(offset, &reason);
            }
        }
    }

    fn skip(&mut self, offset: i64, reason: &str) {
        self.skipped += 1;
        warn!(
            topic = M::TOPIC,
            partition = self.partition,
            offset,
            reason,
            "a record of a coordinator is left out"
        );
    }
}

/// Whether the key of a transaction marker says commit (`ControlRecordType`).
fn marker(key: &[u8]) -> Option<bool> {
    match key {
        [0, _, 0, 0, ..] => Some(false),
        [0, _, 0, 1, ..] => Some(true),
        _ => None,
    }
}
