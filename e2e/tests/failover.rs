//! Three brokers, real clients, and every fault of a process. Acknowledged records are there
//! exactly once, in order, at the acknowledged offset. Every replica's aborted transactions match
//! its log.
//!
//! `WEIR_E2E_ROUNDS` sets the number of faults (15 by default), and `WEIR_E2E_SEED` selects them;
//! the seed is printed.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use serde_json::json;
use weir_e2e::cluster::Local;
use weir_e2e::driver::{Client, Driver, From, Produce};
use weir_e2e::record::Record;
use weir_e2e::transactions::{Transactions, tells_what_its_log_says};
use weir_e2e::wire::{Connection, await_topic, error, init_producer_id};
use weir_e2e::writer::{PATIENCE, Writer, check};

/// The clients with overlapping transactions in one partition.
const CHAINED: [Client; 2] = [Client::Java, Client::Franz];

/// Every client writes to its own partition, because each numbers its records.
const WRITERS: [Client; 3] = [Client::Java, Client::Franz, Client::Librdkafka];

/// Waits until every broker has a block of producer ids. A broker requests one a second after its
/// registration, or when its first producer comes. Without a controller there are no more blocks,
/// and the librdkafka driver is a new producer in each call.
fn all_have_producer_ids(local: &Local) {
    let deadline = Instant::now() + PATIENCE;
    for address in local.bootstrap().split(',') {
        let mut c = Connection::open(address).unwrap();
        while init_producer_id(&mut c).unwrap().0 != error::NONE {
            assert!(Instant::now() < deadline, "{address} gets no producer ids");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Selects the faults and their times (`splitmix64`).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn pause(&mut self, ms_max: u64) {
        std::thread::sleep(Duration::from_millis(self.below(ms_max)));
    }
}

/// Waits until every replica is in sync.
fn whole(local: &Local) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = local.status().unwrap();
        if status
            .partitions
            .as_ref()
            .is_some_and(|p| p.under_replicated == 0 && p.offline == 0 && p.total > 0)
        {
            return;
        }
        assert!(Instant::now() < deadline, "not whole again: {status:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(local: &Local, broker: u64, signal: &str) {
    let status = local.status().unwrap();
    let pid = status
        .brokers
        .iter()
        .find(|b| b.id == i32::try_from(broker).unwrap())
        .and_then(|b| b.pid)
        .unwrap();
    assert!(
        std::process::Command::new("kill")
            .args([signal, &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

/// Causes one fault and ends it.
fn strike(local: &Local, chance: &mut Chance) -> String {
    let run = |command: &str, id: &str| drop(local.run(&[command, id]).unwrap());
    let broker = chance.below(3);
    let id = broker.to_string();
    match chance.below(10) {
        0..=2 => {
            run("kill", &id);
            chance.pause(1_500);
            run("start", &id);
            format!("killed {id}")
        }
        3 => {
            signal(local, broker, "-STOP");
            // Sometimes for longer than a session.
            chance.pause(6_000);
            signal(local, broker, "-CONT");
            format!("froze {id}")
        }
        4 | 8 => {
            run("stop", &id);
            run("start", &id);
            format!("stopped {id}")
        }
        5 => {
            // The wiped copy must not be the last one.
            whole(local);
            run("kill", &id);
            std::fs::remove_dir_all(local.data().join(format!("broker-{id}"))).unwrap();
            run("start", &id);
            format!("wiped {id}")
        }
        6 => {
            run("kill", "controller");
            chance.pause(1_500);
            run("start", "controller");
            "killed the controller".to_owned()
        }
        7 => {
            let other = ((broker + 1) % 3).to_string();
            run("kill", &id);
            run("kill", &other);
            chance.pause(500);
            run("start", &id);
            run("start", &other);
            format!("killed {id} and {other}")
        }
        _ => {
            run("kill", "controller");
            run("kill", &id);
            run("start", "controller");
            run("start", &id);
            format!("killed the controller and {id}")
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_moved() {
    if std::env::var_os("WEIR_E2E_BOOTSTRAP").is_some() {
        return;
    }
    let seed = from_env("WEIR_E2E_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = from_env("WEIR_E2E_ROUNDS").unwrap_or(15);
    eprintln!("WEIR_E2E_SEED={seed} WEIR_E2E_ROUNDS={rounds}");
    let local = Local::start_of(Some(3), None).unwrap();
    let topic = "under-fire";
    let mut driver = Driver::start(Client::Franz, &local.bootstrap()).unwrap();
    let partitions = i32::try_from(WRITERS.len()).unwrap();
    driver
        .create_replicated_topic(topic, partitions, 3, &json!({"min.insync.replicas": "2"}))
        .unwrap();
    await_topic(&local.bootstrap(), topic, partitions).unwrap();
    let writers: Vec<Writer> = (0..partitions)
        .zip(WRITERS)
        .map(|(partition, client)| Writer::start(client, &local.bootstrap(), topic, partition))
        .collect();
    driver
        .create_replicated_topic(
            "chained",
            1,
            3,
            &json!({"min.insync.replicas": "2", "segment.ms": "1000"}),
        )
        .unwrap();
    await_topic(&local.bootstrap(), "chained", 1).unwrap();
    let transactions = Transactions::start(&CHAINED, &local.bootstrap(), "chained", 0);
    let each_replica = || -> Vec<usize> {
        let bootstrap = local.bootstrap();
        bootstrap.split(',').map(|address| tells_what_its_log_says(address, "chained", 0)).collect()
    };
    let mut chance = Chance(seed);
    for round in 0..rounds {
        let what = strike(&local, &mut chance);
        eprintln!("round {round}: {what}");
        chance.pause(500);
        if round % 5 == 4 {
            writers.iter().for_each(Writer::moves);
            transactions.moves();
        }
        eprintln!("round {round}: aborted at each replica: {:?}", each_replica());
    }
    whole(&local);
    transactions.moves();
    transactions.finish();
    assert!(each_replica().iter().all(|aborted| *aborted > 0));
    writers.iter().for_each(Writer::moves);
    let offsets: Vec<_> = writers.into_iter().map(Writer::finish).collect();
    // Each broker leads in turn, so that every replica is read.
    for round in 0..3 {
        for (partition, offsets) in (0..).zip(&offsets) {
            check(&mut driver, topic, partition, offsets);
        }
        local.run(&["kill", &round.to_string()]).unwrap();
        local.run(&["start", &round.to_string()]).unwrap();
        whole(&local);
    }
}

#[test]
fn every_broker_is_restarted_in_turn_while_no_controller_runs() {
    if std::env::var_os("WEIR_E2E_BOOTSTRAP").is_some() {
        return;
    }
    let local = Local::start_of(Some(3), None).unwrap();
    let topic = "on-its-own";
    let mut driver = Driver::start(Client::Franz, &local.bootstrap()).unwrap();
    driver.create_replicated_topic(topic, 3, 3, &json!({"min.insync.replicas": "2"})).unwrap();
    await_topic(&local.bootstrap(), topic, 3).unwrap();
    let start = |(partition, client)| Writer::start(client, &local.bootstrap(), topic, partition);
    let mut writers: Vec<Writer> =
        (0..2).zip([Client::Franz, Client::Librdkafka]).map(start).collect();
    writers.iter().for_each(Writer::moves);
    whole(&local);
    all_have_producer_ids(&local);
    local.run(&["kill", "controller"]).unwrap();
    for (end, id) in [("stop", "0"), ("kill", "1"), ("stop", "2"), ("kill", "0")] {
        local.run(&[end, id]).unwrap();
        // Returns once the broker serves.
        local.run(&["start", id]).unwrap();
        writers.iter().for_each(Writer::moves);
    }
    // A new producer writes under an unused producer id, and a new consumer reads.
    writers.push(start((2, Client::Franz)));
    writers.iter().for_each(Writer::moves);
    let mut reader = Driver::start(Client::Franz, &local.bootstrap()).unwrap();
    assert!(reader.consume(topic, &[0, 1], From::Beginning, 100).unwrap().len() >= 100);
    local.run(&["start", "controller"]).unwrap();
    whole(&local);
    writers.iter().for_each(Writer::moves);
    for writer in writers {
        writer.finish_and_check(&mut driver);
    }
}

#[test]
fn one_of_three_replicas_takes_no_acks_all_and_serves_what_it_has() {
    if std::env::var_os("WEIR_E2E_BOOTSTRAP").is_some() {
        return;
    }
    let local = Local::start_of(Some(3), None).unwrap();
    let mut driver = Driver::start(Client::Java, &local.bootstrap()).unwrap();
    driver.create_replicated_topic("careful", 1, 3, &json!({"min.insync.replicas": "2"})).unwrap();
    await_topic(&local.bootstrap(), "careful", 1).unwrap();
    let record = |text: &str| [Record::new("k", text).to(0)];
    driver.produce(Produce::records("careful", &record("first")).set("acks", "all")).unwrap();
    local.run(&["kill", "1"]).unwrap();
    local.run(&["kill", "2"]).unwrap();
    let refused = driver
        .produce(
            Produce::records("careful", &record("second"))
                .set("acks", "all")
                .set("timeout_ms", 8_000),
        )
        .unwrap_err();
    // The client gives up while the broker still refuses, or reports the refusal.
    assert!([-1, 7, 19, 20].contains(&refused.code), "{refused:?}");
    assert_eq!(driver.consume("careful", &[0], From::Beginning, 1).unwrap().len(), 1);
    local.run(&["start", "1"]).unwrap();
    local.run(&["start", "2"]).unwrap();
    whole(&local);
    driver.produce(Produce::records("careful", &record("third")).set("acks", "all")).unwrap();
    let texts: Vec<_> = driver.consume("careful", &[0], From::Beginning, 2).unwrap();
    assert_eq!(texts.last().map(Record::text).as_deref(), Some("third"));
}
