//! Clients that a listener with TLS refuses, and those that it must not wait for.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::support::{
    BrokerProcess, Ca, Client, Cluster, FakeController, Issued, Launch, Valid, batch, soon, topic,
};
use super::tls::{Secured, arguments, refusal};

#[tokio::test]
async fn a_certificate_that_is_not_good_is_refused_with_an_alert() {
    let clients = Ca::new("clients");
    let secured = Secured::start(&["--tls-client-auth", "SECURE=required"], Some(&clients)).await;
    let server = clients.server("server", &["localhost"], Valid::NOW);
    let cases = [
        (None, "no_certificate", "CertificateRequired"),
        (Some(clients.client("x", Valid::EXPIRED)), "bad_certificate", "CertificateExpired"),
        (Some(clients.client("x", Valid::LATER)), "bad_certificate", "BadCertificate"),
        (Some(Ca::new("clients").client("x", Valid::NOW)), "bad_certificate", "DecryptError"),
        (Some(Ca::new("others").client("x", Valid::NOW)), "bad_certificate", "UnknownCA"),
        (Some(Issued::self_signed("x")), "bad_certificate", "UnknownCA"),
        (Some(server), "bad_certificate", "UnsupportedCertificate"),
    ];
    for (own, _, alert) in &cases {
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let connector = secured.ca.trusted_in(own.as_ref(), &[version]);
            let told = refusal(&secured, &connector).await;
            assert!(told.contains("AlertReceived"), "{alert} {version:?}: {told}");
        }
    }
    for (reason, count) in [("no_certificate", 2.0), ("bad_certificate", 12.0)] {
        let series = format!(
            "weir_broker_tls_handshake_failures_total{{listener=\"SECURE\",reason=\"{reason}\"}}"
        );
        secured.until(&series, count).await;
    }
    let lines = |log: &str| log.matches("refused a connection in its handshake").count();
    soon("a line of each kind", async {
        while lines(&secured.cluster.broker.log()) < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let log = secured.cluster.broker.log();
    assert!(log.contains("this listener requires one"), "{log}");
    // One line of each kind, however many clients there are.
    assert_eq!(lines(&log), 2, "{log}");
    let own = clients.client("good", Valid::NOW);
    let mut good = secured.client(&secured.ca.trusted(Some(&own))).await;
    assert_eq!(good.produce("t", 0, -1, batch(&["a"])).await.error_code, 0);
}

#[tokio::test]
async fn a_subject_without_a_rule_is_refused() {
    let clients = Ca::new("clients");
    let rules = "SECURE=RULE:^CN=admin,.*$/admin/";
    let flags = ["--tls-client-auth", "SECURE=required", "--tls-principal-rules", rules];
    let secured = Secured::start(&flags, Some(&clients)).await;
    let own = clients.client("billing", Valid::NOW);
    refusal(&secured, &secured.ca.trusted(Some(&own))).await;
    let failures =
        "weir_broker_tls_handshake_failures_total{listener=\"SECURE\",reason=\"no_principal\"}";
    secured.until(failures, 1.0).await;
    soon("the line", async {
        while !secured.cluster.broker.log().contains("No rules apply to CN=billing,O=Test") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_does_not_speak_the_listeners_protocol_is_closed_and_told_of() {
    let secured = Secured::start(&[], None).await;
    let address = secured.cluster.broker.listener("SECURE").await;
    // A request without TLS gets no byte back: a client would take it for a length.
    let mut plain = Client::connect(address).await;
    plain.send_produce("t", 0, -1, batch(&["a"])).await;
    plain.closed().await;
    let connector = secured.ca.trusted(None);
    let kafka = secured.cluster.broker.kafka();
    assert!(soon("the end", Client::connect_tls(kafka, &connector, "localhost")).await.is_err());
    soon("both lines", async {
        let says = |part: &str| secured.cluster.broker.log().contains(part);
        while !says("the client does not speak TLS") || !says("the client speaks TLS") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let failures =
        "weir_broker_tls_handshake_failures_total{listener=\"SECURE\",reason=\"plaintext\"}";
    secured.until(failures, 1.0).await;
}

async fn connect_from(host: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(host.parse().unwrap(), 0)).unwrap();
    soon("a connection", socket.connect(to)).await.unwrap()
}

/// Clients that begin a handshake and do not go on take the places of their own address, and each
/// only for a time.
#[tokio::test]
async fn slow_handshakes_do_not_hold_others_up() {
    let secured = Secured::start(&[], None).await;
    let address = secured.cluster.broker.listener("SECURE").await;
    let mut slow = Vec::new();
    for _ in 0..300 {
        let mut stream = connect_from("127.0.0.2", address).await;
        stream.write_all(&[22, 3, 1]).await.unwrap();
        slow.push(stream);
    }
    let connector = secured.ca.trusted(None);
    let mut client = secured.client(&connector).await;
    assert_eq!(client.produce("t", 0, -1, batch(&["a"])).await.error_code, 0);
    let series = "weir_broker_tls_handshake_failures_total{listener=\"SECURE\",reason=\"slow\"}";
    assert!(secured.metric(series).await < 300.0, "they were still there");
    // From their own address one gets through, too: who waits makes the slow ones leave.
    let own = connect_from("127.0.0.2", address).await;
    let mut own = soon("a place", Client::over_tls(own, &connector, "localhost")).await.unwrap();
    assert_eq!(own.produce("t", 0, -1, batch(&["b"])).await.error_code, 0);
    for mut stream in slow {
        let mut rest = Vec::new();
        let _ = soon("the end", stream.read_to_end(&mut rest)).await;
    }
    secured.until(series, 300.0).await;
}

#[tokio::test]
async fn silent_clients_take_no_place() {
    let secured = Secured::start(&[], None).await;
    let address = secured.cluster.broker.listener("SECURE").await;
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.push(connect_from("127.0.0.1", address).await);
    }
    let mut client = secured.client(&secured.ca.trusted(None)).await;
    assert_eq!(client.produce("t", 0, -1, batch(&["a"])).await.error_code, 0);
    let series = "weir_broker_tls_handshake_failures_total{listener=\"SECURE\",reason=\"slow\"}";
    assert_eq!(secured.metric(series).await, 0.0);
}

/// A client that takes its leave within the handshake is no fault, whatever it sends behind that.
#[tokio::test]
async fn bytes_behind_a_farewell_end_the_handshake() {
    let secured = Secured::start(&[], None).await;
    let address = secured.cluster.broker.listener("SECURE").await;
    let mut gone = Vec::new();
    // More than the broker has threads.
    for _ in 0..64 {
        let mut stream = connect_from("127.0.0.2", address).await;
        stream.write_all(&secured.ca.client_hello()).await.unwrap();
        stream.write_all(CLOSE_NOTIFY_AND_MORE).await.unwrap();
        gone.push(stream);
    }
    for mut stream in gone {
        let mut rest = Vec::new();
        let _ = soon("the end", stream.read_to_end(&mut rest)).await;
    }
    let mut client = secured.client(&secured.ca.trusted(None)).await;
    assert_eq!(client.produce("t", 0, -1, batch(&["a"])).await.error_code, 0);
    secured
        .until(
            "weir_broker_tls_handshake_failures_total{listener=\"SECURE\",reason=\"closed\"}",
            64.0,
        )
        .await;
}

/// An alert in plain text that says that nothing follows, and yet a byte.
const CLOSE_NOTIFY_AND_MORE: &[u8] = &[21, 3, 3, 0, 2, 1, 0, 21];

/// Bytes that break the protocol after the handshake end the connection, and no other one.
#[tokio::test]
async fn garbage_behind_the_handshake_ends_the_connection() {
    let secured = Secured::start(&[], None).await;
    let connector = secured.ca.trusted(None);
    let mut other = secured.client(&connector).await;
    let mut client = secured.client(&connector).await;
    client.write_below_tls(b"\x17\x03\x03\x00\x20 no record that anybody has sealed");
    client.broken().await;
    assert_eq!(other.produce("t", 0, -1, batch(&["a"])).await.error_code, 0);
}

#[tokio::test]
async fn files_that_cannot_work_keep_a_broker_from_starting() {
    let (ca, folder) = (Ca::new("servers"), tempfile::tempdir().unwrap());
    let own = ca.server("broker", &["localhost"], Valid::NOW);
    let controller = FakeController::start(Vec::new());
    let refused = async |flags: &[&str]| {
        let data = tempfile::tempdir().unwrap();
        let launch = Launch::new(data.path(), controller.address());
        let arguments = arguments(folder.path(), flags);
        let mut broker = BrokerProcess::spawn(&Launch { arguments, ..launch });
        assert!(!broker.ended().await.success());
        broker.log()
    };
    assert!(refused(&[]).await.contains("tls.crt"));
    own.write(folder.path());
    let required = ["--tls-client-auth", "SECURE=required"];
    assert!(refused(&required).await.contains("clients.crt"));
    std::fs::write(folder.path().join("clients.crt"), "nothing").unwrap();
    assert!(refused(&required).await.contains("clients.crt: there is no certificate"));
    std::fs::write(folder.path().join("tls.key"), "nothing").unwrap();
    assert!(refused(&[]).await.contains("tls.key: no private key"));
    let other = ca.server("other", &["localhost"], Valid::NOW);
    std::fs::write(folder.path().join("tls.key"), other.key.serialize_pem()).unwrap();
    assert!(refused(&[]).await.contains("KeyMismatch"));
    own.write(folder.path());
    let first = ["--tls", &format!("PLAINTEXT={}", folder.path().display())];
    assert!(refused(&first).await.contains("the first listener"));
}

#[tokio::test]
async fn a_broker_that_stops_lets_handshakes_go() {
    let mut secured = Secured::start(&[], None).await;
    let address = secured.cluster.broker.listener("SECURE").await;
    let mut begun = connect_from("127.0.0.1", address).await;
    begun.write_all(&[22, 3, 1]).await.unwrap();
    assert!(secured.cluster.broker.stop().await.success());
    drop(begun);
    let _ = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
}
