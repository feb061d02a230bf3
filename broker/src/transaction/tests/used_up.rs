//! Used up epochs, as in Apache Kafka 4.3.1: which requests lead to another producer id, which
//! requests the old id still allows, and which wait for an id. Cells are those of [`table`].

use super::table::{FRESH, ID, Setting, name};
use super::*;

/// The second largest epoch is the last that a client may have. The end of its transaction raises
/// it, and another id follows.
///
/// When a retried InitProducerId carries the previous epoch, Kafka throws (`Cannot allocate any
/// more producer epochs`, error -1). Here the coordinator repeats the lost answer.
const LAST_BUT_ONE: &str = "
    Empty          | init     |  | fenced     | new Empty@new         |  |
    Empty          | begin    |  |            | new Empty@new         |  |
    Empty          | abort    |  | fenced     | new CompleteAbort@new |  |
    Empty          | commit   |  | fenced     | state                 |  |
    Bumped         | init     |  | +0         | new Empty@new         |  |
    Ongoing        | init     |  | concurrent PrepareAbort+1 CompleteAbort@new | concurrent PrepareAbort+1 CompleteAbort@new |  |
    Ongoing        | begin    |  |            | concurrent PrepareAbort+1 CompleteAbort@new |  |
    Ongoing        | time out |  |            | nobody PrepareAbort+1 CompleteAbort@new     |  |
    Ongoing        | abort    |  | fenced     | new PrepareAbort+1 CompleteAbort@new        |  |
    Ongoing        | commit   |  | fenced     | new PrepareCommit+1 CompleteCommit@new      |  |
    PrepareCommit  | init         | concurrent | concurrent | concurrent | concurrent | concurrent
    PrepareCommit  | commit       | concurrent | concurrent | concurrent | concurrent | concurrent
    PrepareAbort   | init         | concurrent | concurrent | concurrent | concurrent | concurrent
    PrepareAbort   | abort        | concurrent | concurrent | concurrent | concurrent | concurrent
    CompleteCommit | init     |  | +0 Empty+0 | new Empty@new         |  |
    CompleteCommit | begin    |  |            | new Empty@new         |  |
    CompleteCommit | abort    |  | state      | new CompleteAbort@new |  |
    CompleteCommit | commit   |  | +0         | state                 |  |
    CompleteAbort  | init     |  | +0 Empty+0 | new Empty@new         |  |
    CompleteAbort  | begin    |  |            | new Empty@new         |  |
    CompleteAbort  | abort    |  | +0         | new CompleteAbort@new |  |
    CompleteAbort  | commit   |  | state      | state                 |  |
";

/// No client should have the largest epoch. A client that has it can abort, or is aborted
/// (KAFKA-20090), and goes on under another id. Kafka throws at its commit (error -1), and at a
/// retried InitProducerId, which this coordinator fences.
const LAST: &str = "
    Ongoing        | init     |  | concurrent PrepareAbort+0 CompleteAbort@new | concurrent PrepareAbort+0 CompleteAbort@new |  |
    Ongoing        | begin    |  |        | concurrent PrepareAbort+0 CompleteAbort@new |  |
    Ongoing        | time out |  |        | nobody PrepareAbort+0 CompleteAbort@new     |  |
    Ongoing        | abort    |  | fenced | new PrepareAbort+0 CompleteAbort@new        |  |
    Ongoing        | commit   |  | fenced | unknown               |  |
    CompleteCommit | init     |  | fenced | new Empty@new         |  |
    CompleteCommit | begin    |  |        | new Empty@new         |  |
    CompleteAbort  | init     |  | fenced | new Empty@new         |  |
    CompleteAbort  | begin    |  |        | new Empty@new         |  |
    CompleteAbort  | abort    |  | +0     | new CompleteAbort@new |  |
    CompleteAbort  | commit   |  | state  | state                 |  |
";

/// Before transactions v2 an abort by another producer or a timeout raises the epoch while one is
/// left. The next InitProducerId gets another id.
const LAST_V1: &str = "
    Ongoing        | begin    |  |        | concurrent PrepareAbort+0 CompleteAbort+0 |  |
    Ongoing        | time out |  |        | nobody PrepareAbort+0 CompleteAbort+0     |  |
    Ongoing        | abort    |  | fenced | ok PrepareAbort+0 CompleteAbort+0         |  |
    Ongoing        | commit   |  | fenced | ok PrepareCommit+0 CompleteCommit+0       |  |
    CompleteAbort  | begin    |  |        | new Empty@new |  |
    CompleteAbort  | init     |  | fenced | new Empty@new |  |
    CompleteAbort  | abort    |  | fenced | ok            |  |
