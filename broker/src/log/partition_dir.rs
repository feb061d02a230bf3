//! The directory of a partition: its name, and its metadata file.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use tracing::warn;
use uuid::Uuid;
use weir_protocol::types::TopicId;

use super::storage::{Storage, read_file};

/// The suffix of a deleted log's directory until its files are removed.
pub(super) const DELETED: &str = "-delete";

/// The suffix of a log's directory that no topic owns and that is not deleted.
pub(super) const STRAY: &str = "-stray";

/// The metadata file of a partition's directory.
pub(super) const PARTITION_METADATA: &str = "partition.metadata";

/// The content of `partition.metadata`: Kafka's two lines and their CRC-32C. With a flipped bit, a
/// topic id would be another topic's.
pub(super) fn metadata_text(topic: TopicId) -> String {
    let text = format!("version: 0\ntopic_id: {topic}\n");
    let checksum = crc32c::crc32c(text.as_bytes());
    format!("{text}{CHECKSUM}{checksum:08x}\n")
}

/// The prefix of the checksum line.
const CHECKSUM: &str = "crc32c: ";

/// Returns the lines before the checksum if it matches; without a checksum, as Kafka writes it, all
/// lines.
fn checked(text: &str) -> Option<&str> {
    let Some((lines, checksum)) = text.split_once(CHECKSUM) else { return Some(text) };
    let expected = u32::from_str_radix(checksum.trim(), 16).ok()?;
    (crc32c::crc32c(lines.as_bytes()) == expected).then_some(lines)
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

/// Returns the topic id in a partition's directory; `None` when it has none. A read error is an
/// error: the id may still exist.
pub(super) fn topic_id(storage: &dyn Storage, dir: &Path) -> io::Result<Option<Uuid>> {
    let text = match read_file(storage, &dir.join(PARTITION_METADATA), 4096) {
        Ok(text) => String::from_utf8(text).unwrap_or_default(),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let id = checked(&text)
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("topic_id:")));
    Ok(id.and_then(|id| TopicId::parse(id.trim())).map(|id| id.0))
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
