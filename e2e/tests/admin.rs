//! Scenarios for the admin interface of every client.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::{Value, json};
use weir_e2e::cluster::Cluster;
use weir_e2e::driver::{Client, Driver, From, Produce};
use weir_e2e::record::Record;
use weir_e2e::wire::{await_topic, error};

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
    topics,
    refusals,
    partitions,
    topic_configs,
    broker_configs,
    delete_records,
    cluster,
    log_dirs
);

fn run(client: Client, scenario: fn(&Cluster, &mut Driver)) {
    let cluster = Cluster::start().unwrap();
    let mut driver = Driver::start(client, &cluster.bootstrap).unwrap();
    scenario(&cluster, &mut driver);
}

fn new_topic(cluster: &Cluster, driver: &mut Driver, partitions: i32, configs: &Value) -> String {
    let topic = cluster.topic("admin");
    driver.create_topic(&topic, partitions, configs).unwrap();
    await_topic(&cluster.bootstrap, &topic, partitions).unwrap();
    topic
}

/// Repeats the request until the answer satisfies `holds`. Apache Kafka answers a change before its
/// broker has the new metadata.
fn eventually(driver: &mut Driver, request: &Value, holds: impl Fn(&Value) -> bool) -> Value {
    let deadline = std::time::Instant::now() + weir_e2e::wire::PATIENCE;
    loop {
        let answer = driver.call(request).unwrap();
        if holds(&answer) {
            return answer;
        }
        assert!(std::time::Instant::now() < deadline, "{request}: {answer}");
    }
}

fn config(driver: &mut Driver, topic: &str, key: &str) -> Value {
    driver.call(&json!({"op": "describe_configs", "type": "topic", "name": topic})).unwrap()[key]
        .take()
}

fn topics(cluster: &Cluster, driver: &mut Driver) {
    let topic = new_topic(cluster, driver, 3, &json!({}));
    let described = driver.call(&json!({"op": "describe_topic", "topic": topic})).unwrap();
    let described = described["partitions"].as_array().unwrap().clone();
    assert_eq!(
        described.iter().map(|p| p["partition"].clone()).collect::<Vec<_>>(),
        [json!(0), json!(1), json!(2)]
    );
    assert!(
        described
            .iter()
            .all(|p| p["leader"].as_i64().unwrap() >= 0 && p["replicas"] == 1 && p["isr"] == 1),
        "{described:?}"
    );
    eventually(driver, &json!({"op": "list_topics"}), |l| {
        l.as_array().unwrap().contains(&json!(topic))
    });

    // Deleted and created again, the topic is empty, because it is another topic.
    driver.produce(Produce::records(&topic, &[Record::new("k", "of the first").to(0)])).unwrap();
    driver.call(&json!({"op": "delete_topic", "topic": topic})).unwrap();
    eventually(driver, &json!({"op": "list_topics"}), |l| {
        !l.as_array().unwrap().contains(&json!(topic))
    });
    driver.create_topic(&topic, 1, &json!({})).unwrap();
    await_topic(&cluster.bootstrap, &topic, 1).unwrap();
    assert_eq!(driver.list_offset(&topic, 0, "latest").unwrap().0, 0);
    driver.produce(Produce::records(&topic, &[Record::new("k", "of the second").to(0)])).unwrap();
    assert_eq!(
        driver.consume(&topic, &[0], From::Beginning, 1).unwrap()[0].text(),
        "of the second"
    );
}

/// Each refusal has Kafka's error code.
fn refusals(cluster: &Cluster, driver: &mut Driver) {
    const TOPIC_ALREADY_EXISTS: i64 = 36;
    let topic = new_topic(cluster, driver, 1, &json!({}));
    let mut create = |name: &str, partitions: i32, replicas: i32, configs: Value| {
        let request = json!({"op": "create_topic", "topic": name, "partitions": partitions, "replicas": replicas, "configs": configs});
        driver.call(&request).map_or_else(|e| (e.code, e.message), |_| (0, String::new()))
    };
    let cases = [
        (create(&topic, 1, 1, json!({})), TOPIC_ALREADY_EXISTS),
        (create("not/a/name", 1, 1, json!({})), error::INVALID_TOPIC_EXCEPTION.into()),
        (create("..", 1, 1, json!({})), error::INVALID_TOPIC_EXCEPTION.into()),
        (create(&"n".repeat(250), 1, 1, json!({})), error::INVALID_TOPIC_EXCEPTION.into()),
        (create("refused", 0, 1, json!({})), error::INVALID_PARTITIONS.into()),
        (create("refused", 1, 100, json!({})), error::INVALID_REPLICATION_FACTOR.into()),
        (create("refused", 1, 1, json!({"retention.ms": "soon"})), error::INVALID_CONFIG.into()),
        (create("refused", 1, 1, json!({"retention.ms": "-7"})), error::INVALID_CONFIG.into()),
        (create("refused", 1, 1, json!({"no.such.key": "1"})), error::INVALID_CONFIG.into()),
        (create("refused", 1, 1, json!({"cleanup.policy": "shred"})), error::INVALID_CONFIG.into()),
    ];
    for (i, ((code, message), expected)) in cases.into_iter().enumerate() {
        // A refusal by the client itself has no Kafka code.
        assert!(
            code == expected || code == -1 || is_local(code),
            "case {i}: {code} for {expected}: {message}"
        );
    }
    let listed = driver.call(&json!({"op": "list_topics"})).unwrap();
    assert!(!listed.as_array().unwrap().contains(&json!("refused")));
}

