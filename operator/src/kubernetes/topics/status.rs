//! The statuses of topics: a summary for people, written when it changes, at a limited rate, and
//! never read back.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::Resource as _;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tracing::{debug, warn};
use weir_crds::{KafkaCluster, Topic, TopicStatus};

use super::super::context::Context;
use super::super::events::publish;
use super::super::metrics::Metrics;
use super::super::sizes::{Sizes, shown};
use super::conditions;
use super::hosted::Hosted;
use crate::conditions::{ConditionValue, condition};
use crate::controller::state::State;
use crate::controller::{Key, TOPIC_ID_ANNOTATION, summary};
use crate::store::kube::cluster_cache::TopicEntry;
use crate::time::now;

/// The most statuses written at the same time, so that the partition tables' writes are not
/// delayed.
const AT_ONCE: usize = 8;

/// The least time between two rounds, and between two writes of one topic's status.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(100);
const BETWEEN_WRITES: Duration = Duration::from_secs(2);

/// How often a deleted resource is created again; its namespace may be gone for good.
const BRING_BACK_EVERY: Duration = Duration::from_secs(5);

/// The longest time between two rounds; it also keeps the success metric current.
const WITHOUT_REASON: Duration = Duration::from_secs(60);

/// A status to write.
pub(super) struct Due {
    pub(super) key: Key,
    uid: Option<String>,
    before: TopicStatus,
    pub(super) status: TopicStatus,
}

fn topics(context: &Context, namespace: &str) -> Api<Topic> {
    Api::namespaced(context.client.clone(), namespace)
}

/// Keeps the statuses of a cluster's topics current.
pub(in crate::kubernetes) async fn keep_statuses(context: Context, hosted: Hosted) -> Infallible {
    let mut committed = hosted.controller.committed();
    let mut sizes = hosted.sizes.clone();
    let mut tried: BTreeMap<Key, Instant> = BTreeMap::new();
    loop {
        let state = committed.borrow_and_update().clone();
        let (due, wake_in) = due(&state, &hosted, &now());
        let mut writes = Vec::with_capacity(due.len());
        for due in &due {
            writes.push(write(&context, &hosted, due));
        }
        let written: Vec<bool> = stream::iter(writes).buffer_unordered(AT_ONCE).collect().await;
        if written.into_iter().all(|is_written| is_written) {
            context.figures.succeeded(
                "Topic",
                (hosted.cluster.namespace.clone(), hosted.cluster.name.clone()),
            );
        }
        let lost = lost(&state, &hosted);
        tried.retain(|key, at| {
            at.elapsed() < BRING_BACK_EVERY
                && lost.iter().any(|topic| Key::of(&topic.metadata) == *key)
        });
        for topic in lost {
            if let Entry::Vacant(untried) = tried.entry(Key::of(&topic.metadata)) {
                untried.insert(Instant::now());
                restore_topic(&context, &topic).await;
            }
        }
        tokio::time::sleep(BETWEEN_ROUNDS).await;
        tokio::select! {
            changed = committed.changed() => if changed.is_err() {
                // The controller has ended, and this task ends soon.
                std::future::pending::<()>().await;
            },
            () = hosted.cache.wait() => {}
            () = sizes.changed() => {}
            () = tokio::time::sleep(wake_in.unwrap_or(WITHOUT_REASON)) => {}
        }
    }
}

/// The statuses that differ, and when the next ones will.
pub(super) fn due(state: &State, hosted: &Hosted, now: &Time) -> (Vec<Due>, Option<Duration>) {
    let mut due = Vec::new();
    let mut wake_in: Option<Duration> = None;
    for (key, entry) in hosted.cache.topics() {
        let status = status_of(state, &hosted.sizes, &key, &entry, now);
        let Some(status) = status.filter(|status| *status != entry.status) else {
            continue;
        };
        let early = entry
            .status_written_at
            .map(|at| BETWEEN_WRITES.saturating_sub(at.elapsed()))
            .filter(|left| !left.is_zero());
        match early {
            Some(left) => wake_in = Some(wake_in.map_or(left, |other| other.min(left))),
            None => due.push(Due { key, uid: entry.uid, before: entry.status, status }),
        }
    }
    (due, wake_in)
}

