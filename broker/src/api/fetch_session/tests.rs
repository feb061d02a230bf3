use super::*;

const SESSIONS_MAX: usize = 1000;

const BYTES_MAX: usize = 128 * 1024 * 1024;

fn key(index: i32) -> Key {
    Key { topic: TopicRef::Name("t".into()), index }
}

fn wish(fetch_offset: i64) -> PartitionFetch {
    PartitionFetch {
        fetch_offset,
        max_bytes: 1024,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    }
}

fn request(id: i32, epoch: i32, wanted: &[(i32, i64)], forgotten: &[i32]) -> SessionRequest {
    let wanted = wanted.iter().map(|&(index, offset)| (key(index), wish(offset))).collect();
    SessionRequest {
        id,
        epoch,
        by_id: false,
        wanted,
        forgotten: forgotten.iter().map(|&index| key(index)).collect(),
    }
}

fn quiet(high_watermark: i64) -> Answer {
    Answer {
        said: LastSent { high_watermark, log_start_offset: 0 },
        worth_saying: false,
        has_records: false,
        has_error: false,
    }
}

fn records(high_watermark: i64) -> Answer {
    Answer { worth_saying: true, has_records: true, ..quiet(high_watermark) }
}

fn error() -> Answer {
    Answer { worth_saying: true, has_error: true, ..quiet(-1) }
}

#[test]
fn a_session_says_only_what_changed() {
    let sessions = FetchSessions::new(BYTES_MAX);
    let asked = sessions.ask(request(0, 0, &[(0, 0), (1, 0), (2, 0)], &[]), 0).unwrap();
    let (id, included) = sessions.record(&asked, &[quiet(5), quiet(5), error()], SESSIONS_MAX, 0);
    assert!(id > 0 && included == [true; 3], "the first answer is full");
    let asked = sessions.ask(request(id, 1, &[], &[]), 1).unwrap();
    assert_eq!(
        sessions.record(&asked, &[quiet(5), quiet(6), quiet(-1)], SESSIONS_MAX, 1).1,
        [false, true, true],
        "unchanged, advanced, no more an error"
    );
    let asked = sessions.ask(request(id, 2, &[(0, 7)], &[2]), 2).unwrap();
    assert_eq!(asked.partitions, [(key(0), wish(7)), (key(1), wish(0))]);
    sessions.record(&asked, &[records(5), quiet(6)], SESSIONS_MAX, 2);
    let asked = sessions.ask(request(id, 3, &[], &[]), 3).unwrap();
    assert_eq!(asked.partitions[0].0, key(1), "who was served waits behind the others");
    assert_eq!(sessions.size(), (1, 2));
}

#[test]
fn what_does_not_fit_a_session_is_refused_as_in_kafka() {
    let sessions = FetchSessions::new(BYTES_MAX);
    assert_eq!(
        sessions.ask(request(9, 1, &[], &[]), 0).unwrap_err(),
        ErrorCode::FetchSessionIdNotFound
    );
    let asked = sessions.ask(request(0, 0, &[(0, 0)], &[]), 0).unwrap();
    let (id, _) = sessions.record(&asked, &[quiet(0)], SESSIONS_MAX, 0);
    assert_eq!(
        sessions.ask(request(id, 2, &[], &[]), 0).unwrap_err(),
        ErrorCode::InvalidFetchSessionEpoch
    );
    let mixed = SessionRequest { by_id: true, ..request(id, 1, &[], &[]) };
    assert_eq!(sessions.ask(mixed, 0).unwrap_err(), ErrorCode::FetchSessionTopicIdError);
    let asked = sessions.ask(request(id, 1, &[], &[0]), 0).unwrap();
    assert_eq!(sessions.record(&asked, &[], SESSIONS_MAX, 0).0, 0, "an empty session ends");
    let asked = sessions.ask(request(0, -1, &[(0, 0)], &[]), 0).unwrap();
    assert_eq!(sessions.record(&asked, &[quiet(0)], SESSIONS_MAX, 0), (0, vec![true]));
    assert_eq!(sessions.size(), (0, 0));
}

#[test]
fn the_cache_is_bounded_and_the_smallest_or_oldest_gives_way() {
    let sessions = FetchSessions::new(BYTES_MAX);
    let create = |partitions: i32, now: i64| {
        let wanted: Vec<_> = (0..partitions).map(|index| (index, 0)).collect();
        let asked = sessions.ask(request(0, 0, &wanted, &[]), now).unwrap();
        let answers = vec![quiet(0); asked.partitions.len()];
        sessions.record(&asked, &answers, SESSIONS_MAX, now).0
    };
    for _ in 0..SESSIONS_MAX {
        assert!(create(2, 0) > 0);
    }
    assert_eq!(create(2, EVICTION_MS), 0, "no room for one of the same size");
    assert!(create(3, EVICTION_MS) > 0, "a larger one takes the place of a smaller");
    assert!(create(1, EVICTION_MS + 1) > 0, "and any one that of an idle one");
    assert_eq!(sessions.size().0, SESSIONS_MAX);
    let asked = sessions.ask(request(0, 0, &[(0, 0)], &[]), 3 * EVICTION_MS).unwrap();
    assert_eq!(
        sessions.record(&asked, &[quiet(0)], 0, 3 * EVICTION_MS).0,
        0,
        "no slots, no session"
    );
}

