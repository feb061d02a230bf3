//! Topics with an API server in memory: deletions of their resources.

mod echoes;
mod namespaces;

use serde_json::{Value, json};
use weir_crds::KafkaCluster;
use weir_protocol::messages::IncrementalAlterConfigsRequest;
use weir_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};

use super::*;
use crate::controller::{AdminRequest, AdminResponse, topic_id_on};
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
    broker: Broker,
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
        Self { server, topics, hosted, broker }
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

    /// The controller answers every request, including repeated ones.
    async fn settle(&mut self) {
        loop {
            if let Some(offered) = self.topics.offers.next().await {
                self.topics.answered(offered);
            } else if let Some((topic, cluster, besides)) = self.topics.again.next().await {
                self.topics.offer_again(&topic, &cluster, besides).await;
            } else {
                return;
            }
        }
    }

    async fn has_topic(&self) -> bool {
        let look = self
            .hosted
            .controller
            .query(|state| state.topic_by_resource(&state.cluster.key("orders")).is_some());
        look.await.unwrap()
    }

    /// The objects of topics that the state remembers.
    async fn remembered(&self) -> usize {
        self.hosted.controller.query(|state| state.objects.topics.len()).await.unwrap()
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

/// A list names an object and not the deletion of the former one of its name. The topic of the
/// former object goes, even if the controller refuses the next one.
#[tokio::test]
async fn a_deletion_that_the_watch_missed_is_seen_by_the_next_objects_uid() {
    let mut world = World::new("n", &json!({})).await;
    world.server.put(TOPIC, &orders("Delete"));
    world.hear().await;
    world.answered().await;
    assert!(world.has_topic().await);
    let mut next = orders("Delete");
    next["spec"]["replicas"] = json!(9);
    world.server.remove(TOPIC);
    world.server.put(TOPIC, &next);
    world.hear().await;
    world.answered().await;
    assert!(!world.has_topic().await);
    next["spec"]["replicas"] = json!(1);
    world.server.remove(TOPIC);
    world.server.put(TOPIC, &next);
    world.hear().await;
    world.settle().await;
    assert!(world.has_topic().await);
    world.delete_orders().await;
    world.settle().await;
    assert_eq!((world.has_topic().await, world.remembered().await), (false, 0));
}

/// Whoever deletes a topic, nothing of its object is remembered once the watch has reported that.
#[tokio::test]
async fn what_is_remembered_of_an_object_goes_with_it() {
    let mut world = World::new("n", &json!({})).await;
    let key = Key::new(Some("n"), Some("orders"));
    for is_followed in [true, false] {
        world.server.put(TOPIC, &orders("Delete"));
        world.hear().await;
        world.answered().await;
        let last = world.topic();
        let deleted = world.hosted.controller.ask(Asked::Delete(Kind::Topic, key.clone())).await;
        assert!(matches!(deleted.unwrap().reply, Reply::Applied(_)));
        assert_eq!((world.server.get(TOPIC), world.remembered().await), (None, 1));
        // A late version does not bring it back.
        world.topics.hosted[&world.hosted.cluster].cache.withdraw(&key);
        world.topics.put(last.clone()).await;
        world.answered().await;
        assert!(!world.has_topic().await);
        if is_followed {
            world.topics.remove(&key, Some(last)).await;
            world.answered().await;
        } else {
            world.hosted.controller.ask(Asked::Retain(key.clone())).await.unwrap();
        }
        assert_eq!(world.remembered().await, 0, "{is_followed}");
    }
}

/// A client changes a retained topic while its resource is missing, or is created again and not
/// reported yet. The next resource has the change in the end.
#[tokio::test]
async fn a_clients_change_of_a_topic_without_a_resource_is_written() {
    for is_created_first in [false, true] {
        let mut world = World::new("n", &json!({})).await;
        world.server.put(TOPIC, &orders("Retain"));
        world.hear().await;
        world.answered().await;
        world.delete_orders().await;
        world.answered().await;
        if is_created_first {
            world.bring_back().await;
        }
        let entry = AlterableConfig {
            name: "segment.ms".to_owned(),
            value: Some("70000".to_owned()),
            ..Default::default()
        };
        let resource = AlterConfigsResource {
            resource_type: 2,
            resource_name: "orders".to_owned(),
            configs: vec![entry],
            ..Default::default()
        };
        let request =
            IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
        let request = world.broker.asks(AdminRequest::IncrementalAlterConfigs(request));
        let reply = world.hosted.controller.ask(request).await.unwrap().reply;
        let Reply::Admin(AdminResponse::IncrementalAlterConfigs(response)) = reply else {
            panic!("{reply:?}")
        };
        assert_eq!(response.responses[0].error_code, 0);
        world.bring_back().await;
        world.hear().await;
        world.settle().await;
        let config = json!({"retention.ms": 60000, "segment.ms": 70000});
        assert_eq!(json!(world.topic().spec.config), config, "{is_created_first}");
    }
}
