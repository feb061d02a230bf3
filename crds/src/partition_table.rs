//! `PartitionTable`: the operator's store of partitions and brokers. Only the operator writes it.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A part of a cluster's state: one of 16 shards of its partitions, or the registry of its brokers.
///
/// The content is one packed string, because an API server walks every field of an object on each
/// write, and there would be many.
#[derive(
    CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize,
)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "PartitionTable",
    namespaced,
    derive = "PartialEq",
    doc = "The operator's own record of a cluster's partitions and brokers. Do not change it; keep it with the cluster in backups.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster"),
    printcolumn(name = "Controller-Epoch", type_ = "integer", json_path = ".spec.controllerEpoch"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct PartitionTableSpec {
    /// The cluster's `metadata.name`.
    pub cluster: String,
    /// The uid of the KafkaCluster that this was last written for. A new cluster of the same name
    /// but with another uid continues with this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_uid: Option<String>,
    /// The epoch of the controller that wrote this. A new controller raises it in every part before
    /// it does anything else, so that its predecessor's writes fail.
    pub controller_epoch: i64,
    /// One line for each partition or broker, in the operator's own format.
    pub content: String,
}
