//! `PartitionTable`: where the operator keeps the state of partitions and brokers. Nobody else
//! writes it.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A part of a cluster's state: one of 16 shards of its partitions, or the registry of its brokers.
///
/// The content is one packed string: an API server walks every field of an object on each write,
/// and there are many.
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
    /// The uid of the KafkaCluster that this was last written for. One of another uid and this
    /// name, made when that one was deleted, goes on with what it finds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_uid: Option<String>,
    /// The epoch of the controller that wrote this. A new controller raises it in every part before
    /// it does anything else, so that its predecessor's writes fail.
    pub controller_epoch: i64,
    /// A line for each partition or broker, in the operator's own format.
    pub content: String,
}
