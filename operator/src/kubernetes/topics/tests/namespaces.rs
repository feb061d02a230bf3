//! Topics in other namespaces than their cluster's, as the watch reports them, with an API server
//! in memory.

use weir_protocol::types::TopicId;

use super::*;
use crate::controller::TOPIC_ID_ANNOTATION;
use crate::time::now;

fn path(key: &Key) -> String {
    format!("/apis/weir.dev/v1alpha1/namespaces/{}/topics/{}", key.namespace, key.name)
}

fn namespace(name: &str) -> String {
    format!("/api/v1/namespaces/{name}")
}

fn orders(namespace: &str) -> Key {
    Key::new(Some(namespace), Some("orders"))
}

impl World {
    /// A cluster in the namespace `kafka`, and a Topic resource `orders` in each of `a` and `b`,
    /// for a topic with the namespace's name.
    async fn with_topics_elsewhere(allowed: Value) -> Self {
        let spec = json!({"brokers": {"replicas": 1}, "allowedNamespaces": allowed});
        let mut world = Self::new("kafka", &spec).await;
        for name in ["a", "b"] {
            world.server.put(&namespace(name), &json!({"metadata": {"name": name}}));
            world.write(&orders(name), json!({"topicName": name})).await;
        }
        world
    }

    /// A user writes a Topic, and the watch reports it.
    async fn write(&mut self, key: &Key, mut spec: Value) {
        spec["clusterRef"] = json!({"name": "c", "namespace": "kafka"});
        let mut object = self.server.get(&path(key)).unwrap_or_else(|| {
            json!({"apiVersion": weir_crds::API_VERSION, "kind": "Topic", "metadata": {"name": key.name, "namespace": key.namespace}, "status": {"bytes": 9}})
        });
        object["spec"] = spec;
        self.server.put(&path(key), &object);
        self.bring(key).await;
    }

    async fn bring(&mut self, key: &Key) {
        let topic = serde_json::from_value(self.server.get(&path(key)).unwrap()).unwrap();
        self.topics.put(topic).await;
        self.settle().await;
    }

    async fn delete(&mut self, key: &Key) {
        self.server.remove(&path(key));
        self.topics.remove(key, None).await;
        self.settle().await;
    }

    async fn allow(&mut self, allowed: Value) {
        let mut object = self.server.get(&cluster_path("kafka")).unwrap();
        object["spec"]["allowedNamespaces"] = allowed;
        self.server.put(&cluster_path("kafka"), &object);
        let cluster: KafkaCluster =
            serde_json::from_value(self.server.get(&cluster_path("kafka")).unwrap()).unwrap();
        self.hosted.cache.observe_cluster(cluster.clone());
        let event = Asked::Apply(vec![Resource::Cluster(Box::new(cluster))]);
        let reply = self.hosted.controller.ask(event).await.unwrap().reply;
        assert!(matches!(reply, Reply::Applied(_)), "{reply:?}");
        self.topics.check_verdicts().await;
        self.settle().await;
    }

    async fn id_of(&self, topic: &str) -> Option<TopicId> {
        let name = topic.to_owned();
        let found = self
            .hosted
            .controller
            .query(move |state| state.topic_by_name(&name).map(|topic| topic.id));
        found.await.unwrap()
    }

    async fn retention_of(&self, topic: &str) -> Option<String> {
        let name = topic.to_owned();
        let look = move |state: &crate::controller::state::State| {
            state.topic_by_name(&name)?.resource.spec.config.texts().get("retention.ms").cloned()
        };
        self.hosted.controller.query(look).await.unwrap()
    }

