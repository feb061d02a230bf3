//! The listeners of a local cluster that have TLS or SASL: the CA and certificates, and what
//! brokers are told of all of it.
//!
//! A Secret of Kubernetes is a folder here, `secrets/NAME`, with a file for each key. A listener's
//! folder, `tls/LISTENER`, has links to the files that a broker reads, so a file that a user
//! replaces is taken over as on Kubernetes.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weir_crds::{KafkaCluster, Listener, SecretName, Tls};
use weir_protocol::address;

use super::files::{authority_in, keep_issued, make_folder, write};
use crate::authority::{Authority, Holder, Hosts};
use crate::listener::{
    CAS, CERTIFICATE, CLIENT_CAS, KEY, keys_of, listener_name, sasl_flag, security_protocol,
    tls_flags,
};

/// The listeners of a cluster that have TLS or SASL: local mode serves no others of the resource.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Secured {
    /// The cluster's name.
    cluster: String,
    listeners: Vec<Listener>,
}

impl Secured {
    /// Those of a resource.
    pub(super) fn of(resource: &Value) -> anyhow::Result<Self> {
        let cluster: KafkaCluster =
            serde_json::from_value(resource.clone()).context("read the KafkaCluster")?;
        let mut listeners = cluster.spec.listeners;
        listeners.retain(|listener| listener.tls.is_some() || listener.sasl.is_some());
        if listeners.is_empty() {
            // As what is remembered of a cluster without any, so that nothing has changed.
            return Ok(Self::default());
        }
        Ok(Self { cluster: cluster.metadata.name.unwrap_or_default(), listeners })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// The listeners' names, each with its port at a broker.
    pub(super) fn ports(&self, broker: i32) -> impl Iterator<Item = (&str, i32)> {
        self.listeners.iter().map(move |one| (one.name.as_str(), i32::from(one.port) + broker))
    }

    /// Checks that no two listeners of these brokers need the same port.
    pub(super) fn check_ports(&self, plain: u16, brokers: i32) -> anyhow::Result<()> {
        let mut taken: Vec<(&str, i32)> = Vec::new();
        for id in 0..brokers {
            taken.push(("of the plain listener", i32::from(plain) + id));
            taken.extend(self.ports(id));
        }
        taken.sort_by_key(|(_, port)| *port);
        for pair in taken.windows(2) {
            if let [(one, port), (other, same)] = pair {
                ensure!(
                    port != same,
                    "port {port} would be both {one} and {other}: locally broker i listens on a listener's port plus i, so set another port"
                );
            }
        }
        ensure!(
            taken.last().is_none_or(|(_, port)| *port <= i32::from(u16::MAX)),
            "a port above 65535: locally broker i listens on a listener's port plus i"
        );
        Ok(())
    }

    /// The flags of a broker that listens on `host`.
    pub(super) fn flags(
        &self,
        data: &Path,
        host: IpAddr,
        broker: i32,
    ) -> Vec<(&'static str, String)> {
        let mut flags = Vec::new();
        for (listener, (_, port)) in self.listeners.iter().zip(self.ports(broker)) {
            let host = match host {
                IpAddr::V6(host) => format!("[{host}]"),
                IpAddr::V4(host) => host.to_string(),
            };
            flags.push(("--listener", format!("{}://{host}:{port}", listener_name(listener))));
            if let Some(tls) = &listener.tls {
                let folder = folder_of(data, listener);
                flags.extend(tls_flags(listener, tls, &folder.to_string_lossy()));
            }
            flags.extend(sasl_flag(listener));
        }
        flags
    }

    /// Makes the CA, the certificates and the links to what users have, as far as something is
    /// missing or due.
    pub(super) fn prepare(&self, data: &Path, host: IpAddr, now: i64) -> anyhow::Result<()> {
        let hosts: Hosts = ["localhost", "127.0.0.1", "::1", &host.to_string()]
            .map(str::to_owned)
            .into_iter()
            .collect();
        let is_issued = |tls: &Tls| tls.certificate_secret.is_none();
        let to_issue =
            || self.listeners.iter().filter(|one| one.tls.as_ref().is_some_and(is_issued));
        if to_issue().next().is_some() {
            let authority = self.authority(data, now)?;
            let secret = secret_folder(data, &format!("{}-tls", self.cluster));
            for listener in to_issue() {
                let [certificate, key] = keys_of(&listener.name);
                let holder = Holder::Listener(&hosts);
                keep_issued(&secret, [&certificate, &key], &authority, holder, now)?;
            }
        }
        self.listeners.iter().try_for_each(|listener| self.link(data, listener))
    }

    fn authority(&self, data: &Path, now: i64) -> anyhow::Result<Authority> {
        let secret = secret_folder(data, &format!("{}-ca", self.cluster));
        let authority = authority_in(&secret, [CERTIFICATE, KEY], &self.cluster, now)?;
        let for_clients = secret_folder(data, &self.secret_for_clients());
        write(&for_clients, CAS, authority.pair().certificate.as_bytes())?;
        Ok(authority)
    }

    /// The Secret that clients mount.
    fn secret_for_clients(&self) -> String {
        format!("{}-ca-cert", self.cluster)
    }

    /// Links the files that a broker reads for a listener.
    fn link(&self, data: &Path, listener: &Listener) -> anyhow::Result<()> {
        let Some(tls) = &listener.tls else { return Ok(()) };
        let folder = folder_of(data, listener);
        make_folder(&folder)?;
        let of_users = |field: &str, secret: &SecretName, key: &str| {
            let folder = secret_folder(data, &secret.name);
            ensure!(
                folder.join(key).exists(),
                "spec.listeners[{}].tls.{field}: there is no {}; locally a Secret is a folder with a file for each key",
                listener.name,
                folder.join(key).display()
            );
            Ok(Path::new("../../secrets").join(&secret.name).join(key))
        };
        let [certificate, key] = match &tls.certificate_secret {
            Some(secret) => [
                of_users("certificateSecret", secret, CERTIFICATE)?,
                of_users("certificateSecret", secret, KEY)?,
            ],
            None => {
                let issued = Path::new("../../secrets").join(format!("{}-tls", self.cluster));
                keys_of(&listener.name).map(|key| issued.join(key))
            }
        };
        relink(&folder.join(CERTIFICATE), &certificate)?;
        relink(&folder.join(KEY), &key)?;
        if let Some(clients) = &tls.client_authentication {
            let cas = of_users("clientAuthentication.caSecret", &clients.ca_secret, CAS)?;
            relink(&folder.join(CLIENT_CAS), &cas)?;
        }
        Ok(())
    }

    /// The first listener with TLS.
    pub(super) fn first_with_tls(&self) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.tls.is_some())
    }

    /// The addresses of each listener for clients.
    pub(super) fn bootstraps(&self, host: IpAddr, brokers: i32) -> Vec<(&Listener, String)> {
        let addresses = |listener: &Listener| {
            let port = |id: i32| u16::try_from(i32::from(listener.port) + id).unwrap_or_default();
            let all = (0..brokers).map(|id| address::join(&host.to_string(), port(id)));
            all.collect::<Vec<_>>().join(",")
        };
        self.listeners.iter().map(|listener| (listener, addresses(listener))).collect()
    }
}

