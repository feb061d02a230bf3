//! The store's writes to resources that users write too, and the effects when the API server
//! refuses them.

use futures::FutureExt as _;
use serde_json::{Value, json};
use weir_protocol::messages::create_topics_request::CreatableTopic;
use weir_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use weir_protocol::messages::{CreateTopicsRequest, IncrementalAlterConfigsRequest};
use weir_protocol::types::ControllerEpoch;

use super::broker::Broker;
use super::server::Server;
use crate::controller::{AdminRequest, AdminResponse, Event, Reply, Resource};
use crate::shell::Controller;
use crate::store::kube::{ClusterCache, KubeStore};

const CLUSTER: &str = "/apis/weir.dev/v1alpha1/namespaces/n/kafkaclusters/c";
const TOPICS: &str = "/apis/weir.dev/v1alpha1/namespaces/n/topics";

/// A controller over an API server, with a broker that serves.
struct World {
    server: Server,
    cache: ClusterCache,
    controller: Controller,
    broker: Broker,
}

impl World {
    async fn new() -> Self {
        let server = Server::default();
        let spec = json!({"brokers": {"replicas": 5}, "config": {"log.retention.bytes": 1000}});
        server.put(
            CLUSTER,
            &json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": spec}),
        );
        let cluster: weir_crds::KafkaCluster =
            serde_json::from_value(server.get(CLUSTER).unwrap()).unwrap();
        let cache = ClusterCache::default();
        let mut store = KubeStore::new(
            server.client(),
            &cluster,
            std::sync::Arc::new(|| async { true }.boxed()),
            cache.clone(),
        );
        store.create("id".to_owned(), cluster).await.unwrap();
        let (controller, _shell) = Controller::start(store).await.unwrap();
        let broker = Broker::serves(&controller, "id").await;
        Self { server, cache, controller, broker }
    }

    fn asked(&self, request: AdminRequest) -> Event {
        self.broker.asks(request)
    }

    /// Sets a setting of each of these resources, or unsets it without a value; returns each
    /// result.
    async fn set(&self, resources: &[(i8, &str, &str, Option<&str>)]) -> Vec<(i16, String)> {
        let answer = self.controller.ask(self.asked(altered(resources))).await.unwrap();
        let Reply::Admin(AdminResponse::IncrementalAlterConfigs(response)) = answer.reply else {
            panic!("{answer:?}")
        };
        let responses = response.responses.into_iter();
        responses.map(|one| (one.error_code, one.error_message.unwrap_or_default())).collect()
    }

    fn creation(&self, names: &[&str]) -> Event {
        let topics = names.iter().map(|name| CreatableTopic {
            name: (*name).to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        });
        let request = CreateTopicsRequest { topics: topics.collect(), ..Default::default() };
        self.asked(AdminRequest::CreateTopics(request))
    }

    /// Creates topics and returns each result.
    async fn create(&self, names: &[&str]) -> Vec<(String, i16)> {
        codes(self.controller.ask(self.creation(names)).await.unwrap().reply)
    }

    async fn controller_epoch(&self) -> ControllerEpoch {
        self.controller.query(|state| state.cluster.controller_epoch).await.unwrap()
    }

    /// A user writes a resource; the watch has reported it, and the controller has not accepted it.
    fn write_unaccepted(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.server.get(path).unwrap();
        change(&mut object["spec"]);
        self.server.put(path, &object);
        let object = self.server.get(path).unwrap();
        match path == CLUSTER {
            true => self.cache.observe_cluster(serde_json::from_value(object).unwrap()),
            false => self.cache.observe_topic(&serde_json::from_value(object).unwrap()),
        }
    }

    /// A resource as the watch reports it, with all that the API server has now.
    fn reported(&self, path: &str) -> Event {
        let object = self.server.get(path).unwrap();
        Event::Apply(vec![match path == CLUSTER {
            true => Resource::Cluster(Box::new(serde_json::from_value(object).unwrap())),
            false => Resource::Topic(Box::new(serde_json::from_value(object).unwrap())),
        }])
    }

