//! Committed offsets compared with the log. The last record of a partition counts that belongs to
//! no open or aborted transaction, and a tombstone ends all records before it. The coordinator must
//! say the same, and so must the next one, which reads the log before or after its compaction.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use weir_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use weir_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use weir_protocol::messages::{OffsetCommitRequest, OffsetDeleteRequest};
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::world::{World, topic_id};
use crate::coordinator::harness::Entry;
use crate::coordinator::{Logged, Now, Outcome, ReplyTo, StateMachine};
use crate::group::record::{Change, read};
use crate::group::{Groups, Request};

/// A group, and a partition of topic `a`.
type Key = (&'static str, i32);

const GROUPS: [&str; 2] = ["g", "h"];
const KEYS: [Key; 3] = [("g", 0), ("g", 1), ("h", 0)];
/// Topic `a` as created first, created anew, and deleted.
const TOPICS: [&[(&str, usize)]; 3] = [&[("a", 2)], &[("a@2", 2)], &[]];
const EPOCH: ProducerEpoch = ProducerEpoch(0);

#[derive(Clone, Debug)]
enum Step {
    /// A commit, and whether it has the topic's id.
    Commit(Key, bool),
    CommitIn(i64, Key, bool),
    End(i64, bool),
    DeleteOffset(Key),
    DeleteGroup(&'static str),
    Topics(usize),
    Wait,
    FailOver,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || prop::sample::select(KEYS.to_vec());
    let producer = || 1..4_i64;
    prop_oneof![
        6 => (key(), prop::bool::weighted(0.8)).prop_map(|(key, id)| Step::Commit(key, id)),
        8 => (producer(), key(), prop::bool::weighted(0.8)).prop_map(|(producer, key, id)| Step::CommitIn(producer, key, id)),
        6 => (producer(), prop::bool::weighted(0.7)).prop_map(|(producer, commit)| Step::End(producer, commit)),
        2 => key().prop_map(Step::DeleteOffset),
        1 => prop::sample::select(GROUPS.to_vec()).prop_map(Step::DeleteGroup),
        1 => (0..TOPICS.len()).prop_map(Step::Topics),
        1 => Just(Step::Wait),
        1 => Just(Step::FailOver),
    ]
}

/// The answer for a partition: the offset, and whether it is stable.
type Known = (Option<i64>, bool);

/// The answer for a partition according to the log.
fn truth(log: &[Entry], key: Key) -> Known {
    // The offset, `None` for a tombstone, and the open transaction that it is part of.
    let mut written: Vec<(Option<i64>, Option<ProducerId>)> = Vec::new();
    for entry in log {
        match entry {
            Entry::Record(record, transaction) => {
                let logged = Logged {
                    key: &record.key,
                    value: record.value.as_deref(),
                    transaction: *transaction,
                };
                let Ok(Change::Offset(of, value)) = read(&logged) else { continue };
                if (of.group.as_str(), of.partition) != key {
                    continue;
                }
                match value {
                    Some(value) => written
                        .push((Some(value.offset), transaction.map(|(producer, _)| producer))),
                    None => written.clear(),
                }
            }
            Entry::End(ended, _, true) => {
                for (_, producer) in &mut written {
                    *producer = producer.filter(|producer| producer != ended);
                }
            }
            Entry::End(ended, ..) => written.retain(|(_, producer)| *producer != Some(*ended)),
        }
    }
    let last = written.iter().rev().find(|(_, producer)| producer.is_none());
    (last.and_then(|(offset, _)| *offset), written.iter().all(|(_, producer)| producer.is_none()))
}

/// The coordinator's answer for a partition.
fn said(machine: &mut Groups, (group, partition): Key) -> Known {
    let mut ask = |require_stable| {
        let request = OffsetFetchRequestGroup {
            group_id: group.to_owned(),
            member_epoch: -1,
            topics: Some(vec![OffsetFetchRequestTopics {
                name: "a".to_owned(),
                partition_indexes: vec![partition],
                ..Default::default()
            }]),
            ..Default::default()
        };
        let (to, mut answer) = ReplyTo::new();
        let mut outcome = Outcome::default();
        machine.decide(
            Request::Fetch { request, require_stable, to },
            Now::default(),
            &mut outcome,
        );
        for reply in outcome.replies {
            reply.send(None);
        }
        let (answer, _) = answer.try_recv().unwrap();
        answer.topics[0].partitions[0].clone()
    };
    let found = ask(false).committed_offset;
    let is_stable = ask(true).error_code == 0;
    ((found >= 0).then_some(found), is_stable)
}

/// The state of a history.
struct History {
    world: World,
    /// The current topic `a`.
    topic: Option<&'static str>,
    /// The next offset to commit. Each offset is unique, and belongs to the topic of its time.
    next: i64,
    meant: BTreeMap<i64, &'static str>,
}

impl History {
    fn new() -> Self {
        Self {
            world: World::with_topics(&[("offsets.retention.minutes", "60")], TOPICS[0]),
            topic: Some("a"),
            next: 0,
            meant: BTreeMap::new(),
        }
    }

    fn commit(&mut self, (group, partition): Key, says_id: bool) -> Option<OffsetCommitRequest> {
        let topic = self.topic?;
        self.next += 1;
        self.meant.insert(self.next, topic);
        Some(OffsetCommitRequest {
            group_id: group.to_owned(),
            generation_id_or_member_epoch: -1,
            topics: vec![OffsetCommitRequestTopic {
                name: "a".to_owned(),
                topic_id: if says_id { topic_id(topic) } else { Default::default() },
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: partition,
                    committed_offset: self.next,
                    ..Default::default()
                }],
            }],
            retention_time_ms: -1,
            ..Default::default()
        })
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Commit(key, says_id) => {
                let Some(request) = self.commit(key, says_id) else { return };
                self.world.ask(|to| Request::Commit { request, version: 9, to }).expect();
            }
            Step::CommitIn(producer, key, says_id) => {
                let Some(request) = self.commit(key, says_id) else { return };
                let producer = (ProducerId(producer), EPOCH);
                self.world
                    .ask(|to| Request::CommitInTransaction { request, producer, to })
                    .expect();
            }
            Step::End(producer, commit) => {
                self.world.end_transaction(ProducerId(producer), EPOCH, commit)
            }
            Step::DeleteOffset((group, partition)) => {
                let request = OffsetDeleteRequest {
                    group_id: group.to_owned(),
                    topics: vec![OffsetDeleteRequestTopic {
                        name: "a".to_owned(),
                        partitions: vec![OffsetDeleteRequestPartition {
                            partition_index: partition,
                        }],
                    }],
                };
                self.world.ask(|to| Request::DeleteOffsets { request, to }).expect();
                assert_eq!(
                    said(&mut self.world.machine, (group, partition)),
                    (None, true),
                    "it was deleted"
                );
            }
            Step::DeleteGroup(group) => {
                let id = group.to_owned();
                self.world.ask(|to| Request::Delete { group: id, to }).expect();
                for key in KEYS.into_iter().filter(|(of, _)| *of == group) {
                    assert_eq!(
                        said(&mut self.world.machine, key),
                        (None, true),
                        "its group was deleted"
                    );
                }
            }
            Step::Topics(which) => {
                self.topic = TOPICS[which].first().map(|(label, _)| *label);
                self.world.topics(TOPICS[which]);
            }
            Step::Wait => self.world.pass(4_000_000),
            Step::FailOver => self.world.fail_over(),
        }
    }

    /// Checks that the coordinator says what the log says, and that no offset of a deleted topic
    /// remains.
    fn check(&mut self) {
        let (mut next, wrong) = self.world.read();
        assert!(wrong.is_empty());
        for key in KEYS {
            let expected = truth(&self.world.log, key);
            assert_eq!(said(&mut self.world.machine, key), expected, "{key:?}");
            assert_eq!(said(&mut next, key), expected, "{key:?} of the next coordinator");
            if let Some(offset) = expected.0 {
                assert_eq!(
                    self.topic,
                    self.meant.get(&offset).copied(),
                    "{key:?} at {offset} is of another topic"
                );
            }
        }
    }

    /// Checks a coordinator that reads the compacted log.
    fn check_compacted(&self, rounds: i64) {
        let mut compacted = self.world.read_compacted(rounds);
        for key in KEYS {
            assert_eq!(
                said(&mut compacted, key),
                truth(&self.world.log, key),
                "{key:?} after {rounds} rounds"
            );
        }
    }
}

proptest! {
    #[test]
    fn what_is_committed_is_what_the_log_says(steps in prop::collection::vec(step(), 1..40)) {
        let mut history = History::new();
        for step in &steps {
            history.play(step);
            history.check();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, ..ProptestConfig::default() })]
    #[test]
    fn compaction_changes_no_answer(steps in prop::collection::vec(step(), 1..40), rounds in 1..3_i64) {
        let mut history = History::new();
        for step in &steps {
            history.play(step);
        }
        history.check_compacted(rounds);
    }
}
