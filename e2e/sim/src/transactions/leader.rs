//! A process that leads a partition, or believes that it does: the real core, a model of its shell,
//! and a model of its log.
//!
//! Each record is one batch. The world commits appended records if the process still leads then.
//! Answers that depend on them leave after that.

mod markers;
mod writing;

use std::collections::{BTreeMap, BTreeSet};

use weir_broker::sim_api::{Aborted, Answer, Ask, Coordinator, Guard, Offsets, Prepared};
use weir_protocol::error::ErrorCode;
use weir_protocol::types::ProducerId;

use super::checks::Checks;
use super::message::{Asker, Body, From, Leader, Reply, Role, Write, id};
use super::plan::{Mutation, Plan};
use super::replica::{Entry, Replica};

/// How often a leader retries after the end of a transaction came in between, and after how long.
const ATTEMPTS: u32 = 6;
const RETRY_MS: u64 = 3;

/// The receiver of a message.
#[derive(Clone, Copy, Debug)]
pub enum To {
    /// The leader of the partition, as far as the sender knows.
    Role(Role),
    /// This leader, even if it is deposed.
    Leader(Leader),
    /// A client.
    Client(From),
}

/// The access of a process to the world, and the messages that it sends.
#[derive(Debug)]
pub struct Around<'a> {
    /// The time.
    pub now: u64,
    /// The plan.
    pub plan: &'a Plan,
    /// The checks.
    pub checks: &'a mut Checks,
    /// Messages to send; the last number is a delay.
    pub sent: &'a mut Vec<(To, Body, u64)>,
    /// The next producer id.
    pub next_id: &'a mut i64,
    /// Whether it still leads.
    pub leads: bool,
}

impl Around<'_> {
    /// A new producer id.
    fn fresh_id(&mut self) -> ProducerId {
        *self.next_id += 1;
        ProducerId(*self.next_id)
    }
}

#[derive(Debug)]
enum Core {
    Coordinator(Coordinator),
    Offsets(Offsets),
    Data(Box<Replica>),
}

/// A question to a transaction coordinator, for a waiting request.
#[derive(Clone, Copy, Debug)]
struct Question {
    write: Write,
    guard: Guard,
    attempts: u32,
}

/// A transaction whose markers are being written.
#[derive(Debug)]
struct Task {
    prepared: Prepared,
    missing: BTreeSet<Role>,
    given_up: bool,
}

/// A leader's process.
#[derive(Debug)]
pub struct Process {
    /// The partition that it leads, and the epoch.
    pub leader: Leader,
    /// The log of a coordinator.
    log: Vec<Entry>,
    /// The end of the committed log, as far as it knows.
    pub high_watermark: usize,
    /// A coordinator answers only once the log that it found is committed.
    loaded: bool,
    core: Core,
    owed: Vec<(usize, To, Body)>,
    questions: BTreeMap<u64, Question>,
    tasks: BTreeMap<u64, Task>,
    numbers: u64,
}

impl Process {
    /// A coordinator begins to lead with this log.
    pub fn new(leader: Leader, log: Vec<Entry>, high_watermark: usize) -> Self {
        let core = match leader.0 {
            Role::Coordinator => Core::Coordinator(Coordinator::new(leader.1)),
            Role::Offsets | Role::Data(_) => Core::Offsets(Offsets::new(leader.1)),
        };
        Self::with(leader, core, log, high_watermark)
    }

    /// A replica of a data partition begins to lead.
    pub fn lead(leader: Leader, replica: Replica, high_watermark: usize) -> Self {
        Self {
            loaded: true,
            ..Self::with(leader, Core::Data(Box::new(replica)), Vec::new(), high_watermark)
        }
    }

    fn with(leader: Leader, core: Core, log: Vec<Entry>, high_watermark: usize) -> Self {
        Self {
            leader,
            high_watermark,
            loaded: false,
            core,
            owed: Vec::new(),
            questions: BTreeMap::new(),
            tasks: BTreeMap::new(),
            numbers: 0,
            log,
        }
    }

