//! The simulated world: one thread, one queue of events ordered by time, and all randomness from
//! the seed.

mod faults;

use serde_json::json;
use weir_operator::controller::state::{Cluster, shard_of};
use weir_protocol::types::TopicId;

use crate::broker::Machine;
use crate::checks::{Checks, LogOf, Rule};
use crate::client::Client;
use crate::ctx::{Alarm, Ctx, Event, Fault};
use crate::log::Log;
use crate::message::{Body, Node};
use crate::mutation::Mutation;
use crate::network::Network;
use crate::operator::Operator;
use crate::pauses::Pauses;
use crate::plan::{CONVERGENCE_MS_MAX, FAULTS_BEGIN_MS, Plan};
use crate::queue::Queue;
use crate::rng::Rng;
use crate::store::{Object, Store};
use crate::topics::{partition_of, topic_id, topic_name};

/// The world.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    now: u64,
    queue: Queue<Event>,
    /// The events that an action causes. The buffer is reused.
    out: Vec<(u64, Event)>,
    rng: Rng,
    network: Network,
    store: Store,
    operators: Vec<Operator>,
    lease: usize,
    machines: Vec<Machine>,
    clients: Vec<Client>,
    /// The newest life of each name that was ever in the store: no topic id is used twice.
    lives: Vec<u64>,
    /// Names whose topic is being deleted and created again.
    renewing: Vec<bool>,
    pauses: Pauses<Event>,
    checks: Checks,
    faulty: bool,
    done: bool,
    trace: Option<Vec<String>>,
}

/// The end of a history.
#[derive(Debug)]
pub struct Ended {
    /// The checks with their findings.
    pub checks: Checks,
    /// The trace, line by line.
    pub trace: Vec<String>,
}

impl World {
    /// The world of a plan. With `only`, no other rule counts.
    pub fn new(plan: Plan, only: Option<Rule>, traced: bool) -> Self {
        let (cluster, topics) = resources(&plan);
        let mut rng = Rng::new(plan.seed.wrapping_mul(31).wrapping_add(7));
        let count = plan.topics.len();
        let clients = (0..count).flat_map(|partition| Client::of(partition, &mut rng)).collect();
        Self {
            now: 0,
            queue: Queue::default(),
            out: Vec::new(),
            network: Network::default(),
            store: Store::new(cluster, topics),
            operators: (0..2).map(Operator::new).collect(),
            lease: 0,
            machines: (0..plan.brokers).map(|id| Machine::new(id, count)).collect(),
            clients,
            lives: vec![0; count],
            renewing: vec![false; count],
            pauses: Pauses::default(),
            checks: Checks::new(&plan, only),
            faulty: false,
            done: false,
            trace: traced.then(Vec::new),
            rng,
            plan,
        }
    }

    /// Runs the history to its end.
    pub fn run(mut self) -> Ended {
        let plan = format!("{:?}", self.plan);
        self.note(|| plan);
        self.lead(0);
        for broker in 0..self.machines.len() {
            self.broker(broker, Machine::start);
        }
        for client in 0..self.clients.len() {
            self.schedule(1_000 + client as u64, Event::Alarm(Alarm::Client(client)));
        }
        self.schedule(FAULTS_BEGIN_MS, Event::Alarm(Alarm::Fault));
        self.schedule(self.plan.faults_end_ms, Event::Alarm(Alarm::Heal));
        while let Some((at, event)) = self.next() {
            if self.done || self.checks.verdict.failure.is_some() {
                break;
            }
            self.now = at;
            self.checks.verdict.now = at;
            self.checks.counts.events += 1;
            self.happen(event);
            self.look_at_copies();
        }
        if let Some(failure) = &self.checks.verdict.failure {
            let line = format!("{:>6} BROKEN {:?}: {}", failure.at, failure.rule, failure.detail);
            self.trace.iter_mut().for_each(|lines| lines.push(line.clone()));
        }
        Ended { checks: self.checks, trace: self.trace.unwrap_or_default() }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.trace {
            lines.push(format!("{:>6} {}", self.now, line()));
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.queue.push(at, event);
    }

    fn next(&mut self) -> Option<(u64, Event)> {
        let released = self.pauses.pop();
        released.map(|event| (self.now, event)).or_else(|| self.queue.pop())
    }

    fn happen(&mut self, event: Event) {
        let node = match &event {
            Event::Arrives(_, to, _) => Some(*to),
            Event::Alarm(Alarm::Operator(id, ..)) => Some(Node::Operator(*id)),
            Event::Alarm(Alarm::Broker(id, ..)) => Some(Node::Broker(*id)),
            Event::Alarm(_) => None,
        };
        let event = match node {
            Some(node) => self.pauses.hold(node, event),
            None => Some(event),
        };
        match event {
            Some(Event::Arrives(from, to, body)) => self.arrive(from, to, body),
            Some(Event::Alarm(alarm)) => self.go_off(alarm),
            None => {}
        }
    }

    fn arrive(&mut self, from: Node, to: Node, body: Body) {
        match to {
            Node::Operator(id) if self.operators[id].up => {
                self.operator(id, |operator, store, ctx| {
                    operator.receive(from, body, store, ctx);
                    None
                });
            }
            Node::Broker(id) if self.machines[id].is_up() => {
                self.broker(id, |machine, ctx| machine.receive(from, body, ctx))
            }
            Node::Client(id) => {
                let client = &mut self.clients[id];
                client.receive(body, &mut self.checks);
            }
            Node::Operator(_) | Node::Broker(_) => {}
        }
    }

    fn go_off(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Operator(id, run, alarm) if self.operators[id].run == run => {
                self.operator(id, |operator, store, ctx| operator.wake(alarm, store, ctx));
            }
            Alarm::Broker(id, run, alarm)
                if self.machines[id].run == run && self.machines[id].is_up() =>
            {
                self.broker(id, |machine, ctx| machine.wake(alarm, ctx));
            }
            Alarm::Operator(..) | Alarm::Broker(..) => {}
            Alarm::Client(id) => self.client_acts(id),
            Alarm::Fault => self.fault(),
            Alarm::Repair(fault) => self.repair(fault),
            Alarm::Heal => self.heal(),
            Alarm::Look => self.look(),
        }
    }

