//! The files of a cleaning: segments are read, what remains of them is written beside the log, and put in the place of the old ones.
//!
//! A new segment takes the name of the first one that it replaces, by a rename that is on the disk before the others are removed. Whenever the process
//! dies, every record that was to stay is there: at worst an old segment is left that the new one covers, which recovery sets aside, or one of which nothing
//! was to stay.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::Arc;

use weir_protocol::batch::{self, BatchError, BatchHeader, Batches};
use weir_protocol::types::ProducerId;

use super::super::index::Indexes;
use super::super::producers::LastRecord;
use super::super::reader::LogReader;
use super::super::segment::{Segment, SegmentSummary, file_name};
use super::super::storage::{File, Mode, OpenFiles};
use super::super::{LogConfig, LogWriter};
use super::filter::{self, Outcomes, Round};
use super::{OffsetMap, Plan, groups, plan};

/// Bytes that are read or written at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// A cleaned log, of which the new segments are not in place yet.
#[derive(Debug)]
pub struct Cleaned {
    /// Where cleaning ended: the next one begins here.
    pub end_offset: i64,
    /// Bytes of the segments before, and after.
    pub bytes: (u64, u64),
    groups: Vec<Group>,
}

/// Segments, and the one that takes their place.
#[derive(Debug)]
struct Group {
    old: Vec<Arc<Segment>>,
    new: Arc<Segment>,
}

/// What there is to clean in a log; `None` when it is not enough, or nothing. `cleaned_offset` is where its last cleaning ended ([`Cleaned::end_offset`]).
pub fn assess(reader: &LogReader, config: &LogConfig, cleaned_offset: i64, now_ms: i64) -> Option<Plan> {
    let summaries: Vec<_> = reader.segments.load().iter().map(|segment| segment.summary()).collect();
    // What is not on the disk yet is still to be flushed, from the file in which it lies; and a gap is believed by recovery before the checkpoint only.
    // What became of transactions is known up to the last stable offset.
    let stable = reader.last_stable_offset().unwrap_or_else(|| reader.high_watermark());
    let committed = stable.min(reader.checkpointed_offset());
    plan(&summaries, config, cleaned_offset, reader.log_start_offset(), committed, now_ms)
}

/// Cleans a log as `plan` says, without changing it yet. `map` is empty. `last_records` are those of the log's producers, as they were when the plan was
/// made or later.
///
/// # Errors
/// When files cannot be read or written, or a batch is damaged: what is damaged is not written anew under a right checksum.
pub fn clean(
    reader: &LogReader,
    config: &LogConfig,
    plan: &Plan,
    map: &mut OffsetMap,
    last_records: &BTreeMap<ProducerId, LastRecord>,
    now_ms: i64,
) -> io::Result<Cleaned> {
    let files = &reader.shared.files;
    let segments = reader.segments.load_full();
    let outcomes = Outcomes::of(&reader.aborted_transactions(segments.first().map_or(0, |first| first.base_offset()), plan.end_offset)?);
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
    let count = segments.partition_point(|segment| segment.base_offset() < map.end_offset().min(plan.end_offset));
    let old = segments.get(..count).unwrap_or_default();
    let mut round = Round {
        outcomes: &outcomes,
        observed: BTreeSet::new(),
        config,
        map,
        last_records,
        now_ms,
    };
    let mut cleaned = Cleaned {
        end_offset: map.end_offset(),
        bytes: (0, 0),
        groups: Vec::new(),
    };
    let summaries: Vec<_> = old.iter().map(|segment| segment.summary()).collect();
    let mut rest = old;
    for size in groups(&summaries, plan.end_offset, config) {
        let Some((group, after)) = rest.split_at_checked(size) else { break };
        rest = after;
        let new = match rewrite(reader, group, &mut round) {
            Ok(new) => new,
            Err(error) => {
                cleaned.discard(reader);
                return Err(error);
            }
        };
        cleaned.bytes.0 += group.iter().map(|segment| segment.size_bytes()).sum::<u64>();
        cleaned.bytes.1 += new.size_bytes();
        cleaned.groups.push(Group { old: group.to_vec(), new });
    }
    Ok(cleaned)
}

