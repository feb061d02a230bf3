//! Requests of every API and version, valid and mutated, to a broker with topics, groups and
//! transactions. The broker survives, serves other clients meanwhile, and keeps all acknowledged
//! records. Valid requests get answers.
//!
//! A run takes some ten seconds: half with a fixed seed, half with a seed that it prints.
//! `WEIR_FUZZ_SECONDS` makes it longer, with more seeds. `WEIR_FUZZ_SEED` replays the requests of a
//! seed.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{Error, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use weir_e2e::batch::Batch;
use weir_e2e::bystander::now_ms;
use weir_e2e::cluster::{Local, files};
use weir_e2e::fuzz::{Random, World, frame, mutate};
use weir_e2e::schema::{Request, requests};
use weir_e2e::txn;
use weir_e2e::wire::{
    Body, Connection, FetchOf, PATIENCE, await_topic, create_topic, error, produce,
};

/// Connections that send concurrently.
const SENDERS: u64 = 4;

/// The most requests on one connection.
const REQUESTS_MAX: usize = 20;

/// The wait for an answer; a request that takes longer is left alone.
const ANSWER_MAX: Duration = Duration::from_millis(300);

/// The most that the broker's memory may grow: the budget for requests, what its threads decode,
/// and what the requests make it keep.
const RSS_GROWTH_BYTES: u64 = 512 << 20;

/// The time for one seed. Its effects are checked before the next.
const ROUND_MAX: Duration = Duration::from_secs(30);

/// A refused Produce with acks=0 closes the connection, and so do versions below 3, which are only
/// advertised. Every other valid request gets an answer.
const PRODUCE: i16 = 0;

/// The broker refuses longer requests, and valid ones are shorter.
const FRAME_MAX: usize = 15 << 20;

/// Errors that the bystander's producer retries: these requests may unregister a broker or elect
/// leaders, as an administrator may.
const PASSING: [i16; 2] = [error::NOT_LEADER_OR_FOLLOWER, error::LEADER_NOT_AVAILABLE];

/// The number of each sender's requests in a failure's message.
const SHOWN: usize = 8;

/// The bystander's topic, which no request names.
const KEPT: &str = "kept-by-somebody-else";

/// The records of the bystander that were acknowledged.
#[derive(Debug, Default)]
struct Kept {
    records: u64,
    end: i64,
}

/// A cluster, and the names that requests use.
struct Fuzzed {
    local: Local,
    world: World,
    /// Every served version.
    served: Vec<(Request, i16)>,
    pids: (i32, i32),
    rss_before: u64,
    /// The last requests of each sender.
    last: Mutex<BTreeMap<u64, VecDeque<String>>>,
    sent: AtomicU64,
    answered: AtomicU64,
    has_failed: AtomicBool,
}

impl Fuzzed {
    fn start() -> Self {
        let local = Local::start(None).unwrap();
        let bootstrap = local.bootstrap();
        let mut c = Connection::open(&bootstrap).unwrap();
        let keep =
            [("retention.ms", "-1"), ("retention.bytes", "-1"), ("cleanup.policy", "delete")];
        assert_eq!(create_topic(&mut c, KEPT.as_bytes(), 1, 1, &keep).unwrap(), error::NONE);
        await_topic(&bootstrap, KEPT, 1).unwrap();
        let mut world = World {
            groups: ["g1", "g2", ""].map(str::to_owned).to_vec(),
            transactions: ["t1", "t2"].map(str::to_owned).to_vec(),
            members: ["", "m1", "m2"].map(str::to_owned).to_vec(),
            ..World::default()
        };
        for name in ["fuzz-a", "fuzz-b", "fuzz-compacted"] {
            let policy = if name == "fuzz-compacted" { "compact" } else { "delete" };
            assert_eq!(
                create_topic(&mut c, name.as_bytes(), 3, 1, &[("cleanup.policy", policy)]).unwrap(),
                error::NONE
            );
            await_topic(&bootstrap, name, 3).unwrap();
            let resource: serde_json::Value =
                serde_json::from_str(&local.run(&["get", "topic", name, "-o", "json"]).unwrap())
                    .unwrap();
            world
                .topics
                .push((name.to_owned(), id_of(resource["status"]["topicId"].as_str().unwrap())));
            produce(&mut c, name, 0, &Batch::of(&[b"first"], now_ms()).encode()).unwrap();
        }
        // An internal topic, and a missing one.
        world.topics.push(("__consumer_offsets".to_owned(), [0; 16]));
        world.topics.push(("nobody".to_owned(), [7; 16]));
        open_transaction(&mut c);
        let status = local.status().unwrap();
        Self {
            pids: (local.broker_pid().unwrap(), status.controller.unwrap().pid.unwrap()),
            rss_before: local.broker_rss().unwrap(),
            served: served(&mut c),
            local,
            world,
            last: Mutex::default(),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
        }
    }

