//! Transaction requests that real clients send late, twice or in error: the faults that Jepsen
//! found in other brokers, and Kafka's answers to invalid requests.
//!
//! Jepsen's reports: Redpanda 21.10.1 (duplicate and inconsistent offsets, aborted reads) and
//! Bufstream 0.1.0 (KAFKA-17754: a delayed EndTxn splits transactions).
#![allow(clippy::unwrap_used, missing_docs)]

use weir_e2e::batch::Batch;
use weir_e2e::bystander::now_ms;
use weir_e2e::cluster::Local;
use weir_e2e::kubernetes::eventually;
use weir_e2e::txn::error::{
    CONCURRENT_TRANSACTIONS, INVALID_PRODUCER_ID_MAPPING, INVALID_TRANSACTION_TIMEOUT,
    PRODUCER_FENCED, TRANSACTION_COORDINATOR_FENCED,
};
use weir_e2e::txn::{
    From, VERSIONS, Version, add, add_offsets, commit_offset, committed_offset, end,
    fetch_committed, init, init_again, send, write_marker,
};
use weir_e2e::wire::error::{
    INVALID_PRODUCER_EPOCH, INVALID_TXN_STATE, NONE, UNKNOWN_MEMBER_ID, UNKNOWN_TOPIC_OR_PARTITION,
};
use weir_e2e::wire::{Body, Connection, await_topic, create_topic, list_offset};

const TRANSACTIONAL: i16 = 1 << 4;
const TOPIC: &str = "t";
const GROUP: &str = "g";
/// A transactional id without a producer.
const NOBODY: &str = "nobody";
const MINUTE: i32 = 60_000;

/// Starts one broker with a topic; returns a connection too.
fn start() -> (Local, Connection) {
    let local = Local::start_of(Some(1), None).unwrap();
    let mut c = Connection::open(&local.bootstrap()).unwrap();
    assert_eq!(create_topic(&mut c, TOPIC.as_bytes(), 2, 1, &[]).unwrap(), NONE);
    await_topic(&local.bootstrap(), TOPIC, 2).unwrap();
    for (key, kind) in [(GROUP, 0), ("wrong", 1), (NOBODY, 1)] {
        coordinator(&mut c, key, kind);
    }
    loaded(&mut c);
    (local, c)
}

/// Waits until the coordinators of the test's unknown ids have loaded their partitions. Until then
/// they answer with a retriable error.
fn loaded(c: &mut Connection) {
    let nobody = From { id: NOBODY, producer: 0, epoch: 0, version: Version::V1 };
    eventually("the group's coordinator", || {
        let code = c.call(12, 0, &Body::default().str(GROUP).i32(0).str("no member"))?.i16()?;
        Ok((code == UNKNOWN_MEMBER_ID).then_some(()))
    });
    for id in [NOBODY, "wrong"] {
        eventually("the transaction's coordinator", || {
            let (code, _) = end(c, From { id, ..nobody }, true)?;
            Ok((code == INVALID_PRODUCER_ID_MAPPING).then_some(()))
        });
    }
}

/// The coordinator of a transactional id or a group; the first request creates the topic.
fn coordinator(c: &mut Connection, key: &str, kind: i8) -> usize {
    eventually("a coordinator", || {
        let mut reply = c.call(10, 1, &Body::default().str(key).i8(kind))?;
        reply.i32()?;
        let code = reply.i16()?;
        reply.str()?;
        Ok((code == NONE).then_some(usize::try_from(reply.i32()?)?))
    })
}

/// Starts a producer with this id.
fn begin<'a>(c: &mut Connection, id: &'a str, version: Version) -> From<'a> {
    eventually("a producer id", || {
        let (code, from) = init(c, id, MINUTE, version)?;
        Ok((code == NONE).then_some(from))
    })
}

fn batch(from: From<'_>, sequence: i32) -> Vec<u8> {
    let mut batch = Batch::of(&[b"v"], now_ms()).from_producer(from.producer, from.epoch, sequence);
    batch.attributes |= TRANSACTIONAL;
    batch.encode()
}

