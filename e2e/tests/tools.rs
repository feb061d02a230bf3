//! Apache Kafka's own command line tools and kcat, run as from a shell; the tests compare the
//! substance of their output.
#![allow(clippy::unwrap_used, missing_docs)]

use weir_e2e::cluster::Cluster;
use weir_e2e::tools::{class, kafka, kcat};
use weir_e2e::wire::{Connection, await_topic, create_topic};

/// Runs a tool that must succeed.
fn tool(cluster: &Cluster, class: &str, arguments: &[&str], input: &str) -> String {
    let server = ["--bootstrap-server", &cluster.bootstrap];
    let all: Vec<&str> = server.into_iter().chain(arguments.iter().copied()).collect();
    kafka(class, &all, input).unwrap().success().unwrap()
}

fn new_topic(cluster: &Cluster, partitions: i32) -> String {
    let topic = cluster.topic("tool");
    let mut c = Connection::open(&cluster.bootstrap).unwrap();
    assert_eq!(create_topic(&mut c, topic.as_bytes(), partitions, 1, &[]).unwrap(), 0);
    await_topic(&cluster.bootstrap, &topic, partitions).unwrap();
    topic
}

/// Repeats a tool until its output satisfies `holds`: Apache Kafka answers a change before its
/// broker has the new metadata.
fn eventually(mut run: impl FnMut() -> String, holds: impl Fn(&str) -> bool) {
    let mut out = String::new();
    for _ in 0..5 {
        out = run();
        if holds(&out) {
            return;
        }
    }
    panic!("{out}");
}

#[test]
fn kafka_topics() {
    let cluster = Cluster::start().unwrap();
    let topic = cluster.topic("topics");
    let run = |arguments: &[&str]| tool(&cluster, class::TOPICS, arguments, "");
    let out = run(&[
        "--create",
        "--topic",
        &topic,
        "--partitions",
        "3",
        "--replication-factor",
        "1",
        "--config",
        "retention.ms=3600000",
    ]);
    assert!(out.contains(&format!("Created topic {topic}.")), "{out}");
    await_topic(&cluster.bootstrap, &topic, 3).unwrap();
    assert!(run(&["--list"]).lines().any(|l| l == topic));
    let out = run(&["--describe", "--topic", &topic]);
    assert!(
        out.contains("PartitionCount: 3\tReplicationFactor: 1\t")
            && out.contains("retention.ms=3600000"),
        "{out}"
    );
    for partition in 0..3 {
        let line = out
            .lines()
            .find(|l| l.contains(&format!("\tPartition: {partition}\t")))
            .unwrap_or_else(|| panic!("{out}"));
        let field = |name: &str| {
            line.split('\t').find_map(|f| f.trim().strip_prefix(name)).unwrap().trim().to_owned()
        };
        assert_eq!(field("Leader:"), field("Replicas:"), "{line}");
        assert_eq!(field("Isr:"), field("Replicas:"), "{line}");
    }
    assert!(!run(&["--describe", "--under-replicated-partitions"]).contains(&topic));
    assert!(!run(&["--describe", "--unavailable-partitions"]).contains(&topic));
    run(&["--alter", "--topic", &topic, "--partitions", "5"]);
    await_topic(&cluster.bootstrap, &topic, 5).unwrap();
    eventually(|| run(&["--describe", "--topic", &topic]), |out| out.contains("PartitionCount: 5"));
    run(&["--delete", "--topic", &topic]);
    eventually(|| run(&["--list"]), |out| !out.lines().any(|l| l == topic));
    let again = ["--bootstrap-server", &cluster.bootstrap, "--describe", "--topic", &topic];
    let refused = kafka(class::TOPICS, &again, "").unwrap();
    assert!(!refused.ok && refused.out.contains("does not exist"), "{refused:?}");
}

