//! Requests that no client would send. Each ends with Kafka's error or a closed connection, and
//! other clients do not notice.
//!
//! Every test ends with `Bystander::unharmed`: an older connection still works, and the broker's
//! memory has not grown beyond its bound.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use weir_e2e::batch::Batch;
use weir_e2e::bystander::{Bystander, noise, now_ms};
use weir_e2e::wire::{
    Body, Connection, FetchOf, PATIENCE, await_topic, create_topic, error, produce, produce_body,
};

#[test]
fn frame_sizes_that_lie() {
    let mut bystander = Bystander::start(&[]);
    for size in [i32::MAX, i32::MIN, -1, 200 << 20] {
        let mut c = bystander.attacker();
        c.send(&size.to_be_bytes());
        c.closed(PATIENCE).unwrap_or_else(|e| panic!("size {size}: {e}"));
    }
    for size in [0, 1, 3, 7] {
        let mut c = bystander.attacker();
        c.send(&Body::default().i32(size).0);
        c.send(&noise(1, size as usize));
        c.closed(PATIENCE).unwrap_or_else(|e| panic!("size {size}: {e}"));
    }
    bystander.unharmed();
}

#[test]
fn other_protocols() {
    let mut bystander = Bystander::start(&[]);
    for greeting in [
        &b"GET / HTTP/1.1\r\nHost: kafka\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let mut c = bystander.attacker();
        c.send(greeting);
        c.closed(PATIENCE).unwrap_or_else(|e| panic!("{greeting:?}: {e}"));
    }
    bystander.unharmed();
}

#[test]
fn random_bytes() {
    let mut bystander = Bystander::start(&[]);
    for seed in 0..200 {
        let bytes = noise(seed, 1 + (seed as usize * 37) % 3000);
        // Once raw, and once in a frame of the correct length.
        let mut c = bystander.attacker();
        c.send(&bytes);
        let mut c = bystander.attacker();
        c.send(&Body::default().bytes(&bytes).0);
    }
    // After the header of each API, in its lowest version.
    for api in 0..100 {
        let mut c = bystander.attacker();
        let frame = c.frame(api, 0, &Body(noise(api as u64, 500)));
        c.send(&frame);
    }
    bystander.unharmed();
}

#[test]
fn unknown_apis_and_versions() {
    let mut bystander = Bystander::start(&[]);
    for (api, version) in [(12345, 0), (-1, 0), (i16::MAX, 1), (0, 99), (1, -1), (3, 120), (4, 0)] {
        let mut c = bystander.attacker();
        let frame = c.frame(api, version, &Body::default());
        c.send(&frame);
        c.closed(PATIENCE).unwrap_or_else(|e| panic!("API {api} version {version}: {e}"));
    }
    // Only ApiVersions gets an answer. It is in version 0 and has the supported versions. The
    // request's header has tagged fields from version 3 on.
    let mut c = bystander.attacker();
    let mut reply = c.call(18, 99, &Body(vec![0, 2, b'e', 2, b'1', 0])).unwrap();
    assert_eq!(reply.i16().unwrap(), error::UNSUPPORTED_VERSION);
    let versions: Vec<_> = (0..reply.i32().unwrap())
        .map(|_| (reply.i16().unwrap(), reply.i16().unwrap(), reply.i16().unwrap()))
        .collect();
    assert!(
        versions.iter().any(|(api, lowest, highest)| *api == 18 && *lowest == 0 && *highest >= 3),
        "{versions:?}"
    );
    bystander.unharmed();
}

