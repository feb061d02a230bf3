//! The controller's state of a partition, and its invariants.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::types::{BrokerId, LeaderEpoch, PartitionEpoch};

/// The state of a partition (`PartitionRegistration` in Apache Kafka).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// The replicas in sync; each of them holds every committed record.
    pub isr: Vec<BrokerId>,
    /// Eligible leader replicas (KIP-966): out of sync, but with every committed record.
    pub elr: Vec<BrokerId>,
    /// The replicas that a reassignment adds (KIP-455); part of `replicas`.
    pub adding: Vec<BrokerId>,
    /// The replicas that a reassignment removes once all added replicas are in sync; part of
    /// `replicas` until then.
    pub removing: Vec<BrokerId>,
    /// The leader, if there is one.
    pub leader: Option<BrokerId>,
    /// Rises with each new leader.
    pub leader_epoch: LeaderEpoch,
    /// Rises with each change of the partition.
    pub partition_epoch: PartitionEpoch,
    /// The last leader, while there is none.
    pub last_known_leader: Option<BrokerId>,
    /// The leader was elected uncleanly and has not yet reported that it recovered
    /// (`LeaderRecoveryState` in Apache Kafka). Until then the ISR does not grow.
    pub recovering: bool,
}

impl Partition {
    /// A new partition on these replicas, led by the first that is in `isr`.
    pub fn new(replicas: Vec<BrokerId>, isr: Vec<BrokerId>) -> Self {
        let leader = replicas.iter().copied().find(|replica| isr.contains(replica));
        Self {
            replicas,
            isr,
            elr: Vec::new(),
            adding: Vec::new(),
            removing: Vec::new(),
            leader,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
            last_known_leader: None,
            recovering: false,
        }
    }

    /// Whether a reassignment is under way.
    pub fn is_reassigning(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// The number of replicas without those that a reassignment under way removes.
    pub fn replicas_wanted(&self) -> usize {
        self.replicas.len() - self.removing.len()
    }

    /// # Panics
    /// When an invariant of [`Self::check`] does not hold.
    pub fn assert_valid(&self) {
        if let Err(broken) = self.check() {
            panic!("{broken}: {self:?}");
        }
    }

    /// Checks the invariants of a partition. The leader is in the ISR. ISR and ELR are disjoint
    /// subsets of the replicas, and so are the added and removed replicas. No list names a broker
    /// twice, and an ISR grows only if its leader has recovered.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn check(&self) -> Result<(), &'static str> {
        let distinct = |ids: &[BrokerId]| {
            ids.iter()
                .enumerate()
                .all(|(index, id)| !ids.iter().take(index).any(|other| other == id))
        };
        if self.replicas.is_empty() || !distinct(&self.replicas) {
            return Err("the replicas are not distinct brokers");
        }
        if !distinct(&self.isr) || !self.isr.iter().all(|id| self.replicas.contains(id)) {
            return Err("the ISR is not within the replicas");
        }
        if !distinct(&self.elr)
            || !self.elr.iter().all(|id| self.replicas.contains(id) && !self.isr.contains(id))
        {
            return Err("the ELR is not within the replicas outside of the ISR");
        }
        if self.leader.is_some_and(|leader| !self.isr.contains(&leader)) {
            return Err("the leader is not in the ISR");
        }
        if !distinct(&self.adding) || !self.adding.iter().all(|id| self.replicas.contains(id)) {
            return Err("the replicas that are added are not within the replicas");
        }
        if !distinct(&self.removing)
            || !self
                .removing
                .iter()
                .all(|id| self.replicas.contains(id) && !self.adding.contains(id))
        {
            return Err(
                "the replicas that are removed are not within the replicas that are not added",
            );
        }
        if self.removing.len() == self.replicas.len() {
            return Err("all replicas are being removed");
        }
        if self.recovering && self.isr.len() > 1 {
            return Err("the ISR has grown around a leader that has not recovered");
        }
        Ok(())
    }
}
