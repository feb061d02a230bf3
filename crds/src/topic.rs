//! `Topic`: a topic exists because this resource exists, whoever made it.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::PartitionSummary;
use crate::topic_settings::TopicConfig;

/// What a topic shall be.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "Topic",
    namespaced,
    status = "TopicStatus",
    shortname = "ktp",
    category = "kafka",
    derive = "PartialEq",
    doc = "A Kafka topic.",
    selectable = ".spec.clusterRef.name",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".spec.partitions"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Online", type_ = "integer", json_path = ".status.partitions.online"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Topic", type_ = "string", json_path = ".spec.topicName", priority = "1"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.bytes", priority = "1"),
    printcolumn(name = "Id", type_ = "string", json_path = ".status.topicId", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = "1"),
    validation = Rule::new("has(self.spec.topicName) || size(self.metadata.name) <= 249")
        .message("a topic's name has at most 249 characters: give a shorter metadata.name, or spec.topicName"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.topicName) == has(oldSelf.topicName) && (!has(self.topicName) || self.topicName == oldSelf.topicName)")
        .message("topicName cannot change: a topic cannot be renamed"),
    validation = Rule::new("!has(oldSelf.partitions) || !has(self.partitions) || self.partitions >= oldSelf.partitions")
        .message("partitions can only be raised: a partition cannot be taken away without its records"),
    validation = Rule::new(
        "!has(self.replicas) || !has(self.config) || !has(self.config.min__dot__insync__dot__replicas) || \
         int(self.config.min__dot__insync__dot__replicas) <= self.replicas")
        .message("config's min.insync.replicas must not be greater than replicas"),
)]
pub struct TopicSpec {
    /// The cluster that the topic belongs to. It cannot change.
    #[x_kube(validation = Rule::new("self == oldSelf").message("clusterRef cannot change: a topic cannot move to another cluster"))]
    pub cluster_ref: ClusterRef,

    /// The topic's name in Kafka, where it is no name that Kubernetes allows (capital letters,
    /// underscores). Default: metadata.name. It cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    #[x_kube(validation = Rule::new("self != '.' && self != '..' && self != '__cluster_metadata'").message("'.', '..' and '__cluster_metadata' are no topic names"))]
    pub topic_name: Option<String>,

    /// The number of partitions. It can be raised. Default: the cluster's num.partitions when the
    /// topic is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub partitions: Option<i32>,

    /// Replicas of each partition. Default: the cluster's default.replication.factor when the topic
    /// is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32_767))]
    pub replicas: Option<i16>,

    /// Settings of the topic under Kafka's names.
    #[serde(default, skip_serializing_if = "TopicConfig::is_empty")]
    pub config: TopicConfig,

    /// What a deletion does. Delete: the topic goes, with its data. Retain: a deletion is refused,
    /// whether it comes by the resource or by a Kafka client, until the policy is Delete. That of
    /// the resource is refused by the chart's policy (deletionProtection.enabled); where that is
    /// not installed, the resource is made again as it was, and the topic goes on with its id and
    /// its records. Default: Delete.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Whether the API server refuses to delete this Topic while it holds records, as status.bytes
    /// says: the chart's policy does (deletionProtection.enabled). With false it may be deleted,
    /// unless deletionPolicy is Retain. A Kafka client may delete the topic all the same, unless
    /// deletionPolicy is Retain. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_protection: Option<bool>,
}

/// A reference to a `KafkaCluster`.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterRef {
    /// The cluster's metadata.name.
    #[schemars(length(max = 37), regex(pattern = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,

    /// The cluster's namespace, which must allow this one (spec.allowedNamespaces of the
    /// KafkaCluster). Default: the namespace of this resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
}

impl ClusterRef {
    /// The cluster's namespace, as a resource in the namespace `own` means it.
    pub fn namespace_from<'a>(&'a self, own: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(own)
    }
}

/// What the deletion of a topic does.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum DeletionPolicy {
    /// The topic goes, with its data.
    #[default]
    Delete,
    /// A deletion is refused, whether it comes by the resource or by a Kafka client, until the
    /// policy is Delete; a resource that is deleted all the same is made again as it was.
    Retain,
}

/// What a topic is. A summary for people, never read back.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {"observedGeneration": -1}))]
pub struct TopicStatus {
    /// The generation of the spec that this speaks of.
    pub observed_generation: Option<i64>,
    /// The topic's immutable id in Kafka's form (KIP-516).
    pub topic_id: Option<String>,
    /// How its partitions do.
    pub partitions: Option<PartitionSummary>,
    /// The bytes of its records, each counted once however many replicas have it. It follows in
    /// steps of a tenth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// `Ready`: every partition has a leader. `Healthy`: all replicas are in sync. `Accepted`,
    /// where the cluster is in another namespace: the cluster takes Topics of this one.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

impl Topic {
    /// The topic's name in Kafka.
    pub fn topic_name(&self) -> &str {
        self.spec.topic_name.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}
