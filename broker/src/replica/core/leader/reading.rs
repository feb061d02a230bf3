//! A leader's decisions about reads: where a follower's log diverges from its own, which offset a
//! consumer may know, and which replica it should read from.
//!
//! Called for each fetch and each request for offsets. Changes nothing.

use weir_protocol::error::ErrorCode;
use weir_protocol::types::BrokerId;

use super::Leadership;
use super::progress::Progress;
use crate::replica::core::{FetchFrom, OwnLog, Peers};
use weir_log::EpochEnd;

impl Leadership {
    /// Checks a fetch before the log is read for it (`Partition.fetchRecords`). `Some` is the end
    /// of the epoch where the follower's log diverges from this one; the follower then gets no
    /// records.
    ///
    /// # Errors
    /// FENCED_LEADER_EPOCH or UNKNOWN_LEADER_EPOCH for another epoch, UNKNOWN_LEADER_EPOCH also for
    /// a broker that this leader does not know as a replica, OFFSET_OUT_OF_RANGE.
    pub fn examine(
        &self,
        replica: BrokerId,
        fetch: &FetchFrom,
        log: &OwnLog<'_>,
    ) -> Result<Option<EpochEnd>, ErrorCode> {
        if fetch.current_leader_epoch < self.epoch() {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if fetch.current_leader_epoch > self.epoch()
            || !self.followers.iter().any(|follower| follower.id == replica)
        {
            return Err(ErrorCode::UnknownLeaderEpoch);
        }
        let Some(last_epoch) = fetch.last_fetched_epoch else {
            let known = (log.start..=log.end).contains(&fetch.offset);
            return if known { Ok(None) } else { Err(ErrorCode::OffsetOutOfRange) };
        };
        let ours = (log.end_of_epoch)(last_epoch).ok_or(ErrorCode::OffsetOutOfRange)?;
        if fetch.offset < log.start {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let parted = ours.epoch < last_epoch || ours.offset < fetch.offset;
        Ok(parted.then_some(ours))
    }

    /// The high watermark for ListOffsets. A client must never see the latest offset go back
    /// (KIP-207).
    ///
    /// # Errors
    /// OFFSET_NOT_AVAILABLE while the high watermark is below the start of the leader epoch. It may
    /// then be below the previous leader's.
    pub fn latest_offset(&self) -> Result<i64, ErrorCode> {
        if self.high_watermark < self.epoch_start {
            return Err(ErrorCode::OffsetNotAvailable);
        }
        Ok(self.high_watermark)
    }

    /// The follower that a consumer should read from (KIP-392, `RackAwareReplicaSelector`); `None`:
    /// the leader. `in_rack` says whether a broker is alive and in the consumer's rack.
    pub fn preferred_read_replica(
        &self,
        offset: i64,
        in_rack: &dyn Fn(BrokerId) -> bool,
        now: u64,
    ) -> Option<BrokerId> {
        if in_rack(self.own) {
            return None;
        }
        let readable = |follower: &&Progress| {
            self.committed.isr.contains(&follower.id)
                && follower.log_start >= 0
                && (follower.log_start..=follower.end).contains(&offset)
        };
        let candidates =
            self.followers.iter().filter(readable).filter(|follower| in_rack(follower.id));
        let best = candidates.max_by_key(|follower| {
            (follower.end, std::cmp::Reverse(follower.lag_ms(now)), follower.id)
        });
        best.map(|follower| follower.id)
    }

    /// The lowest log start offset of all live replicas (`Partition.lowWatermarkIfLeader`); -1
    /// while that of one is unknown. `own_start` is the leader's own.
    pub fn low_watermark(&self, own_start: i64, peers: Peers<'_>) -> i64 {
        let alive = self
            .followers
            .iter()
            .filter(|follower| peers(follower.id).is_some_and(|peer| !peer.fenced));
        alive.map(|follower| follower.log_start).fold(own_start, i64::min)
    }
}
