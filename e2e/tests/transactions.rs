//! Transactions with real clients: readers see committed records but no aborted ones, zombies are
//! fenced, and chains of consumers and producers copy exactly once.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::{Value, json};
use weir_e2e::cluster::{Cluster, Local};
use weir_e2e::driver::{Client, Driver, Failure};
use weir_e2e::tools::kafka;
use weir_e2e::wire::await_topic;

/// The clients with transactions that these tests use.
const CLIENTS: [Client; 3] = [Client::Java, Client::Franz, Client::Librdkafka];

/// The values of a topic, sorted: of all records, or of those that `read_committed` shows.
fn values(
    driver: &mut Driver,
    topic: &str,
    partitions: &[i32],
    read_committed: bool,
    count: usize,
) -> Vec<String> {
    let request = json!({
        "op": "consume", "topic": topic, "partitions": partitions, "from": "beginning", "count": count,
        "read_committed": read_committed, "timeout_ms": 15_000,
    });
    let reply = driver.call(&request).unwrap();
    let records: Vec<weir_e2e::record::Record> = serde_json::from_value(reply).unwrap();
    records
        .iter()
        .map(|record| String::from_utf8(record.value.as_ref().unwrap().0.clone()).unwrap())
        .collect()
}

fn begin(driver: &mut Driver, producer: &str, id: &str) -> Result<Value, Failure> {
    driver.call(&json!({"op": "transactional", "producer": producer, "id": id}))
}

fn transact(
    driver: &mut Driver,
    producer: &str,
    topic: &str,
    values: &[String],
    end: &str,
) -> Result<Value, Failure> {
    driver.call(&json!({"op": "transact", "producer": producer, "topic": topic, "values": values, "end": end}))
}

fn named(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|index| format!("{prefix}-{index}")).collect()
}

fn what_is_committed_is_read_and_what_is_aborted_is_not(client: Client) {
    let cluster = Cluster::start().unwrap();
    let mut driver = Driver::start(client, &cluster.bootstrap).unwrap();
    let topic = cluster.topic("t");
    driver.create_topic(&topic, 1, &json!({})).unwrap();
    await_topic(&cluster.bootstrap, &topic, 1).unwrap();
    begin(&mut driver, "p", &topic).unwrap();
    let (mut committed, mut all) = (Vec::new(), Vec::new());
    for round in 0..6 {
        let end = if round % 3 == 1 { "abort" } else { "commit" };
        let values = named(&format!("{end}-{round}"), 3);
        transact(&mut driver, "p", &topic, &values, end).unwrap();
        all.extend(values.clone());
        if end == "commit" {
            committed.extend(values);
        }
    }
    assert_eq!(values(&mut driver, &topic, &[0], true, committed.len()), committed);
    assert_eq!(values(&mut driver, &topic, &[0], false, all.len()), all);

    // A producer with the same id fences the previous one, and its open transaction aborts.
    transact(&mut driver, "p", &topic, &named("open", 2), "leave open").unwrap();
    begin(&mut driver, "q", &topic).unwrap();
    let zombie = json!({"op": "transact", "producer": "p", "topic": topic, "values": ["zombie"], "end": "commit", "open": true});
    assert!(driver.call(&zombie).is_err(), "a zombie is fenced");
    let last = named("last", 2);
    transact(&mut driver, "q", &topic, &last, "commit").unwrap();
    committed.extend(last);
    assert_eq!(values(&mut driver, &topic, &[0], true, committed.len()), committed);
}

fn a_chain_copies_exactly_once(client: Client) {
    let cluster = Cluster::start().unwrap();
    let mut driver = Driver::start(client, &cluster.bootstrap).unwrap();
    let (from, to) = (cluster.topic("from"), cluster.topic("to"));
    for topic in [&from, &to] {
        driver.create_topic(topic, 2, &json!({})).unwrap();
        await_topic(&cluster.bootstrap, topic, 2).unwrap();
    }
    begin(&mut driver, "source", &format!("{from}-source")).unwrap();
    transact(&mut driver, "source", &from, &named("aborted", 5), "abort").unwrap();
    let wanted = named("v", 40);
    for chunk in wanted.chunks(10) {
        transact(&mut driver, "source", &from, chunk, "commit").unwrap();
    }
    let request = json!({"op": "transform", "id": format!("{to}-id"), "group": format!("{to}-group"), "from_topic": from, "to": to, "count": 40});
    assert_eq!(driver.call(&request).unwrap()["copied"], 40);
    assert_eq!(values(&mut driver, &to, &[0, 1], true, 40), wanted);
    // The group's offsets are those of the transactions: nothing is copied twice.
    let again = json!({"op": "transform", "id": format!("{to}-id"), "group": format!("{to}-group"), "from_topic": from, "to": to, "count": 1, "timeout_ms": 4_000});
    if client != Client::Franz {
        assert_eq!(driver.call(&again).unwrap()["copied"], 0);
    }
    assert_eq!(values(&mut driver, &to, &[0, 1], true, 40), wanted);
}

