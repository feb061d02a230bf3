//! A controller at another address than its predecessor: another operator, in another namespace or
//! under another name, took the cluster over.
//!
//! Brokers read the address from a file, which Kubernetes updates in a running pod. Until then they
//! serve as without an operator, and the controller does not fence them for their silence.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::Api;
use tracing::{info, warn};
use weir_crds::KafkaCluster;

use super::super::context::Context;
use super::super::objects::{CONTROLLER_KEY, Names};
use crate::store::StoreError;
use crate::store::kube::FIELD_MANAGER;
use crate::store::kube::ours::if_ours;

/// The most time for brokers to connect to a new address. A kubelet syncs a pod's ConfigMaps once a
/// minute, with up to half of that as jitter (`syncFrequency` and
/// `workerResyncIntervalJitterFactor`). The rest is for its cache, and for the broker's next
/// attempt.
const TOLD_WITHIN: Duration = Duration::from_secs(180);

/// How long brokers may still need to learn the controller's address; zero if it has not changed.
///
/// # Errors
/// When the Kubernetes API does not answer. If it refuses, the controller starts all the same,
/// without an excuse for silent brokers.
pub(in crate::kubernetes) async fn excused(
    context: &Context,
    cluster: &KafkaCluster,
    now: &Time,
) -> Result<Duration, StoreError> {
    let names = Names::of(cluster);
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &names.namespace);
    let map = match maps.get_opt(&names.brokers()).await {
        Ok(map) => map,
        Err(error @ kube::Error::Api(_)) => {
            warn!(cluster = names.cluster, namespace = names.namespace, %error, "cannot look up where brokers are told to find the controller; silent brokers get no extra time");
            None
        }
        Err(error) => {
            return Err(StoreError::Api {
                action: "get",
                object: format!("ConfigMap {}", names.brokers()),
                source: Box::new(error),
            });
        }
    };
    let map = if_ours(map, cluster.metadata.uid.as_deref().unwrap_or_default());
    let excused =
        map.map_or(Duration::ZERO, |map| left_to_hear(&map, &context.controller_address, now));
    if !excused.is_zero() {
        info!(
            cluster = names.cluster,
            namespace = names.namespace,
            seconds = excused.as_secs(),
            "brokers are to hear that the controller is elsewhere now, and have this long to come"
        );
    }
    Ok(excused)
}

/// The remaining time by the ConfigMap: all of it if the address is about to change, the rest of it
/// if it changed a moment ago.
fn left_to_hear(map: &ConfigMap, address: &str, now: &Time) -> Duration {
    let told = map.data.as_ref().and_then(|data| data.get(CONTROLLER_KEY)).map(String::as_str);
    if told != Some(address) {
        return TOLD_WITHIN;
    }
    let by_us = map.metadata.managed_fields.iter().flatten();
    let by_us = by_us.filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
    let Some(written) = by_us.filter_map(|entry| entry.time.as_ref()).max() else {
        return Duration::ZERO;
    };
    if map.metadata.creation_timestamp.as_ref().is_none_or(|made| written <= made) {
        return Duration::ZERO;
    }
    // The API server's clock differs, so a write may be in the future.
    let since = Duration::try_from(now.0.duration_since(written.0)).unwrap_or_default();
    TOLD_WITHIN.saturating_sub(since)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn brokers_get_time_to_hear_of_another_address() {
        let map = |address: &str, made: i64, written: &[(&str, i64)]| -> ConfigMap {
            let fields: Vec<_> = written
                .iter()
                .map(|(by, second)| json!({"manager": by, "time": at(*second)}))
                .collect();
            serde_json::from_value(json!({
                "metadata": {"creationTimestamp": at(made), "managedFields": fields}, "data": {"WEIR_CONTROLLER": address},
            }))
            .unwrap()
        };
        let left = |map: ConfigMap| left_to_hear(&map, "here:1", &at(1_000)).as_secs();
        let us = FIELD_MANAGER;
        assert_eq!(left(map("there:1", 0, &[(us, 0)])), 180, "it is about to change");
        assert_eq!(
            left(map("here:1", 0, &[(us, 940)])),
            120,
            "it changed a minute ago, under a predecessor of this process"
        );
        assert_eq!(left(map("here:1", 0, &[(us, 800), ("kubectl", 990)])), 0);
        assert_eq!(
            left(map("here:1", 990, &[(us, 990)])),
            0,
            "the cluster is new: its pods began with it"
        );
        assert_eq!(left(map("here:1", 0, &[(us, 1_005)])), 180);
        assert_eq!(left(map("here:1", 0, &[])), 0);
    }
}
