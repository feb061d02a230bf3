//! The wait of a producer for its batch, after the batch is queued for the writer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, error::Elapsed, timeout_at};
use tracing::{Span, warn};
use weir_protocol::types::LeaderEpoch;

use super::Partition;
use super::work::Acks;
use crate::replica::waiters::Waiter;
use weir_log::{AppendError, AppendInfo};

/// The least time that a producer waits for this broker's own disk, whatever its timeout.
const DISK_WAIT_MAX: Duration = Duration::from_secs(30);

/// A batch that is queued for the writer.
#[derive(Debug)]
pub(crate) struct Appending {
    pub(super) partition: Arc<Partition>,
    pub(super) answer: oneshot::Receiver<Result<(AppendInfo, LeaderEpoch), AppendError>>,
}

impl Appending {
    /// Waits until the batch is appended, and then for the acknowledgement that `acks` requires.
    ///
    /// # Errors
    /// The reason why the append was refused; [`AppendError::NotLeader`] when this broker stopped
    /// leading while the batch waited to be committed.
    pub(crate) async fn acknowledged(self, acks: Acks) -> Result<AppendInfo, AppendError> {
        let (info, epoch) = self.answer.await.unwrap_or(Err(AppendError::Storage))?;
        self.partition.wait_for(info.last_offset + 1, epoch, acks).await?;
        Ok(self.partition.had(info, acks))
    }

    /// The same, but waits for followers until `deadline` only. A client's timeout bounds the wait
    /// for followers (`ReplicaManager.delayedProduceRequestRequired`). A batch that needs no
    /// follower does not time out because this broker's disk was slow. The wait for the disk has a
    /// bound of its own, [`DISK_WAIT_MAX`]; a line about it is in the span of the `request`.
    ///
    /// # Errors
    /// Also [`Elapsed`]: the batch may be appended, and may still be committed.
    pub(crate) async fn acknowledged_by(
        self,
        acks: Acks,
        deadline: Instant,
        request: impl Fn() -> Span + Send + Sync,
    ) -> Result<Result<AppendInfo, AppendError>, Elapsed> {
        let Self { partition, answer } = self;
        let on_disk = deadline.max(Instant::now() + DISK_WAIT_MAX);
        let stalled = |elapsed| {
            let seconds = DISK_WAIT_MAX.as_secs();
            request().in_scope(|| {
                warn!(topic = %partition.topic(), partition = partition.id().index, seconds, "the disk has not taken what a producer waits for; answering that it timed out");
            });
            elapsed
        };
        let (info, epoch) = match timeout_at(on_disk, answer)
            .await
            .map_err(stalled)?
            .unwrap_or(Err(AppendError::Storage))
        {
            Ok(appended) => appended,
            Err(error) => return Ok(Err(error)),
        };
        let offset = info.last_offset + 1;
        let had = if acks == Acks::All {
            if let Ok(committed) =
                timeout_at(deadline, partition.wait_for(offset, epoch, Acks::All)).await
            {
                return Ok(committed.map(|()| info));
            }
            Acks::Leader
        } else {
            acks
        };
        if let Err(error) =
            timeout_at(on_disk, partition.wait_for(offset, epoch, had)).await.map_err(stalled)?
        {
            return Ok(Err(error));
        }
        let info = partition.had(info, had);
        if acks == Acks::All {
            // With the flush done, only a follower can hold up the commit.
            return timeout_at(deadline, partition.wait_for(offset, epoch, acks))
                .await
                .map(|committed| committed.map(|()| info));
        }
        Ok(Ok(info))
    }
}

impl Partition {
    /// Waits until the records before `offset`, appended in `epoch`, are acknowledged under `acks`.
    async fn wait_for(
        self: &Arc<Self>,
        offset: i64,
        epoch: LeaderEpoch,
        acks: Acks,
    ) -> Result<(), AppendError> {
        if acks == Acks::None || self.acknowledges(offset, epoch, acks)? {
            return Ok(());
        }
        let mut waiter = Waiter::new(if acks == Acks::All { Self::waiters } else { Self::holding });
        loop {
            waiter.register([Arc::clone(self)]);
            if self.acknowledges(offset, epoch, acks)? {
                return Ok(());
            }
            waiter.woken().await;
        }
    }

    /// Raises the high watermark before the answer for a batch that this broker has.
    fn had(self: &Arc<Self>, info: AppendInfo, acks: Acks) -> AppendInfo {
        // This thread may see the flush before the flush has moved the high watermark. A client of
        // a partition with one replica then reads the record that it has just been acknowledged.
        if acks == Acks::Leader && self.log.high_watermark() <= info.last_offset {
            self.grew();
        }
        info
    }
}
