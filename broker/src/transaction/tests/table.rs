//! The answers of Apache Kafka 4.3.1 to every request, in every state and from every epoch, and the
//! states that follow. They come from its source: `prepareInitProducerIdTransit`,
//! `handleAddPartitionsToTransaction`, `handleVerifyPartitionsInTransaction`,
//! `endTransactionWithTV1`, `endTransaction` and `abortTimedOutTransactions` of
//! `TransactionCoordinator`, with the steps of `TransactionMetadata`.
//!
//! A cell is the answer: an error, `ok`, `+1` for the next epoch of the id, `new` for epoch 0 of
//! another id. If the state changes, the cell also has the states that follow: at once, and when
//! all markers are written. Columns are the epochs of the request: the one before the last, the
//! last, the current and the next one, and the current one of another id.

use super::*;
use crate::transaction::state::NO_EPOCH;

pub(super) const ID: i64 = 7;
pub(super) const FRESH: i64 = 8;
const OTHER: i64 = 9;

/// Requests with the same answers to clients of both versions.
const ADD: &str = "
    Empty          | add          | fenced | fenced | ok Ongoing+0 | fenced | mapping
    Empty          | verify       | fenced | fenced | abortable    | fenced | mapping
    Bumped         | add          | fenced | fenced | ok Ongoing+0 | fenced | mapping
    Bumped         | verify       | fenced | fenced | abortable    | fenced | mapping
    Ongoing        | add          | fenced | fenced | ok Ongoing+0 | fenced | mapping
    Ongoing        | add known    | fenced | fenced | ok           | fenced | mapping
    Ongoing        | verify       | fenced | fenced | abortable    | fenced | mapping
    Ongoing        | verify known | fenced | fenced | ok           | fenced | mapping
    PrepareCommit  | add          | concurrent | concurrent | concurrent | concurrent | concurrent
    PrepareCommit  | add known    | concurrent | concurrent | concurrent | concurrent | concurrent
    PrepareCommit  | verify known | fenced | fenced | concurrent | fenced | mapping
    PrepareAbort   | add          | concurrent | concurrent | concurrent | concurrent | concurrent
    PrepareAbort   | add known    | concurrent | concurrent | concurrent | concurrent | concurrent
    PrepareAbort   | verify known | fenced | fenced | concurrent | fenced | mapping
    CompleteCommit | add          | fenced | fenced | ok Ongoing+0 | fenced | mapping
    CompleteCommit | verify       | fenced | fenced | abortable    | fenced | mapping
    CompleteAbort  | add          | fenced | fenced | ok Ongoing+0 | fenced | mapping
    CompleteAbort  | verify       | fenced | fenced | abortable    | fenced | mapping
";

/// InitProducerId of a producer that goes on after an error (KIP-360: `init`), InitProducerId of a
/// new producer (`begin`), and a timeout. An open transaction is aborted whatever the epoch is.
const INIT: &str = "
    Empty          | init     | fenced | fenced | +1 Empty+1 | fenced | fenced
    Empty          | begin    |        |        | +1 Empty+1 |        |
    Empty          | time out |        |        | nobody     |        |
    Bumped         | init     | fenced | +0     | +1 Empty+1 | fenced | fenced
    Bumped         | begin    |        |        | +1 Empty+1 |        |
    Bumped         | time out |        |        | nobody     |        |
    Ongoing        | init     | concurrent PrepareAbort+1 CompleteAbort+1 | concurrent PrepareAbort+1 CompleteAbort+1 | concurrent PrepareAbort+1 CompleteAbort+1 | concurrent PrepareAbort+1 CompleteAbort+1 | fenced
    Ongoing        | begin    |        |        | concurrent PrepareAbort+1 CompleteAbort+1 |  |
    Ongoing        | time out |        |        | nobody PrepareAbort+1 CompleteAbort+1     |  |
    PrepareCommit  | init         | concurrent | concurrent | concurrent | concurrent | concurrent
    PrepareCommit  | begin        |  |  | concurrent |  | 
    PrepareCommit  | time out     |  |  | nobody |  | 
    PrepareAbort   | init         | concurrent | concurrent | concurrent | concurrent | concurrent
    PrepareAbort   | begin        |  |  | concurrent |  | 
    PrepareAbort   | time out     |  |  | nobody |  | 
    CompleteCommit | init     | fenced | +0 Empty+0 | +1 Empty+1 | fenced | fenced
    CompleteCommit | begin    |        |            | +1 Empty+1 |        |
    CompleteCommit | time out |        |            | nobody     |        |
    CompleteAbort  | init     | fenced | +0 Empty+0 | +1 Empty+1 | fenced | fenced
    CompleteAbort  | begin    |        |            | +1 Empty+1 |        |
    CompleteAbort  | time out |        |            | nobody     |        |
