use super::*;

const T0: i64 = 1_000;

fn producer(id: i64, epoch: i16) -> Producer {
    Producer { id: ProducerId(id), epoch: ProducerEpoch(epoch) }
}

fn partition(index: i32) -> Partition {
    ("t".into(), index)
}

fn ready(init: Result<Init, Refusal>) -> Transaction {
    match init {
        Ok(Init::Ready(transaction)) => transaction,
        other => panic!("{other:?}"),
    }
}

fn begun() -> Transaction {
    ready(Transaction::new(ProducerId(7), 60_000, T0).init(None, None, 60_000, 2, T0))
}

fn ongoing() -> Transaction {
    let begun = begun();
    begun.add(begun.producer, &[partition(0)], 2, T0 + 5).unwrap().unwrap()
}

fn next(end: Result<End, impl std::fmt::Debug>) -> Transaction {
    match end {
        Ok(End::Next(next)) => next,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_transaction_of_version_2_raises_the_epoch() {
    let begun = begun();
    assert_eq!((begun.producer, begun.state, begun.start_ms), (producer(7, 0), State::Empty, -1));
    let ongoing = ongoing();
    assert_eq!((ongoing.state, ongoing.start_ms), (State::Ongoing, T0 + 5));
    assert_eq!(
        ongoing.add(producer(7, 0), &[partition(0)], 2, T0 + 6),
        Ok(None),
        "it is part of it already"
    );
    let more = ongoing.add(producer(7, 0), &[partition(1)], 2, T0 + 6).unwrap().unwrap();
    assert_eq!((more.partitions.len(), more.start_ms), (2, T0 + 5));
    let prepared = next(more.end_v2(producer(7, 0), true, None, T0 + 9));
    assert_eq!((prepared.producer, prepared.state), (producer(7, 1), State::PrepareCommit));
    assert_eq!(
        prepared.add(producer(7, 1), &[partition(2)], 2, T0 + 9),
        Err(ErrorCode::ConcurrentTransactions)
    );
    let complete = prepared.completed(T0 + 10);
    assert_eq!(
        (complete.producer, complete.state, complete.partitions.len()),
        (producer(7, 1), State::CompleteCommit, 0)
    );
    let again = complete.add(producer(7, 1), &[partition(0)], 2, T0 + 20).unwrap().unwrap();
    assert_eq!((again.state, again.start_ms), (State::Ongoing, T0 + 20));
    // A late request of the previous transaction ends nothing.
    assert_eq!(
        again.end_v2(producer(7, 0), true, None, T0 + 21),
        Err(ErrorCode::ProducerFenced.into())
    );
}

#[test]
fn what_ends_a_transaction_again() {
    use ErrorCode::{
        ConcurrentTransactions, InvalidProducerIdMapping, InvalidTxnState, ProducerFenced,
    };
    let prepared = |commit| next(ongoing().end_v2(producer(7, 0), commit, None, T0));
    let complete = |commit| prepared(commit).completed(T0);
    let error = |code: ErrorCode| Err(Refusal::Error(code));
    for (state, from, commit, expected, why) in [
        (
            prepared(true),
            producer(7, 0),
            true,
            error(ConcurrentTransactions),
            "markers are being written",
        ),
        (
            prepared(true),
            producer(7, 1),
            false,
            error(ConcurrentTransactions),
            "the new epoch has nothing to end yet",
        ),
        (complete(true), producer(7, 0), true, Ok(End::Done), "the answer was lost"),
        (complete(true), producer(7, 0), false, error(InvalidTxnState), "abort after commit"),
        (complete(true), producer(7, 1), true, error(InvalidTxnState), "nothing to commit"),
        (complete(false), producer(7, 0), false, Ok(End::Done), "the answer was lost"),
        (complete(false), producer(7, 0), true, error(InvalidTxnState), "commit after abort"),
        (begun(), producer(7, 0), true, error(InvalidTxnState), "nothing to commit"),
        (ongoing(), producer(7, 1), true, error(ProducerFenced), "an epoch that is not there yet"),
        (ongoing(), producer(8, 0), true, error(InvalidProducerIdMapping), "another producer"),
    ] {
        assert_eq!(state.end_v2(from, commit, None, T0), expected, "{why}");
    }
    // An abort without a transaction raises the epoch.
    for state in [begun(), complete(true), complete(false)] {
        let aborted = next(state.end_v2(state.producer, false, None, T0 + 30));
        assert_eq!((aborted.state, aborted.start_ms), (State::PrepareAbort, T0 + 30));
        assert_eq!(aborted.producer.epoch, raised(state.producer.epoch));
    }
}

#[test]
fn a_transaction_of_version_1_keeps_the_epoch() {
    use ErrorCode::{ConcurrentTransactions, InvalidTxnState, ProducerFenced};
    let begun = begun();
    let ongoing = begun.add(begun.producer, &[partition(0)], 0, T0).unwrap().unwrap();
    let prepared = next(ongoing.end_v1(producer(7, 0), false, T0));
    assert_eq!((prepared.producer, prepared.state), (producer(7, 0), State::PrepareAbort));
    let complete = prepared.completed(T0);
    assert_eq!(complete.producer, producer(7, 0));
    for (state, from, commit, expected) in [
        (&prepared, producer(7, 0), false, Err(ConcurrentTransactions)),
        (&prepared, producer(7, 0), true, Err(ConcurrentTransactions)),
        (&complete, producer(7, 0), false, Ok(End::Done)),
        (&complete, producer(7, 0), true, Err(InvalidTxnState)),
        (&begun, producer(7, 0), false, Err(InvalidTxnState)),
        (&ongoing, producer(7, 1), true, Err(ProducerFenced)),
    ] {
        assert_eq!(state.end_v1(from, commit, T0), expected);
    }
}

#[test]
fn who_begins_again_fences_who_was_before() {
    // An open transaction is aborted as if by its producer. Before transactions v2 the abort has an
    // epoch that no producer has.
    let Ok(Init::Fenced(fenced)) = ongoing().init(None, None, 60_000, 2, T0) else { panic!() };
    assert_eq!((fenced.state, fenced.producer.epoch), (State::PrepareAbort, ProducerEpoch(1)));
    assert_eq!(fenced.last_epoch, ProducerEpoch(0));
    let Ok(Init::Fenced(fenced_v1)) = ongoing().init(None, None, 60_000, 0, T0) else { panic!() };
    assert_eq!((fenced_v1.producer.epoch, fenced_v1.last_epoch), (ProducerEpoch(1), NO_EPOCH));
    let waits = fenced.init(None, None, 60_000, 2, T0);
    assert_eq!(waits, Err(ErrorCode::ConcurrentTransactions.into()));
    let begun = ready(fenced.completed(T0).init(None, None, 60_000, 2, T0));
    assert_eq!((begun.producer, begun.last_epoch), (producer(7, 2), NO_EPOCH));
    assert_eq!(
        begun.add(producer(7, 0), &[partition(0)], 2, T0),
        Err(ErrorCode::ProducerFenced),
        "a zombie"
    );

    // A producer that goes on after an error, and sends InitProducerId twice.
    let on = ready(begun.init(Some(producer(7, 2)), None, 60_000, 2, T0));
    assert_eq!((on.producer, on.last_epoch), (producer(7, 3), ProducerEpoch(2)));
    let twice = ready(on.init(Some(producer(7, 2)), None, 60_000, 2, T0));
    assert_eq!((twice.producer, twice.last_epoch), (producer(7, 3), ProducerEpoch(2)));
    for other in [producer(7, 1), producer(7, 4), producer(9, 3)] {
        assert_eq!(
            on.init(Some(other), None, 60_000, 2, T0),
            Err(ErrorCode::ProducerFenced.into())
        );
    }
}

#[test]
fn an_id_whose_epochs_are_used_up_makes_room_for_another() {
    let mut last = ongoing();
    last.producer.epoch = ProducerEpoch(EPOCH_MAX - 1);
    let from = last.producer;
    assert_eq!(last.end_v2(from, true, None, T0), Err(Refusal::NeedsProducerId));
    let prepared = next(last.end_v2(from, true, Some(ProducerId(8)), T0));
    assert_eq!(prepared.producer, producer(7, EPOCH_MAX), "the markers' epoch");
    let complete = prepared.completed(T0);
    assert_eq!((complete.producer, complete.previous_id), (producer(8, 0), ProducerId(7)));
    assert_eq!(
        complete.end_v2(from, true, None, T0),
        Ok(End::Done),
        "asked again under the old id"
    );
    let asked_again = ready(complete.init(Some(from), None, 60_000, 2, T0));
    assert_eq!(asked_again.producer.id, ProducerId(8));

    let mut idle = begun();
    idle.producer.epoch = ProducerEpoch(EPOCH_MAX - 1);
    assert_eq!(idle.init(None, None, 60_000, 2, T0), Err(Refusal::NeedsProducerId));
    assert_eq!(ready(idle.init(None, Some(ProducerId(9)), 60_000, 2, T0)).producer, producer(9, 0));
    // A transaction that is aborted at the last epoch.
    let mut open = ongoing();
    open.producer.epoch = ProducerEpoch(EPOCH_MAX - 1);
    assert_eq!(open.fenced(2, None, T0), Err(Refusal::NeedsProducerId));
    let fenced = open.fenced(2, Some(ProducerId(8)), T0).unwrap();
    assert_eq!(
        (fenced.producer, fenced.completed(T0).producer),
        (producer(7, EPOCH_MAX), producer(8, 0))
    );
}

#[test]
fn what_is_verified_and_what_is_due() {
    let ongoing = ongoing();
    let asked = [partition(0), partition(1)];
    let verified = ongoing.verify(producer(7, 0), &asked).unwrap();
    assert_eq!(
        verified,
        [(&asked[0], ErrorCode::None), (&asked[1], ErrorCode::TransactionAbortable)]
    );
    assert_eq!(ongoing.verify(producer(7, 1), &asked), Err(ErrorCode::ProducerFenced));
    assert_eq!(ongoing.verify(producer(3, 0), &asked), Err(ErrorCode::InvalidProducerIdMapping));
    assert_eq!(ongoing.due_ms(500), Some(T0 + 5 + 60_001));
    let prepared = next(ongoing.end_v2(producer(7, 0), true, None, T0));
    assert_eq!(prepared.verify(prepared.producer, &asked), Err(ErrorCode::ConcurrentTransactions));
    assert_eq!(prepared.due_ms(500), None, "it is completed, however long that takes");
    assert_eq!(prepared.completed(T0 + 50).due_ms(500), Some(T0 + 550));
}
