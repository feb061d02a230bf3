//! The checks of each broker during the faults, and of every replica afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use weir_e2e::numbered::{ABORTED, Books, Expected};
use weir_e2e::replica::{Replica, read};
use weir_e2e::topics::delete_records;
use weir_e2e::wire::{Connection, error, list_offset};
use weir_e2e::writer::PATIENCE;

use super::changes::TRIMS;
use super::{
    At, BROKERS, COMPACTED, Churn, MOVED, MOVED_PARTITIONS, REMADE, REMADE_PARTITIONS, TRIMMED,
    eventually,
};

impl Churn {
    /// Waits until every replica has carried out the deletions, since all are in sync.
    pub(crate) fn trimmed_everywhere(&self) {
        for (name, partition) in TRIMS {
            let mut trims = self.trims.lock().unwrap();
            let trim = trims.entry((name, partition)).or_default();
            eventually(&format!("{name} that begins at {}", trim.asked), || {
                let leader = self.topic(name)?.partitions[&partition].leader;
                let mut c = Connection::open(self.address(leader)?).ok()?;
                (delete_records(&mut c, name, partition, trim.asked).ok()?
                    == (error::NONE, trim.asked))
                    .then_some(())
            });
            trim.done = trim.asked;
        }
    }

    /// On every leader, deleted records stay deleted, and no other record is missing.
    pub(crate) fn begins_where_it_was_told(&self, (name, partition): At) {
        let trim = *self.trims.lock().unwrap().entry((name, partition)).or_default();
        for address in self.bootstrap.split(',') {
            let answer = Connection::open(address)
                .and_then(|mut c| list_offset(&mut c, name, partition, -2));
            if let Ok((error::NONE, start)) = answer {
                assert!(
                    (trim.done..=trim.asked).contains(&start),
                    "{name} begins at {start} at {address}: {trim:?}"
                );
            }
        }
    }

    /// Waits until every replica is on its brokers and in sync.
    pub(crate) fn whole(&self) {
        let target: BTreeSet<i32> = self.target.lock().unwrap().iter().copied().collect();
        eventually("whole ISRs", || {
            for (name, count) in [
                (REMADE, REMADE_PARTITIONS),
                (MOVED, MOVED_PARTITIONS + 1),
                (TRIMMED, 1),
                (COMPACTED, 1),
            ] {
                let topic = self.topic(name)?;
                let is_whole = topic.partitions.values().all(|place| {
                    let (replicas, isr): (BTreeSet<i32>, BTreeSet<i32>) = (
                        place.replicas.iter().copied().collect(),
                        place.isr.iter().copied().collect(),
                    );
                    let is_placed = match name {
                        MOVED => target.is_empty() || replicas == target,
                        _ => replicas == (0..BROKERS).collect(),
                    };
                    place.leader >= 0 && replicas == isr && is_placed
                });
                if !is_whole || i32::try_from(topic.partitions.len()).unwrap() != count {
                    return None;
                }
            }
            let partitions = self.local.status().ok()?.partitions?;
            (partitions.under_replicated == 0 && partitions.offline == 0).then_some(())
        });
    }

    /// Waits until every replica has what the leader has now. No transaction is open before that
    /// end, and no replica shows aborted records.
    pub(crate) fn is_followed(&self, (name, partition): At) {
        let end = eventually("a leader", || {
            let leader = self.topic(name)?.partitions[&partition].leader;
            let (code, end) = list_offset(
                &mut Connection::open(self.address(leader)?).ok()?,
                name,
                partition,
                -1,
            )
            .ok()?;
            (code == error::NONE).then_some(end)
        });
        for address in self.bootstrap.split(',') {
            let replica = eventually(
                &format!(
                    "all of {name}-{partition} up to {end}, with its transactions ended, at {address}"
                ),
                || {
                    let replica = read(address, name, partition, end).ok()??;
                    (replica.last_stable_offset >= end).then_some(replica)
                },
            );
            let shown = replica
                .records
                .iter()
                .find(|record| record.value.as_ref().is_some_and(|value| value.contains(ABORTED)));
            assert!(shown.is_none(), "{address}: {name} was aborted, and is shown: {shown:?}");
        }
    }

    /// The copies of a partition, once all of them agree; no client writes any more.
    fn replicas(&self, name: &str, partition: i32) -> Vec<(String, Replica)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.look_at(name, partition).unwrap_or_default();
            let first = seen.first().map(|(_, replica)| replica);
            let is_same = |(_, replica): &(String, Replica)| {
                replica.high_watermark == replica.last_stable_offset
                    && first.is_some_and(|first| {
                        (first.log_start_offset, first.high_watermark)
                            == (replica.log_start_offset, replica.high_watermark)
                    })
            };
            if !seen.is_empty() && seen.iter().all(is_same) {
                return seen;
            }
            let state: Vec<_> = seen
                .iter()
                .map(|(whose, it)| {
                    (whose, it.log_start_offset, it.last_stable_offset, it.high_watermark)
                })
                .collect();
            assert!(
                Instant::now() < deadline,
                "replicas of {name}-{partition} stay apart: {state:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The copies of a partition up to the leader's high watermark; `None` while a broker does not
    /// serve its copy.
    fn look_at(&self, name: &str, partition: i32) -> Option<Vec<(String, Replica)>> {
        let place = self.topic(name)?.partitions.get(&partition)?.clone();
        let (code, end) = list_offset(
            &mut Connection::open(self.address(place.leader)?).ok()?,
            name,
            partition,
            -1,
        )
        .ok()?;
        let replicas = place.replicas.iter().map(|broker| {
            let replica = read(self.address(*broker)?, name, partition, end).unwrap()?;
            Some((format!("{name}-{partition} at {broker}"), replica))
        });
        replicas.collect::<Option<Vec<_>>>().filter(|_| code == error::NONE)
    }

    /// Every replica has exactly the acknowledged records.
    pub(crate) fn check(&self, books: &BTreeMap<At, Books>) {
        for ((name, partition), books) in books {
            let trim =
                self.trims.lock().unwrap().get(&(*name, *partition)).copied().unwrap_or_default();
            let expected = Expected {
                books,
                topic: self.topic(name).unwrap().id,
                log_start_offsets: trim.done..=trim.asked,
                is_compacted: *name == COMPACTED,
            };
            let replicas = self.replicas(name, *partition);
            let (first, of_first) = &replicas[0];
            for (whose, replica) in &replicas {
                expected.check(replica, whose);
                // Each replica compacts on its own.
                let is_same = expected.is_compacted || replica.bytes == of_first.bytes;
                assert!(is_same, "{whose} and {first} have other bytes");
            }
            let shown = of_first.records.len();
            eprintln!(
                "{name}-{partition}: {} acknowledged in all, {shown} there, {trim:?}",
                expected.count()
            );
        }
    }
}