";

/// EndTxn of clients of transactions v2: a repeated request has the previous epoch.
const END_V2: &str = "
    Empty          | abort  | fenced | fenced     | +1 CompleteAbort+1                  | fenced | mapping
    Empty          | commit | fenced | fenced     | state                               | fenced | mapping
    Bumped         | abort  | fenced | fenced     | +1 CompleteAbort+1                  | fenced | mapping
    Bumped         | commit | fenced | fenced     | state                               | fenced | mapping
    Ongoing        | abort  | fenced | fenced     | +1 PrepareAbort+1 CompleteAbort+1   | fenced | mapping
    Ongoing        | commit | fenced | fenced     | +1 PrepareCommit+1 CompleteCommit+1 | fenced | mapping
    PrepareCommit  | abort        | concurrent | concurrent | concurrent | concurrent | concurrent
    PrepareCommit  | commit       | concurrent | concurrent | concurrent | concurrent | concurrent
    PrepareAbort   | abort        | concurrent | concurrent | concurrent | concurrent | concurrent
    PrepareAbort   | commit       | concurrent | concurrent | concurrent | concurrent | concurrent
    CompleteCommit | abort  | fenced | state      | +1 CompleteAbort+1                  | fenced | mapping
    CompleteCommit | commit | fenced | +0         | state                               | fenced | mapping
    CompleteAbort  | abort  | fenced | +0         | +1 CompleteAbort+1                  | fenced | mapping
    CompleteAbort  | commit | fenced | state      | state                               | fenced | mapping
";

/// EndTxn of clients of transactions v1: only the current epoch is accepted.
const END_V1: &str = "
    Empty          | abort  | fenced | fenced | state                               | fenced | mapping
    Empty          | commit | fenced | fenced | state                               | fenced | mapping
    Bumped         | abort  | fenced | fenced | state                               | fenced | mapping
    Bumped         | commit | fenced | fenced | state                               | fenced | mapping
    Ongoing        | abort  | fenced | fenced | ok PrepareAbort+0 CompleteAbort+0   | fenced | mapping
    Ongoing        | commit | fenced | fenced | ok PrepareCommit+0 CompleteCommit+0 | fenced | mapping
    PrepareCommit  | abort        | fenced | fenced | concurrent | fenced | mapping
    PrepareCommit  | commit       | fenced | fenced | concurrent | fenced | mapping
    PrepareAbort   | abort        | fenced | fenced | concurrent | fenced | mapping
    PrepareAbort   | commit       | fenced | fenced | concurrent | fenced | mapping
    CompleteCommit | abort  | fenced | fenced | state                               | fenced | mapping
    CompleteCommit | commit | fenced | fenced | ok                                  | fenced | mapping
    CompleteAbort  | abort  | fenced | fenced | ok                                  | fenced | mapping
    CompleteAbort  | commit | fenced | fenced | state                               | fenced | mapping
";

/// The circumstances of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    /// The cluster's transaction version, and the client's.
    pub(super) cluster: u32,
    pub(super) client: i16,
    pub(super) epoch: i16,
    /// Another broker has loaded the state, which lacks the last epoch.
    pub(super) loaded: bool,
}

impl Setting {
    /// The transactional id in the state of a row.
    pub(super) fn transaction(self, name: &str) -> Transaction {
        let mut transaction = Transaction::new(ProducerId(ID), 60_000, 1_000_000);
        let state =
            State::ALL.into_iter().find(|state| state.name() == name).unwrap_or(State::Empty);
        let has_partitions =
            matches!(state, State::Ongoing | State::PrepareCommit | State::PrepareAbort);
        // With transactions v2 every end records the previous epoch. Before v2 only InitProducerId
        // after an error does.
        let knows_last = name == "Bumped" || (name != "Empty" && self.cluster >= 2);
        let last_epoch = if knows_last { ProducerEpoch(self.epoch - 1) } else { NO_EPOCH };
        transaction.producer.epoch = ProducerEpoch(self.epoch);
        transaction.previous_id = ProducerId(ID);
        (transaction.last_epoch, transaction.state, transaction.client_version) =
            (last_epoch, state, self.client);
        if has_partitions {
            transaction.partitions = [("t".into(), 0)].into();
        }
        transaction.start_ms = if state == State::Empty { -1 } else { 1_000_000 };
        transaction
    }

