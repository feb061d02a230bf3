//! Topics with an API server in memory: deletions of their resources.

mod namespaces;

use serde_json::{Value, json};
use weir_crds::KafkaCluster;

use super::*;
use crate::controller::topic_id_on;
use crate::kafka::Client;
use crate::kubernetes::sizes::keep_sizes;
use crate::store::kube::tests::broker::Broker;
use crate::store::kube::tests::server::Server;
use crate::store::kube::{ClusterCache, KubeStore};

const TOPIC: &str = "/apis/weir.dev/v1alpha1/namespaces/n/topics/orders";

fn cluster_path(namespace: &str) -> String {
    format!("/apis/weir.dev/v1alpha1/namespaces/{namespace}/kafkaclusters/c")
}

/// A cluster with a broker and a running controller, and the task that brings topics to it.
struct World {
    server: Server,
    topics: Topics,
    hosted: Hosted,
    _broker: Broker,
}

impl World {
    async fn new(namespace: &str, spec: &Value) -> Self {
        let server = Server::default();
        let metadata = json!({"name": "c", "namespace": namespace, "uid": "u"});
        let object = json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": metadata, "spec": spec});
        server.put(&cluster_path(namespace), &object);
        let cluster: KafkaCluster =
            serde_json::from_value(server.get(&cluster_path(namespace)).unwrap()).unwrap();
        let (context, cache) = (Context::of_tests(&server), ClusterCache::default());
        let mut store =
            KubeStore::new(server.client(), &cluster, Arc::clone(&context.leads), cache.clone());
        store.create("id".to_owned(), cluster).await.unwrap();
        let (controller, _shell) = Controller::start(store).await.unwrap();
        let broker = Broker::serves(&controller, "id").await;
        let (sizes, _) = keep_sizes(Client::new(controller.committed(), None));
        let hosted =
            Hosted { cluster: Key::new(Some(namespace), Some("c")), controller, cache, sizes };
        let topics = Topics {
            context,
            known: BTreeMap::new(),
            hosted: BTreeMap::from([(hosted.cluster.clone(), hosted.clone())]),
            offers: FuturesUnordered::new(),
            again: FuturesUnordered::new(),
        };
        Self { server, topics, hosted, _broker: broker }
    }

    /// Creates the missing resources of retained topics, as the task of the statuses does.
    async fn bring_back(&self) -> Vec<Key> {
        let state = self.hosted.controller.committed().borrow().clone();
        let lost = status::lost(&state, &self.hosted);
        for topic in &lost {
            status::restore_topic(&self.topics.context, topic).await;
        }
        lost.iter().map(|topic| Key::of(&topic.metadata)).collect()
    }

    /// The watch reports the current resource.
    async fn hear(&mut self) {
        let topic = self.topic();
        self.topics.put(topic).await;
    }

    /// A user deletes the resource, and the watch reports it.
    async fn delete_orders(&mut self) {
        let topic = self.topic();
        self.server.remove(TOPIC);
        self.topics.remove(&Key::of(&topic.metadata), Some(topic.clone())).await;
    }

    fn topic(&self) -> Topic {
        serde_json::from_value(self.server.get(TOPIC).unwrap()).unwrap()
    }

    /// The controller answers every request.
    async fn answered(&mut self) {
        while let Some(offered) = self.topics.offers.next().await {
            self.topics.answered(offered);
        }
    }

    async fn has_topic(&self) -> bool {
        let look = self
            .hosted
            .controller
            .query(|state| state.topic_by_resource(&state.cluster.key("orders")).is_some());
        look.await.unwrap()
    }

    fn events(&self) -> Vec<Value> {
        let paths = self.server.paths();
        let events = paths.iter().filter(|path| path.contains("/events/"));
        events.filter_map(|path| self.server.get(path)).collect()
    }
}

