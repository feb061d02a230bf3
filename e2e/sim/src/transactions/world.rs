//! The world of a history: leaders, messages in flight, clients, faults, and the time.

mod replicas;

use std::collections::BTreeMap;

use weir_broker::sim_api::at_rest;
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::checks::{Checks, Rule};
use super::client::Client;
use super::leader::{Around, Process, To};
use super::message::{Asker, Body, From, Leader, Role, Value, What, id};
use super::plan::{CONVERGENCE_MS_MAX, Plan, TIMEOUT_MS};
use super::replica::{Entry, Replica};
use crate::rng::Rng;

/// The interval of the processes' periodic work and of the readers.
const TICK_MS: u64 = 10;

/// An event.
#[derive(Debug)]
enum Event {
    Tick,
    Fault,
    /// Clients act.
    Act,
    Arrives(Leader, Body),
    Answered(From, Body),
    Commits(Leader, usize),
    Ends(Leader),
    Starts(usize),
}

/// The world.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    rng: Rng,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    processes: BTreeMap<Leader, Process>,
    leaders: BTreeMap<Role, i32>,
    /// The followers of the data partitions.
    followers: BTreeMap<Role, Vec<Replica>>,
    /// The end of the committed log of each partition, and the end of the pending commit.
    committed: BTreeMap<Role, usize>,
    committing: BTreeMap<Leader, usize>,
    clients: Vec<Client>,
    /// The newest process of each chain.
    newest: Vec<u64>,
    /// The chains whose clients have gone for good.
    left: Vec<bool>,
    read: Vec<usize>,
    next_id: i64,
    checks: Checks,
    trace: Option<Vec<String>>,
}

impl World {
    /// The start of a history.
    pub fn new(plan: Plan, only: Option<Rule>, traced: bool) -> Self {
        let roles = [Role::Coordinator, Role::Offsets]
            .into_iter()
            .chain((0..plan.partitions).map(Role::Data));
        let leaders: BTreeMap<Role, i32> = roles.map(|role| (role, 0)).collect();
        let mut world = Self {
            rng: Rng::new(plan.seed),
            now: 0,
            events: BTreeMap::new(),
            count: 0,
            processes: BTreeMap::new(),
            followers: BTreeMap::new(),
            committed: BTreeMap::new(),
            committing: BTreeMap::new(),
            clients: Vec::new(),
            newest: vec![0; plan.versions.len()],
            left: vec![false; plan.versions.len()],
            read: vec![0; plan.partitions],
            next_id: 100,
            checks: Checks::new(plan.partitions, only),
            trace: traced.then(Vec::new),
            leaders,
            plan,
        };
        for role in world.leaders.keys().copied().collect::<Vec<_>>() {
            let process = match role {
                Role::Data(_) => world.first_leader(role),
                Role::Coordinator => Process::new((role, 0), world.first_records(), 0),
                Role::Offsets => Process::new((role, 0), Vec::new(), 0),
            };
            world.committing.insert((role, 0), process.log().len());
            world.at(1, Event::Commits((role, 0), process.log().len()));
            world.processes.insert((role, 0), process);
        }
        for chain in 0..world.plan.versions.len() {
            world.at(2, Event::Starts(chain));
        }
        world.at(3, Event::Tick);
        world.at(3, Event::Act);
        world.at(50, Event::Fault);
        world
    }

    /// Transactional ids whose epochs are far advanced already.
    fn first_records(&self) -> Vec<Entry> {
        let first = self.plan.first_epochs.iter().enumerate().filter_map(|(chain, epoch)| {
            let producer = (ProducerId(chain as i64 + 1), ProducerEpoch((*epoch)?));
            Some(Entry::Record(at_rest(&id(chain), producer, TIMEOUT_MS)))
        });
        first.collect()
    }

