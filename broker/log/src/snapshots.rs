//! The snapshot files of a log's producers (`%020d.snapshot`). The name holds the offset up to
//! which a snapshot covers the log.
//!
//! They are not synced: their checksum reveals a torn one, and the log can rebuild the state. So a
//! roll or a stop does not wait for the write. Recovery removes snapshots beyond the end of the
//! log, before an append there makes them wrong.

use std::io::{self, IoSlice};
use std::path::Path;

use tracing::warn;

use super::dir_state::DirState;
use super::partition_dir::named;
use super::producers::{Producers, Snapshot};
use super::reader::LogReader;
use super::segment::{Segment, SegmentError, file_name};
use super::storage::{Mode, Storage, read_file};
use super::transactions::{Aborted, Transactions, is_damage, read_index};

/// The largest file that is read: more than 20 million producers.
const BYTES_MAX: u64 = 1 << 30;

/// How many are kept: the newest, and one more in case it is damaged.
const KEPT: usize = 2;

/// Loads the producers at the end of the log and its transactions, from the newest readable
/// snapshot and the log after it.
///
/// # Errors
/// When the disk fails. With [`is_damage`] when the file of aborted transactions that belongs to
/// the snapshot is damaged.
pub(super) fn load(
    state: &DirState,
    reader: &LogReader,
    now_ms: i64,
) -> io::Result<(Producers, Transactions)> {
    let (dir, end) = (reader.path(), reader.log_end_offset());
    let segments = reader.segments.load();
    // Deleted records that are still in the segment of the log start offset are read too, for their
    // producers. A batch may also span the log start offset. Segments wholly before it are skipped.
    // A crash during their removal may bring back any of them, even the begin of a transaction
    // without its end.
    let start = reader.log_start_offset();
    let bases = || segments.iter().map(|segment| segment.base_offset());
    let begin = bases().rfind(|base| *base <= start).or(bases().next()).unwrap_or(start);
    let (mut producers, mut ended, mut from) = (Producers::default(), Vec::new(), begin);
    for offset in offsets(state.storage(), &dir)?
        .into_iter()
        .rev()
        .filter(|offset| (from..=end).contains(offset))
    {
        let path = dir.join(file_name(offset, "snapshot"));
        let found = match read_file(state.storage(), &path, BYTES_MAX) {
            Ok(bytes) => {
                Producers::from_snapshot(&bytes, now_ms).map_err(|error| error.to_string())
            }
            Err(error) if is_damage(&error) => Err(error.to_string()),
            Err(error) => return Err(error),
        };
        match found {
            Ok(Snapshot { ended: None, .. }) if offset > reader.high_watermark() => {
                // Only the log says which markers before it are not committed.
            }
            Ok(found) => {
                (producers, ended, from) =
                    (found.producers, found.ended.unwrap_or_default(), offset);
                break;
            }
            Err(error) => {
                let (topic, partition) = named(&path);
                warn!(topic, partition, snapshot = %path.display(), error, "a snapshot of producers is dropped; an older one and the log give the same");
                state.storage().remove_file(&path)?;
            }
        }
    }
    // The transaction index of the snapshot's segment is valid up to the snapshot. Later
    // transactions are found again in the log.
    let holds =
        segments.iter().rev().find(|segment| segment.base_offset() <= from).or(segments.first());
    let aborted = match holds {
        Some(segment) => {
            read_index(state.storage(), &segment.path("txnindex"), segment.base_offset())?
        }
        None => Vec::new(),
    };
    let vouched = |aborted: &Aborted| aborted.last_offset < from;
    let in_memory_from = holds.map_or(from, |segment| segment.base_offset());
    let mut transactions = Transactions::begin(
        &producers,
        ended,
        in_memory_from,
        aborted.into_iter().filter(vouched).collect(),
    );
    for (index, segment) in segments.iter().enumerate() {
        if segments.get(index + 1).is_some_and(|next| next.base_offset() <= from) {
            continue;
        }
        replay_readable(state, segment, from, (&mut producers, &mut transactions), now_ms)?;
    }
    // It is unknown whether the markers of ended transactions are committed. They hold back the
    // last stable offset until they are.
    Ok((producers, transactions))
}

