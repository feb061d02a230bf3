//! How far each log is clean: a file in the log directory, in the text form of Kafka's `cleaner-offset-checkpoint`, but with topic ids in the place of
//! names: a topic that is deleted and made again begins anew.
//!
//! The file is worth some work, not any data: without it, logs are cleaned from their beginning.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_protocol::types::{TopicId, TopicPartition};

use super::super::storage::{Storage, read_file, replace_file};

const FILE: &str = "cleaner-offset-checkpoint";

/// The first line. Kafka's own version, with names, is 0.
const VERSION: &str = "1";

/// The largest file that is read: beyond a million logs.
const BYTES_MAX: u64 = 64 << 20;

/// Where the last cleaning of each log ended.
#[derive(Debug)]
pub struct Checkpoint {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    offsets: BTreeMap<TopicPartition, i64>,
}

impl Checkpoint {
    /// That of the log directory `root`; empty when there is none, or none that can be read.
    pub fn open(storage: Arc<dyn Storage>, root: &Path) -> Self {
        let path = root.join(FILE);
        let offsets = read_file(storage.as_ref(), &path, BYTES_MAX).ok().and_then(|bytes| parse(&bytes));
        Self {
            storage,
            path,
            offsets: offsets.unwrap_or_default(),
        }
    }

    /// Where the next cleaning of a log begins: 0 where none is known.
    pub fn offset(&self, id: TopicPartition) -> i64 {
        self.offsets.get(&id).copied().unwrap_or(0)
    }

    /// Remembers that a log is clean up to `offset`, and forgets the logs that are no more.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn cleaned(&mut self, id: TopicPartition, offset: i64, exists: impl Fn(TopicPartition) -> bool) -> io::Result<()> {
        self.offsets.insert(id, offset);
        self.offsets.retain(|id, _| exists(*id));
        let mut text = format!("{VERSION}\n{}\n", self.offsets.len());
        for (id, offset) in &self.offsets {
            text += &format!("{} {} {offset}\n", id.topic, id.index);
        }
        replace_file(self.storage.as_ref(), &self.path, text.as_bytes())
    }
}

fn parse(bytes: &[u8]) -> Option<BTreeMap<TopicPartition, i64>> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    if lines.next()? != VERSION {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    let offsets: BTreeMap<_, _> = lines.map(parse_line).collect::<Option<_>>()?;
    (offsets.len() == count).then_some(offsets)
}

fn parse_line(line: &str) -> Option<(TopicPartition, i64)> {
    let mut words = line.split(' ');
    let topic = TopicId::parse(words.next()?)?;
    let index = words.next()?.parse().ok()?;
    let offset = words.next()?.parse().ok()?;
    words.next().is_none().then_some((TopicPartition { topic, index }, offset))
}

#[cfg(test)]
mod tests {
    use super::super::super::storage::Disk;
    use super::*;

    #[test]
    fn it_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Checkpoint::open(Arc::new(Disk), dir.path());
        let id = |index| TopicPartition {
            topic: TopicId(uuid::Uuid::from_u128(7)),
            index,
        };
        let mut checkpoint = open();
        assert_eq!(checkpoint.offset(id(0)), 0);
        checkpoint.cleaned(id(0), 5, |_| true).unwrap();
        checkpoint.cleaned(id(1), 6, |_| true).unwrap();
        assert_eq!([0, 1, 2].map(|index| open().offset(id(index))), [5, 6, 0]);
        checkpoint.cleaned(id(1), 7, |id| id.index == 1).unwrap();
        assert_eq!([0, 1].map(|index| open().offset(id(index))), [0, 7]);
    }

    #[test]
    fn a_damaged_file_is_none() {
        let line = "AAAAAAAAAAAAAAAAAAAABw 3 9\n";
        assert_eq!(parse(format!("1\n1\n{line}").as_bytes()).map(|offsets| offsets.len()), Some(1));
        for text in [
            "",
            "0\n0\n",
            "1\n",
            "1\n2\nAAAAAAAAAAAAAAAAAAAABw 3 9\n",
            "1\n1\nAAAAAAAAAAAAAAAAAAAABw 3\n",
            "1\n1\ntopic 3 9\n",
            "1\n1\n\u{0}",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(&[0xff]), None);
    }
}
