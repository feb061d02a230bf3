//! An operator's process around the real controller core, as in `operator/src/shell.rs`. It decides
//! and applies each call of a batch, commits, and only then sends metadata. When a commit fails, it
//! drops the state and loads it again. An operator that lost the lease continues until a commit
//! fails.

mod telling;

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff;
use weir_operator::controller::sessions::{Sessions, StreamId, Timestamp};
use weir_operator::controller::state::{Change, Partition, State};
use weir_operator::controller::{
    AdminRequest, AlterPartitions, Event, Heartbeat, Moment, Registration, Reply, decide, take_over,
};
use weir_protocol::error::ErrorCode;
use weir_protocol::types::BrokerId;

use crate::ctx::{Alarm, Ctx, OperatorAlarm};
use crate::message::{Body, Node, Stream};
use crate::mutation::Mutation;
use crate::store::{Object, Store, Versions};

/// An operator.
#[derive(Debug)]
pub struct Operator {
    id: usize,
    /// The number of its processes so far.
    pub run: u64,
    /// `None` while it is down or waits for the lease.
    running: Option<Running>,
    /// Whether its process is alive.
    pub up: bool,
}

#[derive(Debug)]
struct Running {
    state: State,
    sessions: Sessions,
    streams: BTreeMap<BrokerId, Stream>,
    versions: Versions,
    mailbox: Vec<Call>,
    /// It carries out nothing else meanwhile.
    busy: Busy,
    wakes_at: Option<u64>,
}

#[derive(Debug)]
enum Busy {
    Idle,
    Loading,
    Committing(Commit),
}

#[derive(Debug)]
struct Commit {
    objects: VecDeque<Object>,
    changes: Vec<Change>,
    tellings: Vec<Telling>,
    takes_over: bool,
}

#[derive(Debug)]
enum Call {
    Alter(Node, u64, AlterPartitions),
    Open(Registration, Stream),
    Beat(Heartbeat, Stream),
    Ended(BrokerId, Stream),
    Admin(AdminRequest),
    User(Event),
}

#[derive(Debug)]
enum Telling {
    Altered(Node, u64, Reply),
    Opened(Registration, Stream, Reply),
    Beat(BrokerId, Reply),
}

impl Operator {
    /// An operator that waits for the lease.
    pub fn new(id: usize) -> Self {
        Self { id, run: 0, running: None, up: true }
    }

    /// Whether it believes that it is the controller.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// It acquires the lease, which begins a new term. That holds even if it has not noticed that
    /// it lost the last one, because it must ask for the lease to get it.
    pub fn lead(&mut self, state: State, ctx: &mut Ctx<'_>) {
        if let Some(running) = self.running.take() {
            running.close_all(self.id, ctx);
            self.run += 1;
        }
        self.running = Some(Running {
            state,
            sessions: Sessions::default(),
            streams: BTreeMap::new(),
            versions: Versions::new(),
            mailbox: Vec::new(),
            busy: Busy::Loading,
            wakes_at: None,
        });
        let at = ctx.now + ctx.rng.between(1, 20);
        ctx.alarm(at, Alarm::Operator(self.id, self.run, OperatorAlarm::Load));
    }

    /// Kills its process.
    pub fn die(&mut self, ctx: &mut Ctx<'_>) {
        self.up = false;
        self.run += 1;
        if let Some(running) = self.running.take() {
            running.close_all(self.id, ctx);
        }
    }

    /// Handles a message.
    pub fn receive(&mut self, from: Node, body: Body, store: &Store, ctx: &mut Ctx<'_>) {
        let me = Node::Operator(self.id);
        let Some(running) = &mut self.running else {
            match body {
                Body::Open(stream, _) => ctx.send_on(stream, me, from, Body::Closed(stream)),
                Body::Alter(call, _) => {
                    ctx.send(me, from, Body::Altered(call, Box::new(Err(ErrorCode::NotController))))
                }
                _ => {}
            }
            return;
        };
        running.mailbox.push(match (from, body) {
            (_, Body::Open(stream, registration)) => Call::Open(*registration, stream),
            (_, Body::Beat(stream, heartbeat)) => Call::Beat(heartbeat, stream),
            (_, Body::Ended(stream, broker)) => Call::Ended(BrokerId(broker as i32), stream),
            (_, Body::Alter(call, request)) => Call::Alter(from, call, request),
            _ => return,
        });
        running.batch(self.id, self.run, store, ctx);
    }

