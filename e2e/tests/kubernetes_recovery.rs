//! A cluster that lost everything except its volumes is recovered from them
//! (`spec.recoverFrom: Volumes`). `recovery` tests local mode.
//!
//! Needs `e2e/up` and the `KUBECONFIG` that it prints.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::json;
use weir_e2e::driver::{Client, Driver, From, Produce};
use weir_e2e::kubernetes::{Namespace, eventually, kafka_cluster, topic};
use weir_e2e::record::Record;
use weir_e2e::tools::{class, kafka};

#[test]
fn a_cluster_without_its_tables_comes_back_from_its_volumes() {
    let namespace = Namespace::create("recover").unwrap();
    let yaml = kafka_cluster("lost", 3, "").replace("onDelete: Delete", "onDelete: Retain");
    let declared = topic("declared", "lost", 3, 3, "  config: {min.insync.replicas: \"2\"}\n");
    namespace.apply(&yaml).unwrap();
    namespace.apply(&declared).unwrap();
    namespace.ready("kafkacluster/lost");
    namespace.ready("topic/declared");
    let of =
        |name: &str, field: &str| namespace.object(name).unwrap().unwrap()["status"][field].clone();
    let id = of("kafkacluster/lost", "clusterId");
    let bootstrap = namespace.bootstrap("lost");
    let mut driver = Driver::start(Client::Java, &bootstrap).unwrap();
    driver.create_replicated_topic("made", 3, 3, &json!({"min.insync.replicas": "2"})).unwrap();
    namespace.ready("topic/made");
    let ids = ["topic/declared", "topic/made"].map(|topic| of(topic, "topicId"));
    let records: Vec<_> = (0..300).map(|n| Record::new("k", n.to_string()).to(n % 3)).collect();
    for topic in ["declared", "made"] {
        assert_eq!(
            driver.produce(Produce::records(topic, &records).set("acks", "all")).unwrap().len(),
            300
        );
    }
    drop(driver);
    let group = |bootstrap: &str, what: &[&str]| {
        let all = [&["--bootstrap-server", bootstrap, "--group", "g"], what].concat();
        kafka(class::CONSUMER_GROUPS, &all, "").unwrap().success().unwrap()
    };
    let _ = group(
        &bootstrap,
        &["--reset-offsets", "--to-offset", "42", "--topic", "made", "--execute"],
    );

    // Only the volumes are left.
    namespace.kubectl(&["delete", "kafkacluster", "lost", "--timeout=120s"]).unwrap();
    eventually("the pods are gone", || Ok(namespace.pods("lost")?.is_empty().then_some(())));
    for topic in namespace.kubectl(&["get", "topics", "--output=name"]).unwrap().lines() {
        namespace.unprotect(topic).unwrap();
    }
    namespace.unprotect_tables().unwrap();
    namespace.kubectl(&["delete", "partitiontables,topics", "--all", "--timeout=60s"]).unwrap();

    // As a GitOps tool does: it applies the whole repository at once, which lacks one of the
    // topics.
    namespace.apply(&format!("{yaml}  recoverFrom: Volumes\n")).unwrap();
    namespace.apply(&declared).unwrap();
    namespace.ready("kafkacluster/lost");
    for topic in ["topic/declared", "topic/made"] {
        namespace.ready(topic);
    }
    let said = namespace.awaits("kafkacluster/lost", "Recovering", "False");
    assert_eq!(said.reason, "HasTables", "{said:?}");
    assert_eq!(of("kafkacluster/lost", "clusterId"), id);
    assert_eq!(["topic/declared", "topic/made"].map(|topic| of(topic, "topicId")), ids);
    let bootstrap = namespace.bootstrap("lost");
    let mut driver = Driver::start(Client::Java, &bootstrap).unwrap();
    for topic in ["declared", "made"] {
        let more = Produce::records(topic, &[Record::new("k", "300").to(0)]).set("acks", "all");
        assert_eq!(driver.produce(more).unwrap(), [(0, 100)], "behind what was there");
        let read = driver.consume(topic, &[0, 1, 2], From::Beginning, 301).unwrap();
        let mut values: Vec<i32> =
            read.iter().map(|record| record.text().parse().unwrap()).collect();
        values.sort_unstable();
        assert_eq!(
            values,
            (0..=300).collect::<Vec<_>>(),
            "{topic}: every acknowledged record, once"
        );
    }
    drop(driver);
    let described = group(&bootstrap, &["--describe"]);
    let offsets: Vec<_> = described
        .lines()
        .filter_map(|line| line.split_whitespace().skip_while(|word| *word != "made").nth(2))
        .collect();
    assert_eq!(offsets, ["42", "42", "42"], "{described}");
    let config = namespace.object("topic/made").unwrap().unwrap()["spec"]["config"].clone();
    assert_eq!(
        config["min.insync.replicas"],
        json!(2),
        "its settings are those that the brokers knew: {config}"
    );
    namespace.whole("lost");
    let strays = of("kafkacluster/lost", "strays");
    assert!(strays.as_array().is_none_or(Vec::is_empty), "nothing is set aside: {strays}");
}
