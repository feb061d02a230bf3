//! The file work of a cleaning: reads segments and writes what remains of them beside the log.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weir_protocol::batch::{self, BatchError, BatchHeader, Batches};
use weir_protocol::types::ProducerId;

use super::super::LogConfig;
use super::super::index::Indexes;
use super::super::producers::LastRecord;
use super::super::reader::LogReader;
use super::super::segment::{Segment, SegmentSummary, file_name};
use super::super::storage::{File, Mode, OpenFiles};
use super::filter::{self, Outcomes, Round};
use super::swap::{Cleaned, Group, begins_with};
use super::{OffsetMap, Plan, groups, plan};

/// Bytes read or written at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// Plans the cleaning of a log. Returns `None` when nothing may be cleaned, or too little.
pub fn assess(reader: &LogReader, config: &LogConfig, now_ms: i64) -> Option<Plan> {
    assess_from(reader, config, reader.cleaned_offset(), now_ms)
}

/// Does the same, but counts only the part before `cleaned_offset` as clean.
pub fn assess_from(
    reader: &LogReader,
    config: &LogConfig,
    cleaned_offset: i64,
    now_ms: i64,
) -> Option<Plan> {
    // Read first, so that the cleaning notices any truncation since.
    let truncations = reader.truncations.load(Ordering::Acquire);
    let summaries: Vec<_> =
        reader.segments.load().iter().map(|segment| segment.summary()).collect();
    // The flusher still needs the file of a segment with unflushed records. Recovery accepts a gap
    // in the offsets only before the checkpoint. The outcomes of transactions are known up to the
    // last stable offset.
    let stable = reader.last_stable_offset().unwrap_or_else(|| reader.high_watermark());
    let committed = stable.min(reader.checkpointed_offset());
    plan(&summaries, config, cleaned_offset, reader.log_start_offset(), committed, now_ms)
        .map(|plan| Plan { truncations, ..plan })
}

/// Cleans a log by `plan` into new files; the log itself does not change yet. The caller passes an
/// empty `map`, and in `last_records` those of the log's producers, read after the plan was made.
/// Returns `None` when the plan no longer holds: the log was truncated or deleted, or gave up some
/// of its segments.
///
/// # Errors
/// When files cannot be read or written, or a batch is damaged. A damaged batch is never rewritten
/// with a valid checksum.
pub fn clean(
    reader: &LogReader,
    config: &LogConfig,
    plan: &Plan,
    map: &mut OffsetMap,
    last_records: &BTreeMap<ProducerId, LastRecord>,
    now_ms: i64,
) -> io::Result<Option<Cleaned>> {
    let segments = reader.segments.load_full();
    match clean_segments(reader, &segments, (config, plan, last_records), map, now_ms) {
        // If the log has changed, missing or shorter files are no damage.
        Err(_) if !begins_with(reader, plan.truncations, segments.iter()) => Ok(None),
        result => result,
    }
}

fn clean_segments(
    reader: &LogReader,
    segments: &[Arc<Segment>],
    (config, plan, last_records): (&LogConfig, &Plan, &BTreeMap<ProducerId, LastRecord>),
    map: &mut OffsetMap,
    now_ms: i64,
) -> io::Result<Option<Cleaned>> {
    let files = &reader.dir.files;
    let from = segments.first().map_or(0, |first| first.base_offset());
    let Some(aborted) = reader.known_aborted_transactions(from, plan.end_offset)? else {
        return Ok(None);
    };
    let outcomes = Outcomes::of(&aborted);
    let ends: Vec<i64> = segments.iter().skip(1).map(|next| next.base_offset()).collect();
    for (segment, end) in segments
        .iter()
        .zip(&ends)
        .filter(|(_, end)| **end > plan.first_dirty_offset && **end <= plan.end_offset)
    {
        let all = each_batch(segment, &*segment.open(files)?, |header, batch| {
            Ok(filter::index(map, (config, &outcomes), plan.first_dirty_offset, header, batch))
        })?;
        if !all {
            break;
        }
        map.known_up_to(*end);
    }
    let count = segments
        .partition_point(|segment| segment.base_offset() < map.end_offset().min(plan.end_offset));
    let mut round = Round {
        outcomes: &outcomes,
        observed: BTreeSet::new(),
        config,
        map,
        last_records,
        now_ms,
        unread: None,
    };
    let mut cleaned = Cleaned {
        end_offset: map.end_offset(),
        bytes: (0, 0),
        unread: None,
        truncations: plan.truncations,
        storage: Arc::clone(files.storage()),
        groups: Vec::new(),
    };
    let summaries: Vec<_> = segments.iter().take(count).map(|segment| segment.summary()).collect();
    let mut rest = segments.iter().zip(ends).take(count);
    for size in groups(&summaries, plan.end_offset, config) {
        let (old, ends): (Vec<_>, Vec<_>) =
            rest.by_ref().take(size).map(|(segment, end)| (Arc::clone(segment), end)).unzip();
        let new = rewrite(reader, &old, &mut round)?;
        cleaned.bytes.0 += old.iter().map(|segment| segment.size_bytes()).sum::<u64>();
        cleaned.bytes.1 += new.size_bytes();
        let end_offset = ends.last().copied().unwrap_or(plan.end_offset);
        cleaned.groups.push(Group { old, new, end_offset });
    }
    cleaned.unread = round.unread;
    Ok(Some(cleaned))
}