    /// Handles an administrator's request, which a broker forwards.
    pub fn administer(&mut self, request: AdminRequest, store: &Store, ctx: &mut Ctx<'_>) {
        let Some(running) = &mut self.running else { return };
        running.mailbox.push(Call::Admin(request));
        running.batch(self.id, self.run, store, ctx);
    }

    /// Handles a resource that a user writes or deletes.
    pub fn write_resource(&mut self, event: Event, store: &Store, ctx: &mut Ctx<'_>) {
        let Some(running) = &mut self.running else { return };
        running.mailbox.push(Call::User(event));
        running.batch(self.id, self.run, store, ctx);
    }

    /// Handles an alarm. Returns the object that was written.
    pub fn wake(
        &mut self,
        alarm: OperatorAlarm,
        store: &mut Store,
        ctx: &mut Ctx<'_>,
    ) -> Option<Object> {
        let running = self.running.as_mut()?;
        match alarm {
            // An operator that overslept its lease must check the lease before it takes over. Its
            // successor fences the state that it reads then.
            OperatorAlarm::Lease | OperatorAlarm::Load if ctx.lease != self.id => {
                ctx.trace(|| format!("operator {} has lost the lease", self.id));
                running.close_all(self.id, ctx);
                self.running = None;
                None
            }
            OperatorAlarm::Lease => None,
            OperatorAlarm::Sessions => {
                running.wakes_at = None;
                running.batch(self.id, self.run, store, ctx);
                None
            }
            OperatorAlarm::Load => {
                running.take_over_from(self.id, self.run, store, ctx);
                None
            }
            OperatorAlarm::Write => {
                let (written, fine) = running.write(store, ctx);
                if !fine {
                    self.fail(ctx);
                } else if let Some(running) = &mut self.running {
                    running.go_on(self.id, self.run, store, ctx);
                }
                written
            }
        }
    }

    fn fail(&mut self, ctx: &mut Ctx<'_>) {
        ctx.checks.counts.conflicts += 1;
        let Some(running) = &mut self.running else { return };
        running.close_all(self.id, ctx);
        running.streams.clear();
        running.busy = Busy::Loading;
        if ctx.lease == self.id {
            let at = ctx.now + ctx.rng.between(1, 20);
            ctx.alarm(at, Alarm::Operator(self.id, self.run, OperatorAlarm::Load));
        } else {
            ctx.trace(|| format!("operator {} is deposed", self.id));
            self.running = None;
        }
    }
}

impl Running {
    fn moment(ctx: &mut Ctx<'_>) -> Moment {
        Moment {
            now: Timestamp(ctx.now),
            wall: Time(jiff::Timestamp::UNIX_EPOCH),
            seed: u128::from(ctx.rng.bits()),
            given: BTreeMap::new(),
        }
    }

    fn take_over_from(&mut self, id: usize, run: u64, store: &Store, ctx: &mut Ctx<'_>) {
        (self.state, self.versions) = store.load();
        let mut changes = take_over(&self.state, &Self::moment(ctx));
        ctx.trace(|| {
            format!(
                "operator {id} takes over after controller epoch {}",
                self.state.cluster.controller_epoch
            )
        });
        self.apply(&mut changes, ctx);
        self.commit(id, run, changes, Vec::new(), true, store, ctx);
    }

