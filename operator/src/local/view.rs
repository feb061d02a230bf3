//! PURE: resources for `get`: as users wrote them, with their current status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff;
use serde_json::Value;
use weir_crds::{BrokerSummary, KafkaCluster, KafkaClusterStatus, TopicStatus};

use crate::controller::state::{State, Topic};
use crate::controller::{Kind, summary};

/// A resource by name.
pub(super) fn resource(state: &State, kind: Kind, name: &str) -> Option<Value> {
    match kind {
        Kind::KafkaCluster => Some(&state.cluster.resource)
            .filter(|cluster| cluster.metadata.name.as_deref() == Some(name))
            .and_then(|_| cluster(state)),
        Kind::Topic => {
            state.topic_by_resource(&state.cluster.key(name)).and_then(|found| topic(found))
        }
    }
}

/// All resources of a kind, by name.
pub(super) fn resources(state: &State, kind: Kind) -> Vec<Value> {
    match kind {
        Kind::KafkaCluster => cluster(state).into_iter().collect(),
        Kind::Topic => {
            let mut topics: Vec<_> = state.topics.values().collect();
            topics.sort_by_key(|topic| &topic.key);
            topics.into_iter().filter_map(|found| topic(found)).collect()
        }
    }
}

fn cluster(state: &State) -> Option<Value> {
    let mut resource = KafkaCluster::clone(&state.cluster.resource);
    let summary = summary(state.topics.values().flat_map(|topic| &topic.partitions));
    let ready = state.usable_brokers().count();
    let wanted = usize::try_from(resource.spec.brokers.replicas).unwrap_or_default();
    let condition = if ready < wanted {
        condition(
            &resource.metadata,
            false,
            "BrokersNotReady",
            format!("{ready} of {wanted} brokers are ready"),
        )
    } else if summary.offline > 0 {
        condition(
            &resource.metadata,
            false,
            "PartitionsOffline",
            format!("{} of {} partitions have no leader", summary.offline, summary.total),
        )
    } else {
        condition(
            &resource.metadata,
            true,
            "Ready",
            "all brokers are ready, and every partition has a leader".to_owned(),
        )
    };
    resource.status = Some(KafkaClusterStatus {
        observed_generation: resource.metadata.generation,
        cluster_id: Some(state.cluster.id.clone()),
        topics: i64::try_from(state.topics.len()).ok(),
        partitions: Some(summary),
        conditions: vec![condition],
        brokers: Some(BrokerSummary {
            replicas: resource.spec.brokers.replicas,
            ready: i32::try_from(ready).unwrap_or(i32::MAX),
            summary: format!("{ready}/{wanted}"),
            ..BrokerSummary::default()
        }),
        ..KafkaClusterStatus::default()
    });
    serde_json::to_value(resource).ok()
}

fn topic(topic: &Topic) -> Option<Value> {
    let mut resource = topic.resource.clone();
    let summary = summary(topic.partitions.iter());
    let missing = topic.partitions_wanted().saturating_sub(topic.partitions.len());
    let condition = if missing > 0 {
        condition(
            &resource.metadata,
            false,
            "WaitingForBrokers",
            format!("{missing} partitions wait for a broker that can take them"),
        )
    } else if summary.offline > 0 {
        condition(
            &resource.metadata,
            false,
            "PartitionsOffline",
            format!("{} of {} partitions have no leader", summary.offline, summary.total),
        )
    } else {
        condition(&resource.metadata, true, "Ready", "every partition has a leader".to_owned())
    };
    resource.status = Some(TopicStatus {
        observed_generation: resource.metadata.generation,
        topic_id: Some(topic.id.to_string()),
        partitions: Some(summary),
        bytes: None,
        conditions: vec![condition],
    });
    serde_json::to_value(resource).ok()
}

/// The `Ready` condition. Local mode keeps no history of it, so its transition time is the
/// resource's creation.
fn condition(
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    ready: bool,
    reason: &str,
    message: String,
) -> Condition {
    Condition {
        type_: "Ready".to_owned(),
        status: if ready { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: metadata.generation,
        last_transition_time: metadata
            .creation_timestamp
            .clone()
            .unwrap_or(Time(jiff::Timestamp::UNIX_EPOCH)),
    }
}
