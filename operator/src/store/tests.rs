//! Stores keep what they get, through crashes, and refuse what they did not write.

mod credentials;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;
use uuid::Uuid;
use weir_crds::DeletionPolicy;
use weir_protocol::types::{BrokerEpoch, BrokerId, ControllerEpoch, TopicId};

use super::file::FileStore;
use super::packed::{Shard, read_registry, read_shard, write_registry, write_shard};
use super::parts::{Parts, registry_text, shard_text};
use super::*;
use crate::controller::state::{Broker, Cluster, Endpoint, Features, Partition, SHARDS, shard_of};

fn topic(name: &str, id: u128) -> (TopicId, weir_crds::Topic) {
    let id = TopicId(Uuid::from_u128(id));
    let object = json!({
        "apiVersion": weir_crds::API_VERSION,
        "kind": "Topic",
        "metadata": {"name": name, "annotations": {crate::controller::TOPIC_ID_ANNOTATION: id.0.to_string()}},
        "spec": {"clusterRef": {"name": "test"}, "partitions": 2, "replicas": 1, "deletionPolicy": "Delete"},
    });
    (id, serde_json::from_value(object).unwrap())
}

fn broker(id: i32, epoch: i64) -> Broker {
    let endpoint = Endpoint {
        listener: "PLAIN TEXT".into(),
        host: "::1".into(),
        port: 9092,
        security_protocol: "PLAINTEXT".into(),
    };
    Broker {
        id: BrokerId(id),
        epoch: BrokerEpoch(epoch),
        incarnation: Uuid::from_u128(5),
        log_dir: Uuid::from_u128(6),
        endpoints: vec![endpoint.clone(), endpoint],
        rack: Some("rack 1, left % of\nthe door, ü".to_owned()),
        fenced: true,
        shutting_down: false,
    }
}

fn cluster() -> weir_crds::KafkaCluster {
    let object = json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "test"}, "spec": {}});
    serde_json::from_value(object).unwrap()
}

fn new_store(root: &Path) -> FileStore {
    let mut store = FileStore::open(root).unwrap();
    store.create("an-id".to_owned(), cluster()).unwrap();
    store
}

async fn commit(store: &mut impl Store, state: &mut State, changes: Vec<Change>) {
    for change in &changes {
        state.apply(change);
    }
    store.commit(state, &changes).await.unwrap();
}

fn partition() -> Partition {
    Partition::new(vec![BrokerId(0)], vec![BrokerId(0)])
}

/// A store with two topics of two partitions and a broker.
async fn filled(root: &Path) -> (FileStore, State) {
    let mut store = new_store(root);
    let mut state = store.load().await.unwrap();
    commit(&mut store, &mut state, vec![Change::ControllerEpoch(ControllerEpoch(1))]).await;
    commit(
        &mut store,
        &mut state,
        vec![
            Change::NextBrokerEpoch(BrokerEpoch(8)),
            Change::Broker(broker(0, 7)),
            Change::NextProducerId(3000),
        ],
    )
    .await;
    for (id, resource) in [topic("orders", 17), topic("invoices", 33)] {
        let created = [
            Change::Topic(id, Box::new(resource)),
            Change::Partition(id, 0, partition()),
            Change::Partition(id, 1, partition()),
        ];
        commit(&mut store, &mut state, created.into()).await;
    }
    (store, state)
}

/// Asserts equality, except for what each controller starts anew.
fn assert_same(mut left: State, right: &State) {
    left.version = right.version;
    left.told_at = right.told_at.clone();
    assert_eq!(&left, right);
}

#[tokio::test]
async fn what_was_committed_is_loaded() {
    let root = tempfile::tempdir().unwrap();
    let (store, mut state) = filled(root.path()).await;
    drop(store);
    let mut store = FileStore::open(root.path()).unwrap();
    assert!(!store.is_empty());
    assert_same(store.load().await.unwrap(), &state);
    // A deleted topic, and its successor under the same name in the same batch.
    let (old, (new, resource)) = (TopicId(Uuid::from_u128(17)), topic("orders", 49));
    let [orders, invoices] = ["orders", "invoices"].map(|name| state.cluster.key(name));
    commit(
        &mut store,
        &mut state,
        vec![Change::RemoveTopic(old, orders), Change::Topic(new, Box::new(resource))],
    )
    .await;
    commit(
        &mut store,
        &mut state,
        vec![Change::RemoveTopic(TopicId(Uuid::from_u128(33)), invoices)],
    )
    .await;
    assert_same(store.load().await.unwrap(), &state);
    assert_eq!(std::fs::read_dir(root.path().join("topics")).unwrap().count(), 1);
}

