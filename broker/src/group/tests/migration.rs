//! Groups that change their protocol while they have members (KIP-848), with clients of both
//! protocols and with failovers of the coordinator.

use std::collections::BTreeSet;

use weir_protocol::error::ErrorCode;

use super::classic_client::Classic;
use super::consumer::Consumer;
use super::world::{World, topic_id};

/// The members of a group, and the number of decisions between two failovers of the coordinator; 0
/// for no failover.
struct Town {
    world: World,
    classic: Vec<Classic>,
    consumers: Vec<Consumer>,
    failover_after: usize,
    decisions: usize,
}

impl Town {
    fn new(failover_after: usize) -> Self {
        Self {
            world: World::new(&[("group.initial.rebalance.delay.ms", "100")]),
            classic: Vec::new(),
            consumers: Vec::new(),
            failover_after,
            decisions: 0,
        }
    }

    fn step(&mut self) {
        self.decisions += 1;
        // A classic group, whose members wait for each other, needs some time without a failover.
        let is_due = self.failover_after > 0 && self.decisions.is_multiple_of(self.failover_after);
        if is_due && (self.failover_after > 9 || self.world.kind() == "consumer") {
            self.world.fail_over();
            for client in &mut self.classic {
                client.reconnect(&mut self.world);
            }
        }
        self.check();
    }

    /// Checks that no partition has two owners; returns the number of owned partitions.
    fn check(&self) -> usize {
        let mut owned = BTreeSet::new();
        let mut count = 0;
        for client in &self.classic {
            owned.extend(client.owned.iter().map(|(topic, index)| (topic_id(topic), *index)));
            count += client.owned.len();
        }
        for client in &self.consumers {
            for (topic, indexes) in &client.owned {
                owned.extend(indexes.iter().map(|index| (*topic, *index)));
                count += indexes.len();
            }
        }
        assert_eq!(
            owned.len(),
            count,
            "two owners, after {} decisions with a failover after each {}: {:?} {:?}",
            self.decisions,
            self.failover_after,
            self.classic,
            self.consumers
        );
        count
    }

    /// Runs all clients in turn until the group is stable and every partition is owned.
    fn settle(&mut self) {
        for _ in 0..60 {
            for index in 0..self.classic.len() {
                let client = &mut self.classic[index];
                client.turn(&mut self.world);
                self.step();
            }
            for index in 0..self.consumers.len() {
                let response = self.consumers[index].beat(&mut self.world);
                assert_eq!(response.error_code, 0, "{}: {response:?}", self.consumers[index].id);
                self.step();
            }
            self.world.pass(200);
            let is_still =
                self.classic.iter().all(Classic::is_settled) && self.world.state() == "Stable";
            if is_still && self.check() == 5 {
                return;
            }
        }
        panic!("not settled: {}, {} of 5 partitions", self.world.state(), self.check());
    }

    fn upgrade_and_back(&mut self, cooperative: bool) {
        for _ in 0..3 {
            self.classic.push(Classic::new(&["a", "b"], cooperative));
            self.settle();
        }
        assert_eq!(self.world.kind(), "classic");
        for (count, name) in (1..).zip(["one", "two", "three"]) {
            self.consumers.push(Consumer::new(name, &["a", "b"]));
            self.settle();
            assert_eq!(self.world.kind(), "consumer");
            self.leave_classic();
            self.settle();
            assert_eq!((self.classic.len(), self.consumers.len()), (3 - count, count));
        }
        // And back, one by one.
        for left in (0..3).rev() {
            self.classic.push(Classic::new(&["a", "b"], cooperative));
            self.settle();
            assert_eq!(self.world.kind(), "consumer");
            let mut leaving = self.consumers.remove(0);
            leaving.epoch = -1;
            assert_eq!(leaving.beat(&mut self.world).error_code, 0);
            assert_eq!(self.world.kind(), if left == 0 { "classic" } else { "consumer" });
            self.settle();
        }
        assert_eq!(self.world.kind(), "classic");
    }

    fn leave_classic(&mut self) {
        let leaving = self.classic.remove(0);
        let answer = self.world.leave(&leaving.id, None);
        assert_eq!((answer.error_code, answer.members[0].error_code), (0, 0));
    }
}

#[test]
fn a_group_goes_to_the_other_protocol_and_back_member_by_member() {
    for cooperative in [false, true] {
        let mut town = Town::new(0);
        town.upgrade_and_back(cooperative);
        assert!(town.classic.iter().all(|client| client.lost == 0), "nobody is thrown out");
    }
}

#[test]
fn whoever_coordinates_meanwhile_knows_how_far_it_has_come() {
    for cooperative in [false, true] {
        for every in [1, 2, 3, 5, 7, 23, 41] {
            Town::new(every).upgrade_and_back(cooperative);
        }
    }
}

#[test]
fn everybody_keeps_what_it_has_when_the_group_is_upgraded() {
    let mut town = Town::new(0);
    town.classic = vec![Classic::new(&["a", "b"], true), Classic::new(&["a", "b"], true)];
    town.settle();
    let before: Vec<_> =
        town.classic.iter().map(|client| (client.generation, client.owned.clone())).collect();
    let mut consumer = Consumer::new("one", &["a", "b"]);
    let response = consumer.beat(&mut town.world);
    assert_eq!((response.error_code, response.member_epoch), (0, before[0].0 + 1));
    assert_eq!(consumer.count(), 0, "the others have everything");
    // The others are asked to join again, and then learn which partitions to revoke. They keep
    // their generation.
    for (client, (generation, owned)) in town.classic.iter_mut().zip(&before) {
        assert_eq!(
            town.world.heartbeat(&client.id, client.generation),
            ErrorCode::RebalanceInProgress
        );
        client.turn(&mut town.world);
        client.turn(&mut town.world);
        client.turn(&mut town.world);
        assert!(client.owned.is_subset(owned) && client.generation >= *generation);
    }
    town.consumers.push(consumer);
    town.settle();
    assert!(town.classic.iter().all(|client| client.lost == 0));
}
