//! What the next process of this broker goes on with while no controller is there: the metadata
//! that this one acts on, and what its leaders have asked for.
//!
//! With it goes what only this broker knows: which producer ids nobody has been given. Written
//! before it is acted on: a process that died knew nothing that its successor does not find. The
//! log directory keeps it and says whether it can be believed ([`crate::log::LogDir::left_known`]);
//! here it is put into frames, of the RPC's own messages.

use std::collections::HashMap;
use std::ops::Range;

use parking_lot::Mutex;
use prost::Message as _;
use tracing::warn;
use uuid::Uuid;
use weir_protocol::controller as rpc;
use weir_protocol::controller::controller_message::Message as FromController;
use weir_protocol::types::{
    BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, PartitionEpoch, TopicId, TopicPartition,
};

use crate::log::LogDir;
use crate::metadata::MetadataImage;
use crate::replica::committed;
use crate::replica::core::{Asked, Proposal};

/// What a frame holds, by its first byte.
const METADATA: u8 = b'm';
const ASKED: u8 = b'a';
const PRODUCER_IDS: u8 = b'p';

/// What the last run left.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) image: MetadataImage,
    pub(super) asked: HashMap<TopicPartition, Asked>,
    /// Ids that no run has given out.
    pub(super) producer_ids: [Range<i64>; 2],
}

/// What is on the disk besides the metadata.
#[derive(Debug, Default)]
pub(super) struct Keeper(Mutex<Beside>);

#[derive(Debug, Default)]
struct Beside {
    asked: HashMap<TopicPartition, Asked>,
    producer_ids: [Range<i64>; 2],
}

/// What the last run left in this directory, if there is something to go on with.
pub(super) fn left(log_dir: &LogDir) -> Option<Left> {
    let frames = log_dir.left_known()?;
    let left = read(&frames);
    if left.is_none() {
        warn!("what the last run knew of the cluster makes no sense, and is not believed");
    }
    left
}

fn read(frames: &[Vec<u8>]) -> Option<Left> {
    let mut left = Left {
        image: MetadataImage::default(),
        asked: HashMap::new(),
        producer_ids: Default::default(),
    };
    for frame in frames {
        let (kind, payload) = frame.split_first()?;
        match *kind {
            METADATA => {
                let message = rpc::ControllerMessage::decode(payload).ok()?;
                let Some(FromController::Metadata(update)) = message.message else {
                    return None;
                };
                (left.image, _) =
                    left.image.after(ControllerEpoch(message.controller_epoch), &update).ok()?;
            }
            ASKED => {
                let (id, asked) = asked_of(&rpc::IsrChange::decode(payload).ok()?)?;
                left.asked.insert(id, asked);
            }
            PRODUCER_IDS => left.producer_ids = serde_json::from_slice(payload).ok()?,
            _ => return None,
        }
    }
    (left.image.version > 0).then_some(left)
}

/// What some run knew here, as far as it makes sense: the metadata, if there is any, and the first
/// producer id that nobody was given by then.
pub(super) fn last_known(frames: &[Vec<u8>]) -> (Option<MetadataImage>, i64) {
    let (mut image, mut producer_ids_end) = (MetadataImage::default(), 0);
    for frame in frames {
        let Some((kind, payload)) = frame.split_first() else { break };
        if *kind == METADATA {
            let next = rpc::ControllerMessage::decode(payload).ok().and_then(|message| {
                let Some(FromController::Metadata(update)) = message.message else {
                    return None;
                };
                image.after(ControllerEpoch(message.controller_epoch), &update).ok()
            });
            let Some((next, _)) = next else { break };
            image = next;
        } else if *kind == PRODUCER_IDS {
            let left: [Range<i64>; 2] = serde_json::from_slice(payload).unwrap_or_default();
            producer_ids_end = left.iter().map(|ids| ids.end).fold(producer_ids_end, i64::max);
        }
    }
    ((image.version > 0).then_some(image), producer_ids_end)
}

impl Keeper {
    /// Keeps metadata that is about to be acted on: as a change of what was kept before, or whole,
    /// as `next`.
    pub(super) fn keep(
        &self,
        log_dir: &LogDir,
        broker_epoch: i64,
        update: rpc::MetadataUpdate,
        next: &MetadataImage,
    ) {
        let is_change = !update.full && !log_dir.has_kept_many_changes();
        if !is_change || !log_dir.keep_change(&metadata_frame(next.controller_epoch, update)) {
            self.keep_whole(log_dir, broker_epoch, next);
        }
    }

