//! Recovers one log: decides which segments belong to it, and where it begins and ends.

use std::io::{self, IoSlice};
use std::path::Path;

use tracing::{error, warn};
use uuid::Uuid;

use super::super::catalogue::LogCheckpoint;
use super::super::cleaner;
use super::super::epochs::{self, Epochs};
use super::super::segment::{SegmentSummary, file_name};
use super::super::snapshots;
use super::super::storage::{File, Mode, Storage, read_file, replace_file};
use super::doubt::Doubt;
use super::evidence::{self, Evidence};
use super::examine::{Known, WINDOW_BYTES, examine};
use super::progress::Share;

/// The largest file of epochs that is read.
const EPOCHS_BYTES_MAX: u64 = 64 << 20;

/// A log during its recovery.
pub(super) struct Recovering<'a> {
    storage: &'a dyn Storage,
    dir: &'a Path,
    known: Option<&'a LogCheckpoint>,
    /// Everything before it was flushed when the catalogue was written.
    flushed: i64,
    /// Segments before it need no scan.
    scan_from: i64,
    /// The lowest possible log start offset. A crash may bring back a part of what was deleted
    /// before it.
    start: i64,
    /// Whether the catalogue and the epochs are complete. Then segments that do not join were never
    /// flushed.
    informed: bool,
    /// Whether checked data is rewritten.
    disowned: bool,
    epochs: Epochs,
    epochs_text: Option<String>,
    segments: Vec<SegmentSummary>,
    /// The base offsets of segments that an interrupted compaction was putting in place.
    swapped: Vec<i64>,
    end: i64,
    /// Nothing may be appended to the last segment.
    broken: bool,
    /// Records were cut off that no interrupted write explains.
    loses: bool,
    /// A scanned segment has markers of transactions.
    has_markers: bool,
    /// A segment lacks its file of aborted transactions.
    lacks_aborted: bool,
    /// What is beside the segments.
    evidence: Evidence,
    /// Records from there on are missing; those behind may be there.
    lacks_from: Option<i64>,
    /// Where it is noted on the disk that records may be lost, before anything is cut.
    doubt: &'a Doubt<'a>,
}

impl<'a> Recovering<'a> {
    pub(super) fn new(
        storage: &'a dyn Storage,
        dir: &'a Path,
        (known, newest): (Option<&'a LogCheckpoint>, Option<i64>),
        has_catalogue: bool,
        disowned: bool,
        doubt: &'a Doubt<'a>,
    ) -> io::Result<Self> {
        let epochs_text = match read_file(storage, &dir.join(epochs::FILE), EPOCHS_BYTES_MAX) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Some(String::new()),
            Err(error) => return Err(error),
        };
        let (epochs, start) = match epochs_text.as_deref().map(Epochs::from_text) {
            None => (Some(Epochs::default()), None),
            Some(read) => read.map_or((None, None), |(epochs, start)| (Some(epochs), start)),
        };
        let mut evidence = Evidence::find(storage, dir, known, epochs.as_ref())?;
        evidence.newest = newest;
        evidence.forget_before(known);
        let flushed = known.map_or(0, |known| known.recovery_point);
        let first = epochs
            .as_ref()
            .and_then(|epochs| epochs.entries().first())
            .map_or(0, |first| first.start_offset);
        let epochs = epochs.filter(|epochs| known.is_none_or(|known| agree(epochs, known)));
        let readable = epochs.is_some();
        if !readable {
            warn!(directory = %dir.display(), "the leader epochs are damaged; they are taken from the batches");
        }
        Ok(Self {
            storage,
            dir,
            known,
            flushed,
            // Without valid epochs of the flushed part, all of it must be scanned again. A log that
            // was deleted beyond its flushed offset may even end before its first epoch begins.
            scan_from: if readable && epochs_text.is_some() && first <= flushed {
                flushed
            } else {
                0
            },
            // A file that does not name the log start offset was written before that was known
            // there.
            start: known.map_or(0, |known| known.log_start_offset).max(start.unwrap_or(first)),
            informed: has_catalogue && readable,
            disowned,
            epochs: epochs.unwrap_or_default(),
            epochs_text,
            segments: Vec::new(),
            swapped: Vec::new(),
            end: 0,
            broken: false,
            loses: false,
            has_markers: false,
            lacks_aborted: false,
            lacks_from: known.and_then(|known| known.lacks_from),
            evidence,
            doubt,
        })
    }

