//! What a broker says of its volume, checked.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use uuid::Uuid;
use weir_protocol::controller as rpc;
use weir_protocol::types::{BrokerId, TopicId};

use super::super::limits::PARTITIONS_MAX;
use super::super::topic_name::check_name;

/// What is on a broker's volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// The cluster that it belongs to; empty: none, it is new.
    pub cluster_id: String,
    /// The volume's own id.
    pub log_dir: Uuid,
    /// The broker epoch under which it was last used.
    pub broker_epoch: Option<i64>,
    /// The highest epoch of a controller that was obeyed there.
    pub controller_epoch: i64,
    /// The first producer id that nobody has, as far as is known there.
    pub producer_ids_end: i64,
    /// The whole metadata as it was last known there.
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
    /// The newest leader epoch in it; -1: none.
    pub leader_epoch: i32,
    /// Where the next record would go.
    pub end_offset: i64,
}

impl Inventory {
    /// Whether nothing was ever on the volume.
    pub fn is_new(&self) -> bool {
        self.cluster_id.is_empty()
    }
}

impl TryFrom<rpc::Inventory> for Inventory {
    type Error = String;

    /// # Errors
    /// What makes no sense. A log whose name is no topic's is left out: no metadata could name it.
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

/// The image that knows most: the newest.
pub(super) fn newest<'a>(
    used: &BTreeMap<BrokerId, &'a Inventory>,
) -> Option<&'a rpc::MetadataUpdate> {
    let images = used.values().filter_map(|inventory| inventory.image.as_ref());
    images.max_by_key(|image| image.version)
}
