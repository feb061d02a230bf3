//! Resets: the offsets of each kind, and that each happens once, wherever the operator dies.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;
use weir_crds::ResetPhase;

use super::super::marks::{Mark, Marks};
use super::super::observed::Partition;
use super::super::reconcile::Action;
use super::super::reset::{Plan, UNDO_BYTES_MAX, pack, plan, unpack};
use super::*;

fn partition(index: i32) -> Partition {
    ("t".to_owned(), index)
}

fn set(
    group: &ConsumerGroup,
    status: &ConsumerGroupStatus,
    observed: &Observed,
) -> Result<Vec<Option<i64>>, &'static str> {
    match plan(group, status, group.spec.reset.as_ref().unwrap(), observed) {
        Plan::Set { after, .. } => {
            Ok((0..3).map(|index| after.get(&partition(index)).copied().flatten()).collect())
        }
        Plan::Wait(reason, _) => Err(reason),
    }
}

#[test]
fn each_kind_sets_its_offsets_within_the_log() {
    let mut group = observed("Empty", 0, &[(Some(5), 2, 10), (Some(8), 0, 9), (None, 0, 4)]);
    group.at_time = [(partition(0), 7), (partition(1), 9), (partition(2), 1)].into();
    let saved = ConsumerGroupStatus {
        undo: serde_json::from_value(json!([{"id": "r0", "offsets": "t=3,-"}])).unwrap(),
        ..ConsumerGroupStatus::default()
    };
    let rows = [
        (json!({"to": {"position": "Earliest"}}), Ok([Some(2), Some(0), None])),
        (json!({"to": {"position": "Latest"}}), Ok([Some(10), Some(9), None])),
        (json!({"to": {"position": "Earliest"}, "topics": ["t"]}), Ok([Some(2), Some(0), Some(0)])),
        (json!({"to": {"timestamp": "2026-01-01T00:00:00Z"}}), Ok([Some(7), Some(9), None])),
        (json!({"to": {"shift": -4}}), Ok([Some(2), Some(4), None])),
        (json!({"to": {"shift": 100}}), Ok([Some(10), Some(9), None])),
        (json!({"to": {"shift": i64::MIN}}), Ok([Some(2), Some(0), None])),
        (
            json!({"to": {"offsets": [{"topic": "t", "partition": 2, "offset": 99}]}}),
            Ok([None, None, Some(4)]),
        ),
        (
            json!({"to": {"offsets": [{"topic": "t", "partition": 3, "offset": 0}]}}),
            Err("UnknownPartition"),
        ),
        (json!({"to": {"undo": "r0"}}), Ok([Some(3), None, None])),
        (json!({"to": {"undo": "r9"}}), Err("NothingToUndo")),
        (json!({"to": {"position": "Latest"}, "topics": ["other"]}), Err("UnknownTopic")),
    ];
    group.unknown_topics.insert("other".to_owned());
    for (fields, expected) in rows {
        let mut fields = fields;
        fields["id"] = json!("r1");
        let resource = resource(json!({"reset": fields}));
        assert_eq!(
            set(&resource, &saved, &group),
            expected.map(|offsets| offsets.to_vec()),
            "{:?}",
            resource.spec.reset
        );
    }
    let latest = resource(json!({"reset": {"id": "r1", "to": {"position": "Latest"}}}));
    let nothing = ConsumerGroupStatus::default();
    assert_eq!(
        set(&latest, &nothing, &observed("Dead", 0, &[(None, 0, 4)])),
        Err("NothingToReset")
    );
    group.partitions.get_mut(&partition(1)).unwrap().end = None;
    assert_eq!(set(&latest, &nothing, &group), Err("PartitionOffline"));
}

#[test]
fn ten_thousand_partitions_can_be_undone_and_more_bytes_are_refused() {
    let offsets = |partitions: i32, offset: i64| -> BTreeMap<Partition, Option<i64>> {
        (0..partitions).map(|index| (partition(index), Some(offset))).collect()
    };
    assert!(pack(&offsets(10_000, i64::MAX)).len() <= UNDO_BYTES_MAX);
    let logs: Vec<_> = (0..20_000).map(|_| (Some(i64::MAX - 1), 0, i64::MAX)).collect();
    let latest = resource(json!({"reset": {"id": "r1", "to": {"position": "Latest"}}}));
    let status = ConsumerGroupStatus::default();
    assert_eq!(set(&latest, &status, &observed("Empty", 0, &logs)), Err("TooManyPartitions"));
}

