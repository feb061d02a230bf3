//! The memory for requests: frames get room for all of them before they are read, in turn, and give it back when they are written.
//!
//! The brokers have 16 MiB for requests, so that it takes few clients to fill it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use weir_e2e::batch::Batch;
use weir_e2e::bystander::now_ms;
use weir_e2e::cluster::Local;
use weir_e2e::wire::{Body, Connection, PATIENCE, await_topic, create_topic, error, produce, produce_body};

const BUDGET: usize = 16 << 20;

/// More than the budget has room for.
const CLIENTS: usize = 40;

/// What a connection may hold besides, by the arithmetic in ARCHITECTURE.md.
const CONNECTION: usize = 64 << 10;

/// Flushes, replies and what the allocator keeps for later.
const SLACK: usize = 32 << 20;

const TOPIC: &str = "large";

fn start() -> Option<Local> {
    if std::env::var_os("WEIR_E2E_BOOTSTRAP").is_some() {
        return None;
    }
    let local = Local::start_in(&[("WEIR_REQUEST_MEMORY_MIB", "16")], Some(1), None).unwrap();
    let mut c = Connection::open(&local.bootstrap()).unwrap();
    assert_eq!(create_topic(&mut c, TOPIC.as_bytes(), 1, 1, &[]).unwrap(), error::NONE);
    await_topic(&local.bootstrap(), TOPIC, 1).unwrap();
    Some(local)
}

fn large() -> Vec<u8> {
    Batch::of(&[&vec![b'v'; 1_000_000]], now_ms()).encode()
}

fn small_ones_are_served(local: &Local) {
    let mut c = Connection::open(&local.bootstrap()).unwrap();
    let batch = Batch::of(&[b"small"], now_ms()).encode();
    assert_eq!(produce(&mut c, TOPIC, 0, &batch).unwrap().0, error::NONE);
    assert_eq!(c.call(18, 0, &Body::default()).unwrap().i16().unwrap(), error::NONE);
}

#[test]
fn connections_that_are_idle_hold_nothing() {
    let Some(local) = start() else { return };
    let batch = large();
    let idle: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut c = Connection::open(&local.bootstrap()).unwrap();
            assert_eq!(produce(&mut c, TOPIC, 0, &batch).unwrap().0, error::NONE);
            c
        })
        .collect();
    small_ones_are_served(&local);
    drop(idle);
}

/// All of them together want more than there is, and each sends a bit at a time: nobody gets a part and waits for the rest.
#[test]
fn frames_that_come_at_the_same_time_are_all_served() {
    let Some(local) = start() else { return };
    let batch = large();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut c = Connection::open(&local.bootstrap()).unwrap();
                let frame = c.frame(0, 7, &produce_body(TOPIC, 0, &batch, 1));
                for piece in frame.chunks(100_000) {
                    c.send(piece);
                    std::thread::sleep(Duration::from_millis(10));
                }
                let reply = c.reply().unwrap();
                // Behind correlation id, topic and partition.
                let code = &reply.rest()[4 + 4 + 2 + TOPIC.len() + 4 + 4..][..2];
                assert_eq!(code, [0, 0]);
            });
        }
    });
}

/// Frames that do not end fill the budget, and no more than that; who waits behind them is served when they are gone, or goes.
#[test]
fn the_bound_is_reached_and_kept() {
    let Some(local) = start() else { return };
    let batch = large();
    produce(&mut Connection::open(&local.bootstrap()).unwrap(), TOPIC, 0, &batch).unwrap();
    let before = local.broker_rss().unwrap() as usize;
    let frame = Connection::open(&local.bootstrap())
        .unwrap()
        .frame(0, 7, &produce_body(TOPIC, 0, &batch, 1));
    let open = |frame: &[u8]| {
        let mut c = TcpStream::connect(local.bootstrap()).unwrap();
        // Who waits is not read from, and what does not fit the sockets is not written.
        c.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        c.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut sent = 0;
        while let Ok(bytes @ 1..) = c.write(&frame[sent..]) {
            sent += bytes;
        }
        (c, sent)
    };
    let stalled: Vec<_> = (0..BUDGET / frame.len()).map(|_| open(&frame[..frame.len() - 1])).collect();
    let waiting: Vec<_> = (0..4).map(|_| open(&frame)).collect();
    let gone: Vec<_> = (0..4).map(|_| open(&frame[..frame.len() / 2])).collect();
    small_ones_are_served(&local);
    let grown = (local.broker_rss().unwrap() as usize).saturating_sub(before);
    let connections = stalled.len() + waiting.len() + gone.len();
    assert!(
        grown <= BUDGET + connections * CONNECTION + SLACK,
        "{grown} bytes for {connections} connections"
    );
    assert!(grown >= BUDGET / 2, "the bound is not reached: {grown} bytes");
    drop(gone);
    drop(stalled);
    for (mut c, sent) in waiting {
        c.set_write_timeout(Some(PATIENCE)).unwrap();
        c.write_all(&frame[sent..]).unwrap();
        let mut length = [0; 4];
        c.read_exact(&mut length).unwrap();
        assert!(i32::from_be_bytes(length) > 0);
    }
    small_ones_are_served(&local);
}
