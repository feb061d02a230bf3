//! PURE: TLS of a cluster's listeners: the names in their certificates, the Secrets, and what the
//! brokers' pods mount.
//!
//! One volume has the files of all listeners, so that Kubernetes exchanges them all at once. What
//! a broker is told stands in its arguments, not in variables: a version that knows no TLS then
//! does not start, where it would serve the listener without.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde_json::{Value, json};
use weir_crds::{KafkaCluster, Listener, ListenerStatus, ListenerType, Tls};
use weir_protocol::address;

use super::names::{Names, listeners};
use super::object_meta::plain_metadata;
use crate::authority::{Authority, Hosts, Pair, host};
use crate::listener::{CAS, CERTIFICATE, CLIENT_CAS, KEY, keys_of, sasl_flag, tls_flags};

/// The directory of the listeners' files in a broker.
const DIRECTORY: &str = "/etc/weir-tls";

/// The volume with them.
const VOLUME: &str = "tls";

/// The domain of services' names, unless the Kubernetes cluster has another one.
const DOMAIN: &str = "cluster.local";

/// The listeners with TLS.
pub(in crate::kubernetes) fn secured(cluster: &KafkaCluster) -> Vec<(Listener, Tls)> {
    let all = listeners(cluster).into_owned().into_iter();
    all.filter_map(|listener| Some((listener.clone(), listener.tls?))).collect()
}

/// The Secrets of users that the pods mount: the field of each, its name, and its keys.
pub(in crate::kubernetes) fn secrets_of_users(
    cluster: &KafkaCluster,
) -> Vec<(String, String, &'static [&'static str])> {
    let mut all = Vec::new();
    for (listener, tls) in secured(cluster) {
        let field = |name: &str| format!("spec.listeners[{}].tls.{name}", listener.name);
        if let Some(secret) = tls.certificate_secret {
            let keys: &[&str] = &[CERTIFICATE, KEY];
            all.push((field("certificateSecret"), secret.name, keys));
        }
        if let Some(clients) = tls.client_authentication {
            let keys: &[&str] = &[CAS];
            all.push((field("clientAuthentication.caSecret"), clients.ca_secret.name, keys));
        }
    }
    all
}

/// The names and addresses by which clients reach a listener.
pub(in crate::kubernetes) fn hosts(
    cluster: &KafkaCluster,
    listener: &Listener,
    replicas: i32,
    told: Option<&ListenerStatus>,
) -> Hosts {
    let names = Names::of(cluster);
    let mut hosts = Hosts::new();
    let mut service = |name: &str| {
        let namespace = &names.namespace;
        hosts.insert(name.to_owned());
        for end in ["", ".svc", &format!(".svc.{DOMAIN}")] {
            hosts.insert(format!("{name}.{namespace}{end}"));
        }
    };
    if listener.kind == ListenerType::Internal {
        service(&names.bootstrap());
        hosts.insert(format!("*.{}.{}.svc", names.brokers(), names.namespace));
        // Only the form that brokers advertise, since there may be many.
        hosts.extend(
            (0..replicas).map(|id| format!("{}.{}.svc", names.broker(id), names.namespace)),
        );
    } else {
        service(&names.listener_bootstrap(&listener.name));
        if let Some(own) = &listener.host {
            hosts.extend(
                (0..replicas).map(|id| host(&own.replace(Listener::BROKER, &id.to_string()))),
            );
        }
    }
    let told = told
        .into_iter()
        .flat_map(|told| told.bootstrap.split(',').chain(told.brokers.iter().map(String::as_str)));
    hosts.extend(told.filter_map(|address| Some(host(address::split(address)?.0))));
    hosts
}

/// The Secrets of the CA, and of what it has issued by listener.
pub(in crate::kubernetes) fn secrets(
    cluster: &KafkaCluster,
    authority: &Authority,
    issued: &BTreeMap<String, Pair>,
) -> Vec<Value> {
    let names = Names::of(cluster);
    let own = authority.pair();
    let of_listeners = issued.iter().flat_map(|(listener, pair)| {
        let [certificate, key] = keys_of(listener);
        [entry(&certificate, pair.certificate.as_bytes()), entry(&key, pair.key.expose())]
    });
    vec![
        authority_secret(cluster, &names.authority(), authority),
        secret(
            cluster,
            &names.authority_for_clients(),
            "Opaque",
            [entry(CAS, own.certificate.as_bytes())].into(),
        ),
        secret(cluster, &names.issued(), "Opaque", of_listeners.collect()),
    ]
}