    pub(super) fn world(self, state: &str) -> World {
        let mut world = World::of(self.cluster);
        let transaction = self.transaction(state);
        world.run(|machine, now, outcome| machine.put("x", transaction, now, outcome));
        if self.loaded {
            world.fail_over();
        }
        world
    }

    /// The result of a request, in the notation of the table.
    fn cell(self, state: &str, request: &str, from: Producer) -> String {
        let mut world = self.world(state);
        let before = world.machine.ids["x"].clone();
        let mut cell = match request {
            "init" => self.told(&world.init_from(Some(from))),
            "begin" => self.told(&world.init_from(None)),
            "abort" | "commit" => match world.end_from(from, request == "commit", self.client) {
                Ok(_) if self.client < 2 => "ok".to_owned(),
                result => self.told(&result),
            },
            "add" => name(world.add_to(from, 1, self.client)).to_owned(),
            "add known" => name(world.add_to(from, 0, self.client)).to_owned(),
            "verify" => name(world.verify(from, 1)).to_owned(),
            "verify known" => name(world.verify(from, 0)).to_owned(),
            "time out" => {
                world.time_out();
                "nobody".to_owned()
            }
            other => panic!("{other}"),
        };
        let look = |world: &World| {
            let now = &world.machine.ids["x"];
            (now.state, now.producer, now.partitions.clone())
        };
        if look(&world) != (before.state, before.producer, before.partitions) {
            let (now, producer, _) = look(&world);
            cell += &format!(" {}{}", now.name(), self.epoch_of(producer, "@new"));
            for prepared in world.prepared() {
                world.written(&prepared, &[0]);
                let (now, producer, _) = look(&world);
                cell += &format!(" {}{}", now.name(), self.epoch_of(producer, "@new"));
            }
        }
        cell
    }

    fn told(self, result: &Result<Producer, Refusal>) -> String {
        match result {
            Ok(producer) => self.epoch_of(*producer, "new"),
            Err(Refusal::Error(code)) => name(*code).to_owned(),
            Err(Refusal::NeedsProducerId) => "needs".to_owned(),
        }
    }

    fn epoch_of(self, producer: Producer, new: &str) -> String {
        match (producer.id.0, producer.epoch.0) {
            (ID, epoch) => format!("{:+}", i32::from(epoch) - i32::from(self.epoch)),
            (FRESH, 0) => new.to_owned(),
            _ => format!("{producer:?}"),
        }
    }

    /// Compares every cell of a table.
    pub(super) fn check(self, table: &str) {
        for row in table.lines().map(str::trim).filter(|row| !row.is_empty()) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let (state, request) = (cells[0], cells[1]);
            assert_eq!(cells.len(), 7, "{row}");
            let epochs = [(ID, -2), (ID, -1), (ID, 0), (ID, 1), (OTHER, 0)];
            for ((id, difference), expected) in
                epochs.into_iter().zip(&cells[2..]).filter(|(_, cell)| !cell.is_empty())
            {
                let Some(epoch) = self.epoch.checked_add(difference) else { continue };
                let from = Producer { id: ProducerId(id), epoch: ProducerEpoch(epoch) };
                // The last epoch is unknown after a failover, and before transactions v2. A retry
                // is then fenced, as in Kafka.
                let knows_last = !self.loaded && (self.cluster >= 2 || state == "Bumped");
                let is_again = request == "init" && expected.starts_with("+0");
                let expected = if is_again && !knows_last { "fenced" } else { expected };
                assert_eq!(
                    self.cell(state, request, from),
                    expected,
                    "{request} in {state} from {difference:+} of {id}: {self:?}"
                );
            }
        }
    }
}

impl World {
    fn of(version: u32) -> Self {
        let mut image = MetadataImage::default();
        image.features.insert("transaction.version".to_owned(), version);
        Self::begin(Default::default(), image)
    }

