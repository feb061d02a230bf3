//! Scenarios for every Kafka client: one list that runs through each driver.
//!
//! Partitions are assigned by hand, without a consumer group.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::json;
use weir_e2e::cluster::{Cluster, replicas};
use weir_e2e::driver::{CLIENTS, Client, Driver, From, Produce};
use weir_e2e::record::{Bytes64, Record};
use weir_e2e::wire::await_topic;

/// A scenario is a function of a cluster and a client; each pair is a test of its own.
macro_rules! scenarios {
    ($($scenario:ident),+ $(,)?) => {
        scenarios!(@client java, Client::Java, $($scenario),+);
        scenarios!(@client franz_go, Client::Franz, $($scenario),+);
        scenarios!(@client kafkajs, Client::KafkaJs, $($scenario),+);
        scenarios!(@client librdkafka, Client::Librdkafka, $($scenario),+);
        scenarios!(@client kafka_python, Client::KafkaPython, $($scenario),+);
    };
    (@client $module:ident, $client:expr, $($scenario:ident),+) => {
        mod $module {
            use super::*;
            $(#[test] fn $scenario() { run($client, super::$scenario); })+
        }
    };
}

scenarios!(
    tricky_records,
    compressions,
    keys_choose_partitions,
    a_thousand_partitions,
    seek_by_offset_and_time,
    list_offsets,
    idempotent_producer,
    many_small_records,
    acks,
    too_large,
    unknown_topic_without_auto_creation,
    auto_creation,
);

fn run(client: Client, scenario: fn(&Cluster, &mut Driver)) {
    let cluster = Cluster::start().unwrap();
    let mut driver = Driver::start(client, &cluster.bootstrap).unwrap();
    scenario(&cluster, &mut driver);
}

/// 2020-09-13. A fixed time, so that no test depends on the clock.
const LONG_AGO_MS: i64 = 1_600_000_000_000;

fn keep_for_ever() -> serde_json::Value {
    json!({"retention.ms": "-1"})
}

fn new_topic(
    cluster: &Cluster,
    driver: &mut Driver,
    partitions: i32,
    configs: &serde_json::Value,
) -> String {
    let topic = cluster.topic("t");
    driver.create_topic(&topic, partitions, configs).unwrap();
    await_topic(&cluster.bootstrap, &topic, partitions).unwrap();
    topic
}

/// Records at the edges of the format, as far as the client can make them.
fn tricky(client: Client) -> Vec<Record> {
    let plain = |value: &[u8]| Record { value: Some(Bytes64(value.to_vec())), ..Record::default() };
    let mut records = vec![
        plain(b"a"),
        plain(b""),
        Record::new("", ""),
        Record { value: None, ..Record::new("tombstone", "") },
        Record::new("klíč-鍵-🔑", "hodnota-値-🎁"),
        plain(&[0, 255, 254, 128, 10, 13]),
        plain(&vec![b'v'; 900 << 10]),
        Record::new("h", "headers")
            .with("one", Some(b"1"))
            .with("empty", Some(b""))
            .with("naïve-名", Some(&[0, 1, 255])),
        Record::new("t", "an old time").at(LONG_AGO_MS),
        Record::new("t", "a time before").at(LONG_AGO_MS - 1),
        Record::new("t", "1970").at(1),
    ];
    if client.can("null_record") {
        records.push(Record::default());
    }
    if client.can("null_header") {
        records.push(Record::new("h", "null header").with("null", None));
    }
    if client.can("repeated_header") {
        records.push(
            Record::new("h", "twice")
                .with("same", Some(b"1"))
                .with("same", Some(b"2"))
                .with("other", Some(b""))
                .with("same", Some(b"1")),
        );
    }
    records.into_iter().map(|r| r.to(0)).collect()
}

fn assert_same(produced: &[Record], consumed: &[Record], who: &str) {
    assert_eq!(consumed.len(), produced.len(), "{who}");
    for (i, (p, c)) in produced.iter().zip(consumed).enumerate() {
        assert_eq!(c.content(), p.content(), "{who}: record {i}");
        if p.timestamp.is_some() {
            assert_eq!(c.timestamp, p.timestamp, "{who}: record {i}");
        }
    }
}

fn tricky_records(cluster: &Cluster, driver: &mut Driver) {
    let topic = new_topic(cluster, driver, 1, &keep_for_ever());
    let records = tricky(driver.client);
    let offsets = driver.produce(Produce::records(&topic, &records)).unwrap();
    assert_eq!(offsets, (0..records.len()).map(|o| (0, o as i64)).collect::<Vec<_>>());
    let consumed = driver.consume(&topic, &[0], From::Beginning, records.len()).unwrap();
    assert_same(&records, &consumed, "all");
    assert_eq!(
        consumed.iter().map(|r| r.offset).collect::<Vec<_>>(),
        (0..records.len() as i64).collect::<Vec<_>>()
    );
}

/// Every client reads what the others compressed.
fn compressions(cluster: &Cluster, driver: &mut Driver) {
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    let mut topics = Vec::new();
    for codec in codecs {
        let topic = new_topic(cluster, driver, 1, &keep_for_ever());
        let records: Vec<Record> = (0..50)
            .map(|i| Record::new("k", format!("{codec} {i} {}", "abc".repeat(i * 7))).to(0))
            .collect();
        driver
            .produce(
                Produce::records(&topic, &records).set("compression", codec).set("linger_ms", 20),
            )
            .unwrap();
        topics.push((topic, records));
    }
    for reader in CLIENTS {
        let mut reader = Driver::start(reader, &cluster.bootstrap).unwrap();
        for (codec, (topic, records)) in codecs.iter().zip(&topics) {
            let consumed = reader.consume(topic, &[0], From::Beginning, records.len()).unwrap();
            assert_same(
                records,
                &consumed,
                &format!("{codec} from {:?} to {:?}", driver.client, reader.client),
            );
        }
    }
}

/// Equal keys go to one partition and keep their order there; every client hashes as Java does.
fn keys_choose_partitions(cluster: &Cluster, driver: &mut Driver) {
    let (partitions, keys, count) = (50, 97, 2000);
    let topic = new_topic(cluster, driver, partitions, &json!({}));
    let placed = driver.produce(Produce::generated(&topic, count, 30, keys)).unwrap();
    let all: Vec<i32> = (0..partitions).collect();
    let consumed = driver.consume(&topic, &all, From::Beginning, count).unwrap();
    assert_eq!(consumed.len(), count);
    let mut last_of_key = std::collections::BTreeMap::new();
    let mut next_offset = std::collections::BTreeMap::new();
    for r in &consumed {
        let i: usize = r.text()[..10].parse().unwrap();
        assert_eq!(
            (r.partition.unwrap(), r.offset),
            placed[i],
            "record {i} is where its producer was told"
        );
        assert_eq!(r.key, Some(Bytes64(format!("k{}", i % keys).into_bytes())));
        assert_eq!(
            r.partition.unwrap(),
            java_partition(r.key.as_ref().unwrap().0.as_slice(), partitions)
        );
        let last = last_of_key.insert(i % keys, i);
        assert!(last < Some(i), "order within a key");
        assert_eq!(
            *next_offset.entry(r.partition).and_modify(|o| *o += 1).or_insert(0),
            r.offset,
            "offsets are dense"
        );
    }
    assert_eq!(last_of_key.len(), keys);
}

/// The partition of a key by `Utils.murmur2` of the Java client.
fn java_partition(key: &[u8], partitions: i32) -> i32 {
    const M: i32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c_u32.cast_signed() ^ i32::try_from(key.len()).unwrap();
    let mix = |k: i32| {
        let k = k.wrapping_mul(M);
        (k ^ (k.cast_unsigned() >> 24).cast_signed()).wrapping_mul(M)
    };
    let words = key.chunks_exact(4);
    let rest = words.remainder();
    for word in words {
        h = h.wrapping_mul(M) ^ mix(i32::from_le_bytes(word.try_into().unwrap()));
    }
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0_i32, |t, b| (t << 8) | i32::from(*b));
        h = (h ^ tail).wrapping_mul(M);
    }
    h = (h ^ (h.cast_unsigned() >> 13).cast_signed()).wrapping_mul(M);
    h ^= (h.cast_unsigned() >> 15).cast_signed();
    (h & 0x7fff_ffff) % partitions
}