";

#[test]
fn where_epochs_are_used_up_another_id_follows_as_in_kafka() {
    for loaded in [false, true] {
        let setting = |cluster, client, epoch| Setting { cluster, client, epoch, loaded };
        setting(2, 2, i16::MAX - 1).check(LAST_BUT_ONE);
        setting(2, 2, i16::MAX).check(LAST);
        for cluster in [0, 1] {
            setting(cluster, 0, i16::MAX).check(LAST_V1);
            // One more epoch is left for an abort by another producer or a timeout.
            setting(cluster, 0, i16::MAX - 1)
                .check("Ongoing | begin    | | | concurrent PrepareAbort+1 CompleteAbort+1 | |");
            setting(cluster, 0, i16::MAX - 1)
                .check("Ongoing | time out | | | nobody PrepareAbort+1 CompleteAbort+1     | |");
        }
        // A client of transactions v1 in a cluster of v2: a timeout ends its transaction as v2.
        setting(2, 0, i16::MAX - 1)
            .check("Ongoing | time out | | | nobody PrepareAbort+1 CompleteAbort@new | |");
        setting(2, 0, i16::MAX)
            .check("Ongoing | time out | | | nobody PrepareAbort+0 CompleteAbort@new | |");
    }
}

/// A client retries, under the old id, a request from before the change of the id.
#[test]
fn a_request_that_comes_again_after_the_id_was_changed() {
    let from = |epoch| Producer { id: ProducerId(ID), epoch: ProducerEpoch(epoch) };
    let new = Producer { id: ProducerId(FRESH), epoch: ProducerEpoch(0) };
    let last = i16::MAX - 1;
    for loaded in [false, true] {
        let changed = || {
            let mut world =
                Setting { cluster: 2, client: 2, epoch: last, loaded: false }.world("Ongoing");
            world.time_out();
            let prepared = world.prepared().remove(0);
            if loaded {
                // The failover happens while markers are missing: the log has the id that follows.
                world.fail_over();
            }
            world.written(&prepared, &[0]);
            world
        };
        let code = |result: Result<Producer, Refusal>| match result.unwrap_err() {
            Refusal::Error(code) => name(code),
            Refusal::NeedsProducerId => "needs",
        };
        assert_eq!(changed().end_from(from(last), false, 2), Ok(new));
        assert_eq!(code(changed().end_from(from(last), true, 2)), "state");
        assert_eq!(code(changed().end_from(from(last - 1), false, 2)), "mapping");
        assert_eq!(code(changed().init_from(Some(from(last - 1)))), "fenced");
        let init = changed().init_from(Some(from(last)));
        if loaded {
            assert_eq!(code(init), "fenced");
        } else {
            assert_eq!(init, Ok(new));
        }
    }
}

/// A timeout at the last epoch waits for a producer id, whichever broker coordinates, until the
/// controller has answered.
#[test]
fn a_timeout_that_needs_a_producer_id_waits_for_one() {
    let setting = Setting { cluster: 2, client: 2, epoch: i16::MAX - 1, loaded: false };
    let mut world = setting.world("Ongoing");
    let from = setting.transaction("Ongoing").producer;
    let time_out = |world: &mut World| {
        world
            .ask(|to| Request::TimeOut { id: "x".to_owned(), fresh: ProducerId(FRESH), to })
            .expect();
    };
    time_out(&mut world);
    assert_eq!(world.state(), Some(State::Ongoing), "its time is not over");
    world.pass(60_002);
    let looked = world.look();
    assert_eq!(
        (looked.exhausted, looked.open, looked.tally.aborted_by_timeout),
        (vec!["x".to_owned()], 1, 0)
    );
    world.fail_over();
    world.pass(2);
    assert_eq!(world.look().exhausted, ["x"]);
    assert_eq!(world.add_to(from, 1, 2), ErrorCode::None);
    world.pass(2);
    assert_eq!(world.look().exhausted, ["x"], "what is added to it gives no time");
    time_out(&mut world);
    let looked = world.look();
    assert_eq!(
        (looked.exhausted.len(), looked.prepared.len(), looked.tally.aborted_by_timeout),
        (0, 1, 1)
    );
    let before = world.log.len();
    time_out(&mut world);
    assert_eq!(world.log.len(), before, "it is aborted already");

    // The producer ends the transaction first.
    let mut world = setting.world("Ongoing");
    world.pass(60_002);
    world.end_from(from, true, 2).unwrap();
    assert_eq!(world.look().exhausted.len(), 0);
    time_out(&mut world);
    assert_eq!(world.state(), Some(State::PrepareCommit));
}
