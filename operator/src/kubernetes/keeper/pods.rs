//! The pods of a cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Preconditions};
use weir_crds::KafkaCluster;

use super::super::context::Context;
use super::super::metrics::Metrics;
use super::super::objects::{
    CONTAINER, CONTROLLER_FILE_VARIABLE, HTTP_PORT_NAME, Names, broker_of_pod,
};
use super::trouble;
use super::words::in_words;
use crate::controller::Key;
use crate::controller::state::State;
use crate::store::kube::ours::{REVISION_LABEL, Taken, controller_of, if_ours, is_pod_of};
use crate::time::now;

/// The most pods whose events one pass reads; the next passes read those of the others.
const EVENTS_OF_MAX: usize = 3;

/// A broker's pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PodView {
    pub(super) id: i32,
    pub(super) name: String,
    pub(super) uid: String,
    /// The addresses of the pod: at most one of each family, the primary address first.
    pub(super) addresses: Vec<IpAddr>,
    /// The uid of the StatefulSet that controls it.
    pub(super) owner: Option<String>,
    /// Its container is ready.
    pub(super) ready: bool,
    /// The revision of its template.
    pub(super) revision: Option<String>,
    /// The ports of its listeners, by name.
    pub(super) ports: BTreeMap<String, u16>,
    /// Its template differs from the spec's. `None` while that is unknown, and for pods of another
    /// StatefulSet.
    pub(super) outdated: Option<bool>,
    pub(super) terminating: bool,
    /// It reads the controller's address again while it runs.
    pub(super) reads_address: bool,
    /// Its broker has not connected since this controller took over.
    pub(super) unheard: bool,
    /// The progress of its log recovery, while that keeps the broker from serving.
    pub(super) recovers: Option<String>,
    /// Why it does not serve, according to its status and its events.
    pub(super) trouble: Option<String>,
    /// Why its container ended before the last restart, or before the next; its broker may be
    /// recovering since.
    pub(super) crashed: Option<String>,
    /// Why its container ends repeatedly, although it serves now.
    pub(super) restarts: Option<String>,
    /// Its events may say more than its status.
    pub(super) asks_for_events: bool,
    /// When the kubelet took it on, while none of its containers has started.
    pub(super) begins: Option<Time>,
}

/// The pods of a cluster, and why Kubernetes refuses those that are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pods {
    pub(super) views: Vec<PodView>,
    /// Pods are missing, and this is why Kubernetes makes none.
    pub(super) refused: Option<String>,
}

impl From<Vec<PodView>> for Pods {
    fn from(views: Vec<PodView>) -> Self {
        Self { views, refused: None }
    }
}

impl FromIterator<PodView> for Pods {
    fn from_iter<I: IntoIterator<Item = PodView>>(views: I) -> Self {
        Self::from(Vec::from_iter(views))
    }
}

impl Deref for Pods {
    type Target = Vec<PodView>;

    fn deref(&self) -> &Self::Target {
        &self.views
    }
}

impl DerefMut for Pods {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.views
    }
}

/// Reads the pods, in the order of their brokers' ids. `compare` sets which of them are outdated.
pub(super) async fn read_pods(
    context: &Context,
    key: &Key,
    cluster: &KafkaCluster,
) -> anyhow::Result<Pods> {
    let names = Names::of(cluster);
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &key.namespace);
    let params = ListParams::default().labels(&names.selector_text());
    let listed = pods.list(&params).await.context("list the pods")?;
    let now = now();
    let mut views: Vec<PodView> =
        listed.items.iter().filter_map(|pod| view(&key.name, pod, &now)).collect();
    views.sort_by_key(|view| view.id);
    Ok(views.into())
}

/// Sets which pods differ from the current template of the cluster's StatefulSet.
pub(super) async fn compare(
    context: &Context,
    key: &Key,
    cluster_uid: &str,
    pods: &mut [PodView],
) -> anyhow::Result<()> {
    let sets: Api<StatefulSet> = Api::namespaced(context.client.clone(), &key.namespace);
    let set = sets.get_opt(&key.name).await.context("get the StatefulSet")?;
    let set = if_ours(set, cluster_uid);
    let uid = set.as_ref().and_then(|set| set.metadata.uid.clone());
    let wanted = set.as_ref().and_then(wanted_revision);
    pods.iter_mut().for_each(|pod| pod.compare(uid.as_deref(), wanted.as_deref()));
    Ok(())
}