    /// Like the shell: repeats the request with a producer id if it needs one.
    pub(super) fn init_from(&mut self, expected: Option<Producer>) -> Result<Producer, Refusal> {
        let mut ask = |fresh: Option<ProducerId>| {
            let make =
                |to| Request::Init { id: "x".to_owned(), timeout_ms: 60_000, expected, fresh, to };
            self.ask(make).expect()
        };
        match ask(None) {
            Err(Refusal::NeedsProducerId) => ask(Some(ProducerId(FRESH))),
            result => result,
        }
    }

    pub(super) fn end_from(
        &mut self,
        from: Producer,
        commit: bool,
        version: i16,
    ) -> Result<Producer, Refusal> {
        let mut ask = |fresh: Option<ProducerId>| {
            let make = |to| Request::End { id: "x".to_owned(), from, commit, version, fresh, to };
            self.ask(make).expect()
        };
        match ask(None) {
            Err(Refusal::NeedsProducerId) => ask(Some(ProducerId(FRESH))),
            result => result,
        }
    }

    pub(super) fn add_to(&mut self, from: Producer, index: i32, version: i16) -> ErrorCode {
        let make = |to| Request::Add {
            id: "x".to_owned(),
            from,
            partitions: vec![("t".into(), index)],
            version,
            to,
        };
        self.ask(make).expect()
    }

    fn verify(&mut self, from: Producer, index: i32) -> ErrorCode {
        let make = |to| Request::Verify {
            id: "x".to_owned(),
            from,
            partitions: vec![("t".into(), index)],
            to,
        };
        match self.ask(make).expect() {
            Ok(said) => said[0].1,
            Err(code) => code,
        }
    }

    /// Times the transaction out, and supplies a producer id if it needs one.
    pub(super) fn time_out(&mut self) {
        self.pass(60_002);
        for id in self.look().exhausted {
            self.ask(|to| Request::TimeOut { id, fresh: ProducerId(FRESH), to }).expect();
        }
    }
}

pub(super) fn name(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::None => "ok",
        ErrorCode::ProducerFenced => "fenced",
        ErrorCode::InvalidProducerIdMapping => "mapping",
        ErrorCode::ConcurrentTransactions => "concurrent",
        ErrorCode::InvalidTxnState => "state",
        ErrorCode::TransactionAbortable => "abortable",
        ErrorCode::UnknownServerError => "unknown",
        other => other.name(),
    }
}

#[test]
fn every_request_in_every_state_from_every_epoch_is_answered_as_by_kafka() {
    for (cluster, client) in [(2, 2), (2, 0), (1, 0), (0, 0)] {
        for loaded in [false, true] {
            let setting = Setting { cluster, client, epoch: 5, loaded };
            setting.check(ADD);
            setting.check(INIT);
            setting.check(if client >= 2 { END_V2 } else { END_V1 });
        }
    }
}

/// With transactions v2 the log does not tell if the producer, a timeout or another producer
/// aborted a transaction. So the producer always goes on.
#[test]
fn an_abort_by_time_or_by_another_is_the_abort_of_the_producer() {
    for epoch in [0, 5, i16::MAX - 2, i16::MAX - 1] {
        let setting = Setting { cluster: 2, client: 2, epoch, loaded: false };
        let from = setting.transaction("Ongoing").producer;
        let ways: [&dyn Fn(&mut World); 4] = [
            &|world| assert!(world.end_from(from, false, 2).is_ok()),
            &|world| world.time_out(),
            &|world| assert!(world.init_from(None).is_err()),
            &|world| assert!(world.init_from(Some(from)).is_err()),
        ];
        let ended = ways.map(|end| {
            let mut world = setting.world("Ongoing");
            end(&mut world);
            let prepared = world.prepared();
            for prepared in &prepared {
                world.written(prepared, &[0]);
            }
            let mut ended = world.machine.ids["x"].clone();
            ended.update_ms = 0;
            // The producer sends its abort, for the first time or again, and goes on under the id
            // and epoch in the answer.
            let told = world.end_from(from, false, 2).unwrap();
            assert_eq!((told, world.add_to(told, 0, 2)), (ended.producer, ErrorCode::None));
            (prepared, ended)
        });
        for way in &ended {
            assert_eq!(way, &ended[0]);
        }
    }
}
