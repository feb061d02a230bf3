//! Topics that are deleted and made anew, moved, trimmed and compacted while they are written to, on three brokers that are killed and stopped meanwhile: what was
//! acknowledged is there, nothing else is, every replica has the same, and nobody waits for ever.
//!
//! `WEIR_CHURN_ROUNDS` sets the number of rounds (8 by default), `WEIR_CHURN_SEED` what happens in them; the seed is printed.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use weir_e2e::cluster::Local;
use weir_e2e::driver::{Client, Driver};
use weir_e2e::fuzz::Random;
use weir_e2e::numbered::{ABORTED, Aim, Books, Expected, Numbered};
use weir_e2e::replica::{Replica, read};
use weir_e2e::topics::{Topic, delete_records, delete_topic, describe, reassign};
use weir_e2e::wire::{Connection, await_topic, create_topic, error, list_offset};
use weir_e2e::writer::{PATIENCE, Writer};

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

/// Partitions of `remade` that are written to.
const REMADE_WRITTEN: i32 = 3;

/// Partitions of `moved` that numbered clients write to; a real client has the one behind them.
const MOVED_PARTITIONS: i32 = 2;

/// Small segments; what two replicas have is acknowledged.
const SMALL: [(&str, &str); 2] = [("segment.ms", "150"), ("min.insync.replicas", "2")];

/// Only what somebody asks for is deleted.
const KEPT: (&str, &str) = ("retention.ms", "-1");

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

/// How far the records of a partition were deleted.
#[derive(Debug, Clone, Copy, Default)]
struct Trim {
    /// Up to here they are gone for certain.
    done: i64,
    /// Nobody asked for more than this.
    asked: i64,
}