proptest! {
    #[test]
    fn offsets_are_packed_and_come_back(offsets in proptest::collection::btree_map(("[a-z.]{1,4}", 0..50_i32), proptest::option::of(0..i64::MAX), 0..60)) {
        prop_assert_eq!(unpack(&pack(&offsets)), Some(offsets));
    }

    #[test]
    fn no_text_is_too_bad_to_be_read(text in ".{0,200}") {
        let _ = unpack(&text);
    }
}

/// A group, its coordinator and its stored status: what survives the operator.
struct World {
    observed: Observed,
    marks: BTreeMap<i32, Mark>,
    status: ConsumerGroupStatus,
    resets: usize,
    evicted: usize,
}

impl World {
    fn new(members: usize) -> Self {
        let state = if members > 0 { "Stable" } else { "Empty" };
        Self {
            observed: observed(state, members, &[(Some(5), 0, 10), (Some(6), 0, 10)]),
            marks: BTreeMap::new(),
            status: ConsumerGroupStatus::default(),
            resets: 0,
            evicted: 0,
        }
    }

    /// One look of an operator that dies after `steps` writes and actions; returns how many there
    /// would have been.
    fn look(&mut self, resource: &ConsumerGroup, steps: usize) -> usize {
        let decision =
            decide(resource, &self.status, &self.observed, &mut Memory::default(), 1_000);
        let writes = usize::from(decision.status != self.status);
        let all = writes + decision.actions.len();
        if writes > 0 {
            if steps == 0 {
                return all;
            }
            self.status = decision.status;
        }
        for action in decision.actions.into_iter().take(steps - writes.min(steps)) {
            self.act(action);
        }
        all
    }

    fn run(&mut self, resource: &ConsumerGroup, looks: usize) {
        for _ in 0..looks {
            self.look(resource, usize::MAX);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Evict(members) => {
                self.evicted += members.len();
                self.observed.members.clear();
            }
            Action::Commit(offsets, mark) if self.observed.members.is_empty() => {
                self.resets += 1;
                for (partition, offset) in offsets {
                    self.observed.partitions.get_mut(&partition).unwrap().committed = Some(offset);
                }
                self.marks.insert(mark.slot(), mark);
                self.observed.marks = Some(Marks::new(self.marks.values().copied()));
            }
            Action::Forget(partitions) => {
                for partition in partitions {
                    self.observed.partitions.get_mut(&partition).unwrap().committed = None;
                }
            }
            Action::Commit(..) | Action::Scale(_) => {}
        }
    }

    /// Consumers join, commit and leave.
    fn consume(&mut self) {
        for log in self.observed.partitions.values_mut() {
            log.committed = Some(log.committed.unwrap_or(0).max(3) + 1);
        }
    }
}

fn evicting() -> ConsumerGroup {
    resource(json!({"reset": {"id": "r1", "to": {"position": "Earliest"}, "members": "Evict"}}))
}

/// The offsets are reset once, wherever the operator dies and whatever consumers commit meanwhile.
#[test]
fn a_reset_is_carried_out_once_wherever_the_operator_dies() {
    let group = evicting();
    for dies_in in 0..5 {
        for after in 0..5 {
            let mut world = World::new(2);
            for look in 0..6 {
                let steps = if look == dies_in { after } else { usize::MAX };
                world.look(&group, steps);
                if world.resets > 0 {
                    world.consume();
                }
            }
            let last = world.status.last_reset.clone().unwrap();
            assert_eq!(
                (world.resets, last.phase, last.partitions),
                (1, ResetPhase::Done, 2),
                "look {dies_in} after {after}"
            );
            assert_eq!(world.status.undo[0].offsets, "t=5,6");
            world.look(&group, usize::MAX);
            assert_eq!(world.look(&group, usize::MAX), 0, "nothing is written at rest");
        }
    }
}

