//! Replicas move to other brokers with their records, by Apache Kafka's own tools.
#![allow(clippy::unwrap_used, missing_docs)]

use weir_e2e::cluster::Local;
use weir_e2e::tools::{class, kafka, kcat};
use weir_e2e::wire::await_topic;

fn tool(local: &Local, class: &str, arguments: &[&str]) -> String {
    let bootstrap = local.bootstrap();
    let server = ["--bootstrap-server", &bootstrap];
    let all: Vec<&str> = server.into_iter().chain(arguments.iter().copied()).collect();
    kafka(class, &all, "").unwrap().success().unwrap()
}

/// Repeats a tool until its output satisfies `holds`.
fn eventually(mut run: impl FnMut() -> String, holds: impl Fn(&str) -> bool) -> String {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let out = run();
        if holds(&out) {
            return out;
        }
        assert!(std::time::Instant::now() < deadline, "{out}");
    }
}

fn own_cluster(brokers: u32) -> Option<Local> {
    std::env::var_os("WEIR_E2E_BOOTSTRAP")
        .is_none()
        .then(|| Local::start_of(Some(brokers), None).unwrap())
}

#[test]
fn replicas_and_leaders_move() {
    let Some(local) = own_cluster(4) else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_string_lossy().into_owned()
    };
    tool(
        &local,
        class::TOPICS,
        &["--create", "--topic", "moved", "--replica-assignment", "0:1:2,1:2:0"],
    );
    await_topic(&local.bootstrap(), "moved", 2).unwrap();
    let records: String = (0..500).map(|i| format!("record {i}\n")).collect();
    kcat(
        &local.bootstrap(),
        &["-P", "-t", "moved", "-p", "0", "-X", "acks=all"],
        records.as_bytes(),
    )
    .unwrap()
    .success()
    .unwrap();
    let describe = || tool(&local, class::TOPICS, &["--describe", "--topic", "moved"]);
    let line = |out: &str, partition: u32| {
        let wanted = format!("Partition: {partition}\t");
        out.lines().find(|line| line.contains(&wanted)).unwrap_or_default().to_owned()
    };
    assert!(line(&describe(), 0).contains("Leader: 0\tReplicas: 0,1,2\tIsr: "));

    // Three replicas move to other brokers, the leader's too.
    let plan = r#"{"version": 1, "partitions": [{"topic": "moved", "partition": 0, "replicas": [3, 2, 1]}]}"#;
    let plan = file("plan.json", plan);
    tool(&local, class::REASSIGN, &["--execute", "--reassignment-json-file", &plan]);
    eventually(
        || tool(&local, class::REASSIGN, &["--verify", "--reassignment-json-file", &plan]),
        |out| out.contains("Reassignment of partition moved-0 is completed."),
    );
    let out = eventually(describe, |out| line(out, 0).contains("Replicas: 3,2,1"));
    assert!(!line(&out, 0).contains("Leader: 0"), "{out}");

    // The preferred leader is the first replica.
    let election = r#"{"partitions": [{"topic": "moved", "partition": 0}]}"#;
    let election = file("election.json", election);
    tool(
        &local,
        class::LEADER_ELECTION,
        &["--election-type", "preferred", "--path-to-json-file", &election],
    );
    eventually(describe, |out| line(out, 0).contains("Leader: 3"));
    let read = kcat(&local.bootstrap(), &["-C", "-t", "moved", "-p", "0", "-e", "-q"], b"")
        .unwrap()
        .success()
        .unwrap();
    assert_eq!(read, records);
    assert!(
        tool(&local, class::REASSIGN, &["--list"]).contains("No partition reassignments found.")
    );
}

#[test]
fn a_reassignment_is_as_slow_as_its_throttle() {
    let Some(local) = own_cluster(2) else { return };
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.json");
    std::fs::write(
        &plan,
        r#"{"version": 1, "partitions": [{"topic": "slow", "partition": 0, "replicas": [1]}]}"#,
    )
    .unwrap();
    let plan = plan.to_str().unwrap();
    tool(&local, class::TOPICS, &["--create", "--topic", "slow", "--replica-assignment", "0"]);
    await_topic(&local.bootstrap(), "slow", 1).unwrap();
    // Several fetches' worth of records. The first fetch uses up the quota: at one kilobyte a
    // second the rest would take an hour.
    let records: String = (0..70).map(|i| format!("{i:060000}\n")).collect();
    let produce = ["-P", "-t", "slow", "-p", "0", "-X", "acks=all", "-X", "batch.size=100000"];
    kcat(&local.bootstrap(), &produce, records.as_bytes()).unwrap().success().unwrap();

    let reassign = |arguments: &[&str]| {
        tool(&local, class::REASSIGN, &[arguments, &["--reassignment-json-file", plan]].concat())
    };
    reassign(&["--execute", "--throttle", "1000"]);
    let throttles = || {
        let brokers = tool(&local, class::CONFIGS, &["--describe", "--entity-type", "brokers"]);
        let topic = tool(
            &local,
            class::CONFIGS,
            &["--describe", "--entity-type", "topics", "--entity-name", "slow"],
        );
        format!("{brokers}{topic}")
    };
    let set = throttles();
    for setting in [
        "leader.replication.throttled.rate=1000",
        "follower.replication.throttled.rate=1000",
        "leader.replication.throttled.replicas=0:0",
        "follower.replication.throttled.replicas=0:1",
    ] {
        assert!(set.contains(setting), "{setting} in {set}");
    }
    assert!(
        reassign(&["--verify"]).contains("Reassignment of partition slow-0 is still in progress.")
    );

    reassign(&["--execute", "--additional", "--throttle", "100000000"]);
    eventually(
        || reassign(&["--verify"]),
        |out| out.contains("Reassignment of partition slow-0 is completed."),
    );
    let left = throttles();
    assert!(!left.contains("throttled"), "the tool takes them away again: {left}");
    let read = kcat(&local.bootstrap(), &["-C", "-t", "slow", "-p", "0", "-e", "-q"], b"")
        .unwrap()
        .success()
        .unwrap();
    assert_eq!(read, records);
}
