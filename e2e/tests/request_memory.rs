//! The memory budgets. A request reserves memory for its whole frame before it is read, in turn,
//! and releases it once the frame is written. A response reserves memory before it is encoded, and
//! releases it once the client has taken it.
//!
//! The brokers have 16 MiB for requests and 32 MiB for responses, so that few clients fill them.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use weir_e2e::batch::Batch;
use weir_e2e::bystander::now_ms;
use weir_e2e::cluster::Local;
use weir_e2e::wire::{
    Body, Connection, PATIENCE, await_topic, coordinator, create_topic, error, produce,
    produce_body,
};

const BUDGET: usize = 16 << 20;

/// More clients than the budget can hold.
const CLIENTS: usize = 40;

const ANSWERS: usize = 32 << 20;

/// The other memory of a connection, by the arithmetic in docs/memory.md.
const CONNECTION: usize = 80 << 10;

/// Flushes, replies, and memory that the allocator keeps.
const SLACK: usize = 32 << 20;

const TOPIC: &str = "large";

fn start() -> Option<Local> {
    if std::env::var_os("WEIR_E2E_BOOTSTRAP").is_some() {
        return None;
    }
    let local = Local::start_in(
        &[("WEIR_REQUEST_MEMORY_MIB", "16"), ("WEIR_ANSWER_MEMORY_MIB", "32")],
        Some(1),
        None,
    )
    .unwrap();
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

/// All frames together exceed the budget, and each client sends a little at a time. No connection
/// may hold a part of its memory and wait for the rest.
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
                // The code comes after the correlation id, the topic and the partition.
                let code = &reply.rest()[4 + 4 + 2 + TOPIC.len() + 4 + 4..][..2];
                assert_eq!(code, [0, 0]);
            });
        }
    });
}

/// A frame that is announced and does not come gives its room to those who wait, long before the
/// 30 s that a slow one has. Twice the budget is announced: the wait for that is 60 s otherwise.
#[test]
fn frames_that_are_only_announced_hold_nobody_up_for_long() {
    let Some(local) = start() else { return };
    let batch = large();
    let announced: Vec<_> = (0..2 * BUDGET / batch.len())
        .map(|_| {
            let mut c = Connection::open(&local.bootstrap()).unwrap();
            let frame = c.frame(0, 7, &produce_body(TOPIC, 0, &batch, 1));
            c.send(&frame[..13]);
            c
        })
        .collect();
    let mut c = Connection::open(&local.bootstrap()).unwrap();
    assert_eq!(produce(&mut c, TOPIC, 0, &batch).unwrap().0, error::NONE);
    drop(announced);
}