    fn apply(&mut self, changes: &mut [Change], ctx: &mut Ctx<'_>) {
        for change in changes {
            if let Change::Partition(_, _, after) = &mut *change
                && ctx.plan.has(Mutation::CompletesReassignmentsAtOnce)
            {
                complete_reassignment(after);
            }
            if let Change::Partition(topic, _, after) = &*change {
                let before =
                    self.state.topics.get(topic).and_then(|topic| topic.partitions.first());
                if let Some((before, partition)) = before.zip(ctx.partition_of(*topic)) {
                    ctx.checks.decided(partition, before, after);
                }
                ctx.trace(|| format!("  decided: partition {:?} {after:?}", topic.0.as_u128()));
            }
            self.state.apply(change);
        }
    }

    fn batch(&mut self, id: usize, run: u64, store: &Store, ctx: &mut Ctx<'_>) {
        if !matches!(self.busy, Busy::Idle) {
            return;
        }
        let mut changes = Vec::new();
        let calls = std::mem::take(&mut self.mailbox);
        let tellings = calls
            .into_iter()
            .filter_map(|call| self.carry_out(id, call, &mut changes, ctx))
            .collect();
        self.end_sessions(id, &mut changes, ctx);
        if let Some(deadline) = self.sessions.next_deadline()
            && self.wakes_at.is_none_or(|at| at <= ctx.now)
        {
            let at = deadline.0.max(ctx.now + 1);
            self.wakes_at = Some(at);
            ctx.alarm(at, Alarm::Operator(id, run, OperatorAlarm::Sessions));
        }
        if changes.is_empty() {
            self.tell(id, &changes, tellings, ctx);
        } else {
            self.commit(id, run, changes, tellings, false, store, ctx);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a commit is about")]
    fn commit(
        &mut self,
        id: usize,
        run: u64,
        changes: Vec<Change>,
        mut tellings: Vec<Telling>,
        takes_over: bool,
        store: &Store,
        ctx: &mut Ctx<'_>,
    ) {
        let mut objects = store.touched(&changes, !ctx.plan.has(Mutation::FencesNoShard));
        if ctx.plan.has(Mutation::ForgetsBrokers) && !takes_over {
            objects.retain(|object| *object != Object::Registry);
        }
        if ctx.plan.has(Mutation::TellsBeforeCommit) && !takes_over {
            self.tell(id, &changes, std::mem::take(&mut tellings), ctx);
        }
        self.busy =
            Busy::Committing(Commit { objects: objects.into(), changes, tellings, takes_over });
        self.write_next(id, run, ctx);
    }

    fn write_next(&mut self, id: usize, run: u64, ctx: &mut Ctx<'_>) {
        let takes = if ctx.rng.chance(ctx.plan.slow) { 400 } else { 6 };
        let at = ctx.now + ctx.rng.between(1, takes);
        ctx.alarm(at, Alarm::Operator(id, run, OperatorAlarm::Write));
    }

    /// Writes the next object. Returns the written object, and whether all is well as far as this
    /// operator knows.
    fn write(&mut self, store: &mut Store, ctx: &mut Ctx<'_>) -> (Option<Object>, bool) {
        let Busy::Committing(commit) = &mut self.busy else { return (None, true) };
        let Some(object) = commit.objects.pop_front() else { return (None, true) };
        let seen = self.versions.get(&object).copied().unwrap_or_default();
        let content = store.content(object, &self.state, ctx.plan.has(Mutation::WritesNonsense));
        match store.swap(object, seen, content, !ctx.plan.has(Mutation::ComparesNothing)) {
            Ok(version) => {
                self.versions.insert(object, version);
                (Some(object), !ctx.faulty || !ctx.rng.chance(ctx.plan.lost_answers))
            }
            Err(_) => (None, false),
        }
    }

    fn go_on(&mut self, id: usize, run: u64, store: &Store, ctx: &mut Ctx<'_>) {
        let Busy::Committing(commit) = &mut self.busy else { return };
        if !commit.objects.is_empty() {
            self.write_next(id, run, ctx);
            return;
        }
        let Busy::Committing(commit) = std::mem::replace(&mut self.busy, Busy::Idle) else {
            return;
        };
        if commit.takes_over {
            let alive =
                self.state.brokers.values().filter(|broker| !broker.fenced).map(|broker| broker.id);
            self.sessions = Sessions::take_over(
                alive,
                Timestamp(ctx.now),
                self.state.version,
                Timestamp::default(),
            );
        } else {
            self.tell(id, &commit.changes, commit.tellings, ctx);
        }
        self.batch(id, run, store, ctx);
    }

    fn carry_out(
        &mut self,
        id: usize,
        call: Call,
        changes: &mut Vec<Change>,
        ctx: &mut Ctx<'_>,
    ) -> Option<Telling> {
        let now = Timestamp(ctx.now);
        match call {
            Call::Alter(from, call, request) => {
                ctx.trace(|| format!("operator {id}: {request:?}"));
                let reply = self.decide(Event::AlterPartitions(request), changes, ctx);
                Some(Telling::Altered(from, call, reply))
            }
            Call::Ended(broker, stream) => {
                self.sessions.broke(broker, StreamId(stream), now);
                if self.streams.get(&broker) == Some(&stream) {
                    self.streams.remove(&broker);
                }
                // Its host reports that the process is gone. The report may be wrong, because a
                // firewall can answer in the host's place.
                if ctx.rng.chance(500) {
                    self.sessions.gone(broker, StreamId(stream));
                }
                None
            }
            Call::Admin(request) => {
                let (broker, epoch) =
                    self.state.brokers.values().next().map(|broker| (broker.id, broker.epoch))?;
                let reply = self.decide(Event::Admin { broker, epoch, request }, changes, ctx);
                ctx.trace(|| format!("operator {id}: {reply:?}"));
                None
            }
            Call::User(event) => {
                let reply = self.decide(event, changes, ctx);
                ctx.trace(|| format!("operator {id}: {reply:?}"));
                None
            }
            Call::Open(registration, stream) => {
                let broker = registration.broker;
                let reply = self.decide(Event::Register(registration.clone()), changes, ctx);
                ctx.trace(|| format!("operator {id}: broker {broker} registers: {reply:?}"));
                if matches!(reply, Reply::Registered(_)) {
                    self.sessions.opened(broker, StreamId(stream), now, self.state.version);
                    self.close(id, broker, ctx);
                }
                Some(Telling::Opened(registration, stream, reply))
            }
            Call::Beat(heartbeat, stream) => {
                let broker = heartbeat.broker;
                if !self.sessions.belongs_to(broker, StreamId(stream)) {
                    return None;
                }
                self.sessions.heard(broker, heartbeat.applied_version, now);
                let reply = self.decide(Event::Heartbeat(heartbeat), changes, ctx);
                Some(Telling::Beat(broker, reply))
            }
        }
    }

    fn decide(&mut self, event: Event, changes: &mut Vec<Change>, ctx: &mut Ctx<'_>) -> Reply {
        let mut outcome = decide(&self.state, &self.sessions, event, &Self::moment(ctx));
        self.apply(&mut outcome.changes, ctx);
        changes.extend(outcome.changes);
        outcome.reply
    }

    fn end_sessions(&mut self, id: usize, changes: &mut Vec<Change>, ctx: &mut Ctx<'_>) {
        let expired = self.sessions.expired(Timestamp(ctx.now));
        if expired.is_empty() {
            return;
        }
        ctx.trace(|| format!("operator {id}: the sessions of {expired:?} are over"));
        self.decide(Event::Tick, changes, ctx);
        for broker in expired {
            self.sessions.ended(broker);
            self.close(id, broker, ctx);
        }
    }
}

/// What a reassignment ends with, though nobody knows whether the new replicas have caught up.
fn complete_reassignment(partition: &mut Partition) {
    if partition.adding.is_empty() {
        return;
    }
    let removing = std::mem::take(&mut partition.removing);
    partition.adding.clear();
    partition.replicas.retain(|id| !removing.contains(id));
    partition.isr = partition.replicas.clone();
    partition.elr.clear();
    if partition.leader.is_none_or(|leader| removing.contains(&leader)) {
        partition.leader = partition.replicas.first().copied();
        partition.leader_epoch.0 += 1;
    }
}
