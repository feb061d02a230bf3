//! A coordinator by example: what is asked, what is answered, and what another broker knows that takes over.

use super::*;
use crate::coordinator::harness::Harness;

type World = Harness<Transactions>;

impl World {
    fn new() -> Self {
        let mut image = MetadataImage::default();
        image.features.insert("transaction.version".to_owned(), 2);
        Self::begin(Default::default(), image)
    }

    fn init(&mut self, fresh: Option<i64>) -> Result<Producer, Refusal> {
        self.ask(|to| Request::Init {
            id: "x".to_owned(),
            timeout_ms: 60_000,
            expected: None,
            fresh: fresh.map(ProducerId),
            to,
        })
        .expect()
    }

    fn add(&mut self, from: Producer, index: i32) -> ErrorCode {
        self.ask(|to| Request::Add {
            id: "x".to_owned(),
            from,
            partitions: vec![("t".to_owned(), index)],
            version: 2,
            to,
        })
        .expect()
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
        .expect()
    }

    fn prepared(&mut self) -> Vec<Prepared> {
        self.ask(|to| Request::Prepared { to }).expect()
    }

    fn written(&mut self, prepared: &Prepared, indexes: &[i32]) {
        let partitions = indexes.iter().map(|index| ("t".to_owned(), *index)).collect();
        self.ask(|to| Request::Written {
            id: prepared.id.clone(),
            producer: prepared.producer,
            partitions,
            to,
        })
        .expect();
    }

    fn state(&mut self) -> Option<State> {
        let described = self.ask(|to| Request::Describe { id: "x".to_owned(), to }).expect();
        described.map(|described| described.state)
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
    assert_eq!((prepared.partitions.len(), prepared.coordinator_epoch), (2, LeaderEpoch(0)));
    assert_eq!(world.add(next, 0), ErrorCode::ConcurrentTransactions);
    world.written(&prepared, &[0]);
    assert_eq!(world.state(), Some(State::PrepareCommit));

    // Another broker takes over: what is decided stays decided, and all markers are written again, under its epoch.
    world.fail_over();
    let again = world.prepared().remove(0);
    assert_eq!((again.commit, again.partitions.len(), again.coordinator_epoch), (true, 2, LeaderEpoch(1)));
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
        assert_eq!(refused.expect(), Err(ErrorCode::InvalidTransactionTimeout.into()));
    }
}
