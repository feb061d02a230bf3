//! Inventories and the recoveries that follow from them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff;
use weir_crds::Topic;
use weir_protocol::types::{LeaderEpoch, PartitionEpoch, TopicId};

use super::super::sessions::Timestamp;
use super::super::state::Partition;
use super::super::{TOPIC_ID_ANNOTATION, take_over};
use super::*;

const ORDERS: TopicId = TopicId(Uuid::from_u128(0xa));
const OTHER: TopicId = TopicId(Uuid::from_u128(0xb));
const SECONDS: i64 = 1_800_000_000;

fn moment() -> Moment {
    Moment {
        now: Timestamp(0),
        wall: Time(jiff::Timestamp::from_second(SECONDS).unwrap()),
        seed: 1,
        given: BTreeMap::new(),
    }
}

fn cluster(replicas: i32, without: &str) -> KafkaCluster {
    let annotations = if without.is_empty() {
        serde_json::json!({})
    } else {
        serde_json::json!({WITHOUT_ANNOTATION: without})
    };
    serde_json::from_value(serde_json::json!({
        "apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "c", "annotations": annotations},
        "spec": {"brokers": {"replicas": replicas}, "recoverFrom": "Volumes"},
    }))
    .unwrap()
}

fn log(topic: TopicId, name: &str, partition: i32, leader_epoch: i32, end_offset: i64) -> FoundLog {
    FoundLog { topic, name: name.to_owned(), partition, leader_epoch, end_offset }
}

/// The volume of a broker of the cluster `old`.
fn volume(broker: i32, logs: Vec<FoundLog>) -> (BrokerId, Inventory) {
    let inventory = Inventory {
        cluster_id: "old".to_owned(),
        log_dir: Uuid::from_u128(100 + u128::try_from(broker).unwrap()),
        broker_epoch: Some(10 + i64::from(broker)),
        logs,
        ..Inventory::default()
    };
    (BrokerId(broker), inventory)
}

/// An image with these topics: for each partition its replicas, leader and leader epoch.
fn image(version: u64, topics: &[(TopicId, &str, &[(&[i32], i32, i32)])]) -> rpc::MetadataUpdate {
    let partition =
        |(index, (replicas, leader, epoch)): (i32, &(&[i32], i32, i32))| rpc::Partition {
            index,
            replicas: replicas.to_vec(),
            leader: *leader,
            leader_epoch: *epoch,
            partition_epoch: 2 * epoch,
            isr: replicas.to_vec(),
            ..rpc::Partition::default()
        };
    let topics = topics.iter().map(|(id, name, partitions)| rpc::Topic {
        id: id.0.as_bytes().to_vec(),
        name: (*name).to_owned(),
        configs: Some(rpc::Configs {
            entries: [
                ("retention.ms".to_owned(), "1000".to_owned()),
                ("no.such.setting".to_owned(), "1".to_owned()),
            ]
            .into(),
        }),
        partitions: (0..).zip(*partitions).map(partition).collect(),
        ..rpc::Topic::default()
    });
    let brokers = (0..3).map(|id| rpc::Broker { id, epoch: 20, ..rpc::Broker::default() });
    rpc::MetadataUpdate {
        version,
        full: true,
        topics: topics.collect(),
        brokers: brokers.collect(),
        features: Some(rpc::Features {
            epoch: 4,
            levels: [("transaction.version".to_owned(), 2)].into(),
        }),
        ..rpc::MetadataUpdate::default()
    }
}

fn stock(
    cluster: &KafkaCluster,
    topics: &[Topic],
    inventories: impl IntoIterator<Item = (BrokerId, Inventory)>,
) -> Stock {
    let known = Known {
        cluster,
        cluster_id: None,
        topics,
        taken: &BTreeSet::from(["taken".to_owned()]),
        credentials: None,
    };
    take_stock(known, &inventories.into_iter().collect(), &moment())
}

fn made(stock: Stock) -> State {
    match stock {
        Stock::Recovered(state, _) => *state,
        other => panic!("{other:?}"),
    }
}

