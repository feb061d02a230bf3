//! The directory of a partition: its name, and what it says of itself.

use std::io;
use std::path::Path;

use tracing::warn;
use uuid::Uuid;
use weir_protocol::types::TopicId;

use super::storage::{Storage, read_file};

/// What the directory of a deleted log ends with, until its files go.
pub(super) const DELETED: &str = "-delete";

/// What the directory of a log ends with that is nobody's any more, and is not deleted.
pub(super) const STRAY: &str = "-stray";

/// What a directory of a partition says of itself (`partition.metadata`).
pub(super) const PARTITION_METADATA: &str = "partition.metadata";

/// What a partition's directory says of itself: Kafka's two lines, and their CRC-32C. A topic id in
/// which a bit has flipped would be another topic's.
pub(super) fn metadata_text(topic: TopicId) -> String {
    let text = format!("version: 0\ntopic_id: {topic}\n");
    let checksum = crc32c::crc32c(text.as_bytes());
    format!("{text}{CHECKSUM}{checksum:08x}\n")
}

/// What the line of the checksum begins with.
const CHECKSUM: &str = "crc32c: ";

/// The lines before the checksum, if it is theirs; all of them where there is none, as Kafka has it.
fn checked(text: &str) -> Option<&str> {
    let Some((lines, checksum)) = text.split_once(CHECKSUM) else { return Some(text) };
    let expected = u32::from_str_radix(checksum.trim(), 16).ok()?;
    (crc32c::crc32c(lines.as_bytes()) == expected).then_some(lines)
}

/// `<topic>-<partition>`, of which the topic may have dashes too.
pub(super) fn parse_dir_name(name: &str) -> Option<(&str, i32)> {
    let (topic, partition) = name.rsplit_once('-')?;
    let index: i32 = partition.parse().ok()?;
    (!topic.is_empty() && index >= 0 && index.to_string() == partition).then_some((topic, index))
}

/// The topic id that a partition's directory names; `None` where it names none. That it cannot be
/// read now does not mean that there is none.
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

/// A name that no other directory has, for what had the name of a partition's. Names of directories
/// are no longer than this (`UnifiedLog.logDirNameWithSuffixCappedLength`).
pub(super) fn aside(topic: &str, partition: i32, suffix: &str) -> String {
    const BYTES_MAX: usize = 255;
    let rest = format!("-{partition}.{}{suffix}", Uuid::new_v4().simple());
    let topic =
        topic.get(..topic.len().min(BYTES_MAX.saturating_sub(rest.len()))).unwrap_or_default();
    format!("{topic}{rest}")
}

/// Sets aside a directory that stands where a new log is to be made and holds records: it was left
/// alone since it does not say whose it is, and is not written over.
///
/// # Errors
/// When it cannot be looked at or renamed.
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
    warn!(directory = %dir.display(), to = %to.display(), "a directory of unknown records stands where a log is to be made; it is set aside");
    storage.rename(dir, &to)
}
