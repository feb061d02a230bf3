use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weir_security::principal::{Principal, node_uri};
use weir_security::secret::Secret;

use crate::testing::{Ca, names, pems};
use crate::{Identities, Identity, Look, accept};

const ONE: Principal = Principal::Broker(1);
const TWO: Principal = Principal::Broker(2);

fn identity_of(ca: &Ca, domain: &str, node: &Principal, cas: &[&Ca]) -> Arc<Identities> {
    Arc::new(Identities::new(ca.identity(domain, node, cas)))
}

/// What both sides say of a connection; a client sees a server's refusal with its first read.
async fn meet(
    client: &Identities,
    expected: &Principal,
    server: &Arc<Identities>,
) -> (Result<(), String>, Result<Principal, String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connecting = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = client.current()?.connect(stream, expected).await?;
        stream.read_u8().await.map(drop)
    };
    let accepting = async {
        let stream = listener.accept().await.unwrap().0;
        let (mut stream, _, node) = accept(stream, |_| Some(Arc::clone(server))).await?;
        stream.write_u8(7).await?;
        stream.flush().await?;
        std::io::Result::Ok(node)
    };
    let (client, server) = tokio::join!(connecting, accepting);
    (client.map_err(|error| error.to_string()), server.map_err(|error| error.to_string()))
}

#[tokio::test]
async fn two_nodes_of_a_cluster_know_each_other() {
    let ca = Ca::new();
    let (one, two) = (identity_of(&ca, "c", &ONE, &[&ca]), identity_of(&ca, "c", &TWO, &[&ca]));
    assert_eq!(meet(&one, &TWO, &two).await, (Ok(()), Ok(ONE)));
    let controller = identity_of(&ca, "c", &Principal::Controller, &[&ca]);
    assert_eq!(meet(&two, &Principal::Controller, &controller).await, (Ok(()), Ok(TWO)));
    let controller = controller.current().unwrap();
    assert_eq!((controller.domain(), controller.node()), ("c", &Principal::Controller));
}

#[tokio::test]
async fn a_node_that_is_another_is_refused() {
    let ca = Ca::new();
    let (one, two) = (identity_of(&ca, "c", &ONE, &[&ca]), identity_of(&ca, "c", &TWO, &[&ca]));
    let (client, _) = meet(&one, &Principal::Broker(3), &two).await;
    assert_eq!(client.unwrap_err(), "it is broker 2, not broker 3");
    let (client, _) = meet(&one, &Principal::Controller, &two).await;
    assert_eq!(client.unwrap_err(), "it is broker 2, not controller");
}

#[tokio::test]
async fn nodes_of_other_clusters_and_cas_are_refused_on_both_sides() {
    let (ca, other) = (Ca::new(), Ca::new());
    let one = identity_of(&ca, "c", &ONE, &[&ca]);
    let strangers = [
        identity_of(&other, "c", &TWO, &[&other, &ca]),
        identity_of(&ca, "d", &TWO, &[&ca]),
        // The name of another cluster that only begins like this one's.
        identity_of(&ca, "c2", &TWO, &[&ca]),
    ];
    for stranger in &strangers {
        let (client, server) = meet(&one, &TWO, stranger).await;
        assert!(client.is_err() && server.is_err(), "{client:?} {server:?}");
        let (client, server) = meet(stranger, &ONE, &one).await;
        assert!(client.is_err() && server.is_err(), "{client:?} {server:?}");
    }
}

/// While a CA is exchanged, nodes trust both.
#[tokio::test]
async fn nodes_with_certificates_of_two_cas_meet_if_they_trust_both() {
    let (before, after) = (Ca::new(), Ca::new());
    let both = [&before, &after];
    let (one, two) =
        (identity_of(&before, "c", &ONE, &both), identity_of(&after, "c", &TWO, &both));
    assert_eq!(meet(&one, &TWO, &two).await, (Ok(()), Ok(ONE)));
    assert_eq!(meet(&two, &ONE, &one).await, (Ok(()), Ok(TWO)));
    // The CA of before is dropped.
    let two = identity_of(&after, "c", &TWO, &[&after]);
    assert!(meet(&one, &TWO, &two).await.1.is_err());
}

