//! Certificates of brokers and controller among themselves, in a local cluster. A listener with TLS
//! turns them on.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use weir_e2e::cluster::{Local, free_ports};
use weir_e2e::tools::{bash, kcat};
use weir_e2e::wire::{Connection, FetchOf};

const BROKERS: u32 = 3;

/// The longest wait for anything here.
const WITHIN: Duration = Duration::from_secs(60);

/// CLUSTER_AUTHORIZATION_FAILED.
const NOT_A_BROKER: i16 = 31;

const TRANSACTIONS: &str = r"
import sys
from confluent_kafka import Producer
p = Producer({'bootstrap.servers': sys.argv[1], 'transactional.id': 'chain'})
p.init_transactions(30)
for number in range(20):
    p.begin_transaction()
    for partition in range(3):
        p.produce('orders', b'in %d' % number, partition=partition)
    p.abort_transaction(30) if number % 2 else p.commit_transaction(30)
";

struct Cluster {
    local: Local,
}

/// The resources of a cluster with these listeners besides the plain one.
fn yaml(listeners: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata: {{name: secured}}\nspec:\n  brokers: {{replicas: {BROKERS}}}\n  config: {{min.insync.replicas: 2}}\n  listeners: [{{name: plain, port: 9092}}{listeners}]\n---\napiVersion: weir.dev/v1alpha1\nkind: Topic\nmetadata: {{name: orders}}\nspec: {{clusterRef: {{name: secured}}, partitions: 3, replicas: 3}}\n"
    )
}

fn yaml_with_tls() -> String {
    let port = free_ports(std::net::Ipv4Addr::LOCALHOST.into(), BROKERS).unwrap();
    yaml(&format!(", {{name: tls, port: {port}, tls: {{}}}}"))
}

impl Cluster {
    fn start() -> Self {
        Self { local: Local::start_of(Some(BROKERS), Some(&yaml_with_tls())).unwrap() }
    }

    fn port_of(&self, broker: u32) -> u16 {
        let file = self.local.data().join(format!("nodes/broker-{broker}.port"));
        std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
    }

    /// Whether followers are connected to some broker on its internal listener.
    fn has_peers(&self) -> bool {
        (0..BROKERS).any(|broker| connections_to(self.port_of(broker)) > 0)
    }

    fn first(&self) -> String {
        self.local.bootstrap().split(',').next().unwrap().to_owned()
    }

    fn write(&self, what: &str) {
        let produce = ["-P", "-t", "orders", "-X", "acks=all"];
        kcat(&self.local.bootstrap(), &produce, format!("{what}\n").as_bytes())
            .unwrap()
            .success()
            .unwrap();
    }

    fn read(&self) -> Vec<String> {
        let consume = ["-C", "-t", "orders", "-e", "-X", "isolation.level=read_committed"];
        let read = kcat(&self.local.bootstrap(), &consume, b"").unwrap().success().unwrap();
        let mut lines: Vec<String> = read.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn await_replicas(&self) {
        await_that("all replicas are in sync", || {
            let counts = self.local.status().unwrap().partitions;
            counts.is_some_and(|counts| counts.under_replicated == 0 && counts.offline == 0)
        });
    }
}

fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < WITHIN, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The established connections to a port of this machine.
fn connections_to(port: u16) -> usize {
    let all = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (local, established) = (format!(":{port:04X}"), "01");
    let is_there = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|address| address.ends_with(&local))
            && fields.nth(1) == Some(established)
    };
    all.lines().filter(is_there).count()
}

/// What a client sees that speaks TLS to a port, and waits for an answer. With TLS 1.3 a refusal
/// comes after the client's end of the handshake.
fn speak_tls(folder: &Path, port: u16, arguments: &str) -> String {
    let script = format!(
        "(sleep 1) | timeout 10 openssl s_client -connect 127.0.0.1:{port} {arguments} 2>&1 || true"
    );
    bash(folder, &script)
}