/// A partition: its topic, and its number in that.
type At = (&'static str, i32);

/// Whose records are deleted from the beginning on.
const TRIMS: [At; 3] = [(TRIMMED, 0), (COMPACTED, 0), (MOVED, 0)];

/// How often the records of a partition are deleted in one round, at most.
const TRIMS_MAX: usize = 8;

/// What may happen in a round.
#[derive(Debug, Clone, Copy)]
enum Change {
    Remake,
    SendAway,
    Trim(At),
}

const CHANGES: [Change; 5] = [
    Change::Remake,
    Change::SendAway,
    Change::Trim(TRIMS[0]),
    Change::Trim(TRIMS[1]),
    Change::Trim(TRIMS[2]),
];

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
        let churn = Self {
            local,
            bootstrap,
            trims: Mutex::default(),
            target: Mutex::new(vec![0, 1]),
        };
        churn.make(REMADE, REMADE_PARTITIONS, 3, &SMALL);
        churn.make(MOVED, MOVED_PARTITIONS + 1, 2, &[SMALL[0], KEPT]);
        churn.make(TRIMMED, 1, 3, &[SMALL.as_slice(), &[KEPT]].concat());
        let compact = [
            ("cleanup.policy", "compact,delete"),
            ("min.cleanable.dirty.ratio", "0.01"),
            // Longer than a broker is down: a replica that missed a tombstone would keep what it deletes, as in Kafka.
            ("delete.retention.ms", "15000"),
        ];
        churn.make(COMPACTED, 1, 3, &[SMALL.as_slice(), &[KEPT], &compact].concat());
        churn
    }

    /// Makes a topic, and waits until it has leaders.
    fn make(&self, name: &str, partitions: i32, replicas: i16, configs: &[(&str, &str)]) {
        let code = self.ask(|c| create_topic(c, name.as_bytes(), partitions, replicas, configs).ok());
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

    fn change(&self, change: Change, latest: &(dyn Fn(At) -> i64 + Sync), mut random: Random) -> String {
        pause(&mut random, 300);
        match change {
            Change::Remake => self.remake(&mut random),
            Change::SendAway => self.send_away(&mut random),
            Change::Trim(at) => {
                // Some of them fall together with a compaction.
                for _ in 0..random.below(TRIMS_MAX) {
                    self.trim(at, latest(at), &mut random);
                    pause(&mut random, 60);
                }
                self.trim(at, latest(at), &mut random)
            }
        }
    }

    /// The topic is deleted while it is written to, and another one gets its name.
    fn remake(&self, random: &mut Random) -> String {
        eventually("a deletion", || {
            let code = self.ask(|c| delete_topic(c, REMADE).ok())?;
            [error::NONE, error::UNKNOWN_TOPIC_OR_PARTITION].contains(&code).then_some(())
        });
        if random.once_in(2) {
            pause(random, 200);
        }
        eventually("a topic of the same name", || {
            // An answer may have been lost. What a broker shows proves nothing: it may be the topic that was deleted.
            let code = self.ask(|c| create_topic(c, REMADE.as_bytes(), REMADE_PARTITIONS, 3, &SMALL).ok())?;
            [error::NONE, error::TOPIC_ALREADY_EXISTS].contains(&code).then_some(())
        });
        format!("{REMADE} was made anew")
    }

    /// The replicas go to other brokers, or others lead; sometimes before they have arrived where they were sent before.
    fn send_away(&self, random: &mut Random) -> String {
        let first = i32::try_from(random.below(3)).unwrap();
        let second = (first + 1 + i32::try_from(random.below(2)).unwrap()) % BROKERS;
        let to = vec![first, second];
        let plan: BTreeMap<i32, Vec<i32>> = (0..=MOVED_PARTITIONS).map(|partition| (partition, to.clone())).collect();
        eventually("a reassignment", || {
            let code = self.ask(|c| reassign(c, MOVED, &plan).ok())?;
            (code == error::NONE).then_some(())
        });
        *self.target.lock().unwrap() = to.clone();
        format!("{MOVED} goes to {to:?}")
    }

    /// The log's start is moved to somewhere behind it, if its leader takes that.
    fn trim(&self, at: At, latest: i64, random: &mut Random) -> String {
        let (name, partition) = at;
        let trim = *self.trims.lock().unwrap().entry(at).or_default();
        let room = usize::try_from(latest - trim.asked).unwrap_or(0);
        // Compaction is to have something left.
        let offset = trim.asked + i64::try_from(random.below(room / 16 + 1)).unwrap();
        // It may be done though no answer says so.
        self.trims.lock().unwrap().insert(at, Trim { asked: offset, ..trim });
        let leader = self.topic(name).map_or(-1, |topic| topic.partitions[&partition].leader);
        let Some(address) = self.address(leader) else {
            return format!("{name} has no leader");
        };
        let answer = Connection::open(address).and_then(|mut c| delete_records(&mut c, name, partition, offset));
        if let Ok((error::NONE, low_watermark)) = answer {
            assert_eq!(low_watermark, offset, "{name}: no more and no less than was asked");
            // As in Kafka, replicas that are out of sync are not waited for, and whoever leads next may be one of them that is eligible.
            let place = self.topic(name).and_then(|topic| topic.partitions.get(&partition).cloned());
            if place.is_some_and(|place| place.isr.len() == place.replicas.len()) {
                self.trims.lock().unwrap().entry(at).or_default().done = offset;
            }
        }
        let answer = answer.map_or_else(|error| format!("{error:#}"), |(code, _)| format!("code {code}"));
        format!("{name} begins at {offset}: {answer}")
    }

    /// Has deleted at every replica what was asked for: all of them are in sync.
    fn trimmed_everywhere(&self) {
        for (name, partition) in TRIMS {
            let mut trims = self.trims.lock().unwrap();
            let trim = trims.entry((name, partition)).or_default();
            eventually(&format!("{name} that begins at {}", trim.asked), || {
                let leader = self.topic(name)?.partitions[&partition].leader;
                let mut c = Connection::open(self.address(leader)?).ok()?;
                (delete_records(&mut c, name, partition, trim.asked).ok()? == (error::NONE, trim.asked)).then_some(())
            });
            trim.done = trim.asked;
        }
    }

    /// What was deleted does not come back at whoever leads, and no more goes.
    fn begins_where_it_was_told(&self, (name, partition): At) {
        let trim = *self.trims.lock().unwrap().entry((name, partition)).or_default();
        for address in self.bootstrap.split(',') {
            let answer = Connection::open(address).and_then(|mut c| list_offset(&mut c, name, partition, -2));
            if let Ok((error::NONE, start)) = answer {
                assert!(
                    (trim.done..=trim.asked).contains(&start),
                    "{name} begins at {start} at {address}: {trim:?}"
                );
            }
        }
    }

    /// Something happens to a process, and is over when this returns.
    fn strike(&self, random: &mut Random) -> String {
        let run = |command: &str, id: &str| drop(self.local.run(&[command, id]).unwrap());
        let broker = random.below(3);
        let (id, other) = (broker.to_string(), ((broker + 1) % 3).to_string());
        let all = |command: &str| ["0", "1", "2"].iter().for_each(|id| run(command, id));
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
                all(end);
                all("start");
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

    /// Waits until every replica is where it is to be, and in sync.
    fn whole(&self) {
        let target: BTreeSet<i32> = self.target.lock().unwrap().iter().copied().collect();
        eventually("whole ISRs", || {
            for (name, count) in [(REMADE, REMADE_PARTITIONS), (MOVED, MOVED_PARTITIONS + 1), (TRIMMED, 1), (COMPACTED, 1)] {
                let topic = self.topic(name)?;
                let is_whole = topic.partitions.values().all(|place| {
                    let (replicas, isr) = (place.replicas.iter().copied().collect(), place.isr.iter().copied().collect());
                    let wanted = if name == MOVED { target.clone() } else { (0..BROKERS).collect() };
                    place.leader >= 0 && BTreeSet::clone(&replicas) == isr && replicas == wanted
                });
                if !is_whole || i32::try_from(topic.partitions.len()).unwrap() != count {
                    return None;
                }
            }
            let partitions = self.local.status().ok()?.partitions?;
            (partitions.under_replicated == 0 && partitions.offline == 0).then_some(())
        });
    }

    /// Transactions end at every replica, and none shows what was aborted.
    fn transactions_end(&self, (name, partition): At) {
        let end = eventually("a leader", || {
            let leader = self.topic(name)?.partitions[&partition].leader;
            let (code, end) = list_offset(&mut Connection::open(self.address(leader)?).ok()?, name, partition, -1).ok()?;
            (code == error::NONE).then_some(end)
        });
        for address in self.bootstrap.split(',') {
            let replica = eventually(&format!("the end of transactions at {address}, {name} up to {end}"), || {
                let replica = read(address, name, partition, end).ok()??;
                (replica.last_stable_offset >= end).then_some(replica)
            });
            let shown = replica
                .records
                .iter()
                .find(|record| record.value.as_ref().is_some_and(|value| value.contains(ABORTED)));
            assert!(shown.is_none(), "{address}: {name} was aborted, and is shown: {shown:?}");
        }
    }

    /// What each replica of a partition shows, once all of them show the same: nobody writes any more.
    fn replicas(&self, name: &str, partition: i32) -> Vec<(String, Replica)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.look_at(name, partition).unwrap_or_default();
            let first = seen.first().map(|(_, replica)| replica);
            let is_same = |(_, replica): &(String, Replica)| {
                replica.high_watermark == replica.last_stable_offset
                    && first.is_some_and(|first| (first.log_start_offset, first.high_watermark) == (replica.log_start_offset, replica.high_watermark))
            };
            if !seen.is_empty() && seen.iter().all(is_same) {
                return seen;
            }
            let state: Vec<_> = seen
                .iter()
                .map(|(whose, it)| (whose, it.log_start_offset, it.last_stable_offset, it.high_watermark))
                .collect();
            assert!(Instant::now() < deadline, "replicas of {name}-{partition} stay apart: {state:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What each replica of a partition shows up to the leader's high watermark; `None` while one of them does not serve it.
    fn look_at(&self, name: &str, partition: i32) -> Option<Vec<(String, Replica)>> {
        let place = self.topic(name)?.partitions.get(&partition)?.clone();
        let (code, end) = list_offset(&mut Connection::open(self.address(place.leader)?).ok()?, name, partition, -1).ok()?;
        let replicas = place.replicas.iter().map(|broker| {
            let replica = read(self.address(*broker)?, name, partition, end).unwrap()?;
            Some((format!("{name}-{partition} at {broker}"), replica))
        });
        replicas.collect::<Option<Vec<_>>>().filter(|_| code == error::NONE)
    }

    /// Every replica has what was acknowledged and nothing else.
    fn check(&self, books: &BTreeMap<At, Books>) {
        for ((name, partition), books) in books {
            let trim = self.trims.lock().unwrap().get(&(*name, *partition)).copied().unwrap_or_default();
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
                // Each replica compacts for itself.
                let is_same = expected.is_compacted || replica.bytes == of_first.bytes;
                assert!(is_same, "{whose} and {first} have other bytes");
            }
            let shown = of_first.records.len();
            eprintln!("{name}-{partition}: {} acknowledged in all, {shown} there, {trim:?}", expected.count());
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
    let mut write = |topic: &'static str, partition: i32, keys: usize, is_transactional: bool| {
        let aim = Aim {
            bootstrap: churn.bootstrap.clone(),
            topic: topic.to_owned(),
            partition,
            keys,
        };
        let name = format!("{topic}-{partition}-{}", if is_transactional { "txn" } else { "plain" });
        let start = if is_transactional {
            Numbered::start_in_transactions
        } else {
            Numbered::start
        };
        let writer = start(&name, aim, random.draw());
        writers.entry((topic, partition)).or_default().push(writer);
    };
    for partition in 0..REMADE_WRITTEN {
        write(REMADE, partition, 0, false);
    }
    for partition in 0..MOVED_PARTITIONS {
        write(MOVED, partition, 0, false);
    }
    write(TRIMMED, 0, 0, false);
    write(TRIMMED, 0, 0, true);
    write(COMPACTED, 0, 20, false);
    write(COMPACTED, 0, 10, true);
    // franz-go's producer gives up when all brokers are away for a moment.
    let real = Writer::start(Client::Librdkafka, &churn.bootstrap, MOVED, MOVED_PARTITIONS);
    let latest = |at: At| writers[&at][0].latest();
    let moves = || {
        writers.values().flatten().for_each(Numbered::moves);
        real.moves();
    };
    moves();
    phase("everybody writes");
    for round in 0..rounds {
        let mut of_fault = Random(random.draw());
        let done = std::thread::scope(|scope| {
            // All of them at once, and in the middle of it something happens to a process.
            let mut changes = Vec::new();
            for change in CHANGES {
                let mut random = Random(random.draw());
                let (churn, latest) = (&churn, &latest);
                if random.once_in(2) {
                    changes.push(scope.spawn(move || churn.change(change, latest, random)));
                }
            }
            let mut done = vec![churn.strike(&mut of_fault)];
            done.extend(changes.into_iter().map(|change| change.join().unwrap()));
            done.join(", ")
        });
        eprintln!("round {round}: {done}");
        TRIMS.into_iter().for_each(|at| churn.begins_where_it_was_told(at));
        if round % 3 == 2 {
            moves();
        }
        [(TRIMMED, 0), (COMPACTED, 0)].into_iter().for_each(|at| churn.transactions_end(at));
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
    let mut driver = Driver::start(Client::Franz, &churn.bootstrap).unwrap();
    real.finish_and_check(&mut driver);
    churn.whole();
    churn.trimmed_everywhere();
    churn.check(&books);
    phase("every replica has what it is to have");
    // What is only in memory does not count.
    for id in ["0", "1", "2"] {
        churn.local.run(&["kill", id]).unwrap();
    }
    for id in ["0", "1", "2"] {
        churn.local.run(&["start", id]).unwrap();
    }
    phase("all brokers are killed and started");
    churn.whole();
    phase("every replica is in sync");
    churn.trimmed_everywhere();
    churn.check(&books);
}
