//! Topics that are deleted and made anew, moved, trimmed and compacted while they are written to,
//! on three brokers that are killed and stopped meanwhile: what was acknowledged is there, nothing
//! else is, every replica has the same, and nobody waits for ever.
//!
//! `WEIR_CHURN_ROUNDS` sets the number of rounds (8 by default), `WEIR_CHURN_SEED` what happens in
//! them; the seed is printed. `e2e/mutations/run` says which faults it finds.
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

/// Logs are looked through often, so that a short run compacts some.
const CLUSTER: &str = "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata:\n  name: churn\nspec:\n  brokers:\n    replicas: 3\n  \
                       config:\n    log.cleaner.backoff.ms: 200\n    log.retention.check.interval.ms: 500\n";

/// A topic of this name is deleted again and again.
const REMADE: &str = "remade";
const MOVED: &str = "moved";
const TRIMMED: &str = "trimmed";
const COMPACTED: &str = "compacted";

/// Partitions of `remade`: what is deleted takes its time.
const REMADE_PARTITIONS: i32 = 12;

/// The partitions of `remade` that are written to: those that are deleted first, while they are
/// being flushed, and those that are deleted last, when others have their names long since.
const REMADE_WRITTEN: [i32; 4] = [0, 1, 10, 11];

/// Partitions of `moved` that numbered clients write to; a real client has the one behind them.
const MOVED_PARTITIONS: i32 = 2;

/// Small segments; what two replicas have is acknowledged.
const SMALL: [(&str, &str); 2] = [("segment.ms", "150"), ("min.insync.replicas", "2")];

/// Only what somebody asks for is deleted.
const KEPT: (&str, &str) = ("retention.ms", "-1");

/// Bytes of a value, at most.
const FILLED_MAX: usize = 400;

/// Keys and bytes of the values that are written in transactions to `compacted`: what is clean of
/// it fills more than one segment of `segment.bytes`.
const LARGE: (usize, usize) = (60, 100_000);

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Repeats it until it gives something.
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

/// A partition: its topic, and its number in that.
type At = (&'static str, i32);

/// Partitions that all brokers have: each broker leads one of them, unless it has just been away,
/// so that every follower of every leader is heard.
const FOLLOWED: [At; 5] = [(TRIMMED, 0), (COMPACTED, 0), (REMADE, 0), (REMADE, 10), (REMADE, 11)];

struct Churn {
    local: Local,
    bootstrap: String,
    trims: Mutex<BTreeMap<At, Trim>>,
    /// Which brokers `moved` was last sent to.
    target: Mutex<Vec<i32>>,
}

impl Churn {
    fn start() -> Self {
        let local = Local::start_of(Some(3), Some(CLUSTER)).unwrap();
        let bootstrap = local.bootstrap();
        let churn =
            Self { local, bootstrap, trims: Mutex::default(), target: Mutex::new(vec![0, 1]) };
        churn.make(REMADE, REMADE_PARTITIONS, 3, &SMALL);
        churn.make(MOVED, MOVED_PARTITIONS + 1, 2, &[SMALL[0], KEPT]);
        churn.make(TRIMMED, 1, 3, &[SMALL.as_slice(), &[KEPT]].concat());
        let compact = [
            ("cleanup.policy", "compact,delete"),
            ("min.cleanable.dirty.ratio", "0.01"),
            // Kafka takes no less.
            ("segment.bytes", "1048576"),
            // Longer than a broker is down: a replica that missed a tombstone would keep what it
            // deletes, as in Kafka.
            ("delete.retention.ms", "15000"),
        ];
        churn.make(COMPACTED, 1, 3, &[SMALL.as_slice(), &[KEPT], &compact].concat());
        churn
    }

    /// Makes a topic, and waits until it has leaders.
    fn make(&self, name: &str, partitions: i32, replicas: i16, configs: &[(&str, &str)]) {
        let code =
            self.ask(|c| create_topic(c, name.as_bytes(), partitions, replicas, configs).ok());
        assert_eq!(code, Some(error::NONE), "{name}");
        await_topic(&self.bootstrap, name, partitions).unwrap();
    }

    /// Asks one broker after the other until one gives something.
    fn ask<T>(&self, mut question: impl FnMut(&mut Connection) -> Option<T>) -> Option<T> {
        let mut addresses = self.bootstrap.split(',');
        addresses.find_map(|address| question(&mut Connection::open(address).ok()?))
    }

    fn topic(&self, name: &str) -> Option<Topic> {
        self.ask(|c| describe(c, name).ok()?)
    }

    /// `None` for nobody.
    fn address(&self, broker: i32) -> Option<&str> {
        self.bootstrap.split(',').nth(usize::try_from(broker).ok()?)
    }

    /// The whole cluster stops in order at once, as when it is deleted, and starts again: leaders
    /// move to brokers that close their logs.
    fn stop_and_start(&self) {
        std::thread::scope(|scope| {
            for id in ["0", "1", "2"] {
                scope.spawn(move || self.local.run(&["stop", id]).unwrap());
            }
        });
        self.all("start");
    }

    /// A command to every broker, one after the other.
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
    // franz-go's producer gives up when all brokers are away for a moment.
    let real = Writer::start(Client::Librdkafka, &churn.bootstrap, MOVED, MOVED_PARTITIONS);
    let latest = |at: At| writers[&at][0].latest();
    let moves = || {
        writers.values().flatten().for_each(Numbered::moves);
        real.moves();
    };
    moves();
    // What was on the disk when a broker started is compacted at once, and not only after its first
    // checkpoint.
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
            // All of them at once, and in the middle of it something happens to a process.
            let mut changes = Vec::new();
            for change in CHANGES {
                let mut random = Random(random.draw());
                let (churn, latest) = (&churn, &latest);
                // Few of them fall together with a compaction.
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
    // What is deleted last has a successor when all brokers are killed.
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
    // What is only in memory does not count.
    churn.all("kill");
    churn.all("start");
    phase("all brokers are killed and started");
    churn.whole();
    phase("every replica is in sync");
    churn.trimmed_everywhere();
    churn.check(&books);
}
