//! Reading the state from the API server, whatever users did to the objects.

pub(crate) mod broker;
mod credentials;
mod namespaces;
mod refusals;
pub(crate) mod server;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use uuid::Uuid;
use weir_protocol::types::{BrokerId, TopicId};

use super::*;
use crate::controller::TOPIC_ID_ANNOTATION;
use crate::controller::state::Partition;

fn object(name: &str, age: i64, id: Option<u128>, spec: &Value) -> DynamicObject {
    let mut object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": weir_crds::API_VERSION, "kind": "Topic",
        "metadata": {"name": name, "namespace": "n", "uid": Uuid::from_u128(99).to_string(), "resourceVersion": "7"},
        "spec": spec,
    }))
    .unwrap();
    object.metadata.creation_timestamp = Some(Time(Timestamp::from_second(1000 - age).unwrap()));
    object.metadata.annotations =
        id.map(|id| [(TOPIC_ID_ANNOTATION.to_owned(), Uuid::from_u128(id).to_string())].into());
    object
}

fn of(cluster: &str) -> Value {
    json!({"clusterRef": {"name": cluster}, "partitions": 5, "replicas": 3})
}

#[test]
fn topics_are_those_of_the_cluster_that_bear_an_id() {
    let one = Partition::new(vec![BrokerId(0), BrokerId(1)], vec![BrokerId(0)]);
    let partitions = BTreeMap::from([(TopicId(Uuid::from_u128(1)), vec![one.clone(), one])]);
    let mut renamed = of("c");
    renamed["topicName"] = json!("orders");
    let mut broken = of("c");
    broken["config"] = json!({"no.such.setting": 1, "retention.ms": -1});
    let objects = vec![
        object("orders", 9, Some(1), &of("c")),
        object("copied-with-its-id", 5, Some(1), &of("c")),
        object("the-same-name", 3, Some(2), &renamed),
        object("elsewhere", 3, Some(3), &of("d")),
        object(
            "of-another-namespace",
            3,
            Some(5),
            &json!({"clusterRef": {"name": "c", "namespace": "m"}}),
        ),
        object(
            "in-so-many-words",
            1,
            Some(6),
            &json!({"clusterRef": {"name": "c", "namespace": "n"}}),
        ),
        object("not-taken-up", 3, None, &of("c")),
        object("broken", 3, Some(4), &broken),
    ];
    let loaded = read::oldest_of_each(read::topics("c", "n", objects, &partitions));
    let names: Vec<&str> =
        loaded.iter().filter_map(|topic| topic.resource.metadata.name.as_deref()).collect();
    assert_eq!(names, ["orders", "broken", "in-so-many-words"]);
    // The existing number of partitions counts: the topic grows when the watch reports the request.
    let spec = &loaded[0].resource.spec;
    assert_eq!((spec.partitions, spec.replicas), (Some(2), Some(2)));
    assert_eq!(loaded[0].seen.as_ref().unwrap().spec.partitions, Some(5));
    // An unreadable setting must not discard the others: without retention.ms the topic's records
    // would go.
    let kept: Vec<_> = loaded[1].resource.spec.config.texts().iter().collect();
    assert_eq!(kept, [(&"retention.ms".to_owned(), &"-1".to_owned())]);
    assert_eq!(loaded[1].resource.spec.deletion_policy, weir_crds::DeletionPolicy::Retain);
}

#[test]
fn parts_are_told_by_their_suffix() {
    for part in (0..SHARDS).map(Part::Shard).chain([Part::Registry]) {
        assert_eq!(Part::of_suffix(&part.to_string()), Some(part));
    }
    for none in ["", "1", "16", "007", "registry-2", "x-registry"] {
        assert_eq!(Part::of_suffix(none), None, "{none}");
    }
}