fn a_thousand_partitions(cluster: &Cluster, driver: &mut Driver) {
    let topic = new_topic(cluster, driver, 1000, &json!({}));
    let described = driver.call(&json!({"op": "describe_topic", "topic": topic})).unwrap();
    let described = described["partitions"].as_array().unwrap();
    assert_eq!(described.len(), 1000);
    for (i, p) in described.iter().enumerate() {
        assert_eq!(
            (&p["partition"], &p["replicas"], &p["isr"]),
            (&json!(i), &json!(replicas()), &json!(replicas()))
        );
    }
    let records: Vec<Record> =
        (0..1000).map(|p| Record::new("k", format!("for {p}")).to(p)).collect();
    let offsets = driver.produce(Produce::records(&topic, &records).set("linger_ms", 50)).unwrap();
    assert_eq!(offsets, (0..1000).map(|p| (p, 0)).collect::<Vec<_>>());
    let all: Vec<i32> = (0..1000).collect();
    let mut consumed = driver.consume(&topic, &all, From::Beginning, 1000).unwrap();
    consumed.sort_by_key(|r| r.partition);
    assert_same(&records, &consumed, "all");
}

fn seek_by_offset_and_time(cluster: &Cluster, driver: &mut Driver) {
    let topic = new_topic(cluster, driver, 1, &keep_for_ever());
    let at = |i: i64| LONG_AGO_MS + 1000 * i;
    let records: Vec<Record> =
        (0..100).map(|i| Record::new("k", format!("record {i}")).to(0).at(at(i))).collect();
    for batch in records.chunks(10) {
        driver
            .produce(
                Produce::records(&topic, batch).set("compression", "gzip").set("linger_ms", 20),
            )
            .unwrap();
    }
    // In the middle of a batch, whichever batches the client made.
    for start in [0, 1, 37, 55, 99] {
        let consumed =
            driver.consume(&topic, &[0], From::Offset(start), 100 - start as usize).unwrap();
        assert_same(&records[start as usize..], &consumed, &format!("from offset {start}"));
        assert_eq!(consumed[0].offset, start);
    }
    for (time, offset) in
        [(0, 0), (at(0), 0), (at(0) + 1, 1), (at(41), 41), (at(98) + 999, 99), (at(99), 99)]
    {
        let found = driver
            .call(&json!({"op": "offset_for_time", "topic": topic, "partition": 0, "timestamp": time}))
            .unwrap();
        assert_eq!(found["offset"], json!(offset), "the first record at or after {time}");
    }
    // Clients report a missing record differently: as nothing, or as the end of the log.
    let found = driver
        .call(&json!({"op": "offset_for_time", "topic": topic, "partition": 0, "timestamp": at(99) + 1}))
        .unwrap();
    assert!([json!(-1), json!(100)].contains(&found["offset"]), "{found}");
    let request = json!({"op": "consume", "topic": topic, "partitions": [0], "from": "end", "count": 1, "timeout_ms": 1500});
    assert_eq!(driver.call(&request).unwrap(), json!([]), "nothing after the end");
}