/// The status, once the controller has answered for the resource.
fn status_of(
    state: &State,
    sizes: &Sizes,
    key: &Key,
    entry: &TopicEntry,
    now: &Time,
) -> Option<TopicStatus> {
    entry.answered?;
    let before = &entry.status.conditions;
    let of = |kind: &str, judgement: ConditionValue| {
        condition(kind, judgement, entry.answered, before, now)
    };
    let topic = state.topic_by_resource(key);
    let accepted =
        entry.allowed.as_ref().map(|verdict| conditions::accepted(verdict, topic.is_some()));
    let Some(topic) = topic else {
        // Refused, or not accepted yet.
        let refused = entry.refusal.as_ref().map(conditions::refused);
        let why = refused.or_else(|| accepted.clone().filter(|accepted| !accepted.is_true()))?;
        return Some(TopicStatus {
            observed_generation: entry.answered,
            conditions: std::iter::once(of("Ready", why))
                .chain(accepted.map(|accepted| of("Accepted", accepted)))
                .collect(),
            ..TopicStatus::default()
        });
    };
    let min_isr = state
        .topic_setting(topic, "min.insync.replicas")
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_usize);
    // With fewer replicas than that, all of them count.
    let min_isr = min_isr
        .min(topic.partitions.iter().map(|partition| partition.replicas.len()).min().unwrap_or(1));
    Some(TopicStatus {
        observed_generation: entry.answered,
        topic_id: Some(topic.id.to_string()),
        partitions: Some(summary(topic.partitions.iter())),
        bytes: shown(entry.status.bytes, sizes.of(topic.id)),
        conditions: [
            Some(of("Ready", conditions::ready(topic, min_isr, entry.refusal.as_ref()))),
            Some(of("Healthy", conditions::healthy(topic))),
            accepted.map(|accepted| of("Accepted", accepted)),
        ]
        .into_iter()
        .flatten()
        .collect(),
    })
}

/// Writes a status; returns whether it is written now.
async fn write(context: &Context, hosted: &Hosted, due: &Due) -> bool {
    let (key, api) = (&due.key, topics(context, &due.key.namespace));
    // Absent fields become null, so that the patch removes them.
    let patch = json!({"metadata": {"uid": due.uid}, "status": {
        "observedGeneration": due.status.observed_generation,
        "topicId": due.status.topic_id,
        "partitions": due.status.partitions,
        "bytes": due.status.bytes,
        "conditions": due.status.conditions,
    }});
    Metrics::count(&context.figures.writes);
    let written = api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
    let is_written = !matches!(&written, Err(error) if !is_gone(error));
    match written {
        Ok(_) => hosted.cache.written(key, &due.status),
        Err(error) if is_gone(&error) => {
            debug!(topic = %key, "the Topic is gone: its status is not written")
        }
        Err(error) => {
            warn!(topic = %key, %error, "cannot write the status of a Topic; it is tried again");
            // It is tried again, after the same wait as any other write.
            hosted.cache.written(key, &due.before);
            hosted.cache.changed();
        }
    }
    publish_events(context, due).await;
    is_written
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}

/// Publishes an event for each change of readiness, except the first `Ready`. It also publishes
/// when the cluster accepts or drops the Topic later.
async fn publish_events(context: &Context, due: &Due) {
    let named = |status: &TopicStatus, kind: &str| {
        status.conditions.iter().find(|condition| condition.type_ == kind).cloned()
    };
    for kind in ["Ready", "Accepted"] {
        let (before, Some(after)) = (named(&due.before, kind), named(&due.status, kind)) else {
            continue;
        };
        let is_news = match before {
            Some(before) => {
                (before.status, before.reason) != (after.status.clone(), after.reason.clone())
            }
            None => {
                kind == "Ready" && after.status == "False" && after.reason != "WaitingForBrokers"
            }
        };
        if is_news {
            let regarding = ObjectReference {
                api_version: Some(weir_crds::API_VERSION.to_owned()),
                kind: Some("Topic".to_owned()),
                name: Some(due.key.name.clone()),
                namespace: Some(due.key.namespace.clone()),
                uid: due.uid.clone(),
                ..ObjectReference::default()
            };
            publish(
                context,
                &regarding,
                after.status == "True",
                &after.reason,
                &after.message,
                "Judge",
            )
            .await;
        }
    }
}