/// Calls `act` with every batch of a segment until it returns false.
fn each_batch(
    segment: &Segment,
    file: &dyn File,
    mut act: impl FnMut(&BatchHeader, &[u8]) -> io::Result<bool>,
) -> io::Result<bool> {
    let size = segment.size_bytes();
    let (mut position, mut wanted) = (0, WINDOW_BYTES);
    let mut window = Vec::new();
    while position < size {
        let length = usize::try_from(size - position).unwrap_or(usize::MAX).min(wanted);
        window.resize(length, 0);
        file.read_exact_at(&mut window, position)?;
        let mut batches = Batches::new(&window);
        for found in &mut batches {
            match found.and_then(|(_, bytes)| Ok((batch::checked(bytes)?, bytes))) {
                Ok((header, bytes)) => {
                    if !act(&header, bytes)? {
                        return Ok(false);
                    }
                }
                Err(BatchError::Incomplete { needed, .. }) if position + (length as u64) < size => {
                    wanted = WINDOW_BYTES.max(needed)
                }
                Err(error) => {
                    let place = format!(
                        "{}, after byte {position}: {error}",
                        segment.path("log").display()
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidData, place));
                }
            }
        }
        position += batches.position() as u64;
    }
    Ok(true)
}

/// Writes what remains of `group` into a new segment and flushes it.
fn rewrite(
    reader: &LogReader,
    group: &[Arc<Segment>],
    round: &mut Round<'_>,
) -> io::Result<Arc<Segment>> {
    let files = &reader.dir.files;
    let (Some(first), Some(last)) = (group.first(), group.last()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let summary = SegmentSummary::empty(first.base_offset(), last.summary().modified_ms);
    let new = Segment::new(&reader.path(), summary, Some(Indexes::default()));
    new.records().moved(reader.path().join(file_name(first.base_offset(), "log.cleaned")));
    let file = files.get(new.records(), Mode::Create)?;
    file.truncate(0)?;
    let written = write(&new, &*file, group, files, round);
    if written.is_err() {
        // A partial file must not stay: the disk may be full.
        let _ = files.storage().remove_file(&new.records().path());
    }
    written.map(|()| new)
}

fn write(
    new: &Segment,
    file: &dyn File,
    group: &[Arc<Segment>],
    files: &OpenFiles,
    round: &mut Round<'_>,
) -> io::Result<()> {
    let mut output = Output {
        segment: new,
        file,
        modified_ms: new.summary().modified_ms,
        waiting: Vec::new(),
        since_index_bytes: u64::MAX,
    };
    for segment in group {
        each_batch(segment, &*segment.open(files)?, |header, batch| {
            if let Some(kept) = round.filter(header, batch) {
                output.write(&kept, u64::from(round.config.index_interval_bytes))?;
            }
            Ok(true)
        })?;
    }
    output.flush()?;
    file.sync_data()
}

/// A new segment while it is written.
struct Output<'a> {
    segment: &'a Segment,
    file: &'a dyn File,
    modified_ms: i64,
    waiting: Vec<u8>,
    since_index_bytes: u64,
}

impl Output<'_> {
    fn write(&mut self, batch: &[u8], index_interval_bytes: u64) -> io::Result<()> {
        let header = BatchHeader::parse(batch).map_err(io::Error::other)?;
        if self.waiting.len() + batch.len() > WINDOW_BYTES {
            self.flush()?;
        }
        self.segment.note_timestamp(&header);
        if self.since_index_bytes > index_interval_bytes {
            self.segment.index(&header, self.segment.size_bytes() + self.waiting.len() as u64);
            self.since_index_bytes = 0;
        }
        self.since_index_bytes += batch.len() as u64;
        self.waiting.extend_from_slice(batch);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&mut [IoSlice::new(&self.waiting)], self.segment.size_bytes())?;
        self.segment.appended(self.waiting.len() as u64, self.modified_ms);
        self.waiting.clear();
        Ok(())
    }
}