/// A Secret of the cluster.
pub(super) fn secret(
    cluster: &KafkaCluster,
    name: &str,
    kind: &str,
    data: BTreeMap<String, ByteString>,
) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": plain_metadata(cluster, &Names::of(cluster), name),
        "type": kind,
        "data": data,
    })
}

/// The Secret of a CA, for the operator.
fn authority_secret(cluster: &KafkaCluster, name: &str, authority: &Authority) -> Value {
    let own = authority.pair();
    let data = [entry(CERTIFICATE, own.certificate.as_bytes()), entry(KEY, own.key.expose())];
    secret(cluster, name, "kubernetes.io/tls", data.into())
}

/// A value of a Secret, with its key.
pub(super) fn entry(name: &str, bytes: &[u8]) -> (String, ByteString) {
    (name.to_owned(), ByteString(bytes.to_vec()))
}

/// The CA in its Secret.
pub(in crate::kubernetes) fn authority_in(data: &BTreeMap<String, ByteString>) -> Option<Pair> {
    pair_in(data, CERTIFICATE, KEY)
}

/// A listener's certificate in the Secret of what the CA has issued.
pub(in crate::kubernetes) fn issued_in(
    data: &BTreeMap<String, ByteString>,
    listener: &str,
) -> Option<Pair> {
    let [certificate, key] = keys_of(listener);
    pair_in(data, &certificate, &key)
}

/// All certificates in that Secret, by listener.
pub(in crate::kubernetes) fn all_issued_in(
    data: &BTreeMap<String, ByteString>,
) -> impl Iterator<Item = (String, Pair)> {
    let listeners = data.keys().filter_map(|key| key.strip_suffix(".crt"));
    listeners.filter_map(|listener| Some((listener.to_owned(), issued_in(data, listener)?)))
}

pub(super) fn pair_in(
    data: &BTreeMap<String, ByteString>,
    certificate: &str,
    key: &str,
) -> Option<Pair> {
    Some(Pair {
        certificate: String::from_utf8(data.get(certificate)?.0.clone()).ok()?,
        key: data.get(key)?.0.clone().into(),
    })
}

/// What brokers are told of their listeners.
pub(super) fn arguments(cluster: &KafkaCluster) -> Vec<String> {
    let of_tls = secured(cluster).into_iter().flat_map(|(listener, tls)| {
        tls_flags(&listener, &tls, &format!("{DIRECTORY}/{}", listener.name))
    });
    let listeners = listeners(cluster);
    let all = of_tls.chain(listeners.iter().filter_map(sasl_flag));
    // Kubernetes would take `$(...)`, which mapping rules may have, for a variable.
    all.map(|(flag, value)| format!("{flag}={}", value.replace("$(", "$$("))).collect()
}

/// The mount of the listeners' files, if there are any.
pub(super) fn mount(cluster: &KafkaCluster) -> Option<Value> {
    let is_secured = !secured(cluster).is_empty();
    is_secured.then(|| json!({"name": VOLUME, "mountPath": DIRECTORY, "readOnly": true}))
}

/// The volume of the listeners' files, if there are any: a folder for each listener.
pub(super) fn volume(cluster: &KafkaCluster, names: &Names) -> Option<Value> {
    let mut sources = Vec::new();
    for (listener, tls) in secured(cluster) {
        let item = |key: &str, file: &str| json!({"key": key, "path": format!("{}/{file}", listener.name)});
        let mut source = |name: &str, items: Vec<Value>| {
            sources.push(json!({"secret": {"name": name, "items": items}}));
        };
        match &tls.certificate_secret {
            Some(secret) => {
                source(&secret.name, vec![item(CERTIFICATE, CERTIFICATE), item(KEY, KEY)]);
            }
            None => {
                let [certificate, key] = keys_of(&listener.name);
                source(&names.issued(), vec![item(&certificate, CERTIFICATE), item(&key, KEY)]);
            }
        }
        if let Some(clients) = &tls.client_authentication {
            source(&clients.ca_secret.name, vec![item(CAS, CLIENT_CAS)]);
        }
    }
    let is_secured = !sources.is_empty();
    // The pod's group reads it; see fsGroup.
    is_secured
        .then(|| json!({"name": VOLUME, "projected": {"defaultMode": 0o440, "sources": sources}}))
}
