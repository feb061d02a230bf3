//! The brokers for new partitions: spread over racks first, over brokers second
//! (`StripedReplicaPlacer` in Apache Kafka).
//!
//! Brokers that are down at the moment count too, so that clients can create topics during a
//! restart. Within a rack they come after those that serve, and they are never the preferred
//! leader.
//!
//! Called for each creation and growth of a topic. Deterministic: the topic's id replaces a random
//! start, so topics do not all start at the same broker.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use weir_protocol::types::{BrokerId, TopicId};

use super::state::State;

/// Why a partition cannot be placed. The wire's error is INVALID_REPLICATION_FACTOR.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlace {
    /// No broker could lead.
    #[error("All brokers are currently fenced.")]
    AllFenced,
    /// There are fewer brokers than replicas.
    #[error(
        "The target replication factor of {replicas} cannot be reached because only {brokers} broker(s) are registered."
    )]
    TooFew {
        /// The requested number of replicas.
        replicas: usize,
        /// The number of brokers that could take one.
        brokers: usize,
    },
    /// The shard that keeps the topic's partitions would be too large.
    #[error(
        "There is no room for {0} more partitions beside those of other topics: spread them over several topics."
    )]
    NoRoom(usize),
    /// The same during a move, when a partition has its old and its new replicas.
    #[error(
        "There is no room to keep track of more partitions that are being moved: move fewer at once."
    )]
    NoRoomToMove,
}

/// The replicas of the partitions `first..first + count` of a topic, the preferred leader first.
///
/// # Errors
/// When there are not enough brokers that can take partitions, or no room to keep them.
pub(crate) fn place(
    state: &State,
    topic: TopicId,
    first: usize,
    count: usize,
    replicas: usize,
) -> Result<Vec<Vec<BrokerId>>, NoPlace> {
    let mut by_rack: BTreeMap<Option<&str>, Rack> = BTreeMap::new();
    for broker in state.open_brokers() {
        let rack = by_rack.entry(broker.rack.as_deref()).or_default();
        if broker.is_usable() { &mut rack.serving } else { &mut rack.away }.push(broker.id);
    }
    let racks: Vec<Rack> = by_rack.into_values().collect();
    let brokers: usize = racks.iter().map(Rack::len).sum();
    if brokers > 0 && racks.iter().all(|rack| rack.serving.is_empty()) {
        return Err(NoPlace::AllFenced);
    }
    if brokers < replicas || replicas == 0 {
        return Err(NoPlace::TooFew { replicas, brokers });
    }
    if !state.has_room(topic, count, replicas) {
        return Err(NoPlace::NoRoom(count));
    }
    let offset = usize::try_from(topic.0.as_u128() % 65_521).unwrap_or_default();
    Ok((first..first + count)
        .map(|partition| stripe(&racks, offset + partition, replicas))
        .collect())
}

/// The brokers of a rack.
#[derive(Default)]
struct Rack {
    serving: Vec<BrokerId>,
    away: Vec<BrokerId>,
}

impl Rack {
    fn len(&self) -> usize {
        self.serving.len() + self.away.len()
    }

    /// The broker at position `depth` of this rack. Those that serve come first; `shift` rotates
    /// the order within each of the two lists.
    fn broker(&self, depth: usize, shift: usize) -> Option<BrokerId> {
        let (brokers, depth) = match depth.checked_sub(self.serving.len()) {
            None => (&self.serving, depth),
            Some(depth) => (&self.away, depth),
        };
        (depth < brokers.len()).then(|| brokers.get((shift + depth) % brokers.len()).copied())?
    }
}

/// One replica from each rack in turn. `turn` chooses the first rack and the broker in it, so each
/// partition starts elsewhere. The first replica is on a broker that serves.
fn stripe(racks: &[Rack], turn: usize, replicas: usize) -> Vec<BrokerId> {
    let mut chosen = Vec::new();
    let deepest = racks.iter().map(Rack::len).max().unwrap_or_default();
    let mut first = None;
    for depth in 0..deepest {
        for step in 0..racks.len() {
            let rack = racks.get((turn + step) % racks.len());
            let Some(broker) = rack.and_then(|rack| rack.broker(depth, turn / racks.len())) else {
                continue;
            };
            if first.is_none() && rack.is_some_and(|rack| depth < rack.serving.len()) {
                first = Some(chosen.len());
            }
            chosen.push(broker);
        }
    }
    // The other replicas keep their order.
    if let Some(front) = first.and_then(|leader| chosen.get_mut(..=leader)) {
        front.rotate_right(1);
    }
    chosen.truncate(replicas);
    chosen
}