    /// The entries of its log.
    pub fn log(&self) -> &[Entry] {
        self.replica().map_or(&self.log, |replica| &replica.log)
    }

    /// The replica of a data partition.
    pub fn replica(&self) -> Option<&Replica> {
        match &self.core {
            Core::Data(replica) => Some(replica),
            Core::Coordinator(_) | Core::Offsets(_) => None,
        }
    }

    /// Stops leading; the replica becomes a follower.
    pub fn into_replica(self) -> Option<Replica> {
        match self.core {
            Core::Data(replica) => Some(*replica),
            Core::Coordinator(_) | Core::Offsets(_) => None,
        }
    }

    /// Checks that the replica's state matches its log.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&mut self, now: u64) -> Result<(), String> {
        match &mut self.core {
            Core::Data(replica) => replica.known(now).map(drop),
            Core::Coordinator(_) | Core::Offsets(_) => Ok(()),
        }
    }

    /// The log before `end` is committed.
    pub fn committed(&mut self, end: usize, cx: &mut Around<'_>) {
        self.high_watermark = self.high_watermark.max(end);
        if let Core::Data(replica) = &mut self.core {
            replica.commit(self.high_watermark);
        }
        if !self.loaded && self.high_watermark == self.log.len() {
            self.load(cx);
        }
        let (due, owed) = std::mem::take(&mut self.owed)
            .into_iter()
            .partition::<Vec<_>, _>(|(upto, ..)| *upto <= self.high_watermark);
        self.owed = owed;
        for (_, to, body) in due {
            send(to, body, cx);
        }
    }

    fn load(&mut self, cx: &mut Around<'_>) {
        self.loaded = true;
        let mut log = self.log.as_slice();
        if cx.plan.has(Mutation::LoadsHalf) {
            log = &log[..log.len().saturating_sub(1)];
        }
        match &mut self.core {
            Core::Coordinator(core) => {
                for entry in log {
                    if let Entry::Record(record) = entry {
                        core.replay(record);
                    }
                }
                let records = core.loaded(cx.now);
                self.log.extend(records.into_iter().map(Entry::Record));
            }
            Core::Offsets(core) => {
                for entry in log {
                    match entry {
                        Entry::Offset(producer, record) => core.replay(*producer, record, cx.now),
                        Entry::Marker(marker) => core.replay_marker(*marker, cx.now),
                        Entry::Record(_) | Entry::Data(..) => {}
                    }
                }
                core.loaded(cx.now);
            }
            Core::Data(_) => {}
        }
    }

    /// Handles a message.
    pub fn receive(&mut self, body: Body, cx: &mut Around<'_>) {
        match body {
            Body::Ask(asker, chain, ask) => self.ask(asker, chain, ask, cx),
            Body::Write(write) => self.write(write, ATTEMPTS, cx),
            Body::Verified(question, code) => self.verified(question, code, cx),
            Body::FetchOffset(from) => self.fetch_offset(from, cx),
            Body::Mark(coordinator, task, marker) => self.mark(coordinator, task, marker, cx),
            Body::Marked(task, role, code) => self.marked(task, role, code, cx),
            Body::Reply(..) => {}
        }
    }

    /// Sends a message once everything in the log is committed.
    fn owe(&mut self, to: To, body: Body, cx: &mut Around<'_>) {
        if self.high_watermark >= self.log().len()
            || (cx.plan.has(Mutation::AnswersBeforeCommit) && self.leader.0 == Role::Coordinator)
        {
            send(to, body, cx);
        } else {
            self.owed.push((self.log().len(), to, body));
        }
    }

    fn ask(&mut self, asker: Asker, chain: usize, mut ask: Ask, cx: &mut Around<'_>) {
        let Core::Coordinator(core) = &mut self.core else { return };
        if !self.loaded {
            return answer(asker, Err(ErrorCode::CoordinatorLoadInProgress), cx);
        }
        if let Ask::Init { fresh, .. } | Ask::End { fresh, .. } = &mut ask {
            *fresh = cx.fresh_id();
        }
        if let (Ask::Init { .. }, Asker::Client(from)) = (&ask, asker) {
            cx.checks.inits(from.chain, (from.process, from.request));
        }
        let aborts = matches!(ask, Ask::End { commit: false, .. });
        if cx.plan.has(Mutation::KeepsEpochs)
            && let Ask::End { version, .. } = &mut ask
        {
            *version = 0;
        }
        let (records, mut said) = core.ask(&id(chain), ask, cx.now);
        if cx.plan.has(Mutation::TakesRepeatsForZombies)
            && aborts
            && records.is_empty()
            && matches!(said, Answer::Producer(Ok(_)))
        {
            said = Answer::Producer(Err(ErrorCode::ProducerFenced));
        }
        self.log.extend(records.into_iter().map(Entry::Record));
        match (asker, said) {
            (Asker::Client(from), Answer::Producer(result)) => {
                self.owe(To::Client(from), Body::Reply(from, Reply::Producer(result, cx.leads)), cx)
            }
            (Asker::Client(from), Answer::Code(code)) => {
                self.owe(To::Client(from), Body::Reply(from, Reply::Code(code)), cx)
            }
            (Asker::Leader(leader, question), Answer::Code(code)) => {
                self.owe(To::Leader(leader), Body::Verified(question, code), cx)
            }
            _ => {}
        }
    }

    fn fetch_offset(&mut self, from: From, cx: &mut Around<'_>) {
        let Core::Offsets(core) = &mut self.core else { return };
        let offset = match self.loaded {
            true => core.committed(&id(from.chain), cx.now),
            false => Err(ErrorCode::CoordinatorLoadInProgress),
        };
        self.owe(To::Client(from), Body::Reply(from, Reply::Offset(offset)), cx);
    }

    /// The committed offset of a chain's group; `None` if this is no ready group coordinator, or
    /// the offset may still change.
    pub fn committed_offset(&mut self, chain: usize, now: u64) -> Option<i64> {
        match &mut self.core {
            Core::Offsets(core) if self.loaded => core.committed(&id(chain), now).ok(),
            _ => None,
        }
    }

    /// The end of what `read_committed` may read in a partition, and the aborted transactions.
    pub fn stable(&mut self, plan: &Plan, now: u64) -> (usize, Vec<Aborted>) {
        let known = match &mut self.core {
            Core::Data(replica) => replica.known(now).ok(),
            Core::Coordinator(_) | Core::Offsets(_) => None,
        };
        let Some(known) = known else { return (0, Vec::new()) };
        let stable = usize::try_from(known.stable).unwrap_or(0);
        let end =
            if plan.has(Mutation::ReadsToHighWatermark) { self.high_watermark } else { stable };
        let aborted = if plan.has(Mutation::ForgetsAborted) { Vec::new() } else { known.aborted };
        (end, aborted)
    }

    /// Whether a coordinator has no transaction that waits for markers, and no uncommitted record.
    pub fn is_at_rest(&self) -> bool {
        self.loaded && self.tasks.is_empty() && self.high_watermark == self.log.len()
    }
}

fn send(to: To, body: Body, cx: &mut Around<'_>) {
    cx.sent.push((to, body, 0));
}

fn refuse(write: &Write, code: ErrorCode, cx: &mut Around<'_>) {
    send(To::Client(write.from), Body::Reply(write.from, Reply::Code(code)), cx);
}

fn answer(asker: Asker, result: Result<(), ErrorCode>, cx: &mut Around<'_>) {
    let code = result.err().unwrap_or(ErrorCode::None);
    match asker {
        Asker::Client(from) => send(To::Client(from), Body::Reply(from, Reply::Code(code)), cx),
        Asker::Leader(leader, question) => {
            send(To::Leader(leader), Body::Verified(question, code), cx)
        }
        Asker::Itself => {}
    }
}
