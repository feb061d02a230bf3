//! A process that leads a partition, or believes that it does: the real core, a model of its shell,
//! and a model of its log.
//!
//! Each record is one batch. The world commits appended records if the process still leads then.
//! Answers that depend on them leave after that.

use std::collections::{BTreeMap, BTreeSet};

use weir_broker::cores::{Aborted, Answer, Ask, Coordinator, Guard, Marker, Offsets, Prepared};
use weir_protocol::error::ErrorCode;
use weir_protocol::types::ProducerId;

use super::checks::Checks;
use super::message::{Asker, Body, From, Leader, Reply, Role, What, Write, id};
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

    /// Runs periodic work: due timeouts and markers.
    pub fn tick(&mut self, cx: &mut Around<'_>) {
        let Core::Coordinator(core) = &mut self.core else { return };
        if !self.loaded || cx.plan.has(Mutation::NeverMarks) {
            return;
        }
        if core.next_wake().is_some_and(|at| at <= cx.now) {
            let records = core.wake(cx.now);
            self.log.extend(records.into_iter().map(Entry::Record));
        }
        // The core returns only transactions whose end is committed.
        if self.high_watermark >= self.log.len()
            && let (_, Answer::Prepared(all, exhausted)) = core.ask("", Ask::Prepared, cx.now)
        {
            for id in exhausted.into_iter().filter(|_| !cx.plan.has(Mutation::NeverRenews)) {
                let fresh = cx.fresh_id();
                let (records, _) = core.ask(&id, Ask::TimeOut { fresh }, cx.now);
                self.log.extend(records.into_iter().map(Entry::Record));
            }
            for prepared in all {
                if self.tasks.values().all(|task| task.prepared.marker != prepared.marker) {
                    self.numbers += 1;
                    let task = Task {
                        missing: prepared.partitions.iter().map(Role::of).collect(),
                        prepared,
                        given_up: false,
                    };
                    self.tasks.insert(self.numbers, task);
                }
            }
        }
        let written: Vec<u64> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.missing.is_empty())
            .map(|(number, _)| *number)
            .collect();
        for number in written {
            if let Some(task) = self.tasks.remove(&number) {
                let (records, _) = core.ask("", Ask::Written(task.prepared), cx.now);
                self.log.extend(records.into_iter().map(Entry::Record));
            }
        }
        for (number, task) in self.tasks.iter().filter(|(_, task)| !task.given_up) {
            for role in &task.missing {
                send(To::Role(*role), Body::Mark(self.leader, *number, task.prepared.marker), cx);
            }
        }
    }

    /// Handles the answer to a marker, as `transaction_io::markers` does.
    fn marked(&mut self, number: u64, role: Role, code: ErrorCode, cx: &Around<'_>) {
        let Some(task) = self.tasks.get_mut(&number) else { return };
        match code {
            ErrorCode::None if cx.plan.has(Mutation::CompletesEarly) => task.missing.clear(),
            ErrorCode::None => drop(task.missing.remove(&role)),
            ErrorCode::InvalidProducerEpoch | ErrorCode::TransactionCoordinatorFenced => {
                task.given_up = true
            }
            _ => {}
        }
    }

    fn mark(&mut self, coordinator: Leader, task: u64, mut marker: Marker, cx: &mut Around<'_>) {
        let role = self.leader.0;
        let to = To::Leader(coordinator);
        if !self.loaded {
            return send(to, Body::Marked(task, role, ErrorCode::NotLeaderOrFollower), cx);
        }
        if role == Role::Offsets && cx.plan.has(Mutation::CommitsOffsetsAlways) {
            marker.commit = true;
        }
        let epoch = self.leader.1;
        let admitted = match &mut self.core {
            Core::Data(replica) if cx.plan.has(Mutation::TakesLateMarkers) => {
                replica.force(marker, epoch, cx.now);
                Ok(())
            }
            Core::Data(replica) => replica.end_transaction(marker, epoch, cx.now),
            Core::Offsets(core) => {
                core.end(marker, cx.now).map(|()| self.log.push(Entry::Marker(marker)))
            }
            Core::Coordinator(_) => Err(ErrorCode::UnknownTopicOrPartition),
        };
        match admitted {
            Ok(()) => self.owe(to, Body::Marked(task, role, ErrorCode::None), cx),
            Err(code) => send(to, Body::Marked(task, role, code), cx),
        }
    }

    /// A client writes in a transaction. The leader asks the transaction coordinator, unless the
    /// transaction is open here already.
    fn write(&mut self, write: Write, attempts: u32, cx: &mut Around<'_>) {
        if !self.loaded {
            return refuse(&write, ErrorCode::CoordinatorLoadInProgress, cx);
        }
        match self.ask_to_verify(&write, cx.now) {
            Err(code) => refuse(&write, code, cx),
            Ok(None) => self.verify_not(write, None, attempts, cx),
            Ok(guard) if cx.plan.has(Mutation::VerifiesNothing) => {
                self.verify_not(write, guard, attempts, cx)
            }
            Ok(Some(guard)) => {
                self.numbers += 1;
                self.questions.insert(self.numbers, Question { write, guard, attempts });
                let asker = Asker::Leader(self.leader, self.numbers);
                let ask = match write.version {
                    2.. => Ask::Add {
                        from: write.producer,
                        partitions: vec![self.leader.0.partition()],
                        version: write.version,
                    },
                    _ => Ask::Verify { from: write.producer, partition: self.leader.0.partition() },
                };
                send(To::Role(Role::Coordinator), Body::Ask(asker, write.from.chain, ask), cx);
            }
        }
    }

    fn ask_to_verify(&mut self, write: &Write, now: u64) -> Result<Option<Guard>, ErrorCode> {
        match (&mut self.core, write.what) {
            (Core::Data(replica), What::Record(_, sequence)) => {
                replica.ask_to_verify(write.producer, sequence, write.version >= 2, now)
            }
            (Core::Offsets(core), What::Offset(_)) => Ok(core.ask_to_verify(write.producer)),
            _ => Err(ErrorCode::UnknownTopicOrPartition),
        }
    }

    fn verified(&mut self, number: u64, code: ErrorCode, cx: &mut Around<'_>) {
        let Some(Question { write, guard, attempts }) = self.questions.remove(&number) else {
            return;
        };
        match code {
            ErrorCode::None => self.verify_not(write, Some(guard), attempts, cx),
            // The previous transaction is still ending. The leader retries, so that the client need
            // not.
            ErrorCode::ConcurrentTransactions if write.version >= 2 && attempts > 0 => {
                cx.sent.push((To::Leader(self.leader), Body::Write(write), RETRY_MS));
            }
            ErrorCode::ProducerFenced => refuse(&write, ErrorCode::InvalidProducerEpoch, cx),
            code => refuse(&write, code, cx),
        }
    }

    /// The transaction is open, or its coordinator has confirmed it.
    fn verify_not(
        &mut self,
        write: Write,
        mut guard: Option<Guard>,
        attempts: u32,
        cx: &mut Around<'_>,
    ) {
        let forgets = match self.leader.0 {
            Role::Offsets => cx.plan.has(Mutation::ForgetsOffsetGuards),
            _ => cx.plan.has(Mutation::ForgetsGuards),
        };
        if forgets && guard.is_some() {
            guard = self.ask_to_verify(&write, cx.now).unwrap_or(guard);
        }
        let asks_again = (write.version >= 2 || cx.plan.has(Mutation::AsksOfAnother))
            && !cx.plan.has(Mutation::AsksOnce);
        match self.append(&write, guard, cx) {
            Ok(()) => {
                let reply = Body::Reply(write.from, Reply::Code(ErrorCode::None));
                self.owe(To::Client(write.from), reply, cx);
            }
            // The end of a transaction arrived while the leader asked the coordinator. With
            // transactions v1 it was the end of this one.
            Err(ErrorCode::InvalidTxnState) if guard.is_some() && attempts > 0 && asks_again => {
                self.write(write, attempts - 1, cx)
            }
            Err(code) => refuse(&write, code, cx),
        }
    }

    fn append(
        &mut self,
        write: &Write,
        guard: Option<Guard>,
        cx: &mut Around<'_>,
    ) -> Result<(), ErrorCode> {
        let Write { producer, from, .. } = *write;
        match (&mut self.core, write.what) {
            (Core::Data(replica), What::Record(value, sequence)) => {
                let is_new = replica.write(
                    Entry::Data(producer, sequence, value),
                    guard,
                    self.leader.1,
                    cx.now,
                )?;
                if is_new && cx.leads {
                    cx.checks.writes(producer, "a record");
                }
            }
            (Core::Offsets(core), What::Offset(offset)) => {
                let records = core.commit(producer, guard, &id(from.chain), offset, cx.now)?;
                self.log.extend(records.into_iter().map(|record| Entry::Offset(producer, record)));
                if cx.leads {
                    cx.checks.writes(producer, "an offset");
                }
            }
            _ => return Err(ErrorCode::UnknownTopicOrPartition),
        }
        Ok(())
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