fn orders(policy: &str) -> Value {
    json!({
        "apiVersion": weir_crds::API_VERSION, "kind": "Topic",
        "metadata": {
            "name": "orders", "namespace": "n", "labels": {"team": "shop"},
            "annotations": {"note": "ours", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "ownerReferences": [
                {"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "name": "c", "uid": "u"},
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "g"},
            ],
        },
        "spec": {"clusterRef": {"name": "c"}, "partitions": 2, "deletionPolicy": policy, "config": {"retention.ms": 60000}},
    })
}

#[tokio::test]
async fn a_topic_that_is_to_be_retained_comes_back_as_it_was() {
    let mut world = World::new("n", &json!({})).await;
    world.server.put(TOPIC, &orders("Retain"));
    world.hear().await;
    world.answered().await;
    let before = world.topic();
    let id = world
        .hosted
        .controller
        .query(|state| state.topic_by_resource(&state.cluster.key("orders")).unwrap().id)
        .await
        .unwrap();
    // The last version counts, even if the watch had not reported it before.
    let mut labelled = world.server.get(TOPIC).unwrap();
    labelled["metadata"]["labels"]["tier"] = json!("gold");
    world.server.put(TOPIC, &labelled);
    world.delete_orders().await;
    world.bring_back().await;
    assert_eq!(
        world.server.get(TOPIC),
        None,
        "the controller has not said yet whether the topic goes"
    );
    world.answered().await;
    world.bring_back().await;
    let after = world.topic();
    assert_eq!(after.spec, before.spec);
    assert_eq!(after.metadata.labels.clone().unwrap_or_default().len(), 2);
    assert_eq!(topic_id_on(&after), Some(id));
    let annotations = after.metadata.annotations.clone().unwrap_or_default();
    for (name, value) in before.metadata.annotations.iter().flatten() {
        assert_eq!(annotations.get(name), Some(value), "{name}");
    }
    let owners: Vec<String> =
        after.metadata.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect();
    assert_eq!(owners, ["u"], "who is gone would take it along");
    let events = world.events();
    assert!(
        events
            .iter()
            .any(|event| event["reason"] == "Retained" && event["regarding"]["name"] == "orders"),
        "{events:?}"
    );
    // It is the same topic, with the same records.
    world.hear().await;
    world.answered().await;
    let same = world
        .hosted
        .controller
        .query(move |state| state.topics.contains_key(&id) && state.topics.len() == 1);
    assert!(same.await.unwrap());
    // The same a second time.
    world.delete_orders().await;
    world.answered().await;
    world.bring_back().await;
    assert_eq!(world.topic().metadata.labels, after.metadata.labels);
}

#[tokio::test]
async fn a_topic_whose_policy_was_changed_goes() {
    let mut world = World::new("n", &json!({})).await;
    world.server.put(TOPIC, &orders("Retain"));
    world.hear().await;
    world.answered().await;
    // Both at once, before the controller learns of either.
    let mut object = world.server.get(TOPIC).unwrap();
    object["spec"]["deletionPolicy"] = json!("Delete");
    world.server.put(TOPIC, &object);
    world.hear().await;
    world.delete_orders().await;
    world.bring_back().await;
    assert_eq!(world.server.get(TOPIC), None);
    world.answered().await;
    world.bring_back().await;
    assert_eq!((world.server.get(TOPIC), world.has_topic().await), (None, false));
    assert!(world.hosted.cache.deletion(&Key::new(Some("n"), Some("orders"))).is_none());
}

#[tokio::test]
async fn what_went_while_nobody_looked_comes_back_with_its_id_and_spec() {
    let mut world = World::new("n", &json!({})).await;
    world.server.put(TOPIC, &orders("Retain"));
    world.hear().await;
    world.answered().await;
    let before = world.topic();
    world.server.remove(TOPIC);
    world.hosted.cache.deleted_topic(&Key::new(Some("n"), Some("orders")));
    world.bring_back().await;
    let after = world.topic();
    assert_eq!((&after.spec, topic_id_on(&after)), (&before.spec, topic_id_on(&before)));
}
