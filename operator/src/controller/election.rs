//! Who leads a partition (`PartitionChangeBuilder` in Apache Kafka 4.2, with KIP-966).
//!
//! Called whenever brokers come, go or change their mind. Looks at one partition; never at a clock, and never at what a broker was.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::types::{BrokerId, LeaderEpoch, PartitionEpoch};

use super::state::Partition;

/// What an election goes by.
pub(crate) struct Electorate<'a> {
    /// Whether a broker is registered, unfenced, not shutting down and not the one that is being removed.
    pub(crate) acceptable: &'a dyn Fn(BrokerId) -> bool,
    /// The topic's `min.insync.replicas`.
    pub(crate) min_isr: usize,
    /// The topic's `unclean.leader.election.enable`.
    pub(crate) unclean: bool,
}

/// The partition once its ISR is `isr` and `unclean` replicas have lost what they had; `None` if that changes nothing.
///
/// Nobody is moved without need: a leader that is still valid stays.
pub(crate) fn settle(before: &Partition, isr: Vec<BrokerId>, lost_their_tail: &[BrokerId], electorate: &Electorate<'_>) -> Option<Partition> {
    let mut next = before.clone();
    next.elr = eligible(before, &isr, lost_their_tail, electorate.min_isr);
    next.isr = isr;
    elect(&mut next, electorate);
    if next.leader.is_none() && before.leader.is_some() {
        next.last_known_leader = before.leader;
    }
    if next.leader != before.leader {
        next.leader_epoch = LeaderEpoch(before.leader_epoch.0 + 1);
    }
    (next != *before).then(|| {
        next.partition_epoch = PartitionEpoch(before.partition_epoch.0 + 1);
        next
    })
}

/// The replicas outside of the ISR that hold all that is committed: while the ISR is below its minimum the high watermark stands still, so that
/// whoever leaves it misses nothing.
fn eligible(before: &Partition, isr: &[BrokerId], lost_their_tail: &[BrokerId], min_isr: usize) -> Vec<BrokerId> {
    if isr.len() >= min_isr.min(before.replicas.len()) {
        return Vec::new();
    }
    let was_eligible = |id: &&BrokerId| before.elr.contains(id) || before.isr.contains(id);
    before
        .replicas
        .iter()
        .filter(was_eligible)
        .filter(|id| !isr.contains(id) && !lost_their_tail.contains(id))
        .copied()
        .collect()
}

fn elect(partition: &mut Partition, electorate: &Electorate<'_>) {
    let acceptable = |id: &BrokerId| (electorate.acceptable)(*id);
    let in_isr = |id: &BrokerId| partition.isr.contains(id) || (partition.isr.is_empty() && partition.elr.contains(id));
    let clean = partition.leader.filter(|id| acceptable(id) && in_isr(id));
    let clean = clean.or_else(|| partition.replicas.iter().copied().find(|id| acceptable(id) && in_isr(id)));
    if let Some(leader) = clean {
        if !partition.isr.contains(&leader) {
            partition.elr.retain(|id| *id != leader);
            partition.isr = vec![leader];
        }
        partition.leader = Some(leader);
        partition.last_known_leader = None;
        return;
    }
    // When nobody is left who has everything, the last leader knows most. Kafka waits for it even where unclean election is off, because nobody else ever will.
    let last = partition
        .last_known_leader
        .filter(|id| partition.isr.is_empty() && partition.elr.is_empty() && acceptable(id));
    let any = || partition.replicas.iter().copied().find(|id| electorate.unclean && acceptable(id));
    let unclean = last.or_else(any);
    if let Some(leader) = unclean {
        partition.isr = vec![leader];
        partition.elr = Vec::new();
        partition.last_known_leader = None;
    }
    partition.leader = unclean;
}
