//! Who leads a partition, and what follows from a new ISR or new replicas (`PartitionChangeBuilder`
//! in Apache Kafka 4.2, with KIP-966 and KIP-455).
//!
//! Called whenever brokers come, go or change their mind, and when a leader or a user wants other
//! replicas. Looks at one partition; never at a clock, and never at what a broker was.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::types::{BrokerId, LeaderEpoch, PartitionEpoch};

use super::state::Partition;

/// What an election may do besides finding a leader among those that have everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Election {
    /// Nobody is moved without need: a leader that is still valid stays.
    Online,
    /// The first of the replicas leads if it can.
    Preferred,
    /// When nobody is left who has everything, anybody leads.
    Unclean,
}

/// What an election goes by.
pub(crate) struct Electorate<'a> {
    /// Whether a broker is registered, unfenced, not shutting down and not the one that is being
    /// removed.
    pub(crate) acceptable: &'a dyn Fn(BrokerId) -> bool,
    /// The topic's `min.insync.replicas`.
    pub(crate) min_isr: usize,
    /// What it may do.
    pub(crate) election: Election,
}

/// What a replica may lack of what it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The end of its log: the node died before it was written to disk.
    Tail,
    /// Everything: the log directory is another one.
    Everything,
}

/// What a partition is to become, before it is settled what follows from that.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) replicas: Vec<BrokerId>,
    pub(crate) adding: Vec<BrokerId>,
    pub(crate) removing: Vec<BrokerId>,
    pub(crate) isr: Vec<BrokerId>,
    /// A replica that has lost something of what it had.
    pub(crate) lost: Option<(BrokerId, Loss)>,
    /// The leader says that it has recovered from its unclean election.
    pub(crate) recovered: bool,
}

impl Wanted {
    /// The partition as it is.
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

/// The partition once it is as wanted, with all that follows; `None` if nothing changes.
pub(crate) fn settle(
    before: &Partition,
    wanted: Wanted,
    electorate: &Electorate<'_>,
) -> Option<Partition> {
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
    // Whoever led last knows most, but not with an empty log: then others know more, where there
    // are others.
    let emptied = wanted.lost.filter(|(_, loss)| *loss == Loss::Everything).map(|(id, _)| id);
    let replicas = next.replicas.clone();
    let knows_most = |last: &BrokerId| {
        replicas.contains(last) && (emptied != Some(*last) || replicas.len() == 1)
    };
    next.last_known_leader = next.last_known_leader.filter(knows_most);
    elect(&mut next, electorate);
    // A leader from the ELR may be all that is to stay.
    complete_reassignment(&mut next);
    next.elr.retain(|id| next.replicas.contains(id));
    // A leader from the ELR may be enough of an ISR by now, if its minimum was lowered: from here
    // on the others miss what it commits.
    if is_whole(&next, electorate.min_isr) {
        next.elr.clear();
    }
    if next.leader.is_none() && before.leader.is_some() {
        next.last_known_leader = before.leader.filter(knows_most);
    }
    // A replica that is gone must not go on fetching as one: the new epoch tells it and the leader.
    let lost_a_replica = before.replicas.iter().any(|replica| !next.replicas.contains(replica));
    if next.leader != before.leader || lost_a_replica {
        next.leader_epoch = LeaderEpoch(before.leader_epoch.0.saturating_add(1));
    }
    (next != *before).then(|| {
        next.partition_epoch = PartitionEpoch(before.partition_epoch.0.saturating_add(1));
        next
    })
}

/// Ends a reassignment when all replicas that are to stay are in sync
/// (`PartitionReassignmentReplicas.maybeCompleteReassignment`).
///
/// In sync with a leader that was elected uncleanly is not enough: those that would go may have
/// what it lacks.
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

/// The replicas outside of the ISR that hold all that is committed: while the ISR is below its
/// minimum the high watermark stands still, so that whoever leaves it misses nothing.
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

/// Whether the ISR is enough for the high watermark to advance.
fn is_whole(partition: &Partition, min_isr: usize) -> bool {
    partition.isr.len() >= min_isr.min(partition.replicas.len())
}

fn elect(partition: &mut Partition, electorate: &Electorate<'_>) {
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
        return;
    }
    // When nobody is left who has everything, the last leader knows most. Kafka waits for it even
    // where unclean election is off, because nobody else ever will.
    let last = partition
        .last_known_leader
        .filter(|id| partition.isr.is_empty() && partition.elr.is_empty() && acceptable(id));
    // Whoever is only being added is likely to have the least.
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
}
