//! The namespaces from which a cluster takes Topics and ConsumerGroups, by its
//! `spec.allowedNamespaces` and the namespaces' labels.
//!
//! The operator watches labels only once a cluster uses a selector, so without one it needs no
//! right to read namespaces.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::Api;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use tokio::sync::Notify;
use tracing::{debug, warn};
use weir_crds::{KafkaCluster, NamespacesFrom};

use super::watch::{Change, changes};
use crate::controller::Key;
use crate::verdict::Verdict;

/// The most time for the answer whether a namespace is being deleted.
const ANSWER_MAX: Duration = Duration::from_secs(5);

type Labels = BTreeMap<String, String>;

/// The cached labels of the namespaces.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    inner: Mutex<Inner>,
    needed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// The labels of each namespace.
    labels: BTreeMap<String, Labels>,
    /// The watch has listed all namespaces.
    is_listed: bool,
    /// Why the labels are not current, or not known yet.
    trouble: Option<String>,
}

impl Namespaces {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a cluster takes the resources of a namespace.
    pub(super) fn verdict(&self, cluster: &KafkaCluster, namespace: &str) -> Verdict {
        let home = cluster.metadata.namespace.as_deref().unwrap_or_default();
        let name = cluster.metadata.name.as_deref().unwrap_or_default();
        if namespace == home {
            return Verdict::Allowed;
        }
        let allowed = &cluster.spec.allowed_namespaces;
        let selector = match (allowed.from, &allowed.selector) {
            (NamespacesFrom::All, _) => return Verdict::Allowed,
            (NamespacesFrom::Selector, Some(selector)) => selector,
            (NamespacesFrom::Same | NamespacesFrom::Selector, _) => {
                let message = format!(
                    "the KafkaCluster {home}/{name} takes resources of its own namespace alone: its spec.allowedNamespaces may name {namespace:?}, too"
                );
                return Verdict::NotAllowed(message);
            }
        };
        self.needed.notify_one();
        let inner = self.inner();
        let labels = Some(&inner.labels).filter(|_| inner.is_listed);
        match (labels, &inner.trouble) {
            (Some(labels), _)
                if labels.get(namespace).is_some_and(|labels| selector.matches(labels)) =>
            {
                Verdict::Allowed
            }
            (Some(_), _) => {
                let message = format!(
                    "spec.allowedNamespaces.selector of the KafkaCluster {home}/{name} does not match the labels of the namespace {namespace:?}"
                );
                Verdict::NotAllowed(message)
            }
            (None, Some(trouble)) => Verdict::Unknown(format!(
                "the operator cannot read the labels of namespaces, by which the KafkaCluster {home}/{name} goes ({trouble}): grant it get, list and watch on namespaces (rbac.clusterReader in the chart)"
            )),
            (None, None) => Verdict::Pending,
        }
    }

    fn handle(&self, change: Change<PartialObjectMeta<Namespace>>) {
        let mut inner = self.inner();
        match change {
            Change::Applied(PartialObjectMeta { metadata, .. }) => {
                let labels = metadata.labels.unwrap_or_default();
                inner.labels.insert(metadata.name.unwrap_or_default(), labels);
            }
            Change::Deleted(key, _) => drop(inner.labels.remove(&key.name)),
            Change::Listed(_) => (inner.is_listed, inner.trouble) = (true, None),
        }
    }
}

/// Watches the labels of all namespaces from the first time that a cluster needs them.
pub(super) async fn watch(client: Client, namespaces: Arc<Namespaces>) -> Infallible {
    namespaces.needed.notified().await;
    let api: Api<DeserializeGuard<PartialObjectMeta<Namespace>>> = Api::all(client);
    let changes = changes(api, 0);
    pin_mut!(changes);
    loop {
        match changes.next().await {
            Some(Ok(change)) => namespaces.handle(change),
            Some(Err(error)) => {
                warn!(%error, "cannot watch namespaces; trying again");
                namespaces.inner().trouble = Some(error.to_string());
            }
            None => std::future::pending().await,
        }
    }
}

