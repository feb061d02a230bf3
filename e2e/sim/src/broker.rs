//! A broker's machine and process. The machine has the log directory with the record of its last
//! shutdown (`broker/log/src/identity.rs`). The process has the session with the controller
//! (`broker/src/controller_client/session.rs`).

mod disk;
mod losses;
mod replica;
mod session;

use std::rc::Rc;

use weir_operator::controller::state::{Partition, State};
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerEpoch, ControllerEpoch, TopicId};

use self::disk::{Disk, Kept};
use self::replica::{Around, Replica};
use crate::ctx::{BrokerAlarm, Ctx};
use crate::log::Log;
use crate::message::{AskOffsets, Body, Fetch, Node, Produce, Read, Stream, Told};
use crate::mutation::Mutation;
use crate::topics::partition_of;

const HEARTBEAT_MS: u64 = 500;
const SESSION_MS: u64 = 3_000;

/// A machine: the state that survives the process.
#[derive(Debug)]
pub struct Machine {
    id: usize,
    /// The kernel's boot id.
    boot: u64,
    /// The number of processes so far.
    pub run: u64,
    disk: Disk,
    /// An empty log, for a topic that is not on this disk.
    nothing: Log,
    process: Option<Process>,
    /// For each log, its end before a fault that took records of it and that the controller does
    /// not know yet.
    pub lost_from: Vec<i64>,
    /// The last process before the fault.
    pub lost_by: u64,
}

#[derive(Debug)]
struct Process {
    session: Option<Session>,
    streams: u64,
    epoch: Option<BrokerEpoch>,
    previous_epoch: Option<BrokerEpoch>,
    whole: bool,
    controller_epoch: ControllerEpoch,
    image: Option<Rc<State>>,
    /// A controller has sent metadata to this process; it does not only have the disk's.
    is_told: bool,
    wants_shutdown: bool,
    /// Its logs are being closed: nothing is done with them any more, and no metadata is taken up.
    closing: bool,
    replicas: Vec<Replica>,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    stream: Stream,
    operator: usize,
    registered: bool,
    heard_at: u64,
}

impl Machine {
    /// A machine with an empty disk.
    pub fn new(id: usize, topics: usize) -> Self {
        Self {
            id,
            boot: 1,
            run: 0,
            disk: Disk {
                log_dir: id as u128 + 1,
                boot: 0,
                epoch: None,
                clean: false,
                logs: vec![Log::default(); topics],
                topics: vec![None; topics],
                kept: None,
            },
            nothing: Log::default(),
            process: None,
            lost_from: vec![0; topics],
            lost_by: 0,
        }
    }

    /// Whether the process runs.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// A log.
    pub fn log(&self, partition: usize) -> &Log {
        &self.disk.logs[partition]
    }

    /// The leader, as far as this broker knows.
    pub fn leader_of(&self, partition: usize) -> Option<usize> {
        let image = self.process.as_ref()?.image.as_ref()?;
        Some(partition_in(image, partition)?.1.leader?.0 as usize)
    }

    /// Starts the process.
    pub fn start(&mut self, ctx: &mut Ctx<'_>) {
        self.run += 1;
        let disk = &mut self.disk;
        // A stop in order does not bring back what an earlier power failure took.
        let mut whole = (disk.clean && disk.boot != 0) || disk.boot == self.boot;
        if ctx.plan.has(Mutation::CallsItselfWhole) {
            whole = true;
        }
        disk.clean = false;
        // If this process dies before the controller knows of the loss, the next one must still
        // report it. So the disk keeps no boot id until then.
        disk.boot = if whole || ctx.plan.has(Mutation::WritesBootIdEarly) { self.boot } else { 0 };
        ctx.trace(|| {
            format!(
                "broker {} starts as run {}, whole: {whole}, before: {:?}",
                self.id, self.run, disk.epoch
            )
        });
        let replicas = disk.logs.iter().map(|log| Replica::new(log.written_down())).collect();
        self.process = Some(Process {
            session: None,
            streams: 0,
            epoch: None,
            previous_epoch: disk.epoch,
            whole,
            controller_epoch: ControllerEpoch(0),
            image: None,
            is_told: false,
            wants_shutdown: false,
            closing: false,
            replicas,
        });
        ctx.broker_alarm(1, BrokerAlarm::Connect);
        ctx.broker_alarm(2, BrokerAlarm::Beat);
        if whole || ctx.plan.has(Mutation::TakesUpAfterALoss) {
            let patience = ctx.rng.between(10, 300);
            ctx.broker_alarm(patience, BrokerAlarm::Resume);
        }
    }

    /// Kills the process; the kernel keeps running.
    pub fn kill(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(Session { stream, operator, .. }) =
            self.process.take().and_then(|process| process.session)
        {
            ctx.send_on(
                stream,
                Node::Broker(self.id),
                Node::Operator(operator),
                Body::Ended(stream, self.id),
            );
        }
        for log in &mut self.disk.logs {
            log.lose_process();
            if ctx.rng.chance(300) {
                log.rebuild_epochs();
            }
        }
    }