/// Finds the aborted transactions of the whole log, in the order of their markers. It reads the
/// batches alone, and no snapshot or index.
///
/// # Errors
/// When the disk fails.
pub(super) fn find_aborted(
    state: &DirState,
    reader: &LogReader,
    now_ms: i64,
) -> io::Result<Vec<Aborted>> {
    let (mut producers, mut transactions) = (Producers::default(), Transactions::none(0));
    for segment in reader.segments.load().iter() {
        let found = (&mut producers, &mut transactions);
        replay_readable(state, segment, segment.base_offset(), found, now_ms)?;
    }
    Ok(transactions.aborted().to_vec())
}

/// Calls [`replay`] for the readable part of a segment, and logs damage.
fn replay_readable(
    state: &DirState,
    segment: &Segment,
    from: i64,
    into: (&mut Producers, &mut Transactions),
    now_ms: i64,
) -> io::Result<()> {
    match replay(state, segment, from, into, now_ms) {
        Err(SegmentError::Io(error))
            if !is_damage(&error) && error.kind() != io::ErrorKind::NotFound =>
        {
            Err(error)
        }
        Err(error) => {
            let path = segment.path("log");
            let (topic, partition) = named(&path);
            warn!(topic, partition, segment = %path.display(), %error, "the producers behind a damaged batch are not known; a batch that one of them repeats may be appended again");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn replay(
    state: &DirState,
    segment: &Segment,
    from: i64,
    (producers, transactions): (&mut Producers, &mut Transactions),
    now_ms: i64,
) -> Result<(), SegmentError> {
    let (files, size) = (&state.files, segment.size_bytes());
    let begin = if from <= segment.base_offset() {
        0
    } else {
        segment.find(files, from, size)?.map_or(size, |located| located.position)
    };
    for located in segment.scan(files, begin, size)? {
        let located = located?;
        // Only control batches need their records, and they are few.
        let batch = if located.header.is_control() {
            segment.read_batch(files, &located)?
        } else {
            Vec::new()
        };
        // The scan had to begin before `from`. The log may also begin in the middle of a batch.
        if located.header.last_offset() < from {
            continue;
        }
        if let Some(change) = producers.replay(&located.header, &batch, now_ms) {
            transactions.changed(change, 0);
        }
    }
    Ok(())
}

/// Writes the state at the end of the log and removes all but the newest snapshots.
pub(super) fn write(state: &DirState, reader: &LogReader, producers: &Producers) -> io::Result<()> {
    if reader.segments.load().is_empty() {
        return Ok(());
    }
    let (storage, dir) = (state.storage(), reader.path());
    // The watermark first: with an older one, more stay undecided.
    let high_watermark = reader.high_watermark();
    let undecided: Vec<_> = reader.transactions.read().undecided(high_watermark).collect();
    let bytes = producers.to_snapshot(&undecided);
    let file =
        storage.open(&dir.join(file_name(reader.log_end_offset(), "snapshot")), Mode::Create)?;
    file.truncate(0)?;
    file.write_all_at(&mut [IoSlice::new(&bytes)], 0)?;
    for offset in offsets(storage, &dir)?.into_iter().rev().skip(KEPT) {
        storage.remove_file(&dir.join(file_name(offset, "snapshot")))?;
    }
    Ok(())
}

/// Removes the snapshots beyond the end of the log.
pub(super) fn remove_beyond(storage: &dyn Storage, dir: &Path, end_offset: i64) -> io::Result<()> {
    for offset in offsets(storage, dir)?.into_iter().filter(|offset| *offset > end_offset) {
        storage.remove_file(&dir.join(file_name(offset, "snapshot")))?;
    }
    Ok(())
}

/// Returns the offsets of the snapshots in a directory, ascending; none if the directory does not
/// exist.
fn offsets(storage: &dyn Storage, dir: &Path) -> io::Result<Vec<i64>> {
    let entries = match storage.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let offset_of = |name: &str| {
        name.strip_suffix(".snapshot")?
            .parse::<i64>()
            .ok()
            .filter(|offset| file_name(*offset, "snapshot") == name)
    };
    let mut offsets: Vec<_> = entries.iter().filter_map(|entry| offset_of(&entry.name)).collect();
    offsets.sort_unstable();
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_protocol::batch::BatchHeader;
    use weir_protocol::record::BatchBuilder;
    use weir_protocol::types::{LeaderEpoch, ProducerEpoch, ProducerId, TopicId, TopicPartition};

    use super::super::dir::{LogDir, LogDirOptions};
    use super::super::storage::Disk;
    use super::super::validate::{Origin, Prepared};
    use super::super::{AppendError, AppendInfo, Identity, LogConfig, LogWriter};

    const ID: TopicPartition = TopicPartition { topic: TopicId::ZERO, index: 0 };

    fn open(root: &std::path::Path) -> (LogDir, LogWriter) {
        let identity = Identity { cluster_id: "c".into(), broker_id: 0 };
        let options = LogDirOptions { open_files_max: 10, recovery_threads: 1 };
        let dir = LogDir::open(Arc::new(Disk), root, &identity, options).unwrap();
        let writer = dir.open_log(ID, &"t".into(), Arc::new(LogConfig::default())).unwrap();
        (dir, writer)
    }

    fn send(writer: &mut LogWriter, sequence: i32) -> Result<AppendInfo, AppendError> {
        let mut builder = BatchBuilder::new(0).producer(ProducerId(1), ProducerEpoch(0), sequence);
        builder.append(0, 1, None, None, []);
        let bytes = builder.build(0).unwrap();
        let headers = vec![BatchHeader::parse(&bytes).unwrap()];
        writer
            .append_as_leader(
                &mut [Prepared { bytes, headers, origin: Origin::Client(None) }],
                LeaderEpoch(0),
                1,
            )
            .remove(0)
    }

    #[test]
    fn producers_are_known_again_after_a_restart() {
        // The steps between the last append and the next start, and whether the snapshots get
        // damaged.
        for (roll, close, damage) in [
            (false, false, false),
            (true, false, false),
            (false, true, false),
            (true, true, false),
            (true, true, true),
        ] {
            let root = tempfile::tempdir().unwrap();
            let (dir, mut writer) = open(root.path());
            for sequence in 0..3 {
                send(&mut writer, sequence).unwrap();
            }
            if roll {
                writer.roll(5).unwrap();
                send(&mut writer, 3).unwrap();
            }
            let last = if roll { 3 } else { 2 };
            if close {
                dir.close(std::slice::from_mut(&mut writer)).unwrap();
            }
            drop((dir, writer));
            let snapshots = || {
                std::fs::read_dir(root.path().join("t-0"))
                    .unwrap()
                    .map(|entry| entry.unwrap().path())
                    .filter(|path| {
                        path.extension().is_some_and(|extension| extension == "snapshot")
                    })
            };
            assert_eq!(snapshots().count(), usize::from(roll) + usize::from(close));
            if damage {
                snapshots().for_each(|path| std::fs::write(path, [0; 7]).unwrap());
            }
            let (_dir, mut writer) = open(root.path());
            assert_eq!(
                send(&mut writer, last).unwrap().first_offset,
                i64::from(last),
                "a duplicate"
            );
            assert!(matches!(send(&mut writer, last + 2), Err(AppendError::Producer(_))), "a gap");
            assert_eq!(send(&mut writer, last + 1).unwrap().first_offset, i64::from(last) + 1);
        }
    }

    #[test]
    fn a_roll_leaves_a_snapshot_though_nobody_asked_for_producers() {
        let root = tempfile::tempdir().unwrap();
        let (dir, mut writer) = open(root.path());
        for sequence in 0..3 {
            send(&mut writer, sequence).unwrap();
        }
        drop((dir, writer));
        let (_dir, mut writer) = open(root.path());
        writer.roll(5).unwrap();
        assert!(root.path().join("t-0/00000000000000000003.snapshot").exists());
        assert_eq!(send(&mut writer, 2).unwrap().first_offset, 2, "a duplicate");
    }

    #[test]
    fn a_snapshot_behind_the_end_of_the_log_goes() {
        let root = tempfile::tempdir().unwrap();
        let (dir, mut writer) = open(root.path());
        for sequence in 0..3 {
            send(&mut writer, sequence).unwrap();
        }
        drop((dir, writer));
        let path = root.path().join("t-0");
        let beyond = super::Producers::default().to_snapshot(&[]);
        std::fs::write(path.join("00000000000000000004.snapshot"), &beyond).unwrap();
        let (_dir, mut writer) = open(root.path());
        assert!(!path.join("00000000000000000004.snapshot").exists());
        assert_eq!(send(&mut writer, 2).unwrap().first_offset, 2);
    }
}