fn waits(stock: Stock) -> String {
    match stock {
        Stock::Waits(reason) => reason,
        other => panic!("{other:?}"),
    }
}

fn refused(stock: Stock) -> String {
    match stock {
        Stock::Refused(reason) => reason,
        other => panic!("{other:?}"),
    }
}

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

/// The broker whose log counts, by newest epoch and end offset; `None`: it has no log.
#[test]
fn the_newest_epoch_counts_and_then_the_longest_log() {
    let rows: &[(&[Option<(i32, i64)>], i32)] = &[
        (&[Some((3, 10)), Some((3, 12)), Some((3, 11))], 1),
        (&[Some((5, 7)), Some((3, 100)), Some((4, 50))], 0),
        (&[Some((5, 7)), Some((5, 7)), Some((5, 7))], 2), // among equals, the last leader
        (&[None, None, Some((0, 1))], 2),
        (&[None, Some((-1, 0)), None], 2), // nothing was ever written
        (&[None, None, None], 2),
    ];
    for (row, (held, best)) in rows.iter().enumerate() {
        let last = image(7, &[(ORDERS, "orders", &[(&[1, 2, 0], 2, 6)])]);
        let volumes = (0..).zip(*held).map(|(broker, held)| {
            let logs = held.map(|(epoch, end)| log(ORDERS, "orders", 0, epoch, end));
            let (id, inventory) = volume(broker, logs.into_iter().collect());
            (id, Inventory { image: Some(last.clone()), ..inventory })
        });
        let state = made(stock(&cluster(3, ""), &[], volumes));
        let partition = &state.topics[&ORDERS].partitions[0];
        assert_eq!(partition.isr, ids(&[*best]), "row {row}");
        assert_eq!((&partition.replicas, partition.leader), (&ids(&[1, 2, 0]), None), "row {row}");
        assert_eq!(
            (partition.leader_epoch, partition.partition_epoch),
            (LeaderEpoch(7), PartitionEpoch(13)),
            "row {row}"
        );
    }
}

#[test]
fn every_counter_begins_above_what_any_volume_has_seen() {
    let (zero, mut first) = volume(0, vec![log(ORDERS, "orders", 0, 9, 5)]);
    let (one, mut second) = volume(1, vec![log(ORDERS, "orders", 0, 2, 5)]);
    first.controller_epoch = 4;
    (second.controller_epoch, second.producer_ids_end) = (6, i64::MAX / 2);
    second.image = Some(image(6 << 40, &[(ORDERS, "orders", &[(&[0, 1], 0, 3)])]));
    let state = made(stock(&cluster(2, ""), &[], [(zero, first), (one, second)]));
    assert_eq!(state.cluster.id, "old");
    assert_eq!(state.cluster.controller_epoch, ControllerEpoch(7));
    assert_eq!(
        state.cluster.next_broker_epoch,
        BrokerEpoch(21),
        "the image knows a broker of epoch 20"
    );
    assert_eq!(state.cluster.next_producer_id, i64::MAX / 2);
    assert_eq!(
        (state.cluster.features.epoch, state.cluster.features.levels["transaction.version"]),
        (4, 2)
    );
    assert_eq!(
        state.topics[&ORDERS].partitions[0].leader_epoch,
        LeaderEpoch(10),
        "the log knows more than the image"
    );
    let brokers: Vec<_> = state
        .brokers
        .values()
        .map(|broker| (broker.epoch.0, broker.log_dir.as_u128(), broker.fenced))
        .collect();
    assert_eq!(brokers, [(10, 100, true), (11, 101, true)]);
    // Without a record of producers, the wall clock exceeds every id.
    let state = made(stock(&cluster(1, ""), &[], [volume(0, Vec::new())]));
    assert_eq!(state.cluster.next_producer_id, SECONDS << 20);
}