/// Whether a namespace is being deleted, or gone; false if the API server does not say.
pub(super) async fn is_going(client: &Client, namespace: &str) -> bool {
    let api: Api<Namespace> = Api::all(client.clone());
    match tokio::time::timeout(ANSWER_MAX, api.get_metadata_opt(namespace)).await {
        Ok(Ok(found)) => found.is_none_or(|found| found.metadata.deletion_timestamp.is_some()),
        Ok(Err(error)) => {
            debug!(namespace, %error, "look whether a namespace is being deleted");
            false
        }
        Err(_) => false,
    }
}

/// The key of a resource's cluster.
pub(super) fn cluster_of(namespace: &str, named: &weir_crds::ClusterRef) -> Key {
    Key::new(Some(named.namespace_from(namespace)), Some(&named.name))
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;
    use serde_json::{Value, json};

    use super::*;

    fn cluster(allowed: Value) -> KafkaCluster {
        let object = json!({
            "apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"namespace": "kafka", "name": "c"}, "spec": {"allowedNamespaces": allowed},
        });
        serde_json::from_value(object).unwrap()
    }

    fn named(name: &str, team: &str) -> Change<PartialObjectMeta<Namespace>> {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([("team".to_owned(), team.to_owned())].into()),
            ..ObjectMeta::default()
        };
        Change::Applied(PartialObjectMeta { metadata, ..PartialObjectMeta::default() })
    }

    #[test]
    fn a_cluster_takes_from_where_it_says() {
        let namespaces = Namespaces::default();
        let said = |allowed: Value, namespace: &str| match namespaces
            .verdict(&cluster(allowed), namespace)
        {
            Verdict::Allowed => "allowed".to_owned(),
            Verdict::Pending => "pending".to_owned(),
            Verdict::NotAllowed(message) | Verdict::Unknown(message) => message,
        };
        for allowed in [
            json!({}),
            json!({"from": "Same"}),
            json!({"from": "All"}),
            json!({"from": "Selector", "selector": {"matchLabels": {"team": "x"}}}),
        ] {
            assert_eq!(said(allowed, "kafka"), "allowed", "its own");
        }
        assert!(said(json!({}), "a").contains("its spec.allowedNamespaces may name \"a\", too"));
        assert_eq!(said(json!({"from": "All"}), "a"), "allowed");
        let selector = || json!({"from": "Selector", "selector": {"matchLabels": {"team": "x"}}});
        assert_eq!(said(selector(), "a"), "pending", "not listed yet");
        namespaces.inner().trouble = Some("forbidden".to_owned());
        assert!(said(selector(), "a").contains("(forbidden): grant it"));
        let hear = |change| namespaces.handle(change);
        hear(named("a", "x"));
        assert!(said(selector(), "a").contains("(forbidden)"), "not all are listed");
        hear(named("b", "y"));
        hear(Change::Listed(0));
        assert_eq!(said(selector(), "a"), "allowed");
        assert!(said(selector(), "b").contains("does not match"));
        hear(named("b", "x"));
        hear(named("a", "y"));
        assert_eq!(said(selector(), "b"), "allowed");
        assert!(said(selector(), "a").contains("does not match"));
        hear(Change::Deleted(Key::new(None, Some("b")), None));
        assert!(said(selector(), "b").contains("does not match"), "there is no such namespace");
        // The known labels stay in use while the watch fails.
        hear(named("b", "x"));
        namespaces.inner().trouble = Some("away".to_owned());
        assert_eq!(said(selector(), "b"), "allowed");
    }

    #[test]
    fn a_cluster_is_meant_in_the_resources_namespace_unless_it_says_another() {
        let of = |reference: Value| {
            cluster_of("a", &serde_json::from_value(reference).unwrap()).to_string()
        };
        assert_eq!(of(json!({"name": "c"})), "a/c");
        assert_eq!(of(json!({"name": "c", "namespace": "kafka"})), "kafka/c");
    }
}
