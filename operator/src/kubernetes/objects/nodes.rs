//! PURE: the identities of a cluster's nodes: the Secrets, and what the brokers' pods mount.
//!
//! All pods have one template, so each mounts the certificates of all brokers, and takes its own.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde_json::{Value, json};
use weir_crds::KafkaCluster;
use weir_protocol::controller::INTERNAL_LISTENER;

use super::names::Names;
use super::tls::{entry, pair_in, secret};
use crate::authority::Pair;
use crate::listener::CAS;
use crate::node_cas::NodeCas;

/// The port on which brokers and the controller reach a broker.
pub(super) const INTERNAL_PORT: u16 = 9091;

/// The name of that port; no listener has it.
pub(super) const INTERNAL_PORT_NAME: &str = "weir-internal";

/// The directory of the identities in a broker.
const DIRECTORY: &str = "/etc/weir-nodes";

/// The volume with them.
const VOLUME: &str = "nodes";

/// The keys of a broker's certificate and key.
fn keys_of(id: i32) -> [String; 2] {
    [format!("broker-{id}.crt"), format!("broker-{id}.key")]
}

/// The Secrets of the nodes' CA, and of what the brokers mount.
pub(in crate::kubernetes) fn node_secrets(
    cluster: &KafkaCluster,
    cas: &NodeCas,
    issued: &BTreeMap<i32, Pair>,
) -> Vec<Value> {
    let names = Names::of(cluster);
    let mut of_brokers: BTreeMap<String, ByteString> =
        [entry(CAS, cas.trusted().as_bytes())].into();
    for (id, pair) in issued {
        let [certificate, key] = keys_of(*id);
        of_brokers.extend([
            entry(&certificate, pair.certificate.as_bytes()),
            entry(&key, pair.key.expose()),
        ]);
    }
    vec![
        secret(cluster, &names.nodes_authority(), "kubernetes.io/tls", cas.kept()),
        secret(cluster, &names.nodes(), "Opaque", of_brokers),
    ]
}

/// The certificates of the CAs that the brokers have been given, in the Secret.
pub(in crate::kubernetes) fn trusted_in(data: &BTreeMap<String, ByteString>) -> Option<String> {
    String::from_utf8(data.get(CAS)?.0.clone()).ok()
}

/// The brokers that have a certificate in the Secret.
pub(in crate::kubernetes) fn brokers_in(
    data: &BTreeMap<String, ByteString>,
) -> impl Iterator<Item = (i32, Pair)> {
    let ids = data
        .keys()
        .filter_map(|key| key.strip_prefix("broker-")?.strip_suffix(".crt")?.parse::<i32>().ok());
    ids.filter_map(|id| {
        let [certificate, key] = keys_of(id);
        Some((id, pair_in(data, &certificate, &key)?))
    })
}

/// A listener for brokers and the controller.
pub(super) fn bound(host: &str) -> String {
    format!("{INTERNAL_LISTENER}://{host}:{INTERNAL_PORT}")
}

/// What brokers are told of their identity. It is an argument, as TLS is: see `tls`.
pub(super) fn argument() -> String {
    format!("--identity={DIRECTORY}")
}

/// The port of the services by which brokers reach one another.
pub(super) fn port() -> Value {
    json!({"name": INTERNAL_PORT_NAME, "port": INTERNAL_PORT, "targetPort": INTERNAL_PORT_NAME, "protocol": "TCP"})
}

/// The mount of the identities.
pub(super) fn mount() -> Value {
    json!({"name": VOLUME, "mountPath": DIRECTORY, "readOnly": true})
}

/// The volume of the identities. The pod's group reads it; see fsGroup.
pub(super) fn volume(names: &Names) -> Value {
    json!({"name": VOLUME, "secret": {"secretName": names.nodes(), "defaultMode": 0o440}})
}
