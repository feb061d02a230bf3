//! The catalogue: one file that describes every log in the directory, so that a start opens nothing
//! else.
//!
//! After a clean stop a start relies on it, as long as the logs that it names are there
//! (`compare`). After a crash it is the checkpoint. Recovery uses its recovery points, its high
//! watermarks and its summaries of flushed segments with the right size, and scans the rest. A
//! write replaces it as a whole, and it carries a checksum. Without it, recovery scans all logs.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::segment::SegmentSummary;
use super::storage::{Storage, read_file, replace_file};

const FILE: &str = "catalogue";
const FORMAT: &str = "weir-catalogue-1";

/// The largest catalogue that is read: some two million logs.
const BYTES_MAX: u64 = 1 << 30;

/// The entry of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct LogCheckpoint {
    pub(crate) topic: String,
    pub(crate) topic_id: Uuid,
    pub(crate) partition: i32,
    pub(crate) log_start_offset: i64,
    pub(crate) log_end_offset: i64,
    pub(crate) high_watermark: i64,
    /// The log is compacted before this offset.
    #[serde(default)]
    pub(crate) cleaned_offset: i64,
    /// Everything before it was flushed.
    pub(crate) recovery_point: i64,
    /// The records from there to what was the end are missing, and the log goes on behind them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lacks_from: Option<i64>,
    /// The files of aborted transactions may be missing: they are taken from the log before anybody
    /// is told of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) lacks_transaction_index: bool,
    pub(crate) segments: Vec<SegmentSummary>,
    /// Leader epochs with their first offsets.
    pub(crate) epochs: Vec<(i32, i64)>,
}

/// Reads the catalogue. Returns `None` when it is missing, damaged or unreadable.
pub(crate) fn read(storage: &dyn Storage, root: &Path) -> Option<Vec<LogCheckpoint>> {
    let path = root.join(FILE);
    let bytes = match read_file(storage, &path, BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "cannot read the catalogue; the logs are looked at one by one");
            return None;
        }
    };
    let parsed = parse(&bytes);
    if parsed.is_none() {
        tracing::warn!(file = %path.display(), "the catalogue is damaged; the logs are looked at one by one");
    }
    parsed
}

/// Replaces the catalogue.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(storage: &dyn Storage, root: &Path, logs: &[LogCheckpoint]) -> io::Result<()> {
    replace_file(storage, &root.join(FILE), &format(logs)?)
}

fn format(logs: &[LogCheckpoint]) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(logs)?;
    let mut bytes = format!("{FORMAT} {:08x}\n", crc32c::crc32c(&body)).into_bytes();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Option<Vec<LogCheckpoint>> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let (head, body) = (bytes.get(..end)?, bytes.get(end + 1..)?);
    let expected = format!("{FORMAT} {:08x}", crc32c::crc32c(body));
    let logs: Vec<LogCheckpoint> =
        (head == expected.as_bytes()).then(|| serde_json::from_slice(body).ok())??;
    logs.iter().all(LogCheckpoint::is_sound).then_some(logs)
}

impl LogCheckpoint {
    /// Returns whether the numbers can describe a log. The checksum shows that they were written,
    /// not that they make sense.
    fn is_sound(&self) -> bool {
        0 <= self.log_start_offset
            && self.log_start_offset <= self.log_end_offset
            && self.partition >= 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let good = LogCheckpoint {
            log_start_offset: 3,
            log_end_offset: 9,
            recovery_point: 9,
            segments: vec![SegmentSummary::empty(0, 1), SegmentSummary::empty(5, 1)],
            ..Default::default()
        };
        let wrongs: [fn(&mut LogCheckpoint); 3] = [
            |log| log.log_start_offset = 10,
            |log| log.log_start_offset = -1,
            |log| log.partition = -1,
        ];
        assert!(parse(&format(std::slice::from_ref(&good)).unwrap()).is_some());
        for (row, wrong) in wrongs.into_iter().enumerate() {
            let mut log = good.clone();
            wrong(&mut log);
            assert_eq!(parse(&format(&[log]).unwrap()), None, "row {row}");
        }
    }

    #[test]
    fn it_is_whole_or_refused() {
        let logs = vec![LogCheckpoint {
            topic: "orders".into(),
            partition: 3,
            epochs: vec![(0, 0)],
            log_end_offset: 7,
            segments: vec![SegmentSummary::empty(7, 1)],
            ..Default::default()
        }];
        let bytes = format(&logs).unwrap();
        assert_eq!(parse(&bytes).as_ref(), Some(&logs));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_ne!(parse(&damaged).as_ref(), Some(&logs), "a flipped bit at {at}");
            assert_eq!(parse(&bytes[..at]), None, "cut off at {at}");
        }
    }
}
