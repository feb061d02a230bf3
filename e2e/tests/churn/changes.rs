//! The changes of a round: to topics, to their records, and to processes.

use std::collections::BTreeMap;

use weir_e2e::fuzz::Random;
use weir_e2e::topics::{delete_records, delete_topic, reassign};
use weir_e2e::wire::{Connection, create_topic, error};

use super::{
    At, BROKERS, COMPACTED, Churn, MOVED, MOVED_PARTITIONS, REMADE, REMADE_PARTITIONS, SMALL,
    TRIMMED, eventually, pause,
};

/// The deletions of records of a partition.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trim {
    /// Records before this offset are gone for certain.
    pub(crate) done: i64,
    /// The highest offset of any request to delete.
    pub(crate) asked: i64,
}

/// The partitions whose records are deleted from the beginning on.
pub(crate) const TRIMS: [At; 3] = [(TRIMMED, 0), (COMPACTED, 0), (MOVED, 0)];

/// The most deletions of records in a partition in one round.
const TRIMS_MAX: usize = 24;

/// The most times that the topic is created again in one round.
const REMAKES_MAX: usize = 4;

/// A change in a round.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Remake,
    SendAway,
    Trim(At),
}

pub(crate) const CHANGES: [Change; 5] = [
    Change::Remake,
    Change::SendAway,
    Change::Trim(TRIMS[0]),
    Change::Trim(TRIMS[1]),
    Change::Trim(TRIMS[2]),
];

impl Churn {
    pub(crate) fn change(
        &self,
        change: Change,
        latest: &(dyn Fn(At) -> i64 + Sync),
        mut random: Random,
    ) -> String {
        pause(&mut random, 300);
        match change {
            Change::Remake => {
                // Each deletion meets other flushes.
                for _ in 0..random.below(REMAKES_MAX) {
                    self.remake(&mut random);
                    pause(&mut random, 300);
                }
                self.remake(&mut random)
            }
            Change::SendAway => self.send_away(&mut random),
            Change::Trim(at) => {
                // The deletions continue for longer than the cleaner's interval.
                for _ in 0..random.below(TRIMS_MAX) {
                    if !self.trim(at, latest(at), &mut random).0 {
                        break;
                    }
                    pause(&mut random, 60);
                }
                self.trim(at, latest(at), &mut random).1
            }
        }
    }

    /// Deletes the topic while clients write to it, and creates another one of the same name.
    pub(crate) fn remake(&self, random: &mut Random) -> String {
        eventually("a deletion", || {
            let code = self.ask(|c| delete_topic(c, REMADE).ok())?;
            [error::NONE, error::UNKNOWN_TOPIC_OR_PARTITION].contains(&code).then_some(())
        });
        if random.once_in(2) {
            pause(random, 200);
        }
        eventually("a topic of the same name", || {
            // A response may be lost. Metadata proves nothing, because it may show the deleted
            // topic.
            let code = self
                .ask(|c| create_topic(c, REMADE.as_bytes(), REMADE_PARTITIONS, 3, &SMALL).ok())?;
            [error::NONE, error::TOPIC_ALREADY_EXISTS].contains(&code).then_some(())
        });
        format!("{REMADE} was made anew")
    }

    /// Moves the replicas to other brokers, or the leadership; sometimes before the previous
    /// reassignment is complete.
    fn send_away(&self, random: &mut Random) -> String {
        let first = i32::try_from(random.below(3)).unwrap();
        let second = (first + 1 + i32::try_from(random.below(2)).unwrap()) % BROKERS;
        let to = vec![first, second];
        let plan: BTreeMap<i32, Vec<i32>> =
            (0..=MOVED_PARTITIONS).map(|partition| (partition, to.clone())).collect();
        eventually("a reassignment", || {
            let code = self.ask(|c| reassign(c, MOVED, &plan).ok())?;
            (code == error::NONE).then_some(())
        });
        *self.target.lock().unwrap() = to.clone();
        format!("{MOVED} goes to {to:?}")
    }

    /// Moves the log start forward, if the leader accepts that; returns whether it did, and a
    /// description.
    fn trim(&self, at: At, latest: i64, random: &mut Random) -> (bool, String) {
        let (name, partition) = at;
        let trim = *self.trims.lock().unwrap().entry(at).or_default();
        let room = usize::try_from(latest - trim.asked).unwrap_or(0);
        // Each deletion removes some segments of the compacted topic.
        let part = if name == COMPACTED { 4 } else { 16 };
        let offset = trim.asked + i64::try_from(random.below(room / part + 1)).unwrap();
        // The deletion may happen even without a response.
        self.trims.lock().unwrap().insert(at, Trim { asked: offset, ..trim });
        let leader = self.topic(name).map_or(-1, |topic| topic.partitions[&partition].leader);
        let Some(address) = self.address(leader) else {
            return (false, format!("{name} has no leader"));
        };
        let answer = Connection::open(address)
            .and_then(|mut c| delete_records(&mut c, name, partition, offset));
        if let Ok((error::NONE, low_watermark)) = answer {
            assert_eq!(low_watermark, offset, "{name}: no more and no less than was asked");
            // As in Kafka, the leader does not wait for replicas out of sync. The next leader may
            // be one of them that is eligible.
            let place =
                self.topic(name).and_then(|topic| topic.partitions.get(&partition).cloned());
            if place.is_some_and(|place| place.isr.len() == place.replicas.len()) {
                self.trims.lock().unwrap().entry(at).or_default().done = offset;
            }
        }
        let is_done = matches!(answer, Ok((error::NONE, _)));
        let answer =
            answer.map_or_else(|error| format!("{error:#}"), |(code, _)| format!("code {code}"));
        (is_done, format!("{name} begins at {offset}: {answer}"))
    }

    /// Disturbs a process; it is over when this returns.
    pub(crate) fn strike(&self, random: &mut Random) -> String {
        let run = |command: &str, id: &str| drop(self.local.run(&[command, id]).unwrap());
        let broker = random.below(3);
        let (id, other) = (broker.to_string(), ((broker + 1) % 3).to_string());
        match random.below(8) {
            0 => "nothing was struck".to_owned(),
            1 | 2 => {
                run("kill", &id);
                pause(random, 800);
                run("start", &id);
                format!("killed {id}")
            }
            3 => {
                run("stop", &id);
                pause(random, 300);
                run("start", &id);
                format!("stopped {id}")
            }
            4 => {
                run("kill", &id);
                run("kill", &other);
                run("start", &id);
                run("start", &other);
                format!("killed {id} and {other}")
            }
            5 => {
                let end = ["stop", "kill"][random.below(2)];
                self.all(end);
                self.all("start");
                format!("{end} for all")
            }
            _ => {
                run("kill", "controller");
                pause(random, 500);
                run("start", "controller");
                "killed the controller".to_owned()
            }
        }
    }
}
