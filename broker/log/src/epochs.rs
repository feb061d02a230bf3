//! The first offset of each leader epoch (KIP-101). Two logs compare them to find where they
//! diverge.
//!
//! The log keeps them in Kafka's `leader-epoch-checkpoint`. Every batch carries its epoch, so a
//! damaged file is rebuilt from the log. A leader's epoch begins before its first record. Until it
//! has a record, it is only in memory; the next leader begins an epoch of its own.

use weir_protocol::types::LeaderEpoch;

/// The file's name in the log's directory.
pub(super) const FILE: &str = "leader-epoch-checkpoint";

/// Begins the line of the log start offset.
const START: &str = "start ";

/// The first offset of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Its first offset.
    pub start_offset: i64,
}

/// The end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest epoch that is not larger than the requested one.
    pub epoch: LeaderEpoch,
    /// The offset after its last record.
    pub offset: i64,
}

/// The epochs of one log in order: epochs and start offsets both rise strictly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    entries: Vec<EpochStart>,
}

impl Epochs {
    /// Adds an epoch that begins at `start_offset`. Returns whether it is new. As in Kafka, it
    /// replaces every entry that contradicts it.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: i64) -> bool {
        if self
            .entries
            .last()
            .is_some_and(|last| last.epoch == epoch && last.start_offset <= start_offset)
            || epoch.0 < 0
        {
            return false;
        }
        self.entries.retain(|entry| entry.epoch < epoch && entry.start_offset < start_offset);
        self.entries.push(EpochStart { epoch, start_offset });
        true
    }

    /// The newest epoch.
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// The epoch of the record at `offset`.
    pub fn epoch_of(&self, offset: i64) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        after.checked_sub(1).and_then(|index| self.entries.get(index)).map(|entry| entry.epoch)
    }

    /// Returns the end of the largest epoch that is at most `asked`
    /// (`LeaderEpochFileCache.endOffsetFor`); `None` when the log does not know it.
    pub fn end_of(
        &self,
        asked: LeaderEpoch,
        log_start_offset: i64,
        log_end_offset: i64,
    ) -> Option<EpochEnd> {
        let latest = self.latest()?;
        if asked == latest {
            return Some(EpochEnd { epoch: asked, offset: log_end_offset });
        }
        if asked > latest || asked.0 < 0 {
            return None;
        }
        let next = self.entries.partition_point(|entry| entry.epoch <= asked);
        let end = self.entries.get(next)?.start_offset;
        match next.checked_sub(1).and_then(|index| self.entries.get(index)) {
            Some(entry) => Some(EpochEnd { epoch: entry.epoch, offset: end }),
            // `asked` is older than every remaining epoch: it ends at the log start offset or
            // later.
            None => Some(EpochEnd { epoch: asked, offset: end.max(log_start_offset) }),
        }
    }

    /// Removes the epochs that begin at or after `end_offset`. Returns whether there were any.
    pub fn truncate_from_end(&mut self, end_offset: i64) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.start_offset < end_offset);
        self.entries.len() != before
    }

    /// Removes the epochs that ended before `start_offset`. The epoch of that offset then begins
    /// there. Returns whether an entry changed.
    pub fn truncate_from_start(&mut self, start_offset: i64) -> bool {
        let before = self.entries.clone();
        let after = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        if let Some(kept) = after.checked_sub(1) {
            self.entries.drain(..kept);
            if let Some(first) = self.entries.first_mut() {
                first.start_offset = start_offset;
            }
        }
        self.entries != before
    }

    /// Returns the epochs that have records when the log ends at `end_offset`: without a last epoch
    /// that begins there. The first epoch always stays, because it says where the log begins.
    #[must_use]
    pub fn with_records(&self, end_offset: i64) -> Self {
        let mut entries = self.entries.clone();
        if entries.len() > 1 {
            entries.pop_if(|last| last.start_offset >= end_offset);
        }
        Self { entries }
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// The text of the file: Kafka's version, count, and a line for each entry. Behind these stand
    /// the log start offset, which on a follower may lie before its first batch, and a checksum of
    /// it all.
    pub fn to_text(&self, log_start_offset: i64) -> String {
        let mut text = format!("0\n{}\n", self.entries.len());
        for entry in &self.entries {
            text += &format!("{} {}\n", entry.epoch, entry.start_offset);
        }
        text += &format!("{START}{log_start_offset} ");
        let checksum = crc32c::crc32c(text.as_bytes());
        text + &format!("{checksum:08x}\n")
    }

    /// Parses the text of the file: the epochs, and the log start offset if it names one; `None`
    /// when it is not whole and in order.
    pub fn from_text(text: &str) -> Option<(Self, Option<i64>)> {
        let Some(at) = text.find(START) else { return Some((Self::of_lines(text)?, None)) };
        let (lines, last) = text.split_at(at);
        let (start, checksum) = last.strip_prefix(START)?.strip_suffix('\n')?.split_once(' ')?;
        let checked = text.get(..text.len() - checksum.len() - 1)?;
        let is_whole = format!("{:08x}", crc32c::crc32c(checked.as_bytes())) == checksum;
        let start = start.parse().ok().filter(|start| *start >= 0 && is_whole)?;
        Some((Self::of_lines(lines)?, Some(start)))
    }

    /// Parses Kafka's part.
    fn of_lines(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != "0" {
            return None;
        }
        let count: usize = lines.next()?.parse().ok()?;
        let mut epochs = Self::default();
        for line in lines {
            let (epoch, start) = line.split_once(' ')?;
            let (epoch, start): (i32, i64) = (epoch.parse().ok()?, start.parse().ok()?);
            let rising = epochs
                .entries
                .last()
                .is_none_or(|last| last.epoch.0 < epoch && last.start_offset < start);
            if !rising || epoch < 0 || start < 0 {
                return None;
            }
            epochs.entries.push(EpochStart { epoch: LeaderEpoch(epoch), start_offset: start });
        }
        (epochs.entries.len() == count).then_some(epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> Epochs {
        let mut epochs = Epochs::default();
        for &(epoch, start) in entries {
            assert!(epochs.assign(LeaderEpoch(epoch), start));
        }
        epochs
    }

    #[test]
    fn ends_are_found_as_in_kafka() {
        let epochs = epochs(&[(2, 10), (4, 20), (7, 30)]);
        let end =
            |asked| epochs.end_of(LeaderEpoch(asked), 5, 40).map(|end| (end.epoch.0, end.offset));
        assert_eq!([end(7), end(4), end(2)], [Some((7, 40)), Some((4, 30)), Some((2, 20))]);
        assert_eq!(
            [end(5), end(3)],
            [Some((4, 30)), Some((2, 20))],
            "the largest that is not after it"
        );
        assert_eq!([end(8), end(-1)], [None, None]);
        assert_eq!(end(1), Some((1, 10)), "older than the log");
        assert_eq!(epochs.epoch_of(19), Some(LeaderEpoch(2)));
        assert_eq!(epochs.epoch_of(9), None);
    }

    #[test]
    fn what_contradicts_a_new_epoch_gives_way() {
        let mut it = epochs(&[(2, 10), (4, 20), (7, 30)]);
        assert!(!it.assign(LeaderEpoch(7), 35));
        assert!(it.assign(LeaderEpoch(5), 25));
        assert_eq!(it, epochs(&[(2, 10), (4, 20), (5, 25)]));
        assert!(it.truncate_from_end(20) && !it.truncate_from_end(20));
        assert!(it.truncate_from_start(12));
        assert_eq!(it, epochs(&[(2, 12)]));
    }

    #[test]
    fn an_epoch_without_records_is_none_of_records_unless_it_is_the_first() {
        let it = epochs(&[(2, 10), (4, 20)]);
        assert_eq!([it.with_records(20), it.with_records(21)], [epochs(&[(2, 10)]), it]);
        assert_eq!(epochs(&[(2, 10)]).with_records(10), epochs(&[(2, 10)]));
    }

    #[test]
    fn the_text_form_is_whole_or_refused() {
        let it = epochs(&[(0, 0), (3, 17)]);
        let text = it.to_text(5);
        assert!(text.starts_with("0\n2\n0 0\n3 17\nstart 5 "), "{text}");
        assert_eq!(Epochs::from_text(&text), Some((it.clone(), Some(5))));
        assert_eq!(Epochs::from_text("0\n2\n0 0\n3 17\n"), Some((it, None)), "as Kafka writes it");
        for at in 0..text.len() {
            let mut flipped = text.clone().into_bytes();
            flipped[at] ^= 1;
            let flipped = String::from_utf8(flipped).unwrap();
            assert_eq!(Epochs::from_text(&flipped), None, "a flipped bit at {at}");
        }
        for bad in [
            "",
            "0\n",
            "1\n0\n",
            "0\n2\n0 0\n",
            "0\n1\n0\n",
            "0\n2\n3 17\n0 0\n",
            "0\n1\nx y\n",
            "\u{0}\u{0}",
        ] {
            assert_eq!(Epochs::from_text(bad), None, "{bad:?}");
        }
    }
}