    /// Begins a controlled shutdown.
    pub fn shut_down(&mut self) {
        if let Some(process) = &mut self.process {
            process.wants_shutdown = true;
        }
    }

    /// Handles an alarm.
    pub fn wake(&mut self, alarm: BrokerAlarm, ctx: &mut Ctx<'_>) {
        match alarm {
            BrokerAlarm::Connect => self.connect(ctx),
            BrokerAlarm::Closed => self.is_closed(ctx),
            BrokerAlarm::Resume => self.resume(ctx),
            BrokerAlarm::Beat => {
                ctx.broker_alarm(HEARTBEAT_MS, BrokerAlarm::Beat);
                self.beat(ctx);
                self.write_back(ctx);
            }
            BrokerAlarm::Fetch(partition) => self.with(partition, ctx, Replica::fetch),
            BrokerAlarm::FetchTimeout(partition, call) => {
                self.with(partition, ctx, |replica, around| replica.fetch_timed_out(call, around))
            }
            BrokerAlarm::Check(partition) => self.with(partition, ctx, Replica::check),
            BrokerAlarm::Flush(partition) => self.with(partition, ctx, Replica::flushed),
            BrokerAlarm::CallTimeout(partition, call) => {
                self.with(partition, ctx, |replica, around| {
                    replica.answered(call, Err(ErrorCode::NetworkException), around);
                })
            }
        }
    }

    /// Handles a message.
    pub fn receive(&mut self, from: Node, body: Body, ctx: &mut Ctx<'_>) {
        let run = self.run;
        match body {
            Body::Told(stream, epoch, told) => self.told(stream, epoch, told, ctx),
            Body::Closed(stream) if self.session_on(stream).is_some() => self.reconnect(ctx),
            Body::Altered(call, result) => {
                for partition in 0..self.disk.logs.len() {
                    let result = Result::clone(&result);
                    self.with(partition, ctx, |replica, around| {
                        replica.answered(call, result, around)
                    });
                }
            }
            Body::Fetch(Fetch { topic, partition, .. })
            | Body::AskOffsets(AskOffsets { topic, partition, .. })
            | Body::Offsets(AskOffsets { topic, partition, .. }, ..)
            | Body::Produce(Produce { topic, partition, .. })
            | Body::Read(Read { topic, partition, .. })
                if self.disk.topics[partition] != Some(topic)
                    && !ctx.plan.has(Mutation::LooksAtNoTopicId) => {}
            Body::Fetched(fetched)
                if self.disk.topics[fetched.partition] != Some(fetched.topic)
                    && !ctx.plan.has(Mutation::LooksAtNoTopicId) => {}
            Body::Fetch(fetch) => self
                .with(fetch.partition, ctx, |replica, around| replica.serve(from, fetch, around)),
            Body::Fetched(fetched) if fetched.run == run => {
                self.with(fetched.partition, ctx, |replica, around| {
                    replica.fetched(&fetched, around)
                });
            }
            Body::AskOffsets(ask) => self.with(ask.partition, ctx, |replica, around| {
                replica.tell_offsets(from, ask, around)
            }),
            Body::Offsets(ask, start, end) if ask.run == run => {
                self.with(ask.partition, ctx, |replica, around| {
                    replica.offsets(ask, start, end, around)
                });
            }
            Body::Produce(produce) => self.with(produce.partition, ctx, |replica, around| {
                replica.produce(from, produce, around)
            }),
            Body::Delete(partition, before) => {
                self.with(partition, ctx, |replica, around| replica.delete(before, around))
            }
            Body::Read(read) => {
                self.with(read.partition, ctx, |replica, around| replica.read(from, read, around))
            }
            _ => {}
        }
    }

    /// Runs `act` on a replica, if the process has its first metadata.
    fn with(
        &mut self,
        partition: usize,
        ctx: &mut Ctx<'_>,
        act: impl FnOnce(&mut Replica, &mut Around<'_, '_>),
    ) {
        let Some(process) = self.process.as_mut().filter(|process| !process.closing) else {
            return;
        };
        let (Some(image), Some(epoch), Some(topic)) =
            (&process.image, process.epoch, self.disk.topics[partition])
        else {
            return;
        };
        let mut around = Around {
            id: self.id,
            run: self.run,
            partition,
            topic,
            epoch,
            image,
            is_told: process.is_told,
            operator: process.session.map(|session| session.operator),
            log: &mut self.disk.logs[partition],
            ctx,
        };
        act(&mut process.replicas[partition], &mut around);
    }

