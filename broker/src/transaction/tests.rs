//! A coordinator by example: requests, replies, and the state that another broker loads after a
//! failover.

use super::*;
use crate::coordinator::harness::Harness;

mod memory;
mod table;
mod used_up;

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
            partitions: vec![("t".into(), index)],
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
        self.look().prepared
    }

    fn look(&mut self) -> Looked {
        self.ask(|to| Request::Look { to }).expect()
    }

    fn written(&mut self, prepared: &Prepared, indexes: &[i32]) {
        let partitions = indexes.iter().map(|index| ("t".into(), *index)).collect();
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
    assert_eq!(
        (world.add(producer, 0), world.add(producer, 1)),
        (ErrorCode::None, ErrorCode::None)
    );
    assert_eq!(world.prepared(), []);
    let next = world.end(producer, true).unwrap();
    assert_eq!(next.epoch, ProducerEpoch(1));
    let prepared = world.prepared().remove(0);
    assert_eq!(
        (prepared.commit, prepared.version, prepared.producer.epoch),
        (true, 2, ProducerEpoch(1))
    );
    assert_eq!((prepared.partitions.len(), prepared.coordinator_epoch), (2, LeaderEpoch(0)));
    assert_eq!(world.add(next, 0), ErrorCode::ConcurrentTransactions);
    world.written(&prepared, &[0]);
    assert_eq!(world.state(), Some(State::PrepareCommit));

    // After a failover the decision stays. All markers are written again, under the new
    // coordinator's epoch.
    world.fail_over();
    let again = world.prepared().remove(0);
    assert_eq!(
        (again.commit, again.partitions.len(), again.coordinator_epoch),
        (true, 2, LeaderEpoch(1))
    );
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
fn a_transaction_that_takes_too_long_is_aborted_and_its_producer_goes_on() {
    let mut world = World::new();
    let producer = world.init(Some(7)).unwrap();
    world.pass(500_000);
    assert_eq!(world.add(producer, 0), ErrorCode::None);
    world.fail_over();
    world.pass(60_000);
    assert_eq!(world.state(), Some(State::Ongoing));
    world.pass(2);
    let prepared = world.prepared().remove(0);
    assert!(!prepared.commit && prepared.producer.epoch == ProducerEpoch(1));
    assert_eq!(world.end(producer, false), Err(ErrorCode::ConcurrentTransactions.into()));
    world.written(&prepared, &[0]);
    assert_eq!(world.state(), Some(State::CompleteAbort));
    assert_eq!(world.end(producer, true), Err(ErrorCode::InvalidTxnState.into()));
    assert_eq!(world.add(producer, 1), ErrorCode::ProducerFenced);
    let next = world.end(producer, false).unwrap();
    assert_eq!((next, world.add(next, 1)), (prepared.producer, ErrorCode::None));
    // The same when another producer begins with the id, two epochs later: the previous producer is
    // fenced.
    assert_eq!(world.init(None), Err(ErrorCode::ConcurrentTransactions.into()));
    let prepared = world.prepared().remove(0);
    assert!(!prepared.commit);
    world.written(&prepared, &[1]);
    let begun = world.init(None).unwrap();
    assert_eq!(begun.epoch, ProducerEpoch(3));
    assert_eq!(world.end(next, false), Err(ErrorCode::ProducerFenced.into()));
}

#[test]
fn what_is_not_used_is_forgotten() {
    let mut world = World::new();
    let producer = world.init(Some(7)).unwrap();
    // An abort without partitions needs no markers.
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

/// A deposed coordinator gives no answer that it cannot write: with transactions v1 a transaction
/// and the next one look the same.
#[test]
fn what_clients_of_version_1_are_told_is_written_down() {
    let mut world = World::new();
    let producer = world.init(Some(7)).unwrap();
    let partition: super::Partition = ("t".into(), 0);
    let mut writes = |ask: &dyn Fn(&mut World) -> ErrorCode| {
        let before = world.log.len();
        assert_eq!(ask(&mut world), ErrorCode::None);
        world.log.len() - before
    };
    let add = |version: i16| {
        let partitions = vec![partition.clone()];
        move |world: &mut World| {
            let partitions = partitions.clone();
            let make =
                |to| Request::Add { id: "x".to_owned(), from: producer, partitions, version, to };
            world.ask(make).expect()
        }
    };
    let verify = |world: &mut World| {
        let make = |to| Request::Verify {
            id: "x".to_owned(),
            from: producer,
            partitions: vec![partition.clone()],
            to,
        };
        world.ask(make).expect().unwrap()[0].1
    };
    let end = |world: &mut World| {
        let make = |to| Request::End {
            id: "x".to_owned(),
            from: producer,
            commit: true,
            version: 0,
            fresh: None,
            to,
        };
        world.ask(make).expect().map_or(ErrorCode::UnknownServerError, |_| ErrorCode::None)
    };
    assert_eq!([writes(&add(0)), writes(&add(0)), writes(&verify)], [1, 1, 1]);
    assert_eq!(writes(&add(2)), 0, "the epoch tells");
    assert_eq!(writes(&end), 1);
    let prepared = world.prepared().remove(0);
    world.written(&prepared, &[0]);
    let mut writes = |ask: &dyn Fn(&mut World) -> ErrorCode| {
        let before = world.log.len();
        assert_eq!(ask(&mut world), ErrorCode::None);
        world.log.len() - before
    };
    assert_eq!(writes(&end), 1, "asked again");
}

#[test]
fn what_operators_are_told() {
    let mut world = World::new();
    let began_ms = world.now_ms as i64;
    let mut producer = world.init(Some(7)).unwrap();
    let mut total = Tally::default();
    for commit in [true, true, false] {
        world.add(producer, 0);
        let looked = world.look();
        assert_eq!((looked.open, looked.oldest_ms), (1, Some(began_ms)));
        producer = world.end(producer, commit).unwrap();
        let mut looked = world.look();
        assert_eq!((looked.open, looked.oldest_ms), (0, None));
        total.committed += looked.tally.committed;
        total.aborted_by_client += looked.tally.aborted_by_client;
        world.written(&looked.prepared.remove(0), &[0]);
    }
    assert_eq!((total.committed, total.aborted_by_client), (2, 1));
    world.add(producer, 0);
    world.fail_over();
    assert_eq!(
        (world.look().open, world.look().tally),
        (1, Tally::default()),
        "it is open for whoever coordinates it"
    );
    assert_eq!(world.init(None), Err(ErrorCode::ConcurrentTransactions.into()));
    let looked = world.look();
    assert_eq!((looked.tally.aborted_by_fencing, looked.open), (1, 0));
    world.written(&looked.prepared[0], &[0]);
    let next = world.init(None).unwrap();
    assert_eq!(world.end(producer, true), Err(ErrorCode::ProducerFenced.into()));
    assert_eq!(world.look().tally.fenced, 1);
    world.add(next, 0);
    world.pass(61_000);
    assert_eq!(world.look().tally.aborted_by_timeout, 1);
}