    /// The reasons of the status's conditions.
    async fn said(&self, key: &Key) -> String {
        let state = self.hosted.controller.query(Clone::clone).await.unwrap();
        let (due, _) = status::due(&state, &self.hosted, &now());
        let conditions =
            due.into_iter().find(|due| due.key == *key).map(|due| due.status.conditions);
        let all = conditions.unwrap_or_default().into_iter();
        all.map(|one| format!("{}={} {}", one.type_, one.status, one.reason))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

#[tokio::test]
async fn what_is_not_allowed_does_nothing_until_it_is() {
    let mut world = World::with_topics_elsewhere(json!({})).await;
    assert_eq!((world.id_of("a").await, world.id_of("b").await), (None, None));
    let not_allowed = "Ready=False NotAllowedByCluster, Accepted=False NotAllowedByCluster";
    assert_eq!(world.said(&orders("a")).await, not_allowed);
    // Nor does its deletion.
    world.delete(&orders("b")).await;
    world.write(&orders("b"), json!({"topicName": "b"})).await;
    world.allow(json!({"from": "All"})).await;
    let (a, b) = (world.id_of("a").await.unwrap(), world.id_of("b").await.unwrap());
    for name in ["a", "b"] {
        assert_eq!(
            world.said(&orders(name)).await,
            "Ready=True Ready, Healthy=True InSync, Accepted=True Accepted"
        );
    }
    // Each topic has its own settings, and is deleted separately.
    world.write(&orders("a"), json!({"topicName": "a", "config": {"retention.ms": 1000}})).await;
    assert_eq!(
        (world.retention_of("a").await.as_deref(), world.retention_of("b").await),
        (Some("1000"), None)
    );
    world.delete(&orders("a")).await;
    assert_eq!((world.id_of("a").await, world.id_of("b").await), (None, Some(b)));
    assert!(world.bring_back().await.is_empty());
    assert_ne!(a, b);
}

#[tokio::test]
async fn what_is_not_allowed_any_more_stays_with_its_records_and_is_not_followed() {
    let mut world = World::with_topics_elsewhere(json!({"from": "All"})).await;
    let (a, b) = (world.id_of("a").await, world.id_of("b").await);
    assert!(a.is_some() && b.is_some());
    world.allow(json!({"from": "Same"})).await;
    assert_eq!(
        world.said(&orders("a")).await,
        "Ready=True Ready, Healthy=True InSync, Accepted=False NotAllowedByCluster"
    );
    // Neither a change nor a deletion is followed: the Topic is created again for the same topic.
    world.write(&orders("a"), json!({"topicName": "a", "config": {"retention.ms": 1}})).await;
    assert_eq!((world.retention_of("a").await, world.id_of("a").await), (None, a));
    world.delete(&orders("a")).await;
    assert_eq!(world.id_of("a").await, a);
    assert_eq!(world.bring_back().await, [orders("a")]);
    world.bring(&orders("a")).await;
    // A resource that somebody creates under the name belongs to the same topic too.
    world.delete(&orders("b")).await;
    world.write(&orders("b"), json!({"topicName": "b"})).await;
    world.allow(json!({"from": "All"})).await;
    assert_eq!((world.id_of("a").await, world.id_of("b").await), (a, b));
    assert_eq!(
        world.said(&orders("b")).await,
        "Ready=True Ready, Healthy=True InSync, Accepted=True Accepted"
    );
    world.delete(&orders("b")).await;
    assert_eq!((world.id_of("a").await, world.id_of("b").await), (a, None));
}

#[tokio::test]
async fn the_deletion_of_a_namespace_costs_no_records_that_are_protected() {
    let mut world = World::with_topics_elsewhere(json!({"from": "All"})).await;
    let (a, b) = (world.id_of("a").await, world.id_of("b").await);
    for (name, protected) in [("a", true), ("b", false)] {
        world
            .write(&orders(name), json!({"topicName": name, "deletionProtection": protected}))
            .await;
        let going =
            json!({"metadata": {"name": name, "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        world.server.put(&namespace(name), &going);
        world.delete(&orders(name)).await;
    }
    assert_eq!((world.id_of("a").await, world.id_of("b").await), (a, None));
    assert!(b.is_some());
    // While its namespace is missing, the creation is retried.
    world.server.refuse(
        "POST",
        "/apis/weir.dev/v1alpha1/namespaces/a/topics/orders",
        403,
        "the namespace is being terminated",
    );
    assert_eq!(world.bring_back().await, [orders("a")]);
    world.server.allow_all();
    assert_eq!(world.bring_back().await, [orders("a")]);
    let back = world.server.get(&path(&orders("a"))).unwrap();
    assert_eq!(
        back["metadata"]["annotations"][TOPIC_ID_ANNOTATION],
        json!(a.unwrap().0.to_string())
    );
    assert!(back["metadata"].get("ownerReferences").is_none());
}

#[tokio::test]
async fn of_two_topics_that_claim_one_name_the_older_has_it() {
    let mut world = World::with_topics_elsewhere(json!({"from": "All"})).await;
    let a = world.id_of("a").await;
    let late = Key::new(Some("b"), Some("late"));
    world.write(&late, json!({"topicName": "a"})).await;
    assert_eq!(world.said(&late).await, "Ready=False Conflict, Accepted=True Accepted");
    world.delete(&late).await;
    assert_eq!(world.id_of("a").await, a);
    // Once the name is free, this resource gets it.
    world.write(&late, json!({"topicName": "a"})).await;
    world.delete(&orders("a")).await;
    let freed = world.id_of("a").await;
    assert!(freed.is_some() && freed != a, "{freed:?}");
    assert_eq!(
        world.said(&late).await,
        "Ready=True Ready, Healthy=True InSync, Accepted=True Accepted"
    );
}
