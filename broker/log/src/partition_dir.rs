//! The directory of a partition: its name, and its metadata file.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use tracing::warn;
use uuid::Uuid;
use weir_protocol::types::{TopicId, TopicPartition};

use super::storage::{Storage, read_file};

/// The suffix of a deleted log's directory until its files are removed.
pub(super) const DELETED: &str = "-delete";

/// The suffix of a log's directory that no topic owns and that is not deleted.
pub(super) const STRAY: &str = "-stray";

/// The metadata file of a partition's directory.
pub(super) const PARTITION_METADATA: &str = "partition.metadata";

/// The content of `partition.metadata`: Kafka's two lines, the partition, and the CRC-32C of these.
/// With a flipped bit, a topic id would be another topic's. The partition tells directories of one
/// topic apart that somebody has exchanged.
pub(super) fn metadata_text(id: TopicPartition) -> String {
    let text = format!("version: 0\ntopic_id: {}\n{PARTITION}{}\n", id.topic, id.index);
    let checksum = crc32c::crc32c(text.as_bytes());
    format!("{text}{CHECKSUM}{checksum:08x}\n")
}

/// The prefix of the line of the partition.
const PARTITION: &str = "partition: ";

/// The prefix of the checksum line.
const CHECKSUM: &str = "crc32c: ";

/// Returns the lines before the checksum if it matches, and whether there is one; without a
/// checksum, as Kafka writes it, all lines.
fn checked(text: &str) -> Option<(&str, bool)> {
    let Some((lines, checksum)) = text.split_once(CHECKSUM) else { return Some((text, false)) };
    let expected = u32::from_str_radix(checksum.trim(), 16).ok()?;
    (crc32c::crc32c(lines.as_bytes()) == expected).then_some((lines, true))
}

/// What a partition's directory says of its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The topic id; `None` when it has none.
    pub(super) topic_id: Option<Uuid>,
    /// The partition; `None` when it says none, as those of Kafka and of earlier versions.
    pub(super) partition: Option<i32>,
}

impl Said {
    /// Whether it says that another log belongs there.
    pub(super) fn contradicts(self, topic_id: Uuid, partition: i32) -> bool {
        self.topic_id.is_some_and(|said| said != topic_id)
            || self.partition.is_some_and(|said| said != partition)
    }
}

/// Parses `<topic>-<partition>`; the topic may contain dashes.
pub(super) fn parse_dir_name(name: &str) -> Option<(&str, i32)> {
    let (topic, partition) = name.rsplit_once('-')?;
    let index: i32 = partition.parse().ok()?;
    (!topic.is_empty() && index >= 0 && index.to_string() == partition).then_some((topic, index))
}

/// The topic and the partition of a file of a log, for a line about it.
pub(super) fn named(file: &Path) -> (Option<&str>, Option<i32>) {
    let dir = file.parent().and_then(Path::file_name).and_then(OsStr::to_str);
    dir.and_then(parse_dir_name)
        .map(|(topic, partition)| (Some(topic), Some(partition)))
        .unwrap_or_default()
}

/// Returns what a partition's directory says of its owner. A read error is an error: the id may
/// still exist.
pub(super) fn said_in(storage: &dyn Storage, dir: &Path) -> io::Result<Said> {
    let text = match read_file(storage, &dir.join(PARTITION_METADATA), 4096) {
        Ok(text) => String::from_utf8(text).unwrap_or_default(),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge) =>
        {
            return Ok(Said::default());
        }
        Err(error) => return Err(error),
    };
    let Some((lines, has_checksum)) = checked(&text) else { return Ok(Said::default()) };
    let value = |prefix| lines.lines().find_map(|line| line.strip_prefix(prefix)).map(str::trim);
    Ok(Said {
        topic_id: value("topic_id:").and_then(TopicId::parse).map(|id| id.0),
        // A number that is cut off is another number.
        partition: value(PARTITION.trim_end())
            .filter(|_| has_checksum)
            .and_then(|it| it.parse().ok()),
    })
}

/// Returns a unique name to move a partition's directory to. It is at most 255 bytes long
/// (`UnifiedLog.logDirNameWithSuffixCappedLength`).
pub(super) fn aside(topic: &str, partition: i32, suffix: &str) -> String {
    const BYTES_MAX: usize = 255;
    let rest = format!("-{partition}.{}{suffix}", Uuid::new_v4().simple());
    let topic =
        topic.get(..topic.len().min(BYTES_MAX.saturating_sub(rest.len()))).unwrap_or_default();
    format!("{topic}{rest}")
}

/// Sets aside a directory that has the name of a new log and holds records. Recovery skipped it
/// because it names no owner, so the new log must not overwrite it.
///
/// # Errors
/// When it cannot be listed or renamed.
pub(super) fn set_aside_unknown(
    storage: &dyn Storage,
    dir: &Path,
    topic: &str,
    partition: i32,
) -> io::Result<()> {
    let entries = match storage.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    if !entries.iter().any(|entry| entry.name.ends_with(".log")) {
        return Ok(());
    }
    let to = dir.with_file_name(aside(topic, partition, STRAY));
    warn!(topic, partition, directory = %dir.display(), to = %to.display(), "a directory of unknown records stands where a log is to be made; it is set aside");
    storage.rename(dir, &to)
}
