//! The topics of a cluster and their partitions as text: `a-0,a-1`, or `nothing`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;
use weir_protocol::controller as rpc;
use weir_protocol::types::ControllerEpoch;

use super::embedded::Partitions;
use crate::metadata::MetadataImage;

/// A topic in a scenario: `a:3` has three partitions, `a:eu,us+eu` has two, with replicas in these
/// racks. `a@2:3` is another topic of this name, created after the first was deleted.
pub(super) struct Topic {
    label: String,
    /// The racks of each partition's replicas.
    racks: Vec<Vec<String>>,
}

impl Topic {
    pub(super) fn without_racks(label: &str, partitions: usize) -> Self {
        Self { label: label.to_owned(), racks: vec![Vec::new(); partitions] }
    }

    pub(super) fn said(text: &str) -> Option<Self> {
        let (label, partitions) = text.split_once(':')?;
        if let Ok(count) = partitions.parse() {
            return Some(Self::without_racks(label, count));
        }
        let racks = |replicas: &str| replicas.split('+').map(str::to_owned).collect();
        Some(Self { label: label.to_owned(), racks: partitions.split(',').map(racks).collect() })
    }
}

/// The metadata of a cluster with these topics. Each rack has one broker.
pub(super) fn image(topics: &[Topic]) -> MetadataImage {
    let racks: BTreeSet<&String> =
        topics.iter().flat_map(|topic| topic.racks.iter().flatten()).collect();
    let ids: BTreeMap<&String, i32> = racks.into_iter().zip(1..).collect();
    let broker = |(rack, id): (&&String, &i32)| rpc::Broker {
        id: *id,
        rack: (*rack).clone(),
        ..Default::default()
    };
    let partition = |(racks, index): (&Vec<String>, i32)| {
        let replicas: Vec<i32> =
            if racks.is_empty() { vec![0] } else { racks.iter().map(|rack| ids[rack]).collect() };
        rpc::Partition { index, isr: replicas.clone(), replicas, ..Default::default() }
    };
    let topic = |topic: &Topic| {
        let name = topic.label.split('@').next().unwrap_or_default();
        rpc::Topic {
            id: topic_id(&topic.label).as_bytes().to_vec(),
            name: name.to_owned(),
            internal: name.starts_with("__"),
            partitions: topic.racks.iter().zip(0..).map(partition).collect(),
            ..Default::default()
        }
    };
    // Each image has a version of its own.
    static VERSION: AtomicU64 = AtomicU64::new(1);
    let update = rpc::MetadataUpdate {
        version: VERSION.fetch_add(1, Ordering::Relaxed),
        full: true,
        brokers: ids.iter().map(broker).collect(),
        topics: topics.iter().map(topic).collect(),
        ..Default::default()
    };
    MetadataImage::default().after(ControllerEpoch(1), &update).unwrap().0
}

/// The id of the topic with this label.
pub(in crate::group::tests) fn topic_id(label: &str) -> Uuid {
    Uuid::from_u128(label.bytes().fold(1, |id, byte| id << 8 | u128::from(byte)))
}

/// The label of the topic with this id.
fn label(id: Uuid) -> String {
    let bytes = id.into_bytes();
    let from = bytes.iter().position(|byte| *byte != 0).map_or(bytes.len(), |first| first + 1);
    String::from_utf8_lossy(&bytes[from..]).into_owned()
}

/// Parses a partition such as `a-0`.
pub(super) fn partition(text: &str) -> Option<(String, i32)> {
    let (topic, index) = text.rsplit_once('-')?;
    Some((topic.to_owned(), index.parse().ok()?))
}

/// Parses partitions such as `a-0,a-1`, or `nothing`.
pub(super) fn partitions(text: &str) -> Option<Partitions> {
    match text {
        "nothing" => Some(Partitions::new()),
        _ => text.split(',').map(partition).collect(),
    }
}

/// Partitions by the names of their topics, as text.
pub(super) fn say<'a>(topics: impl IntoIterator<Item = (&'a str, &'a [i32])>) -> String {
    let of_topic = |(topic, indexes): (&str, &[i32])| {
        indexes.iter().map(|index| format!("{topic}-{index}")).collect::<Vec<_>>()
    };
    let all: Vec<String> = topics.into_iter().flat_map(of_topic).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(",") }
}

/// Partitions by the ids of their topics, as text, in the order of the names.
pub(super) fn say_ids<'a>(topics: impl IntoIterator<Item = (Uuid, &'a [i32])>) -> String {
    let labelled: BTreeMap<String, &[i32]> =
        topics.into_iter().map(|(id, indexes)| (label(id), indexes)).collect();
    say(labelled.iter().map(|(label, indexes)| (label.as_str(), *indexes)))
}
