//! Topics are deleted and created again, moved, trimmed and compacted while clients write to them,
//! on three brokers that are killed and stopped. Exactly the acknowledged records are there, all
//! replicas agree, and no client waits without a bound.
//!
//! `WEIR_CHURN_ROUNDS` sets the number of rounds (8 by default), and `WEIR_CHURN_SEED` their
//! changes; the seed is printed. `e2e/mutations/run` says which faults it finds.
#![allow(clippy::unwrap_used, missing_docs)]

mod changes;
mod checks;
mod reading;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use weir_e2e::cluster::Local;
use weir_e2e::driver::{Client, Driver};
use weir_e2e::fuzz::Random;
use weir_e2e::numbered::{Aim, Books, Numbered};
use weir_e2e::topics::{Topic, describe};
use weir_e2e::wire::{Connection, await_topic, create_topic, error};
use weir_e2e::writer::{PATIENCE, Writer};

use self::changes::{CHANGES, Change, TRIMS, Trim};
use self::reading::Reading;

const BROKERS: i32 = 3;

/// Short intervals, so that even a short run compacts logs.
const CLUSTER: &str = "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata:\n  name: churn\nspec:\n  brokers:\n    replicas: 3\n  \
                       config:\n    log.cleaner.backoff.ms: 200\n    log.retention.check.interval.ms: 500\n";

/// The topic that is deleted repeatedly.
const REMADE: &str = "remade";
const MOVED: &str = "moved";
const TRIMMED: &str = "trimmed";
const COMPACTED: &str = "compacted";

/// Partitions of `remade`: enough that a deletion takes time.
const REMADE_PARTITIONS: i32 = 12;

/// The partitions of `remade` that clients write to. The first are deleted during a flush. The last
/// are deleted when their successors already exist.
const REMADE_WRITTEN: [i32; 4] = [0, 1, 10, 11];

/// Partitions of `moved` for numbered clients; a real client has the next one.
const MOVED_PARTITIONS: i32 = 2;

/// Small segments; a record is acknowledged once two replicas have it.
const SMALL: [(&str, &str); 2] = [("segment.ms", "150"), ("min.insync.replicas", "2")];

/// Only requests delete records.
const KEPT: (&str, &str) = ("retention.ms", "-1");

/// The most bytes of a value.
const FILLED_MAX: usize = 400;