    fn operator(
        &mut self,
        id: usize,
        act: impl FnOnce(&mut Operator, &mut Store, &mut Ctx<'_>) -> Option<Object>,
    ) {
        let (written, _) =
            self.act((0, 0), |operators, _, store, ctx| act(&mut operators[id], store, ctx));
        if let Some(object) = written {
            self.committed(object);
        }
    }

    fn broker(&mut self, id: usize, act: impl FnOnce(&mut Machine, &mut Ctx<'_>)) {
        let machine = &self.machines[id];
        // A start is the first action of a run.
        let actor = (id, machine.run + u64::from(!machine.is_up()));
        let ((), stopped) = self.act(actor, |_, machines, _, ctx| act(&mut machines[id], ctx));
        if stopped {
            let at = self.now + self.rng.between(50, 1_500);
            self.schedule(at, Event::Alarm(Alarm::Repair(Fault::Down(id))));
        }
    }

    /// Lets a node act and schedules the resulting events. Returns the result, and whether its
    /// process stopped.
    fn act<R>(
        &mut self,
        actor: (usize, u64),
        act: impl FnOnce(&mut [Operator], &mut [Machine], &mut Store, &mut Ctx<'_>) -> R,
    ) -> (R, bool) {
        let mut out = std::mem::take(&mut self.out);
        let mut ctx = Ctx {
            now: self.now,
            rng: &mut self.rng,
            plan: &self.plan,
            checks: &mut self.checks,
            lease: self.lease,
            faulty: self.faulty,
            stopped: false,
            network: &mut self.network,
            out: &mut out,
            trace: &mut self.trace,
            actor,
        };
        let result = act(&mut self.operators, &mut self.machines, &mut self.store, &mut ctx);
        let stopped = ctx.stopped;
        for (at, event) in out.drain(..) {
            self.queue.push(at, event);
        }
        self.out = out;
        (result, stopped)
    }

    fn lead(&mut self, id: usize) {
        let (state, _) = self.store.load();
        self.lease = id;
        self.operator(id, |operator, _, ctx| {
            operator.up = true;
            operator.lead(state, ctx);
            None
        });
    }

    fn client_acts(&mut self, id: usize) {
        let leader = self.guess_leader(self.clients[id].partition());
        let bodies = self.clients[id].act(self.now, &self.checks, self.faulty);
        if bodies.is_empty() && self.clients[id].is_done() {
            return;
        }
        let (from, to) = (Node::Client(id), Node::Broker(leader));
        for body in bodies {
            for at in self
                .network
                .send(self.now, from, to, &mut self.rng, &self.plan)
                .into_iter()
                .flatten()
            {
                self.schedule(at, Event::Arrives(from, to, body.clone()));
            }
        }
        let at = self.now + self.rng.between(60, 260);
        self.schedule(at, Event::Alarm(Alarm::Client(id)));
    }

    /// The leader from a client's view: it has asked some broker.
    fn guess_leader(&mut self, partition: usize) -> usize {
        let asked = self.rng.index(self.machines.len());
        let told = self.machines[asked].leader_of(partition);
        told.unwrap_or_else(|| self.rng.index(self.machines.len()))
    }

    fn committed(&mut self, object: Object) {
        if object == Object::Registry {
            for (id, run) in self.store.runs() {
                let machine = &mut self.machines[id];
                if run > machine.lost_by {
                    machine.lost_from.fill(0);
                }
            }
        }
        if let Object::Topic(partition) = object
            && let Some(topic) = self.store.topic(partition)
        {
            self.lives[partition] = self.lives[partition].max((topic.0.as_u128() >> 64) as u64);
        }
        if let Object::Shard(shard) = object {
            self.checks.gone(|topic| shard_of(topic) == shard && !self.store.has(topic));
        }
        for (topic, state) in self.store.partitions(object) {
            let Some(partition) = partition_of(topic) else { continue };
            let machines = &self.machines;
            let log_of = |id: usize| machines[id].copy_of(partition, topic);
            self.checks.committed(partition, topic, &state, &log_of);
            self.note(|| format!("committed: {partition} {state:?}"));
        }
    }

    fn look_at_copies(&mut self) {
        if self.checks.dirty.is_empty() {
            return;
        }
        let mut dirty = std::mem::take(&mut self.checks.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        for partition in dirty {
            let Some(topic) = self.checks.ledger(partition).topic() else { continue };
            let machines = &self.machines;
            let log_of: LogOf<'_> = &|id: usize| machines[id].copy_of(partition, topic);
            self.checks.look_at_copies(partition, log_of);
        }
    }

    /// Checks whether a healed cluster has converged.
    fn look(&mut self) {
        let unwell = self.unwell();
        if let Some(reason) = unwell {
            if self.checks.verdict.only.is_some_and(|only| only != Rule::Converges)
                && self.now > self.plan.faults_end_ms + 5_000
            {
                self.done = true;
            }
            if self.now > self.plan.faults_end_ms + CONVERGENCE_MS_MAX {
                self.checks.verdict.broken(Rule::Converges, || reason);
            }
            let at = self.now + 250;
            self.schedule(at, Event::Alarm(Alarm::Look));
        } else {
            self.note(|| "all is well".to_owned());
            self.done = true;
        }
    }

    fn unwell(&self) -> Option<String> {
        for partition in 0..self.plan.topics.len() {
            let Some(state) = self.checks.ledger(partition).state() else {
                return Some(format!("partition {partition} was never placed"));
            };
            if state.leader.is_none() && state.isr.is_empty() && state.elr.is_empty() {
                // The last copy with everything is lost, and the others may not lead without
                // unclean election.
                continue;
            }
            if state.leader.is_none()
                || state.isr.len() < state.replicas.len()
                || state.is_reassigning()
            {
                return Some(format!("partition {partition}: {state:?}"));
            }
            let logs: Vec<&Log> = state
                .replicas
                .iter()
                .map(|id| self.machines[id.0 as usize].log(partition))
                .collect();
            let starts = logs.iter().map(|log| log.start());
            let start = starts.fold(self.checks.ledger(partition).trimmed(), i64::max);
            let leads = state.leader.map(|id| self.machines[id.0 as usize].log(partition).start());
            let differ = logs
                .windows(2)
                .any(|pair| pair[0].records_from(start) != pair[1].records_from(start));
            if differ || logs.iter().any(|log| Some(log.start()) < leads || log.end() < start) {
                let bounds: Vec<_> = logs.iter().map(|log| log.start()..log.end()).collect();
                return Some(format!("partition {partition}: the logs differ, {bounds:?}"));
            }
            if let Some(client) = self
                .clients
                .iter()
                .find(|client| client.partition() == partition && !client.is_done())
            {
                return Some(format!("partition {partition}: {client:?} waits"));
            }
        }
        None
    }
}

/// The resources of the cluster and the topics.
fn resources(plan: &Plan) -> (Cluster, Vec<(TopicId, weir_crds::Topic)>) {
    let cluster = json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "simulated"}, "spec": {"brokers": {"replicas": plan.brokers}}});
    let cluster = serde_json::from_value(cluster).expect("a cluster without settings is one");
    let topics = (0..plan.topics.len())
        .map(|partition| (topic_id(partition, 0), resource(plan, partition, 0)));
    (Cluster::new("simulated".to_owned(), cluster), topics.collect())
}

/// The resource of a topic in one of its lives.
fn resource(plan: &Plan, partition: usize, life: u64) -> weir_crds::Topic {
    let topic = &plan.topics[partition];
    let unclean = topic.unclean || plan.has(Mutation::ElectsAnyone);
    let object = json!({
        "apiVersion": weir_crds::API_VERSION, "kind": "Topic",
        "metadata": {"name": topic_name(partition), "uid": topic_id(partition, life).0.to_string()},
        "spec": {"clusterRef": {"name": "simulated"}, "partitions": 1, "replicas": topic.replicas,
            "config": {"min.insync.replicas": topic.min_isr, "unclean.leader.election.enable": unclean}},
    });
    serde_json::from_value(object).expect("a topic with two settings is one")
}