fn produce(c: &mut Connection, from: From<'_>, sequence: i32) -> (i16, i64) {
    if from.version == Version::V1 {
        let code = eventually("the partition in the transaction", || {
            let code = add(c, from, TOPIC, 0)?;
            Ok((code != CONCURRENT_TRANSACTIONS).then_some(code))
        });
        if code != NONE {
            return (code, -1);
        }
    }
    send(c, from, TOPIC, 0, &batch(from, sequence)).unwrap()
}

/// Waits until no transaction is open: the last stable offset is the end of the log.
fn is_stable(c: &mut Connection) -> i64 {
    eventually("a stable partition", || {
        let (_, end) = list_offset(c, TOPIC, 0, -1)?;
        let stable = fetch_committed(c, TOPIC, 0, 0)?.last_stable_offset;
        Ok((stable == end).then_some(end))
    })
}

#[test]
fn an_end_that_comes_late_does_not_end_the_next_transaction() {
    let (_local, mut c) = start();
    let first = begin(&mut c, "late", Version::V2);
    assert_eq!(produce(&mut c, first, 0), (NONE, 0));
    let (code, second) = end(&mut c, first, true).unwrap();
    assert_eq!((code, second.epoch), (NONE, first.epoch + 1));
    // A repeated EndTxn before a new transaction gets the same answer, because the first one may
    // have been lost.
    let again = eventually("the end of the first", || {
        let (code, producer) = end(&mut c, first, true)?;
        Ok((code != CONCURRENT_TRANSACTIONS).then_some((code, producer)))
    });
    assert_eq!(again, (NONE, second));
    assert_eq!(produce(&mut c, second, 0).0, NONE);
    for commit in [true, false] {
        assert_eq!(
            end(&mut c, first, commit).unwrap().0,
            PRODUCER_FENCED,
            "an end of the transaction before"
        );
        let shown = fetch_committed(&mut c, TOPIC, 0, 0).unwrap();
        assert_eq!(
            (shown.last_stable_offset, shown.high_watermark),
            (2, 3),
            "the next one is open still"
        );
    }
    assert_eq!(end(&mut c, second, false).unwrap().0, NONE);
    assert_eq!(is_stable(&mut c), 4);
    let shown = fetch_committed(&mut c, TOPIC, 0, 0).unwrap();
    assert_eq!(shown.aborted, [(second.producer, 2)]);
}

#[test]
fn what_is_sent_after_the_end_of_its_transaction_begins_none() {
    for version in VERSIONS {
        let (_local, mut c) = start();
        let from = begin(&mut c, "hanging", version);
        assert_eq!(produce(&mut c, from, 0), (NONE, 0));
        assert_eq!(end(&mut c, from, true).unwrap().0, NONE);
        assert_eq!(is_stable(&mut c), 2);
        // To the partition of the transaction, and to another one.
        let expected = match version {
            Version::V1 => INVALID_TXN_STATE,
            Version::V2 => INVALID_PRODUCER_EPOCH,
        };
        for partition in [0, 1] {
            let (code, _) =
                send(&mut c, from, TOPIC, partition, &batch(from, 1 - partition)).unwrap();
            assert_eq!(code, expected, "{version:?}, partition {partition}");
        }
        let late = commit_offset(&mut c, from, GROUP, TOPIC, 7).unwrap();
        assert_eq!(late, expected, "{version:?}");
        assert_eq!(is_stable(&mut c), 2);
        assert_eq!(committed_offset(&mut c, GROUP, TOPIC).unwrap(), -1);
    }
}

#[test]
fn a_batch_that_comes_twice_has_one_offset() {
    for version in VERSIONS {
        let (_local, mut c) = start();
        let from = begin(&mut c, "twice", version);
        for sequence in 0..3 {
            let (code, offset) = produce(&mut c, from, sequence);
            assert_eq!((code, offset), (NONE, i64::from(sequence)));
            for again in (0..=sequence).rev() {
                let (code, offset) = send(&mut c, from, TOPIC, 0, &batch(from, again)).unwrap();
                assert_eq!((code, offset), (NONE, i64::from(again)), "{version:?}");
            }
        }
        assert_eq!(end(&mut c, from, true).unwrap().0, NONE);
        assert_eq!(is_stable(&mut c), 4);
    }
}

