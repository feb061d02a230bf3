//! The topics of a recovered cluster and their partitions.
//!
//! A topic exists if the newest image contains it. It also exists if a log of it is there and no
//! image contains it: then it is younger than all images. A topic that only an older image contains
//! was deleted while that broker was down.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use weir_crds::{ClusterRef, Topic, TopicConfig, TopicSpec};
use weir_protocol::controller as rpc;
use weir_protocol::types::{BrokerId, LeaderEpoch, PartitionEpoch, TopicId};
use weir_settings::Configs;

use super::super::configs::canonical_topic_settings;
use super::super::event::Moment;
use super::super::key::{DEFAULT_NAMESPACE, Key};
use super::super::names::resource_name;
use super::super::object_meta::{TOPIC_ID_ANNOTATION, new_meta, topic_id_on};
use super::super::state::{Change, Partition};
use super::inventory::{Inventory, newest};
use super::known::Known;

/// A replica on a volume: its newest leader epoch and its end offset. The larger value has every
/// committed record that the smaller one has.
type Held = (i32, i64);

/// A replica to which nothing was ever written.
const NOTHING: Held = (-1, 0);

/// The data of one topic from all volumes.
#[derive(Debug, Default)]
struct Found<'a> {
    name: &'a str,
    /// The topic in the newest image.
    image: Option<&'a rpc::Topic>,
    /// At least one image contains it.
    is_known: bool,
    /// The replicas on the volumes, by partition and broker.
    held: BTreeMap<i32, BTreeMap<BrokerId, Held>>,
    /// The highest leader epoch and partition epoch of each partition in any image.
    epochs: BTreeMap<i32, (i32, i32)>,
}

impl Found<'_> {
    /// Of two topics with one name, the one with the larger rank existed last.
    fn rank(&self, id: TopicId, annotated: &BTreeSet<TopicId>) -> (bool, bool, i32, i64) {
        let held = || self.held.values().flat_map(BTreeMap::values);
        let epoch = held().map(|(epoch, _)| *epoch).max().unwrap_or(-1);
        (
            self.image.is_some(),
            annotated.contains(&id),
            epoch,
            held().map(|(_, end)| *end).fold(0, i64::saturating_add),
        )
    }
}

/// The changes that create the topics and their partitions.
pub(super) fn recovered(
    known: Known<'_>,
    used: &BTreeMap<BrokerId, &Inventory>,
    moment: &Moment,
) -> Vec<Change> {
    let resources: BTreeMap<&str, &Topic> =
        known.topics.iter().map(|topic| (topic.topic_name(), topic)).collect();
    let mut taken: BTreeSet<String> = known.taken.clone();
    taken.extend(known.topics.iter().filter_map(|topic| topic.metadata.name.clone()));
    let mut changes = Vec::new();
    for (id, found) in chosen(known, used) {
        let partitions = partitions_of(&found, used);
        let Some(first) = partitions.first() else { continue };
        let mut resource = match resources.get(found.name) {
            Some(written) => Topic::clone(written),
            None => {
                let name = resource_name(found.name, |name| taken.contains(name));
                taken.insert(name.clone());
                new_resource(known, &found, id, &name, moment)
            }
        };
        // The recovered partitions count, not what a user asked for meanwhile: that becomes an
        // event later.
        resource.spec.partitions = i32::try_from(partitions.len()).ok();
        resource.spec.replicas = i16::try_from(first.replicas_wanted()).ok();
        let annotations = resource.metadata.annotations.get_or_insert_default();
        annotations.insert(TOPIC_ID_ANNOTATION.to_owned(), id.0.to_string());
        changes.push(Change::Topic(id, Box::new(resource)));
        changes.extend(
            (0..).zip(partitions).map(|(index, partition)| Change::Partition(id, index, partition)),
        );
    }
    changes
}

/// The topics that exist; no two have the same name.
fn chosen<'a>(
    known: Known<'_>,
    used: &BTreeMap<BrokerId, &'a Inventory>,
) -> BTreeMap<TopicId, Found<'a>> {
    let annotated: BTreeSet<TopicId> = known.topics.iter().filter_map(topic_id_on).collect();
    let mut all = found(used);
    all.retain(|_, topic| topic.image.is_some() || !topic.is_known);
    let mut by_name: BTreeMap<&str, TopicId> = BTreeMap::new();
    for (id, topic) in &all {
        let other = by_name.get(topic.name).and_then(|other| Some((*other, all.get(other)?)));
        if other.is_none_or(|(other, found)| {
            topic.rank(*id, &annotated) > found.rank(other, &annotated)
        }) {
            by_name.insert(topic.name, *id);
        }
    }
    let kept: BTreeSet<TopicId> = by_name.into_values().collect();
    all.retain(|id, _| kept.contains(id));
    all
}

fn found<'a>(used: &BTreeMap<BrokerId, &'a Inventory>) -> BTreeMap<TopicId, Found<'a>> {
    let mut all: BTreeMap<TopicId, Found<'a>> = BTreeMap::new();
    let id_of = |topic: &rpc::Topic| Uuid::from_slice(&topic.id).ok().map(TopicId);
    for image in used.values().filter_map(|inventory| inventory.image.as_ref()) {
        for topic in &image.topics {
            let Some(found) = id_of(topic).map(|id| all.entry(id).or_default()) else {
                continue;
            };
            found.name = &topic.name;
            found.is_known = true;
            for partition in &topic.partitions {
                let epochs = found.epochs.entry(partition.index).or_insert((-1, -1));
                *epochs =
                    (epochs.0.max(partition.leader_epoch), epochs.1.max(partition.partition_epoch));
            }
        }
    }
    for topic in newest(used).into_iter().flat_map(|image| &image.topics) {
        if let Some(found) = id_of(topic).and_then(|id| all.get_mut(&id)) {
            found.image = Some(topic);
        }
    }
    for (broker, inventory) in used {
        for log in &inventory.logs {
            let found = all.entry(log.topic).or_default();
            if !found.is_known {
                found.name = &log.name;
            }
            found
                .held
                .entry(log.partition)
                .or_default()
                .insert(*broker, (log.leader_epoch, log.end_offset));
        }
    }
    all
}

