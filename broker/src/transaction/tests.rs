//! A coordinator by example: what is asked, what is answered, and what another broker knows that takes over.

use futures::FutureExt;

use super::*;

struct World {
    machine: Transactions,
    log: Vec<crate::coordinator::Record>,
    now_ms: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            machine: Transactions::new(origin(5)),
            log: Vec::new(),
            now_ms: 1_000,
        };
        world.metadata();
        world
    }

    fn metadata(&mut self) {
        let mut image = MetadataImage::default();
        image.features.insert("transaction.version".to_owned(), 2);
        let image = Arc::new(image);
        self.run(|machine, now, outcome| machine.metadata(&image, &Layers::default(), now, outcome));
    }

    fn run(&mut self, act: impl FnOnce(&mut Transactions, Now, &mut Outcome)) {
        let now = Now {
            ms: self.now_ms,
            wall_ms: 1_000_000 + self.now_ms as i64,
        };
        let mut outcome = Outcome::default();
        act(&mut self.machine, now, &mut outcome);
        self.log.extend(outcome.records);
        for reply in outcome.replies {
            reply.send(None);
        }
    }

    fn ask<T: Send + 'static>(&mut self, make: impl FnOnce(ReplyTo<T>) -> Request) -> T {
        let (to, answer) = ReplyTo::new();
        let request = make(to);
        self.run(|machine, now, outcome| machine.decide(request, now, outcome));
        answer.now_or_never().unwrap().unwrap().0
    }

    fn init(&mut self, fresh: Option<i64>) -> Result<Producer, Refusal> {
        self.ask(|to| Request::Init {
            id: "x".to_owned(),
            timeout_ms: 60_000,
            expected: None,
            fresh: fresh.map(ProducerId),
            to,
        })
    }

    fn add(&mut self, from: Producer, index: i32) -> ErrorCode {
        self.ask(|to| Request::Add {
            id: "x".to_owned(),
            from,
            partitions: vec![("t".to_owned(), index)],
            version: 2,
            to,
        })
    }

    fn end(&mut self, from: Producer, commit: bool) -> Result<Producer, Refusal> {
        self.ask(|to| Request::End {
            id: "x".to_owned(),
            from,
            commit,
            version: 2,
            fresh: None,
            to,
        })
    }

    fn prepared(&mut self) -> Vec<Prepared> {
        self.ask(|to| Request::Prepared { to })
    }

    fn written(&mut self, prepared: &Prepared, indexes: &[i32]) {
        let partitions = indexes.iter().map(|index| ("t".to_owned(), *index)).collect();
        self.ask(|to| Request::Written {
            id: prepared.id.clone(),
            producer: prepared.producer,
            partitions,
            to,
        });
    }

    fn state(&mut self) -> Option<State> {
        let described = self.ask(|to| Request::Describe { id: "x".to_owned(), to });
        described.map(|described| described.state)
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some(at) = self.machine.next_wake().filter(|at| *at <= end) {
            self.now_ms = at.max(self.now_ms);
            self.run(|machine, now, outcome| machine.wake(now, outcome));
        }
        self.now_ms = end;
    }

    fn fail_over(&mut self) {
        let mut next = Transactions::new(origin(6));
        for record in &self.log {
            let logged = Logged {
                key: &record.key,
                value: record.value.as_deref(),
                transaction: None,
            };
            next.replay(&logged).unwrap();
        }
        self.machine = next;
        self.metadata();
    }
}

fn origin(epoch: i32) -> Origin {
    Origin {
        partition: 0,
        epoch: LeaderEpoch(epoch),
        seed: 1,
    }
}

#[test]
fn a_transaction_is_over_when_all_markers_are_written() {
    let mut world = World::new();
    assert_eq!(world.init(None), Err(Refusal::NeedsProducerId));
    let producer = world.init(Some(7)).unwrap();
    assert_eq!(producer.epoch, ProducerEpoch(0));
    assert_eq!((world.add(producer, 0), world.add(producer, 1)), (ErrorCode::None, ErrorCode::None));
    assert_eq!(world.prepared(), []);
    let next = world.end(producer, true).unwrap();
    assert_eq!(next.epoch, ProducerEpoch(1));
    let prepared = world.prepared().remove(0);
    assert_eq!((prepared.commit, prepared.version, prepared.producer.epoch), (true, 2, ProducerEpoch(1)));
    assert_eq!((prepared.partitions.len(), prepared.coordinator_epoch), (2, LeaderEpoch(5)));
    assert_eq!(world.add(next, 0), ErrorCode::ConcurrentTransactions);
    world.written(&prepared, &[0]);
    assert_eq!(world.state(), Some(State::PrepareCommit));

    // Another broker takes over: what is decided stays decided, and all markers are written again, under its epoch.
    world.fail_over();
    let again = world.prepared().remove(0);
    assert_eq!((again.commit, again.partitions.len(), again.coordinator_epoch), (true, 2, LeaderEpoch(6)));
    world.written(&again, &[0, 1]);
    assert_eq!((world.state(), world.prepared().len()), (Some(State::CompleteCommit), 0));
    world.written(&again, &[0, 1]);
    assert_eq!(world.state(), Some(State::CompleteCommit), "told twice");
    assert_eq!(world.end(producer, true), Ok(next), "the answer was lost");
    assert_eq!(world.add(next, 3), ErrorCode::None);
    world.written(&again, &[3]);
    assert_eq!(world.state(), Some(State::Ongoing), "what comes late ends nothing");
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced() {
    let mut world = World::new();
    let producer = world.init(Some(7)).unwrap();
    world.pass(500_000);
    assert_eq!(world.add(producer, 0), ErrorCode::None);
    world.fail_over();
    world.pass(60_000);
    assert_eq!(world.state(), Some(State::Ongoing));
    world.pass(2);
    let prepared = world.prepared().remove(0);
    assert!(!prepared.commit && prepared.producer.epoch == ProducerEpoch(2));
    assert_eq!(world.end(producer, true), Err(ErrorCode::ProducerFenced.into()));
    assert_eq!(world.add(producer, 1), ErrorCode::ProducerFenced);
    world.written(&prepared, &[0]);
    assert_eq!(world.state(), Some(State::CompleteAbort));
    // The same by whoever begins under the id.
    let producer = world.init(None).unwrap();
    world.add(producer, 0);
    assert_eq!(world.init(None), Err(ErrorCode::ConcurrentTransactions.into()));
    assert!(!world.prepared().remove(0).commit);
}

#[test]
fn what_is_not_used_is_forgotten() {
    let mut world = World::new();
    let producer = world.init(Some(7)).unwrap();
    // An abort of nothing needs no markers.
    assert_eq!(world.end(producer, false).unwrap().epoch, ProducerEpoch(1));
    assert_eq!((world.state(), world.prepared().len()), (Some(State::CompleteAbort), 0));
    let week = 604_800_000;
    world.pass(week - 10);
    assert!(world.state().is_some());
    world.pass(20);
    assert_eq!(world.state(), None);
    world.fail_over();
    assert_eq!(world.state(), None);
    assert_eq!(world.add(producer, 0), ErrorCode::InvalidProducerIdMapping);
}

#[test]
fn timeouts_have_bounds() {
    let mut world = World::new();
    for timeout_ms in [0, -1, 900_001] {
        let refused = world.ask(|to| Request::Init {
            id: "x".to_owned(),
            timeout_ms,
            expected: None,
            fresh: Some(ProducerId(1)),
            to,
        });
        assert_eq!(refused, Err(ErrorCode::InvalidTransactionTimeout.into()));
    }
}