/// A transaction timeout costs a producer only that transaction: it aborts and continues in the
/// next epoch (KIP-890). A librdkafka producer whose batch is refused for it gives up by itself.
#[test]
fn who_took_too_long_goes_on_with_the_java_client() {
    let cluster = Cluster::start().unwrap();
    let mut driver = Driver::start(Client::Java, &cluster.bootstrap).unwrap();
    let topic = cluster.topic("t");
    driver.create_topic(&topic, 1, &json!({})).unwrap();
    await_topic(&cluster.bootstrap, &topic, 1).unwrap();
    let slow = json!({"op": "transactional", "producer": "slow", "id": format!("{topic}-slow"), "transaction_timeout_ms": 1_000});
    driver.call(&slow).unwrap();
    begin(&mut driver, "other", &format!("{topic}-other")).unwrap();
    let mut committed = Vec::new();
    for round in 0..2 {
        transact(&mut driver, "slow", &topic, &named(&format!("slow-{round}"), 2), "leave open")
            .unwrap();
        // Records committed after it become visible once it has timed out.
        let behind = named(&format!("behind-{round}"), 1);
        transact(&mut driver, "other", &topic, &behind, "commit").unwrap();
        committed.extend(behind);
        assert_eq!(values(&mut driver, &topic, &[0], true, committed.len()), committed);
        let request = |values: Value| json!({"op": "transact", "producer": "slow", "topic": topic, "values": values, "end": "abort", "open": true});
        driver.call(&request(json!([]))).unwrap();
        let next = named(&format!("next-{round}"), 2);
        transact(&mut driver, "slow", &topic, &next, "commit").unwrap();
        committed.extend(next);
        assert_eq!(values(&mut driver, &topic, &[0], true, committed.len()), committed);
    }
}

macro_rules! scenarios {
    ($($module:ident, $client:expr;)+) => {$(
        mod $module {
            use super::*;
            #[test] fn what_is_committed_is_read_and_what_is_aborted_is_not() { super::what_is_committed_is_read_and_what_is_aborted_is_not($client); }
            #[test] fn a_chain_copies_exactly_once() { super::a_chain_copies_exactly_once($client); }
        }
    )+};
}

scenarios!(
    java, CLIENTS[0];
    franz_go, CLIENTS[1];
    librdkafka, CLIENTS[2];
);

const TRANSACTIONS: &str = "org.apache.kafka.tools.TransactionsCommand";

fn tool(bootstrap: &str, arguments: &[&str]) -> String {
    let all: Vec<&str> =
        ["--bootstrap-server", bootstrap].into_iter().chain(arguments.iter().copied()).collect();
    kafka(TRANSACTIONS, &all, "").unwrap().success().unwrap()
}

#[test]
fn kafkas_own_tool_describes_lists_and_aborts() {
    let cluster = Cluster::start().unwrap();
    let mut driver = Driver::start(Client::Java, &cluster.bootstrap).unwrap();
    let topic = cluster.topic("t");
    driver.create_topic(&topic, 1, &json!({})).unwrap();
    await_topic(&cluster.bootstrap, &topic, 1).unwrap();
    begin(&mut driver, "p", &topic).unwrap();
    transact(&mut driver, "p", &topic, &named("kept", 1), "commit").unwrap();
    transact(&mut driver, "p", &topic, &named("open", 1), "leave open").unwrap();
    let bootstrap = &cluster.bootstrap;
    let listed = tool(bootstrap, &["list"]);
    assert!(
        listed.lines().any(|line| line.starts_with(&topic) && line.contains("Ongoing")),
        "{listed}"
    );
    let described = tool(bootstrap, &["describe", "--transactional-id", &topic]);
    assert!(
        described.contains("Ongoing") && described.contains(&format!("{topic}-0")),
        "{described}"
    );
    let producers = tool(bootstrap, &["describe-producers", "--topic", &topic, "--partition", "0"]);
    let open = producers.lines().nth(1).unwrap_or_else(|| panic!("{producers}"));
    let start = open.split_whitespace().last().unwrap();
    assert_eq!(start, "2", "{producers}");
    tool(bootstrap, &["abort", "--topic", &topic, "--partition", "0", "--start-offset", start]);
    let producers = tool(bootstrap, &["describe-producers", "--topic", &topic, "--partition", "0"]);
    assert!(producers.lines().nth(1).unwrap().trim_end().ends_with("None"), "{producers}");
    assert_eq!(values(&mut driver, &topic, &[0], true, 1), named("kept", 1));
}

/// Chains of real clients survive crashes of leaders and coordinators.
#[test]
fn a_chain_copies_exactly_once_while_brokers_die() {
    if std::env::var_os("WEIR_E2E_BOOTSTRAP").is_some() {
        return;
    }
    let local = Local::start_of(Some(3), None).unwrap();
    let bootstrap = local.bootstrap();
    let mut source = Driver::start(Client::Java, &bootstrap).unwrap();
    for topic in ["from", "to"] {
        source.create_replicated_topic(topic, 2, 3, &json!({"min.insync.replicas": "2"})).unwrap();
        await_topic(&bootstrap, topic, 2).unwrap();
    }
    begin(&mut source, "source", "the-source").unwrap();
    let wanted = named("v", 300);
    for chunk in wanted.chunks(50) {
        transact(&mut source, "source", "from", chunk, "commit").unwrap();
    }
    let copy = {
        let bootstrap = bootstrap.clone();
        std::thread::spawn(move || {
            let mut driver = Driver::start(Client::Java, &bootstrap).unwrap();
            let request = json!({"op": "transform", "id": "copy", "group": "copies", "from_topic": "from", "to": "to", "count": 300, "timeout_ms": 120_000});
            driver.call(&request)
        })
    };
    for round in 0..6 {
        let id = (round % 3).to_string();
        std::thread::sleep(std::time::Duration::from_millis(700));
        local.run(&["kill", &id]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(700));
        local.run(&["start", &id]).unwrap();
    }
    assert!(copy.join().unwrap().unwrap()["copied"].as_i64().unwrap() >= 300);
    let found = values(&mut source, "to", &[0, 1], true, 300);
    assert_eq!(found, wanted, "each once, in order");
}