    /// Returns the base offsets of the segments. Removes incomplete files; other unknown files
    /// stay.
    fn bases(&self) -> io::Result<Vec<i64>> {
        let mut bases = Vec::new();
        for entry in self.storage.list(self.dir)? {
            match entry.name.strip_suffix(".log") {
                Some(base) if !entry.is_dir => match base.parse::<i64>() {
                    Ok(offset) if offset >= 0 && file_name(offset, "log") == entry.name => {
                        bases.push(offset)
                    }
                    _ => {
                        warn!(directory = %self.dir.display(), file = entry.name, "not a segment's name; it is left alone")
                    }
                },
                // An interrupted compaction or file replacement left it, and nothing uses it.
                None if [".cleaned", ".tmp", ".deleted"]
                    .iter()
                    .any(|suffix| entry.name.ends_with(suffix)) =>
                {
                    self.storage.remove_file(&self.dir.join(&entry.name))?
                }
                _ => {}
            }
        }
        bases.sort_unstable();
        Ok(bases)
    }

    pub(super) fn run(&mut self, share: &mut Share<'_>) -> io::Result<()> {
        self.swapped = cleaner::finish(self.storage, self.dir)?;
        let bases = self.bases()?;
        self.end = match bases.first() {
            // The first segment was never flushed, and those before it are gone. The log ends
            // before it.
            Some(&first) if self.informed && first > self.start.max(self.flushed) => self.start,
            Some(&first) => first,
            // All of its records are gone: it is empty, and another replica may have them.
            None if self.has_lost_last(&bases) => self.start,
            None => self.known.map_or(0, |known| known.log_end_offset),
        };
        let mut cut = false;
        for (index, &base) in bases.iter().enumerate() {
            cut |= !self.joins(base);
            if cut || base < self.end {
                // What overlaps is there twice.
                self.lose(cut)?;
                // After a cut, or overlapping earlier segments: set aside, so that no read returns
                // an offset twice.
                self.set_aside(base)?;
                continue;
            }
            self.notice_hole(base)?;
            let next = bases.get(index + 1).copied();
            let sealed = next.filter(|&next| next <= self.scan_from);
            match sealed.and_then(|next| self.believed(base).map(|summary| (next, summary))) {
                Some((next, summary)) => {
                    share.checked(summary.size_bytes);
                    self.lacks_aborted |= summary.has_aborted && !self.has_aborted(base);
                    self.segments.push(summary);
                    self.end = next;
                }
                None => cut = self.scan(base, next, share)?,
            }
        }
        self.compare_with_evidence(&bases)?;
        self.trim_epochs();
        if !self.segments.is_empty() && (self.broken || self.end < self.flushed) {
            self.begin_behind_damage()?;
        }
        snapshots::remove_beyond(self.storage, self.dir, self.end)?;
        self.write_epochs()
    }

    /// Notes that records are lost that no interrupted write explains.
    fn lose(&mut self, loses: bool) -> io::Result<()> {
        if loses && !self.loses {
            self.loses = true;
            self.doubt.note()?;
        }
        Ok(())
    }

    /// Notes whether records are missing before the segment that begins at `base` and joins. After
    /// a clean stop a gap that the catalogue does not have is no work of compaction. A follower
    /// would never ask for what is in it, so it is cut to the gap (`LogWriter::cut_missing`).
    fn notice_hole(&mut self, base: i64) -> io::Result<()> {
        let (Some(known), Some(before)) = (self.known, self.segments.last()) else { return Ok(()) };
        if !self.doubt.knows_segments() {
            return Ok(());
        }
        let mut known = known.segments.iter().filter(|known| known.size_bytes > 0);
        let from = known.find_map(|known| match known.base_offset {
            same if same == before.base_offset => {
                (before.size_bytes < known.size_bytes).then_some(self.end)
            }
            gone => (before.base_offset + 1..base).contains(&gone).then_some(gone),
        });
        let Some(from) = from else { return Ok(()) };
        error!(log = %self.dir.display(), from, to = base, "records are missing that were there when the broker was stopped; as a follower it gets them from its leader, and as a leader it goes on without");
        self.lacks_from = Some(self.lacks_from.map_or(from, |other| other.min(from)));
        self.lose(true)
    }

    /// Whether the file of the last segment that the catalogue knows is gone, with its records.
    fn has_lost_last(&self, bases: &[i64]) -> bool {
        let known = self.known.and_then(|known| known.segments.last());
        let known = known.filter(|last| last.size_bytes > 0).map(|last| last.base_offset);
        let newest = self.evidence.newest.or(known);
        newest.is_some_and(|newest| bases.last().is_none_or(|base| *base < newest))
    }