#[tokio::test]
async fn certificates_out_of_their_time_or_use_are_refused() {
    let ca = Ca::new();
    let one = identity_of(&ca, "c", &ONE, &[&ca]);
    let uri = node_uri("c", &TWO).unwrap();
    let identity = |change: fn(&mut CertificateParams)| {
        let (chain, key) = ca.issue(|params| {
            params.subject_alt_names = names(&[&uri]);
            change(params);
        });
        let identity = Identity::new(chain.as_bytes(), &key, ca.pem.as_bytes()).unwrap();
        Arc::new(Identities::new(identity))
    };
    let expired = identity(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let early = identity(|params| params.not_before = rcgen::date_time_ymd(4000, 1, 1));
    for bad in [&expired, &early] {
        assert!(meet(&one, &TWO, bad).await.0.is_err());
        assert!(meet(bad, &ONE, &one).await.1.is_err());
    }
    let only_server =
        identity(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert!(meet(&only_server, &ONE, &one).await.1.is_err());
    assert!(meet(&one, &TWO, &only_server).await.0.is_ok());
}

#[test]
fn what_names_no_node_or_several_is_no_identity() {
    let ca = Ca::new();
    for uris in [
        &[][..],
        &["https://c/broker/1"],
        &["weir://c/broker/01"],
        &["weir://c/broker/-1"],
        &["weir://c/operator"],
        &["weir://c"],
        &["weir:///controller"],
        &["weir://c d/controller"],
        &["weir://c/broker/1", "weir://c/broker/2"],
    ] {
        let (chain, key) = ca.of(uris);
        assert!(Identity::new(chain.as_bytes(), &key, ca.pem.as_bytes()).is_err(), "{uris:?}");
    }
    let (chain, key) = ca.node("c", &ONE);
    let (_, another) = ca.node("c", &ONE);
    for (chain, key, cas) in [
        (chain.as_str(), &another, ca.pem.as_str()),
        (&chain, &b"x".to_vec().into(), &ca.pem),
        ("", &key, &ca.pem),
        (&chain, &key, ""),
    ] {
        assert!(Identity::new(chain.as_bytes(), key, cas.as_bytes()).is_err());
    }
}

fn put(folder: &Path, node: &str, (chain, key): &(String, Secret), cas: &[&Ca]) {
    std::fs::write(folder.join(format!("{node}.crt")), chain).unwrap();
    std::fs::write(folder.join(format!("{node}.key")), key.expose()).unwrap();
    std::fs::write(folder.join("ca.crt"), pems(cas)).unwrap();
}

#[tokio::test]
async fn changed_files_are_taken_over_and_bad_ones_are_told_once() {
    let (ca, next, folder) = (Ca::new(), Ca::new(), tempfile::tempdir().unwrap());
    let folder = folder.path();
    let load = |node| Identities::load(folder, node);
    assert!(load(&ONE).unwrap_err().to_string().starts_with("the identity in /"));
    put(folder, "broker-1", &ca.node("c", &ONE), &[&ca]);
    let one = load(&ONE).unwrap();
    assert!(matches!(one.look(), Look::Same));
    let two = identity_of(&ca, "c", &TWO, &[&ca, &next]);
    assert_eq!(meet(&one, &TWO, &two).await.1, Ok(ONE));
    for bad in [ca.node("c", &TWO), ("none".to_owned(), b"none".to_vec().into())] {
        put(folder, "broker-1", &bad, &[&ca]);
        assert!(matches!(one.look(), Look::Bad(_)));
        assert!(matches!(one.look(), Look::Same), "told once");
        assert_eq!(meet(&one, &TWO, &two).await.1, Ok(ONE), "the last good one");
    }
    std::fs::remove_file(folder.join("ca.crt")).unwrap();
    assert!(matches!(one.look(), Look::Bad(_)));
    assert!(matches!(one.look(), Look::Same));
    put(folder, "broker-1", &next.node("c", &ONE), &[&ca, &next]);
    let before = one.current();
    assert!(matches!(one.look(), Look::Changed));
    assert_eq!(meet(&one, &TWO, &two).await, (Ok(()), Ok(ONE)));
    assert_eq!(before.unwrap().node(), &ONE);
    put(folder, "controller", &ca.node("c", &Principal::Controller), &[&ca]);
    assert!(load(&Principal::Controller).is_ok());
    assert!(load(&TWO).is_err(), "there are no files of it");
    assert!(load(&ONE).is_ok());
}

/// A certificate of ONE that is valid from or until another time.
fn at_another_time(ca: &Ca, change: fn(&mut CertificateParams)) -> (String, Secret) {
    ca.issue(|params| {
        params.subject_alt_names = names(&[&node_uri("c", &ONE).unwrap()]);
        change(params);
    })
}

#[tokio::test]
async fn what_other_nodes_would_refuse_replaces_nothing() {
    let (ca, other, folder) = (Ca::new(), Ca::new(), tempfile::tempdir().unwrap());
    let folder = folder.path();
    put(folder, "broker-1", &ca.node("c", &ONE), &[&ca]);
    let one = Identities::load(folder, &ONE).unwrap();
    one.check().unwrap();
    let two = identity_of(&ca, "c", &TWO, &[&ca]);
    let expired =
        at_another_time(&ca, |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let early = at_another_time(&ca, |params| params.not_before = rcgen::date_time_ymd(4000, 1, 1));
    let only_server = at_another_time(&ca, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    for (bad, cas, why) in [
        (&expired, &ca, "expired"),
        (&early, &ca, "not valid yet"),
        (&only_server, &ca, "not for clients"),
        (&ca.node("c", &ONE), &other, "its own CAs are others"),
        (&other.node("d", &ONE), &other, "another cluster's, whole"),
    ] {
        put(folder, "broker-1", bad, &[cas]);
        assert!(matches!(one.look(), Look::Bad(_)), "{why}");
        assert!(matches!(one.look(), Look::Same), "{why}: told once");
        assert_eq!(meet(&one, &TWO, &two).await, (Ok(()), Ok(ONE)), "{why}");
    }
    put(folder, "broker-1", &expired, &[&ca]);
    let started = Identities::load(folder, &ONE).unwrap();
    assert!(started.check().is_err(), "a process starts, and says so");
    put(folder, "broker-1", &ca.node("c", &ONE), &[&ca]);
    assert!(matches!(started.look(), Look::Changed));
    started.check().unwrap();
}

#[test]
fn what_is_not_valid_yet_is_taken_over_once_it_is() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    let folder = folder.path();
    put(folder, "broker-1", &ca.node("c", &ONE), &[&ca]);
    let one = Identities::load(folder, &ONE).unwrap();
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
    let (chain, key) = ca.issue(|params| {
        params.subject_alt_names = names(&[&node_uri("c", &ONE).unwrap()]);
        params.not_before = soon.into();
    });
    put(folder, "broker-1", &(chain, key), &[&ca]);
    assert!(matches!(one.look(), Look::Bad(_)));
    let taken = std::iter::repeat_with(|| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        one.look()
    });
    let taken = taken.take(200).find(|look| !matches!(look, Look::Same));
    assert!(matches!(taken, Some(Look::Changed)), "{taken:?}");
}

#[test]
fn what_is_wrong_with_pem_is_said_in_words() {
    let told = |pem: &str| crate::certificates(pem.as_bytes(), "ca.crt").unwrap_err().to_string();
    let half = "ca.crt: no certificates in PEM: the end of a CERTIFICATE is missing";
    assert_eq!(told("-----BEGIN CERTIFICATE-----\nAAAA\n"), half);
    assert_eq!(told("none"), "ca.crt: there is no certificate in PEM");
    let key: Secret = b"-----BEGIN PRIVATE KEY-----\nAAAA\n".to_vec().into();
    let error = crate::private_key(&key, "tls.key").unwrap_err().to_string();
    assert!(error.ends_with("the end of a PRIVATE KEY is missing"), "{error}");
}

#[test]
fn a_pipe_is_no_file_and_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker-1.crt");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let error = format!("{:#}", crate::read(folder.path(), "broker-1.crt").unwrap_err());
    assert!(error.ends_with("is not a regular file"), "{error}");
    assert!(Identities::load(folder.path(), &ONE).is_err());
}

#[tokio::test]
async fn the_controller_of_many_clusters_shows_each_its_own_certificate() {
    let (one, other) = (Ca::new(), Ca::new());
    let of_one = identity_of(&one, "one", &Principal::Controller, &[&one]);
    let of_other = identity_of(&other, "other", &Principal::Controller, &[&other]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = async {
        let mut seen = Vec::new();
        for _ in 0..4 {
            let stream = listener.accept().await.unwrap().0;
            let find = |domain: &str| match domain {
                "one" => Some(Arc::clone(&of_one)),
                "other" => Some(Arc::clone(&of_other)),
                "later" => Some(Arc::new(Identities::none())),
                _ => None,
            };
            let accepted = accept(stream, find).await;
            let accepted = accepted.map(|(_, own, node)| (own.domain().to_owned(), node));
            seen.push(accepted.map_err(|error| error.to_string()));
        }
        seen
    };
    let connecting = async {
        for (ca, domain) in [(&one, "one"), (&other, "other"), (&one, "none"), (&one, "later")] {
            let own = ca.identity(domain, &ONE, &[ca]);
            let stream = TcpStream::connect(address).await.unwrap();
            let connected = own.connect(stream, &Principal::Controller).await;
            assert_eq!(connected.is_ok(), ["one", "other"].contains(&domain), "{domain}");
        }
    };
    let (seen, ()) = tokio::join!(accepting, connecting);
    let refused = |why: &str| Err(why.to_owned());
    assert_eq!(
        seen,
        [
            Ok(("one".to_owned(), ONE)),
            Ok(("other".to_owned(), ONE)),
            refused("there is no cluster \"none\" here"),
            refused("this process has no certificate of the cluster yet"),
        ]
    );
}