    fn told(&mut self, stream: Stream, epoch: ControllerEpoch, told: Told, ctx: &mut Ctx<'_>) {
        let now = ctx.now;
        let Some(session) = self.session_on(stream) else { return };
        session.heard_at = now;
        let Some(process) = &mut self.process else { return };
        if epoch < process.controller_epoch {
            return self.reconnect(ctx);
        }
        process.controller_epoch = epoch;
        match told {
            Told::Registered(epoch) => {
                ctx.trace(|| format!("broker {} is registered under {epoch}", self.id));
                process.epoch = Some(epoch);
                process.previous_epoch = Some(epoch);
                process.whole = true;
                if let Some(session) = &mut process.session {
                    session.registered = true;
                }
                self.disk.epoch = Some(epoch);
                self.disk.boot = self.boot;
            }
            Told::Refused(_) => self.reconnect(ctx),
            Told::Beat { may_shut_down, .. } => {
                if may_shut_down && process.wants_shutdown {
                    self.stop_in_order(ctx);
                }
            }
            Told::Metadata { .. } if process.closing => self.is_told_too_late(ctx),
            Told::Metadata { full, state } => {
                if full
                    || !process.is_told
                    || process.image.as_ref().is_none_or(|image| image.version < state.version)
                {
                    self.take_up(full, Rc::from(state), ctx);
                }
                self.beat(ctx);
            }
        }
    }

    /// Applies the controller's metadata. It goes to the disk first, so that the next process knows
    /// everything that this one acted on.
    fn take_up(&mut self, full: bool, state: Rc<State>, ctx: &mut Ctx<'_>) {
        let Some(process) = &mut self.process else { return };
        if let Some(epoch) =
            process.epoch.filter(|_| full || !ctx.plan.has(Mutation::TakesUpAnOlderImage))
        {
            self.disk.kept = Some(Kept {
                epoch,
                controller_epoch: process.controller_epoch,
                state: Rc::clone(&state),
            });
        }
        process.is_told = true;
        process.image = Some(state);
        self.assume_roles(ctx);
    }

    /// Adopts the roles of the previous process, if no controller has sent metadata yet.
    fn resume(&mut self, ctx: &mut Ctx<'_>) {
        let (Some(process), Some(kept)) = (&mut self.process, &self.disk.kept) else {
            return;
        };
        let is_own = self.disk.epoch == Some(kept.epoch);
        if process.epoch.is_some() || !is_own || process.closing {
            return;
        }
        ctx.trace(|| {
            format!("broker {} goes on with what it had: version {}", self.id, kept.state.version)
        });
        ctx.checks.counts.resumed += 1;
        process.epoch = self.disk.epoch;
        process.controller_epoch = process.controller_epoch.max(kept.controller_epoch);
        process.image = Some(Rc::clone(&kept.state));
        self.assume_roles(ctx);
    }

    fn assume_roles(&mut self, ctx: &mut Ctx<'_>) {
        for partition in 0..self.disk.logs.len() {
            let Some(image) = self.process.as_ref().and_then(|process| process.image.clone())
            else {
                return;
            };
            let found = partition_in(&image, partition);
            self.know_topic(partition, found.map(|(topic, _)| topic), ctx);
            if let Some((_, state)) = found {
                self.with(partition, ctx, |replica, around| replica.take_up(state, around));
            }
        }
    }

    /// Begins to stop the process in order: its logs are closed, which takes a while.
    pub fn stop_in_order(&mut self, ctx: &mut Ctx<'_>) {
        let Some(process) = self.process.as_mut().filter(|process| !process.closing) else {
            return;
        };
        process.closing = true;
        for (log, replica) in self.disk.logs.iter_mut().zip(&process.replicas) {
            log.flush();
            log.write_down(replica.high_watermark());
        }
        ctx.trace(|| format!("broker {} closes its logs", self.id));
        let takes = ctx.rng.between(1, 150);
        ctx.broker_alarm(takes, BrokerAlarm::Closed);
    }

    /// The mark of a clean stop is written last.
    fn is_closed(&mut self, ctx: &mut Ctx<'_>) {
        self.disk.clean = true;
        ctx.trace(|| format!("broker {} has stopped in order", self.id));
        self.kill(ctx);
        ctx.stopped = true;
    }

    /// Metadata comes while the logs are being closed. Taken up it would open an empty log in the
    /// place of each one.
    fn is_told_too_late(&mut self, ctx: &mut Ctx<'_>) {
        ctx.checks.counts.told_too_late += 1;
        if ctx.plan.has(Mutation::TakesUpWhileClosing) {
            self.disk.logs.fill(Log::default());
        }
    }
}

/// A partition in the metadata, and its topic.
pub fn partition_in(state: &State, partition: usize) -> Option<(TopicId, &Partition)> {
    let (id, topic) = state.topics.iter().find(|(id, _)| partition_of(**id) == Some(partition))?;
    Some((*id, topic.partitions.first()?))
}