    /// Notes whether the log ends before what lies beside it. Without its last segments it ends
    /// where those before it end, and gets the rest from its leader.
    fn compare_with_evidence(&mut self, bases: &[i64]) -> io::Result<()> {
        let orphans: Vec<i64> = self.evidence.sealed_behind(bases.last().copied()).collect();
        let is_gone = self.has_lost_last(bases) || !orphans.is_empty();
        if self.doubt.is_first() && (is_gone || self.end < self.evidence.end) {
            error!(log = %self.dir.display(), end_offset = self.end, expected = self.evidence.end, missing_segments = ?orphans, "the log ends before what other files of it say");
        }
        self.lose(is_gone || self.end < self.evidence.end)?;
        if is_gone {
            self.flushed = self.flushed.min(self.end);
        }
        orphans
            .iter()
            .try_for_each(|base| evidence::remove_of_segment(self.storage, self.dir, *base))
    }

    fn has_aborted(&self, base: i64) -> bool {
        self.evidence.with_aborted.contains(&base)
    }

    /// Keeps only the epochs of the recovered log. The first epoch says where the log begins, so it
    /// stays even if no record is left.
    fn trim_epochs(&mut self) {
        let first = self.epochs.entries().first().copied();
        self.epochs.truncate_from_end(self.end);
        match first {
            Some(first) if self.epochs.entries().is_empty() && first.start_offset == self.end => {
                self.epochs.assign(first.epoch, first.start_offset);
            }
            _ if self.start <= self.end => {
                self.epochs.truncate_from_start(self.start);
            }
            _ => {}
        }
    }

    /// Returns whether a segment that begins at `base` can belong to the log. A segment begins
    /// where the one before it ends. A gap has one of two causes: compaction or deletion, which
    /// only touch flushed and checkpointed data, or a segment that was never flushed.
    fn joins(&self, base: i64) -> bool {
        base <= self.end
            || !self.informed
            || base <= self.start.max(self.flushed)
            || self.end < self.flushed
    }

    /// Returns a sealed segment before the recovery point, if its size matches the catalogue.
    fn believed(&self, base: i64) -> Option<SegmentSummary> {
        if self.swapped.contains(&base) {
            return None;
        }
        let summary = self.known?.segments.iter().find(|summary| summary.base_offset == base)?;
        let file =
            self.storage.open(&self.dir.join(file_name(base, "log")), Mode::Existing).ok()?;
        (file.length().ok()? == summary.size_bytes).then_some(*summary)
    }

