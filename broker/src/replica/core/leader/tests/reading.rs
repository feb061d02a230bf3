//! What followers and consumers may read, and the low watermark.

use super::*;

#[test]
fn where_logs_part() {
    let mut epochs = Epochs::default();
    for (epoch, start) in [(1, 0), (3, 10), (5, 20)] {
        epochs.assign(LeaderEpoch(epoch), start);
    }
    let end_of_epoch = |epoch| epochs.end_of(epoch, 4, 30);
    let log = OwnLog {
        start: 4,
        end: 30,
        had: 30,
        latest_epoch: epochs.latest(),
        end_of_epoch: &end_of_epoch,
    };
    // Replica, leader epoch, last fetched epoch, offset.
    let parted = |epoch, offset| Ok(Some((epoch, offset)));
    let rows = [
        (1, 5, Some(5), 30, Ok(None)),
        (1, 5, Some(3), 20, Ok(None)),
        (1, 5, Some(3), 15, Ok(None)),
        (1, 5, Some(3), 21, parted(3, 20)),
        (1, 5, Some(4), 15, parted(3, 20)),
        (1, 5, Some(5), 31, parted(5, 30)),
        (1, 5, Some(1), 3, Err(ErrorCode::OffsetOutOfRange)),
        (1, 5, Some(6), 30, Err(ErrorCode::OffsetOutOfRange)),
        (1, 5, None, 4, Ok(None)),
        (1, 5, None, 0, Err(ErrorCode::OffsetOutOfRange)),
        (1, 5, None, 31, Err(ErrorCode::OffsetOutOfRange)),
        (1, 4, Some(3), 20, Err(ErrorCode::FencedLeaderEpoch)),
        (1, 6, Some(3), 20, Err(ErrorCode::UnknownLeaderEpoch)),
        (9, 5, Some(3), 20, Err(ErrorCode::UnknownLeaderEpoch)),
    ];
    let leader = leader_of(&[0, 1], 1, 20, 20);
    for (replica, epoch, last, offset, expected) in rows {
        let fetch = FetchFrom {
            offset,
            last_fetched_epoch: last.map(LeaderEpoch),
            current_leader_epoch: LeaderEpoch(epoch),
            log_start: 0,
        };
        let found = leader.examine(BrokerId(replica), &fetch, &log);
        assert_eq!(
            found.map(|parted| parted.map(|end| (end.epoch.0, end.offset))),
            expected,
            "{fetch:?}"
        );
    }
}

#[test]
fn a_consumer_reads_from_its_own_rack() {
    // ISR, the consumer's rack, its offset, and the replica that it should read from. Broker 1 has
    // 2 to 8, broker 2 has 4 to 10.
    let rows: &[(&[i32], &[i32], i64, Option<i32>)] = &[
        (&[0, 1, 2], &[], 5, None),
        (&[0, 1, 2], &[1], 5, Some(1)),
        (&[0, 1, 2], &[1], 9, None),
        (&[0, 1, 2], &[1], 1, None),
        (&[0, 1, 2], &[1, 2], 5, Some(2)),
        (&[0, 1, 2], &[1, 2], 3, Some(1)),
        (&[0, 1, 2], &[0, 1, 2], 5, None),
        (&[0, 1], &[2], 5, None),
    ];
    for &(isr, rack, offset, expected) in rows {
        let mut leader = leader_of(isr, 1, 0, 0);
        for (id, log_start, end) in [(1, 2, 8), (2, 4, 10)] {
            let fetch = Fetched { log_start, ..fetch(id, end) };
            let _ = leader.fetched(fetch, ends(10), &all_alive, 0).unwrap();
        }
        let in_rack = |id: BrokerId| rack.contains(&id.0);
        assert_eq!(
            leader.preferred_read_replica(offset, &in_rack, 0),
            expected.map(BrokerId),
            "{isr:?} {rack:?} {offset}"
        );
    }
}

#[test]
fn the_low_watermark_is_the_least_of_the_living() {
    let mut leader = leader_of(&[0, 1], 1, 0, 0);
    assert_eq!(leader.low_watermark(6, &all_alive), -1, "not known yet");
    for (id, log_start) in [(1, 4), (2, 1)] {
        let _ = leader
            .fetched(Fetched { log_start, ..fetch(id, 10) }, ends(10), &all_alive, 0)
            .unwrap();
    }
    assert_eq!(leader.low_watermark(6, &all_alive), 1);
    let fenced = |id: BrokerId| all_alive(id).map(|peer| Peer { fenced: id.0 == 2, ..peer });
    assert_eq!(leader.low_watermark(6, &fenced), 4);
    assert_eq!(leader.low_watermark(3, &fenced), 3);
}