    fn spec(&self, path: &str) -> Value {
        self.server.get(path).unwrap()["spec"].clone()
    }
}

fn altered(resources: &[(i8, &str, &str, Option<&str>)]) -> AdminRequest {
    let resources =
        resources.iter().map(|(resource_type, name, setting, value)| AlterConfigsResource {
            resource_type: *resource_type,
            resource_name: (*name).to_owned(),
            configs: vec![AlterableConfig {
                name: (*setting).to_owned(),
                config_operation: i8::from(value.is_none()),
                value: value.map(str::to_owned),
                ..Default::default()
            }],
            ..Default::default()
        });
    AdminRequest::IncrementalAlterConfigs(IncrementalAlterConfigsRequest {
        resources: resources.collect(),
        ..Default::default()
    })
}

fn codes(reply: Reply) -> Vec<(String, i16)> {
    let Reply::Admin(AdminResponse::CreateTopics(response)) = reply else { panic!("{reply:?}") };
    let mut codes: Vec<(String, i16)> =
        response.topics.into_iter().map(|topic| (topic.name, topic.error_code)).collect();
    codes.sort();
    codes
}

const DONE: (i16, String) = (0, String::new());

#[tokio::test]
async fn a_clients_change_leaves_what_a_user_wrote_and_the_controller_has_not_accepted() {
    let world = World::new().await;
    assert_eq!(world.create(&["t"]).await, [("t".to_owned(), 0)]);
    let topic = format!("{TOPICS}/t");
    world.write_unaccepted(CLUSTER, |spec| {
        spec["brokers"]["replicas"] = json!(3);
        spec["config"]["log.retention.hours"] = json!(7);
        spec["paused"] = json!(true);
    });
    world.write_unaccepted(&topic, |spec| {
        spec["partitions"] = json!(7);
        spec["config"] = json!({"retention.bytes": 5});
    });
    let changes =
        [(4, "", "log.cleaner.threads", Some("2")), (2, "t", "retention.ms", Some("1000"))];
    assert_eq!(world.set(&changes).await, [DONE, DONE]);
    assert_eq!(
        world.spec(CLUSTER)["config"],
        json!({"log.retention.bytes": 1000, "log.retention.hours": 7, "log.cleaner.threads": 2})
    );
    assert_eq!(
        (&world.spec(CLUSTER)["brokers"]["replicas"], &world.spec(CLUSTER)["paused"]),
        (&json!(3), &json!(true))
    );
    assert_eq!(world.spec(&topic)["config"], json!({"retention.bytes": 5, "retention.ms": 1000}));
    assert_eq!(world.spec(&topic)["partitions"], 7);
    // Unsetting removes only that setting.
    let changes = [(4, "", "log.retention.bytes", None), (2, "t", "retention.ms", None)];
    assert_eq!(world.set(&changes).await, [DONE, DONE]);
    assert_eq!(
        world.spec(CLUSTER)["config"],
        json!({"log.retention.hours": 7, "log.cleaner.threads": 2})
    );
    assert_eq!(world.spec(&topic)["config"], json!({"retention.bytes": 5}));
}

