//! Rebalances: no more than needed, without disturbing other members, and complete even when the
//! coordinator dies in the middle.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_e2e::cluster::brokers;
use weir_e2e::driver::{Client, Failure};
use weir_e2e::group::{Idle, described, errors, generations};

use crate::{COORDINATORS, Groups, Members, members, numbers, shared};

impl Groups<'_> {
    /// The generations or epochs of a group so far.
    fn generations(&mut self, group: &str) -> BTreeSet<i32> {
        generations(&mut self.driver, &self.local.bootstrap(), COORDINATORS, group).unwrap()
    }

    /// Polls these members in turn until one of them fails.
    fn poll_until_failure(&mut self, members: &[&str], what: &str) -> (String, Failure) {
        let deadline = std::time::Instant::now() + crate::PATIENCE;
        while std::time::Instant::now() < deadline {
            for name in members {
                let request = json!({"op": "poll", "member": name, "timeout_ms": 300});
                if let Err(failure) = self.driver.call(&request) {
                    return ((*name).to_owned(), failure);
                }
            }
        }
        panic!("{:?}: {what}", self.driver.client)
    }
}

fn named(name: &str) -> Value {
    json!({"instance": name, "session_ms": 60_000})
}

/// A static member that returns in time keeps its partitions, and the group does not rebalance.
pub(crate) fn static_members(groups: &mut Groups<'_>) {
    if !groups.driver.client.can("static_member") {
        return;
    }
    let topic = groups.topic(4);
    groups.join("static", "one", &topic, &named("i-1"));
    // The first member leads and stays. A returning leader of franz-go would request a rebalance,
    // because it believes that its topics have changed.
    groups.poll(&mut members(&["one"]), "everything", |members| shared(members, 4, &[4]));
    groups.join("static", "two", &topic, &named("i-2"));
    let mut both = members(&["one", "two"]);
    groups.poll(&mut both, "two each", |members| shared(members, 4, &[2, 2]));
    groups.settle(&mut both, "static");
    let (before, generations) = (both["two"].assigned.clone(), groups.generations("static"));
    groups.leave("two");
    groups.join("static", "again", &topic, &named("i-2"));
    let mut again = members(&["one", "again"]);
    groups.poll(&mut again, "the same two", |members| shared(members, 4, &[2, 2]));
    assert_eq!(again["again"].assigned, before);
    groups.produce(&topic, 4, 0..40);
    groups.poll(&mut again, "all records", |members| numbers(members).len() >= 40);
    assert_eq!(numbers(&again), (0..40).collect::<Vec<_>>());
    assert_eq!(
        groups.generations("static"),
        generations,
        "{:?}: a rebalance",
        groups.driver.client
    );
}

/// Two classic members with one instance id: the newer one keeps it, and the other gets an error
/// and ends (KIP-345).
pub(crate) fn a_name_is_given_to_the_newest(groups: &mut Groups<'_>) {
    let topic = groups.topic(2);
    groups.join("named", "first", &topic, &named("i"));
    let mut first = members(&["first"]);
    groups.poll(&mut first, "everything", |members| shared(members, 2, &[2]));
    groups.join("named", "second", &topic, &named("i"));
    let (who, failure) = groups.poll_until_failure(&["second", "first"], "one is fenced");
    assert_eq!((who.as_str(), failure.code), ("first", errors::FENCED_INSTANCE_ID), "{failure:?}");
    let mut second = members(&["second"]);
    groups.produce(&topic, 2, 0..10);
    groups.poll(&mut second, "everything, and all records", |members| {
        shared(members, 2, &[2]) && numbers(members).len() >= 10
    });
}

/// Two members of the consumer protocol with one instance id: the first keeps it, and the other is
/// refused while the first lives (KIP-848).
pub(crate) fn a_name_is_kept_by_the_first(groups: &mut Groups<'_>) {
    let topic = groups.topic(2);
    groups.join("named", "first", &topic, &named("i"));
    let mut first = members(&["first"]);
    groups.poll(&mut first, "everything", |members| shared(members, 2, &[2]));
    let generations = groups.generations("named");
    groups.join("named", "second", &topic, &named("i"));
    let (who, failure) = groups.poll_until_failure(&["second", "first"], "one is refused");
    assert_eq!(
        (who.as_str(), failure.code),
        ("second", errors::UNRELEASED_INSTANCE_ID),
        "{failure:?}"
    );
    groups.produce(&topic, 2, 0..10);
    groups.poll(&mut first, "all records", |members| {
        shared(members, 2, &[2]) && numbers(members).len() >= 10
    });
    assert_eq!(groups.generations("named"), generations, "{:?}: a rebalance", groups.driver.client);
}