    /// Takes up what the last run asked for, and keeps it with its metadata as this run's own.
    pub(super) fn go_on(&self, log_dir: &LogDir, broker_epoch: i64, left: &Left) {
        *self.0.lock() =
            Beside { asked: left.asked.clone(), producer_ids: left.producer_ids.clone() };
        self.keep_whole(log_dir, broker_epoch, &left.image);
    }

    fn keep_whole(&self, log_dir: &LogDir, broker_epoch: i64, image: &MetadataImage) {
        // Held throughout: what is asked for meanwhile is appended to the new file.
        let mut beside = self.0.lock();
        beside.asked.retain(|id, asked| {
            let partition = image.topic(id.topic).and_then(|topic| topic.partition(id.index));
            partition.is_some_and(|partition| asked.binds(&committed(partition)))
        });
        let mut frames = vec![metadata_frame(image.controller_epoch, image.whole())];
        frames.extend(beside.asked.iter().map(|(id, asked)| asked_frame(*id, asked)));
        frames.push(producer_ids_frame(&beside.producer_ids));
        log_dir.keep_known(broker_epoch, &frames);
    }

    /// Keeps what leaders are about to ask for: the next process waits for whoever may have joined
    /// an ISR by it. Returns whether it may be asked for: not once this run is over.
    #[must_use]
    pub(super) fn keep_asked<'a>(
        &self,
        log_dir: &LogDir,
        proposals: impl Iterator<Item = (TopicPartition, &'a Proposal)>,
    ) -> bool {
        let known = &mut self.0.lock().asked;
        for (id, proposal) in proposals {
            let before = known.get(&id);
            let Some(asked) = Asked::of(proposal).map(|asked| asked.after(before)) else {
                continue;
            };
            // What is asked again and again, while nobody answers, is written once.
            if before != Some(&asked) {
                // Where there is no file, nobody goes on with anything; the next one that is
                // written has this too.
                log_dir.keep_change(&asked_frame(id, &asked));
                known.insert(id, asked);
            }
        }
        !log_dir.keeps_nothing_more()
    }

    /// Keeps which producer ids the next run may give out, before others are given out here.
    pub(super) fn keep_producer_ids(&self, log_dir: &LogDir, left: [Range<i64>; 2]) {
        let mut beside = self.0.lock();
        log_dir.keep_change(&producer_ids_frame(&left));
        beside.producer_ids = left;
    }
}

fn producer_ids_frame(left: &[Range<i64>; 2]) -> Vec<u8> {
    // Numbers can always be written.
    let mut frame = serde_json::to_vec(left).unwrap_or_default();
    frame.insert(0, PRODUCER_IDS);
    frame
}

fn metadata_frame(controller_epoch: ControllerEpoch, update: rpc::MetadataUpdate) -> Vec<u8> {
    let message = rpc::ControllerMessage {
        controller_epoch: controller_epoch.0,
        message: Some(FromController::Metadata(update)),
    };
    frame(METADATA, &message)
}

fn asked_frame(id: TopicPartition, asked: &Asked) -> Vec<u8> {
    let member = |(id, epoch): &(BrokerId, BrokerEpoch)| rpc::IsrMember {
        broker_id: id.0,
        broker_epoch: epoch.0,
    };
    let change = rpc::IsrChange {
        topic_id: id.topic.0.as_bytes().to_vec(),
        partition: id.index,
        leader_epoch: asked.leader_epoch.0,
        partition_epoch: asked.base.0,
        isr: asked.members.iter().map(member).collect(),
        recovered: false,
    };
    frame(ASKED, &change)
}

fn asked_of(change: &rpc::IsrChange) -> Option<(TopicPartition, Asked)> {
    let id = TopicPartition {
        topic: TopicId(Uuid::from_slice(&change.topic_id).ok()?),
        index: change.partition,
    };
    let members = change
        .isr
        .iter()
        .map(|member| (BrokerId(member.broker_id), BrokerEpoch(member.broker_epoch)));
    let asked = Asked {
        leader_epoch: LeaderEpoch(change.leader_epoch),
        base: PartitionEpoch(change.partition_epoch),
        members: members.collect(),
    };
    Some((id, asked))
}

fn frame(kind: u8, message: &impl prost::Message) -> Vec<u8> {
    let mut frame = Vec::with_capacity(message.encoded_len() + 1);
    frame.push(kind);
    // A vector has room for everything.
    let _ = message.encode(&mut frame);
    frame
}

#[cfg(test)]
mod tests;
