//! The wait for the flush of what an answer brought: one for all of its partitions, before the next
//! fetch says that this broker has it.
//!
//! Called by the session after it has appended. Never waits for a log that nobody flushes any more,
//! nor longer than a bound: the other partitions of the leader must go on.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;
use weir_protocol::types::LeaderEpoch;

use crate::replica::Partition;
use crate::replica::waiters::Waiter;

/// How long a flush is waited for. A disk that takes longer holds up what was written to it, and
/// nothing else.
pub(super) const FLUSH_MAX: Duration = Duration::from_secs(10);

/// Waits until what was appended, to each partition in its epoch, counts as had: the next fetch
/// tells the leader so. One flush serves all. Returns whether it came in time; what is not flushed
/// by then is fetched on when it is.
pub(in crate::replica) async fn wait_for_flush(
    appended: &[(Arc<Partition>, LeaderEpoch)],
    at_most: Duration,
) -> bool {
    let missing = || appended.iter().filter(|(partition, epoch)| !partition.has_all(*epoch));
    if missing().next().is_none() {
        return true;
    }
    let flushed = async {
        let mut waiter = Waiter::new(Partition::holding);
        loop {
            waiter.register(appended.iter().map(|(partition, _)| Arc::clone(partition)));
            let mut done = true;
            for (partition, _) in missing() {
                // Whoever appended has asked for it, unless the partition was between two roles
                // just then.
                partition.log().request_flush();
                done = false;
            }
            if done {
                return;
            }
            waiter.woken().await;
        }
    };
    if tokio::time::timeout(at_most, flushed).await.is_ok() {
        return true;
    }
    if let Some((first, _)) = missing().next() {
        let (partition, seconds) = (first.id().index, at_most.as_secs());
        warn!(topic = %first.topic(), partition, partitions = missing().count(), seconds, "what was fetched from a leader is not flushed yet; the other partitions go on without it");
    }
    false
}
