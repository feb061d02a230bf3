//! The log's transactions and producers, against its batches: recomputed from them one by one, with
//! none of the log's own code.

use std::collections::{BTreeMap, BTreeSet};

use weir_protocol::batch::Batches;
use weir_protocol::record::{Records, section};

use super::super::Aborted;
use super::*;

/// The result of a list of batches, in order.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// The first offset of each producer's open transaction.
    open: BTreeMap<i64, i64>,
    /// The first offset of each ended transaction, and its marker.
    ended: Vec<(i64, i64)>,
    aborted: Vec<Aborted>,
    /// The aborted batches with data.
    aborted_batches: BTreeSet<i64>,
    epochs: BTreeMap<i64, i16>,
}

impl Truth {
    pub(super) fn of<'b>(batches: impl IntoIterator<Item = &'b [u8]>) -> Self {
        let mut truth = Self::default();
        let mut in_open: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for bytes in batches {
            let mut one = Batches::new(bytes);
            let (header, bytes) = one.next().unwrap().unwrap();
            assert!(one.next().is_none(), "one batch at a time");
            if !header.has_producer() {
                continue;
            }
            let id = header.producer_id.0;
            truth.epochs.insert(id, header.producer_epoch.0);
            match commits(&header, bytes) {
                Some(commits) => {
                    let batches = in_open.remove(&id).unwrap_or_default();
                    let first_offset = truth.open.remove(&id);
                    truth.ended.extend(first_offset.map(|first| (first, header.base_offset)));
                    if let Some(first_offset) = first_offset.filter(|_| !commits) {
                        truth.aborted_batches.extend(batches);
                        truth.aborted.push(Aborted {
                            producer: header.producer_id,
                            first_offset,
                            last_offset: header.base_offset,
                            last_stable_offset: truth
                                .open
                                .values()
                                .min()
                                .copied()
                                .unwrap_or(header.base_offset + 1),
                        });
                    }
                }
                None if header.is_transactional() && !header.is_control() => {
                    truth.open.entry(id).or_insert(header.base_offset);
                    in_open.entry(id).or_default().push(header.base_offset);
                }
                None => {}
            }
        }
        truth
    }

    /// The last stable offset of a log that begins at `start` and is committed up to here.
    fn stable(&self, start: i64, high_watermark: i64) -> i64 {
        let undecided = self.ended.iter().filter(|(_, marker)| *marker >= high_watermark);
        let firsts = self.open.values().copied().chain(undecided.map(|(first, _)| *first));
        firsts.fold(high_watermark, i64::min).max(start)
    }

    /// The batches that a consumer must see.
    fn shows(&self, batches: &[(i64, Vec<u8>)], stable: i64) -> Vec<i64> {
        let shown = |(base, bytes): &&(i64, Vec<u8>)| {
            *base < stable && holds_data(bytes) && !self.aborted_batches.contains(base)
        };
        batches.iter().filter(shown).map(|(base, _)| *base).collect()
    }
}

/// Returns whether a marker commits; `None` if the batch is no marker.
fn commits(header: &BatchHeader, bytes: &[u8]) -> Option<bool> {
    if !header.is_control() {
        return None;
    }
    let section = section(header, bytes, usize::MAX).unwrap();
    // A marker that compaction has emptied ends no remaining transaction.
    let record = Records::new(&section, header.records_count).next()?.unwrap();
    Some(record.key.unwrap()[3] == 1)
}

fn holds_data(bytes: &[u8]) -> bool {
    let header = BatchHeader::parse(bytes).unwrap();
    header.records_count > 0 && !header.is_control()
}

/// The batches that a consumer accepts by these aborted transactions (`CompletedFetch` in Kafka's
/// client).
fn taken(batches: &[(i64, Vec<u8>)], told: &[Aborted], stable: i64) -> Vec<i64> {
    let mut told: Vec<_> =
        told.iter().map(|aborted| (aborted.first_offset, aborted.producer)).collect();
    told.sort_unstable();
    let mut told = told.into_iter().peekable();
    let (mut skipped, mut taken) = (BTreeSet::new(), Vec::new());
    for (base, bytes) in batches.iter().filter(|(base, _)| *base < stable) {
        let header = BatchHeader::parse(bytes).unwrap();
        while let Some((_, producer)) = told.next_if(|(first, _)| *first <= header.last_offset()) {
            skipped.insert(producer);
        }
        if commits(&header, bytes) == Some(false) {
            skipped.remove(&header.producer_id);
        } else if holds_data(bytes)
            && !(header.is_transactional() && skipped.contains(&header.producer_id))
        {
            taken.push(*base);
        }
    }
    taken
}

impl Opened {
    /// Returns whether the log's transactions are loaded.
    pub(super) fn has_been_asked(&self) -> bool {
        self.log.last_stable_offset().is_some()
    }

    /// Compares the log's transactions with `history`: every batch ever in it up to its end,
    /// including deleted and compacted ones. A `whole` log has lost none. It is known to be
    /// committed up to `committed`.
    pub(super) fn tells_what_its_batches_say<'b>(
        &mut self,
        history: impl Iterator<Item = &'b [u8]> + Clone,
        whole: bool,
        committed: i64,
    ) {
        let told = self.writer.described_producers(1_000).unwrap();
        let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
        self.log.advance_high_watermark(committed);
        let held = self.batches().unwrap();
        let (truth, left) =
            (Truth::of(history), Truth::of(held.iter().map(|(_, bytes)| &bytes[..])));

        let stable = |high_watermark: i64| {
            self.log.transactions.read().last_stable_offset(high_watermark).max(start)
        };
        for high_watermark in committed..=end {
            let stable = stable(high_watermark);
            // A transaction without remaining batches may be forgotten.
            let possible =
                [truth.stable(start, high_watermark), left.stable(start, high_watermark)];
            assert!(
                possible.contains(&stable),
                "stable up to {stable}, and not up to {possible:?} of {start}..{end}, committed up to {high_watermark}"
            );
        }
        let told_now = self.log.last_stable_offset();
        assert_eq!(told_now, Some(stable(self.log.high_watermark())));
        let stable = stable(end);
        let aborted = self.log.aborted_transactions(start, i64::MAX).unwrap();
        if whole {
            let expected: Vec<_> =
                truth.aborted.iter().filter(|it| it.last_offset >= start).copied().collect();
            assert_eq!(aborted, expected);
        }
        for (index, (from, _)) in held.iter().enumerate() {
            let (from, rest) = (start.max(*from), &held[index..]);
            let told = self.log.aborted_transactions(from, stable).unwrap();
            assert_eq!(
                taken(rest, &told, stable),
                truth.shows(rest, stable),
                "from {from} on, told of {told:?}"
            );
        }

        let epochs: BTreeMap<_, _> = told.iter().map(|it| (it.id.0, it.epoch.0)).collect();
        assert!(
            left.epochs.keys().all(|id| epochs.contains_key(id)),
            "told of {epochs:?}, and there are {left:?}"
        );
        let expected = |id: &i64| truth.epochs.get(id).copied();
        assert!(
            epochs.iter().all(|(id, epoch)| expected(id) == Some(*epoch)),
            "{epochs:?}, and it is {truth:?}"
        );
        for (id, first) in &left.open {
            let open = told.iter().find(|it| it.id.0 == *id).map(|it| it.transaction_first_offset);
            assert!(
                open.is_some_and(|open| (0..=*first).contains(&open)),
                "{open:?} of producer {id}, whose began at {first}"
            );
        }
    }
}
