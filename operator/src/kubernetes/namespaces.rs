//! Which namespaces a cluster takes Topics and ConsumerGroups from, by its `spec.allowedNamespaces` and the labels of the namespaces.
//!
//! Labels are only watched once a cluster goes by them: whoever names no selector needs no right to read namespaces.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ObjectMeta};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use tokio::sync::Notify;
use tracing::{debug, warn};
use weir_crds::{KafkaCluster, NamespacesFrom};

use super::Context;
use super::clusters::metadata_of;
use super::topics::Key;

/// How long the API server may take to say whether a namespace is being deleted.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Why a cluster in another namespace does not take a resource: a word for a condition.
pub(super) const NOT_ALLOWED: &str = "NotAllowedByCluster";
/// Why nobody knows whether it does.
pub(super) const NOT_READABLE: &str = "NamespaceNotReadable";

/// Whether a cluster takes the resources of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It does.
    Allowed,
    /// It does not; what helps.
    NotAllowed(String),
    /// The labels of the namespace cannot be read; why.
    Unknown(String),
    /// They are being read.
    Pending,
}

type Labels = BTreeMap<String, String>;

/// What is known of the namespaces.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    held: Mutex<Held>,
    needed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    /// `None` before they were listed.
    labels: Option<BTreeMap<String, Labels>>,
    /// Why they are not known any more, or not yet.
    trouble: Option<String>,
}

impl Namespaces {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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
        let held = self.held();
        match (&held.labels, &held.trouble) {
            (Some(labels), _) if labels.get(namespace).is_some_and(|labels| selector.matches(labels)) => Verdict::Allowed,
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

    fn hear(&self, listing: &mut BTreeMap<String, Labels>, event: Event<ObjectMeta>) {
        let entry = |metadata: ObjectMeta| {
            let labels = metadata.labels.unwrap_or_default();
            (metadata.name.unwrap_or_default(), labels)
        };
        match event {
            Event::Init => listing.clear(),
            Event::InitApply(metadata) => listing.extend([entry(metadata)]),
            Event::InitDone => {
                let mut held = self.held();
                (held.labels, held.trouble) = (Some(std::mem::take(listing)), None);
            }
            Event::Apply(metadata) => {
                let mut held = self.held();
                held.labels.get_or_insert_default().extend([entry(metadata)]);
            }
            Event::Delete(metadata) => {
                let name = metadata.name.unwrap_or_default();
                self.held().labels.get_or_insert_default().remove(&name);
            }
        }
    }
}

/// Watches the labels of all namespaces, once somebody needs them.
pub(super) async fn watch(context: Context) -> Infallible {
    let namespaces = &context.namespaces;
    namespaces.needed.notified().await;
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(context.client.clone());
    let events = watch_objects(api, watcher::Config::default()).default_backoff();
    pin_mut!(events);
    let mut listing = BTreeMap::new();
    loop {
        match events.next().await {
            Some(Ok(event)) => namespaces.hear(&mut listing, metadata_of(event)),
            Some(Err(error)) => {
                warn!(%error, "watch namespaces");
                namespaces.held().trouble = Some(error.to_string());
            }
            None => std::future::pending().await,
        }
    }
}

/// Whether a namespace is being deleted, or gone. Where that cannot be found out, it is not.
pub(super) async fn is_going(context: &Context, namespace: &str) -> bool {
    let api: Api<Namespace> = Api::all(context.client.clone());
    match tokio::time::timeout(ANSWER_MAX, api.get_metadata_opt(namespace)).await {
        Ok(Ok(found)) => found.is_none_or(|found| found.metadata.deletion_timestamp.is_some()),
        Ok(Err(error)) => {
            debug!(namespace, %error, "look whether a namespace is being deleted");
            false
        }
        Err(_) => false,
    }
}

/// Where a resource's cluster lies.
pub(super) fn cluster_of(namespace: &str, named: &weir_crds::ClusterRef) -> Key {
    Key::new(Some(named.namespace_from(namespace)), Some(&named.name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cluster(allowed: Value) -> KafkaCluster {
        let object = json!({
            "apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"namespace": "kafka", "name": "c"}, "spec": {"allowedNamespaces": allowed},
        });
        serde_json::from_value(object).unwrap()
    }

    fn named(name: &str, team: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([("team".to_owned(), team.to_owned())].into()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_cluster_takes_from_where_it_says() {
        let namespaces = Namespaces::default();
        let said = |allowed: Value, namespace: &str| match namespaces.verdict(&cluster(allowed), namespace) {
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
        namespaces.held().trouble = Some("forbidden".to_owned());
        assert!(said(selector(), "a").contains("(forbidden): grant it"));
        let mut listing = BTreeMap::new();
        let mut hear = |event| namespaces.hear(&mut listing, event);
        hear(Event::Init);
        hear(Event::InitApply(named("a", "x")));
        assert!(said(selector(), "a").contains("(forbidden)"), "not all are listed");
        hear(Event::InitApply(named("b", "y")));
        hear(Event::InitDone);
        assert_eq!(said(selector(), "a"), "allowed");
        assert!(said(selector(), "b").contains("does not match"));
        hear(Event::Apply(named("b", "x")));
        hear(Event::Apply(named("a", "y")));
        assert_eq!(said(selector(), "b"), "allowed");
        assert!(said(selector(), "a").contains("does not match"));
        hear(Event::Delete(named("b", "x")));
        assert!(said(selector(), "b").contains("does not match"), "there is no such namespace");
        // What was known stays known while the watch is away.
        hear(Event::Apply(named("b", "x")));
        namespaces.held().trouble = Some("away".to_owned());
        assert_eq!(said(selector(), "b"), "allowed");
    }

    #[test]
    fn a_cluster_is_meant_in_the_resources_namespace_unless_it_says_another() {
        let of = |reference: Value| cluster_of("a", &serde_json::from_value(reference).unwrap()).to_string();
        assert_eq!(of(json!({"name": "c"})), "a/c");
        assert_eq!(of(json!({"name": "c", "namespace": "kafka"})), "kafka/c");
    }
}
