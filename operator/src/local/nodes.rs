//! The identities of a local cluster's brokers and controller, in the folder `nodes` of its data
//! directory.
//!
//! The controller always has one. Brokers have theirs while a listener of the cluster has TLS or
//! SASL.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use weir_crds::KafkaCluster;
use weir_protocol::address;
use weir_protocol::controller::INTERNAL_LISTENER;
use weir_security::principal::Principal;

use super::files::{authority_in, keep_issued, write};
use crate::authority::Holder;
use crate::rpc::is_secured;

/// The domain of every local cluster. Each has a CA of its own.
pub(super) const DOMAIN: &str = "local";

/// The CA, beside what it has issued.
const CA: [&str; 2] = ["ca.crt", "ca.key"];

/// The folder of the identities.
pub(super) fn folder(data: &Path) -> PathBuf {
    data.join("nodes")
}

/// The domain of a cluster's brokers, if they have certificates.
pub(super) fn domain(cluster: &KafkaCluster) -> Option<String> {
    is_secured(cluster).then(|| DOMAIN.to_owned())
}

/// Makes the CA and the certificate of a node, as far as they are missing or due.
///
/// # Errors
/// When a file cannot be read or written, or the CA's key is none.
pub(super) fn prepare(data: &Path, node: &Principal, now: i64) -> anyhow::Result<()> {
    let folder = folder(data);
    let authority = authority_in(&folder, CA, "the nodes of a local cluster", now)?;
    let name = match node {
        Principal::Broker(id) => format!("broker-{id}"),
        _ => "controller".to_owned(),
    };
    let files = [&*format!("{name}.crt"), &*format!("{name}.key")];
    keep_issued(&folder, files, &authority, Holder::Node(DOMAIN, node), now)
}

/// The flags of a broker with an identity that listens on `host`.
///
/// # Errors
/// When its port cannot be read or kept.
pub(super) fn flags(
    data: &Path,
    host: IpAddr,
    broker: i32,
) -> anyhow::Result<Vec<(&'static str, String)>> {
    let address = address::join(&host.to_string(), port(data, host, broker)?);
    Ok(vec![
        ("--listener", format!("{INTERNAL_LISTENER}://{address}")),
        ("--identity", folder(data).to_string_lossy().into_owned()),
    ])
}

/// The port for other brokers: a free one at first, and the same from then on, since they look for
/// it there while no controller runs.
fn port(data: &Path, host: IpAddr, broker: i32) -> anyhow::Result<u16> {
    let (folder, name) = (folder(data), format!("broker-{broker}.port"));
    let path = folder.join(&name);
    match fs::read_to_string(&path) {
        Ok(text) => {
            text.trim().parse().with_context(|| format!("{} holds no port", path.display()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let free = TcpListener::bind((host, 0)).and_then(|free| free.local_addr());
            let port = free.with_context(|| format!("find a free port of {host}"))?.port();
            write(&folder, &name, format!("{port}\n").as_bytes())?;
            Ok(port)
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::SystemTime;

    use weir_tls::{Identities, Look};

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_node_has_an_identity_that_stays_until_it_is_due() {
        let data = tempfile::tempdir().unwrap();
        let broker = Principal::Broker(1);
        // What others do not believe now is not taken over, so the second time is today.
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs().cast_signed();
        let then = now - 300 * 24 * 3600;
        prepare(data.path(), &broker, then).unwrap();
        prepare(data.path(), &Principal::Controller, then).unwrap();
        let folder = folder(data.path());
        let own = Identities::load(&folder, &broker).unwrap();
        assert_eq!(own.current().unwrap().domain(), DOMAIN);
        assert!(Identities::load(&folder, &Principal::Controller).is_ok());
        let mode = |name| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode("ca.key"), mode("broker-1.key")], [0o600; 2]);
        prepare(data.path(), &broker, then).unwrap();
        assert!(matches!(own.look(), Look::Same));
        prepare(data.path(), &broker, now).unwrap();
        assert!(matches!(own.look(), Look::Changed));
    }

    #[test]
    fn a_broker_keeps_its_port() {
        let data = tempfile::tempdir().unwrap();
        let first = flags(data.path(), HERE, 0).unwrap();
        assert!(first[0].1.starts_with("WEIR-INTERNAL://127.0.0.1:"), "{first:?}");
        assert_eq!(flags(data.path(), HERE, 0).unwrap(), first);
        assert_ne!(flags(data.path(), HERE, 1).unwrap()[0], first[0]);
        fs::write(folder(data.path()).join("broker-0.port"), "none").unwrap();
        assert!(flags(data.path(), HERE, 0).is_err());
    }
}
