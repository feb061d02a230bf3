//! ConsumerGroups in other namespaces than their cluster's, with an API server in memory.

use serde_json::Value;
use weir_crds::KafkaCluster;

use super::*;
use crate::controller::state::Cluster;
use crate::kubernetes::groups::store::Hosting;
use crate::store::kube::tests::server::Server;

const NAMESPACES: [&str; 2] = ["a", "b"];

struct World {
    server: Server,
    backend: KubeBackend,
    committed: watch::Sender<State>,
    _hosting: Hosting,
}

impl World {
    /// A cluster in the namespace `kafka`, and a ConsumerGroup `g` in each of `a` and `b`, for a
    /// group with the namespace's name.
    fn new(allowed: &Value) -> Self {
        let server = Server::default();
        let context = Context::of_tests(&server);
        let (committed, received) = watch::channel(state(allowed));
        let cluster = Key::new(Some("kafka"), Some("c"));
        let hosting = Hosting::begin(&context.groups, &cluster);
        let world = Self {
            server,
            backend: KubeBackend::new(context, cluster, received),
            committed,
            _hosting: hosting,
        };
        world.backend.context.groups.begin(0);
        for namespace in NAMESPACES {
            world.bring(namespace);
        }
        world
    }

    fn bring(&self, namespace: &str) {
        let path = path(namespace);
        let object = json!({
            "apiVersion": weir_crds::API_VERSION, "kind": "ConsumerGroup", "metadata": {"name": "g", "namespace": namespace, "uid": namespace},
            "spec": {"clusterRef": {"name": "c", "namespace": "kafka"}, "groupId": namespace, "scaling": {"targetRef": {"name": "w"}, "targetLagSeconds": 1}},
        });
        self.server.put(&path, &object);
        let group = serde_json::from_value(self.server.get(&path).unwrap()).unwrap();
        self.backend.context.groups.put(group);
    }

    fn delete(&self, namespace: &str) {
        self.backend.context.groups.remove(&Key::new(Some(namespace), Some("g")));
    }
}

fn path(namespace: &str) -> String {
    format!("/apis/weir.dev/v1alpha1/namespaces/{namespace}/consumergroups/g")
}

fn state(allowed: &Value) -> State {
    let object = json!({
        "apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"namespace": "kafka", "name": "c", "uid": "u"}, "spec": {"allowedNamespaces": allowed},
    });
    let cluster: KafkaCluster = serde_json::from_value(object).unwrap();
    State::new(Cluster::new("id".to_owned(), cluster))
}

fn ids(groups: &[Arc<ConsumerGroup>]) -> Vec<&str> {
    groups.iter().map(|group| group.group_id()).collect()
}

#[tokio::test]
async fn groups_of_other_namespaces_are_looked_after_while_the_cluster_takes_them() {
    let world = World::new(&json!({}));
    assert!(world.backend.groups().is_empty());
    // A deletion does not affect the group either.
    world.delete("a");
    assert!(world.backend.take_deleted().is_empty());
    world.bring("a");
    world.committed.send_replace(state(&json!({"from": "All"})));
    assert_eq!(ids(&world.backend.groups()), ["a", "b"]);
    world.delete("a");
    assert_eq!(
        (ids(&world.backend.take_deleted()), ids(&world.backend.groups())),
        (vec!["a"], vec!["b"])
    );
    world.committed.send_replace(state(&json!({})));
    assert!(world.backend.groups().is_empty());
    // While the verdict is unknown, no group counts as gone.
    assert!(world.backend.knows_all());
    world.committed.send_replace(state(&json!({"from": "Selector", "selector": {}})));
    assert!(world.backend.groups().is_empty() && !world.backend.knows_all());
}

#[tokio::test]
async fn a_group_that_the_cluster_does_not_take_is_told_so() {
    let world = World::new(&json!({}));
    world.backend.report_not_allowed().await;
    for namespace in NAMESPACES {
        let status = world.server.get(&path(namespace)).unwrap()["status"].clone();
        let ready = status["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["type"] == "Ready")
            .unwrap()
            .clone();
        assert_eq!(
            (&ready["status"], &ready["reason"]),
            (&json!("False"), &json!("NotAllowedByCluster")),
            "{namespace}"
        );
    }
}

#[tokio::test]
async fn a_group_scales_what_lies_beside_its_resource_and_is_shown_with_its_namespace() {
    let world = World::new(&json!({"from": "All"}));
    let deployments = ApiResource::erase::<k8s_openapi::api::apps::v1::Deployment>(&());
    let kind = ("apps/v1".to_owned(), "Deployment".to_owned());
    world.backend.scalable.lock().unwrap().insert(kind, deployments);
    let scale =
        |namespace: &str| format!("/apis/apps/v1/namespaces/{namespace}/deployments/w/scale");
    for (namespace, replicas) in [("a", 1), ("b", 2), ("kafka", 3)] {
        world.server.put(
            &scale(namespace),
            &json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "w"}, "spec": {"replicas": replicas}}),
        );
    }
    let groups = world.backend.groups();
    let mut found = Vec::new();
    for group in &groups {
        found.push(world.backend.workload(group).await);
    }
    assert!(matches!(found[..], [Workload::Replicas(1), Workload::Replicas(2)]), "{found:?}");
    world.backend.scale(&groups[1], 7).await.unwrap();
    let replicas =
        |namespace: &str| world.server.get(&scale(namespace)).unwrap()["spec"]["replicas"].as_i64();
    assert_eq!(["a", "b", "kafka"].map(replicas), [Some(1), Some(7), Some(3)]);
    // Brokers and the operator cannot be scaled.
    for selector in [
        "app.kubernetes.io/name=weir,weir.dev/cluster=c",
        "app.kubernetes.io/instance=weir,app.kubernetes.io/name=weir-operator",
    ] {
        let mut theirs = world.server.get(&scale("a")).unwrap();
        theirs["status"] = json!({"replicas": 1, "selector": selector});
        world.server.put(&scale("a"), &theirs);
        let found = world.backend.workload(&groups[0]).await;
        assert!(matches!(found, Workload::Trouble("NotScalable", _)), "{found:?}");
    }
    let status: ConsumerGroupStatus = serde_json::from_value(
        json!({"conditions": [], "lag": {"messages": 5, "partitions": 1, "partitionsBehind": 1}}),
    )
    .unwrap();
    let named = NAMESPACES.map(|namespace| (namespace.to_owned(), "g".to_owned()));
    world.backend.show(named.iter().map(|named| (named, &status)), true);
    let text = world.backend.context.figures.text();
    for namespace in NAMESPACES {
        let line = format!(
            "weir_operator_consumer_group_lag_messages{{namespace=\"{namespace}\",cluster=\"c\",consumer_group=\"g\"}} 5"
        );
        assert!(text.contains(&line), "{text}");
    }
}