#[test]
fn kafka_configs() {
    let cluster = Cluster::start().unwrap();
    let topic = new_topic(&cluster, 1);
    let run = |arguments: &[&str]| tool(&cluster, class::CONFIGS, arguments, "");
    let entity = ["--entity-type", "topics", "--entity-name", &topic];
    let on = |arguments: &[&str]| run(&[&entity, arguments].concat());
    let out =
        on(&["--alter", "--add-config", "retention.ms=7200000,cleanup.policy=[compact,delete]"]);
    assert!(out.contains(&format!("Completed updating config for topic {topic}.")), "{out}");
    eventually(
        || on(&["--describe"]),
        |out| {
            out.contains("retention.ms=7200000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=7200000")
        },
    );
    let out = on(&["--describe", "--all"]);
    for expected in [
        "cleanup.policy=compact,delete",
        "compression.type=producer",
        "min.insync.replicas=1",
        "segment.bytes=1073741824",
    ] {
        assert!(
            out.contains(&format!("  {expected} sensitive=false synonyms={{")),
            "{expected}: {out}"
        );
    }
    on(&["--alter", "--delete-config", "retention.ms"]);
    eventually(|| on(&["--describe"]), |out| !out.contains("retention.ms"));
    let wrong =
        ["--bootstrap-server", &cluster.bootstrap, "--alter", "--add-config", "retention.ms=soon"];
    let refused = kafka(class::CONFIGS, &[&wrong, &entity[..]].concat(), "").unwrap();
    assert!(!refused.ok && refused.err.contains("InvalidConfigurationException"), "{refused:?}");

    let described = tool(&cluster, class::API_VERSIONS, &[], "");
    let id = described.lines().find_map(|l| l.split("(id: ").nth(1)?.split(' ').next()).unwrap();
    let broker = ["--entity-type", "brokers", "--entity-name", id];
    let on = |arguments: &[&str]| run(&[&broker, arguments].concat());
    let out = on(&["--describe", "--all"]);
    assert!(
        out.contains("  message.max.bytes=1048588 sensitive=false synonyms={DEFAULT_CONFIG:message.max.bytes=1048588}"),
        "{out}"
    );
    on(&["--alter", "--add-config", "log.retention.ms=7200000"]);
    eventually(
        || on(&["--describe"]),
        |out| {
            out.contains(
                "log.retention.ms=7200000 sensitive=false synonyms={DYNAMIC_BROKER_CONFIG:",
            )
        },
    );
    on(&["--alter", "--delete-config", "log.retention.ms"]);
    // The broker accepts a configuration without effect. It refuses, for a single broker, one that
    // must be the same on all.
    on(&["--alter", "--add-config", "num.io.threads=16,log.cleaner.threads=2"]);
    eventually(
        || on(&["--describe"]),
        |out| out.contains("num.io.threads=16") && out.contains("log.cleaner.threads=2"),
    );
    on(&["--alter", "--delete-config", "num.io.threads,log.cleaner.threads"]);
    let wrong = [
        "--bootstrap-server",
        &cluster.bootstrap,
        "--alter",
        "--add-config",
        "min.insync.replicas=2",
    ];
    let refused = kafka(class::CONFIGS, &[&wrong, &broker[..]].concat(), "").unwrap();
    assert!(
        !refused.ok && refused.err.contains("Broker-level min.insync.replicas cannot be altered"),
        "{refused:?}"
    );
    // The default for all brokers.
    let everyone = ["--entity-type", "brokers", "--entity-default"];
    run(&[&everyone[..], &["--alter", "--add-config", "log.retention.ms=10800000"]].concat());
    eventually(
        || run(&[&everyone[..], &["--describe"]].concat()),
        |out| {
            out.contains("log.retention.ms=10800000 sensitive=false synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:")
        },
    );
    run(&[&everyone[..], &["--alter", "--delete-config", "log.retention.ms"]].concat());
}

