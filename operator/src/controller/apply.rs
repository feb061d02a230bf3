//! Applies and deletes resources that users write.
//!
//! `crate::admission` has checked the schema before. This module checks what the schema cannot see:
//! names already in use, the cluster reference, missing brokers. Each refusal names the field.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use uuid::Uuid;
use weir_crds::{ClusterConfig, DeletionPolicy, KafkaCluster, NamespacesFrom, Topic, TopicSpec};
use weir_protocol::types::{BrokerId, TopicId};
use weir_settings::{Door, Layers, validate_broker_entry, validate_group};

use super::configs::{canonical_topic_settings, check_named, put_cluster_resource};
use super::draft::Draft;
use super::error::ApiError;
use super::event::Reply;
use super::key::Key;
use super::limits::{BY_NUMBER, PARTITIONS_MAX};
use super::object_meta::{merged_meta, new_meta, topic_id_on, with_generation};
use super::partitions;
use super::placement::NoPlace;
use super::reassign;
use super::resource::{Kind, RETAINED, Refusal, Resource};
use super::state::{Change, State, TakenUp, is_internal};
use super::topic_name::check_name;
use super::topics::create::default_of;

/// A field and the reason why it is invalid.
type Wrong = (String, String);

fn wrong(path: &str, reason: impl Into<String>) -> Wrong {
    (path.to_owned(), reason.into())
}

/// Applies all of the resources, or returns a refusal for each invalid one.
pub(super) fn apply(
    draft: &mut Draft<'_>,
    resources: Vec<Resource>,
) -> Result<Vec<&'static str>, Vec<Refusal>> {
    let (mut verbs, mut refusals) = (Vec::new(), Vec::new());
    for resource in resources {
        let (kind, name, result) = match resource {
            Resource::Cluster(cluster) => (
                Kind::KafkaCluster,
                cluster.metadata.name.clone().unwrap_or_default(),
                apply_cluster(draft, *cluster),
            ),
            Resource::Topic(topic) => (
                Kind::Topic,
                topic.metadata.name.clone().unwrap_or_default(),
                apply_topic(draft, *topic),
            ),
        };
        match result {
            Ok(verb) => verbs.push(verb),
            Err((path, reason)) => refusals.push(Refusal { kind, name, path, reason }),
        }
    }
    if refusals.is_empty() { Ok(verbs) } else { Err(refusals) }
}