/// All Secrets of a data directory, or the one with a name, in the form of Kubernetes.
pub(super) fn secrets(data: &Path, name: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let all = data.join("secrets");
    let mut names = Vec::new();
    match fs::read_dir(&all) {
        Ok(entries) => {
            for entry in entries {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", all.display())),
    }
    names.sort();
    names.retain(|found| name.is_none_or(|name| name == found));
    ensure!(
        name.is_none() || !names.is_empty(),
        "there is no Secret {:?}: clusters with tls on a listener have some",
        name.unwrap_or_default()
    );
    names.iter().map(|name| secret(&all.join(name), name)).collect()
}

fn secret(folder: &Path, name: &str) -> anyhow::Result<Value> {
    let mut data = serde_json::Map::new();
    let what = || format!("read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(what)? {
        let entry = entry.with_context(what)?;
        let bytes = fs::read(entry.path()).with_context(what)?;
        let key = entry.file_name().to_string_lossy().into_owned();
        data.insert(key, serde_json::to_value(ByteString(bytes))?);
    }
    Ok(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}))
}

/// The files with which clients run, by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientFile {
    /// Of the Java client and of Kafka's tools. It holds the CA itself.
    Properties,
    /// Of librdkafka. It names the file of the CA.
    Librdkafka,
}

