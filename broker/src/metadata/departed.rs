//! Brokers that were alive until just now.
//!
//! A client may learn in one answer that a partition has another leader and that the old leader is
//! no broker any more. librdkafka since 2.5 (confluentinc/librdkafka#4557) then loses the partition
//! until its timer looks for leaders again, a second later. So a fenced broker stays in the list of
//! brokers for a moment. Meanwhile clients move their partitions away from it, and it leads none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use weir_protocol::types::BrokerId;

use super::{BrokerImage, MetadataImage};

/// How long a fenced broker stays. Long enough for clients that ask at once or a second later. No
/// longer, because a new client may try to connect to it.
const STAYS: Duration = Duration::from_secs(2);

/// The fenced brokers, each with the time since when.
#[derive(Debug, Default)]
pub(super) struct Departed {
    since: Mutex<BTreeMap<BrokerId, Instant>>,
}

impl Departed {
    /// Notes the brokers that were fenced between two images.
    pub(super) fn note(&self, before: &MetadataImage, after: &MetadataImage) {
        let is_fenced = |id: BrokerId| after.brokers.get(&id).is_none_or(|broker| broker.fenced);
        let mut since = self.since.lock();
        since.retain(|id, at| is_fenced(*id) && at.elapsed() < STAYS);
        for broker in before.live_brokers().filter(|broker| is_fenced(broker.id)) {
            since.insert(broker.id, Instant::now());
        }
    }

    /// Returns the live brokers and the recently fenced ones.
    pub(super) fn with_the_living<'a>(
        &self,
        image: &'a MetadataImage,
    ) -> Vec<&'a Arc<BrokerImage>> {
        let since = self.since.lock();
        let is_known = |broker: &&Arc<BrokerImage>| {
            !broker.fenced || since.get(&broker.id).is_some_and(|at| at.elapsed() < STAYS)
        };
        image.brokers.values().filter(is_known).collect()
    }
}

#[cfg(test)]
mod tests {
    use weir_protocol::controller as rpc;
    use weir_protocol::types::ControllerEpoch;

    use super::*;

    #[test]
    fn a_broker_that_is_fenced_is_known_for_a_moment_longer() {
        let image = |fenced: bool| {
            let broker = |id, fenced| rpc::Broker { id, fenced, ..Default::default() };
            let update = rpc::MetadataUpdate {
                brokers: vec![broker(0, false), broker(1, fenced)],
                full: true,
                ..Default::default()
            };
            MetadataImage::default().after(ControllerEpoch(1), &update).unwrap().0
        };
        let departed = Departed::default();
        let known = |image: &MetadataImage| {
            departed.with_the_living(image).iter().map(|broker| broker.id.0).collect::<Vec<_>>()
        };
        assert_eq!(known(&image(true)), [0], "this one was never alive");
        departed.note(&image(false), &image(true));
        assert_eq!(known(&image(true)), [0, 1]);
        departed.since.lock().insert(BrokerId(1), Instant::now().checked_sub(STAYS).unwrap());
        assert_eq!(known(&image(true)), [0], "its moment is over");
    }
}
