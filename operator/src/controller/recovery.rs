//! PURE: the tables of a cluster that has lost them, made of what its brokers find on their volumes
//! (`spec.recoverFrom: Volumes`).
//!
//! All brokers are waited for: the replica that is not here may have what the others lack. Of the
//! replicas, the one with the newest leader epoch, and in that with the most records, has
//! everything that was ever acknowledged by all in sync. It alone is in sync at first, and the
//! others follow it. Nothing is deleted: a log that no topic claims stays a log.
//!
//! Invariants
//! - A broker that is told a name in place of the cluster's id opens its volume under the id that
//!   it finds there. It reports the content. It serves and appends nothing until there are tables,
//!   so the report stays true.
//! - Only after that its process vouches for its log as it is. It forgets the metadata of the last
//!   run, so it goes on with no role from before.
//! - A broker that still runs under the id is refused and ends.
//! - Every epoch and counter begins above all that any volume has seen. Producer ids follow the
//!   time of day.
//! - The tables are written as on a takeover, the registry last. An operator that dies half way has
//!   made none, and its successor hears the brokers anew.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod inventory;
mod known;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;
use weir_crds::KafkaCluster;
use weir_protocol::controller as rpc;
use weir_protocol::types::{BrokerEpoch, BrokerId, ControllerEpoch};

use self::inventory::newest;
pub use self::inventory::{FoundLog, Inventory};
pub use self::known::Known;
use super::event::Moment;
use super::state::{Broker, Change, Cluster, Features, State};

/// On a KafkaCluster: the ids of brokers whose volumes are not waited for, with commas between.
pub const WITHOUT_ANNOTATION: &str = "weir.dev/recover-without";

/// Producer ids that a recovered cluster begins with follow the time of day, so many a second: more
/// than brokers can give out on the whole, so nobody has any of them, whatever nobody remembers.
const PRODUCER_IDS_PER_SECOND_BITS: u32 = 20;

/// What comes of the inventories.
#[derive(Debug)]
pub enum Stock {
    /// Brokers are missing, or their volumes are; what is waited for, and what helps.
    Waits(String),
    /// The volumes cannot be those of one cluster; which are not, and what helps.
    Refused(String),
    /// All volumes are new: there is nothing to recover, and the cluster begins.
    New,
    /// The state, and the changes that lead to it.
    Recovered(Box<State>, Vec<Change>),
}

/// What the tables are, if all that is needed for them is here.
pub fn take_stock(
    known: Known<'_>,
    inventories: &BTreeMap<BrokerId, Inventory>,
    moment: &Moment,
) -> Stock {
    let given_up = match given_up(known.cluster) {
        Ok(given_up) => given_up,
        Err(refusal) => return Stock::Refused(refusal),
    };
    let used: BTreeMap<BrokerId, &Inventory> = inventories
        .iter()
        .filter(|(_, inventory)| !inventory.is_new())
        .map(|(id, inventory)| (*id, inventory))
        .collect();
    let cluster_id = match one_cluster(known.cluster_id, &used) {
        Ok(id) => id,
        Err(refusal) => return Stock::Refused(refusal),
    };
    let missing: Vec<BrokerId> = awaited(known.cluster, &used)
        .into_iter()
        .filter(|id| !used.contains_key(id) && !given_up.contains(id))
        .collect();
    let Some(cluster_id) = cluster_id else {
        // Whoever has a volume with something on it may still come.
        let absent: Vec<BrokerId> =
            missing.iter().copied().filter(|id| !inventories.contains_key(id)).collect();
        return if absent.is_empty() && !inventories.is_empty() {
            Stock::New
        } else {
            Stock::Waits(waits_for(&absent, &[]))
        };
    };
    // One that nobody has ever heard of is new by right.
    let heard_of = named(&used);
    let is_new_by_right = |id: &BrokerId| {
        inventories.contains_key(id)
            && used.values().any(|found| found.image.is_some())
            && !heard_of.contains(id)
    };
    let missing: Vec<BrokerId> = missing.into_iter().filter(|id| !is_new_by_right(id)).collect();
    if !missing.is_empty() {
        let (new, absent): (Vec<BrokerId>, Vec<BrokerId>) =
            missing.iter().partition(|id| inventories.contains_key(id));
        return Stock::Waits(waits_for(&absent, &new));
    }
    let (state, changes) = recovered(known, cluster_id, &used, moment);
    Stock::Recovered(Box::new(state), changes)
}

/// The brokers that are not waited for.
fn given_up(cluster: &KafkaCluster) -> Result<BTreeSet<BrokerId>, String> {
    let text = cluster.metadata.annotations.as_ref().and_then(|all| all.get(WITHOUT_ANNOTATION));
    let ids = text
        .into_iter()
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|id| !id.is_empty());
    ids.map(|id| {
        let parsed = id.parse().ok().filter(|id| *id >= 0).map(BrokerId);
        parsed.ok_or_else(|| format!("the annotation {WITHOUT_ANNOTATION} takes ids of brokers with commas between, as in 1,2, and {id:?} is none"))
    })
    .collect()
}