/// A client sends the first batch of a transaction as soon as EndTxn is answered, before the marker
/// is written. The leader waits for that a moment; on a busy machine the client has to try again
/// (`add.partitions.to.txn.retry.backoff.max.ms`). What it writes is in the log once.
#[test]
fn the_first_batch_may_meet_the_marker_of_the_transaction_before() {
    let (_local, mut c) = start();
    let mut from = begin(&mut c, "close", Version::V2);
    for round in 0..400 {
        let code = eventually("the transaction before is over", || {
            let (code, _) = produce(&mut c, from, 0);
            Ok((code != CONCURRENT_TRANSACTIONS).then_some(code))
        });
        assert_eq!(code, NONE, "round {round}");
        if round % 2 == 0 {
            let code = commit_offset(&mut c, from, GROUP, TOPIC, round).unwrap();
            assert_eq!(code, NONE, "round {round}");
        }
        let (code, next) = end(&mut c, from, round % 4 != 3).unwrap();
        assert_eq!((code, next.epoch), (NONE, from.epoch + 1), "round {round}");
        from = next;
    }
    assert_eq!(is_stable(&mut c), 800);
    assert_eq!(committed_offset(&mut c, GROUP, TOPIC).unwrap(), 398);
}

#[test]
fn who_was_before_is_fenced() {
    for version in VERSIONS {
        let (_local, mut c) = start();
        let zombie = begin(&mut c, "fenced", version);
        assert_eq!(produce(&mut c, zombie, 0), (NONE, 0));
        let next = begin(&mut c, "fenced", version);
        assert!(next.epoch > zombie.epoch && next.producer == zombie.producer);
        assert_eq!(is_stable(&mut c), 2, "what was open is aborted");
        let (code, _) = send(&mut c, zombie, TOPIC, 0, &batch(zombie, 1)).unwrap();
        assert_eq!(code, INVALID_PRODUCER_EPOCH, "{version:?}");
        let fenced = PRODUCER_FENCED;
        assert_eq!(end(&mut c, zombie, true).unwrap().0, fenced, "{version:?}");
        assert_eq!(add(&mut c, zombie, TOPIC, 1).unwrap(), fenced);
        assert_eq!(add_offsets(&mut c, zombie, GROUP).unwrap(), fenced);
        let code = commit_offset(&mut c, zombie, GROUP, TOPIC, 3).unwrap();
        assert_eq!(code, INVALID_PRODUCER_EPOCH, "who writes is told so: {version:?}");
        let (code, _) = send(&mut c, zombie, TOPIC, 1, &batch(zombie, 0)).unwrap();
        assert_eq!(code, INVALID_PRODUCER_EPOCH, "where it never wrote");
        assert_eq!(produce(&mut c, next, 0), (NONE, 2));
        assert_eq!(end(&mut c, next, true).unwrap().0, NONE);
        assert_eq!(is_stable(&mut c), 4);
        assert_eq!(fetch_committed(&mut c, TOPIC, 0, 0).unwrap().aborted, [(zombie.producer, 0)]);
    }
}