/// Many topics are written by several threads; a failure of one is the commit's.
#[tokio::test]
async fn as_many_topics_as_one_request_may_create_are_committed_at_once() {
    let root = tempfile::tempdir().unwrap();
    let (mut store, mut state) = filled(root.path()).await;
    let created = (1_000..6_000_u128).flat_map(|id| {
        let (id, resource) = topic(&format!("t-{id}"), id);
        [Change::Topic(id, Box::new(resource)), Change::Partition(id, 0, partition())]
    });
    commit(&mut store, &mut state, created.collect()).await;
    assert_same(store.load().await.unwrap(), &state);
    assert_eq!(std::fs::read_dir(root.path().join("writing")).unwrap().count(), 0);
    // One of the threads cannot write: a folder lies in its way.
    std::fs::create_dir(root.path().join("writing/3")).unwrap();
    let mut after = state.clone();
    let changes: Vec<_> = (6_000..6_100_u128)
        .map(|id| topic(&format!("t-{id}"), id))
        .map(|(id, resource)| Change::Topic(id, Box::new(resource)))
        .collect();
    for change in &changes {
        after.apply(change);
    }
    assert!(matches!(store.commit(&after, &changes).await, Err(StoreError::Io { .. })));
}

#[tokio::test]
async fn a_second_controller_is_kept_out() {
    let root = tempfile::tempdir().unwrap();
    let store = new_store(root.path());
    assert!(matches!(FileStore::open(root.path()), Err(StoreError::Locked(_))));
    drop(store);
    FileStore::open(root.path()).unwrap();
}

#[tokio::test]
async fn a_crash_between_two_objects_is_made_good() {
    let root = tempfile::tempdir().unwrap();
    let (mut store, state) = filled(root.path()).await;
    // A creation that reached only the resource: the topic exists and waits for its partitions.
    std::fs::remove_file(root.path().join("partitions-01")).unwrap();
    let loaded = store.load().await.unwrap();
    assert!(loaded.topics.values().all(|topic| topic.partitions.is_empty()));
    assert_eq!(loaded.topics.len(), 2);
    // A deletion that reached only the resource: the partitions left behind belong to no topic.
    store
        .commit(&state, &[Change::Partition(TopicId(Uuid::from_u128(17)), 0, partition())])
        .await
        .unwrap();
    std::fs::remove_file(root.path().join("topics/orders")).unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!(
        loaded.topics.values().map(|topic| topic.name().to_owned()).collect::<Vec<_>>(),
        ["invoices"]
    );
    assert_eq!(loaded.partition_count(), 2);
    // A file that was incomplete at a crash.
    std::fs::write(root.path().join("topics/.new"), "{").unwrap();
    std::fs::write(root.path().join(".new"), "weir").unwrap();
    assert_same(store.load().await.unwrap(), &loaded);
}

#[tokio::test]
async fn damage_is_refused_with_its_place() {
    let cases = [
        (
            "registry",
            "weir-registry 1\nend\n",
            "registry, line 1: \"weir-registry 1\" is not \"weir-registry 2\", the format of this version of Weir",
        ),
        ("registry", "weir-registry 2\nend\n", "registry, line 2"),
        ("registry", "weir-registry 2\ncluster id=x ce=0 be=0 pid=0\nend\n", "registry, line 3"),
        ("registry", "", "registry, line 1"),
        ("partitions-01", "weir-partitions 2\nnonsense\nend\n", "partitions-01, line 2"),
        ("partitions-01", "weir-partitions 2\n", "partitions-01, line 2"),
        ("topics/orders", "{\n \"apiVersion\": 7", "topics/orders, line 2"),
        ("topics/orders", "", "topics/orders, line 1"),
    ];
    for (file, content, place) in cases {
        let root = tempfile::tempdir().unwrap();
        let (mut store, _) = filled(root.path()).await;
        std::fs::write(root.path().join(file), content).unwrap();
        let error = store.load().await.unwrap_err().to_string();
        assert!(error.contains(place), "{file} {content:?}: {error}");
    }
    let root = tempfile::tempdir().unwrap();
    let (mut store, _) = filled(root.path()).await;
    std::fs::copy(root.path().join("topics/orders"), root.path().join("topics/twin")).unwrap();
    assert!(store.load().await.unwrap_err().to_string().contains("have one id or one topicName"));
    std::fs::remove_file(root.path().join("kafkaclusters/test")).unwrap();
    assert!(store.load().await.unwrap_err().to_string().contains("the KafkaCluster is missing"));
}