fn named(name: &str, index: i32) -> (Key, PartitionFetch) {
    let topic = TopicRef::Name(name.into());
    (Key { topic, index }, wish(0))
}

fn open(sessions: &FetchSessions, wanted: Vec<(Key, PartitionFetch)>, now: i64) -> i32 {
    let asked = SessionRequest { wanted, ..request(0, 0, &[], &[]) };
    let asked = sessions.ask(asked, now).unwrap();
    let answers = vec![quiet(0); asked.partitions.len()];
    sessions.record(&asked, &answers, SESSIONS_MAX, now).0
}

/// A client can send a name of 32 KB as easily as any other, and no topic can have it.
#[test]
fn a_name_that_no_topic_can_have_is_answered_and_not_kept() {
    let sessions = FetchSessions::new(BYTES_MAX);
    let (long, short) = ("n".repeat(TOPIC_NAME_LENGTH_MAX + 1), "n".repeat(TOPIC_NAME_LENGTH_MAX));
    assert_eq!(open(&sessions, vec![named(&long, 0)], 0), 0, "nothing is left to remember");
    let id = open(&sessions, vec![named(&long, 0), named(&short, 0)], 0);
    assert_eq!(sessions.size(), (1, 1));
    let more = SessionRequest {
        wanted: vec![named(&long, 1), named(&short, 1)],
        ..request(id, 1, &[], &[])
    };
    let asked = sessions.ask(more, 0).unwrap();
    assert_eq!(asked.partitions.len(), 3, "it is answered");
    let (_, included) = sessions.record(&asked, &[quiet(0), quiet(0), error()], SESSIONS_MAX, 0);
    assert_eq!(included, [false, true, true]);
    assert_eq!(sessions.size(), (1, 2));
}

/// As docs/memory.md says: as many sessions as there are slots, each as large as a request can be.
#[test]
fn all_sessions_together_take_no_more_than_their_bytes() {
    assert!(
        size_of::<(Key, Cached)>() + 2 * size_of::<usize>() <= PARTITION_BYTES * 3 / 4,
        "and a quarter for what is free in the table"
    );
    let sessions = FetchSessions::new(BYTES_MAX);
    let large = |session: i32| {
        (0..4_000)
            .map(|index| named(&format!("{session:0>100}{index:0>149}"), index))
            .collect::<Vec<_>>()
    };
    let opened = (0..).take_while(|session| open(&sessions, large(*session), 0) > 0).count();
    let each = 4_000 * (PARTITION_BYTES + TOPIC_NAME_LENGTH_MAX);
    assert_eq!(opened, BYTES_MAX / each);
    assert_eq!(sessions.inner.lock().bytes, opened * each);
    // A session that outgrows the bound ends.
    let grows = SessionRequest { wanted: large(-1), ..request(1, 1, &[], &[]) };
    let asked = sessions.ask(grows, 0).unwrap();
    assert_eq!(asked.partitions.len(), 8_000);
    assert_eq!(sessions.record(&asked, &vec![quiet(0); 8_000], SESSIONS_MAX, 0).0, 0);
    assert!(open(&sessions, large(-1), 0) > 0, "there is room again");
    // Idle sessions are evicted.
    assert_eq!(open(&sessions, large(-2), 0), 0);
    assert!(open(&sessions, large(-2), 2 * EVICTION_MS) > 0);
    assert!(sessions.inner.lock().bytes <= BYTES_MAX);
}

#[test]
fn epochs_go_round() {
    assert_eq!(next_epoch(i32::MAX), 1);
    assert_eq!(next_epoch(0), 1);
}

/// The size of the session decides which thread runs a request that names no partition.
#[test]
fn how_large_a_session_is_can_be_asked_beforehand() {
    let sessions = FetchSessions::new(BYTES_MAX);
    let id = open(&sessions, vec![named("a", 0), named("a", 1)], 0);
    assert_eq!((sessions.partitions_of(id), sessions.partitions_of(id + 1)), (2, 0));
    let more = SessionRequest { wanted: vec![named("a", 2)], ..request(id, 1, &[], &[]) };
    sessions.ask(more, 0).unwrap();
    assert_eq!((sessions.partitions_of(id), sessions.size()), (3, (1, 3)));
    sessions.ask(request(id, FINAL_EPOCH, &[], &[]), 0).unwrap();
    assert_eq!((sessions.partitions_of(id), sessions.size()), (0, (0, 0)));
}
