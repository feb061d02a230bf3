//! PURE: the names and labels of a cluster's objects.

use std::borrow::Cow;
use std::collections::BTreeMap;

use weir_crds::{KafkaCluster, Listener, ListenerType};

use super::{MANAGED_BY, MANAGER};
use crate::store::kube::CLUSTER_LABEL;

/// The port of the default listener.
const PLAIN_PORT: u16 = 9092;

/// The names of a cluster's objects.
#[derive(Clone, Debug)]
pub(in crate::kubernetes) struct Names {
    /// The cluster's name.
    pub(in crate::kubernetes) cluster: String,
    /// Its namespace.
    pub(in crate::kubernetes) namespace: String,
}

impl Names {
    pub(in crate::kubernetes) fn of(cluster: &KafkaCluster) -> Self {
        Self {
            cluster: cluster.metadata.name.clone().unwrap_or_default(),
            namespace: cluster.metadata.namespace.clone().unwrap_or_default(),
        }
    }

    /// The headless service, the ServiceAccount and the ConfigMap.
    pub(in crate::kubernetes) fn brokers(&self) -> String {
        format!("{}-brokers", self.cluster)
    }

    /// A broker's pod, and its own service, which exists as long as the broker.
    pub(in crate::kubernetes) fn broker(&self, id: i32) -> String {
        format!("{}-{id}", self.cluster)
    }

    /// The Secret with the certificate and the key of the cluster's CA.
    pub(in crate::kubernetes) fn authority(&self) -> String {
        format!("{}-ca", self.cluster)
    }

    /// The Secret with the CA's certificate alone, which clients mount.
    pub(in crate::kubernetes) fn authority_for_clients(&self) -> String {
        format!("{}-ca-cert", self.cluster)
    }

    /// The Secret with the listeners' certificates that the CA has issued.
    pub(in crate::kubernetes) fn issued(&self) -> String {
        format!("{}-tls", self.cluster)
    }

    /// The Secret of the CA of the nodes, by which brokers and controller know one another.
    pub(in crate::kubernetes) fn nodes_authority(&self) -> String {
        format!("{}-nodes-ca-key", self.cluster)
    }

    /// The Secret of the brokers' certificates among nodes.
    pub(in crate::kubernetes) fn nodes(&self) -> String {
        format!("{}-nodes", self.cluster)
    }

    /// The disruption budget of the brokers that cannot be evicted.
    pub(in crate::kubernetes) fn held(&self) -> String {
        format!("{}-held", self.cluster)
    }

    /// The volume claim of a broker.
    pub(in crate::kubernetes) fn claim(&self, id: i32) -> String {
        format!("data-{}-{id}", self.cluster)
    }

    /// The service that selects any ready broker.
    pub(in crate::kubernetes) fn bootstrap(&self) -> String {
        format!("{}-bootstrap", self.cluster)
    }

    /// As [`Self::bootstrap`], of a listener for clients outside. No listener is called `bootstrap`
    /// or `brokers`, and no name begins with a digit. So no other cluster can have a service of
    /// this name.
    pub(in crate::kubernetes) fn listener_bootstrap(&self, listener: &str) -> String {
        format!("{}-bootstrap-{listener}", self.cluster)
    }

    /// The service of a broker on a listener for clients outside.
    pub(in crate::kubernetes) fn listener_broker(&self, listener: &str, id: i32) -> String {
        format!("{}-{id}-{listener}", self.cluster)
    }

    /// The labels that select the brokers' pods.
    pub(in crate::kubernetes) fn selector(&self) -> BTreeMap<String, String> {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        [
            label("app.kubernetes.io/name", "weir"),
            label("app.kubernetes.io/component", "broker"),
            label(CLUSTER_LABEL, &self.cluster),
        ]
        .into()
    }

    /// The labels of every object.
    pub(in crate::kubernetes) fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector();
        labels.insert("app.kubernetes.io/instance".to_owned(), self.cluster.clone());
        labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
        labels
    }

    /// A selector in the form that `kubectl get -l` takes.
    pub(in crate::kubernetes) fn selector_text(&self) -> String {
        let pairs: Vec<String> =
            self.selector().iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join(",")
    }
}

/// The broker's id at the end of the name of a pod or claim.
pub(in crate::kubernetes) fn broker_of_pod(cluster: &str, pod: &str) -> Option<i32> {
    pod.strip_prefix(cluster)?.strip_prefix('-')?.parse().ok()
}

/// The cluster's listeners: those of the resource, or the default one.
pub(in crate::kubernetes) fn listeners(cluster: &KafkaCluster) -> Cow<'_, [Listener]> {
    if cluster.spec.listeners.is_empty() {
        Cow::Owned(vec![Listener {
            name: "plain".to_owned(),
            port: PLAIN_PORT,
            kind: ListenerType::Internal,
            host: None,
            tls: None,
            sasl: None,
            annotations: BTreeMap::new(),
        }])
    } else {
        Cow::Borrowed(&cluster.spec.listeners)
    }
}
