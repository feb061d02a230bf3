//! The state with which the next process of this broker continues while no controller answers: the
//! metadata that this one acts on, and the producer ids that only this broker knows to be unused.
//!
//! All of it is written before this process acts on it, so the next process finds everything that a
//! dead one knew. The log directory stores it and says whether it is valid
//! ([`weir_log::LogDir::left_known`]). This module encodes it as frames of the RPC's messages.

use std::ops::Range;

use parking_lot::Mutex;
use prost::Message as _;
use tracing::warn;
use weir_protocol::controller as rpc;
use weir_protocol::controller::controller_message::Message as FromController;
use weir_protocol::types::ControllerEpoch;

use crate::metadata::MetadataImage;
use weir_log::LogDir;

/// The kinds of frames, by their first byte.
const METADATA: u8 = b'm';
const PRODUCER_IDS: u8 = b'p';
/// An ISR proposal, as older brokers stored it. A role that is resumed waits for every replica, so
/// it need not know them.
const PROPOSAL: u8 = b'a';

/// The state of the last run.
#[derive(Debug)]
pub(super) struct PreviousShutdown {
    pub(super) image: MetadataImage,
    /// Producer ids that no run has assigned.
    pub(super) producer_ids: [Range<i64>; 2],
}

/// The stored state besides the metadata: the producer ids that no run has assigned.
#[derive(Debug, Default)]
pub(super) struct Keeper(Mutex<[Range<i64>; 2]>);

/// Returns the state that the last run left in this directory, if it can be used.
pub(super) fn left(log_dir: &LogDir) -> Option<PreviousShutdown> {
    let frames = log_dir.left_known()?;
    let left = read(&frames);
    if left.is_none() {
        warn!(
            "what the last run knew of the cluster makes no sense, and is not believed; this broker waits for a controller"
        );
    }
    left
}

fn read(frames: &[Vec<u8>]) -> Option<PreviousShutdown> {
    let mut left =
        PreviousShutdown { image: MetadataImage::default(), producer_ids: Default::default() };
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
            PRODUCER_IDS => left.producer_ids = serde_json::from_slice(payload).ok()?,
            PROPOSAL => {}
            _ => return None,
        }
    }
    (left.image.version > 0).then_some(left)
}

/// Returns what some run stored here, as far as it can be decoded: the metadata, if there is any,
/// and the first producer id that was not assigned then.
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
    /// Stores metadata before it is acted on: as a change of the stored metadata, or `next` as a
    /// whole.
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

    /// Takes over the producer ids of the last run, and stores them with its metadata as this run's
    /// own.
    pub(super) fn adopt_previous(
        &self,
        log_dir: &LogDir,
        broker_epoch: i64,
        left: &PreviousShutdown,
    ) {
        *self.0.lock() = left.producer_ids.clone();
        self.keep_whole(log_dir, broker_epoch, &left.image);
    }

    fn keep_whole(&self, log_dir: &LogDir, broker_epoch: i64, image: &MetadataImage) {
        // The lock is held throughout, so that a concurrent change is appended to the new file.
        let producer_ids = self.0.lock();
        let frames = [
            metadata_frame(image.controller_epoch, image.whole()),
            producer_ids_frame(&producer_ids),
        ];
        log_dir.keep_known(broker_epoch, &frames);
    }

    /// Stores the producer ids that the next run may assign, before this run assigns others.
    pub(super) fn keep_producer_ids(&self, log_dir: &LogDir, left: [Range<i64>; 2]) {
        let mut producer_ids = self.0.lock();
        log_dir.keep_change(&producer_ids_frame(&left));
        *producer_ids = left;
    }
}

fn producer_ids_frame(left: &[Range<i64>; 2]) -> Vec<u8> {
    // Serialising numbers cannot fail.
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

fn frame(kind: u8, message: &impl prost::Message) -> Vec<u8> {
    let mut frame = Vec::with_capacity(message.encoded_len() + 1);
    frame.push(kind);
    // A vector has room for everything.
    let _ = message.encode(&mut frame);
    frame
}

#[cfg(test)]
mod tests;