#[tokio::test]
async fn what_the_operator_wrote_comes_back_by_the_watch_and_undoes_nothing() {
    let world = World::new().await;
    assert_eq!(world.create(&["t"]).await, [("t".to_owned(), 0)]);
    let topic = format!("{TOPICS}/t");
    let set = async |setting: &'static str, of_topic: &'static str, value: &'static str| {
        let both = [(4, "", setting, Some(value)), (2, "t", of_topic, Some(value))];
        assert_eq!(world.set(&both).await, [DONE, DONE]);
    };
    let configs = || (world.spec(CLUSTER)["config"].clone(), world.spec(&topic)["config"].clone());

    // The watch reports the first write when the second is there already.
    set("log.cleaner.threads", "retention.ms", "1000").await;
    let late = [CLUSTER, &topic].map(|path| world.reported(path));
    set("background.threads", "segment.ms", "2000").await;
    let both = (
        json!({"log.retention.bytes": 1000, "log.cleaner.threads": 1000, "background.threads": 2000}),
        json!({"retention.ms": 1000, "segment.ms": 2000}),
    );
    assert_eq!(configs(), both);
    for event in late {
        let _ = world.controller.ask(event).await.unwrap();
    }
    assert_eq!(configs(), both);

    // Or in the batch in which a client's next change is decided before.
    let reported = [CLUSTER, &topic].map(|path| world.reported(path));
    let changes = [(4, "", "num.io.threads", Some("3")), (2, "t", "retention.bytes", Some("3"))];
    let change = world.asked(altered(&changes));
    let mut told = Vec::new();
    for event in [change].into_iter().chain(reported) {
        told.push(world.controller.submit(event).await.unwrap());
    }
    for told in told {
        let _ = told.await.unwrap();
    }
    let mut all = both;
    all.0["num.io.threads"] = json!(3);
    all.1["retention.bytes"] = json!(3);
    assert_eq!(configs(), all);

    // What a user writes counts, with all that clients changed before.
    for path in [CLUSTER, &topic] {
        let mut object = world.server.get(path).unwrap();
        object["spec"]["config"]["compression.type"] = json!("zstd");
        world.server.put(path, &object);
        let reply = world.controller.ask(world.reported(path)).await.unwrap().reply;
        assert!(matches!(reply, Reply::Applied(_)), "{reply:?}");
    }
    let taken = world.controller.query(|state| {
        let topic = state.topic_by_name("t").unwrap();
        (json!(state.cluster.resource.spec.config), json!(topic.resource.spec.config))
    });
    assert_eq!(taken.await.unwrap(), configs());
}

#[tokio::test]
async fn what_the_api_server_refuses_costs_that_write() {
    let world = World::new().await;
    let epoch = world.controller_epoch().await;
    assert_eq!(world.create(&["t", "u"]).await, [("t".to_owned(), 0), ("u".to_owned(), 0)]);
    world.server.refuse(
        "PATCH",
        &format!("{TOPICS}/t"),
        422,
        "spec: partitions can only be raised",
    );
    world.server.refuse("PATCH", CLUSTER, 403, "exceeded quota");
    let changes = [
        (2, "t", "retention.ms", Some("1000")),
        (2, "u", "retention.ms", Some("1000")),
        (4, "", "log.cleaner.threads", Some("2")),
    ];
    let mut said = world.set(&changes).await;
    said.sort();
    assert_eq!(
        said,
        [
            DONE,
            (40, "spec: partitions can only be raised".to_owned()),
            (44, "exceeded quota".to_owned())
        ]
    );
    assert_eq!(world.spec(&format!("{TOPICS}/u"))["config"], json!({"retention.ms": 1000}));
    let state = |world: &World| world.controller.committed().borrow().clone();
    let config =
        |name: &str| state(&world).topic_by_name(name).unwrap().resource.spec.config.clone();
    assert!(config("t").is_empty() && !config("u").is_empty());
    assert!(!state(&world).cluster.configs().contains_key("log.cleaner.threads"));
    assert_eq!(world.controller_epoch().await, epoch, "nothing is read anew");
    world.server.allow_all();
    assert_eq!(world.set(&changes).await, [DONE, DONE, DONE]);
    assert_eq!(world.controller_epoch().await, epoch);
}

#[tokio::test]
async fn who_asks_at_the_same_time_does_not_pay_for_it() {
    let world = World::new().await;
    let epoch = world.controller_epoch().await;
    world.server.refuse("POST", &format!("{TOPICS}/a"), 403, "exceeded quota");
    // The shell handles all of them in one batch.
    let events = [world.creation(&["a", "b"]), world.creation(&["c"]), world.creation(&["d"])];
    let mut told = Vec::new();
    for event in events {
        told.push(world.controller.submit(event).await.unwrap());
    }
    let mut said = Vec::new();
    for told in told {
        said.extend(codes(told.await.unwrap().reply));
    }
    let named = |name: &str, code| (name.to_owned(), code);
    assert_eq!(said, [named("a", 44), named("b", 0), named("c", 0), named("d", 0)]);
    assert_eq!(world.controller_epoch().await, epoch);
    for name in ["b", "c", "d"] {
        let object = world.server.get(&format!("{TOPICS}/{name}")).unwrap();
        let id = world.controller.committed().borrow().topic_by_name(name).unwrap().id;
        assert_eq!(
            object["metadata"]["annotations"]["weir.dev/topic-id"],
            id.0.to_string(),
            "{name}"
        );
    }
    assert_eq!(world.server.get(&format!("{TOPICS}/a")), None);
}