/// Without authorisation, quotas and users the tools get an error, and lists are empty.
#[test]
fn kafka_acls_and_the_configurations_of_users_and_clients() {
    let cluster = Cluster::start().unwrap();
    let server = ["--bootstrap-server", &cluster.bootstrap];
    let acls = |arguments: &[&str]| kafka(class::ACLS, &[&server, arguments].concat(), "").unwrap();
    let new =
        ["--add", "--force", "--allow-principal", "User:a", "--operation", "Read", "--topic", "t"];
    let gone = [
        "--remove",
        "--force",
        "--allow-principal",
        "User:a",
        "--operation",
        "Read",
        "--topic",
        "t",
    ];
    for arguments in [&["--list"][..], &new, &gone] {
        let printed = format!("{:?}", acls(arguments));
        assert!(
            printed.contains("SecurityDisabledException: No Authorizer is configured"),
            "{printed}"
        );
    }
    for entity in ["users", "clients"] {
        let printed = kafka(
            class::CONFIGS,
            &[&server[..], &["--describe", "--entity-type", entity]].concat(),
            "",
        )
        .unwrap();
        let printed = printed.success().unwrap();
        assert!(printed.trim().is_empty(), "{entity}: {printed}");
    }
}

#[test]
fn kafka_configs_of_groups_and_client_metrics() {
    let cluster = Cluster::start().unwrap();
    let run = |arguments: &[&str]| tool(&cluster, class::CONFIGS, arguments, "");
    for (entity, name, setting, wrong) in [
        ("groups", "g", "consumer.session.timeout.ms=50000", "consumer.session.timeout.ms=1"),
        ("client-metrics", "m", "interval.ms=60000", "interval.ms=1"),
    ] {
        let of = ["--entity-type", entity, "--entity-name", name];
        run(&[&["--alter", "--add-config", setting], &of[..]].concat());
        // Without a name the tool describes all of them.
        let out = run(&["--describe", "--entity-type", entity]);
        assert!(out.contains(name) && out.contains(setting), "{out}");
        let server = ["--bootstrap-server", &cluster.bootstrap, "--alter", "--add-config", wrong];
        let refused = kafka(class::CONFIGS, &[&server, &of[..]].concat(), "").unwrap();
        assert!(!refused.ok, "{refused:?}");
        let key = setting.split('=').next().unwrap();
        run(&[&["--alter", "--delete-config", key], &of[..]].concat());
        let out = run(&[&["--describe"], &of[..]].concat());
        assert!(!out.contains(setting), "{out}");
    }
}

#[test]
fn kafka_console_producer_and_consumer() {
    let cluster = Cluster::start().unwrap();
    let topic = new_topic(&cluster, 1);
    let properties =
        ["--reader-property", "parse.key=true", "--reader-property", "parse.headers=true"];
    let produce = [&["--topic", &topic][..], &properties].concat();
    tool(
        &cluster,
        class::CONSOLE_PRODUCER,
        &produce,
        "h:1\tkey1\tvalue 1\nh:2,g:3\tkey2\tzwei-二\n",
    );
    // With `--partition` the console consumer assigns the partition itself and has no group.
    let shown = ["key", "headers", "offset", "partition"].map(|p| format!("print.{p}=true"));
    let mut consume =
        vec!["--topic", &topic, "--partition", "0", "--offset", "earliest", "--max-messages", "2"];
    for one in &shown {
        consume.extend(["--formatter-property", one]);
    }
    let out = tool(&cluster, class::CONSOLE_CONSUMER, &consume, "");
    assert_eq!(
        out,
        "Partition:0\tOffset:0\th:1\tkey1\tvalue 1\nPartition:0\tOffset:1\th:2,g:3\tkey2\tzwei-二\n"
    );
    let from_one = ["--topic", &topic, "--partition", "0", "--offset", "1", "--max-messages", "1"];
    assert_eq!(tool(&cluster, class::CONSOLE_CONSUMER, &from_one, ""), "zwei-二\n");
}

