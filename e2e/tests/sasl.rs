//! SASL of a local cluster, with real clients: users by `kafka-configs`, and logins by Kafka's
//! tools, kcat, kafkajs and the Python clients, with TLS and without.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use weir_e2e::cluster::{Local, free_ports};
use weir_e2e::tools::{class, kafka, kcat};

fn own() -> bool {
    std::env::var_os("WEIR_E2E_BOOTSTRAP").is_none()
}

/// A cluster of one broker with a listener `names` for names and passwords, and one that has TLS
/// too.
struct Cluster {
    local: Local,
    folder: tempfile::TempDir,
    plain: String,
    names: String,
    both: String,
}

/// The mechanisms that a listener without TLS and one with TLS have.
const SCRAM: [&str; 2] = ["SCRAM-SHA-256", "SCRAM-SHA-512"];
const ALL: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

impl Cluster {
    fn start() -> Self {
        let host = std::net::Ipv4Addr::LOCALHOST.into();
        let names = free_ports(host, 2).unwrap();
        let both = names + 1;
        let yaml = format!(
            "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata: {{name: guarded}}\nspec:\n  brokers: {{replicas: 1}}\n  listeners:\n  - {{name: plain, port: 9092}}\n  - {{name: names, port: {names}, sasl: {{}}}}\n  - {{name: both, port: {both}, tls: {{}}, sasl: {{mechanisms: [PLAIN, SCRAM-SHA-256, SCRAM-SHA-512]}}}}\n---\napiVersion: weir.dev/v1alpha1\nkind: Topic\nmetadata: {{name: orders}}\nspec: {{clusterRef: {{name: guarded}}, partitions: 1}}\n"
        );
        let local = Local::start(Some(&yaml)).unwrap();
        let printed = local.printed();
        for (listener, has, port) in [("names", "SASL", names), ("both", "TLS and SASL", both)] {
            let line = format!("bootstrap of {listener}, with {has}: 127.0.0.1:{port}");
            assert!(printed.contains(&line), "{printed}");
        }
        let plain = local.bootstrap();
        let [names, both] = [names, both].map(|port| format!("127.0.0.1:{port}"));
        Self { local, folder: tempfile::tempdir().unwrap(), plain, names, both }
    }

    /// Alters a user over the listener without logins.
    fn alter(&self, user: &str, how: &[&str]) -> String {
        let entity = ["--alter", "--entity-type", "users", "--entity-name", user];
        self.configs(&[&entity, how].concat())
    }

    fn configs(&self, arguments: &[&str]) -> String {
        let server = ["--bootstrap-server", &self.plain];
        kafka(class::CONFIGS, &[&server, arguments].concat(), "").unwrap().success().unwrap()
    }

    fn set(&self, user: &str, mechanism: &str, password: &str) {
        let config = format!("{mechanism}=[iterations=4096,password={password}]");
        self.alter(user, &["--add-config", &config]);
    }

    fn ca(&self) -> PathBuf {
        self.local.data().join("secrets/guarded-ca-cert/ca.crt")
    }

    /// A file of the Java client.
    fn properties(&self, login: &Login<'_>) -> String {
        let module = match login.mechanism {
            "PLAIN" => "org.apache.kafka.common.security.plain.PlainLoginModule",
            _ => "org.apache.kafka.common.security.scram.ScramLoginModule",
        };
        let protocol = if login.has_tls { "SASL_SSL" } else { "SASL_PLAINTEXT" };
        let ca = self.ca().display().to_string();
        let Login { mechanism, user, password, .. } = login;
        let lines = format!(
            "security.protocol={protocol}\nsasl.mechanism={mechanism}\nsasl.jaas.config={module} required username=\"{user}\" password=\"{password}\";\nssl.truststore.type=PEM\nssl.truststore.location={ca}\n"
        );
        let path = self.folder.path().join(format!("{user}-{mechanism}-{protocol}.properties"));
        std::fs::write(&path, lines).unwrap();
        path.display().to_string()
    }

    fn bootstrap(&self, login: &Login<'_>) -> &str {
        if login.has_tls { &self.both } else { &self.names }
    }

