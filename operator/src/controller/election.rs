//! The election of a partition's leader, and the consequences of a new ISR or new replicas
//! (`PartitionChangeBuilder` in Apache Kafka 4.2, with KIP-966 and KIP-455).
//!
//! Called when brokers come, go or change their state, and when a leader or a user asks for other
//! replicas. Reads one partition; never a clock, and never a broker's history.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::types::{BrokerId, LeaderEpoch, PartitionEpoch};

use super::state::Partition;

/// The kind of an election, beside choosing a leader among the replicas with every committed
/// record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Election {
    /// A valid leader stays.
    Online,
    /// The first replica leads if it can.
    Preferred,
    /// If no replica with every committed record is left, any replica leads.
    Unclean,
}

/// The rules of an election.
pub(crate) struct ElectionContext<'a> {
    /// Whether a broker may lead: it is registered, unfenced, not in a controlled shutdown, and not
    /// the one being removed.
    pub(crate) acceptable: &'a dyn Fn(BrokerId) -> bool,
    /// The topic's `min.insync.replicas`.
    pub(crate) min_isr: usize,
    /// The kind of election.
    pub(crate) election: Election,
}

/// What a replica may have lost of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The end of its log: the node died before writing it to disk.
    Tail,
    /// All of it: the log directory is a new one.
    Everything,
}

/// The requested state of a partition, before `elect` derives the rest.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) replicas: Vec<BrokerId>,
    pub(crate) adding: Vec<BrokerId>,
    pub(crate) removing: Vec<BrokerId>,
    pub(crate) isr: Vec<BrokerId>,
    /// A replica that has lost a part of its log.
    pub(crate) lost: Option<(BrokerId, Loss)>,
    /// The leader has recovered from its unclean election.
    pub(crate) recovered: bool,
}

impl Wanted {
    /// The partition unchanged.
    pub(crate) fn as_it_is(partition: &Partition) -> Self {
        Self::with_isr(partition, partition.isr.clone())
    }

    /// The partition with another ISR.
    pub(crate) fn with_isr(partition: &Partition, isr: Vec<BrokerId>) -> Self {
        Self {
            replicas: partition.replicas.clone(),
            adding: partition.adding.clone(),
            removing: partition.removing.clone(),
            isr,
            lost: None,
            recovered: false,
        }
    }
}

/// The next state of a partition.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) partition: Partition,
    /// The leader was elected though it may lack committed records.
    pub(crate) unclean: bool,
}

/// Applies a request to a partition and derives ISR, ELR, leader and epochs; `None` if nothing
/// changes.
pub(crate) fn derive(
    before: &Partition,
    wanted: Wanted,
    electorate: &ElectionContext<'_>,
) -> Option<Settled> {
    let mut next = Partition {
        replicas: wanted.replicas,
        adding: wanted.adding,
        removing: wanted.removing,
        isr: wanted.isr,
        recovering: before.recovering && !wanted.recovered,
        ..before.clone()
    };
    complete_reassignment(&mut next);
    next.elr = eligible(before, &next, wanted.lost.map(|(id, _)| id), electorate.min_isr);
    // The last leader has the most records, unless its log is empty now: then other replicas have
    // more, if there are any.
    let emptied = wanted.lost.filter(|(_, loss)| *loss == Loss::Everything).map(|(id, _)| id);
    let replicas = next.replicas.clone();
    let knows_most = |last: &BrokerId| {
        replicas.contains(last) && (emptied != Some(*last) || replicas.len() == 1)
    };
    next.last_known_leader = next.last_known_leader.filter(knows_most);
    let unclean = elect(&mut next, electorate);
    // A leader from the ELR may be the only replica that stays.
    complete_reassignment(&mut next);
    next.elr.retain(|id| next.replicas.contains(id));
    // A leader from the ELR may suffice as the ISR if the minimum was lowered. From here on the
    // other replicas lack what it commits.
    if is_whole(&next, electorate.min_isr) {
        next.elr.clear();
    }
    if next.leader.is_none() && before.leader.is_some() {
        next.last_known_leader = before.leader.filter(knows_most);
    }
    // A removed replica must stop fetching as a replica; the new epoch tells it and the leader.
    let lost_a_replica = before.replicas.iter().any(|replica| !next.replicas.contains(replica));
    if next.leader != before.leader || lost_a_replica {
        next.leader_epoch = LeaderEpoch(before.leader_epoch.0.saturating_add(1));
    }
    (next != *before).then(|| {
        next.partition_epoch = PartitionEpoch(before.partition_epoch.0.saturating_add(1));
        Settled { partition: next, unclean }
    })
}