fn list_offsets(cluster: &Cluster, driver: &mut Driver) {
    let topic = new_topic(cluster, driver, 2, &keep_for_ever());
    assert_eq!(driver.list_offset(&topic, 0, "earliest").unwrap().0, 0);
    assert_eq!(driver.list_offset(&topic, 0, "latest").unwrap().0, 0);
    let times = [5, 9, 7, 9, 3];
    for t in times {
        driver
            .produce(Produce::records(&topic, &[Record::new("k", "v").to(0).at(LONG_AGO_MS + t)]))
            .unwrap();
    }
    assert_eq!(driver.list_offset(&topic, 0, "earliest").unwrap().0, 0);
    assert_eq!(driver.list_offset(&topic, 0, "latest").unwrap().0, 5);
    assert_eq!(
        driver.list_offset(&topic, 1, "latest").unwrap().0,
        0,
        "the other partition is empty"
    );
    if driver.client.can("max_timestamp") {
        assert_eq!(
            driver.list_offset(&topic, 0, "max_timestamp").unwrap(),
            (1, LONG_AGO_MS + 9),
            "the first of the newest"
        );
        assert_eq!(
            driver.list_offset(&topic, 0, LONG_AGO_MS + 6).unwrap(),
            (1, LONG_AGO_MS + 9),
            "the first at or after"
        );
    }
}