    /// Runs kcat as this user; returns what it printed, or its error.
    fn kcat(&self, login: &Login<'_>, arguments: &[&str], input: &[u8]) -> Result<String, String> {
        let protocol = if login.has_tls { "sasl_ssl" } else { "sasl_plaintext" };
        let settings = [
            format!("security.protocol={protocol}"),
            format!("sasl.mechanisms={}", login.mechanism),
            format!("sasl.username={}", login.user),
            format!("sasl.password={}", login.password),
            format!("ssl.ca.location={}", self.ca().display()),
        ];
        let settings: Vec<&str> = settings.iter().flat_map(|one| ["-X", one.as_str()]).collect();
        let all = [&settings, arguments].concat();
        let printed = kcat(self.bootstrap(login), &all, input).unwrap();
        if printed.ok { Ok(printed.out) } else { Err(printed.err) }
    }

    fn lists(&self, login: &Login<'_>) -> Result<String, String> {
        self.kcat(login, &["-L", "-m", "5"], b"")
    }
}

#[derive(Clone, Copy)]
struct Login<'a> {
    mechanism: &'a str,
    has_tls: bool,
    user: &'a str,
    password: &'a str,
}

/// Runs a program of a language in `e2e/clients` that gets these arguments.
fn script(mut command: Command, arguments: &[&str]) {
    let output = command.args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

const KAFKAJS: &str = r"
const { Kafka, logLevel } = require('kafkajs')
const [bootstrap, name, username, password, ca] = process.argv.slice(1)
const ssl = ca ? { ca: [require('fs').readFileSync(ca, 'utf8')] } : false
const sasl = { mechanism: name.toLowerCase(), username, password }
const kafka = new Kafka({ brokers: [bootstrap], ssl, sasl, logLevel: logLevel.ERROR })
const run = async () => {
  const producer = kafka.producer()
  await producer.connect()
  await producer.send({ topic: 'orders', messages: [{ value: 'by kafkajs' }] })
  await producer.disconnect()
}
run().catch(error => { console.error(error); process.exit(1) })
";

const KAFKA_PYTHON: &str = r"
import sys
from kafka import KafkaProducer
bootstrap, mechanism, user, password, *ca = sys.argv[1:]
protocol = 'SASL_SSL' if ca else 'SASL_PLAINTEXT'
p = KafkaProducer(bootstrap_servers=bootstrap, security_protocol=protocol, ssl_cafile=ca[0] if ca else None,
                  sasl_mechanism=mechanism, sasl_plain_username=user, sasl_plain_password=password)
p.send('orders', b'by kafka-python').get(30)
p.close()
";

fn clients_write(cluster: &Cluster, login: &Login<'_>) {
    let clients = weir_e2e::clients();
    let Login { mechanism, user, password, has_tls } = *login;
    let bootstrap = cluster.bootstrap(login);
    let properties = cluster.properties(login);
    let produce = ["--bootstrap-server", bootstrap, "--topic", "orders", "--command-config"];
    let produce = [&produce[..], &[&properties]].concat();
    kafka(class::CONSOLE_PRODUCER, &produce, "by java\n").unwrap().success().unwrap();
    cluster.kcat(login, &["-P", "-t", "orders"], b"by kcat\n").unwrap();
    let ca = cluster.ca().display().to_string();
    let arguments = [bootstrap, mechanism, user, password, &ca];
    let arguments = if has_tls { &arguments[..] } else { &arguments[..4] };
    let mut node = Command::new("node");
    node.env("NODE_PATH", clients.join("node/node_modules")).args(["-e", KAFKAJS]);
    script(node, arguments);
    let mut python = Command::new(Path::new(&clients).join("python/bin/python"));
    python.args(["-c", KAFKA_PYTHON]);
    script(python, arguments);
}

#[test]
fn clients_log_in_by_each_mechanism() {
    if !own() {
        return;
    }
    let cluster = Cluster::start();
    for mechanism in SCRAM {
        cluster.set("alice", mechanism, "pen,cil=");
    }
    let described = cluster.configs(&["--describe", "--entity-type", "users"]);
    let expected = "SCRAM credential configs for user-principal 'alice' are SCRAM-SHA-256=iterations=4096, SCRAM-SHA-512=iterations=4096";
    assert!(described.contains(expected), "{described}");
    let login =
        |mechanism, has_tls| Login { mechanism, has_tls, user: "alice", password: "pen,cil=" };
    let logins = SCRAM.map(|mechanism| login(mechanism, false));
    let over_tls = ALL.map(|mechanism| login(mechanism, true));
    for login in logins.iter().chain(&over_tls) {
        clients_write(&cluster, login);
    }
    let read = cluster.kcat(&over_tls[0], &["-C", "-t", "orders", "-e"], b"").unwrap();
    assert_eq!(read.lines().count(), 4 * 5, "{read}");
    // PLAIN is not on the listener without TLS, and kcat says which there are.
    let plain = cluster.lists(&login("PLAIN", false)).unwrap_err();
    assert!(plain.contains("SCRAM-SHA-256"), "{plain}");
    for (user, password) in [("alice", "pencil"), ("nobody", "pen,cil=")] {
        for mechanism in ALL {
            let wrong = Login { mechanism, has_tls: true, user, password };
            let said = cluster.lists(&wrong).unwrap_err();
            assert!(said.contains("uthentication"), "{user} by {mechanism}: {said}");
        }
    }
    // Java ends at once, and says so.
    let wrong = Login { password: "pencil", ..login("SCRAM-SHA-512", false) };
    let list = ["--bootstrap-server", &cluster.names, "--list", "--command-config"];
    let properties = cluster.properties(&wrong);
    let list = [&list[..], &[&properties]].concat();
    let said = kafka(class::TOPICS, &list, "").unwrap();
    assert!(!said.ok && said.err.contains("SaslAuthenticationException"), "{said:?}");
    // A client that does not log in gets nowhere.
    assert!(!kcat(&cluster.names, &["-L", "-m", "5"], b"").unwrap().ok);
}

/// Users survive a restart of everything, and one who is deleted, or has another password, loses
/// the connection within a second or so.
#[test]
fn a_login_is_good_as_long_as_the_password_is() {
    if !own() {
        return;
    }
    let cluster = Cluster::start();
    cluster.set("bob", "SCRAM-SHA-512", "first");
    let login =
        |password| Login { mechanism: "SCRAM-SHA-512", has_tls: false, user: "bob", password };
    cluster.lists(&login("first")).unwrap();
    cluster.local.run(&["stop", "0"]).unwrap();
    cluster.local.run(&["start", "0"]).unwrap();
    cluster.lists(&login("first")).unwrap();

    // A consumer waits at the end of the topic.
    let consume = |password| {
        let log = cluster.folder.path().join("consumer.log");
        let mut command = Command::new("kcat");
        command.args(["-b", &cluster.names, "-C", "-t", "orders", "-o", "end"]);
        for setting in [
            "security.protocol=sasl_plaintext",
            "sasl.mechanisms=SCRAM-SHA-512",
            "sasl.username=bob",
            &format!("sasl.password={password}"),
        ] {
            command.args(["-X", setting]);
        }
        command.stderr(std::fs::File::create(&log).unwrap()).stdout(std::process::Stdio::null());
        (command.spawn().unwrap(), log)
    };
    let says = |log: &Path, what: &str| {
        let from = Instant::now();
        loop {
            let said = std::fs::read_to_string(log).unwrap();
            if said.contains(what) {
                return;
            }
            assert!(from.elapsed() < Duration::from_secs(30), "not {what}: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let (mut client, log) = consume("first");
    says(&log, "Reached end of topic");
    cluster.set("bob", "SCRAM-SHA-512", "second");
    says(&log, "Disconnected");
    client.kill().unwrap();
    client.wait().unwrap();
    cluster.lists(&login("first")).unwrap_err();
    cluster.lists(&login("second")).unwrap();
    let (mut client, log) = consume("second");
    says(&log, "Reached end of topic");
    cluster.alter("bob", &["--delete-config", "SCRAM-SHA-512"]);
    says(&log, "Disconnected");
    client.kill().unwrap();
    client.wait().unwrap();
    cluster.lists(&login("second")).unwrap_err();
}