    /// Plays until the history is over or a rule is broken.
    pub fn run(mut self) -> (Checks, Vec<String>) {
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = at;
            self.checks.verdict.now = at;
            self.checks.counts.events += 1;
            self.happens(event);
            if self.checks.verdict.failure.is_some() {
                break;
            }
            if self.now > self.plan.faults_end_ms && self.is_over() {
                self.end();
                break;
            }
            if self.now > self.plan.faults_end_ms + CONVERGENCE_MS_MAX {
                let open = self.open();
                self.checks.verdict.broken(Rule::Ends, || open);
                break;
            }
        }
        (self.checks, self.trace.unwrap_or_default())
    }

    fn at(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.events.insert((at, self.count), event);
    }

    fn is_healed(&self) -> bool {
        self.now >= self.plan.faults_end_ms
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>6} {}", self.now, what()));
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Tick => {
                for leader in self.processes.keys().copied().collect::<Vec<_>>() {
                    self.with(leader, |process, cx| process.tick(cx));
                }
                self.followers_fetch();
                self.readers_read();
                self.at(self.now + TICK_MS, Event::Tick);
            }
            Event::Act => {
                self.clients_act();
                self.at(self.now + 2, Event::Act);
            }
            Event::Fault if !self.is_healed() => {
                self.fault();
                let pause = self.rng.between(20, self.plan.fault_pause_ms_max);
                self.at(self.now + pause, Event::Fault);
            }
            Event::Fault => {}
            Event::Arrives(_, body) if self.is_beyond_v1(&body) => {
                self.note(|| format!("{body:?} is dropped"))
            }
            Event::Arrives(leader, body) => {
                self.note(|| format!("{leader:?} gets {body:?}"));
                self.with(leader, |process, cx| process.receive(body, cx));
            }
            Event::Answered(from, Body::Reply(_, reply)) => {
                self.note(|| format!("{from:?} is told {reply:?}"));
                let client = self
                    .clients
                    .iter_mut()
                    .find(|client| (client.chain, client.process) == (from.chain, from.process));
                if let Some(client) = client {
                    client.receive(from, reply, self.now, &self.plan, &mut self.checks);
                    if client.is_dead && self.newest[from.chain] == from.process {
                        let pause = self.rng.between(1, 30);
                        self.at(self.now + pause, Event::Starts(from.chain));
                    }
                }
            }
            Event::Answered(..) => {}
            Event::Commits(leader, end) if self.leaders[&leader.0] == leader.1 => {
                let committed = self.committed.entry(leader.0).or_default();
                *committed = (*committed).max(end);
                self.with(leader, |process, cx| process.committed(end, cx));
            }
            Event::Commits(..) => {}
            Event::Ends(leader) => self.ends(leader),
            Event::Starts(chain) if self.left[chain] => {}
            Event::Starts(chain) => {
                self.newest[chain] += 1;
                self.clients.retain(|client| !client.is_dead);
                self.clients.push(Client::new(chain, self.newest[chain], &self.plan));
            }
        }
    }

    /// Lets a process act. Then its messages are in flight, and its appended records are about to
    /// be committed.
    fn with(&mut self, leader: Leader, act: impl FnOnce(&mut Process, &mut Around<'_>)) {
        let Some(process) = self.processes.get_mut(&leader) else { return };
        let mut sent = Vec::new();
        let leads = self.leaders[&leader.0] == leader.1;
        let mut cx = Around {
            now: self.now,
            plan: &self.plan,
            checks: &mut self.checks,
            sent: &mut sent,
            next_id: &mut self.next_id,
            leads,
        };
        let before = process.log().len();
        act(process, &mut cx);
        let end = process.log().len();
        if before != end
            && let Err(what) = process.check(self.now)
        {
            self.checks.verdict.broken(Rule::ReplicasKnow, || format!("{leader:?}: {what}"));
        }
        let committing = self.committing.entry(leader).or_default();
        if leads && end > *committing {
            *committing = end;
            let takes = self.delay();
            self.at(self.now + takes, Event::Commits(leader, end));
        }
        for (to, body, pause) in sent {
            self.send(to, body, pause);
        }
    }

    fn delay(&mut self) -> u64 {
        if !self.is_healed() && self.rng.chance(self.plan.slow) {
            let most = if self.rng.chance(200) { 900 } else { 60 };
            return self.rng.between(5, most);
        }
        self.rng.between(1, 3)
    }

    /// Sends a message: it is lost, or arrives once or twice, soon or late.
    fn send(&mut self, to: To, body: Body, pause: u64) {
        if pause > 0 {
            if let To::Leader(leader) = to {
                self.at(self.now + pause, Event::Arrives(leader, body));
            }
            return;
        }
        let loses = !self.is_healed() && self.rng.chance(self.plan.loss);
        if loses {
            return;
        }
        // Transactions v1 cannot detect requests of an earlier transaction (KAFKA-17754). So
        // histories spare them these faults.
        let spared = match &body {
            Body::Ask(Asker::Client(_), chain, _) => self.plan.versions[*chain] < 2,
            Body::Mark(.., marker) => marker.transaction_version < 2,
            _ => false,
        };
        let takes = if spared { self.rng.between(1, 3) } else { self.delay() };
        let again =
            (!spared && !self.is_healed() && self.rng.chance(self.plan.loss)).then(|| self.delay());
        for takes in std::iter::once(takes).chain(again) {
            let event = match to {
                To::Client(from) => Event::Answered(from, body.clone()),
                To::Leader(leader) => Event::Arrives(leader, body.clone()),
                To::Role(role) => Event::Arrives(self.believed(role, &body), body.clone()),
            };
            self.at(self.now + takes, event);
        }
    }

    /// Whether this is a late copy of an offset commit whose answer the client of transactions v1
    /// has. Such a commit has no sequence number. In a later transaction of the same epoch it
    /// counts, in Kafka too, and transactions v2 exist for that reason (KIP-890).
    fn is_beyond_v1(&self, body: &Body) -> bool {
        match body {
            Body::Write(write) if write.version < 2 && matches!(write.what, What::Offset(_)) => {
                self.clients.iter().any(|client| client.has_an_answer_to(write))
            }
            _ => false,
        }
    }

    /// The process that a sender takes for the leader: the real one, or a deposed one that still
    /// believes it leads.
    fn believed(&mut self, role: Role, body: &Body) -> Leader {
        let epoch = self.leaders[&role];
        // A client that asks for its group's offset has joined the group at that leader. Joining
        // writes a record and commits it, so the leader is the real one.
        let is_stale = !matches!(body, Body::FetchOffset(_))
            && self.processes.contains_key(&(role, epoch - 1))
            && self.rng.chance(400);
        (role, if is_stale { epoch - 1 } else { epoch })
    }

    fn clients_act(&mut self) {
        self.clients_leave();
        for at in 0..self.clients.len() {
            let acted = self.clients[at].act(self.now, &self.plan, &mut self.rng, &mut self.checks);
            if let Some((role, body)) = acted {
                self.send(To::Role(role), body, 0);
            }
        }
    }

    /// Clients whose time has come die in the middle of a transaction, without a successor.
    fn clients_leave(&mut self) {
        for client in &self.clients {
            let Some(at) = self.plan.leaves[client.chain] else { continue };
            let (is_open, is_last) = client.is_open();
            self.left[client.chain] |= !client.is_dead && is_open && (is_last || self.now >= at);
        }
        for client in self.clients.iter_mut().filter(|client| self.left[client.chain]) {
            client.die(&mut self.checks);
        }
    }

    fn fault(&mut self) {
        self.checks.counts.faults += 1;
        let chain = self.rng.index(self.plan.versions.len());
        match self.rng.index(7) {
            6 => {
                let role = Role::Data(self.rng.index(self.plan.partitions));
                let kind = 1 + self.rng.index(2);
                self.note(|| format!("a follower of {role:?} is started again"));
                let replica = self.followers.get_mut(&role).and_then(Vec::pop);
                let replica = replica.and_then(|replica| self.restarted(replica, role, kind));
                self.followers.entry(role).or_default().extend(replica);
            }
            0 => {
                self.note(|| format!("the client of chain {chain} dies"));
                let newest = self.newest[chain];
                for client in &mut self.clients {
                    if (client.chain, client.process) == (chain, newest) {
                        client.die(&mut self.checks);
                    }
                }
                let pause = self.rng.between(1, 60);
                self.at(self.now + pause, Event::Starts(chain));
            }
            1 => {
                self.note(|| format!("another client of chain {chain} starts"));
                self.at(self.now, Event::Starts(chain));
            }
            _ => {
                let roles: Vec<Role> = self.leaders.keys().copied().collect();
                let role = roles[self.rng.index(roles.len())];
                self.elect(role);
            }
        }
    }

    /// Elects another process. It has all committed records and some of the uncommitted ones.
    fn elect(&mut self, role: Role) {
        let epoch = self.leaders[&role];
        let old = (role, epoch);
        let Some(process) = self.processes.get(&old) else { return };
        self.checks.counts.elections += 1;
        let committed = self.committed.get(&role).copied().unwrap_or(0);
        let all = process.log().len();
        let most = self.rng.between(committed as u64, all as u64) as usize;
        let high_watermark = committed.saturating_sub(self.rng.index(3));
        let next = (role, epoch + 1);
        let elected = match role {
            Role::Data(_) => match self.elect_follower(old, committed, most) {
                Some(replica) => Process::lead(next, replica, high_watermark),
                None => return,
            },
            Role::Coordinator | Role::Offsets => {
                Process::new(next, process.log()[..most].to_vec(), high_watermark)
            }
        };
        let kept = elected.log().len();
        self.leaders.insert(role, epoch + 1);
        self.processes.insert(next, elected);
        self.committing.insert(next, kept);
        let takes = self.rng.between(2, 40);
        self.at(self.now + takes, Event::Commits(next, kept));
        let stays = if self.rng.chance(self.plan.zombies) { self.rng.between(20, 600) } else { 0 };
        self.at(self.now + stays, Event::Ends(old));
        self.note(|| {
            format!(
                "{next:?} is elected, {kept} of it are kept; the one before stays for {stays} ms"
            )
        });
    }

    fn readers_read(&mut self) {
        for partition in 0..self.plan.partitions {
            let (seen, end) = self.read_from(partition, self.read[partition]);
            self.read[partition] = end;
            for value in seen {
                self.note(|| format!("partition {partition} shows {value:?}"));
                self.checks.sees(partition, value);
            }
        }
    }

    /// What `read_committed` returns from an offset on, and where that ends.
    fn read_from(&mut self, partition: usize, from: usize) -> (Vec<Value>, usize) {
        let role = Role::Data(partition);
        let Some(process) = self.processes.get_mut(&(role, self.leaders[&role])) else {
            return (Vec::new(), from);
        };
        // Uncommitted records are not stable.
        if process.high_watermark <= from {
            return (Vec::new(), from);
        }
        let (end, aborted) = process.stable(&self.plan, self.now);
        let end = end.max(from);
        let mut seen = Vec::new();
        for (offset, entry) in process.log().iter().enumerate().take(end).skip(from) {
            let offset = offset as i64;
            if let Entry::Data((id, _), _, value) = entry
                && !aborted.iter().any(|it| {
                    it.producer == *id && (it.first_offset..=it.last_offset).contains(&offset)
                })
            {
                seen.push(*value);
            }
        }
        (seen, end)
    }

    /// What is still open.
    fn open(&mut self) -> String {
        let mut open = Vec::new();
        for (role, epoch) in self.leaders.clone() {
            let Some(process) = self.processes.get_mut(&(role, epoch)) else {
                continue;
            };
            let is_over = match role {
                Role::Coordinator => process.is_at_rest(),
                Role::Offsets => (0..self.plan.versions.len())
                    .all(|chain| process.committed_offset(chain, self.now).is_some()),
                // A leader that was elected just now shows less at first: its high watermark is
                // behind.
                Role::Data(_) => {
                    let end = process.log().len();
                    process.high_watermark == end && process.stable(&self.plan, self.now).0 == end
                }
            };
            if !is_over {
                open.push(format!("{role:?}"));
            }
        }
        for client in &self.clients {
            if !client.is_dead && !client.is_done() {
                open.push(format!("process {} of chain {}", client.process, client.chain));
            }
        }
        open.join(", ")
    }

    fn is_over(&mut self) -> bool {
        let is_there = |chain: usize| {
            self.left[chain]
                || self.clients.iter().any(|client| client.chain == chain && !client.is_dead)
        };
        (0..self.plan.versions.len()).all(is_there) && self.open().is_empty()
    }

    fn end(&mut self) {
        self.readers_read();
        for (role, replica) in self
            .followers
            .iter_mut()
            .flat_map(|(role, all)| all.iter_mut().map(move |one| (role, one)))
        {
            if let Err(what) = replica.known(self.now) {
                self.checks.verdict.broken(Rule::ReplicasKnow, || {
                    format!("in the end a follower of {role:?}: {what}")
                });
            }
        }
        for partition in 0..self.plan.partitions {
            let (values, _) = self.read_from(partition, 0);
            self.checks.sees_again(partition, &values);
        }
        let offsets = self.leaders[&Role::Offsets];
        if let Some(process) = self.processes.get_mut(&(Role::Offsets, offsets)) {
            let offsets: Vec<i64> = (0..self.plan.versions.len())
                .map(|chain| process.committed_offset(chain, self.now).unwrap_or(-1))
                .collect();
            self.checks.over(&offsets);
        }
    }
}