/// librdkafka's own codes are below the protocol's -1.
fn is_local(code: i64) -> bool {
    code < -1
}

fn partitions(cluster: &Cluster, driver: &mut Driver) {
    let topic = new_topic(cluster, driver, 1, &json!({}));
    driver.produce(Produce::records(&topic, &[Record::new("k", "before").to(0)])).unwrap();
    driver.call(&json!({"op": "create_partitions", "topic": topic, "partitions": 5})).unwrap();
    await_topic(&cluster.bootstrap, &topic, 5).unwrap();
    let request = json!({"op": "describe_topic", "topic": topic});
    eventually(driver, &request, |d| d["partitions"].as_array().unwrap().len() == 5);
    driver.produce(Produce::records(&topic, &[Record::new("k", "after").to(4)])).unwrap();
    assert_eq!(driver.consume(&topic, &[0, 4], From::Beginning, 2).unwrap().len(), 2);
    // The number of partitions never decreases.
    let refused = driver
        .call(&json!({"op": "create_partitions", "topic": topic, "partitions": 2}))
        .unwrap_err();
    assert_eq!(refused.code, i64::from(error::INVALID_PARTITIONS), "{refused:?}");
}

fn topic_configs(cluster: &Cluster, driver: &mut Driver) {
    let topic = new_topic(
        cluster,
        driver,
        1,
        &json!({"retention.ms": "86400000", "cleanup.policy": "delete"}),
    );
    assert_eq!(config(driver, &topic, "retention.ms")["value"], "86400000");
    assert_eq!(config(driver, &topic, "max.message.bytes")["value"], "1048588");
    let all =
        driver.call(&json!({"op": "describe_configs", "type": "topic", "name": topic})).unwrap();
    for key in [
        "cleanup.policy",
        "compression.type",
        "flush.messages",
        "index.interval.bytes",
        "min.insync.replicas",
        "segment.bytes",
        "segment.ms",
    ] {
        assert!(!all[key]["value"].is_null(), "{key} is among {all}");
    }
    // The source of a value, as each client names it.
    let source = |v: &Value| format!("{}{}", v["source"], v["config_source"]);
    let (set, default) = (source(&all["retention.ms"]), source(&all["segment.ms"]));
    assert!(set.contains("DYNAMIC_TOPIC_CONFIG") || set.contains('1'), "{set}");
    assert!(default.contains("DEFAULT_CONFIG") || default.contains('5'), "{default}");

    if driver.client.can("replace_configs") {
        // AlterConfigs replaces everything: a configuration that it does not name returns to its
        // default.
        driver
            .call(&json!({"op": "replace_configs", "type": "topic", "name": topic, "configs": {"max.message.bytes": "2000000"}}))
            .unwrap();
        let request = json!({"op": "describe_configs", "type": "topic", "name": topic});
        let all =
            eventually(driver, &request, |all| all["max.message.bytes"]["value"] == "2000000");
        assert_eq!(all["retention.ms"]["value"], "604800000");
    }
    if driver.client.can("alter_configs") {
        let alter =
            |ops: Value| json!({"op": "alter_configs", "type": "topic", "name": topic, "ops": ops});
        driver
            .call(&alter(json!([
                ["set", "retention.ms", "3600000"],
                ["append", "cleanup.policy", "compact"]
            ])))
            .unwrap();
        let request = json!({"op": "describe_configs", "type": "topic", "name": topic});
        let all = eventually(driver, &request, |all| all["retention.ms"]["value"] == "3600000");
        assert!(
            ["delete,compact", "compact,delete"]
                .contains(&all["cleanup.policy"]["value"].as_str().unwrap()),
            "{all}"
        );
        driver
            .call(&alter(json!([
                ["subtract", "cleanup.policy", "delete"],
                ["delete", "retention.ms", null]
            ])))
            .unwrap();
        let all = eventually(driver, &request, |all| all["retention.ms"]["value"] == "604800000");
        assert_eq!(all["cleanup.policy"]["value"], "compact");
        for wrong in [
            json!([["set", "retention.ms", "soon"]]),
            json!([["set", "no.such.key", "1"]]),
            json!([["append", "retention.ms", "1"]]),
        ] {
            let refused = driver.call(&alter(wrong.clone())).unwrap_err();
            let expected = if wrong[0][0] == "append" { &[40, 42][..] } else { &[40] };
            assert!(expected.contains(&refused.code), "{wrong}: {refused:?}");
        }
        let absent = json!({"op": "alter_configs", "type": "topic", "name": cluster.topic("absent"), "ops": [["set", "retention.ms", "1"]]});
        assert_eq!(
            driver.call(&absent).unwrap_err().code,
            i64::from(error::UNKNOWN_TOPIC_OR_PARTITION)
        );
    }
}