/// Calls `act` with every batch of a segment, until it returns false.
fn each_batch(segment: &Segment, file: &dyn File, mut act: impl FnMut(&BatchHeader, &[u8]) -> io::Result<bool>) -> io::Result<bool> {
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
                Err(BatchError::Incomplete { needed, .. }) if position + (length as u64) < size => wanted = WINDOW_BYTES.max(needed),
                Err(error) => {
                    let place = format!("{}, after byte {position}: {error}", segment.path("log").display());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, place));
                }
            }
        }
        position += batches.position() as u64;
    }
    Ok(true)
}

/// Writes what remains of `group` into a new segment, which is on the disk when this returns.
fn rewrite(reader: &LogReader, group: &[Arc<Segment>], round: &mut Round<'_>) -> io::Result<Arc<Segment>> {
    let files = &reader.shared.files;
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
        // What does not fit on the disk must not stay there.
        let _ = files.storage().remove_file(&new.records().path());
    }
    written.map(|()| new)
}

fn write(new: &Segment, file: &dyn File, group: &[Arc<Segment>], files: &OpenFiles, round: &mut Round<'_>) -> io::Result<()> {
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

/// A new segment that is being written.
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

impl Cleaned {
    /// Puts the new segments in the place of the old ones. Where a segment was deleted or cut meanwhile, its group stays as it is now; returns whether all are
    /// in place. When it fails the log directory is offline.
    ///
    /// # Errors
    /// When files cannot be renamed, removed or synced.
    pub fn swap_in(self, writer: &mut LogWriter) -> io::Result<bool> {
        let reader = writer.reader();
        let mut all = true;
        for group in &self.groups {
            let swapped = group.swap_in(&reader);
            if let Err(error) = &swapped {
                reader
                    .shared
                    .fail(format!("cannot swap segments in {}: {error}", reader.path().display()));
            }
            all &= swapped?;
        }
        Ok(all)
    }

    /// Removes the files that were written.
    fn discard(&self, reader: &LogReader) {
        for group in &self.groups {
            // They count for nothing, and a start removes what is left of them.
            let _ = reader.shared.storage().remove_file(&group.new.records().path());
        }
    }
}

impl Group {
    fn swap_in(&self, reader: &LogReader) -> io::Result<bool> {
        let files = &reader.shared.files;
        let storage = files.storage();
        let segments = reader.segments.load_full();
        let same = |at: &usize| {
            segments
                .iter()
                .skip(*at)
                .zip(&self.old)
                .filter(|(now, old)| Arc::ptr_eq(now, old))
                .count()
                == self.old.len()
        };
        // The last segment is the active one: it was none of those that were cleaned, unless the log was cut since.
        let Some(at) = (0..segments.len().saturating_sub(self.old.len())).find(same) else {
            storage.remove_file(&self.new.records().path())?;
            return Ok(false);
        };
        let place = reader.path().join(file_name(self.new.base_offset(), "log"));
        for old in &self.old {
            // Readers that hold the old segment go on with the open file. Should that be closed under them they must not find the new one by its name.
            old.open(files)?;
        }
        if let Some(first) = self.old.first() {
            first.records().moved(place.with_extension("log.replaced"));
        }
        storage.rename(&self.new.records().path(), &place)?;
        self.new.records().moved(place);
        storage.sync_dir(&reader.path())?;

        let mut now = segments.as_ref().clone();
        now.splice(at..at + self.old.len(), [Arc::clone(&self.new)]);
        reader.segments.store(Arc::new(now));
        // Writes the indexes over those of the first old one.
        self.new.seal(files)?;
        // Nothing is left of what was aborted in them, so that nobody need know of it any more.
        let txnindex: [&[&str]; 2] = [&["txnindex"], &["log", "index", "timeindex", "txnindex", "snapshot"]];
        for (position, old) in self.old.iter().enumerate() {
            for extension in txnindex.get(position.min(1)).copied().unwrap_or_default() {
                match storage.remove_file(&old.path(extension)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(true)
    }
}
