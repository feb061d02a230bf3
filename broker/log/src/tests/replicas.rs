//! A leader's log and its follower's, with overlapping transactions. Whatever happens to either,
//! the transactions of both match their batches.

use proptest::prelude::*;
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::super::cleaner::{OffsetMap, assess_from, clean};
use super::super::producers::{Marker, marker_batch};
use super::*;

/// A write.
#[derive(Clone, Copy, Debug)]
enum Write {
    /// A record without a producer, with this key.
    Plain(u8),
    /// A record in a producer's transaction, with this key.
    Data(i64, u8),
    /// The marker of its transaction: true commits. For an odd producer it raises the epoch
    /// (transactions v2).
    End(i64, bool),
}

/// The replica.
#[derive(Clone, Copy, Debug)]
enum At {
    Leader = 0,
    Follower = 1,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// One append of these writes, which the writer takes as one run.
    Append([Write; 4]),
    /// The follower appends this many batches at once, and a part of the next one.
    CatchUp(usize),
    Roll(At),
    Flush(At),
    Checkpoint(At),
    /// A clean stop and start.
    Stop(At),
    /// The process dies and comes back.
    Kill(At),
    /// The machine loses power and comes back.
    Crash(At, u64),
    /// The follower cuts off this many records.
    Cut(i64),
    /// The follower empties its log and begins at its leader's log start offset.
    BeginAnew,
    /// This many records are deleted at the start.
    Delete(i64),
    Compact(At),
    /// The follower leads, and the leader follows it.
    Elect,
}

fn step() -> impl Strategy<Value = Step> {
    let write = prop_oneof![
        1 => (0..4_u8).prop_map(Write::Plain),
        4 => (1..4_i64, 0..4_u8).prop_map(|(producer, key)| Write::Data(producer, key)),
        3 => (1..4_i64, any::<bool>()).prop_map(|(producer, commits)| Write::End(producer, commits)),
    ];
    let at = || prop_oneof![Just(At::Leader), Just(At::Follower)];
    prop_oneof![
        9 => [write.clone(), write.clone(), write.clone(), write].prop_map(Step::Append),
        6 => (1..12_usize).prop_map(Step::CatchUp),
        2 => Just(Step::CatchUp(usize::MAX)),
        1 => at().prop_map(Step::Roll),
        1 => at().prop_map(Step::Flush),
        1 => at().prop_map(Step::Checkpoint),
        1 => at().prop_map(Step::Stop),
        1 => at().prop_map(Step::Kill),
        1 => (at(), any::<u64>()).prop_map(|(at, seed)| Step::Crash(at, seed)),
        1 => (1..12_i64).prop_map(Step::Cut),
        1 => Just(Step::BeginAnew),
        1 => (1..12_i64).prop_map(Step::Delete),
        1 => at().prop_map(Step::Compact),
        2 => Just(Step::Elect),
    ]
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 800,
        cleanup: Cleanup { delete: false, compact: true },
        dirty_ratio_min: 0.0,
        delete_retention_ms: 0,
        ..super::config()
    }
}

#[derive(Debug)]
struct Replica {
    fs: Faulty,
    /// `None` while it is down.
    opened: Option<Opened>,
    /// Nothing was deleted or compacted, here or on the replica it came from.
    whole: bool,
}

impl Replica {
    fn new() -> Self {
        let fs = Faulty::default();
        let opened = Some(Opened::with(&fs, config()).unwrap());
        Self { fs, opened, whole: true }
    }

    fn up(&mut self) -> &mut Opened {
        self.opened.as_mut().unwrap()
    }

    /// Stops, and starts again with the part of the disk that `left` keeps.
    fn again(&mut self, left: impl FnOnce(&Faulty) -> Faulty) {
        self.opened = None;
        self.fs = left(&self.fs);
        self.opened = Some(Opened::with(&self.fs, config()).unwrap());
    }

