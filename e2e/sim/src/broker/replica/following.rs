//! A follower: it fetches, appends, and truncates as the core decides.

use weir_broker::replica::core::{FollowerState, Next, Todo};
use weir_protocol::types::{BrokerId, LeaderEpoch};

use super::{Around, Replica, Role};
use crate::ctx::BrokerAlarm;
use crate::message::{AskOffsets, Body, Fetch, Fetched, Node};
use crate::mutation::Mutation;

/// The timeout of a fetch.
const FETCH_MS_MAX: u64 = 300;

/// The interval of fetches of a follower that has everything. Kafka's long poll is one request for
/// all partitions; here it would only add events.
const POLL_MS: u64 = 40;

impl Replica {
    pub(super) fn begin_to_follow(
        &mut self,
        leader: BrokerId,
        epoch: LeaderEpoch,
        around: &mut Around<'_, '_>,
    ) {
        around.ctx.trace(|| {
            format!(
                "broker {} follows {leader} in {} in epoch {epoch}",
                around.id, around.partition
            )
        });
        if around.ctx.plan.has(Mutation::TruncatesToHighWatermark) {
            around.log.truncate(self.high_watermark);
            around.ctx.checks.dirty.push(around.partition);
        }
        self.role = Role::Follower(FollowerState::begin(leader, epoch, self.high_watermark));
        self.fetch(around);
    }

    /// Fetches, if no request is pending.
    pub(in crate::broker) fn fetch(&mut self, around: &mut Around<'_, '_>) {
        let Role::Follower(following) = &self.role else { return };
        if self.fetching.is_some() || self.asking.is_some() {
            return;
        }
        let (had, now) = (around.had(), around.ctx.now);
        match around.log.look(had, |log| following.next(log, now)) {
            Next::Fetch(mut from) => {
                if around.ctx.plan.has(Mutation::TruncatesToHighWatermark) {
                    from.last_fetched_epoch = None;
                }
                let leader = Node::Broker(following.leader().0 as usize);
                self.calls += 1;
                self.fetching = Some((self.calls, from));
                let (run, partition, broker_epoch) = (around.run, around.partition, around.epoch);
                around.alarm(FETCH_MS_MAX, BrokerAlarm::FetchTimeout(partition, self.calls));
                around.send(
                    leader,
                    Body::Fetch(Fetch { topic: around.topic, run, partition, from, broker_epoch }),
                );
            }
            Next::At(at) => around.alarm(at - now, BrokerAlarm::Fetch(around.partition)),
            Next::AfterFlush => self.request_flush(around),
            Next::Never => {}
        }
    }

    /// A fetch, or a request for the leader's offsets, has timed out.
    pub(in crate::broker) fn fetch_timed_out(&mut self, call: u64, around: &mut Around<'_, '_>) {
        let fetched = self.fetching.take_if(|(awaited, _)| *awaited == call).is_some();
        let asked = self.asking.take_if(|awaited| *awaited == call).is_some();
        if !(fetched || asked) {
            return;
        }
        if let Role::Follower(following) = &mut self.role {
            following.failed(around.ctx.now);
            self.fetch(around);
        }
    }

    /// Handles an answer, which may belong to an old fetch.
    pub(in crate::broker) fn fetched(&mut self, fetched: &Fetched, around: &mut Around<'_, '_>) {
        let Role::Follower(following) = &mut self.role else { return };
        if self.asking.is_some() {
            return;
        }
        let awaited = self.fetching.take_if(|(_, from)| *from == fetched.to).is_some();
        let (had, now) = (around.had(), around.ctx.now);
        let mut to = fetched.to;
        if around.ctx.plan.has(Mutation::TruncatesToHighWatermark) {
            to.last_fetched_epoch = around.log.look(had, |log| log.latest_epoch);
        }
        if around.ctx.plan.has(Mutation::LooksAtNoEpoch) {
            to.current_leader_epoch = following.epoch();
        }
        let todo = around.log.look(had, |log| following.answered(&to, &fetched.answer, log, now));
        if todo == Todo::Append {
            for (offset, record) in &fetched.records {
                if !around.log.append_at(*offset, *record) {
                    break;
                }
            }
            self.request_flush(around);
        }
        self.carry_out(todo, around);
        if todo == Todo::Append {
            self.fetch(around);
        } else if awaited {
            let pause = around.ctx.rng.between(1, POLL_MS * 2);
            around.alarm(pause, BrokerAlarm::Fetch(around.partition));
        }
    }

    /// Handles the start and the end of the leader's log.
    pub(in crate::broker) fn offsets(
        &mut self,
        ask: AskOffsets,
        start: i64,
        end: i64,
        around: &mut Around<'_, '_>,
    ) {
        let Role::Follower(following) = &mut self.role else { return };
        // Ignore the answer to an earlier request: both logs have changed since then.
        if self.asking.take_if(|awaited| *awaited == ask.call).is_none() {
            return;
        }
        let (had, now) = (around.had(), around.ctx.now);
        let todo = around.log.look(had, |log| following.offsets(ask.epoch, start, end, log, now));
        self.carry_out(todo, around);
        self.fetch(around);
    }

    fn carry_out(&mut self, todo: Todo, around: &mut Around<'_, '_>) {
        let Role::Follower(following) = &self.role else { return };
        match todo {
            Todo::Restart(_) if around.ctx.plan.has(Mutation::NeverBeginsAnew) => {}
            Todo::Truncate(end) | Todo::Restart(end) => {
                let (before, epoch) = (around.log.end(), following.epoch().0);
                around.ctx.trace(|| {
                    format!("broker {}: {todo:?} of {} from {before}", around.id, around.partition)
                });
                if matches!(todo, Todo::Truncate(_)) {
                    around.log.truncate(end);
                } else {
                    around.log.restart(end);
                    around.ctx.checks.counts.restarts += 1;
                }
                around.ctx.checks.counts.truncations += u64::from(end < before);
                if end > before {
                    around.ctx.checks.deleted(around.partition, around.topic, epoch, end, false);
                }
                around.ctx.checks.dirty.push(around.partition);
            }
            Todo::AskOffsets => {
                let leader = Node::Broker(following.leader().0 as usize);
                self.calls += 1;
                let ask = AskOffsets {
                    topic: around.topic,
                    run: around.run,
                    partition: around.partition,
                    epoch: following.epoch(),
                    call: self.calls,
                };
                self.asking = Some(ask.call);
                around.alarm(FETCH_MS_MAX, BrokerAlarm::FetchTimeout(ask.partition, ask.call));
                around.send(leader, Body::AskOffsets(ask));
            }
            Todo::Append | Todo::Nothing => {}
        }
        self.step(around);
    }

    pub(super) fn step(&mut self, around: &mut Around<'_, '_>) {
        let Role::Follower(following) = &mut self.role else { return };
        let had = around.had();
        let step = around.log.look(had, |log| following.step(log));
        let (epoch, before) = (following.epoch().0, self.high_watermark);
        self.high_watermark = step.high_watermark;
        if let Some(start) = step.log_start {
            self.delete_before(start, around);
        }
        // A follower whose high watermark goes back is on its way to where the logs diverge. The
        // leader vouches only for an increase.
        if step.high_watermark > before {
            around.ctx.checks.followed(
                around.partition,
                around.topic,
                around.id,
                epoch,
                step.high_watermark,
                around.log,
            );
        }
    }
}
