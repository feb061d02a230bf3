//! PURE: rebuilds the lost tables of a cluster from the inventories of its brokers' volumes
//! (`spec.recoverFrom: Volumes`).
//!
//! It waits for all brokers: a missing replica may have records that the others lack. Among the
//! replicas, the one with the newest leader epoch, and then the most records, holds everything that
//! the whole ISR ever acknowledged. It alone is in sync at first, and the others follow it. Nothing
//! is deleted: a log that no topic claims stays a log.
//!
//! Invariants
//! - A broker that gets a name in place of the cluster's id opens its volume under the id found
//!   there. It reports the contents. It serves and appends nothing until there are tables, so the
//!   report stays true.
//! - Only then does its process count its log as complete. It discards the metadata of the last
//!   run, so it keeps no earlier role.
//! - The controller refuses a broker that still runs under the id, and its process ends.
//! - Every epoch and counter begins above every value on any volume. Producer ids follow the wall
//!   clock.
//! - The tables are written as on a takeover, the registry last. If the operator dies half way, no
//!   tables exist, and its successor collects the inventories again.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod credentials;
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

/// On a KafkaCluster: the ids of brokers whose volumes the recovery does not wait for, separated by
/// commas.
pub const WITHOUT_ANNOTATION: &str = "weir.dev/recover-without";

/// The producer ids of a recovered cluster begin at the wall clock's seconds, shifted by this many
/// bits. Brokers hand out fewer ids a second on average, so the new ids are unused even when no
/// volume records the old ones.
const PRODUCER_IDS_PER_SECOND_BITS: u32 = 20;

/// The result of the inventories.
#[derive(Debug)]
pub enum Stock {
    /// Brokers or their volumes are missing: which, and what helps.
    Waits(String),
    /// The volumes cannot belong to one cluster: which ones, and what helps.
    Refused(String),
    /// All volumes are new: there is nothing to recover, and the cluster starts empty.
    New,
    /// The state, and the changes that lead to it.
    Recovered(Box<State>, Vec<Change>),
}

/// Rebuilds the tables if all required inventories have arrived.
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
        // A broker whose volume holds logs may still come.
        let absent: Vec<BrokerId> =
            missing.iter().copied().filter(|id| !inventories.contains_key(id)).collect();
        return if absent.is_empty() && !inventories.is_empty() {
            Stock::New
        } else {
            Stock::Waits(waits_for(&absent, &[]))
        };
    };
    // A broker that no image mentions may have a new volume.
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

/// The brokers that the recovery does not wait for.
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

/// The cluster that the volumes belong to; `None` if none of them has belonged to any.
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

/// The brokers in the last images, as registered or as replicas.
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

/// The brokers whose volumes the recovery needs: those of the spec, and those that the last images
/// list as replicas.
fn awaited(cluster: &KafkaCluster, used: &BTreeMap<BrokerId, &Inventory>) -> BTreeSet<BrokerId> {
    let images = used.values().filter_map(|inventory| inventory.image.as_ref());
    (0..cluster.spec.brokers.replicas).chain(holders(images)).map(BrokerId).collect()
}

/// The number of brokers to run, so that every required one can report.
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
    // A broker with this volume and this epoch has lost nothing of its log.
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
    let credentials = match known.credentials {
        Some(kept) => kept.to_vec(),
        None => newest(used).map(credentials::last_known).unwrap_or_default(),
    };
    changes.extend(credentials);
    for change in &changes {
        state.apply(change);
    }
    (state, changes)
}

fn features_of(features: &rpc::Features) -> Features {
    let level = |(name, level): (&String, &u32)| Some((name.clone(), i16::try_from(*level).ok()?));
    Features { epoch: features.epoch, levels: features.levels.iter().filter_map(level).collect() }
}