/// After the takeover and the registrations a leader exists, and it is the one with every record.
#[test]
fn who_has_everything_leads_once_it_comes() {
    use super::super::sessions::{Sessions, StreamId};
    use super::super::{Event, Heartbeat, Registration, Reply, decide};
    let volumes = [
        volume(0, vec![log(ORDERS, "orders", 0, 3, 10)]),
        volume(1, vec![log(ORDERS, "orders", 0, 3, 12)]),
    ];
    let mut state = made(stock(&cluster(2, ""), &[], volumes));
    for change in take_over(&state, &moment()) {
        state.apply(&change);
    }
    let mut sessions = Sessions::default();
    for id in 0..2 {
        let registration = Registration {
            cluster_id: "old".to_owned(),
            broker: BrokerId(id),
            incarnation: Uuid::from_u128(1),
            log_dir: Uuid::from_u128(100 + u128::try_from(id).unwrap()),
            endpoints: vec![super::super::state::Endpoint {
                listener: "PLAINTEXT".to_owned(),
                host: "h".to_owned(),
                port: 1,
                security_protocol: "PLAINTEXT".to_owned(),
            }],
            rack: None,
            previous_epoch: Some(BrokerEpoch(10 + i64::from(id))),
            clean: true,
            controller_epoch: ControllerEpoch(0),
            leader_epochs: vec![(ORDERS, 0, LeaderEpoch(3))],
            is_certified: false,
        };
        let outcome = decide(&state, &sessions, Event::Register(registration), &moment());
        outcome.changes.iter().for_each(|change| state.apply(change));
        let Reply::Registered(epoch) = outcome.reply else {
            panic!("{:?}", outcome.reply);
        };
        sessions.opened(BrokerId(id), StreamId(0), Timestamp(0), state.version);
        let heartbeat = Heartbeat {
            broker: BrokerId(id),
            epoch,
            applied_version: state.version,
            ready: true,
            wants_shutdown: false,
            log_dir_failed: false,
        };
        let outcome = decide(&state, &sessions, Event::Heartbeat(heartbeat), &moment());
        outcome.changes.iter().for_each(|change| state.apply(change));
        let leader = state.topics[&ORDERS].partitions[0].leader;
        assert_eq!(leader, (id == 1).then_some(BrokerId(1)), "broker {id} is here");
    }
    assert!(!state.topics[&ORDERS].partitions[0].recovering, "it was elected cleanly");
    assert!(!state.rolled_back);
}

#[test]
fn all_brokers_are_waited_for_but_those_that_are_given_up() {
    let all = || (0..3).map(|id| volume(id, vec![log(ORDERS, "orders", 0, 1, 5)]));
    let said = waits(stock(&cluster(3, ""), &[], all().take(2)));
    assert!(
        said.contains("broker 2 to come") && said.contains("weir.dev/recover-without=2"),
        "{said}"
    );
    assert!(waits(stock(&cluster(3, ""), &[], [])).contains("broker 0, 1, 2 to come"));
    made(stock(&cluster(3, "2"), &[], all().take(2)));
    made(stock(&cluster(3, " 1, 2 "), &[], all().take(1)));
    assert!(refused(stock(&cluster(3, "two"), &[], all())).contains("\"two\""));
    // A new volume does not replace the one that held the logs.
    let with_new = || all().take(2).chain([(BrokerId(2), Inventory::default())]);
    let said = waits(stock(&cluster(3, ""), &[], with_new()));
    assert!(said.contains("the volume of broker 2, which has a new one"), "{said}");
    let state = made(stock(&cluster(3, "2"), &[], with_new()));
    assert_eq!(state.brokers.len(), 2, "nobody counts on what the third one had");
    // The recovery waits for brokers that the last images list, whatever the spec says now.
    let wide = |(id, inventory): (BrokerId, Inventory)| {
        let image = image(7, &[(ORDERS, "orders", &[(&[0, 4], 0, 1)])]);
        (id, Inventory { image: Some(image), ..inventory })
    };
    let said = waits(stock(&cluster(3, ""), &[], all().map(wide)));
    assert!(said.contains("broker 4 to come"), "{said}");
    assert_eq!(brokers_needed(&cluster(3, ""), &all().map(wide).collect()), 5);
    // A broker that they do not list may have a new volume.
    let narrow = |(id, inventory): (BrokerId, Inventory)| {
        let image = image(7, &[(ORDERS, "orders", &[(&[0, 1, 2], 0, 1)])]);
        (id, Inventory { image: Some(image), ..inventory })
    };
    made(stock(
        &cluster(4, ""),
        &[],
        all().map(narrow).chain([(BrokerId(3), Inventory::default())]),
    ));
    assert!(
        waits(stock(&cluster(4, ""), &[], all().chain([(BrokerId(3), Inventory::default())])))
            .contains("broker 3")
    );
}