/// The missing resources of retained topics, in their last observed form. Until the controller
/// refuses the deletion, it may still accept a change of the policy before it.
pub(super) fn lost(state: &State, hosted: &Hosted) -> Vec<Topic> {
    let retained = state
        .topics
        .values()
        .filter(|topic| topic.resource.spec.deletion_policy == weir_crds::DeletionPolicy::Retain);
    let gone = retained.filter(|topic| hosted.cache.topic(&topic.key).is_none());
    let is_owner =
        |owner: &OwnerReference| Some(&owner.uid) == state.cluster.resource.metadata.uid.as_ref();
    let home = state.cluster.namespace();
    gone.filter_map(|topic| {
        let deletion = hosted.cache.deletion(&topic.key);
        if deletion.as_ref().is_some_and(|deletion| !deletion.refused) {
            return None;
        }
        let was = deletion.unwrap_or_default().metadata;
        let id = (TOPIC_ID_ANNOTATION.to_owned(), topic.id.0.to_string());
        let mut resource = Topic::new(&topic.key.name, topic.resource.spec.clone());
        resource.metadata.namespace = Some(topic.key.namespace.clone());
        resource.metadata.labels = was.labels;
        resource.metadata.annotations =
            Some(was.annotations.into_iter().flatten().chain([id]).collect());
        // Kubernetes deletes at once an object whose owner is gone or in another namespace.
        let owners: Vec<_> = was
            .owner_references
            .into_iter()
            .flatten()
            .filter(|owner| topic.key.namespace == home && is_owner(owner))
            .collect();
        resource.metadata.owner_references = Some(owners).filter(|owners| !owners.is_empty());
        Some(resource)
    })
    .collect()
}

pub(super) async fn restore_topic(context: &Context, topic: &Topic) {
    let key = Key::of(&topic.metadata);
    match topics(context, &key.namespace).create(&PostParams::default(), topic).await {
        Ok(made) => {
            warn!(topic = %key, "a Topic was deleted that is to be retained: it is made again");
            let note = "it was deleted, and is made again as it was, since its deletionPolicy is Retain: set that to Delete before you delete it";
            publish(context, &made.object_ref(&()), false, "Retained", note, "BringBack").await;
        }
        // Its namespace is being deleted, or somebody else created it first.
        Err(error) => debug!(topic = %key, %error, "bring a Topic back that is to be retained"),
    }
}

/// Writes a status to topics whose cluster does not exist.
pub(super) async fn report_orphans(
    context: &Context,
    cluster: &Key,
    orphans: &[(Key, Arc<Topic>)],
) {
    let clusters: Api<KafkaCluster> = Api::namespaced(context.client.clone(), &cluster.namespace);
    match clusters.get_metadata_opt(&cluster.name).await {
        Ok(None) => {}
        Ok(Some(_)) => return,
        Err(error) => {
            debug!(cluster = cluster.name, %error, "look for the cluster of a Topic");
            return;
        }
    }
    for (key, topic) in orphans {
        let before = topic.status.clone().unwrap_or_default();
        let message = format!(
            "there is no KafkaCluster {:?} in the namespace {:?}: make it, or delete this Topic and name another",
            cluster.name, cluster.namespace
        );
        let judgement = ConditionValue::fails("ClusterNotFound", message);
        let ready =
            condition("Ready", judgement, topic.metadata.generation, &before.conditions, &now());
        if before.conditions.contains(&ready) {
            continue;
        }
        let patch = json!({"status": {"observedGeneration": topic.metadata.generation, "conditions": [&ready]}});
        Metrics::count(&context.figures.writes);
        let (api, params, patch) =
            (topics(context, &key.namespace), PatchParams::default(), Patch::Merge(patch));
        if let Err(error) = api.patch_status(&key.name, &params, &patch).await {
            debug!(topic = %key, %error, "write the status of a Topic without a cluster");
            continue;
        }
        let regarding = topic.object_ref(&());
        publish(context, &regarding, false, &ready.reason, &ready.message, "Judge").await;
    }
}