#[test]
fn kafka_get_offsets_and_delete_records() {
    let cluster = Cluster::start().unwrap();
    let topic = new_topic(&cluster, 2);
    tool(
        &cluster,
        class::CONSOLE_PRODUCER,
        &["--topic", &topic, "--reader-property", "parse.key=true"],
        "k\t1\nk\t2\nk\t3\nk\t4\n",
    );
    let offsets =
        |time: &str| tool(&cluster, class::GET_OFFSETS, &["--topic", &topic, "--time", time], "");
    let latest = offsets("latest");
    let partition = latest
        .lines()
        .find_map(|l| l.strip_suffix(":4")?.strip_prefix(&format!("{topic}:")))
        .unwrap_or_else(|| panic!("{latest}"));
    let line = |offset: &str| format!("{topic}:{partition}:{offset}");
    assert!(offsets("-1").lines().any(|l| l == line("4")));
    assert!(offsets("earliest").lines().any(|l| l == line("0")));
    assert!(offsets("-2").lines().any(|l| l == line("0")));
    let newest = offsets("max-timestamp");
    assert!(newest.lines().any(|l| (0..4).any(|o| l == line(&o.to_string()))), "{newest}");
    assert!(offsets("-3").lines().any(|l| (0..4).any(|o| l == line(&o.to_string()))));
    assert!(offsets("earliest-local").lines().any(|l| l == line("0")));
    // There is no tiered storage, so no partition has an offset there.
    assert!(
        offsets("latest-tiered").lines().all(|l| l.ends_with(':') || l.ends_with(":-1")),
        "{}",
        offsets("latest-tiered")
    );
    assert!(offsets("1000").lines().any(|l| l == line("0")), "by time");

    let file = tempfile::NamedTempFile::new().unwrap();
    let json = format!(
        r#"{{"partitions":[{{"topic":"{topic}","partition":{partition},"offset":3}}],"version":1}}"#
    );
    std::fs::write(file.path(), json).unwrap();
    let out = tool(
        &cluster,
        class::DELETE_RECORDS,
        &["--offset-json-file", &file.path().to_string_lossy()],
        "",
    );
    assert!(out.contains(&format!("partition: {topic}-{partition}\tlow_watermark: 3")), "{out}");
    assert!(offsets("earliest").lines().any(|l| l == line("3")));
}

#[test]
fn kafka_broker_api_versions_log_dirs_and_cluster() {
    let cluster = Cluster::start().unwrap();
    let out = tool(&cluster, class::API_VERSIONS, &[], "");
    assert!(out.starts_with(&cluster.bootstrap), "{out}");
    // The version of each API that the tool uses. Produce advertises 0 although 3 is the lowest
    // (KAFKA-18659).
    for api in [
        "Produce(0): 0 to",
        "Fetch(1): 4 to",
        "ListOffsets(2): 1 to",
        "Metadata(3): 0 to",
        "ApiVersions(18): 0 to",
        "CreateTopics(19): 2 to",
    ] {
        assert!(out.contains(api), "{api}: {out}");
    }
    let usable = out.lines().filter(|l| l.contains("[usable: ")).count();
    assert!(usable >= 17, "{out}");

    let topic = new_topic(&cluster, 1);
    let out = tool(&cluster, class::LOG_DIRS, &["--describe", "--topic-list", &topic], "");
    assert!(
        out.contains(&format!("\"partition\":\"{topic}-0\"")) && out.contains("\"error\":null"),
        "{out}"
    );

    // This tool wants its subcommand first.
    let of_cluster = |what: &str| {
        kafka(class::CLUSTER, &[what, "--bootstrap-server", &cluster.bootstrap], "")
            .unwrap()
            .success()
            .unwrap()
    };
    assert!(of_cluster("cluster-id").contains("Cluster ID: "));
    let out = of_cluster("list-endpoints");
    let port = cluster.bootstrap.split(':').nth(1).unwrap();
    assert!(out.lines().any(|l| l.contains("127.0.0.1") && l.contains(port)), "{out}");
}

#[test]
fn kafka_producer_perf_test_and_verifiable_producer() {
    let cluster = Cluster::start().unwrap();
    let topic = new_topic(&cluster, 3);
    let bootstrap = format!("bootstrap.servers={}", cluster.bootstrap);
    let arguments = [
        "--topic",
        &topic,
        "--num-records",
        "20000",
        "--record-size",
        "200",
        "--throughput",
        "-1",
        "--command-property",
        &bootstrap,
    ];
    let out = kafka(class::PRODUCER_PERF, &arguments, "").unwrap().success().unwrap();
    assert!(out.contains("20000 records sent"), "{out}");
    let out = tool(
        &cluster,
        class::VERIFIABLE_PRODUCER,
        &["--topic", &topic, "--max-messages", "500", "--acks", "-1"],
        "",
    );
    assert!(out.contains("\"sent\":500") && out.contains("\"acked\":500"), "{out}");
    let mut c = Connection::open(&cluster.bootstrap).unwrap();
    let ends =
        (0..3).map(|p| weir_e2e::wire::list_offset(&mut c, &topic, p, -1).unwrap().1).sum::<i64>();
    assert_eq!(ends, 20_500);
}