fn partitions_of(found: &Found<'_>, used: &BTreeMap<BrokerId, &Inventory>) -> Vec<Partition> {
    let in_image = found.image.into_iter().flat_map(|topic| &topic.partitions);
    let in_image: BTreeMap<i32, &rpc::Partition> =
        in_image.map(|partition| (partition.index, partition)).collect();
    let last = in_image.keys().last().max(found.held.keys().last());
    let count = last.map_or(0, |last| last.saturating_add(1));
    let held_by = |index: i32| -> Vec<BrokerId> {
        found.held.get(&index).map(|held| held.keys().copied().collect()).unwrap_or_default()
    };
    // A partition without a replica was never written to; it gets the replicas of another
    // partition.
    let anywhere = found.held.keys().map(|index| held_by(*index)).next().unwrap_or_default();
    (0..count)
        .map_while(|index| {
            let image = in_image.get(&index).copied();
            let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
            let mut replicas =
                image.map(|partition| ids(&partition.replicas)).unwrap_or_else(|| held_by(index));
            if replicas.is_empty() {
                replicas.clone_from(&anywhere);
            }
            if replicas.is_empty() {
                return None;
            }
            let best = best(&replicas, image, found.held.get(&index), used);
            if let Some(best) = best.filter(|best| !replicas.contains(best)) {
                replicas.push(best);
            }
            let mut partition = Partition::new(replicas, best.into_iter().collect());
            // No broker has registered yet.
            partition.leader = None;
            partition.last_known_leader = best;
            let moves =
                image.map(|image| (ids(&image.adding), ids(&image.removing))).unwrap_or_default();
            let before_it_moved = partition.clone();
            (partition.adding, partition.removing) = moves;
            if partition.check().is_err() {
                partition = before_it_moved;
            }
            let (leader_epoch, partition_epoch) =
                found.epochs.get(&index).copied().unwrap_or((-1, -1));
            let written = found
                .held
                .get(&index)
                .into_iter()
                .flat_map(BTreeMap::values)
                .map(|(epoch, _)| *epoch)
                .max();
            partition.leader_epoch =
                LeaderEpoch(leader_epoch.max(written.unwrap_or(-1)).saturating_add(1));
            partition.partition_epoch = PartitionEpoch(partition_epoch.saturating_add(1));
            Some(partition)
        })
        .collect()
}

/// The broker whose replica holds every committed record, among those present: the newest epoch,
/// then the longest log. Among equals it is one that was in sync, the leader first.
fn best(
    replicas: &[BrokerId],
    image: Option<&rpc::Partition>,
    held: Option<&BTreeMap<BrokerId, Held>>,
    used: &BTreeMap<BrokerId, &Inventory>,
) -> Option<BrokerId> {
    let holders = held.into_iter().flatten().map(|(broker, held)| (*broker, *held));
    let others = replicas
        .iter()
        .filter(|id| used.contains_key(id) && !held.is_some_and(|held| held.contains_key(id)));
    let was = |id: &BrokerId| {
        let in_sync =
            image.is_some_and(|image| image.isr.contains(&id.0) || image.elr.contains(&id.0));
        let led = image.is_some_and(|image| image.leader == id.0);
        let position = replicas.iter().position(|replica| replica == id).unwrap_or(usize::MAX);
        (led, in_sync, std::cmp::Reverse(position))
    };
    holders
        .chain(others.map(|id| (*id, NOTHING)))
        .max_by_key(|(id, held)| (*held, was(id)))
        .map(|(id, _)| id)
}

fn new_resource(
    known: Known<'_>,
    found: &Found<'_>,
    id: TopicId,
    name: &str,
    moment: &Moment,
) -> Topic {
    let spec = TopicSpec {
        cluster_ref: ClusterRef {
            name: known.cluster.metadata.name.clone().unwrap_or_default(),
            ..ClusterRef::default()
        },
        topic_name: (name != found.name).then(|| found.name.to_owned()),
        config: settings_of(found, known.cluster.spec.config.texts()),
        ..TopicSpec::default()
    };
    let namespace = known.cluster.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    Topic {
        metadata: new_meta(moment, &Key::new(Some(namespace), Some(name)), id),
        spec,
        status: None,
    }
}

/// The topic's last known settings, without those that are no longer valid.
fn settings_of(found: &Found<'_>, cluster: &Configs) -> TopicConfig {
    let entries =
        found.image.and_then(|image| image.configs.as_ref()).map(|configs| &configs.entries);
    let mut settings = Configs::new();
    for (name, value) in entries.into_iter().flatten().collect::<BTreeMap<_, _>>() {
        settings.insert(name.clone(), value.clone());
        if canonical_topic_settings(&settings, cluster).is_err() {
            settings.remove(name);
        }
    }
    canonical_topic_settings(&settings, cluster).unwrap_or_default()
}