/// A producer that continues after an error aborts its open transaction and gets the next epoch
/// (KIP-360). A new producer with its id gets the epoch after that.
#[test]
fn who_goes_on_after_an_error_is_not_fenced() {
    let (_local, mut c) = start();
    let from = begin(&mut c, "error", Version::V2);
    assert_eq!(produce(&mut c, from, 0), (NONE, 0));
    let mut go_on = |from| {
        eventually("the next epoch", || {
            let (code, next) = init_again(&mut c, from, MINUTE)?;
            Ok((code != CONCURRENT_TRANSACTIONS).then_some((code, next)))
        })
    };
    let next = from.in_epoch(from.epoch + 1);
    assert_eq!(go_on(from), (NONE, next));
    assert_eq!(go_on(from), (NONE, next), "the answer was lost");
    assert_eq!(go_on(next).1.epoch, next.epoch + 1);
    assert_eq!(go_on(from).0, PRODUCER_FENCED);
    assert_eq!(is_stable(&mut c), 2);
    let from = next.in_epoch(next.epoch + 1);
    assert_eq!(produce(&mut c, from, 0), (NONE, 2));
    let other = begin(&mut c, "error", Version::V2);
    assert_eq!((other.producer, other.epoch), (from.producer, from.epoch + 2));
    assert_eq!(end(&mut c, from, false).unwrap().0, PRODUCER_FENCED);
}

/// A transaction that ends in the last possible epoch needs another producer id, whichever side
/// ends it. That must not delay anything (KAFKA-20090).
#[test]
fn a_transaction_that_takes_too_long_in_the_last_epoch_is_aborted() {
    let (_local, mut c) = start();
    let mut from = eventually("a producer id", || {
        let (code, from) = init(&mut c, "last", 1_000, Version::V2)?;
        Ok((code == NONE).then_some(from))
    });
    // An abort of an empty transaction raises the epoch.
    while from.epoch < i16::MAX - 1 {
        let (code, next) = end(&mut c, from, false).unwrap();
        assert_eq!((code, next.epoch), (NONE, from.epoch + 1));
        from = next;
    }
    assert_eq!(produce(&mut c, from, 0), (NONE, 0));
    assert_eq!(is_stable(&mut c), 2, "it was aborted");
    let next = eventually("the id that follows", || {
        let (code, next) = end(&mut c, from, false)?;
        Ok((code != CONCURRENT_TRANSACTIONS).then_some((code, next)))
    });
    assert_eq!((next.0, next.1.epoch), (NONE, 0));
    assert_ne!(next.1.producer, from.producer);
    assert_eq!(produce(&mut c, next.1, 0), (NONE, 2));
    assert_eq!(end(&mut c, next.1, true).unwrap().0, NONE);
    assert_eq!(is_stable(&mut c), 4);
    assert_eq!(fetch_committed(&mut c, TOPIC, 0, 0).unwrap().aborted, [(from.producer, 0)]);
}

#[test]
fn requests_that_make_no_sense() {
    for version in VERSIONS {
        let (_local, mut c) = start();
        for timeout in [0, -1, 900_001, i32::MAX] {
            assert_eq!(
                init(&mut c, "wrong", timeout, version).unwrap().0,
                INVALID_TRANSACTION_TIMEOUT,
                "{timeout}"
            );
        }
        let from = begin(&mut c, "wrong", version);
        assert_eq!(
            end(&mut c, from, true).unwrap().0,
            INVALID_TXN_STATE,
            "there is nothing to commit"
        );
        let nobody = From { id: NOBODY, ..from };
        let other = From { producer: from.producer + 1_000, ..from };
        for wrong in [nobody, other] {
            assert_eq!(add(&mut c, wrong, TOPIC, 0).unwrap(), INVALID_PRODUCER_ID_MAPPING);
            assert_eq!(add_offsets(&mut c, wrong, GROUP).unwrap(), INVALID_PRODUCER_ID_MAPPING);
            assert_eq!(end(&mut c, wrong, true).unwrap().0, INVALID_PRODUCER_ID_MAPPING);
            assert_eq!(
                commit_offset(&mut c, wrong, GROUP, TOPIC, 1).unwrap(),
                INVALID_PRODUCER_ID_MAPPING
            );
            let (code, _) = send(&mut c, wrong, TOPIC, 0, &batch(wrong, 0)).unwrap();
            assert_eq!(code, INVALID_PRODUCER_ID_MAPPING, "{version:?}");
        }
        for epoch in [from.epoch - 1, from.epoch + 1, i16::MAX] {
            let wrong = from.in_epoch(epoch);
            assert_eq!(add(&mut c, wrong, TOPIC, 0).unwrap(), PRODUCER_FENCED, "epoch {epoch}");
            assert_eq!(end(&mut c, wrong, true).unwrap().0, PRODUCER_FENCED, "epoch {epoch}");
            let code = commit_offset(&mut c, wrong, GROUP, TOPIC, 1).unwrap();
            assert_eq!(code, INVALID_PRODUCER_EPOCH, "epoch {epoch}");
        }
        assert_eq!(list_offset(&mut c, TOPIC, 0, -1).unwrap(), (NONE, 0), "nothing was written");
        // A request with a false epoch does not affect the real producer.
        let wrong = from.in_epoch(i16::MAX);
        assert_eq!(
            send(&mut c, wrong, TOPIC, 0, &batch(wrong, 0)).unwrap().0,
            INVALID_PRODUCER_EPOCH
        );
        assert_eq!(produce(&mut c, from, 0), (NONE, 0));
        if version == Version::V1 {
            assert_eq!(add_offsets(&mut c, from, GROUP).unwrap(), NONE);
        }
        assert_eq!(commit_offset(&mut c, from, GROUP, TOPIC, 1).unwrap(), NONE);
    }
}