#[tokio::test]
async fn a_topic_whose_resources_name_is_taken_gets_another() {
    let world = World::new().await;
    let epoch = world.controller_epoch().await;
    // For example a resource that the controller refused.
    let theirs = json!({"metadata": {"name": "t"}, "spec": {"clusterRef": {"name": "another"}}});
    world.server.put(&format!("{TOPICS}/t"), &theirs);
    let before = world.server.get(&format!("{TOPICS}/t"));
    assert_eq!(world.create(&["t", "u"]).await, [("t".to_owned(), 0), ("u".to_owned(), 0)]);
    assert_eq!(world.server.get(&format!("{TOPICS}/t")), before);
    let resource = world
        .controller
        .query(|state| state.topic_by_name("t").unwrap().key.name.clone())
        .await
        .unwrap();
    assert!(resource.starts_with("t-"), "{resource}");
    assert_eq!(world.spec(&format!("{TOPICS}/{resource}"))["topicName"], "t");
    assert_eq!(world.controller_epoch().await, epoch);
}

#[tokio::test]
async fn a_users_topic_that_cannot_be_completed_is_refused_by_itself() {
    let world = World::new().await;
    let epoch = world.controller_epoch().await;
    let path = format!("{TOPICS}/mine");
    let object = json!({"apiVersion": weir_crds::API_VERSION, "kind": "Topic", "metadata": {"name": "mine"}, "spec": {"clusterRef": {"name": "c"}}});
    world.server.put(&path, &object);
    world.server.refuse("PATCH", &path, 422, "spec.config: a rule of a later version");
    let topic: weir_crds::Topic = serde_json::from_value(world.server.get(&path).unwrap()).unwrap();
    world.cache.observe_topic(&topic);
    let offered = || Event::Apply(vec![Resource::Topic(Box::new(topic.clone()))]);
    let answer = world.controller.ask(offered()).await.unwrap();
    let Reply::Invalid(refusal) = answer.reply else { panic!("{answer:?}") };
    assert_eq!(refusal.to_string(), "Topic \"mine\": spec: spec.config: a rule of a later version");
    assert_eq!(world.controller_epoch().await, epoch);
    world.server.allow_all();
    assert!(matches!(world.controller.ask(offered()).await.unwrap().reply, Reply::Applied(_)));
    assert_eq!(world.spec(&path)["partitions"], 1, "what was filled in");
}

/// The operator removes a group of settings with its last one, and a user writes the resource
/// before each of its attempts.
#[tokio::test]
async fn an_object_that_others_keep_writing_is_tried_a_bounded_number_of_times() {
    let world = World::new().await;
    let unset = [(32, "g", "consumer.session.timeout.ms", None)];
    let groups = || world.spec(CLUSTER)["consumerGroups"].clone();
    for (races, is_written) in [(0, true), (7, true), (8, false)] {
        let set = [(32, "g", "consumer.session.timeout.ms", Some("50000"))];
        assert_eq!(world.set(&set).await, [DONE]);
        for number in 0..races {
            let setting = json!({"log.retention.bytes": 2000 + number});
            world.server.race_by_patch(CLUSTER, json!({"spec": {"config": setting}}));
        }
        let answer = world.controller.ask(world.asked(altered(&unset))).await;
        assert_eq!(answer.is_ok(), is_written, "{races}: {answer:?}");
        assert_eq!(groups()["config"]["g"].is_null(), is_written, "{races}: {}", groups());
    }
    // The controller has read everything again.
    assert_eq!(world.set(&unset).await, [DONE]);
    assert!(groups()["config"]["g"].is_null(), "{}", groups());
}
