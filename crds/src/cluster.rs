//! `KafkaCluster`: the brokers and what is set for all of them.

#![expect(unreachable_pub, reason = "the derive of the schema writes public types inside of functions")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::cluster_settings::ClusterConfig;

/// What a cluster shall be.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "KafkaCluster",
    namespaced,
    status = "KafkaClusterStatus",
    shortname = "kfc",
    category = "kafka",
    derive = "PartialEq",
    doc = "A cluster of brokers that speak the Kafka protocol.",
    printcolumn(name = "Brokers", type_ = "integer", json_path = ".spec.brokers.replicas"),
    printcolumn(name = "Topics", type_ = "integer", json_path = ".status.topics"),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".status.partitions.total"),
    printcolumn(name = "Under-Replicated", type_ = "integer", json_path = ".status.partitions.underReplicated"),
    printcolumn(name = "Offline", type_ = "integer", json_path = ".status.partitions.offline"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 40")
        .message("a cluster's name has at most 40 characters: names of other objects are made from it"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new(
        "!has(self.brokers) || !has(self.config) || !has(self.config.default__dot__replication__dot__factor) || \
         int(self.config.default__dot__replication__dot__factor) <= self.brokers.replicas")
        .message("config's default.replication.factor must not be greater than brokers.replicas"),
)]
pub struct KafkaClusterSpec {
    /// The brokers.
    #[serde(default)]
    pub brokers: Brokers,

    /// Settings of all brokers under Kafka's names, and the defaults of topics.
    #[serde(default, skip_serializing_if = "ClusterConfig::is_empty")]
    pub config: ClusterConfig,
}

/// The brokers of a cluster.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Brokers {
    /// How many there are. Their ids are 0 to replicas - 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: i32,

    /// Settings of single brokers under Kafka's names, by the broker's id. They prevail over those of the cluster.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 1000))]
    pub config: BTreeMap<String, ClusterConfig>,
}

impl Default for Brokers {
    fn default() -> Self {
        Self {
            replicas: one(),
            config: BTreeMap::new(),
        }
    }
}

const fn one() -> i32 {
    1
}

/// What a cluster is. A summary for people, never read back.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KafkaClusterStatus {
    /// The generation of the spec that this speaks of.
    pub observed_generation: Option<i64>,
    /// The cluster's id in the Kafka protocol.
    pub cluster_id: Option<String>,
    /// The number of its topics.
    pub topics: Option<i64>,
    /// How its partitions do.
    pub partitions: Option<PartitionSummary>,
    /// `Ready`: every broker serves and every partition has a leader.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// How many partitions are in which state.
#[derive(KubeSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionSummary {
    /// All of them.
    pub total: i64,
    /// Those with a leader.
    pub online: i64,
    /// Those with fewer replicas in sync than there are replicas.
    pub under_replicated: i64,
    /// Those without a leader.
    pub offline: i64,
}