#[test]
fn a_transaction_that_has_ended_stays_as_it_ended() {
    for (version, commit) in
        VERSIONS.into_iter().flat_map(|version| [(version, true), (version, false)])
    {
        let (_local, mut c) = start();
        let from = begin(&mut c, "ended", version);
        assert_eq!(produce(&mut c, from, 0), (NONE, 0));
        let (code, next) = end(&mut c, from, commit).unwrap();
        assert_eq!(code, NONE);
        assert_eq!(is_stable(&mut c), 2);
        let mut asked = |commit: bool| {
            eventually("its completion", || {
                let (code, producer) = end(&mut c, from, commit)?;
                Ok((code != CONCURRENT_TRANSACTIONS).then_some((code, producer)))
            })
        };
        assert_eq!(asked(commit), (NONE, next), "once more");
        assert_eq!(
            asked(!commit).0,
            INVALID_TXN_STATE,
            "{version:?}: commit {commit}, then the opposite"
        );
        let aborted = fetch_committed(&mut c, TOPIC, 0, 0).unwrap().aborted;
        assert_eq!(aborted.is_empty(), commit);
        assert_eq!(
            list_offset(&mut c, TOPIC, 0, -1).unwrap(),
            (NONE, 2),
            "no other marker was written"
        );
    }
}