#[tokio::test]
async fn a_full_disk_fails_the_commit_and_keeps_the_state() {
    let root = tempfile::tempdir().unwrap();
    let (mut store, before) = filled(root.path()).await;
    let mut after = before.clone();
    let change = Change::NextProducerId(4000);
    after.apply(&change);
    // A folder in the place of the new file: the write fails, as on a full disk.
    std::fs::create_dir(root.path().join(".new")).unwrap();
    assert!(matches!(
        store.commit(&after, std::slice::from_ref(&change)).await,
        Err(StoreError::Io { .. })
    ));
    assert_same(store.load().await.unwrap(), &before);
    std::fs::remove_dir(root.path().join(".new")).unwrap();
    store.commit(&after, &[change]).await.unwrap();
    assert_same(store.load().await.unwrap(), &after);
}

#[tokio::test]
async fn a_memory_store_knows_who_wrote_last() {
    let mut first = memory::MemoryStore::new(State::new(Cluster::new("an-id".into(), cluster())));
    let mut second = first.clone();
    let mut state = first.load().await.unwrap();
    second.load().await.unwrap();
    commit(&mut second, &mut state, vec![Change::NextProducerId(1)]).await;
    assert!(matches!(first.commit(&state, &[]).await, Err(StoreError::Conflict)));
    first.load().await.unwrap();
    first.commit(&state, &[]).await.unwrap();
}

#[test]
fn packed_text_reads_as_it_was_written() {
    let registry = packed::Registry {
        cluster_id: "an-id".into(),
        controller_epoch: ControllerEpoch(3),
        next_broker_epoch: BrokerEpoch(9),
        next_producer_id: 1000,
        features: Features {
            epoch: 4,
            levels: [("metadata.version".to_owned(), 27), ("a b".to_owned(), 1)].into(),
        },
        brokers: vec![broker(0, 7), Broker { rack: None, endpoints: Vec::new(), ..broker(1, 8) }],
    };
    assert_eq!(read_registry(&write_registry(&registry)).unwrap(), registry);
    let id = TopicId(Uuid::from_u128(17));
    let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
    let led = Partition {
        elr: ids(&[2]),
        adding: ids(&[2]),
        removing: ids(&[0, 1]),
        ..Partition::new(ids(&[0, 1, 2]), ids(&[0, 1]))
    };
    let orphan = Partition {
        leader: None,
        isr: Vec::new(),
        last_known_leader: Some(BrokerId(1)),
        recovering: true,
        ..led.clone()
    };
    let text = write_shard([(id, 0, &led), (id, 1, &orphan)].into_iter(), std::iter::empty(), "n");
    assert_eq!(
        text,
        "weir-partitions 3\n\
         00000000-0000-0000-0000-000000000011 0 r=0,1,2 a=2 d=0,1 i=0,1 e=2 l=0 le=0 pe=0 k= u=0\n\
         00000000-0000-0000-0000-000000000011 1 r=0,1,2 a=2 d=0,1 i= e=2 l= le=0 pe=0 k=1 u=1\n\
         end\n"
    );
    let shard = Shard { partitions: BTreeMap::from([(id, vec![led, orphan])]), ..Shard::default() };
    assert_eq!(read_shard(&text).unwrap(), shard);
    // The text of a controller without retained topics.
    assert_eq!(read_shard(&text.replace("partitions 3", "partitions 2")).unwrap(), shard);
}

