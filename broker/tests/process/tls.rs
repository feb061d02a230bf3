//! TLS on a listener: what clients that speak it get, who they are, and certificates that change.

use std::path::{Path, PathBuf};

use rustls::version::{TLS12, TLS13};
use tokio_rustls::TlsConnector;

use super::support::{Ca, Client, Cluster, Issued, Launch, Valid, batch, fetch_from, soon, topic};

/// A broker with a plain listener, and one with TLS, whose files are in a folder.
pub(crate) struct Secured {
    pub(crate) cluster: Cluster,
    pub(crate) ca: Ca,
    folder: tempfile::TempDir,
}

impl Secured {
    /// With these flags besides `--tls`.
    pub(crate) async fn start(flags: &[&str], clients: Option<&Ca>) -> Self {
        let (ca, folder) = (Ca::new("servers"), tempfile::tempdir().unwrap());
        let own = ca.server("broker", &["localhost", "127.0.0.1"], Valid::NOW);
        own.write(folder.path());
        if let Some(clients) = clients {
            std::fs::write(folder.path().join("clients.crt"), clients.pem()).unwrap();
        }
        let change =
            |launch: Launch| Launch { arguments: arguments(folder.path(), flags), ..launch };
        let cluster = Cluster::start_with(vec![topic(1, "t", 1, &[])], change).await;
        Self { cluster, ca, folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A client over TLS, or how its handshake failed.
    pub(crate) async fn try_client(&self, connector: &TlsConnector) -> std::io::Result<Client> {
        let address = self.cluster.broker.listener("SECURE").await;
        soon("a handshake", Client::connect_tls(address, connector, "localhost")).await
    }

    pub(crate) async fn client(&self, connector: &TlsConnector) -> Client {
        self.try_client(connector).await.unwrap()
    }

    /// The value of a metric by the beginning of its line.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let (_, page) = self.cluster.broker.page("/metrics").await;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    pub(crate) async fn until(&self, series: &str, value: f64) {
        soon(series, async {
            while self.metric(series).await != value {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

pub(crate) fn arguments(folder: &Path, flags: &[&str]) -> Vec<String> {
    let own = ["--listener", "SECURE://127.0.0.1:0", "--tls"];
    let folder = format!("SECURE={}", folder.display());
    let flags = flags.iter().map(|&flag| flag.to_owned());
    own.iter().map(|&flag| flag.to_owned()).chain([folder]).chain(flags).collect()
}

/// Records of some megabytes in pieces of many sizes around those of TLS' records.
async fn fill(client: &mut Client) {
    for length in [1, 100, 16_000, 16_384, 16_385, 50_000, 900_000, 1_000_000] {
        let value: String = (0..length).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
        assert_eq!(client.produce("t", 0, -1, batch(&[&value])).await.error_code, 0);
    }
}

#[tokio::test]
async fn bytes_over_tls_are_those_without_it() {
    let secured = Secured::start(&[], None).await;
    let mut plain = secured.cluster.client().await;
    for versions in [[&TLS13], [&TLS12]] {
        let mut client = secured.client(&secured.ca.trusted_in(None, &versions)).await;
        fill(&mut client).await;
        let ends = [0, 3, 7];
        for offset in ends {
            let [over_tls, over_tcp] = [
                client.fetch("t", 0, offset).await.records,
                plain.fetch("t", 0, offset).await.records,
            ];
            assert!(over_tls.as_ref().is_some_and(|records| !records.is_empty()));
            assert!(over_tls == over_tcp, "{versions:?} from {offset}");
        }
        // Many requests are under way at once.
        for _ in 0..20 {
            client.send(12, &fetch_from("t", 0, 0)).await;
        }
        for _ in 0..20 {
            let response = client.receive::<weir_protocol::messages::FetchRequest>(12).await;
            assert!(response.responses[0].partitions[0].records.is_some());
        }
    }
    for (protocol, open) in [("TLSv1.2", 0.0), ("TLSv1.3", 0.0)] {
        secured
            .until(
                &format!(
                    "weir_broker_tls_connections{{listener=\"SECURE\",protocol=\"{protocol}\"}}"
                ),
                open,
            )
            .await;
        let handshakes = format!(
            "weir_broker_tls_handshakes_total{{listener=\"SECURE\",protocol=\"{protocol}\",resumed=\"false\"}}"
        );
        assert_eq!(secured.metric(&handshakes).await, 1.0);
    }
    let expiry = "weir_broker_tls_certificate_expiry_timestamp_seconds{listener=\"SECURE\"}";
    assert!(secured.metric(expiry).await > 1.7e9);
}

#[tokio::test]
async fn a_client_is_who_its_certificate_says() {
    let clients = Ca::new("clients");
    let rules = r"SECURE=RULE:^CN=(.*?),O=Test$/$1/U,DEFAULT";
    let flags = ["--tls-client-auth", "SECURE=required", "--tls-principal-rules", rules];
    let mut secured = Secured::start(&flags, Some(&clients)).await;
    let own = clients.client("billing", Valid::NOW);
    let mut client = secured.client(&secured.ca.trusted(Some(&own))).await;
    assert_eq!(client.produce("t", 0, -1, batch(&["a"])).await.error_code, 0);
    let line = secured.cluster.broker.wait_for_line("a client got through its handshake").await;
    assert_eq!(line["principal"], "User:BILLING", "{line}");
}

#[tokio::test]
async fn who_shows_no_certificate_is_let_in_where_it_is_only_requested() {
    let clients = Ca::new("clients");
    let secured = Secured::start(&["--tls-client-auth", "SECURE=requested"], Some(&clients)).await;
    let nobody = secured.ca.trusted(None);
    let mut client = secured.client(&nobody).await;
    assert_eq!(client.produce("t", 0, -1, batch(&["a"])).await.error_code, 0);
    let log = secured.cluster.broker.log();
    assert!(log.contains("User:ANONYMOUS"), "{log}");
    // A bad one is refused all the same.
    let bad = secured.ca.trusted(Some(&Issued::self_signed("x")));
    assert!(refusal(&secured, &bad).await.contains("UnknownCA"));
}

/// How a client over TLS learns that it is refused: by an alert, at its first use in TLS 1.3.
pub(crate) async fn refusal(secured: &Secured, connector: &TlsConnector) -> String {
    let error = match secured.try_client(connector).await {
        Err(error) => error,
        Ok(mut client) => client.broken().await,
    };
    format!("{error:?}")
}

/// Swaps what a folder's link `..data` leads to, as Kubernetes does with a mounted Secret.
fn exchange(folder: &Path, number: u32, write: impl FnOnce(&Path)) {
    let content = PathBuf::from(format!("..{number}"));
    std::fs::create_dir(folder.join(&content)).unwrap();
    write(&folder.join(&content));
    let (link, new) = (folder.join("..data"), folder.join("..data_tmp"));
    std::os::unix::fs::symlink(&content, &new).unwrap();
    std::fs::rename(&new, &link).unwrap();
    for name in ["tls.crt", "tls.key", "clients.crt"] {
        let target = Path::new("..data").join(name);
        if !folder.join(name).is_symlink() && folder.join(&target).exists() {
            let _ = std::fs::remove_file(folder.join(name));
            std::os::unix::fs::symlink(target, folder.join(name)).unwrap();
        }
    }
}

#[tokio::test]
async fn a_certificate_changes_under_living_connections() {
    let secured = Secured::start(&[], None).await;
    let mut before = secured.client(&secured.ca.trusted(None)).await;
    let next = Ca::new("next");
    let own = next.server("broker", &["localhost"], Valid::NOW);
    exchange(secured.folder(), 1, |folder| own.write(folder));
    let taken_over = "weir_broker_tls_certificates_taken_over_total{listener=\"SECURE\"}";
    secured.until(taken_over, 1.0).await;
    let mut after = secured.client(&next.trusted(None)).await;
    assert_eq!(after.produce("t", 0, -1, batch(&["a"])).await.error_code, 0);
    assert_eq!(before.produce("t", 0, -1, batch(&["b"])).await.error_code, 0);
    assert!(secured.try_client(&secured.ca.trusted(None)).await.is_err(), "the old CA's");
    // A chain without its key, no PEM, nothing at all: the last good one stays in use.
    let refused = "weir_broker_tls_certificates_refused_total{listener=\"SECURE\"}";
    let other = next.server("other", &["localhost"], Valid::NOW);
    exchange(secured.folder(), 2, |folder| {
        own.write(folder);
        std::fs::write(folder.join("tls.crt"), other.certificate.pem()).unwrap();
    });
    secured.until(refused, 1.0).await;
    exchange(secured.folder(), 3, |folder| {
        own.write(folder);
        std::fs::write(folder.join("tls.key"), "nonsense").unwrap();
    });
    secured.until(refused, 2.0).await;
    exchange(secured.folder(), 4, |_| {});
    secured.until(refused, 3.0).await;
    let mut still = secured.client(&next.trusted(None)).await;
    assert_eq!(still.produce("t", 0, -1, batch(&["c"])).await.error_code, 0);
    exchange(secured.folder(), 5, |folder| other.write(folder));
    secured.until(taken_over, 2.0).await;
    let mut last = secured.client(&next.trusted(None)).await;
    assert_eq!(last.read_all("t", 0).await.len(), 3);
    assert_eq!(before.read_all("t", 0).await.len(), 3, "the first connection lives on");
}

#[tokio::test]
async fn a_ticket_saves_a_handshake_as_long_as_its_ca_is_trusted() {
    let clients = Ca::new("clients");
    let secured = Secured::start(&["--tls-client-auth", "SECURE=required"], Some(&clients)).await;
    let own = clients.client("billing", Valid::NOW);
    let connector = secured.ca.trusted(Some(&own));
    let resumed = |yes: bool| {
        format!(
            "weir_broker_tls_handshakes_total{{listener=\"SECURE\",protocol=\"TLSv1.3\",resumed=\"{yes}\"}}"
        )
    };
    // A ticket comes behind the handshake, with the first answer at the latest.
    let mut first = secured.client(&connector).await;
    first.produce("t", 0, -1, batch(&["a"])).await;
    let mut second = secured.client(&connector).await;
    second.produce("t", 0, -1, batch(&["b"])).await;
    assert_eq!(
        (secured.metric(&resumed(false)).await, secured.metric(&resumed(true)).await),
        (1.0, 1.0)
    );
    let log = secured.cluster.broker.log();
    assert_eq!(log.matches("\"principal\":\"User:CN=billing,O=Test\"").count(), 2, "{log}");
    // The clients' CA is exchanged: neither the certificate nor the ticket is good any more.
    let others = Ca::new("others");
    let pem = others.pem();
    std::fs::write(secured.folder().join("clients.crt.new"), pem).unwrap();
    std::fs::rename(secured.folder().join("clients.crt.new"), secured.folder().join("clients.crt"))
        .unwrap();
    secured.until("weir_broker_tls_certificates_taken_over_total{listener=\"SECURE\"}", 1.0).await;
    let told = refusal(&secured, &connector).await;
    assert!(told.contains("UnknownCA"), "{told}");
    assert_eq!(first.produce("t", 0, -1, batch(&["c"])).await.error_code, 0);
}

#[tokio::test]
async fn any_name_and_none_is_served() {
    let secured = Secured::start(&[], None).await;
    let connector = secured.ca.trusted(None);
    let address = secured.cluster.broker.listener("SECURE").await;
    // An address is no SNI at all.
    for name in ["localhost", "127.0.0.1"] {
        Client::connect_tls(address, &connector, name).await.unwrap();
    }
    // A client that does not compare the name, as some do, asks for one that nobody has.
    let error = Client::connect_tls(address, &connector, "unknown.example").await.err().unwrap();
    assert!(format!("{error:?}").contains("NotValidForName"), "the client refuses: {error:?}");
    let failures = "weir_broker_tls_handshake_failures_total{listener=\"SECURE\",reason=\"refused_by_client\"}";
    secured.until(failures, 1.0).await;
}
