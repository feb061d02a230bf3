//! Apache Kafka's tools on a cluster of several brokers: reassignments, elections, the quorum,
//! features.
#![allow(clippy::unwrap_used, missing_docs)]

use weir_e2e::cluster::Local;
use weir_e2e::tools::{Printed, class, kafka};

/// A cluster of three brokers with one topic of one partition on all of them, led by broker 0.
fn three_brokers() -> Option<Local> {
    // These tests need `weir local` itself.
    if std::env::var_os("WEIR_E2E_BOOTSTRAP").is_some() {
        return None;
    }
    let local = Local::start_of(Some(3), None).unwrap();
    tool(
        &local,
        class::TOPICS,
        &["--create", "--topic", "orders", "--replica-assignment", "0:1:2"],
    );
    Some(local)
}

fn run(local: &Local, class: &str, arguments: &[&str]) -> Printed {
    let bootstrap = local.bootstrap();
    let server = ["--bootstrap-server", &bootstrap];
    kafka(class, &[&server, arguments].concat(), "").unwrap()
}

fn tool(local: &Local, class: &str, arguments: &[&str]) -> String {
    run(local, class, arguments).success().unwrap()
}

/// Runs `kafka-reassign-partitions` with a plan for the topic's partition.
fn reassign(local: &Local, replicas: &str, arguments: &[&str]) -> String {
    let plan = local.data().with_file_name("plan.json");
    let text = format!(
        r#"{{"version":1,"partitions":[{{"topic":"orders","partition":0,"replicas":[{replicas}]}}]}}"#
    );
    std::fs::write(&plan, text).unwrap();
    let file = ["--reassignment-json-file", plan.to_str().unwrap()];
    tool(local, class::REASSIGN, &[&file, arguments].concat())
}

#[test]
fn partitions_are_reassigned_and_leaders_elected() {
    let Some(local) = three_brokers() else { return };
    let describe = || tool(&local, class::TOPICS, &["--describe", "--topic", "orders"]);
    let election = ["--election-type", "preferred", "--topic", "orders", "--partition", "0"];
    assert!(
        tool(&local, class::LEADER_ELECTION, &election).contains("Valid replica already elected"),
        "broker 0 leads already"
    );
    // Another order of the replicas takes effect at once and moves no data.
    reassign(&local, "1,0,2", &["--execute"]);
    let out = reassign(&local, "1,0,2", &["--verify"]);
    assert!(out.contains("Reassignment of partition orders-0 is completed."), "{out}");
    let out = describe();
    assert!(out.contains("Leader: 0\tReplicas: 1,0,2"), "{out}");
    let out = tool(&local, class::LEADER_ELECTION, &election);
    assert!(
        out.contains("Successfully completed leader election (PREFERRED) for partitions orders-0"),
        "{out}"
    );
    assert!(describe().contains("Leader: 1\tReplicas: 1,0,2"));
    // One replica goes; the leader stays.
    reassign(&local, "0,2", &["--execute"]);
    let out = describe();
    assert!(
        out.contains("ReplicationFactor: 2") && out.contains("Leader: 0\tReplicas: 0,2"),
        "{out}"
    );
    let topic = local.run(&["get", "topic", "orders", "-o", "json"]).unwrap();
    let topic: serde_json::Value = serde_json::from_str(&topic).unwrap();
    assert_eq!(topic["spec"]["replicas"], 2, "the resource says so");
    assert!(
        tool(&local, class::REASSIGN, &["--list"]).contains("No partition reassignments found.")
    );
}

#[test]
fn the_quorum_is_the_controller() {
    let Some(local) = three_brokers() else { return };
    let out = tool(&local, class::QUORUM, &["describe", "--status"]);
    let field = |name: &str| {
        out.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
            .unwrap_or_default()
            .to_owned()
    };
    let leader = field("LeaderId:");
    assert!(field("CurrentVoters:").contains(&format!("\"id\": {leader}")), "{out}");
    assert_eq!(field("CurrentObservers:"), r#"[{"id": 0}, {"id": 1}, {"id": 2}]"#, "{out}");
    let out = tool(&local, class::QUORUM, &["describe", "--replication"]);
    assert!(out.lines().any(|line| line.starts_with(&leader) && line.contains("Leader")), "{out}");
    // Every broker has almost the newest metadata; it may lack one or two changes for a moment.
    let lags = out.lines().filter(|line| line.contains("Observer")).map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns[3].parse::<i64>().unwrap()
    });
    let lags: Vec<i64> = lags.collect();
    assert!(lags.len() == 3 && lags.iter().all(|lag| (0..100).contains(lag)), "{out}");
}

#[test]
fn features_are_told_and_only_what_is_served_is_taken_up() {
    let Some(local) = three_brokers() else { return };
    let out = tool(&local, class::FEATURES, &["describe"]);
    let line = |name: &str| {
        out.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{out}"))
    };
    assert!(line("metadata.version").contains("FinalizedVersionLevel: 4.3-IV0"), "{out}");
    assert!(line("eligible.leader.replicas.version").contains("FinalizedVersionLevel: 1"), "{out}");
    let refused = run(&local, class::FEATURES, &["upgrade", "--feature", "metadata.version=31"]);
    assert!(
        !refused.ok && format!("{refused:?}").contains("Invalid update version 31"),
        "{refused:?}"
    );
}

#[test]
fn a_broker_is_unregistered() {
    let Some(local) = three_brokers() else { return };
    let bootstrap = local.bootstrap();
    let unregister = |id: &str| {
        kafka(class::CLUSTER, &["unregister", "--bootstrap-server", &bootstrap, "--id", id], "")
            .unwrap()
    };
    let refused = unregister("7");
    assert!(
        !refused.ok && format!("{refused:?}").contains("not currently registered"),
        "{refused:?}"
    );
    local.run(&["stop", "2"]).unwrap();
    let out = unregister("2").success().unwrap();
    assert!(out.contains("Broker 2 is no longer registered."), "{out}");
    let described = tool(&local, class::TOPICS, &["--describe", "--topic", "orders"]);
    assert!(!described.contains("Isr: 0,1,2"), "{described}");
}