#[tokio::test]
async fn a_topic_that_is_to_be_retained_survives_its_resource() {
    let root = tempfile::tempdir().unwrap();
    let (mut store, mut state) = filled(root.path()).await;
    let (id, mut orders) = topic("orders", 17);
    orders.spec.deletion_policy = DeletionPolicy::Retain;
    orders.spec.config = weir_crds::TopicConfig::from_texts(
        [("retention.ms".to_owned(), "60000".to_owned())].into(),
    )
    .unwrap();
    commit(&mut store, &mut state, vec![Change::Topic(id, Box::new(orders.clone()))]).await;
    let remove = || std::fs::remove_file(root.path().join("topics/orders")).unwrap();
    remove();
    let loaded = store.load().await.unwrap();
    assert_same(loaded, &state);
    // With the policy `Delete` it goes.
    orders.spec.deletion_policy = DeletionPolicy::Delete;
    commit(&mut store, &mut state, vec![Change::Topic(id, Box::new(orders))]).await;
    remove();
    assert!(store.load().await.unwrap().topic_by_name("orders").is_none());
}

/// Names are unique only within a namespace, so the line records it. The topic outlives its
/// resource only if it is retained.
#[test]
fn a_topic_of_another_namespace_is_kept_with_its_namespace() {
    let mut resource = topic("orders", 17).1;
    resource.metadata.namespace = Some("payments".to_owned());
    let mut state = State::new(Cluster::new("an-id".into(), cluster()));
    let id = |id: u128| TopicId(Uuid::from_u128(id));
    state.apply(&Change::Topic(id(17), Box::new(resource.clone())));
    state.apply(&Change::Topic(id(33), Box::new(topic("invoices", 33).1)));
    resource.spec.topic_name = Some("other".to_owned());
    resource.metadata.namespace = Some("shipping".to_owned());
    resource.spec.deletion_policy = DeletionPolicy::Retain;
    state.apply(&Change::Topic(id(1), Box::new(resource)));
    let text = shard_text(&state, shard_of(id(17)));
    assert!(
        text.contains(r#"{"namespace":"payments","name":"orders","spec":{"#)
            && !text.contains("invoices"),
        "{text}"
    );
    let parts = Parts {
        registry: read_registry(&registry_text(&state)).unwrap(),
        resource: cluster(),
        topics: Vec::new(),
        shards: read_shard(&text).unwrap(),
        credentials: Vec::new(),
    };
    let loaded = parts.assemble();
    let keys: Vec<String> = loaded.topics.values().map(|topic| topic.key.to_string()).collect();
    assert_eq!(keys, ["shipping/orders"]);
    assert!(
        loaded.topic_by_resource(&state.cluster.key("orders")).is_none(),
        "it is none of the cluster's own"
    );
}

/// After a downgrade the controller takes over, and a setting that it does not know costs no
/// records.
#[test]
fn a_topic_that_another_version_retained_is_retained() {
    let id = "00000000-0000-0000-0000-000000000011";
    let resource = r#"{"name":"t","spec":{"clusterRef":{"name":"c"},"config":{"no.such.setting":1,"retention.ms":-1},"deletionPolicy":"Retain","tier":"cold"}}"#;
    let shard = read_shard(&format!("weir-partitions 3\nretain {id} {resource}\nend\n")).unwrap();
    let kept = shard.kept.values().next().unwrap();
    assert_eq!((kept.topic_name(), kept.spec.deletion_policy), ("t", DeletionPolicy::Retain));
    let settings: Vec<_> =
        kept.spec.config.texts().iter().map(|(name, text)| format!("{name}={text}")).collect();
    assert_eq!(settings, ["retention.ms=-1"]);
}

#[test]
fn packed_text_is_refused_where_it_is_wrong() {
    let line = |text: &str| {
        format!("weir-partitions 3\n00000000-0000-0000-0000-000000000011 {text}\nend\n")
    };
    let cases = [
        (line("0 r=0 a= d= i=1 e= l= le=0 pe=0 k= u=0"), "the ISR is not within the replicas"),
        (line("0 r=0 a= d= i= e= l=0 le=0 pe=0 k= u=0"), "the leader is not in the ISR"),
        (line("0 r= a= d= i= e= l= le=0 pe=0 k= u=0"), "the replicas are not distinct brokers"),
        (
            line("0 r=0 a= d= i=0 e=0 l=0 le=0 pe=0 k= u=0"),
            "the ELR is not within the replicas outside of the ISR",
        ),
        (
            line("0 r=0,1 a=2 d= i=0 e= l=0 le=0 pe=0 k= u=0"),
            "the replicas that are added are not within the replicas",
        ),
        (
            line("0 r=0,1 a=1 d=1 i=0 e= l=0 le=0 pe=0 k= u=0"),
            "the replicas that are removed are not within the replicas that are not added",
        ),
        (line("0 r=0 a= d=0 i=0 e= l=0 le=0 pe=0 k= u=0"), "all replicas are being removed"),
        (
            line("0 r=0,1 a= d= i=0,1 e= l=0 le=0 pe=0 k= u=1"),
            "the ISR has grown around a leader that has not recovered",
        ),
        (line("0 r=0 a= d= i=0 e= l=0 le=0 pe=0 k= u=2"), "u is neither 0 nor 1"),
        (line("0 r=0 a= d= i=0 e= l=0 le=-1 pe=0 k= u=0"), "le is negative"),
        (line("0 r=0 a= d= i=0 e= l=0 le=0 pe=0 k= u=0 more"), "\"more\" is one word too many"),
        (line("0 r=0 a= d= i=0 l=0 le=0 pe=0 k= u=0"), "\"l=0\" stands where e= belongs"),
        (
            line("1 r=0 a= d= i=0 e= l=0 le=0 pe=0 k= u=0"),
            "partition 1 of 00000000-0000-0000-0000-000000000011 does not follow its predecessor",
        ),
        (line("x r=0 a= d= i=0 e= l=0 le=0 pe=0 k= u=0"), "\"x\" is not the partition's index"),
    ];
    for (text, reason) in cases {
        assert_eq!(
            read_shard(&text).unwrap_err(),
            packed::BadLine { line: 2, reason: reason.to_owned() }
        );
    }
    let id = "00000000-0000-0000-0000-000000000011";
    let resource = r#"{"name":"t","spec":{"clusterRef":{"name":"c"}}}"#;
    for (lines, line, reason) in [
        (format!("retain {id}"), 2, "the resource is missing"),
        (format!("retain x {resource}"), 2, "\"x\" is not the topic's id"),
        (
            format!("retain {id} {{}}"),
            2,
            "no resource of a topic: missing field `name` at line 1 column 2",
        ),
        (
            format!(r#"retain {id} {{"name":"t","spec":{{}}}}"#),
            2,
            "no resource of a topic: its spec names no cluster",
        ),
        (
            format!("retain {id} {resource}\nretain {id} {resource}"),
            3,
            "00000000-0000-0000-0000-000000000011 is retained twice",
        ),
    ] {
        let wrong = read_shard(&format!("weir-partitions 3\n{lines}\nend\n")).unwrap_err();
        assert_eq!((wrong.line, wrong.reason.as_str()), (line, reason));
    }
    // A text cut at any byte is refused.
    let whole = line("0 r=0 a= d= i=0 e= l=0 le=0 pe=0 k= u=0");
    for end in 0..whole.len() {
        assert!(read_shard(&whole[..end]).is_err(), "cut after {end} bytes");
    }
}

#[test]
fn topics_are_spread_over_the_shards() {
    let shards: BTreeSet<u8> = (0..200_u128)
        .map(|n| shard_of(TopicId(Uuid::from_u128(n * 0x9E37_79B9_7F4A_7C15))))
        .collect();
    assert_eq!(shards.len(), usize::from(SHARDS));
}

/// A full shard fits into one etcd object, even while every partition is being moved.
#[test]
fn a_full_shard_fits_into_an_object() {
    let state = State::new(Cluster::new("an-id".into(), cluster()));
    for replicas in [1, 3, 10] {
        let id = TopicId(Uuid::from_u128(17));
        let count = (0..).take_while(|count| state.has_room(id, *count, replicas)).last().unwrap();
        let brokers = |from: i32| (from..).take(replicas).map(BrokerId).collect::<Vec<_>>();
        let moved = Partition {
            adding: brokers(100).into_iter().skip(replicas / 2).collect(),
            leader_epoch: weir_protocol::types::LeaderEpoch(99_999),
            partition_epoch: weir_protocol::types::PartitionEpoch(99_999),
            ..Partition::new(brokers(100), brokers(100))
        };
        let text = write_shard(
            (0..).take(count).map(|index| (id, index, &moved)),
            std::iter::empty(),
            "n",
        );
        assert!(
            (7_000..20_000).contains(&count) || replicas == 10,
            "{count} partitions of {replicas} replicas"
        );
        assert!(
            text.len() < 1_450_000,
            "{count} partitions of {replicas} replicas take {} bytes",
            text.len()
        );
    }
}
