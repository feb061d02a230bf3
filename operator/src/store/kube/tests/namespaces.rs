//! Topics with resources in other namespaces than the cluster's.

use std::sync::Arc;

use futures::FutureExt as _;
use serde_json::{Value, json};
use weir_protocol::messages::create_topics_request::CreatableTopic;
use weir_protocol::messages::delete_topics_request::DeleteTopicState;
use weir_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use weir_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, IncrementalAlterConfigsRequest,
};
use weir_protocol::types::TopicId;

use super::broker::Broker;
use super::server::Server;
use crate::controller::state::State;
use crate::controller::{AdminRequest, Event, Key, Kind, Reply, Resource, TOPIC_ID_ANNOTATION};
use crate::shell::Controller;
use crate::store::Store as _;
use crate::store::kube::{ClusterCache, KubeStore};

const CLUSTER: &str = "/apis/weir.dev/v1alpha1/namespaces/n/kafkaclusters/c";

fn topics(namespace: &str) -> String {
    format!("/apis/weir.dev/v1alpha1/namespaces/{namespace}/topics")
}

fn orders(namespace: &str) -> String {
    format!("{}/orders", topics(namespace))
}

fn key(namespace: &str) -> Key {
    Key::new(Some(namespace), Some("orders"))
}

/// A Topic resource named orders; its topic has the namespace's name.
fn object(namespace: &str) -> Value {
    json!({
        "apiVersion": weir_crds::API_VERSION, "kind": "Topic", "metadata": {"name": "orders", "namespace": namespace},
        "spec": {"clusterRef": {"name": "c", "namespace": "n"}, "topicName": namespace, "partitions": 1, "replicas": 1},
    })
}

/// A controller over an API server, with a broker that serves.
struct World {
    server: Server,
    cache: ClusterCache,
    controller: Controller,
    broker: Broker,
}

impl World {
    /// With a Topic resource named orders in each of the namespaces a and b.
    async fn new() -> Self {
        let server = Server::default();
        let spec = json!({"brokers": {"replicas": 1}, "allowedNamespaces": {"from": "All"}});
        let cluster = json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": spec});
        server.put(CLUSTER, &cluster);
        let cache = ClusterCache::default();
        let mut store = store(&server, &cache);
        let cluster = serde_json::from_value(server.get(CLUSTER).unwrap()).unwrap();
        store.create("id".to_owned(), cluster).await.unwrap();
        let (controller, _shell) = Controller::start(store).await.unwrap();
        let broker = Broker::serves(&controller, "id").await;
        let world = Self { server, cache, controller, broker };
        for namespace in ["a", "b"] {
            world.server.put(&orders(namespace), &object(namespace));
            world.offer(namespace).await;
        }
        world
    }

    /// Offers the resource to the controller, as the watch does.
    async fn offer(&self, namespace: &str) {
        let topic: weir_crds::Topic =
            serde_json::from_value(self.server.get(&orders(namespace)).unwrap()).unwrap();
        self.cache.observe_topic(&topic);
        let reply = self
            .controller
            .ask(Event::Apply(vec![Resource::Topic(Box::new(topic))]))
            .await
            .unwrap()
            .reply;
        assert!(matches!(reply, Reply::Applied(_)), "{reply:?}");
    }

    async fn ask(&self, request: AdminRequest) {
        let reply = self.controller.ask(self.broker.asks(request)).await.unwrap().reply;
        assert!(matches!(reply, Reply::Admin(_)), "{reply:?}");
    }

    async fn id_of(&self, name: &str) -> Option<TopicId> {
        let name = name.to_owned();
        self.controller
            .query(move |state| state.topic_by_name(&name).map(|topic| topic.id))
            .await
            .unwrap()
    }

    /// The state that another controller would load.
    async fn taken_over(&self) -> State {
        store(&self.server, &ClusterCache::default()).load().await.unwrap()
    }
}

fn store(server: &Server, cache: &ClusterCache) -> KubeStore {
    let cluster: weir_crds::KafkaCluster =
        serde_json::from_value(server.get(CLUSTER).unwrap()).unwrap();
    KubeStore::new(server.client(), &cluster, Arc::new(|| async { true }.boxed()), cache.clone())
}

fn id_on(object: &Value) -> &Value {
    &object["metadata"]["annotations"][TOPIC_ID_ANNOTATION]
}

fn resource_of(state: &State, name: &str) -> Option<(TopicId, String)> {
    state.topic_by_name(name).map(|topic| (topic.id, topic.key.to_string()))
}