/// Pods of somebody else with the names of brokers that have no pod.
pub(super) async fn taken(
    context: &Context,
    key: &Key,
    replicas: i32,
    pods: &[PodView],
) -> anyhow::Result<Vec<Taken>> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &key.namespace);
    let mut taken = Vec::new();
    for id in (0..replicas).filter(|id| pods.iter().all(|pod| pod.id != *id)) {
        let name = format!("{}-{id}", key.name);
        let found = api.get_metadata_opt(&name).await.context("get a pod")?;
        // A pod that the StatefulSet controller created a moment ago is not somebody else's; one
        // that it adopted is.
        let is_other = |metadata: &ObjectMeta| !is_pod_of(&key.name, metadata);
        if let Some(pod) = found.filter(|pod| is_other(&pod.metadata)) {
            taken.push(Taken::of("Pod", &key.namespace, &name, &pod.metadata));
        }
    }
    Ok(taken)
}

impl PodView {
    /// `set` is the uid of the cluster's StatefulSet, `wanted` its current revision.
    fn compare(&mut self, set: Option<&str>, wanted: Option<&str>) {
        let is_its = self.owner.is_some() && self.owner.as_deref() == set;
        self.outdated =
            wanted.filter(|_| is_its).map(|wanted| self.revision.as_deref() != Some(wanted));
    }
}

/// The revision that pods should have, once the StatefulSet controller has observed the last
/// change.
fn wanted_revision(set: &StatefulSet) -> Option<String> {
    let status = set.status.as_ref()?;
    (status.observed_generation >= set.metadata.generation)
        .then(|| status.update_revision.clone())
        .flatten()
}

fn view(cluster: &str, pod: &Pod, now: &Time) -> Option<PodView> {
    if !is_pod_of(cluster, &pod.metadata) {
        return None;
    }
    let name = pod.metadata.name.clone().unwrap_or_default();
    let revision = pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL));
    let status = pod.status.as_ref();
    let condition = |kind: &str| {
        status.and_then(|status| {
            status.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
        })
    };
    let trouble = trouble::trouble(&name, pod, now);
    Some(PodView {
        id: broker_of_pod(cluster, &name)?,
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        owner: controller_of(&pod.metadata).map(|owner| owner.uid.clone()),
        addresses: status.map(addresses).unwrap_or_default(),
        ready: condition("Ready").is_some_and(|condition| condition.status == "True"),
        revision: revision.cloned(),
        outdated: None,
        ports: ports(pod),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        reads_address: has_variable(pod, CONTROLLER_FILE_VARIABLE),
        unheard: false,
        recovers: None,
        asks_for_events: trouble::asks_for_events(pod, trouble.as_ref(), now),
        trouble,
        crashed: trouble::crashed(&name, pod),
        restarts: trouble::restarts(&name, pod, now),
        begins: trouble::begins(pod, now),
        name,
    })
}

fn addresses(status: &PodStatus) -> Vec<IpAddr> {
    let all = status.pod_ips.iter().flatten().map(|one| one.ip.as_str());
    let mut addresses: Vec<IpAddr> = status
        .pod_ip
        .as_deref()
        .into_iter()
        .chain(all)
        .filter_map(|text| text.parse().ok())
        .collect();
    // The primary address comes first.
    addresses.dedup();
    addresses
}

fn ports(pod: &Pod) -> BTreeMap<String, u16> {
    let containers = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .filter(|container| container.name == CONTAINER);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let listeners = ports.filter(|port| port.name.as_deref() != Some(HTTP_PORT_NAME));
    listeners
        .filter_map(|port| Some((port.name.clone()?, u16::try_from(port.container_port).ok()?)))
        .collect()
}

fn has_variable(pod: &Pod, name: &str) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut variables = containers.flat_map(|container| container.env.iter().flatten());
    variables.any(|variable| variable.name == name)
}

/// Adds to pods that do not serve the reasons beyond their current status. These are the end of the
/// last container, unless the broker recovers since, or the events of a pod that does not start.
/// Returns whether a pod is starting: no watch reports its events.
pub(super) async fn inspect(context: &Context, key: &Key, pods: &mut [PodView]) -> bool {
    for pod in pods.iter_mut().filter(|pod| pod.recovers.is_none()) {
        pod.trouble = pod.trouble.take().or_else(|| pod.crashed.clone());
    }
    let api: Api<Event> = Api::namespaced(context.client.clone(), &key.namespace);
    let is_beginning = |pod: &PodView| pod.begins.is_some() && pod.trouble.is_none();
    let is_one = pods.iter().any(is_beginning);
    let (now, mut looked_at) = (now(), 0);
    for pod in pods.iter_mut().filter(|pod| pod.recovers.is_none()) {
        let is_late = pod.begins.as_ref().is_some_and(|since| trouble::is_late(since, &now));
        let begins = is_beginning(pod) && is_late;
        if !(begins || pod.asks_for_events) || looked_at == EVENTS_OF_MAX {
            continue;
        }
        looked_at += 1;
        let fields = format!(
            "involvedObject.kind=Pod,involvedObject.name={},involvedObject.uid={}",
            pod.name, pod.uid
        );
        // Without permission to read events there is one hint less.
        let Ok(listed) = api.list(&ListParams::default().fields(&fields)).await else { continue };
        pod.trouble = if begins {
            trouble::told_by_events(&pod.name, &listed.items, &now)
        } else {
            trouble::with_events(&pod.name, pod.trouble.take(), &listed.items, &now)
        };
    }
    is_one
}