fn broker_configs(_: &Cluster, driver: &mut Driver) {
    let cluster = driver.call(&json!({"op": "describe_cluster"})).unwrap();
    let id = cluster["nodes"][0]["id"].to_string();
    let request = json!({"op": "describe_configs", "type": "broker", "name": id});
    let all = driver.call(&request).unwrap();
    for key in [
        "log.retention.ms",
        "message.max.bytes",
        "num.partitions",
        "auto.create.topics.enable",
        "log.segment.bytes",
        "advertised.listeners",
    ] {
        assert!(all.get(key).is_some(), "{key} is among {all}");
    }
    assert_eq!(all["message.max.bytes"]["value"], "1048588");
    if driver.client.can("alter_configs") {
        let alter =
            |ops: Value| json!({"op": "alter_configs", "type": "broker", "name": id, "ops": ops});
        driver.call(&alter(json!([["set", "log.retention.ms", "7200000"]]))).unwrap();
        eventually(driver, &request, |all| all["log.retention.ms"]["value"] == "7200000");
        driver.call(&alter(json!([["delete", "log.retention.ms", null]]))).unwrap();
        eventually(driver, &request, |all| all["log.retention.ms"]["value"] != "7200000");
    }
}

fn delete_records(cluster: &Cluster, driver: &mut Driver) {
    let topic = new_topic(cluster, driver, 1, &json!({}));
    let records: Vec<Record> = (0..20).map(|i| Record::new("k", format!("{i}")).to(0)).collect();
    driver.produce(Produce::records(&topic, &records)).unwrap();
    let delete = |offset: i64| json!({"op": "delete_records", "topic": topic, "partition": 0, "offset": offset});
    assert_eq!(driver.call(&delete(7)).unwrap()["low_watermark"], 7);
    assert_eq!(driver.list_offset(&topic, 0, "earliest").unwrap().0, 7);
    let left = driver.consume(&topic, &[0], From::Beginning, 13).unwrap();
    assert_eq!(left.iter().map(|r| r.offset).collect::<Vec<_>>(), (7..20).collect::<Vec<_>>());
    let refused = driver.call(&delete(21)).unwrap_err();
    assert_eq!(refused.code, i64::from(error::OFFSET_OUT_OF_RANGE), "{refused:?}");
    // Given -1, kafkajs asks the broker for the end itself.
    assert_eq!(driver.call(&delete(-1)).unwrap()["low_watermark"], 20, "up to the high watermark");
    let placed =
        driver.produce(Produce::records(&topic, &[Record::new("k", "next").to(0)])).unwrap();
    assert_eq!(placed, [(0, 20)]);
}

fn cluster(cluster: &Cluster, driver: &mut Driver) {
    let described = driver.call(&json!({"op": "describe_cluster"})).unwrap();
    let nodes = described["nodes"].as_array().unwrap();
    let ports: Vec<String> =
        nodes.iter().map(|n| format!("{}:{}", n["host"].as_str().unwrap(), n["port"])).collect();
    assert!(ports.contains(&cluster.bootstrap), "{described}");
    assert!(
        nodes.iter().any(|n| n["id"] == described["controller"]),
        "the controller is a broker that takes requests: {described}"
    );
    assert_eq!(
        described["cluster_id"].as_str().unwrap().len(),
        22,
        "a UUID as Kafka writes it: {described}"
    );
}

fn log_dirs(cluster: &Cluster, driver: &mut Driver) {
    if !driver.client.can("describe_log_dirs") {
        return;
    }
    let topic = new_topic(cluster, driver, 2, &json!({}));
    driver
        .produce(Produce::records(&topic, &[Record::new("k", vec![b'x'; 10_000]).to(1)]))
        .unwrap();
    let sizes = driver.call(&json!({"op": "describe_log_dirs", "topic": topic})).unwrap();
    assert_eq!(sizes["0"], 0);
    assert!((10_000..11_000).contains(&sizes["1"].as_i64().unwrap()), "{sizes}");
}
