//! The wait for a flush of the records in one answer. One flush covers all its partitions, and the
//! next fetch then acknowledges them.
//!
//! The session calls this after it has appended. It does not wait for a log that is deleted or has
//! another leader. The wait has a bound, because the leader's other partitions must go on.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;
use weir_protocol::types::LeaderEpoch;

use crate::replica::Partition;
use crate::replica::waiters::Waiter;

/// The longest wait for a flush. A slower disk delays only the partitions whose records it writes.
pub(super) const FLUSH_MAX: Duration = Duration::from_secs(10);

/// Waits until each partition has flushed what it appended in its epoch, so that the next fetch
/// acknowledges it. One flush serves all. Returns whether that succeeded within `at_most`. A
/// partition without a flush by then is fetched again after it.
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
                // The append has requested a flush, unless the partition was between two roles at
                // that moment.
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
        warn!(leader = first.followed(), topic = %first.topic(), partition, partitions = missing().count(), seconds, "what was fetched from a leader is not flushed yet; the other partitions go on without it");
    }
    false
}
