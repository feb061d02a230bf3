//! TLS of a local cluster, with real clients: Kafka's tools, kcat, kafkajs and the Python clients.
//! Certificates of clients are made by `openssl`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use weir_e2e::cluster::{Local, free_ports};
use weir_e2e::tools::{bash, class, kafka, kcat};

fn own() -> bool {
    std::env::var_os("WEIR_E2E_BOOTSTRAP").is_none()
}

/// A cluster of one broker with a listener `tls` on this port.
fn yaml(port: u32, tls: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata: {{name: secured}}\nspec:\n  brokers: {{replicas: 1}}\n  listeners:\n  - {{name: plain, port: 9092}}\n  - {{name: tls, port: {port}, tls: {tls}}}\n---\napiVersion: weir.dev/v1alpha1\nkind: Topic\nmetadata: {{name: orders}}\nspec: {{clusterRef: {{name: secured}}, partitions: 1}}\n"
    )
}

struct Secured {
    local: Local,
    bootstrap: String,
    ca: String,
}

impl Secured {
    fn start() -> Self {
        let port = free_ports(std::net::Ipv4Addr::LOCALHOST.into(), 1).unwrap();
        let local = Local::start(Some(&yaml(port, "{}"))).unwrap();
        let bootstrap = format!("127.0.0.1:{port}");
        let expected = format!("bootstrap of tls, with TLS: {bootstrap}");
        assert!(local.printed().contains(&expected), "{}", local.printed());
        let ca = local.data().join("secrets/secured-ca-cert/ca.crt").display().to_string();
        Self { local, bootstrap, ca }
    }
}