/// Why the StatefulSet controller creates no pods, such as a quota or a policy. Only its events say
/// so.
pub(super) async fn why_missing(context: &Context, key: &Key) -> Option<String> {
    let events: Api<Event> = Api::namespaced(context.client.clone(), &key.namespace);
    let fields = format!(
        "involvedObject.kind=StatefulSet,involvedObject.name={},reason=FailedCreate",
        key.name
    );
    // Without permission to read events there is one hint less.
    let listed = events.list(&ListParams::default().fields(&fields)).await.ok()?;
    let last = listed.items.into_iter().max_by_key(|event| event.last_timestamp.clone())?;
    let recent =
        last.last_timestamp.as_ref().is_some_and(|at| now().0.duration_since(at.0).as_secs() < 120);
    let said = in_words(last.message.as_deref().unwrap_or_default());
    recent.then(|| format!("pods are refused: {said}"))
}

/// Deletes a pod, if it is still the one that was read; its broker stops cleanly.
pub(super) async fn delete(
    context: &Context,
    key: &Key,
    name: &str,
    uid: &str,
) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &key.namespace);
    let params = DeleteParams::default()
        .preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    Metrics::count(&context.figures.writes);
    match pods.delete(name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("delete pod {name}")),
    }
}

/// One more than the highest id of a broker with replicas.
pub(super) fn brokers_held(state: &State) -> i32 {
    let partitions = state.topics.values().flat_map(|topic| &topic.partitions);
    partitions
        .flat_map(|partition| &partition.replicas)
        .map(|id| id.0 + 1)
        .max()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "orders-1", "generateName": "orders-", "uid": "u", "labels": {REVISION_LABEL: "orders-a"}, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "orders", "uid": "set", "controller": true},
            ]},
            "spec": {"containers": [{"name": "broker", "ports": [{"name": "plain", "containerPort": 9092}, {"name": "http", "containerPort": 9100}]}]},
            "status": status,
        }))
        .unwrap()
    }

    fn seen(cluster: &str, pod: &Pod) -> Option<PodView> {
        view(cluster, pod, &now())
    }

    #[test]
    fn a_pod_is_told_by_its_status() {
        let mut pod_view =
            seen("orders", &pod(json!({"conditions": [{"type": "Ready", "status": "True"}]})))
                .unwrap();
        assert_eq!(
            (pod_view.id, pod_view.ready, pod_view.outdated, &pod_view.trouble),
            (1, true, None, &None)
        );
        assert_eq!(pod_view.ports, [("plain".to_owned(), 9092)].into());
        for (wanted, outdated) in
            [(Some("orders-a"), Some(false)), (Some("orders-b"), Some(true)), (None, None)]
        {
            pod_view.compare(Some("set"), wanted);
            assert_eq!(pod_view.outdated, outdated);
            for set in [None, Some("another set")] {
                pod_view.compare(set, wanted);
                assert_eq!(pod_view.outdated, None, "it is not the cluster's");
            }
        }
        assert!(!pod_view.reads_address);
        let mut reads = pod(json!({}));
        let container = &mut reads.spec.as_mut().unwrap().containers[0];
        container.env = Some(
            serde_json::from_value(json!([{"name": "WEIR_CONTROLLER_FILE", "value": "f"}]))
                .unwrap(),
        );
        assert!(seen("orders", &reads).unwrap().reads_address);
        let mut others = pod(json!({}));
        others
            .metadata
            .owner_references
            .iter_mut()
            .flatten()
            .for_each(|owner| owner.kind = "Job".to_owned());
        assert_eq!(seen("orders", &others), None);
        assert!(!seen("orders", &pod(json!({}))).unwrap().ready);
        assert_eq!(seen("others", &pod(json!({}))), None);
    }

    #[test]
    fn a_pod_has_an_address_of_each_family() {
        let cases = [
            (json!({}), vec![]),
            (json!({"podIP": "10.0.0.7"}), vec!["10.0.0.7"]),
            (json!({"podIP": "fd00::7", "podIPs": [{"ip": "fd00::7"}]}), vec!["fd00::7"]),
            (
                json!({"podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]}),
                vec!["10.0.0.7", "fd00::7"],
            ),
        ];
        for (status, expected) in cases {
            let found = seen("orders", &pod(status)).unwrap().addresses;
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        }
    }
}