#[test]
fn a_cluster_of_new_volumes_begins() {
    let new = |count| (0..count).map(|id| (BrokerId(id), Inventory::default()));
    assert!(waits(stock(&cluster(3, ""), &[], new(2))).contains("broker 2 to come"));
    assert!(matches!(stock(&cluster(3, ""), &[], new(3)), Stock::New));
    assert!(matches!(stock(&cluster(3, "2"), &[], new(2)), Stock::New));
}

#[test]
fn volumes_of_two_clusters_are_refused() {
    let (id, other) = volume(1, Vec::new());
    let other = Inventory { cluster_id: "another".to_owned(), ..other };
    let said = refused(stock(&cluster(2, ""), &[], [volume(0, Vec::new()), (id, other)]));
    assert!(said.contains("another (broker 1), old (broker 0)"), "{said}");
    // Two copies of one volume: one of them has the wrong id.
    let (_, copy) = volume(0, Vec::new());
    let said = refused(stock(&cluster(2, ""), &[], [volume(0, Vec::new()), (BrokerId(1), copy)]));
    assert!(said.contains("brokers 0 and 1 are copies"), "{said}");
    let known = Known {
        cluster: &cluster(1, ""),
        cluster_id: Some("mine"),
        topics: &[],
        taken: &BTreeSet::new(),
        credentials: None,
    };
    let said = refused(take_stock(known, &[volume(0, Vec::new())].into(), &moment()));
    assert!(said.contains("the cluster old") && said.contains("this is mine"), "{said}");
}

fn names(state: &State) -> Vec<(TopicId, String, String)> {
    let topics = state.topics.values();
    topics.map(|topic| (topic.id, topic.name().to_owned(), topic.key.name.clone())).collect()
}

#[test]
fn of_two_topics_of_one_name_the_later_one_comes_back() {
    let name = |id: TopicId| (id, "orders".to_owned(), "orders".to_owned());
    // The newest image decides.
    let (zero, mut first) = volume(0, vec![log(ORDERS, "orders", 0, 90, 1000)]);
    let (one, mut second) = volume(1, vec![log(OTHER, "orders", 0, 0, 1)]);
    first.image = Some(image(7, &[(ORDERS, "orders", &[(&[0], 0, 3)])]));
    second.image = Some(image(8, &[(OTHER, "orders", &[(&[1], 1, 0)])]));
    assert_eq!(
        names(&made(stock(&cluster(2, ""), &[], [(zero, first), (one, second)]))),
        [name(OTHER)]
    );
    // Without an image, the later leader epoch decides, then the longer log.
    for (mine, theirs, kept) in
        [((3, 10), (4, 1), OTHER), ((4, 1), (3, 10), ORDERS), ((3, 10), (3, 9), ORDERS)]
    {
        let volumes = [
            volume(0, vec![log(ORDERS, "orders", 0, mine.0, mine.1)]),
            volume(1, vec![log(OTHER, "orders", 0, theirs.0, theirs.1)]),
        ];
        assert_eq!(names(&made(stock(&cluster(2, ""), &[], volumes))), [name(kept)]);
    }
}

