//! A broker's report of its volume, validated.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use uuid::Uuid;
use weir_protocol::controller as rpc;
use weir_protocol::types::{BrokerId, TopicId};

use super::super::limits::PARTITIONS_MAX;
use super::super::topic_name::check_name;

/// The contents of a broker's volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// The cluster that it belongs to; empty for a new volume.
    pub cluster_id: String,
    /// The volume's own id.
    pub log_dir: Uuid,
    /// The broker epoch of its last use.
    pub broker_epoch: Option<i64>,
    /// The highest controller epoch that the broker accepted.
    pub controller_epoch: i64,
    /// The first unused producer id, as far as this volume knows.
    pub producer_ids_end: i64,
    /// The last metadata image stored on it.
    pub image: Option<rpc::MetadataUpdate>,
    /// The logs.
    pub logs: Vec<FoundLog>,
}

/// A log on a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundLog {
    /// The topic's id.
    pub topic: TopicId,
    /// The topic's name.
    pub name: String,
    /// The partition's index.
    pub partition: i32,
    /// The newest leader epoch in it; -1 without records.
    pub leader_epoch: i32,
    /// The offset after the last record.
    pub end_offset: i64,
}

impl Inventory {
    /// Whether the volume was never used.
    pub fn is_new(&self) -> bool {
        self.cluster_id.is_empty()
    }
}

impl TryFrom<rpc::Inventory> for Inventory {
    type Error = String;

    /// # Errors
    /// The value that is invalid. A log whose topic name is invalid is skipped: no metadata could
    /// contain it.
    fn try_from(said: rpc::Inventory) -> Result<Self, String> {
        if said.cluster_id.is_empty() {
            return Ok(Self::default());
        }
        let uuid = |bytes: &[u8], what: &str| {
            Uuid::from_slice(bytes).map_err(|_| format!("{what} is not 16 bytes"))
        };
        let logs = said.logs.into_iter().filter(|log| check_name(&log.topic).is_ok()).map(|log| {
            let is_index = usize::try_from(log.partition).is_ok_and(|index| index < PARTITIONS_MAX);
            if !is_index || log.end_offset < 0 {
                return Err(format!(
                    "the log {}-{} ends at {}",
                    log.topic, log.partition, log.end_offset
                ));
            }
            Ok(FoundLog {
                topic: TopicId(uuid(&log.topic_id, "topic_id")?),
                name: log.topic,
                partition: log.partition,
                leader_epoch: log.leader_epoch.max(-1),
                end_offset: log.end_offset,
            })
        });
        Ok(Self {
            logs: logs.collect::<Result<_, String>>()?,
            cluster_id: said.cluster_id,
            log_dir: uuid(&said.log_dir_id, "log_dir_id")?,
            broker_epoch: said.broker_epoch,
            controller_epoch: said.controller_epoch,
            producer_ids_end: said.producer_ids_end,
            image: said.image,
        })
    }
}

/// The image with the highest version.
pub(super) fn newest<'a>(
    used: &BTreeMap<BrokerId, &'a Inventory>,
) -> Option<&'a rpc::MetadataUpdate> {
    let images = used.values().filter_map(|inventory| inventory.image.as_ref());
    images.max_by_key(|image| image.version)
}