/// Lengths in a request that exceed it, and counts without elements.
#[test]
fn lengths_and_counts_that_lie() {
    let mut bystander = Bystander::start(&[]);
    let topic = bystander.topic.clone();
    let bodies = [
        ("topics 2^31-1", 3, 4, Body::default().i32(i32::MAX)),
        ("topics -2", 3, 4, Body::default().i32(-2)),
        ("a name longer than the request", 3, 4, Body::default().i32(1).i16(i16::MAX).i8(0)),
        ("a negative name", 3, 4, Body::default().i32(1).i16(-7).i8(0)),
        (
            "partitions 2^31-1",
            1,
            11,
            Body::default()
                .i32(-1)
                .i32(0)
                .i32(1)
                .i32(1)
                .i8(0)
                .i32(0)
                .i32(-1)
                .i32(1)
                .str(&topic)
                .i32(i32::MAX),
        ),
        (
            "records longer than the request",
            0,
            7,
            Body::default().i16(-1).i16(1).i32(1000).i32(1).str(&topic).i32(1).i32(0).i32(1 << 30),
        ),
        ("a request that ends in its header", 0, 7, Body::default()),
    ];
    for (what, api, version, body) in bodies {
        let mut c = bystander.attacker();
        let frame = c.frame(api, version, &body);
        c.send(&frame);
        c.closed(PATIENCE).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    // Flexible versions: lengths are varints, and tagged fields follow. The header is version 2, so
    // its own tags come first.
    for (what, rest) in [
        ("a varint of 10 bytes", vec![0xff; 10]),
        ("a varint that ends", vec![0x80]),
        ("topics 2^32-2", vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("a tag of 1 GiB", vec![0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x80, 0x80, 0x80, 0x80, 0x04]),
        ("2^31-1 tags", vec![0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0x07]),
    ] {
        let mut c = bystander.attacker();
        let frame = c.frame(3, 9, &Body([vec![0], rest].concat()));
        c.send(&frame);
        c.closed(PATIENCE).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    bystander.unharmed();
}

/// Unknown tagged fields are skipped, in the header and in the body.
#[test]
fn unknown_tagged_fields() {
    let mut bystander = Bystander::start(&[]);
    let mut c = bystander.attacker();
    let header_tags = [1, 77, 3, 1, 2, 3];
    // Metadata 9 for no topic: an empty array, three flags, one tag.
    let body = [1, 0, 0, 0, 1, 99, 2, 9, 9];
    let reply = c.call(3, 9, &Body([&header_tags[..], &body].concat())).unwrap();
    assert!(!reply.rest().is_empty());
    bystander.unharmed();
}

#[test]
fn topic_names() {
    let mut bystander = Bystander::start(&[]);
    let mut c = bystander.attacker();
    for name in [
        "../../etc/passwd",
        ".",
        "..",
        "",
        "a/b",
        "a b",
        "\u{e9}",
        &"n".repeat(250),
        "nul\0",
        "line\n",
    ] {
        assert_eq!(
            create_topic(&mut c, name.as_bytes(), 1, 1, &[]).unwrap(),
            error::INVALID_TOPIC_EXCEPTION,
            "{name:?}"
        );
        if !name.is_empty() {
            let code = produce(&mut c, name, 0, &Batch::of(&[b"x"], now_ms()).encode()).unwrap().0;
            assert!(
                [error::UNKNOWN_TOPIC_OR_PARTITION, error::INVALID_TOPIC_EXCEPTION].contains(&code),
                "{name:?}: {code}"
            );
        }
    }
    // `a.b` and `a_b` would have the same metric name.
    let stem = bystander.cluster.topic("collide");
    assert_eq!(
        create_topic(&mut c, format!("{stem}.x").as_bytes(), 1, 1, &[]).unwrap(),
        error::NONE
    );
    await_topic(&bystander.cluster.bootstrap, &format!("{stem}.x"), 1).unwrap();
    assert_eq!(
        create_topic(&mut c, format!("{stem}_x").as_bytes(), 1, 1, &[]).unwrap(),
        error::INVALID_TOPIC_EXCEPTION
    );
    bystander.unharmed();
}

#[test]
fn client_ids_of_any_bytes() {
    let mut bystander = Bystander::start(&[]);
    let id: Vec<u8> = (0..32_000_u32).map(|i| (i % 32) as u8).collect();
    let mut c = bystander.attacker();
    let header = Body::default().i16(18).i16(0).i32(1).text(&id);
    c.send(&Body::default().bytes(&header.0).0);
    assert_eq!(c.reply().unwrap().i32().unwrap(), 1);
    bystander.unharmed();
}

#[test]
fn fetches() {
    let mut bystander = Bystander::start(&[]);
    let topic = bystander.topic.clone();
    let mut c = bystander.attacker();
    let fetch = FetchOf {
        topic: &topic,
        partition: 0,
        replica_id: -1,
        leader_epoch: -1,
        offset: 0,
        max_bytes: i32::MAX,
    };
    let (code, high_watermark, bytes) = fetch.send(&mut c).unwrap();
    assert_eq!((code, high_watermark), (error::NONE, 1));
    assert!(bytes > 60);
    for (what, wrong, expected) in [
        ("beyond the end", FetchOf { offset: 1000, ..fetch }, &[error::OFFSET_OUT_OF_RANGE][..]),
        ("negative", FetchOf { offset: -5, ..fetch }, &[error::OFFSET_OUT_OF_RANGE]),
        (
            "an epoch to come",
            FetchOf { leader_epoch: 1000, ..fetch },
            &[error::UNKNOWN_LEADER_EPOCH],
        ),
        (
            "no such partition",
            FetchOf { partition: 7, ..fetch },
            &[error::UNKNOWN_TOPIC_OR_PARTITION],
        ),
        (
            "no such topic",
            FetchOf { topic: "absent", ..fetch },
            &[error::UNKNOWN_TOPIC_OR_PARTITION],
        ),
        ("zero bytes", FetchOf { max_bytes: 0, ..fetch }, &[error::NONE]),
        (
            "negative bytes",
            FetchOf { max_bytes: -1, ..fetch },
            &[error::NONE, error::INVALID_REQUEST, error::UNKNOWN_SERVER_ERROR],
        ),
    ] {
        let (code, ..) = wrong.send(&mut bystander.attacker()).unwrap();
        assert!(expected.contains(&code), "{what}: {code}");
    }
    // A client that claims to be a follower moves no high watermark. Apache Kafka answers it; Weir
    // refuses it if it lacks the permission.
    let _ = FetchOf { replica_id: 1, ..fetch }.send(&mut bystander.attacker());
    bystander.unharmed();
}

/// Half a request and then silence; and a client that requests more than it reads.
#[test]
fn half_open_and_slow_readers() {
    let mut bystander = Bystander::start(&[]);
    let value = vec![b'v'; 900 << 10];
    let large = Batch::of(&[&value], now_ms()).encode();
    for _ in 0..20 {
        assert_eq!(
            produce(&mut bystander.attacker(), &bystander.topic, 0, &large).unwrap().0,
            error::NONE
        );
        bystander.produced += 1;
    }
    let topic = bystander.topic.clone();
    let mut halves = Vec::new();
    let mut slow = Vec::new();
    for i in 0..50 {
        let mut c = bystander.attacker();
        let frame = c.frame(0, 7, &produce_body(&topic, 0, &large, -1));
        c.send(&frame[..4 + i * 1000]);
        halves.push(c);
    }
    let fetch = FetchOf {
        topic: &topic,
        partition: 0,
        replica_id: -1,
        leader_epoch: -1,
        offset: 0,
        max_bytes: 50 << 20,
    };
    for _ in 0..20 {
        let mut c = bystander.attacker();
        for _ in 0..20 {
            let frame = c.frame(1, 11, &fetch.body());
            c.send(&frame);
        }
        slow.push(c);
    }
    bystander.unharmed();
    // Each of them gets its answers once it reads.
    let first = slow[0].reply().unwrap();
    assert!(first.rest().len() > 20 * (900 << 10));
    drop((halves, slow));
    bystander.unharmed();
}

/// A client that falls silent within a frame loses its connection long before
/// `connections.max.idle.ms`, 10 minutes, because the room of the frame is taken.
#[test]
fn frames_that_stall() {
    /// The broker waits for 30 s.
    const STALLED: Duration = Duration::from_secs(90);
    let mut bystander = Bystander::start(&[]);
    let mut idle = bystander.attacker();
    let stalled: Vec<_> = [3, 4, 5, 20_000]
        .into_iter()
        .map(|sent| {
            let mut c = bystander.attacker();
            let frame = c.frame(3, 4, &Body(vec![0; 50_000]));
            c.send(&frame[..sent]);
            (sent, c)
        })
        .collect();
    for (sent, mut c) in stalled {
        c.closed(STALLED).unwrap_or_else(|e| panic!("{sent} bytes of a frame: {e}"));
    }
    assert_eq!(idle.call(18, 0, &Body::default()).unwrap().i16().unwrap(), error::NONE);
    bystander.unharmed();
}

/// Metadata creates what it names, as CreateTopics would: no more than 10,000 changes at once.
#[test]
fn very_many_topics_on_first_use() {
    let mut bystander = Bystander::start(&[]);
    for topics in [5_001, 100_000] {
        let names: Vec<u8> =
            (0..topics).flat_map(|n| Body::default().str(&format!("new-{n}")).0).collect();
        let body = Body([Body::default().i32(topics).0, names, vec![1]].concat());
        let mut reply = bystander.attacker().call(3, 4, &body).unwrap();
        reply.i32().unwrap();
        for _ in 0..reply.i32().unwrap() {
            reply.i32().unwrap();
            reply.str().unwrap();
            reply.i32().unwrap();
            reply.str().unwrap();
        }
        reply.str().unwrap();
        reply.i32().unwrap();
        assert_eq!(reply.i32().unwrap(), topics);
        for _ in 0..topics {
            assert_eq!(reply.i16().unwrap(), error::POLICY_VIOLATION);
            reply.str().unwrap();
            reply.i8().unwrap();
            assert_eq!(reply.i32().unwrap(), 0);
        }
        bystander.unharmed();
    }
    // Fewer are created, and the controller has not fenced the broker for any of it.
    let mut c = bystander.attacker();
    assert_eq!(create_topic(&mut c, b"one-more", 1, 1, &[]).unwrap(), error::NONE);
    await_topic(&bystander.cluster.bootstrap, "one-more", 1).unwrap();
    bystander.unharmed();
}

#[test]
fn idle_connections() {
    let mut bystander = Bystander::start(&[]);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let here = usize::try_from(limit.current.unwrap_or(1024)).unwrap();
    let count = 10_000.min(here.saturating_sub(500));
    let open: Vec<Connection> = (0..count).map(|_| bystander.attacker()).collect();
    bystander.unharmed();
    // The broker still serves the first and the last of them.
    for mut c in [open.into_iter().next_back().unwrap(), bystander.attacker()] {
        assert_eq!(c.call(18, 0, &Body::default()).unwrap().i16().unwrap(), error::NONE);
        assert!(c.closed(Duration::from_millis(50)).is_err());
    }
    bystander.unharmed();
}

/// Names that are not UTF-8: the broker refuses the name, or the request.
#[test]
fn names_that_are_not_text() {
    let mut bystander = Bystander::start(&[]);
    let mut c = bystander.attacker();
    let code = create_topic(&mut c, &[0xff, 0xfe, b'a'], 1, 1, &[]);
    assert!(code.is_err() || code.is_ok_and(|c| c == error::INVALID_TOPIC_EXCEPTION));
    bystander.unharmed();
}

/// The broker handles repeated elements of a request once, as Kafka does, or refuses them, so lists
/// cost memory and time only once.
#[test]
fn the_same_thing_many_times() {
    let mut bystander = Bystander::start(&[]);
    let topic = bystander.topic.clone();
    // Fetch version 4 with one partition a million times, and the longest possible wait.
    let entry = Body::default().i32(0).i64(bystander.produced).i32(1 << 20);
    let head =
        Body::default().i32(-1).i32(i32::MAX).i32(i32::MAX).i32(i32::MAX).i8(0).i32(1).str(&topic);
    let body = Body([head.i32(1_000_000).0, entry.0.repeat(1_000_000)].concat());
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut c = bystander.attacker();
            let frame = c.frame(1, 4, &body);
            c.send(&frame);
            c
        })
        .collect();
    bystander.unharmed();
    drop(waiting);
    // DescribeConfigs version 1 of one broker: some 20 KB of answer for each 11 bytes.
    let resource = Body::default().i8(4).str("0").i32(-1).0.repeat(100_000);
    let body = Body([Body::default().i32(100_000).0, resource, vec![1]].concat());
    let mut reply = bystander.attacker().call(32, 1, &body).unwrap();
    reply.i32().unwrap();
    assert_eq!(reply.i32().unwrap(), 1);
    // ListOffsets version 1 refuses a partition that is named twice, even if its topic is named
    // twice.
    let half = Body::default().str(&topic).i32(1).i32(0).i64(-1).0;
    let body = Body([Body::default().i32(-1).i32(2).0, half.repeat(2)].concat());
    let mut reply = bystander.attacker().call(2, 1, &body).unwrap();
    assert_eq!(reply.i32().unwrap(), 2);
    for _ in 0..2 {
        reply.str().unwrap();
        reply.i32().unwrap();
        assert_eq!((reply.i32().unwrap(), reply.i16().unwrap()), (0, error::INVALID_REQUEST));
        reply.i64().unwrap();
        reply.i64().unwrap();
    }
    // Produce version 7: the last batch of a partition counts.
    let batch = |value: &[u8]| Batch::of(&[value], now_ms()).encode();
    let head = Body::default().i16(-1).i16(1).i32(10_000).i32(1).str(&topic).i32(2);
    let body = head.i32(0).bytes(&batch(b"first")).i32(0).bytes(&batch(b"last"));
    let mut reply = bystander.attacker().call(0, 7, &body).unwrap();
    reply.i32().unwrap();
    reply.str().unwrap();
    assert_eq!(
        (reply.i32().unwrap(), reply.i32().unwrap(), reply.i16().unwrap()),
        (1, 0, error::NONE)
    );
    bystander.produced += 1;
    bystander.unharmed();
}

/// Error messages repeat names of the maximum length.
#[test]
fn long_names_in_error_messages() {
    let mut bystander = Bystander::start(&[]);
    let name = "n".repeat(i16::MAX as usize);
    let mut c = bystander.attacker();
    assert_eq!(
        create_topic(&mut c, name.as_bytes(), 1, 1, &[]).unwrap(),
        error::INVALID_TOPIC_EXCEPTION
    );
    let code = create_topic(&mut c, b"named", 1, 1, &[(&name, &name)]).unwrap();
    assert_eq!(code, error::INVALID_CONFIG);
    // AlterConfigs version 1 for a topic, for brokers, and for an unknown resource type.
    for (kind, resource) in
        [(2, bystander.topic.as_str()), (4, "0"), (4, &name), (2, &name), (99, &name)]
    {
        let body = Body::default().i32(1).i8(kind).str(resource).i32(1).str(&name).str(&name).i8(1);
        let mut reply = c.call(33, 1, &body).unwrap_or_else(|e| panic!("{kind}: {e}"));
        reply.i32().unwrap();
        reply.i32().unwrap();
        assert_ne!(reply.i16().unwrap(), error::NONE);
        assert!(reply.str().unwrap().len() <= 1024);
    }
    bystander.unharmed();
}