    /// Checks every batch of a segment and cuts off a torn tail. Returns whether there was one.
    fn scan(&mut self, base: i64, next: Option<i64>, share: &mut Share<'_>) -> io::Result<bool> {
        let path = self.dir.join(file_name(base, "log"));
        let file = self.storage.open(&path, Mode::Existing)?;
        let known = Known {
            base,
            next: next.unwrap_or(i64::MAX),
            flushed: self.flushed,
            vouched: if self.doubt.is_first() { i64::MAX } else { self.evidence.end },
        };
        let examined =
            examine(&path, file.as_ref(), known, &mut self.epochs, |bytes| share.checked(bytes))?;
        let mut summary = examined.summary;
        summary.modified_ms =
            self.known.and_then(|known| known.segments.last()).map_or(0, |last| last.modified_ms);
        let known = self
            .known
            .and_then(|known| known.segments.iter().find(|summary| summary.base_offset == base));
        summary.has_aborted = self.has_aborted(base);
        // An active segment has its aborted transactions in memory.
        self.lacks_aborted |= !summary.has_aborted
            && (known.is_some_and(|known| known.has_aborted)
                || (examined.has_aborts && next.is_some()));
        self.lose(examined.loses)?;
        if let Some(why) = &examined.torn {
            let (position, bytes) =
                (summary.size_bytes, file.length()?.saturating_sub(summary.size_bytes));
            warn!(segment = %path.display(), position, bytes, end_offset = examined.end, %why, "cut off the tail of a segment that is not whole");
            file.truncate(position)?;
        }
        if self.disowned {
            write_again(file.as_ref(), summary.size_bytes)?;
        }
        for extension in ["index", "timeindex"] {
            match self.storage.remove_file(&path.with_extension(extension)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        (self.end, self.broken) = (examined.end, examined.broken);
        self.has_markers |= examined.has_markers;
        self.segments.push(summary);
        Ok(examined.torn.is_some())
    }

    /// Flushed records are missing at the end, or nothing can be appended after them. The log
    /// continues in a new segment, so that no acknowledged offset is assigned twice.
    fn begin_behind_damage(&mut self) -> io::Result<()> {
        let base = self.end.max(self.flushed);
        if let Some(last) = self.segments.last_mut().filter(|_| self.end < base) {
            // A read of what is missing fails. It does not skip it, as it skips what compaction
            // removed.
            let mut known = self.known.into_iter().flat_map(|known| &known.segments);
            let known = known.find(|known| known.base_offset == last.base_offset);
            last.size_bytes = last.size_bytes.max(known.map_or(0, |known| known.size_bytes));
            self.lacks_from = Some(self.lacks_from.map_or(self.end, |other| other.min(self.end)));
        }
        error!(log = %self.dir.display(), end_offset = self.end, flushed = self.flushed, "the log is damaged where it was flushed, and goes on behind that");
        if self.segments.last().is_some_and(|last| last.base_offset < base) {
            let file = self.storage.open(&self.dir.join(file_name(base, "log")), Mode::Create)?;
            file.truncate(0)?;
            self.segments.push(SegmentSummary::empty(base, 0));
        }
        self.end = base;
        Ok(())
    }

    fn set_aside(&self, base: i64) -> io::Result<()> {
        let from = self.dir.join(file_name(base, "log"));
        let to = self.dir.join(file_name(base, "log.damaged"));
        warn!(segment = %from.display(), to = %to.display(), "a segment that does not follow the one before it is set aside");
        self.storage.rename(&from, &to)?;
        evidence::remove_of_segment(self.storage, self.dir, base)
    }

    /// Writes the epochs that were found, because the next recovery may not scan these batches
    /// again.
    fn write_epochs(&mut self) -> io::Result<()> {
        let text = self.epochs.to_text(self.log_start_offset());
        // A log whose records are gone must not end before its epochs for ever.
        match (self.segments.is_empty() && !(self.loses && self.epochs_text.is_some()))
            || (self.epochs_text.as_ref() == Some(&text) && !self.disowned)
        {
            true => Ok(()),
            false => replace_file(self.storage, &self.dir.join(epochs::FILE), text.as_bytes()),
        }
    }

    fn log_start_offset(&self) -> i64 {
        let first = self.segments.first().map_or(self.end, |segment| segment.base_offset);
        self.start.clamp(first, self.end.max(first))
    }

    /// Whether records were cut off though the machine went on running: another replica may have
    /// them.
    pub(super) fn loses(&self) -> bool {
        self.loses
    }

    pub(super) fn finish(self, topic: &str, partition: i32, topic_id: Uuid) -> LogCheckpoint {
        let log_start_offset = self.log_start_offset();
        let high_watermark = self.known.map_or(log_start_offset, |known| known.high_watermark);
        LogCheckpoint {
            topic: topic.to_owned(),
            topic_id,
            partition,
            log_start_offset,
            log_end_offset: self.end,
            high_watermark: high_watermark.clamp(log_start_offset, self.end),
            cleaned_offset: self.known.map_or(0, |known| known.cleaned_offset).min(self.end),
            recovery_point: self.end,
            lacks_from: self.lacks_from.filter(|from| *from < self.end),
            // Without a catalogue nobody knows which files of aborted transactions there were.
            lacks_transaction_index: self.lacks_aborted
                || self.known.map_or(self.has_markers, |known| known.lacks_transaction_index),
            segments: self.segments,
            epochs: self
                .epochs
                .entries()
                .iter()
                .map(|entry| (entry.epoch.0, entry.start_offset))
                .collect(),
        }
    }
}

/// Returns whether the epochs file and the catalogue, which carries a checksum, agree about the
/// flushed part. The first epoch may begin later by now, because the log before it was deleted.
fn agree(epochs: &Epochs, known: &LogCheckpoint) -> bool {
    let Some(first) = epochs.entries().first() else { return true };
    let of_file = epochs.entries().iter().map(|entry| (entry.epoch.0, entry.start_offset));
    let of_catalogue = known.epochs.iter().copied();
    let flushed =
        |(epoch, start): &(i32, i64)| *epoch > first.epoch.0 && *start < known.recovery_point;
    of_file.filter(flushed).eq(of_catalogue.filter(flushed))
}

/// Rewrites the first `size` bytes of a file in place and truncates it there. So the next flush
/// writes what a failed one did not.
fn write_again(file: &dyn File, size: u64) -> io::Result<()> {
    let mut window = vec![0; WINDOW_BYTES];
    let mut position = 0;
    while position < size {
        let wanted = usize::try_from(size - position).unwrap_or(usize::MAX).min(WINDOW_BYTES);
        let window = window.get_mut(..wanted).unwrap_or_default();
        file.read_exact_at(window, position)?;
        file.write_all_at(&mut [IoSlice::new(window)], position)?;
        position += wanted as u64;
    }
    file.truncate(size)
}