/// Without an authorizer any client may write markers, as in Kafka, where `kafka-transactions`
/// aborts hanging transactions. Invalid markers are refused nevertheless.
#[test]
fn markers_from_whoever() {
    let (_local, mut c) = start();
    let from = begin(&mut c, "marked", Version::V1);
    assert_eq!(write_marker(&mut c, from, 0, "nothing", 0).unwrap(), UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(write_marker(&mut c, from, 0, TOPIC, 9).unwrap(), UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(produce(&mut c, from, 0), (NONE, 0));
    assert_eq!(
        write_marker(&mut c, from.in_epoch(from.epoch - 1), 5, TOPIC, 0).unwrap(),
        INVALID_PRODUCER_EPOCH
    );
    assert_eq!(
        fetch_committed(&mut c, TOPIC, 0, 0).unwrap().last_stable_offset,
        0,
        "it is open still"
    );
    assert_eq!(write_marker(&mut c, from, 5, TOPIC, 0).unwrap(), NONE);
    assert_eq!(is_stable(&mut c), 2);
    assert_eq!(write_marker(&mut c, from, 4, TOPIC, 0).unwrap(), TRANSACTION_COORDINATOR_FENCED);
    // The same in the partition of the group coordinator.
    assert_eq!(add_offsets(&mut c, from, GROUP).unwrap(), NONE);
    assert_eq!(commit_offset(&mut c, from, GROUP, TOPIC, 5).unwrap(), NONE);
    assert_eq!(committed_offset(&mut c, GROUP, TOPIC).unwrap(), -1);
    assert_eq!(end(&mut c, from, true).unwrap().0, NONE);
    eventually("the group's offset", || {
        Ok((committed_offset(&mut c, GROUP, TOPIC)? == 5).then_some(()))
    });
}

/// Every replica reports the same aborted transactions, before and after its leader dies. A
/// repeated batch gets its original offset.
#[test]
fn aborted_and_repeated_is_the_same_on_every_replica() {
    let local = Local::start_of(Some(3), None).unwrap();
    let bootstrap = local.bootstrap();
    let addresses: Vec<&str> = bootstrap.split(',').collect();
    let mut c = Connection::open(&bootstrap).unwrap();
    let configs = [("min.insync.replicas", "2")];
    assert_eq!(create_topic(&mut c, TOPIC.as_bytes(), 1, 3, &configs).unwrap(), NONE);
    await_topic(&bootstrap, TOPIC, 1).unwrap();
    let leader_of = |among: &[usize]| {
        eventually("a leader", || {
            let leads = |at: &&usize| {
                Connection::open(addresses[**at]).is_ok_and(|mut c| {
                    list_offset(&mut c, TOPIC, 0, -1).is_ok_and(|(code, _)| code == NONE)
                })
            };
            Ok(among.iter().find(leads).copied())
        })
    };
    let coordinator = |asked: usize, id: &str| {
        coordinator(&mut Connection::open(addresses[asked]).unwrap(), id, 1)
    };
    let (aborts, repeats) = ("aborts", "repeats");
    let mut to_coordinator = Connection::open(addresses[coordinator(0, aborts)]).unwrap();
    let leader = leader_of(&[0, 1, 2]);
    let mut to_leader = Connection::open(addresses[leader]).unwrap();
    let mut from = begin(&mut to_coordinator, aborts, Version::V2);
    let mut aborted = Vec::new();
    for round in 0..10 {
        let offset = eventually("an offset", || {
            let (code, offset) = send(&mut to_leader, from, TOPIC, 0, &batch(from, 0))?;
            Ok((code == NONE).then_some(offset))
        });
        let commit = round % 3 == 0;
        if !commit {
            aborted.push((from.producer, offset));
        }
        let (code, next) = end(&mut to_coordinator, from, commit).unwrap();
        assert_eq!(code, NONE);
        from = next;
    }
    let repeating = begin(
        &mut Connection::open(addresses[coordinator(0, repeats)]).unwrap(),
        repeats,
        Version::V2,
    );
    let offset = eventually("an offset", || {
        let (code, offset) = send(&mut to_leader, repeating, TOPIC, 0, &batch(repeating, 0))?;
        Ok((code == NONE).then_some(offset))
    });
    let agreed = |replicas: &[usize], stable: i64| {
        for at in replicas {
            eventually("what was aborted", || {
                let shown = fetch_committed(&mut Connection::open(addresses[*at])?, TOPIC, 0, 0)?;
                Ok((shown.code == NONE
                    && shown.last_stable_offset == stable
                    && shown.aborted == aborted)
                    .then_some(()))
            });
        }
    };
    agreed(&[0, 1, 2], offset);
    local.run(&["kill", &leader.to_string()]).unwrap();
    let left: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    let leader = leader_of(&left);
    agreed(&left, offset);
    let mut to_leader = Connection::open(addresses[leader]).unwrap();
    assert_eq!(
        send(&mut to_leader, repeating, TOPIC, 0, &batch(repeating, 0)).unwrap(),
        (NONE, offset),
        "as it was"
    );
    let (code, _) = eventually("the end", || {
        let c = Connection::open(addresses[coordinator(left[0], repeats)]);
        let answer = c.and_then(|mut c| end(&mut c, repeating, true)).ok();
        Ok(answer.filter(|(code, _)| *code == NONE))
    });
    assert_eq!(code, NONE);
    agreed(&left, offset + 2);
}