/// Completes a reassignment when all replicas that stay are in sync
/// (`PartitionReassignmentReplicas.maybeCompleteReassignment`).
///
/// After an unclean election it waits until the leader has recovered: the replicas to be removed
/// may hold records that the leader lacks.
fn complete_reassignment(partition: &mut Partition) {
    if !partition.is_reassigning() || partition.recovering {
        return;
    }
    let stays = |id: &&BrokerId| !partition.removing.contains(id);
    if !partition.replicas.iter().filter(stays).all(|id| partition.isr.contains(id)) {
        return;
    }
    let removing = std::mem::take(&mut partition.removing);
    partition.replicas.retain(|id| !removing.contains(id));
    partition.isr.retain(|id| !removing.contains(id));
    partition.adding.clear();
}

/// The replicas outside the ISR that hold every committed record. While the ISR is below its
/// minimum the high watermark stands still, so a replica that leaves the ISR misses nothing.
fn eligible(
    before: &Partition,
    next: &Partition,
    lost: Option<BrokerId>,
    min_isr: usize,
) -> Vec<BrokerId> {
    if is_whole(next, min_isr) {
        return Vec::new();
    }
    let was_eligible = |id: &&BrokerId| before.elr.contains(id) || before.isr.contains(id);
    next.replicas
        .iter()
        .filter(was_eligible)
        .filter(|id| !next.isr.contains(id) && Some(**id) != lost)
        .copied()
        .collect()
}

/// Whether the ISR suffices for the high watermark to advance.
fn is_whole(partition: &Partition, min_isr: usize) -> bool {
    partition.isr.len() >= min_isr.min(partition.replicas.len())
}

/// Chooses the leader. Returns whether one was elected that may lack committed records.
fn elect(partition: &mut Partition, electorate: &ElectionContext<'_>) -> bool {
    let acceptable = |id: &BrokerId| (electorate.acceptable)(*id);
    let has_everything = |id: &BrokerId| {
        partition.isr.contains(id) || (partition.isr.is_empty() && partition.elr.contains(id))
    };
    let valid = |id: &BrokerId| has_everything(id) && acceptable(id);
    let preferred = partition
        .replicas
        .first()
        .copied()
        .filter(|_| electorate.election == Election::Preferred)
        .filter(valid);
    let clean = preferred
        .or_else(|| partition.leader.filter(valid))
        .or_else(|| partition.replicas.iter().copied().find(valid));
    if let Some(leader) = clean {
        if !partition.isr.contains(&leader) {
            partition.elr.retain(|id| *id != leader);
            partition.isr = vec![leader];
        }
        partition.leader = Some(leader);
        partition.last_known_leader = None;
        return false;
    }
    // If no replica with every committed record is left, the last leader has the most. Kafka waits
    // for it even where unclean election is off, because no other replica may lead.
    let last = partition
        .last_known_leader
        .filter(|id| partition.isr.is_empty() && partition.elr.is_empty() && acceptable(id));
    // A replica that is only being added is likely to have the fewest records.
    let any = || {
        let (new, old): (Vec<BrokerId>, Vec<BrokerId>) =
            partition.replicas.iter().partition(|id| partition.adding.contains(id));
        let unclean = electorate.election == Election::Unclean;
        old.into_iter().chain(new).find(|id| unclean && acceptable(id))
    };
    let unclean = last.or_else(any);
    if let Some(leader) = unclean {
        partition.isr = vec![leader];
        partition.elr = Vec::new();
        partition.last_known_leader = None;
        partition.recovering = true;
    }
    partition.leader = unclean;
    unclean.is_some()
}