    fn compact(&mut self) {
        let opened = self.up();
        opened.flush();
        opened.dir.checkpoint().unwrap();
        opened.writer.load_transactions(1_000).unwrap();
        opened.log.advance_high_watermark(opened.log.log_end_offset());
        let Some(plan) = assess_from(&opened.log, &config(), 0, 1_000) else {
            return;
        };
        let mut map = OffsetMap::new(100, [7; 16]);
        let last_records = opened.writer.last_records(1_000).unwrap();
        let cleaned =
            clean(&opened.log, &config(), &plan, &mut map, &last_records, 1_000).unwrap().unwrap();
        assert!(cleaned.swap_in(&mut opened.writer).unwrap());
        self.whole = false;
    }
}

#[derive(Debug)]
struct World {
    replicas: [Replica; 2],
    /// Each batch that the leader ever had up to its end, with the offset after it.
    history: Vec<(i64, Vec<u8>)>,
    epochs: [i16; 4],
    leader_epoch: i32,
    /// Both replicas had everything before it when one of them was compacted. It is committed and
    /// is not cut any more.
    committed: i64,
    /// Whether to check a replica's transactions after each step, or only when they are loaded
    /// anyway.
    asks: bool,
}

impl World {
    fn new(asks: bool) -> Self {
        Self {
            replicas: [Replica::new(), Replica::new()],
            history: Vec::new(),
            epochs: [0; 4],
            leader_epoch: 0,
            committed: 0,
            asks,
        }
    }

    fn at(&mut self, at: At) -> &mut Replica {
        &mut self.replicas[at as usize]
    }

    fn end(&mut self, at: At) -> i64 {
        self.at(at).up().log.log_end_offset()
    }

    fn bytes(&mut self, write: Write) -> BytesMut {
        let of = |id: i64, epoch| {
            let builder = BatchBuilder::new(0).producer(ProducerId(id), ProducerEpoch(epoch), -1);
            builder.transactional()
        };
        let (mut builder, key) = match write {
            Write::Plain(key) => (BatchBuilder::new(0), key),
            Write::Data(id, key) => (of(id, self.epochs[id as usize]), key),
            Write::End(id, commit) => {
                let epoch = &mut self.epochs[id as usize];
                *epoch += (id % 2) as i16;
                let marker = Marker {
                    producer: ProducerId(id),
                    epoch: ProducerEpoch(*epoch),
                    coordinator_epoch: 0,
                    commit,
                    transaction_version: 1 + (id % 2) as i8,
                };
                return marker_batch(&marker, 1_000).unwrap();
            }
        };
        builder.append(0, 1_000, Some(&[key]), Some(&[7; 60]), []);
        builder.build(0).unwrap()
    }

    fn append(&mut self, writes: &[Write]) {
        let mut bytes = BytesMut::new();
        for write in writes {
            let batch = self.bytes(*write);
            bytes.extend_from_slice(&batch);
            let (mut stamped, base) = (batch, self.history.last().map_or(0, |(next, _)| *next));
            batch::set_offset_and_epoch(&mut stamped, base, LeaderEpoch(self.leader_epoch));
            self.history.push((base + 1, stamped.to_vec()));
        }
        let epoch = self.leader_epoch;
        self.at(At::Leader).up().append_from(Origin::Coordinator, bytes, epoch).unwrap();
        assert_eq!(self.end(At::Leader), self.history.last().unwrap().0);
    }

    fn catch_up(&mut self, count: usize) {
        let [leader, follower] = &mut self.replicas;
        let (leading, following) =
            (leader.opened.as_ref().unwrap(), follower.opened.as_mut().unwrap());
        let (start, end) = (leading.log.log_start_offset(), following.log.log_end_offset());
        follower.whole &= leader.whole;
        if end < start {
            following.writer.truncate_fully_and_start_at(start).unwrap();
            follower.whole = false;
        }
        let end = following.log.log_end_offset();
        let batches: Vec<_> = leading.batches().unwrap();
        let mut missing = batches
            .iter()
            .filter(|(_, bytes)| BatchHeader::parse(bytes).unwrap().next_offset() > end);
        let mut bytes: Vec<u8> =
            missing.by_ref().take(count).flat_map(|(_, bytes)| bytes.clone()).collect();
        bytes.extend(missing.next().map(|(_, next)| &next[..next.len() / 2]).unwrap_or_default());
        let epoch = LeaderEpoch(self.leader_epoch);
        let follow = |writer: &mut LogWriter| writer.append_as_follower(&bytes, epoch, 1_000);
        match follow(&mut following.writer) {
            Err(FollowError::Offset { first, .. }) if first < end => {
                following.writer.truncate_fully_and_start_at(first).unwrap();
                follow(&mut following.writer).unwrap();
            }
            followed => drop(followed.unwrap()),
        }
        following.settle();
        following.log.advance_high_watermark(start.min(following.log.log_end_offset()));
        following.writer.advance_log_start_offset(start).unwrap();
    }