/// Keys and value bytes of the transactions in `compacted`: its clean part fills more than one
/// segment of `segment.bytes`.
const LARGE: (usize, usize) = (60, 100_000);

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Repeats `attempt` until it returns a value.
fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(Instant::now() < deadline, "it does not come to {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A partition: its topic and its index.
type At = (&'static str, i32);

/// Partitions on all brokers. Each broker leads one of them, unless it was just away, so every
/// follower of every leader is checked.
const FOLLOWED: [At; 5] = [(TRIMMED, 0), (COMPACTED, 0), (REMADE, 0), (REMADE, 10), (REMADE, 11)];

struct Churn {
    local: Local,
    bootstrap: String,
    trims: Mutex<BTreeMap<At, Trim>>,
    /// The last target brokers of `moved`; none until it is moved for the first time.
    target: Mutex<Vec<i32>>,
}

impl Churn {
    fn start() -> Self {
        let local = Local::start_of(Some(3), Some(CLUSTER)).unwrap();
        let bootstrap = local.bootstrap();
        let churn = Self { local, bootstrap, trims: Mutex::default(), target: Mutex::default() };
        churn.make(REMADE, REMADE_PARTITIONS, 3, &SMALL);
        churn.make(MOVED, MOVED_PARTITIONS + 1, 2, &[SMALL[0], KEPT]);
        churn.make(TRIMMED, 1, 3, &[SMALL.as_slice(), &[KEPT]].concat());
        let compact = [
            ("cleanup.policy", "compact,delete"),
            ("min.cleanable.dirty.ratio", "0.01"),
            // Kafka's minimum.
            ("segment.bytes", "1048576"),
            // Longer than a broker is down. Otherwise a replica that missed a tombstone would keep
            // the deleted records, as in Kafka.
            ("delete.retention.ms", "15000"),
        ];
        churn.make(COMPACTED, 1, 3, &[SMALL.as_slice(), &[KEPT], &compact].concat());
        churn
    }

    /// Creates a topic and waits until it has leaders.
    fn make(&self, name: &str, partitions: i32, replicas: i16, configs: &[(&str, &str)]) {
        let code =
            self.ask(|c| create_topic(c, name.as_bytes(), partitions, replicas, configs).ok());
        assert_eq!(code, Some(error::NONE), "{name}");
        await_topic(&self.bootstrap, name, partitions).unwrap();
    }

    /// Asks the brokers in turn until one returns a value.
    fn ask<T>(&self, mut question: impl FnMut(&mut Connection) -> Option<T>) -> Option<T> {
        let mut addresses = self.bootstrap.split(',');
        addresses.find_map(|address| question(&mut Connection::open(address).ok()?))
    }

    fn topic(&self, name: &str) -> Option<Topic> {
        self.ask(|c| describe(c, name).ok()?)
    }

    /// `None` for no broker.
    fn address(&self, broker: i32) -> Option<&str> {
        self.bootstrap.split(',').nth(usize::try_from(broker).ok()?)
    }

    /// Stops the whole cluster in order at once, as at its deletion, and starts it again. Leaders
    /// move to brokers that are closing their logs.
    fn stop_and_start(&self) {
        std::thread::scope(|scope| {
            for id in ["0", "1", "2"] {
                scope.spawn(move || self.local.run(&["stop", id]).unwrap());
            }
        });
        self.all("start");
    }

    /// Runs a command for every broker in turn.
    fn all(&self, command: &str) {
        for id in ["0", "1", "2"] {
            self.local.run(&[command, id]).unwrap();
        }
    }
}

fn pause(random: &mut Random, ms_max: usize) {
    std::thread::sleep(Duration::from_millis(u64::try_from(random.below(ms_max)).unwrap()));
}

#[test]
fn topics_come_and_go_under_load_and_nothing_acknowledged_is_lost() {
    if std::env::var_os("WEIR_E2E_BOOTSTRAP").is_some() {
        return;
    }
    let seed = from_env("WEIR_CHURN_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = from_env("WEIR_CHURN_ROUNDS").unwrap_or(8);
    eprintln!("WEIR_CHURN_SEED={seed} WEIR_CHURN_ROUNDS={rounds}");
    let mut random = Random(seed);
    let begun = Instant::now();
    let phase = |name: &str| eprintln!("{:.1} s: {name}", begun.elapsed().as_secs_f32());
    let churn = Churn::start();
    let mut writers: BTreeMap<At, Vec<Numbered>> = BTreeMap::new();
    let mut write = |topic: &'static str,
                     partition: i32,
                     (keys, filled_max): (usize, usize),
                     is_transactional: bool| {
        let aim = Aim {
            bootstrap: churn.bootstrap.clone(),
            topic: topic.to_owned(),
            partition,
            keys,
            filled_max,
        };
        let name =
            format!("{topic}-{partition}-{}", if is_transactional { "txn" } else { "plain" });
        let start =
            if is_transactional { Numbered::start_in_transactions } else { Numbered::start };
        let writer = start(&name, aim, random.draw());
        writers.entry((topic, partition)).or_default().push(writer);
    };
    for partition in REMADE_WRITTEN {
        write(REMADE, partition, (0, FILLED_MAX), false);
    }
    for partition in 0..MOVED_PARTITIONS {
        write(MOVED, partition, (0, FILLED_MAX), false);
    }
    write(TRIMMED, 0, (0, FILLED_MAX), false);
    write(TRIMMED, 0, (0, FILLED_MAX), true);
    write(COMPACTED, 0, (20, FILLED_MAX), false);
    write(COMPACTED, 0, LARGE, true);
    // franz-go's producer gives up when all brokers are briefly down, so this is librdkafka.
    let real = Writer::start(Client::Librdkafka, &churn.bootstrap, MOVED, MOVED_PARTITIONS);
    let latest = |at: At| writers[&at][0].latest();
    let moves = || {
        writers.values().flatten().for_each(Numbered::moves);
        real.moves();
    };
    moves();
    // A broker compacts records that it finds on the disk at its start at once, not only after its
    // first checkpoint.
    churn.all("kill");
    churn.all("start");
    let reading: Vec<_> = churn
        .bootstrap
        .split(',')
        .map(|broker| Reading::start(broker, &churn.bootstrap, COMPACTED))
        .collect();
    phase("everybody writes");
    for round in 0..rounds {
        let mut of_fault = Random(random.draw());
        let done = std::thread::scope(|scope| {
            // All changes run at once, with a fault of a process in the middle.
            let mut changes = Vec::new();
            for change in CHANGES {
                let mut random = Random(random.draw());
                let (churn, latest) = (&churn, &latest);
                // Few of these changes meet a compaction.
                let is_needed_often = matches!(change, Change::Trim((COMPACTED, _)));
                if is_needed_often || random.once_in(2) {
                    changes.push(scope.spawn(move || churn.change(change, latest, random)));
                }
            }
            let mut done = vec![churn.strike(&mut of_fault)];
            done.extend(changes.into_iter().map(|change| change.join().unwrap()));
            done.join(", ")
        });
        eprintln!("round {round}: {done}");
        if round % 3 == 1 {
            churn.stop_and_start();
        }
        TRIMS.into_iter().for_each(|at| churn.begins_where_it_was_told(at));
        if round % 3 == 2 {
            moves();
        }
        FOLLOWED.into_iter().for_each(|at| churn.is_followed(at));
        reading.iter().for_each(Reading::goes_on);
    }
    // The topic that is deleted last has a successor when all brokers are killed.
    churn.remake(&mut random);
    phase("the last fault is over");
    churn.whole();
    phase("every replica is in sync");
    moves();
    let mut books: BTreeMap<At, Books> = BTreeMap::new();
    for (at, writers) in writers {
        books.insert(at, writers.into_iter().map(Numbered::finish).collect());
    }
    reading.into_iter().for_each(Reading::finish);
    let mut driver = Driver::start(Client::Franz, &churn.bootstrap).unwrap();
    real.finish_and_check(&mut driver);
    churn.whole();
    churn.trimmed_everywhere();
    churn.check(&books);
    phase("every replica has what it is to have");
    // Records that are only in memory do not count.
    churn.all("kill");
    churn.all("start");
    phase("all brokers are killed and started");
    churn.whole();
    phase("every replica is in sync");
    churn.trimmed_everywhere();
    churn.check(&books);
}