/// A client's file for a listener whose CA the Secret has. If clients log in there, the name and
/// the password are still to be added.
pub(super) fn client_file(
    data: &Path,
    secret: &str,
    listener: &Listener,
    bootstrap: &str,
    file: ClientFile,
) -> anyhow::Result<String> {
    let protocol = security_protocol(listener);
    let mechanism = listener.sasl.as_ref().and_then(|sasl| sasl.mechanisms.last());
    let mechanism = |setting: &str| {
        mechanism.map_or_else(String::new, |one| format!("{setting}={}\n", one.name()))
    };
    let path = secret_folder(data, secret).join(CAS);
    let ca = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(match file {
        ClientFile::Properties => format!(
            "bootstrap.servers={bootstrap}\nsecurity.protocol={protocol}\n{}ssl.truststore.type=PEM\nssl.truststore.certificates={}",
            mechanism("sasl.mechanism"),
            ca.trim().replace("\r\n", "\n").replace('\n', "\\n")
        ),
        ClientFile::Librdkafka => format!(
            "bootstrap.servers={bootstrap}\nsecurity.protocol={}\n{}ssl.ca.location={}",
            protocol.to_lowercase(),
            mechanism("sasl.mechanisms"),
            path.display()
        ),
    })
}

fn folder_of(data: &Path, listener: &Listener) -> PathBuf {
    data.join("tls").join(&listener.name)
}

fn secret_folder(data: &Path, name: &str) -> PathBuf {
    data.join("secrets").join(name)
}

