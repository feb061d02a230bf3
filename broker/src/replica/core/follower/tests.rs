//! One table for each rule.

use super::*;
use weir_log::Epochs;

const LEADER: BrokerId = BrokerId(3);

/// A log: its epochs, its start, its end, and the end of its flushed part.
struct Log(Epochs, i64, i64, i64);

impl Log {
    fn new(epochs: &[(i32, i64)], start: i64, end: i64) -> Self {
        let mut known = Epochs::default();
        for &(epoch, start) in epochs {
            known.assign(LeaderEpoch(epoch), start);
        }
        Self(known, start, end, end)
    }

    fn look<R>(&self, at: impl FnOnce(&OwnLog<'_>) -> R) -> R {
        at(&OwnLog {
            start: self.1,
            end: self.2,
            had: self.3,
            latest_epoch: self.0.latest(),
            end_of_epoch: &|epoch| self.0.end_of(epoch, self.1, self.2),
        })
    }
}

fn answer() -> FetchAnswer {
    FetchAnswer {
        error: ErrorCode::None,
        high_watermark: 0,
        log_start: 0,
        diverging: None,
        has_records: false,
    }
}

fn asked(follower: &FollowerState, log: &Log) -> FetchFrom {
    match log.look(|log| follower.next(log, u64::MAX)) {
        Next::Fetch(fetch) => fetch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_fetches_from_the_end_of_what_it_has() {
    let follower = FollowerState::begin(LEADER, LeaderEpoch(5), 0);
    let mut log = Log::new(&[(2, 0), (4, 10)], 3, 20);
    let expected = FetchFrom {
        offset: 20,
        last_fetched_epoch: Some(LeaderEpoch(4)),
        current_leader_epoch: LeaderEpoch(5),
        log_start: 3,
    };
    assert_eq!(log.look(|log| follower.next(log, 0)), Next::Fetch(expected));
    log.3 = 19;
    assert_eq!(log.look(|log| follower.next(log, 0)), Next::AfterFlush);
}

#[test]
fn it_cuts_where_the_logs_part() {
    // The epochs of a log that ends at 30, the leader's epoch end, and the expected truncation.
    let rows: &[(&[(i32, i64)], (i32, i64), i64)] = &[
        (&[(2, 0), (4, 10)], (4, 25), 25),
        (&[(2, 0), (4, 10)], (2, 15), 10),
        (&[(2, 0), (4, 10)], (2, 8), 8),
        // An unknown epoch: the follower truncates to the end of the epoch before, and asks again.
        (&[(2, 0), (4, 10)], (3, 20), 10),
        // Older than all epochs that it knows.
        (&[(4, 10)], (2, 5), 5),
        // An epoch without a record: the log keeps its end but loses the epoch.
        (&[(2, 0), (4, 30)], (2, 40), 30),
    ];
    for &(epochs, (epoch, offset), cut) in rows {
        let mut follower = FollowerState::begin(LEADER, LeaderEpoch(5), 7);
        let log = Log::new(epochs, 0, 30);
        let to = asked(&follower, &log);
        let diverging = Some(EpochEnd { epoch: LeaderEpoch(epoch), offset });
        let answer = FetchAnswer { diverging, high_watermark: 99, ..answer() };
        let todo = log.look(|log| follower.answered(&to, &answer, log, 0));
        assert_eq!(todo, Todo::Truncate(cut), "{epochs:?} {diverging:?}");
        assert_eq!(follower.high_watermark(), cut.min(7));
        assert_eq!(
            log.look(|log| follower.step(log)).high_watermark,
            cut.min(7),
            "a log that parted says nothing about what it has"
        );
    }
}

#[test]
fn what_an_answer_asks_for() {
    use ErrorCode::{
        FencedLeaderEpoch, KafkaStorageError, NotLeaderOrFollower, OffsetOutOfRange,
        UnknownLeaderEpoch,
    };
    let rows = [
        (ErrorCode::None, false, Todo::Nothing, None),
        (ErrorCode::None, true, Todo::Append, None),
        (OffsetOutOfRange, false, Todo::AskOffsets, None),
        (UnknownLeaderEpoch, false, Todo::Nothing, Some(Next::At(50 + FIRST_BACKOFF_MS))),
        (NotLeaderOrFollower, false, Todo::Nothing, Some(Next::At(50 + FIRST_BACKOFF_MS))),
        (KafkaStorageError, false, Todo::Nothing, Some(Next::At(50 + FIRST_BACKOFF_MS))),
        (FencedLeaderEpoch, false, Todo::Nothing, Some(Next::Never)),
    ];
    for (error, has_records, expected, next) in rows {
        let mut follower = FollowerState::begin(LEADER, LeaderEpoch(5), 0);
        let log = Log::new(&[(2, 0)], 0, 10);
        let to = asked(&follower, &log);
        let answer = FetchAnswer { error, has_records, ..answer() };
        assert_eq!(log.look(|log| follower.answered(&to, &answer, log, 50)), expected, "{error}");
        assert_eq!(
            log.look(|log| follower.next(log, 50)),
            next.unwrap_or(Next::Fetch(to)),
            "{error}"
        );
        follower.failed(60);
        let fenced = next == Some(Next::Never);
        let later = if fenced { Next::Never } else { Next::Fetch(to) };
        assert_eq!(log.look(|log| follower.next(log, 60 + FETCH_BACKOFF_MS)), later);
    }
}

#[test]
fn a_leader_that_refuses_is_asked_less_and_less_often() {
    let mut follower = FollowerState::begin(LEADER, LeaderEpoch(5), 0).backing_off(30);
    let log = Log::new(&[(2, 0)], 0, 10);
    let until = |follower: &FollowerState| log.look(|log| follower.next(log, 0));
    for expected in [5, 10, 20, 30, 30] {
        follower.failed(0);
        assert_eq!(until(&follower), Next::At(expected));
    }
    let to = asked(&follower, &log);
    log.look(|log| follower.answered(&to, &answer(), log, 0));
    follower.failed(0);
    assert_eq!(until(&follower), Next::At(5), "it had answered");
}

#[test]
fn what_comes_late_is_ignored() {
    let mut follower = FollowerState::begin(LEADER, LeaderEpoch(5), 0);
    let log = Log::new(&[(2, 0), (4, 8)], 0, 10);
    let to = asked(&follower, &log);
    let records = FetchAnswer { has_records: true, high_watermark: 10, ..answer() };
    for late in [
        FetchFrom { offset: 9, ..to },
        FetchFrom { last_fetched_epoch: Some(LeaderEpoch(2)), ..to },
        FetchFrom { current_leader_epoch: LeaderEpoch(4), ..to },
    ] {
        let fenced = FetchAnswer { error: ErrorCode::FencedLeaderEpoch, ..answer() };
        for answer in [records, fenced] {
            assert_eq!(log.look(|log| follower.answered(&late, &answer, log, 0)), Todo::Nothing);
        }
        assert_eq!(log.look(|log| follower.step(log)).high_watermark, 0);
    }
    assert_eq!(log.look(|log| follower.answered(&to, &records, log, 0)), Todo::Append);
}

#[test]
fn the_high_watermark_is_the_leaders_as_far_as_the_own_log_goes() {
    // The high watermark before, the leader's, the flushed end, and the expected high watermark.
    for (before, leader, had, expected) in
        [(0, 5, 10, 5), (0, 15, 10, 10), (7, 5, 10, 7), (0, 10, 8, 8)]
    {
        let mut follower = FollowerState::begin(LEADER, LeaderEpoch(5), before);
        let mut log = Log::new(&[(2, 0)], 0, 10);
        let to = asked(&follower, &log);
        let answer = FetchAnswer { high_watermark: leader, ..answer() };
        log.look(|log| follower.answered(&to, &answer, log, 0));
        log.3 = had;
        assert_eq!(
            log.look(|log| follower.step(log)).high_watermark,
            expected,
            "{before} {leader} {had}"
        );
    }
}

#[test]
fn the_log_starts_where_the_leaders_does_once_that_is_committed() {
    for (leader_start, high_watermark, expected) in
        [(4, 10, None), (5, 10, None), (7, 10, Some(7)), (7, 6, Some(6)), (99, 10, Some(10))]
    {
        let mut follower = FollowerState::begin(LEADER, LeaderEpoch(5), 0);
        let log = Log::new(&[(2, 0)], 5, 10);
        let to = asked(&follower, &log);
        let answer = FetchAnswer { high_watermark, log_start: leader_start, ..answer() };
        log.look(|log| follower.answered(&to, &answer, log, 0));
        assert_eq!(log.look(|log| follower.step(log)).log_start, expected, "{leader_start}");
    }
}

#[test]
fn an_offset_out_of_range_is_put_right() {
    // The leader's start and end, and the action for a log from 5 to 10 with the high watermark 8.
    for (start, end, expected, high_watermark) in [
        (0, 9, Todo::Truncate(9), 8),
        (0, 6, Todo::Truncate(6), 6),
        (0, 3, Todo::Restart(3), 3),
        (20, 30, Todo::Restart(20), 20),
        (7, 30, Todo::Nothing, 8),
    ] {
        let mut follower = FollowerState::begin(LEADER, LeaderEpoch(5), 8);
        let log = Log::new(&[(2, 0)], 5, 10);
        assert_eq!(
            log.look(|log| follower.offsets(LeaderEpoch(4), start, end, log, 0)),
            Todo::Nothing,
            "of another epoch"
        );
        assert_eq!(log.look(|log| follower.offsets(LeaderEpoch(5), start, end, log, 0)), expected);
        assert_eq!(follower.high_watermark(), high_watermark);
        let delayed = log.look(|log| follower.next(log, 0)) == Next::At(FIRST_BACKOFF_MS);
        assert_eq!(delayed, expected == Todo::Nothing);
    }
}

/// An answer with records says that the fetch went well. If they cannot be appended, the same fetch
/// follows, and the pauses must grow all the same.
#[test]
fn records_that_cannot_be_appended_are_fetched_more_and_more_slowly() {
    let mut follower = FollowerState::begin(LEADER, LeaderEpoch(5), 0);
    let mut log = Log::new(&[(5, 0)], 0, 20);
    let records = FetchAnswer { has_records: true, ..answer() };
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let to = asked(&follower, &log);
        assert_eq!(log.look(|log| follower.answered(&to, &records, log, 0)), Todo::Append);
        follower.failed(0);
        match log.look(|log| follower.next(log, 0)) {
            Next::At(at) => pauses.push(at),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 100, 100, 100]);
    assert_eq!(follower.refused(), 8);
    log.2 = 21;
    log.3 = 21;
    let to = asked(&follower, &log);
    assert_eq!(log.look(|log| follower.answered(&to, &records, log, 0)), Todo::Append);
    assert_eq!(follower.refused(), 0, "it got on");
}