#[tokio::test]
async fn each_topic_is_written_where_its_resource_lies() {
    let world = World::new().await;
    let (a, b) = (world.id_of("a").await.unwrap(), world.id_of("b").await.unwrap());
    for (namespace, id) in [("a", a), ("b", b)] {
        assert_eq!(
            *id_on(&world.server.get(&orders(namespace)).unwrap()),
            json!(id.0.to_string()),
            "{namespace}"
        );
    }
    // A topic that a client creates has its resource in the cluster's namespace.
    let topic = CreatableTopic {
        name: "orders".to_owned(),
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    };
    let topics = vec![topic];
    world
        .ask(AdminRequest::CreateTopics(CreateTopicsRequest { topics, ..Default::default() }))
        .await;
    assert!(world.server.get(&orders("n")).is_some());
    // Settings and deletions by a client go to the resource of that topic. No owner reference to
    // another namespace is written there.
    world.server.take_writes();
    let config = AlterableConfig {
        name: "retention.ms".to_owned(),
        value: Some("1000".to_owned()),
        ..Default::default()
    };
    let resource = AlterConfigsResource {
        resource_type: 2,
        resource_name: "a".to_owned(),
        configs: vec![config],
        ..Default::default()
    };
    let resources = vec![resource];
    world
        .ask(AdminRequest::IncrementalAlterConfigs(IncrementalAlterConfigsRequest {
            resources,
            ..Default::default()
        }))
        .await;
    assert_eq!(world.server.get(&orders("a")).unwrap()["spec"]["config"]["retention.ms"], 1000);
    assert!(world.server.get(&orders("a")).unwrap()["metadata"].get("ownerReferences").is_none());
    let deleted = DeleteTopicState { name: Some("a".to_owned()), ..Default::default() };
    let topics = vec![deleted];
    world
        .ask(AdminRequest::DeleteTopics(DeleteTopicsRequest { topics, ..Default::default() }))
        .await;
    assert!(world.server.get(&orders("a")).is_none());
    assert!(world.server.get(&orders("b")).is_some() && world.server.get(&orders("n")).is_some());
    let writes = world.server.take_writes();
    let of_topics: Vec<&String> = writes.iter().filter(|write| write.contains("/topics")).collect();
    assert_eq!(of_topics, [&format!("PATCH {}", orders("a")), &format!("DELETE {}", orders("a"))]);
}

#[tokio::test]
async fn whose_a_topic_is_outlives_its_controller_and_nobody_takes_it_by_its_id() {
    let world = World::new().await;
    let (a, b) = (world.id_of("a").await.unwrap(), world.id_of("b").await.unwrap());
    // A user who writes a topic id on a resource gets no topic by that, whether the id exists or
    // not.
    let mut forged = object("c");
    forged["metadata"]["annotations"] = json!({TOPIC_ID_ANNOTATION: a.0.to_string()});
    forged["metadata"]["creationTimestamp"] = json!("1999-01-01T00:00:00Z");
    forged["metadata"]["uid"] = json!("f");
    world.server.put(&orders("c"), &forged);
    forged["metadata"]["name"] = json!("made-up");
    forged["metadata"]["annotations"] =
        json!({TOPIC_ID_ANNOTATION: "00000000-0000-0000-0000-000000000077"});
    forged["spec"]["topicName"] = json!("made-up");
    world.server.put(&format!("{}/made-up", topics("b")), &forged);
    // A change made while no controller runs, or in a namespace that it does not follow, becomes an
    // event later.
    let mut changed = world.server.get(&orders("b")).unwrap();
    changed["spec"]["config"] = json!({"retention.ms": 1});
    world.server.put(&orders("b"), &changed);
    let state = world.taken_over().await;
    assert_eq!(resource_of(&state, "a"), Some((a, "a/orders".to_owned())));
    assert_eq!(resource_of(&state, "b"), Some((b, "b/orders".to_owned())));
    assert_eq!(state.topics.len(), 2);
    assert!(state.topic_by_name("b").unwrap().resource.spec.config.texts().is_empty());
    assert_eq!(state.topic_by_name("b").unwrap().partitions.len(), 1);
    // Where the operator may no longer look, the topics stay. Where it may, a missing resource was
    // deleted.
    world.server.refuse("GET", &topics("a"), 403, "topics is forbidden");
    world.server.remove(&orders("a"));
    world.server.remove(&orders("b"));
    let state = world.taken_over().await;
    assert_eq!(resource_of(&state, "a"), Some((a, "a/orders".to_owned())));
    assert_eq!(resource_of(&state, "b"), None);
    world.server.allow_all();
    assert_eq!(world.taken_over().await.topics.len(), 0);
}

#[tokio::test]
async fn a_topic_that_is_not_followed_any_more_is_retained_without_a_word_to_its_resource() {
    let world = World::new().await;
    let b = world.id_of("b").await.unwrap();
    world.server.take_writes();
    world.controller.ask(Event::Retain(key("b"))).await.unwrap();
    let writes = world.server.take_writes();
    assert!(
        !writes.is_empty() && writes.iter().all(|write| write.contains("/partitiontables/")),
        "{writes:?}"
    );
    assert_eq!(world.server.get(&orders("b")).unwrap()["spec"].get("deletionPolicy"), None);
    // The topic outlives its resource, with this controller and with another one.
    world.server.remove(&orders("b"));
    world.cache.deleted_topic(&key("b"));
    let reply = world.controller.ask(Event::Delete(Kind::Topic, key("b"))).await.unwrap().reply;
    assert!(matches!(reply, Reply::Invalid(_)), "{reply:?}");
    let state = world.taken_over().await;
    assert_eq!(resource_of(&state, "b"), Some((b, "b/orders".to_owned())));
    // With a new, watched resource it is the same topic, and its resource's policy applies.
    world.server.put(&orders("b"), &object("b"));
    world.offer("b").await;
    assert_eq!(world.id_of("b").await, Some(b));
    world.cache.deleted_topic(&key("b"));
    let reply = world.controller.ask(Event::Delete(Kind::Topic, key("b"))).await.unwrap().reply;
    assert!(matches!(reply, Reply::Applied(_)), "{reply:?}");
    assert_eq!(world.id_of("b").await, None);
    assert!(world.id_of("a").await.is_some());
}