#[test]
fn an_undo_restores_what_was_there_and_another_one_undoes_it() {
    let mut world = World::new(0);
    world.observed.partitions.get_mut(&partition(1)).unwrap().committed = None;
    let run = |world: &mut World, reset: Value| {
        let group = resource(json!({"topics": ["t"], "reset": reset}));
        world.run(&group, 4);
        let at: Vec<_> = world.observed.partitions.values().map(|log| log.committed).collect();
        (at, says(&world.status, "ResetDone"))
    };
    let done = "True/Done".to_owned();
    assert_eq!(
        run(&mut world, json!({"id": "a", "to": {"position": "Latest"}})),
        (vec![Some(10), Some(10)], done.clone())
    );
    assert_eq!(
        run(&mut world, json!({"id": "b", "to": {"undo": "a"}})),
        (vec![Some(5), None], done.clone())
    );
    assert_eq!(
        run(&mut world, json!({"id": "c", "to": {"undo": "b"}})),
        (vec![Some(10), Some(10)], done)
    );
    let kept: Vec<&str> = world.status.undo.iter().map(|saved| saved.id.as_str()).collect();
    assert_eq!(kept, ["c", "b"]);
    assert_eq!(world.resets, 3);
}

#[test]
fn it_waits_for_members_to_leave_unless_they_are_to_be_evicted() {
    let waiting = resource(json!({"reset": {"id": "r1", "to": {"position": "Earliest"}}}));
    let mut world = World::new(2);
    world.run(&waiting, 3);
    assert_eq!((world.resets, world.evicted), (0, 0));
    assert_eq!(says(&world.status, "ResetDone"), "False/WaitingForMembers");
    assert_eq!(says(&world.status, "Ready"), "False/WaitingForMembers");
    assert_eq!(world.status.last_reset.as_ref().unwrap().phase, ResetPhase::Waiting);
    world.observed.members.clear();
    world.run(&waiting, 3);
    assert_eq!((world.resets, says(&world.status, "Ready")), (1, "True/Ready".to_owned()));

    let mut world = World::new(2);
    world.run(&evicting(), 3);
    assert_eq!((world.resets, world.evicted), (1, 2));
}

/// A reset that is withdrawn after it was carried out, before the status says so.
#[test]
fn a_reset_that_is_taken_back_too_late_is_done() {
    let mut world = World::new(0);
    world.look(&evicting(), usize::MAX);
    assert_eq!(world.status.last_reset.as_ref().unwrap().phase, ResetPhase::Committing);
    let without = resource(json!({}));
    world.run(&without, 2);
    assert_eq!(world.status.last_reset.unwrap().phase, ResetPhase::Done);
}

/// Applying the same resources again, after a deletion or from an earlier commit, repeats no reset.
#[test]
fn a_reset_is_not_carried_out_again_when_the_resource_is_made_again() {
    let reset = |id: &str, uid: &str| {
        let mut group = resource(json!({"reset": {"id": id, "to": {"position": "Earliest"}}}));
        group.metadata.uid = Some(uid.to_owned());
        group
    };
    let mut world = World::new(0);
    world.run(&reset("r1", "u-1"), 3);
    world.run(&reset("r2", "u-1"), 3);
    world.consume();
    assert_eq!(world.resets, 2);
    for (id, uid) in [("r2", "u-2"), ("r1", "u-3")] {
        world.status = ConsumerGroupStatus::default();
        world.run(&reset(id, uid), 3);
        assert_eq!(
            (world.resets, says(&world.status, "ResetDone")),
            (2, "True/Done".to_owned()),
            "{id}"
        );
        assert_eq!(world.look(&reset(id, uid), usize::MAX), 0, "nothing is written at rest");
    }

    // The group was deleted in Kafka, so it is another one.
    world.marks.clear();
    world.observed.marks = Some(Marks::default());
    world.status = ConsumerGroupStatus::default();
    world.run(&reset("r1", "u-4"), 3);
    assert_eq!(world.resets, 3);
}

/// Brokers are upgraded after the operator. A broker that cannot store the mark gets no reset, and
/// no members are evicted for it.
#[test]
fn a_coordinator_that_cannot_remember_a_reset_gets_none() {
    let mut world = World::new(2);
    world.observed.marks = None;
    world.run(&evicting(), 2);
    assert_eq!((world.resets, world.evicted), (0, 0));
    assert_eq!(says(&world.status, "ResetDone"), "False/BrokerTooOld");
    world.observed.marks = Some(Marks::default());
    world.run(&evicting(), 3);
    assert_eq!((world.resets, says(&world.status, "ResetDone")), (1, "True/Done".to_owned()));
}