/// The segment files have Kafka's format: its tool reads them and finds no error.
#[test]
fn kafka_dump_log() {
    let cluster = Cluster::start().unwrap();
    let Some(local) = cluster.local() else { return };
    let topic = new_topic(&cluster, 1);
    tool(
        &cluster,
        class::CONSOLE_PRODUCER,
        &["--topic", &topic, "--compression-codec", "gzip"],
        "one\ntwo\nthree\n",
    );
    let name = "00000000000000000000.log";
    let of_topic = |f: &std::path::PathBuf| f.ends_with(format!("{topic}-0/{name}"));
    let segment = weir_e2e::cluster::files(&local.data()).into_iter().find(of_topic).unwrap();
    let out = kafka(
        class::DUMP_LOG,
        &["--deep-iteration", "--print-data-log", "--files", &segment.to_string_lossy()],
        "",
    )
    .unwrap()
    .success()
    .unwrap();
    assert!(out.contains("isvalid: true") && out.contains("compresscodec: gzip"), "{out}");
    for payload in ["one", "two", "three"] {
        assert!(out.contains(&format!("payload: {payload}")), "{out}");
    }
}

#[test]
fn kcat_round_trip() {
    let cluster = Cluster::start().unwrap();
    let topic = new_topic(&cluster, 2);
    let run = |arguments: &[&str], input: &[u8]| {
        kcat(&cluster.bootstrap, arguments, input).unwrap().success().unwrap()
    };
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let input = format!("key-{codec}:value {codec} {}\n", "abc".repeat(300));
        // Some builds of librdkafka lack a codec.
        let sent = kcat(
            &cluster.bootstrap,
            &["-P", "-t", &topic, "-p", "0", "-K:", "-H", "codec=x", "-z", codec],
            input.as_bytes(),
        )
        .unwrap();
        assert!(
            sent.ok || sent.err.contains("not supported") || sent.err.contains("Unsupported"),
            "{sent:?}"
        );
    }
    let out = run(
        &["-C", "-t", &topic, "-p", "0", "-o", "beginning", "-e", "-q", "-f", "%o|%k|%h|%S\n"],
        b"",
    );
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines.len() >= 4, "{out}");
    assert!(lines[0].starts_with("0|key-none|codec=x|9"), "{out}");
    // Null values and null keys differ from empty ones.
    run(&["-P", "-t", &topic, "-p", "1", "-K:", "-Z"], b"deleted:\n:no key\n");
    let out = run(&["-C", "-t", &topic, "-p", "1", "-o", "beginning", "-e", "-q", "-J"], b"");
    let records: Vec<serde_json::Value> =
        out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(
        (&records[0]["key"], &records[0]["payload"]),
        (&"deleted".into(), &serde_json::Value::Null),
        "{out}"
    );
    assert_eq!(
        (&records[1]["key"], &records[1]["payload"]),
        (&serde_json::Value::Null, &"no key".into()),
        "{out}"
    );
    // By time, from the end, and the last two.
    let time = records[1]["ts"].to_string();
    let out = run(&["-Q", "-t", &format!("{topic}:1:{time}")], b"");
    assert!(out.contains(&format!("{topic} [1] offset ")), "{out}");
    let out = run(&["-C", "-t", &topic, "-p", "1", "-o", "-1", "-e", "-q"], b"");
    assert_eq!(out, "no key\n");
    let listing = run(&["-L", "-J"], b"");
    let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
    let named = listing["topics"].as_array().unwrap().iter().find(|t| t["topic"] == topic).unwrap();
    assert_eq!(named["partitions"].as_array().unwrap().len(), 2);
}