fn relink(link: &Path, target: &Path) -> anyhow::Result<()> {
    if fs::read_link(link).is_ok_and(|there| there == target) {
        return Ok(());
    }
    let new = link.with_extension("new");
    let what = || format!("link {}", link.display());
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(what),
        _ => {}
    }
    symlink(target, &new).with_context(what)?;
    fs::rename(&new, link).with_context(what)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NOW: i64 = 1_800_000_000;
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn secured(listeners: &Value) -> Secured {
        let resource = json!({
            "apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster",
            "metadata": {"name": "orders"}, "spec": {"listeners": listeners},
        });
        Secured::of(&resource).unwrap()
    }

    /// `weir local apply` compares what is remembered with the resource.
    #[test]
    fn a_cluster_without_tls_is_remembered_as_it_is() {
        for listeners in [json!([]), json!([{"name": "plain", "port": 9092}])] {
            assert_eq!(secured(&listeners), Secured::default());
        }
        let with_tls = secured(&json!([{"name": "tls-a", "port": 9192, "tls": {}}]));
        let remembered = serde_json::to_string(&with_tls).unwrap();
        assert_eq!(serde_json::from_str::<Secured>(&remembered).unwrap(), with_tls);
    }

    #[test]
    fn a_listener_with_tls_has_files_that_only_their_owner_reads() {
        let dir = tempfile::tempdir().unwrap();
        let secured = secured(
            &json!([{"name": "plain", "port": 9092}, {"name": "tls-a", "port": 9192, "tls": {}}]),
        );
        secured.prepare(dir.path(), HERE, NOW).unwrap();
        let key = dir.path().join("tls/tls-a/tls.key");
        assert!(fs::read_to_string(&key).unwrap().contains("BEGIN PRIVATE KEY"));
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let folder = fs::metadata(dir.path().join("secrets/orders-ca")).unwrap();
        assert_eq!(folder.permissions().mode() & 0o777, 0o700);
        let flags = secured.flags(dir.path(), HERE, 2);
        assert_eq!(flags[0], ("--listener", "TLS_A://127.0.0.1:9194".to_owned()));
        assert_eq!(flags.len(), 2, "{flags:?}");
        // What is good stays.
        let read = || fs::read_to_string(dir.path().join("tls/tls-a/tls.crt")).unwrap();
        let before = read();
        secured.prepare(dir.path(), HERE, NOW + 3600).unwrap();
        assert_eq!(read(), before);
        secured.prepare(dir.path(), "10.0.0.7".parse().unwrap(), NOW).unwrap();
        assert_ne!(read(), before, "another address");
        let names: Vec<String> = secrets(dir.path(), None)
            .unwrap()
            .iter()
            .map(|secret| secret["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["orders-ca", "orders-ca-cert", "orders-tls"]);
        assert!(secrets(dir.path(), Some("x")).is_err());
        let tls = secured.first_with_tls().unwrap();
        let properties =
            client_file(dir.path(), "orders-ca-cert", tls, "h:1", ClientFile::Properties).unwrap();
        assert_eq!(properties.lines().count(), 4, "{properties}");
        let file = client_file(dir.path(), "orders-ca-cert", tls, "h:1", ClientFile::Librdkafka);
        assert!(file.unwrap().ends_with("secrets/orders-ca-cert/ca.crt"));
    }

    #[test]
    fn secrets_of_users_are_linked_and_missing_ones_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let tls = json!({
            "certificateSecret": {"name": "mine"},
            "clientAuthentication": {"caSecret": {"name": "clients"}, "principalMappingRules": "DEFAULT"},
        });
        let secured =
            secured(&json!([{"name": "plain", "port": 1}, {"name": "tls", "port": 2, "tls": tls}]));
        let error = secured.prepare(dir.path(), HERE, NOW).unwrap_err().to_string();
        assert!(error.contains("certificateSecret") && error.contains("secrets/mine"), "{error}");
        for (secret, key) in [("mine", CERTIFICATE), ("mine", KEY), ("clients", CAS)] {
            write(&secret_folder(dir.path(), secret), key, key.as_bytes()).unwrap();
        }
        secured.prepare(dir.path(), HERE, NOW).unwrap();
        for (file, content) in [(CERTIFICATE, CERTIFICATE), (KEY, KEY), ("clients.crt", CAS)] {
            assert_eq!(fs::read_to_string(dir.path().join("tls/tls").join(file)).unwrap(), content);
        }
        let flags = secured.flags(dir.path(), "::1".parse().unwrap(), 0);
        assert_eq!(flags[0].1, "TLS://[::1]:2");
        assert_eq!(
            flags[2..],
            [
                ("--tls-client-auth", "TLS=required".to_owned()),
                ("--tls-principal-rules", "TLS=DEFAULT".to_owned()),
            ]
        );
        assert!(!dir.path().join("secrets/orders-ca").exists(), "nothing was to be issued");
    }

    #[test]
    fn clients_of_a_listener_with_sasl_log_in_and_need_no_tls() {
        let dir = tempfile::tempdir().unwrap();
        let secured = secured(&json!([
            {"name": "plain", "port": 9092}, {"name": "names", "port": 9192, "sasl": {}},
            {"name": "both", "port": 9292, "tls": {}, "sasl": {"mechanisms": ["PLAIN"]}},
        ]));
        secured.prepare(dir.path(), HERE, NOW).unwrap();
        let flags = secured.flags(dir.path(), HERE, 1);
        let expected = [
            ("--listener", "NAMES://127.0.0.1:9193".to_owned()),
            ("--sasl", "NAMES=SCRAM-SHA-256,SCRAM-SHA-512".to_owned()),
            ("--listener", "BOTH://127.0.0.1:9293".to_owned()),
        ];
        assert_eq!(flags[..3], expected);
        assert_eq!(flags[4..], [("--sasl", "BOTH=PLAIN".to_owned())]);
        let both = secured.first_with_tls().unwrap();
        let file = client_file(dir.path(), "orders-ca-cert", both, "h:1", ClientFile::Properties);
        let begins = "bootstrap.servers=h:1\nsecurity.protocol=SASL_SSL\nsasl.mechanism=PLAIN\n";
        assert!(file.unwrap().starts_with(begins));
        let file = client_file(dir.path(), "orders-ca-cert", both, "h:1", ClientFile::Librdkafka);
        let begins = "bootstrap.servers=h:1\nsecurity.protocol=sasl_ssl\nsasl.mechanisms=PLAIN\n";
        assert!(file.unwrap().starts_with(begins));
    }

    #[test]
    fn two_listeners_cannot_have_a_port() {
        let one = secured(
            &json!([{"name": "plain", "port": 9092}, {"name": "tls", "port": 9093, "tls": {}}]),
        );
        assert!(one.check_ports(9092, 1).is_ok());
        let error = one.check_ports(9092, 2).unwrap_err().to_string();
        assert!(error.starts_with("port 9093 would be both"), "{error}");
        let high = secured(
            &json!([{"name": "plain", "port": 9092}, {"name": "tls", "port": 65535, "tls": {}}]),
        );
        assert!(high.check_ports(9092, 1).is_ok() && high.check_ports(9092, 2).is_err());
    }
}
