//! The effects of faults on a machine's disk, and of the kernel's write-back.

use weir_protocol::types::TopicId;

use super::Machine;
use super::disk::Disk;
use super::replica::Replica;
use crate::ctx::Ctx;
use crate::log::Log;
use crate::mutation::Mutation;

impl Machine {
    /// The log of a topic, and its end before a fault that the controller does not know yet.
    pub fn copy_of(&self, partition: usize, topic: TopicId) -> (&Log, i64) {
        match self.disk.topics[partition] {
            Some(there) if there == topic => {
                (&self.disk.logs[partition], self.lost_from[partition])
            }
            // The log of an earlier topic is there: its losses do not concern this one.
            Some(_) => (&self.nothing, 0),
            None => (&self.nothing, self.lost_from[partition]),
        }
    }

    /// The power fails and returns.
    pub fn lose_power(&mut self, ctx: &mut Ctx<'_>) {
        self.process = None;
        self.boot += 1;
        // With `flush.mode=group` committed records are on the disks of the replicas that count. So
        // a power failure does not excuse a loss.
        if !ctx.plan.group_flush {
            self.note_loss();
        }
        for log in &mut self.disk.logs {
            log.lose_power(ctx.rng);
        }
    }

    /// The disk is lost and replaced by an empty one.
    pub fn lose_disk(&mut self, ctx: &mut Ctx<'_>) {
        self.note_loss();
        self.lose_power(ctx);
        self.disk = Disk {
            log_dir: self.disk.log_dir + 1000,
            boot: 0,
            epoch: None,
            clean: false,
            kept: None,
            logs: vec![Log::default(); self.disk.logs.len()],
            topics: vec![None; self.disk.logs.len()],
        };
    }

    fn note_loss(&mut self) {
        self.lost_by = self.run;
        for (lost, log) in self.lost_from.iter_mut().zip(&self.disk.logs) {
            *lost = log.end().max(*lost);
        }
    }

    /// What the kernel writes back by itself, and the periodic high watermark checkpoints.
    pub(super) fn write_back(&mut self, ctx: &mut Ctx<'_>) {
        let Some(process) = &self.process else { return };
        for (log, replica) in self.disk.logs.iter_mut().zip(&process.replicas) {
            if !ctx.plan.group_flush && ctx.rng.chance(200) {
                log.flush();
            }
            if ctx.rng.chance(300) {
                log.write_down(replica.high_watermark());
            }
        }
        for partition in 0..self.disk.logs.len() {
            if ctx.faulty && ctx.rng.chance(ctx.plan.topics[partition].retention) {
                self.with(partition, ctx, Replica::retain);
            }
        }
    }

    /// Another topic has the name now, or none: the old log is deleted.
    pub(super) fn know_topic(
        &mut self,
        partition: usize,
        topic: Option<TopicId>,
        ctx: &mut Ctx<'_>,
    ) {
        if self.disk.topics[partition] == topic {
            return;
        }
        self.with(partition, ctx, Replica::leave);
        let disk = &mut self.disk;
        if disk.topics[partition].is_some() {
            ctx.trace(|| {
                format!("broker {} gives up {partition}, which is {topic:?} now", self.id)
            });
            self.lost_from[partition] = 0;
            if !ctx.plan.has(Mutation::KeepsOldLogs) {
                disk.logs[partition] = Log::default();
            }
        }
        disk.topics[partition] = topic;
        if let Some(replica) =
            self.process.as_mut().and_then(|process| process.replicas.get_mut(partition))
        {
            *replica = replica.anew();
        }
    }
}