/// With cooperative rebalancing a new member costs two generations: in the first the others revoke
/// partitions, in the second the new member gets them. Without revocations there is no second one.
pub(crate) fn no_more_generations_than_needed(groups: &mut Groups<'_>) {
    for (partitions, each, expected) in [(4, [2, 2], 2), (1, [0, 1], 1)] {
        let topic = groups.topic(partitions);
        let group = format!("cooperative-{partitions}");
        let [one, two] = ["one", "two"].map(|name| format!("{name}-{partitions}"));
        groups.join(&group, &one, &topic, &json!({}));
        let mut first = members(&[&one]);
        groups.poll(&mut first, "everything", |members| {
            shared(members, partitions, &[partitions as usize])
        });
        groups.settle(&mut first, &group);
        let before = groups.generations(&group);
        groups.join(&group, &two, &topic, &json!({}));
        let mut both = members(&[&one, &two]);
        // With one partition nothing moves; only the generation shows that the other member has
        // joined.
        let coordinator = groups.local.bootstrap();
        groups.poll(&mut both, "each its share", |members| {
            shared(members, partitions, &each)
                && described(&coordinator, &group).is_some_and(|group| group.members == 2)
        });
        groups.settle(&mut both, &group);
        // A member that needs another rebalance requests it before it reads on.
        groups.produce(&topic, partitions, 0..20);
        groups.poll(&mut both, "all records", |members| numbers(members).len() >= 20);
        groups.settle(&mut both, &group);
        let after = groups.generations(&group);
        let new = after.difference(&before).count();
        assert_eq!(new, expected, "{:?}: {before:?} {after:?}", groups.driver.client);
    }
}

/// The coordinator dies during a rebalance. Another broker takes the group over, every member gets
/// its share, and committed offsets stay.
pub(crate) fn a_coordinator_dies(groups: &mut Groups<'_>) {
    if brokers() < 3 {
        return;
    }
    let topic = groups.topic(3);
    groups.produce(&topic, 3, 0..30);
    groups.join("moved", "one", &topic, &json!({}));
    let mut one = members(&["one"]);
    groups.poll(&mut one, "the first thirty", |members| numbers(members).len() >= 30);
    groups.commit("one");
    let idle = groups.join_idle("moved", &topic, &mut one);
    groups.join("moved", "two", &topic, &json!({}));
    let mut both = members(&["one", "two"]);
    let is_consumer_protocol = groups.joining["protocol"] == "consumer";
    let open = if is_consumer_protocol { "Reconciling" } else { "PreparingRebalance" };
    let bootstrap = groups.local.bootstrap();
    groups.poll(&mut both, "a rebalance that stays open", |_| {
        described(&bootstrap, "moved")
            .is_some_and(|group| group.state == open && group.members == 3)
    });
    let coordinator = weir_e2e::wire::coordinator(&bootstrap, "moved").unwrap();
    groups.local.run(&["kill", &coordinator.to_string()]).unwrap();
    // kafkajs keeps connecting to a broker that is down, and reads one record each time.
    if groups.driver.client == Client::KafkaJs {
        groups.local.run(&["start", &coordinator.to_string()]).unwrap();
    }
    idle.leave(&bootstrap).unwrap();
    groups.produce(&topic, 3, 30..60);
    let unique = |members: &Members| numbers(members).into_iter().collect::<BTreeSet<_>>();
    groups.poll(&mut both, "two members and the next thirty", |members| {
        shared(members, 3, &[1, 2]) && unique(members).len() >= 30
    });
    groups.settle(&mut both, "moved");
    assert!(shared(&both, 3, &[1, 2]), "{both:?}");
    assert_eq!(unique(&both), (30..60).collect(), "what was committed is not read again");
    if groups.driver.client != Client::KafkaJs {
        groups.local.run(&["start", &coordinator.to_string()]).unwrap();
    }
}

impl Groups<'_> {
    /// Polls these members until the group is stable.
    fn settle(&mut self, members: &mut Members, group: &str) {
        let bootstrap = self.local.bootstrap();
        self.poll(members, "nothing is under way", |_| {
            described(&bootstrap, group).is_some_and(|group| group.state == "Stable")
        });
    }

    /// Adds a member that never rejoins, while these members take part in the rebalance.
    fn join_idle(&mut self, group: &str, topic: &str, members: &mut Members) -> Idle {
        let bootstrap = self.local.bootstrap();
        let assignor = match self.joining["protocol"] == "consumer" {
            // The group's assignor does not matter, but the member must name one.
            true => "range".to_owned(),
            false => described(&bootstrap, group).unwrap().assignor,
        };
        let joining = Idle::join(&bootstrap, group, topic, &assignor);
        self.poll(members, "one that will be idle joins", |_| joining.is_finished());
        joining.join().unwrap().unwrap()
    }
}