    fn send_all(&self, seed: u64, until: Instant) {
        let mut random = Random(seed);
        while Instant::now() < until && !self.has_failed.load(Ordering::Relaxed) {
            let Ok(mut c) = TcpStream::connect(self.local.bootstrap()) else {
                continue;
            };
            c.set_read_timeout(Some(ANSWER_MAX)).unwrap();
            c.set_write_timeout(Some(ANSWER_MAX)).unwrap();
            for correlation in 0..=random.below(REQUESTS_MAX) {
                let at = random.below(self.served.len());
                let (request, version) = &self.served[at];
                let mut bytes =
                    frame(&mut random, &self.world, request, *version, correlation as i32);
                if bytes.len() > FRAME_MAX {
                    continue;
                }
                let is_whole = random.once_in(2);
                if !is_whole {
                    bytes = mutate(&mut random, &bytes);
                }
                self.note(
                    seed,
                    format!("{} v{version}, {is_whole}: {}", request.name, hex(&bytes)),
                );
                self.sent.fetch_add(1, Ordering::Relaxed);
                match c.write_all(&bytes).and_then(|()| answer(&mut c)) {
                    Ok(id) if id != correlation as i32 => {
                        self.fail(&format!("request {correlation} is given the answer of {id}"))
                    }
                    Ok(_) => {}
                    Err(e) => {
                        let is_late =
                            matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                        if is_whole && !is_late && request.key != PRODUCE {
                            self.fail(&format!(
                                "a whole {} v{version} has no answer: {e}",
                                request.name
                            ));
                        }
                        break;
                    }
                }
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Ends the run with a failure.
    fn fail(&self, why: &str) -> ! {
        self.has_failed.store(true, Ordering::Relaxed);
        panic!("{why}\n{}", self.shown());
    }

    fn note(&self, seed: u64, line: String) {
        let mut last = self.last.lock().unwrap();
        let lines = last.entry(seed).or_default();
        lines.push_back(line);
        if lines.len() > SHOWN {
            lines.pop_front();
        }
    }

    /// Produces while others send, and counts the acknowledged records.
    fn stand_by(&self, kept: &mut Kept, until: Instant) {
        let mut c = Connection::open(&self.local.bootstrap()).unwrap();
        let mut refused = None;
        // Retry a refused record even after the end: it may be in the log, and the next round would
        // not know.
        while (Instant::now() < until || refused.is_some())
            && !self.has_failed.load(Ordering::Relaxed)
        {
            let value = format!("record {}", kept.records);
            let batch = Batch::of(&[value.as_bytes()], now_ms()).encode();
            match produce(&mut c, KEPT, 0, &batch) {
                // If the leader changes between the append and the answer, the retry makes a
                // duplicate.
                Ok((error::NONE, offset))
                    if offset == kept.end || (refused.is_some() && offset > kept.end) =>
                {
                    *kept = Kept { records: kept.records + 1, end: offset + 1 };
                    refused = None;
                }
                Ok((code, _))
                    if PASSING.contains(&code)
                        && refused.get_or_insert_with(Instant::now).elapsed() < PATIENCE => {}
                other => self.fail(&format!("{kept:?}, and then {other:?} of a bystander")),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn shown(&self) -> String {
        let last = self.last.lock().unwrap();
        last.iter()
            .map(|(seed, lines)| {
                format!(
                    "seed {seed}:\n  {}",
                    lines.iter().cloned().collect::<Vec<_>>().join("\n  ")
                )
            })
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn unharmed(&self, kept: &Kept) {
        let status = self.local.status().unwrap();
        let pids = (self.local.broker_pid().unwrap(), status.controller.unwrap().pid.unwrap());
        assert_eq!(pids, self.pids, "a process is another one\n{}", self.shown());
        let rss = self.local.broker_rss().unwrap();
        assert!(
            rss < self.rss_before + RSS_GROWTH_BYTES,
            "memory grew from {} to {rss} bytes\n{}",
            self.rss_before,
            self.shown()
        );
        for path in files(&self.local.data().join("logs")) {
            let log = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            let bad = |line: &&str| {
                ["panicked", "ended in a panic", "cannot be encoded", "offline", "takes no writes"]
                    .iter()
                    .any(|word| line.contains(word))
            };
            let found: Vec<_> = log.lines().filter(bad).take(5).collect();
            assert!(found.is_empty(), "{}: {found:#?}\n{}", path.display(), self.shown());
        }
        self.has_all(kept);
    }

    /// Every acknowledged record is there, unchanged.
    fn has_all(&self, kept: &Kept) {
        let mut c = Connection::open(&self.local.bootstrap()).unwrap();
        let fetch = FetchOf {
            topic: KEPT,
            partition: 0,
            replica_id: -1,
            leader_epoch: -1,
            offset: 0,
            max_bytes: 64 << 20,
        };
        let reply = c.call(1, 11, &fetch.body()).unwrap();
        let mut rest = reply.rest();
        for number in 0..kept.records {
            let value = format!("record {number}");
            // In a record the value comes after its length, a zigzag varint, and before the count
            // of headers.
            let written =
                [&[u8::try_from(value.len() * 2).unwrap()], value.as_bytes(), &[0]].concat();
            let Some(at) = rest.windows(written.len()).position(|window| window == written) else {
                panic!("record {number} of {kept:?} is gone\n{}", self.shown());
            };
            rest = &rest[at..];
        }
    }
}

fn id_of(text: &str) -> [u8; 16] {
    let digits: Vec<_> = text.chars().filter(char::is_ascii_hexdigit).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    }
    id
}

fn hex(bytes: &[u8]) -> String {
    let shown: String = bytes.iter().take(1000).map(|byte| format!("{byte:02x}")).collect();
    format!("{} bytes {shown}", bytes.len())
}

/// Opens a transaction that stays open during the requests.
fn open_transaction(c: &mut Connection) {
    let deadline = Instant::now() + PATIENCE;
    let from = loop {
        // A request for the coordinator creates its topic.
        c.call(10, 1, &Body::default().str("t1").i8(1)).unwrap();
        match txn::init(c, "t1", 10_000, txn::Version::V2).unwrap() {
            (error::NONE, from) => break from,
            // The coordinator is not ready yet.
            (code, _) => assert!(Instant::now() < deadline, "InitProducerId answers {code}"),
        }
    };
    let batch = Batch::of(&[b"open"], now_ms()).from_producer(from.producer, from.epoch, 0);
    let transactional = Batch { attributes: 1 << 4, ..batch };
    assert_eq!(txn::send(c, from, "fuzz-a", 1, &transactional.encode()).unwrap().0, error::NONE);
}

fn served(c: &mut Connection) -> Vec<(Request, i16)> {
    let known = requests().unwrap();
    let mut reply = c.call(18, 0, &Body::default()).unwrap();
    assert_eq!(reply.i16().unwrap(), error::NONE);
    let mut all = Vec::new();
    for _ in 0..reply.i32().unwrap() {
        let (key, lowest, highest) =
            (reply.i16().unwrap(), reply.i16().unwrap(), reply.i16().unwrap());
        let request = known.get(&key).unwrap_or_else(|| panic!("the schema has no request {key}"));
        all.extend((lowest..=highest).map(|version| (request.clone(), version)));
    }
    all
}

/// Reads one answer and returns its correlation id.
fn answer(c: &mut TcpStream) -> std::io::Result<i32> {
    let mut number = [0; 4];
    c.read_exact(&mut number)?;
    let size = usize::try_from(i32::from_be_bytes(number))
        .map_err(|e| Error::new(ErrorKind::InvalidData, e))?;
    c.read_exact(&mut number)?;
    let rest = size.checked_sub(4).ok_or(ErrorKind::InvalidData)?;
    c.read_exact(&mut vec![0; rest])?;
    Ok(i32::from_be_bytes(number))
}

#[test]
fn every_api_and_version() {
    if std::env::var_os("WEIR_E2E_BOOTSTRAP").is_some() {
        return;
    }
    let seconds: u64 =
        std::env::var("WEIR_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let given = std::env::var("WEIR_FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    let fuzzed = Fuzzed::start();
    let mut kept = Kept::default();
    let (end, round) = (
        Instant::now() + Duration::from_secs(seconds),
        ROUND_MAX.min(Duration::from_secs(seconds) / 2),
    );
    let mut next = Some(1);
    while Instant::now() < end {
        let seed = given.or(next.take()).unwrap_or_else(|| now_ms() as u64);
        eprintln!("WEIR_FUZZ_SEED={seed}");
        let until = end.min(Instant::now() + round);
        std::thread::scope(|scope| {
            for sender in 0..SENDERS {
                let fuzzed = &fuzzed;
                scope.spawn(move || fuzzed.send_all(seed.wrapping_add(sender << 48), until));
            }
            fuzzed.stand_by(&mut kept, until);
        });
        fuzzed.unharmed(&kept);
    }
    let (sent, answered) =
        (fuzzed.sent.load(Ordering::Relaxed), fuzzed.answered.load(Ordering::Relaxed));
    eprintln!("{sent} requests, {answered} answered, {} records of a bystander", kept.records);
    assert!(
        answered * 4 > sent,
        "most of what is sent does not reach an API: {answered} of {sent} are answered"
    );
    // The same must hold after a crash.
    fuzzed.local.run(&["kill", "0"]).unwrap();
    fuzzed.local.run(&["start", "0"]).unwrap();
    await_topic(&fuzzed.local.bootstrap(), KEPT, 1).unwrap();
    fuzzed.has_all(&kept);
}