/// Incomplete frames fill the budget, but not more. A client that waits behind them is served once
/// they are gone, or gives up.
#[test]
fn the_bound_is_reached_and_kept() {
    let Some(local) = start() else { return };
    let batch = large();
    produce(&mut Connection::open(&local.bootstrap()).unwrap(), TOPIC, 0, &batch).unwrap();
    let before = local.broker_rss().unwrap() as usize;
    let frame = Connection::open(&local.bootstrap()).unwrap().frame(
        0,
        7,
        &produce_body(TOPIC, 0, &batch, 1),
    );
    let open = |frame: &[u8]| {
        let mut c = TcpStream::connect(local.bootstrap()).unwrap();
        // The broker does not read from a waiting connection, so the client cannot write more than
        // the sockets hold.
        c.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        c.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut sent = 0;
        while let Ok(bytes @ 1..) = c.write(&frame[sent..]) {
            sent += bytes;
        }
        (c, sent)
    };
    let stalled: Vec<_> =
        (0..BUDGET / frame.len()).map(|_| open(&frame[..frame.len() - 1])).collect();
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

/// Half of the memory for describing a group of one member.
const MEMBER_BYTES: usize = 2 << 20;

/// A group of one member, with this much metadata and as large an assignment (JoinGroup version 1,
/// SyncGroup version 0).
fn large_group(bootstrap: &str, group: &str) {
    let large = vec![b'm'; MEMBER_BYTES];
    let deadline = Instant::now() + PATIENCE;
    while coordinator(bootstrap, group).is_err() {
        assert!(Instant::now() < deadline, "nobody coordinates {group}");
    }
    let mut c = Connection::open(bootstrap).unwrap();
    let joins = Body::default().str(group).i32(300_000).i32(300_000).str("").str("consumer");
    let joins = joins.i32(1).str("range").bytes(&large);
    let mut joined = loop {
        let mut reply = c.call(11, 1, &joins).unwrap();
        let code = reply.i16().unwrap();
        if code == error::NONE {
            break reply;
        }
        assert!(Instant::now() < deadline, "JoinGroup answers {code}");
    };
    let generation = joined.i32().unwrap();
    joined.str().unwrap();
    let leader = joined.str().unwrap();
    let assigns = Body::default().str(group).i32(generation).str(&leader);
    let assigns = assigns.i32(1).str(&leader).bytes(&large);
    assert_eq!(c.call(14, 0, &assigns).unwrap().i16().unwrap(), error::NONE);
}

/// Clients that request much and read nothing hold at most the budget. Each has a time limit, and
/// then others get their turn.
#[test]
fn answers_that_nobody_reads_take_no_more_than_the_budget() {
    const GROUPS: [&str; 2] = ["a", "b"];
    let Some(local) = start() else { return };
    let bootstrap = local.bootstrap();
    std::thread::scope(|scope| {
        for group in GROUPS {
            let bootstrap = &bootstrap;
            scope.spawn(move || large_group(bootstrap, group));
        }
    });
    let describes = GROUPS.iter().fold(Body::default().i32(2), |body, group| body.str(group));
    let answer = 2 * MEMBER_BYTES * GROUPS.len();
    let read = |c: &mut Connection| c.reply().is_ok_and(|reply| reply.rest().len() > answer);
    let silent = || {
        let mut c = Connection::open(&bootstrap).unwrap();
        let frame = c.frame(15, 0, &describes);
        c.send(&frame);
        c
    };
    let before = local.broker_rss().unwrap() as usize;
    let mut first = silent();
    assert!(read(&mut first), "a group of a large member is told of");
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| silent()).collect();
    let mut grown = 0;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(100));
        grown = grown.max((local.broker_rss().unwrap() as usize).saturating_sub(before));
    }
    assert!(grown <= ANSWERS + CLIENTS * CONNECTION + SLACK, "{grown} bytes for {CLIENTS} clients");
    small_ones_are_served(&local);
    // Two of them hold the share of read requests, three quarters of the budget. A waiting reader
    // gets it when their time is up and the broker closes them.
    clients.truncate(3);
    let mut reader = silent();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !read(&mut reader) {
        assert!(Instant::now() < deadline, "who reads waits for ever behind who does not");
        reader = silent();
    }
    let whole = clients.iter_mut().map(read).filter(|whole| *whole).count();
    assert_eq!(whole, 1, "of those that did not read only the third is still there");
    small_ones_are_served(&local);
}

/// Any client can claim to be a follower and name partitions that do not exist. Its response counts
/// against the same budget.
#[test]
fn who_says_that_it_is_a_follower_has_the_same_budget() {
    const NAMED: i32 = 200_000;
    let Some(local) = start() else { return };
    let bootstrap = local.bootstrap();
    let id = |body: Body| body.i64(7).i64(7);
    // Version 17, whose header has tagged fields: no wait, any size, no session; one topic.
    let fetch = id(Body::default().i8(0).i32(0).i32(0).i32(i32::MAX).i8(0).i32(0).i32(-1).i8(2));
    // The array's length plus one, in three pieces of seven bits.
    let [low, middle, high] = [0, 7, 14]
        .map(|shift| ((NAMED + 1) >> shift) & 0x7f)
        .map(|seven| i8::try_from(seven).unwrap());
    let fetch = fetch.i8(low | i8::MIN).i8(middle | i8::MIN).i8(high);
    let fetch = (0..NAMED)
        .fold(fetch, |body, index| body.i32(index).i32(-1).i64(0).i32(-1).i64(0).i32(1).i8(0));
    // End of the topic; nothing forgotten, no rack; and one tagged field of 13 bytes: replica 0,
    // any epoch.
    let fetch = fetch.i8(0).i8(1).i8(1).i8(1).i8(1).i8(13).i32(0).i64(-1).i8(0);
    let silent = || {
        let mut c = Connection::open(&bootstrap).unwrap();
        let frame = c.frame(1, 17, &fetch);
        c.send(&frame);
        c
    };
    let answer = usize::try_from(NAMED).unwrap() * 36;
    let mut first = silent();
    assert!(first.reply().unwrap().rest().len() > answer, "each partition is told of");
    let before = local.broker_rss().unwrap() as usize;
    let clients: Vec<_> = (0..CLIENTS).map(|_| silent()).collect();
    let mut grown = 0;
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(100));
        grown = grown.max((local.broker_rss().unwrap() as usize).saturating_sub(before));
    }
    // In addition to what is decoded of two requests.
    let bound =
        ANSWERS + CLIENTS * CONNECTION + SLACK + 2 * 10 * usize::try_from(NAMED).unwrap() * 33;
    assert!(bound < CLIENTS * answer, "the bound is less than all answers");
    assert!(grown <= bound, "{grown} bytes for {CLIENTS} clients, and not {bound}");
    drop(clients);
    small_ones_are_served(&local);
}
