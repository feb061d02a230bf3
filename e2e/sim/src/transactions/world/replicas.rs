//! The replicas of data partitions: following, fetching, elections and restarts.

use super::World;
use crate::transactions::checks::Rule;
use crate::transactions::leader::Process;
use crate::transactions::message::{Leader, Role};
use crate::transactions::plan::Mutation;
use crate::transactions::replica::Replica;

/// The number of followers of each partition.
const FOLLOWERS: usize = 2;

impl World {
    /// The leader of a partition; it also creates the empty followers.
    pub(super) fn first_leader(&mut self, role: Role) -> Process {
        let replicas = (0..=FOLLOWERS).map(|_| Replica::new());
        let mut replicas =
            replicas.collect::<Result<Vec<_>, _>>().expect("a file system in memory is there");
        let leads = replicas.pop().expect("there is one more than follow");
        self.followers.insert(role, replicas);
        Process::lead((role, 0), leads, 0)
    }

    /// A follower with all committed records. If it lacks some, it first fetches them in one
    /// answer. `None` while an earlier leader is still there.
    pub(super) fn elect_follower(
        &mut self,
        old: Leader,
        committed: usize,
        most: usize,
    ) -> Option<Replica> {
        let followers = self.followers.get_mut(&old.0)?;
        if followers.is_empty() {
            return None;
        }
        let mut replica = followers.swap_remove(self.rng.index(followers.len()));
        self.fetch(&mut replica, old, 0);
        if replica.log.len() < committed {
            let missing = most - replica.log.len();
            self.fetch(&mut replica, old, missing);
        }
        Some(replica)
    }

    /// The process of a former leader ends. A replica stays and follows; its broker may have
    /// restarted.
    pub(super) fn ends(&mut self, leader: Leader) {
        let Some(replica) = self.processes.remove(&leader).and_then(Process::into_replica) else {
            return;
        };
        let kind = self.rng.index(3);
        let replica = self.restarted(replica, leader.0, kind);
        self.followers.entry(leader.0).or_default().extend(replica);
    }

    pub(super) fn restarted(
        &mut self,
        replica: Replica,
        role: Role,
        kind: usize,
    ) -> Option<Replica> {
        let restarted = match kind {
            0 => Ok(replica),
            kind => replica
                .restart(kind == 1)
                .and_then(|mut replica| replica.known(self.now).map(|_| replica)),
        };
        match restarted {
            Ok(replica) => Some(replica),
            Err(what) => {
                self.checks.verdict.broken(Rule::ReplicasKnow, || {
                    format!("a replica of {role:?} that was started again: {what}")
                });
                None
            }
        }
    }

    pub(super) fn followers_fetch(&mut self) {
        for (role, followers) in std::mem::take(&mut self.followers) {
            let leader = (role, self.leaders[&role]);
            let fetched = followers.into_iter().map(|mut replica| {
                if self.rng.chance(self.plan.fetches) {
                    let limit = self.rng.between(1, 40) as usize;
                    self.fetch(&mut replica, leader, limit);
                }
                replica
            });
            let fetched = fetched.collect();
            self.followers.insert(role, fetched);
        }
    }

    /// A follower applies one answer of its leader; then its state must match its log.
    fn fetch(&mut self, replica: &mut Replica, leader: Leader, limit: usize) {
        let Some(process) = self.processes.get(&leader) else { return };
        let Some(from) = process.replica() else { return };
        let hides = self.plan.has(Mutation::HidesMarkers);
        let followed = replica.follow(from, limit, leader.1, hides, self.now).and_then(|changed| {
            replica.commit(process.high_watermark);
            if changed {
                replica.known(self.now)?;
            }
            Ok(changed)
        });
        match followed {
            Ok(changed) => self.checks.counts.fetches += u64::from(changed),
            Err(what) => {
                let role = leader.0;
                self.checks
                    .verdict
                    .broken(Rule::ReplicasKnow, || format!("a follower of {role:?}: {what}"));
            }
        }
    }
}