#[test]
fn a_topic_that_was_deleted_while_a_broker_was_away_does_not_come_back() {
    let (zero, mut first) = volume(0, vec![log(ORDERS, "orders", 0, 1, 5)]);
    let (one, mut second) = volume(1, vec![log(OTHER, "other", 0, 1, 5)]);
    first.image = Some(image(7, &[(ORDERS, "orders", &[(&[0], 0, 1)])]));
    second.image = Some(image(8, &[]));
    let state = made(stock(&cluster(2, ""), &[], [(zero, first), (one, second)]));
    // No image knows the other one, so it is younger than all of them.
    assert_eq!(names(&state), [(OTHER, "other".to_owned(), "other".to_owned())]);
}

#[test]
fn a_topic_has_the_resource_that_it_had_or_one_of_what_is_known() {
    let written: Topic = serde_json::from_value(serde_json::json!({
        "apiVersion": weir_crds::API_VERSION, "kind": "Topic", "metadata": {"name": "from-git"},
        "spec": {"clusterRef": {"name": "c"}, "topicName": "orders", "partitions": 9, "config": {"retention.ms": "5"}},
    }))
    .unwrap();
    let (zero, mut first) = volume(0, Vec::new());
    first.image = Some(image(
        7,
        &[(ORDERS, "orders", &[(&[0], 0, 1), (&[0], 0, 1)]), (OTHER, "taken", &[(&[0], 0, 1)])],
    ));
    let state = made(stock(&cluster(1, ""), &[written], [(zero, first)]));
    let (orders, taken) = (&state.topics[&ORDERS].resource, &state.topics[&OTHER].resource);
    assert_eq!(orders.metadata.name.as_deref(), Some("from-git"));
    assert_eq!(
        (orders.spec.partitions, orders.spec.config.texts()["retention.ms"].as_str()),
        (Some(2), "5")
    );
    assert_ne!(taken.metadata.name.as_deref(), Some("taken"));
    assert_eq!(
        (taken.topic_name(), taken.spec.partitions, taken.spec.replicas),
        ("taken", Some(1), Some(1))
    );
    assert_eq!(
        taken
            .spec
            .config
            .texts()
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect::<Vec<_>>(),
        [("retention.ms", "1000")],
        "what is no setting is left out"
    );
    for (topic, id) in [(orders, ORDERS), (taken, OTHER)] {
        assert_eq!(
            topic.metadata.annotations.as_ref().unwrap()[TOPIC_ID_ANNOTATION],
            id.0.to_string()
        );
    }
}

/// After a power cut there may be no image; then the directories say which partitions exist.
#[test]
fn without_an_image_partitions_stand_where_their_logs_are() {
    let volumes = [
        volume(0, vec![log(ORDERS, "orders", 0, 1, 5), log(ORDERS, "orders", 3, 0, 1)]),
        volume(1, vec![log(ORDERS, "orders", 0, 2, 4)]),
    ];
    let state = made(stock(&cluster(2, ""), &[], volumes));
    let of = |partition: &Partition| {
        (partition.replicas.clone(), partition.isr.clone(), partition.leader_epoch.0)
    };
    let partitions: Vec<_> = state.topics[&ORDERS].partitions.iter().map(of).collect();
    let empty = (ids(&[0, 1]), ids(&[0]), 0);
    assert_eq!(
        partitions,
        [(ids(&[0, 1]), ids(&[1]), 3), empty.clone(), empty, (ids(&[0]), ids(&[0]), 1)],
        "to 1 and 2 nothing was ever written"
    );
}

/// A replica that joined after the image was written may be the one with every record.
#[test]
fn a_log_where_no_replica_should_be_counts() {
    let (zero, mut first) = volume(0, vec![log(ORDERS, "orders", 0, 1, 5)]);
    first.image = Some(image(7, &[(ORDERS, "orders", &[(&[0], 0, 1)])]));
    let state = made(stock(
        &cluster(2, ""),
        &[],
        [(zero, first), volume(1, vec![log(ORDERS, "orders", 0, 2, 9)])],
    ));
    let partition = &state.topics[&ORDERS].partitions[0];
    assert_eq!((&partition.replicas, &partition.isr), (&ids(&[0, 1]), &ids(&[1])));
}