/// Runs a program of a language in `e2e/clients` that gets the bootstrap and the file of the CA.
fn script(mut command: Command, arguments: [&str; 2]) -> String {
    let output = command.args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

const KAFKAJS: &str = r#"
const { Kafka, logLevel } = require('kafkajs')
const [bootstrap, ca] = process.argv.slice(1)
const ssl = { ca: [require('fs').readFileSync(ca, 'utf8')] }
const kafka = new Kafka({ brokers: [bootstrap], ssl, logLevel: logLevel.ERROR })
const run = async () => {
  const producer = kafka.producer()
  await producer.connect()
  await producer.send({ topic: 'orders', messages: [{ value: 'by kafkajs' }] })
  await producer.disconnect()
}
run().catch(error => { console.error(error); process.exit(1) })
"#;

const CONFLUENT: &str = r"
import sys
from confluent_kafka import Producer
p = Producer({'bootstrap.servers': sys.argv[1], 'security.protocol': 'ssl', 'ssl.ca.location': sys.argv[2]})
p.produce('orders', b'by librdkafka')
assert p.flush(30) == 0
";

const KAFKA_PYTHON: &str = r"
import sys
from kafka import KafkaProducer
p = KafkaProducer(bootstrap_servers=sys.argv[1], security_protocol='SSL', ssl_cafile=sys.argv[2])
p.send('orders', b'by kafka-python').get(30)
p.close()
";

#[test]
fn clients_write_and_read_over_tls() {
    if !own() {
        return;
    }
    let secured = Secured::start();
    let clients = weir_e2e::clients();
    let arguments = [secured.bootstrap.as_str(), secured.ca.as_str()];
    let properties = secured.local.data().join("client.properties");
    let printed = ["get", "secret", "secured-ca-cert", "-o", "client.properties"];
    std::fs::write(&properties, secured.local.run(&printed).unwrap()).unwrap();
    let properties = properties.display().to_string();
    let server = ["--bootstrap-server", &secured.bootstrap, "--topic", "orders"];
    let produce = [&server[..], &["--command-config", &properties]].concat();
    kafka(class::CONSOLE_PRODUCER, &produce, "by java\n").unwrap().success().unwrap();
    let mut node = Command::new("node");
    node.env("NODE_PATH", clients.join("node/node_modules")).args(["-e", KAFKAJS]);
    script(node, arguments);
    for program in [CONFLUENT, KAFKA_PYTHON] {
        let mut python = Command::new(clients.join("python/bin/python"));
        python.args(["-c", program]);
        script(python, arguments);
    }
    let ssl = ["-X", "security.protocol=ssl", "-X", &format!("ssl.ca.location={}", secured.ca)];
    kcat(&secured.bootstrap, &[&ssl[..], &["-P", "-t", "orders"]].concat(), b"by kcat\n")
        .unwrap()
        .success()
        .unwrap();
    let wanted = ["by java", "by kafkajs", "by librdkafka", "by kafka-python", "by kcat"];
    let read = kcat(&secured.bootstrap, &[&ssl[..], &["-C", "-t", "orders", "-e"]].concat(), b"");
    assert_eq!(read.unwrap().success().unwrap().lines().collect::<Vec<_>>(), wanted);
    let consume = [
        &server[..],
        &["--command-config", &properties, "--from-beginning", "--max-messages", "5"],
    ]
    .concat();
    let read = kafka(class::CONSOLE_CONSUMER, &consume, "").unwrap().success().unwrap();
    assert_eq!(read.lines().collect::<Vec<_>>(), wanted);
    // kcat's file, and both names of the host.
    let conf = secured.local.data().join("librdkafka.conf");
    let printed = ["get", "secret", "secured-ca-cert", "-o", "librdkafka.conf"];
    std::fs::write(&conf, secured.local.run(&printed).unwrap()).unwrap();
    let (_, port) = secured.bootstrap.split_once(':').unwrap();
    let by_name = format!("localhost:{port}");
    let listed = kcat(&by_name, &["-F", &conf.display().to_string(), "-L"], b"").unwrap();
    assert!(listed.success().unwrap().contains("orders"));
    // A client that does not know the CA ends with an error that says so.
    let unknown = kcat(&secured.bootstrap, &["-X", "security.protocol=ssl", "-L", "-m", "5"], b"");
    let unknown = unknown.unwrap();
    assert!(!unknown.ok && unknown.err.contains("SSL"), "{unknown:?}");
}

/// Clients with certificates of a CA of the user's own, in Secrets that are folders here.
#[test]
fn clients_show_certificates() {
    if !own() {
        return;
    }
    let secured = Secured::start();
    let secrets = secured.local.data().join("secrets");
    let folder = tempfile::tempdir().unwrap();
    bash(
        folder.path(),
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=clients' -keyout ca.key -out ca.crt 2>&1
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/O=Shop/CN=billing' -keyout billing.key -out billing.csr 2>&1
         printf 'extendedKeyUsage=clientAuth' > ext
         openssl x509 -req -in billing.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -extfile ext -out billing.crt 2>&1
         cat billing.key billing.crt > billing.pem",
    );
    std::fs::create_dir_all(secrets.join("clients")).unwrap();
    std::fs::copy(folder.path().join("ca.crt"), secrets.join("clients/ca.crt")).unwrap();
    let (_, port) = secured.bootstrap.split_once(':').unwrap();
    let tls = "{clientAuthentication: {caSecret: {name: clients}, principalMappingRules: 'RULE:^CN=(.*),O=Shop$/$1/'}}";
    let applied = secured.local.apply(&yaml(port.parse().unwrap(), tls)).unwrap();
    assert!(applied.contains("from its next start on"), "{applied}");
    secured.local.run(&["stop", "0"]).unwrap();
    secured.local.run(&["start", "0"]).unwrap();
    let ssl = ["-X", "security.protocol=ssl", "-X", &format!("ssl.ca.location={}", secured.ca)];
    let nobody = kcat(&secured.bootstrap, &[&ssl[..], &["-L", "-m", "5"]].concat(), b"").unwrap();
    assert!(!nobody.ok, "{nobody:?}");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let own = [
        "-X",
        &format!("ssl.certificate.location={}", file("billing.crt")),
        "-X",
        &format!("ssl.key.location={}", file("billing.key")),
    ];
    let produce = [&ssl[..], &own, &["-P", "-t", "orders"]].concat();
    kcat(&secured.bootstrap, &produce, b"by billing\n").unwrap().success().unwrap();
    // Java takes key and certificate from one file of PEM.
    let properties = folder.path().join("client.properties");
    let lines = format!(
        "security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location={}\nssl.keystore.type=PEM\nssl.keystore.location={}\n",
        secured.ca,
        file("billing.pem")
    );
    std::fs::write(&properties, lines).unwrap();
    let consume = [
        "--bootstrap-server",
        &secured.bootstrap,
        "--topic",
        "orders",
        "--command-config",
        &properties.display().to_string(),
        "--from-beginning",
        "--max-messages",
        "1",
    ];
    let read = kafka(class::CONSOLE_CONSUMER, &consume, "").unwrap().success().unwrap();
    assert_eq!(read.trim(), "by billing");
}

/// What a user replaces is taken over while clients are connected.
#[test]
fn a_certificate_of_the_user_is_replaced() {
    if !own() {
        return;
    }
    let port = free_ports(std::net::Ipv4Addr::LOCALHOST.into(), 1).unwrap();
    let secured = Secured::start();
    let secret = secured.local.data().join("secrets/mine");
    std::fs::create_dir_all(&secret).unwrap();
    let make = |name: &str| {
        bash(
            &secret,
            &format!(
                "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN={name}' -addext 'subjectAltName=IP:127.0.0.1' -keyout new.key -out new.crt 2>&1
                 mv new.key tls.key; mv new.crt tls.crt"
            ),
        )
    };
    make("first");
    let tls = "{certificateSecret: {name: mine}}";
    secured.local.apply(&yaml(port, tls)).unwrap();
    secured.local.run(&["stop", "0"]).unwrap();
    secured.local.run(&["start", "0"]).unwrap();
    let shown = || {
        bash(
            &secret,
            &format!(
                "openssl s_client -connect 127.0.0.1:{port} </dev/null 2>/dev/null | openssl x509 -noout -subject"
            ),
        )
    };
    assert!(shown().contains("first"), "{}", shown());
    make("second");
    let began = std::time::Instant::now();
    while !shown().contains("second") {
        assert!(began.elapsed().as_secs() < 60, "{}", shown());
    }
}