/// The cluster that the volumes belong to; `None` where none of them has belonged to any.
fn one_cluster<'a>(
    expected: Option<&'a str>,
    used: &BTreeMap<BrokerId, &'a Inventory>,
) -> Result<Option<&'a str>, String> {
    let mut by_cluster: BTreeMap<&str, Vec<BrokerId>> = BTreeMap::new();
    let mut by_volume: BTreeMap<Uuid, BrokerId> = BTreeMap::new();
    for (id, inventory) in used {
        by_cluster.entry(&inventory.cluster_id).or_default().push(*id);
        if let Some(other) = by_volume.insert(inventory.log_dir, *id) {
            return Err(format!(
                "the volumes of the brokers {other} and {id} are copies of one: give each broker its own, or remove one of the claims"
            ));
        }
    }
    let of =
        |(cluster, ids): (&&str, &Vec<BrokerId>)| format!("{cluster} ({})", listed("broker", ids));
    let told: Vec<String> = by_cluster.iter().map(of).collect();
    let mut found = by_cluster.keys().copied();
    match (found.next(), found.next(), expected) {
        (Some(_), Some(_), _) => Err(format!(
            "the volumes belong to different clusters: {}. Give each broker the volume of the cluster that is to come back",
            told.join(", ")
        )),
        (Some(found), None, Some(expected)) if found != expected => Err(format!(
            "the volumes belong to the cluster {}, and this is {expected} by its annotation: give the brokers their volumes, or remove the annotation weir.dev/cluster-id to take up the cluster of these",
            told.join(", ")
        )),
        (found, ..) => Ok(found),
    }
}

/// The brokers that the last runs knew, as registered or as holding a replica.
fn named(used: &BTreeMap<BrokerId, &Inventory>) -> BTreeSet<BrokerId> {
    let images = || used.values().filter_map(|inventory| inventory.image.as_ref());
    let registered = images().flat_map(|image| &image.brokers).map(|broker| broker.id);
    registered.chain(holders(images())).map(BrokerId).collect()
}

fn holders<'a>(images: impl Iterator<Item = &'a rpc::MetadataUpdate>) -> impl Iterator<Item = i32> {
    images
        .flat_map(|image| &image.topics)
        .flat_map(|topic| &topic.partitions)
        .flat_map(|partition| partition.replicas.iter().copied())
}

/// The brokers whose volumes are needed: those that the spec names, and those that the last runs
/// knew as holding something.
fn awaited(cluster: &KafkaCluster, used: &BTreeMap<BrokerId, &Inventory>) -> BTreeSet<BrokerId> {
    let images = used.values().filter_map(|inventory| inventory.image.as_ref());
    (0..cluster.spec.brokers.replicas).chain(holders(images)).map(BrokerId).collect()
}

/// How many brokers have to run, so that all that are needed can come.
pub fn brokers_needed(cluster: &KafkaCluster, inventories: &BTreeMap<BrokerId, Inventory>) -> i32 {
    let all: BTreeMap<BrokerId, &Inventory> =
        inventories.iter().map(|(id, inventory)| (*id, inventory)).collect();
    awaited(cluster, &all).last().map_or(0, |last| last.0.saturating_add(1))
}

fn waits_for(absent: &[BrokerId], new: &[BrokerId]) -> String {
    let mut reasons = Vec::new();
    if !absent.is_empty() {
        reasons.push(format!("{} to come with what its volume holds", listed("broker", absent)));
    }
    if !new.is_empty() {
        reasons.push(format!(
            "the volume of {}, which has a new one with nothing on it",
            listed("broker", new)
        ));
    }
    let all: Vec<String> = absent.iter().chain(new).map(ToString::to_string).collect();
    format!(
        "waits for {}: it may have records that the others lack. To go on without, and without what nobody else has, annotate the KafkaCluster with {WITHOUT_ANNOTATION}={}",
        reasons.join(", and for "),
        all.join(",")
    )
}

fn listed(what: &str, ids: &[BrokerId]) -> String {
    let all: Vec<String> = ids.iter().map(ToString::to_string).collect();
    format!("{what} {}", all.join(", "))
}

fn recovered(
    known: Known<'_>,
    cluster_id: &str,
    used: &BTreeMap<BrokerId, &Inventory>,
    moment: &Moment,
) -> (State, Vec<Change>) {
    let images = || used.values().filter_map(|inventory| inventory.image.as_ref());
    let obeyed =
        used.values().map(|inventory| inventory.controller_epoch).max().unwrap_or_default().max(0);
    let had = used.values().filter_map(|inventory| inventory.broker_epoch);
    let had = had.chain(images().flat_map(|image| &image.brokers).map(|broker| broker.epoch)).max();
    let given = used.values().map(|inventory| inventory.producer_ids_end).max().unwrap_or_default();
    let seconds = moment.wall.0.as_second().max(0);
    let mut state = State::new(Cluster {
        id: cluster_id.to_owned(),
        controller_epoch: ControllerEpoch(obeyed),
        next_broker_epoch: BrokerEpoch(had.map_or(0, |epoch| epoch.max(0).saturating_add(1))),
        next_producer_id: given.max(seconds << PRODUCER_IDS_PER_SECOND_BITS),
        features: newest(used)
            .and_then(|image| image.features.as_ref())
            .map(features_of)
            .unwrap_or_default(),
        resource: Arc::new(known.cluster.clone()),
    });
    let mut changes = vec![
        Change::Cluster(Arc::new(known.cluster.clone())),
        Change::ControllerEpoch(ControllerEpoch(obeyed.saturating_add(1))),
    ];
    // Whoever comes from this volume, under the epoch that it has, lacks nothing of what it had.
    changes.extend(used.iter().filter_map(|(id, inventory)| {
        Some(Change::Broker(Broker {
            id: *id,
            epoch: BrokerEpoch(inventory.broker_epoch?),
            incarnation: Uuid::nil(),
            log_dir: inventory.log_dir,
            endpoints: Vec::new(),
            rack: None,
            fenced: true,
            shutting_down: false,
        }))
    }));
    changes.extend(topics::recovered(known, used, moment));
    for change in &changes {
        state.apply(change);
    }
    (state, changes)
}

fn features_of(features: &rpc::Features) -> Features {
    let level = |(name, level): (&String, &u32)| Some((name.clone(), i16::try_from(*level).ok()?));
    Features { epoch: features.epoch, levels: features.levels.iter().filter_map(level).collect() }
}