#[test]
fn brokers_replicate_and_end_transactions_by_their_certificates() {
    let cluster = Cluster::start();
    cluster.write("by kcat");
    cluster.await_replicas();
    await_that("followers fetch on the internal listener", || cluster.has_peers());
    let mut python = Command::new(weir_e2e::clients().join("python/bin/python"));
    let output = python.args(["-c", TRANSACTIONS, &cluster.local.bootstrap()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut wanted = vec!["by kcat".to_owned()];
    for number in (0..20).step_by(2) {
        wanted.extend(std::iter::repeat_n(format!("in {number}"), 3));
    }
    wanted.sort();
    assert_eq!(cluster.read(), wanted);
}

#[test]
fn nobody_else_takes_the_part_of_a_broker() {
    let cluster = Cluster::start();
    let mut client = Connection::open(&cluster.first()).unwrap();
    let fetch = FetchOf {
        topic: "orders",
        partition: 0,
        replica_id: 1,
        leader_epoch: -1,
        offset: 0,
        max_bytes: 1024,
    };
    let code = |client: &mut Connection, fetch: FetchOf<'_>| fetch.send(client).unwrap().0;
    assert_eq!(code(&mut client, fetch), NOT_A_BROKER);
    assert_ne!(code(&mut client, FetchOf { replica_id: -1, ..fetch }), NOT_A_BROKER);
    let folder = tempfile::tempdir().unwrap();
    bash(
        folder.path(),
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=other' -addext 'subjectAltName=URI:weir://local/broker/1' -addext basicConstraints=critical,CA:FALSE -keyout other.key -out other.crt 2>&1",
    );
    let port = cluster.port_of(0);
    for (arguments, refusal) in [
        ("", "alert certificate required"),
        ("-cert other.crt -key other.key", "alert unknown ca"),
        ("-tls1_2", "alert protocol version"),
    ] {
        let seen = speak_tls(folder.path(), port, arguments);
        assert!(seen.contains(refusal), "{arguments}: {seen}");
    }
    let mut plain = Connection::open(&format!("127.0.0.1:{port}")).unwrap();
    assert!(fetch.send(&mut plain).is_err(), "a client without TLS is closed");
    cluster.write("still there");
}

#[test]
fn a_broker_comes_back_without_a_controller() {
    let cluster = Cluster::start();
    cluster.write("before");
    cluster.await_replicas();
    cluster.local.run(&["kill", "controller"]).unwrap();
    for broker in ["0", "1", "2"] {
        cluster.local.run(&["stop", broker]).unwrap();
        cluster.local.run(&["start", broker]).unwrap();
        cluster.write(&format!("while {broker} is back"));
    }
    cluster.local.run(&["start", "controller"]).unwrap();
    cluster.await_replicas();
    assert_eq!(cluster.read(), ["before", "while 0 is back", "while 1 is back", "while 2 is back"]);
}

/// The command line renews certificates when a broker starts; here one is exchanged under it.
#[test]
fn a_certificate_is_replaced_while_brokers_are_connected() {
    let cluster = Cluster::start();
    let folder = cluster.local.data().join("nodes");
    let shown = |folder: &Path| {
        let port = cluster.port_of(2);
        let script = format!(
            "(sleep 1) | timeout 10 openssl s_client -connect 127.0.0.1:{port} 2>/dev/null | openssl x509 -noout -subject"
        );
        bash(folder, &script)
    };
    assert!(!shown(&folder).contains("renewed"));
    bash(
        &folder,
        "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=renewed' -keyout new.key -out new.csr 2>&1
         printf 'subjectAltName=URI:weir://local/broker/2\nextendedKeyUsage=serverAuth,clientAuth' > ext
         openssl x509 -req -in new.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -extfile ext -out new.crt 2>&1
         mv new.key broker-2.key; mv new.crt broker-2.crt",
    );
    await_that("the new certificate is shown", || shown(&folder).contains("renewed"));
    cluster.write("by the old connections");
    // Its peers connect anew, and so does it.
    for broker in ["0", "1"] {
        cluster.local.run(&["kill", broker]).unwrap();
        cluster.local.run(&["start", broker]).unwrap();
        cluster.await_replicas();
    }
    cluster.write("by new ones");
    assert_eq!(cluster.read(), ["by new ones", "by the old connections"]);
}

/// As an upgrade from a version without certificates does it, and back.
#[test]
fn brokers_with_and_without_certificates_go_on_together() {
    let cluster = Cluster { local: Local::start_of(Some(BROKERS), Some(&yaml(""))).unwrap() };
    let mut wanted = Vec::new();
    for (listeners, what) in [(yaml_with_tls(), "with"), (yaml(""), "without")] {
        cluster.local.apply(&listeners).unwrap();
        for broker in 0..BROKERS {
            let id = broker.to_string();
            cluster.local.run(&["stop", &id]).unwrap();
            cluster.local.run(&["start", &id]).unwrap();
            cluster.await_replicas();
            wanted.push(format!("{broker} {what}"));
            cluster.write(wanted.last().unwrap());
        }
        await_that("brokers meet where they should", || cluster.has_peers() == (what == "with"));
    }
    wanted.sort();
    assert_eq!(cluster.read(), wanted);
}