fn apply_cluster(draft: &mut Draft<'_>, mut wanted: KafkaCluster) -> Result<&'static str, Wrong> {
    let before = Arc::clone(&draft.state.cluster.resource);
    if wanted.metadata.name != before.metadata.name {
        let name = draft.state.cluster.name();
        return Err(wrong(
            "metadata.name",
            format!(
                "the cluster here is called {name:?}, and there is one for each data directory"
            ),
        ));
    }
    let (offered, known) = (
        TakenUp::of(&wanted.metadata, &wanted.spec),
        draft.state.objects.cluster.clone().filter(|known| known.spec.is_some()),
    );
    if let (Some(offered), Some(known)) = (&offered, &known) {
        if !known.is_superseded_by(offered) {
            for id in gone(&draft.state, before.spec.brokers.replicas) {
                draft.push(Change::RemoveBroker(id));
            }
            return Ok("unchanged");
        }
        wanted.spec =
            known.merged(&wanted.spec, &before.spec).map_err(|reason| wrong("spec", reason))?;
    }
    let replicas = wanted.spec.brokers.replicas;
    // An object at an API server is the desired state already. A refusal here could not undo it,
    // and would hold up every other change of it. Surplus brokers get no new replicas from now on
    // ([`State::is_cordoned`]). Without an API server, the refusal tells the writer what to do
    // first.
    let is_held = wanted.metadata.resource_version.is_some();
    let surplus = if is_held {
        gone(&draft.state, replicas)
    } else {
        surplus_brokers(&draft.state, replicas)?
    };
    wanted.spec.config = canonical_cluster_settings(&wanted.spec.config, Door::Resource)
        .map_err(|(name, reason)| (format!("spec.config.{name}"), reason))?;
    for (id, settings) in &mut wanted.spec.brokers.config {
        let path = format!("spec.brokers.config.{id}");
        // Tools set and remove throttles on brokers that are being emptied.
        let goes = |id: i32| {
            is_held
                && (draft.state.brokers.contains_key(&BrokerId(id))
                    || before.spec.brokers.config.contains_key(&id.to_string()))
        };
        if !id.parse::<i32>().is_ok_and(|id| (0..replicas).contains(&id) || goes(id)) {
            return Err((path, "there is no broker of that id".to_owned()));
        }
        *settings = canonical_cluster_settings(settings, Door::OneBroker)
            .map_err(|(name, reason)| (format!("{path}.{name}"), reason))?;
    }
    check_named(&wanted.spec).map_err(|(path, reason)| wrong(path, reason))?;
    let cluster = Layers { cluster: Some(wanted.spec.config.texts()), ..Layers::default() };
    for (group, settings) in &wanted.spec.consumer_groups.config {
        validate_group(settings.texts(), cluster).map_err(|error| {
            wrong(&format!("spec.consumerGroups.config.{group}"), error.to_string())
        })?;
    }
    wanted.metadata = merged_meta(&before.metadata, wanted.metadata, wanted.spec != before.spec);
    wanted.status = None;
    let is_same = wanted == *before;
    if !is_same {
        put_cluster_resource(draft, wanted);
    }
    if let Some(offered) = offered {
        draft.push(Change::TookUpCluster(Box::new(offered)));
    }
    for id in surplus {
        draft.push(Change::RemoveBroker(id));
    }
    Ok(if is_same { "unchanged" } else { "configured" })
}

/// The registered brokers beyond the first `replicas` that hold no replicas and have stopped. The
/// controller may unregister them.
pub(crate) fn gone(state: &State, replicas: i32) -> Vec<BrokerId> {
    let surplus: Vec<BrokerId> = state
        .brokers
        .values()
        .filter(|broker| broker.id.0 >= replicas && broker.fenced)
        .map(|broker| broker.id)
        .collect();
    if surplus.is_empty() {
        return surplus;
    }
    let partitions = state.topics.values().flat_map(|topic| &topic.partitions);
    let holders: std::collections::BTreeSet<BrokerId> =
        partitions.flat_map(|partition| partition.replicas.iter().copied()).collect();
    surplus.into_iter().filter(|id| !holders.contains(id)).collect()
}

/// The registered brokers beyond the first `replicas`. They must hold no replicas and be stopped.
fn surplus_brokers(state: &State, replicas: i32) -> Result<Vec<BrokerId>, Wrong> {
    let surplus = |id: &BrokerId| id.0 >= replicas;
    let partitions = || state.topics.values().flat_map(|topic| &topic.partitions);
    if let Some(id) = partitions().flat_map(|partition| &partition.replicas).copied().find(surplus)
    {
        let count = partitions().filter(|partition| partition.replicas.contains(&id)).count();
        let reason = format!(
            "broker {id} holds replicas of {count} partition(s): move them to other brokers first, with kafka-reassign-partitions"
        );
        return Err(wrong("spec.brokers.replicas", reason));
    }
    if let Some(broker) =
        state.brokers.values().find(|broker| surplus(&broker.id) && !broker.fenced)
    {
        return Err(wrong(
            "spec.brokers.replicas",
            format!("broker {} is running: stop it first", broker.id),
        ));
    }
    Ok(state.brokers.keys().copied().filter(surplus).collect())
}

fn canonical_cluster_settings(
    settings: &ClusterConfig,
    door: Door,
) -> Result<ClusterConfig, Wrong> {
    let canonical =
        settings.texts().iter().map(|(name, text)| match validate_broker_entry(name, text, door) {
            Ok(value) => Ok((name.clone(), value.to_string())),
            Err(error) => Err((name.clone(), error.to_string())),
        });
    ClusterConfig::from_texts(canonical.collect::<Result<_, Wrong>>()?)
        .map_err(|error| (error.name, error.reason))
}

fn apply_topic(draft: &mut Draft<'_>, mut wanted: Topic) -> Result<&'static str, Wrong> {
    let key = draft.state.cluster.key_of(&wanted.metadata);
    let offered = TakenUp::of(&wanted.metadata, &wanted.spec);
    let known = draft.state.objects.topics.get(&key).cloned();
    if let (Some(offered), Some(known)) = (&offered, &known)
        && !known.is_superseded_by(offered)
    {
        return Ok("unchanged");
    }
    check_owner(draft, &wanted)?;
    wanted.status = None;
    wanted.metadata.namespace = Some(key.namespace.clone());
    let before = draft.state.topic_by_resource(&key).cloned();
    let same = before.as_ref().filter(|before| is_the_same(before, &wanted, known.as_ref()));
    if let (Some(same), Some(known), true) = (same, &known, offered.is_some()) {
        let merged = known.merged(&wanted.spec, &same.resource.spec);
        wanted.spec = merged.map_err(|reason| wrong("spec", reason))?;
    }
    let settings =
        canonical_topic_settings(wanted.spec.config.texts(), draft.state.cluster.configs());
    wanted.spec.config =
        settings.map_err(|ApiError { message, .. }| wrong("spec.config", message))?;
    let is_same = same.is_some();
    let verb = put_topic(draft, before, is_same, wanted)?;
    if let Some(offered) = offered {
        draft.push(Change::TookUpTopic(key, Some(Box::new(offered))));
    }
    Ok(verb)
}

fn put_topic(
    draft: &mut Draft<'_>,
    before: Option<Arc<super::state::Topic>>,
    is_same: bool,
    wanted: Topic,
) -> Result<&'static str, Wrong> {
    match before {
        Some(before) if is_same => update_topic(draft, &before, wanted),
        Some(before) => {
            // The resource was deleted and created again while no controller was watching, so it is
            // another topic.
            draft.push(Change::RemoveTopic(before.id, before.key.clone()));
            create_topic(draft, wanted)
        }
        None => create_topic(draft, wanted),
    }
}

/// Whether a resource belongs to the topic with its name: by the uid if it comes from an API
/// server, or by the topic id on it. A retained topic outlives its resource, so any resource with
/// its name belongs to it.
fn is_the_same(
    before: &super::state::Topic,
    wanted: &Topic,
    known: Option<&TakenUp<TopicSpec>>,
) -> bool {
    let ours = &before.resource.metadata;
    wanted.metadata.uid.is_none()
        || wanted.metadata.uid == ours.uid
        || known.is_some_and(|known| wanted.metadata.uid.as_ref() == Some(&known.uid))
        || topic_id_on(wanted) == Some(before.id)
        || before.resource.spec.deletion_policy == DeletionPolicy::Retain
}

/// The id of a new topic. It is the resource's uid where possible, so two controllers that see the
/// resource at once choose the same id. The id annotation does not count: it may be that of a
/// deleted topic, whose log a broker still holds.
fn new_topic_id(draft: &mut Draft<'_>, wanted: &Topic) -> TopicId {
    let uid = wanted.metadata.uid.as_deref().and_then(|uid| Uuid::parse_str(uid).ok()).map(TopicId);
    let free = uid.filter(|id| !id.0.is_nil() && !draft.state.topics.contains_key(id));
    free.unwrap_or_else(|| draft.topic_id(wanted.topic_name()))
}

fn check_owner(draft: &Draft<'_>, wanted: &Topic) -> Result<(), Wrong> {
    let cluster = &draft.state.cluster;
    let named = &wanted.spec.cluster_ref;
    if named.name != cluster.name() {
        let reason = format!(
            "there is no KafkaCluster {:?}; the one here is {:?}",
            named.name,
            cluster.name()
        );
        return Err(wrong("spec.clusterRef.name", reason));
    }
    let (home, own) = (cluster.namespace(), cluster.key_of(&wanted.metadata).namespace);
    let meant = named.namespace_from(&own);
    if meant != home {
        let reason = format!(
            "there is no KafkaCluster {:?} in the namespace {meant:?}; the one here is in {home:?}",
            named.name
        );
        return Err(wrong("spec.clusterRef.namespace", reason));
    }
    // The caller checks a label selector, because it knows the namespaces' labels.
    if own != home && cluster.resource.spec.allowed_namespaces.from == NamespacesFrom::Same {
        let reason = format!(
            "the KafkaCluster takes Topics of its own namespace {home:?} alone: its spec.allowedNamespaces may name others"
        );
        return Err(wrong("metadata.namespace", reason));
    }
    if own != home && is_internal(wanted.topic_name()) {
        let reason = format!(
            "{:?} is a topic of the brokers, all of whose groups or transactions are in it: its Topic lies in the cluster's namespace {home:?}",
            wanted.topic_name()
        );
        return Err(wrong("spec.topicName", reason));
    }
    Ok(())
}

/// A resource's name as a message in this namespace shows it.
fn said_in(namespace: &str, key: &Key) -> String {
    if key.namespace == namespace { key.name.clone() } else { key.to_string() }
}

fn create_topic(draft: &mut Draft<'_>, mut wanted: Topic) -> Result<&'static str, Wrong> {
    let path = if wanted.spec.topic_name.is_some() { "spec.topicName" } else { "metadata.name" };
    check_name(wanted.topic_name()).map_err(|error| wrong(path, error.message))?;
    let key = draft.state.cluster.key_of(&wanted.metadata);
    if let Some(owner) = draft.state.topic_by_name(wanted.topic_name()) {
        let of = said_in(&key.namespace, &owner.key);
        return Err(wrong(
            path,
            format!("the topic {:?} is that of the Topic {of:?} already", owner.name()),
        ));
    }
    if let Some(other) = draft.state.lookalike(wanted.topic_name()) {
        return Err(wrong(
            path,
            format!(
                "{:?} collides with the topic {other:?}: '.' and '_' are the same in the names of metrics",
                wanted.topic_name()
            ),
        ));
    }
    let default = |name| i32::try_from(default_of(draft, name)).unwrap_or(i32::MAX);
    wanted.spec.partitions =
        Some(wanted.spec.partitions.unwrap_or_else(|| default("num.partitions")));
    wanted.spec.replicas = Some(wanted.spec.replicas.unwrap_or_else(|| {
        i16::try_from(default("default.replication.factor")).unwrap_or(i16::MAX)
    }));
    check_numbers(draft, &wanted, 0)?;
    let id = new_topic_id(draft, &wanted);
    check_room(draft, id, &wanted, 0)?;
    wanted.metadata = merged_meta(&new_meta(draft.moment, &key, id), wanted.metadata, false);
    draft.push(Change::Topic(id, Box::new(wanted)));
    // If no broker can take the partitions, they wait for one.
    let _ = partitions::grow(draft, id);
    Ok("created")
}

fn update_topic(
    draft: &mut Draft<'_>,
    before: &super::state::Topic,
    mut wanted: Topic,
) -> Result<&'static str, Wrong> {
    let old = &before.resource;
    if wanted.topic_name() != old.topic_name() {
        return Err(wrong("spec.topicName", "topicName cannot change: a topic cannot be renamed"));
    }
    wanted.spec.topic_name.clone_from(&old.spec.topic_name);
    wanted.spec.partitions = wanted.spec.partitions.or(old.spec.partitions);
    wanted.spec.replicas = wanted.spec.replicas.or(old.spec.replicas);
    if wanted.spec.partitions < old.spec.partitions {
        let count = old.spec.partitions.unwrap_or_default();
        return Err(wrong(
            "spec.partitions",
            format!("partitions can only be raised, and there are {count}"),
        ));
    }
    if before.is_internal() && wanted.spec.partitions != old.spec.partitions {
        return Err(wrong("spec.partitions", format!("partitions cannot change: {BY_NUMBER}")));
    }
    check_numbers(draft, &wanted, before.partitions_wanted())?;
    check_room(draft, before.id, &wanted, before.partitions.len())?;
    wanted.metadata = merged_meta(&old.metadata, wanted.metadata, wanted.spec != old.spec);
    if wanted == *old {
        return Ok("unchanged");
    }
    let min_isr = draft.state.topic_setting(before, "min.insync.replicas");
    draft.push(Change::Topic(before.id, Box::new(wanted)));
    let after = draft.state.topics.get(&before.id).cloned();
    if after
        .is_some_and(|after| draft.state.topic_setting(&after, "min.insync.replicas") != min_isr)
    {
        partitions::forget_eligible(draft, before.id);
    }
    let replicas =
        draft.state.topics.get(&before.id).and_then(|topic| topic.resource.spec.replicas);
    if replicas != before.resource.spec.replicas {
        reassign::resize(draft, before.id)
            .map_err(|error| wrong("spec.replicas", error.to_string()))?;
    }
    // If no broker can take the partitions, they wait for one.
    let _ = partitions::grow(draft, before.id);
    Ok("configured")
}

fn check_numbers(draft: &Draft<'_>, wanted: &Topic, wanted_before: usize) -> Result<(), Wrong> {
    let brokers = draft.state.cluster.resource.spec.brokers.replicas;
    let replicas = wanted.spec.replicas.unwrap_or(1);
    if i32::from(replicas) > brokers {
        return Err(wrong(
            "spec.replicas",
            format!("{replicas} replicas need as many brokers, and the cluster has {brokers}"),
        ));
    }
    let count =
        wanted.spec.partitions.and_then(|count| usize::try_from(count).ok()).unwrap_or_default();
    // Partitions that wait for a broker count too: the resources say how many there will be.
    let others = draft.state.partitions_wanted().saturating_sub(wanted_before);
    if others + count > PARTITIONS_MAX {
        return Err(wrong(
            "spec.partitions",
            format!("the cluster would have more than {PARTITIONS_MAX} partitions"),
        ));
    }
    Ok(())
}

fn check_room(draft: &Draft<'_>, id: TopicId, wanted: &Topic, there: usize) -> Result<(), Wrong> {
    let count =
        wanted.spec.partitions.and_then(|count| usize::try_from(count).ok()).unwrap_or_default();
    let replicas =
        wanted.spec.replicas.and_then(|replicas| usize::try_from(replicas).ok()).unwrap_or(1);
    let more = count.saturating_sub(there);
    if more > 0 && !draft.state.has_room(id, more, replicas) {
        return Err(wrong("spec.partitions", NoPlace::NoRoom(more).to_string()));
    }
    Ok(())
}

pub(super) fn delete(draft: &mut Draft<'_>, kind: Kind, key: &Key) -> Result<(), Refusal> {
    let refusal = |path: &str, reason: &str| Refusal {
        kind,
        name: key.name.clone(),
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    match kind {
        Kind::KafkaCluster => Err(refusal(
            "metadata.name",
            "a cluster is not deleted while its controller runs: stop it, then remove its data",
        )),
        Kind::Topic => {
            let topic = draft
                .state
                .topic_by_resource(key)
                .ok_or_else(|| refusal("metadata.name", "there is no such topic"))?;
            if topic.resource.spec.deletion_policy == DeletionPolicy::Retain {
                return Err(refusal(RETAINED, "the policy is Retain: set it to Delete first"));
            }
            let id = topic.id;
            draft.push(Change::RemoveTopic(id, key.clone()));
            Ok(())
        }
    }
}

/// Deletes a topic because its object with this uid is gone. An object that the controller deleted
/// itself, or one that was created again since, is not the topic's any more.
pub(super) fn gone_object(draft: &mut Draft<'_>, key: &Key, uid: &str) -> Result<(), Refusal> {
    match draft.state.objects.topics.get(key) {
        Some(known) if known.uid != uid => return Ok(()),
        Some(known) if known.spec.is_none() => {}
        _ => delete(draft, Kind::Topic, key)?,
    }
    draft.push(Change::TookUpTopic(key.clone(), None));
    Ok(())
}

/// Retains a topic, whatever its resource says: the operator no longer watches the resource, or its
/// deletion was not meant for the topic. The policy holds until a watched resource sets another.
pub(super) fn retain(draft: &mut Draft<'_>, key: &Key) -> Reply {
    let Some(topic) = draft.state.topic_by_resource(key) else {
        if draft.state.objects.topics.contains_key(key) {
            draft.push(Change::TookUpTopic(key.clone(), None));
        }
        return Reply::Nothing;
    };
    if topic.resource.spec.deletion_policy != DeletionPolicy::Retain {
        let (id, mut resource) = (topic.id, with_generation(&topic.resource));
        resource.spec.deletion_policy = DeletionPolicy::Retain;
        draft.push(Change::Topic(id, Box::new(resource)));
        // The same version sets it once it is watched again.
        if let Some(known) = draft.state.objects.topics.get(key).cloned() {
            let spec = known.spec.as_deref().cloned().map(|mut spec: TopicSpec| {
                spec.deletion_policy = DeletionPolicy::Retain;
                Arc::new(spec)
            });
            let known = TakenUp { spec, ..known.but_one() };
            draft.push(Change::TookUpTopic(key.clone(), Some(Box::new(known))));
        }
    }
    Reply::Applied(vec!["retained"])
}

/// The id of the broker with the settings at `key` of `spec.brokers.config`.
pub(super) fn broker_of(key: &str) -> Option<BrokerId> {
    key.parse().ok().map(BrokerId)
}