    /// The leader has lost its end, so the follower loses it too.
    fn shortened(&mut self) {
        let end = self.end(At::Leader);
        self.history.retain(|(next, _)| *next <= end);
        let follower = self.at(At::Follower).up();
        follower.writer.truncate_to(end).unwrap();
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Append(writes) => self.append(&writes),
            Step::CatchUp(count) => self.catch_up(count),
            Step::Roll(at) => self.at(at).up().writer.roll(1_000).unwrap(),
            Step::Flush(at) => self.at(at).up().flush(),
            Step::Checkpoint(at) => self.at(at).up().dir.checkpoint().unwrap(),
            Step::Stop(at) => {
                self.at(at).up().close().unwrap();
                self.at(at).again(Faulty::clone);
            }
            Step::Kill(at) => self.at(at).again(Faulty::after_kill),
            Step::Crash(at, seed) => {
                self.at(at).again(|fs| fs.after_crash(seed));
                self.shortened();
            }
            Step::Cut(records) => {
                let to = (self.end(At::Follower) - records).max(self.committed);
                self.at(At::Follower).up().writer.truncate_to(to).unwrap();
            }
            Step::BeginAnew => {
                let start = self.at(At::Leader).up().log.log_start_offset();
                let follower = self.at(At::Follower);
                follower.whole &= start == 0;
                follower.up().writer.truncate_fully_and_start_at(start).unwrap();
            }
            Step::Delete(records) => {
                let leader = self.at(At::Leader);
                leader.whole = false;
                let opened = leader.up();
                opened.log.advance_high_watermark(opened.log.log_end_offset());
                let to = opened.log.log_start_offset() + records;
                opened.writer.advance_log_start_offset(to).unwrap();
            }
            Step::Compact(at) => {
                let ends = [At::Leader, At::Follower].map(|at| self.end(at));
                if ends[0] == ends[1] {
                    self.committed = ends[0];
                    self.at(at).compact();
                }
            }
            Step::Elect => {
                let end = self.end(At::Follower);
                if end >= self.committed {
                    self.replicas.swap(0, 1);
                    self.leader_epoch += 1;
                    self.shortened();
                }
            }
        }
    }

    fn check(&mut self, asks: bool) {
        for Replica { opened, whole, .. } in &mut self.replicas {
            let opened = opened.as_mut().unwrap();
            let end = opened.log.log_end_offset();
            if asks || opened.has_been_asked() {
                let history = self.history.iter().filter(|(next, _)| *next <= end);
                let history = history.map(|(_, bytes)| &bytes[..]);
                opened.tells_what_its_batches_say(history, *whole, end);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 2, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_tell_what_their_batches_say(steps in prop::collection::vec(step(), 1..40), asks: bool) {
        let mut world = World::new(asks);
        for step in steps {
            world.run(step);
            let asks = world.asks;
            world.check(asks);
        }
        for step in [Step::Stop(At::Leader), Step::Kill(At::Follower), Step::CatchUp(usize::MAX), Step::Elect] {
            world.run(step);
            world.check(true);
        }
    }
}

/// Compaction leaves an empty control batch for the epoch of a producer, and a follower that begins
/// anew learns the epoch from it.
#[test]
fn a_follower_begins_anew_behind_an_emptied_marker() {
    let mut world = World::new(false);
    let ends = [Write::Plain(0), Write::Plain(0), Write::End(1, false), Write::End(1, false)];
    let steps = [
        Step::Append(ends),
        Step::Append([Write::Plain(0), Write::Plain(0), Write::Plain(0), Write::Plain(0)]),
        Step::CatchUp(usize::MAX),
        Step::Compact(At::Leader),
        Step::Compact(At::Leader),
        Step::BeginAnew,
        Step::CatchUp(usize::MAX),
    ];
    for step in steps {
        world.run(step);
    }
    world.check(true);
}