fn idempotent_producer(cluster: &Cluster, driver: &mut Driver) {
    let topic = new_topic(cluster, driver, 3, &json!({}));
    let count = 3000;
    let placed = driver
        .produce(
            Produce::generated(&topic, count, 100, 31).set("idempotent", true).set("linger_ms", 1),
        )
        .unwrap();
    let consumed = driver.consume(&topic, &[0, 1, 2], From::Beginning, count).unwrap();
    assert_eq!(consumed.len(), count);
    for r in consumed {
        let i: usize = r.text()[..10].parse().unwrap();
        assert_eq!(placed[i], (r.partition.unwrap(), r.offset));
    }
    // A second producer gets its own id and starts at sequence 0.
    driver.produce(Produce::generated(&topic, 10, 100, 31).set("idempotent", true)).unwrap();
}

fn many_small_records(cluster: &Cluster, driver: &mut Driver) {
    let topic = new_topic(cluster, driver, 4, &json!({}));
    let count = 100_000;
    let placed = driver
        .produce(
            Produce::generated(&topic, count, 20, 1000)
                .set("linger_ms", 20)
                .set("compression", "lz4")
                .set("timeout_ms", 60_000),
        )
        .unwrap();
    assert_eq!(placed.len(), count);
    let request = json!({"op": "consume", "topic": topic, "partitions": [0, 1, 2, 3], "from": "beginning", "count": count, "timeout_ms": 60_000});
    let consumed: Vec<Record> = serde_json::from_value(driver.call(&request).unwrap()).unwrap();
    assert_eq!(consumed.len(), count);
    let mut seen: Vec<usize> = consumed.iter().map(|r| r.text()[..10].parse().unwrap()).collect();
    seen.sort_unstable();
    assert!(seen.iter().enumerate().all(|(i, s)| i == *s), "each exactly once");
}

fn acks(cluster: &Cluster, driver: &mut Driver) {
    let topic = new_topic(cluster, driver, 1, &json!({}));
    for level in ["0", "1", "all"] {
        let records: Vec<Record> =
            (0..20).map(|i| Record::new(level, format!("{level} {i}")).to(0)).collect();
        driver.produce(Produce::records(&topic, &records).set("acks", level)).unwrap();
    }
    let consumed = driver.consume(&topic, &[0], From::Beginning, 60).unwrap();
    let expected: Vec<String> = ["0", "1", "all"]
        .iter()
        .flat_map(|level| (0..20).map(move |i| format!("{level} {i}")))
        .collect();
    assert_eq!(consumed.iter().map(Record::text).collect::<Vec<_>>(), expected);
}

/// The broker, not the client, refuses a batch above `max.message.bytes`, and accepts the next one.
fn too_large(cluster: &Cluster, driver: &mut Driver) {
    const MESSAGE_TOO_LARGE: i64 = 10;
    let topic = new_topic(cluster, driver, 1, &json!({"max.message.bytes": "10000"}));
    let large = Record::new("k", vec![b'x'; 20_000]).to(0);
    let refused = driver.produce(Produce::records(&topic, &[large])).unwrap_err();
    assert_eq!(refused.code, MESSAGE_TOO_LARGE, "{refused:?}");
    let placed = driver
        .produce(Produce::records(&topic, &[Record::new("k", vec![b'x'; 5_000]).to(0)]))
        .unwrap();
    assert_eq!(placed, [(0, 0)]);
}

/// Without auto-creation a missing topic gives its own error. Clients hide the code behind their
/// timeouts.
fn unknown_topic_without_auto_creation(cluster: &Cluster, driver: &mut Driver) {
    const UNKNOWN_TOPIC_OR_PARTITION: i64 = 3;
    let topic = cluster.topic("absent");
    for op in ["describe_topic", "delete_topic"] {
        // kafkajs requests metadata with auto-creation.
        if (driver.client, op) == (Client::KafkaJs, "describe_topic") {
            continue;
        }
        let refused = driver.call(&json!({"op": op, "topic": topic})).unwrap_err();
        assert_eq!(refused.code, UNKNOWN_TOPIC_OR_PARTITION, "{op}: {refused:?}");
    }
}

fn auto_creation(cluster: &Cluster, driver: &mut Driver) {
    let topic = cluster.topic("auto");
    let placed =
        driver.produce(Produce::records(&topic, &[Record::new("k", "first use")])).unwrap();
    assert_eq!(placed, [(0, 0)]);
    let consumed = driver.consume(&topic, &[0], From::Beginning, 1).unwrap();
    assert_eq!(consumed[0].text(), "first use");
    let listed = driver.call(&json!({"op": "list_topics"})).unwrap();
    assert!(listed.as_array().unwrap().contains(&json!(topic)), "{listed}");
}
