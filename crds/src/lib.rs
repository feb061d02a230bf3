//! The custom resources of Weir: the types of what users write, and the schemas that `kubectl` and
//! `weir local` check it against.
//!
//! The Rust types are the source. `crdgen` writes `crds/*.yaml` from them, and a test compares. The
//! operator and local mode use the types; nothing here does I/O. A rule that a schema can express
//! is in the schema, and nowhere else.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod allowed_namespaces;
mod cluster;
mod cluster_settings;
mod consumer_group;
mod consumer_group_status;
mod kubernetes_values;
mod named_settings;
mod network;
mod partition_table;
mod placing;
mod process;
mod quantity;
mod sasl;
mod secret_name;
mod setting;
mod tls;
mod topic;
mod topic_settings;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use allowed_namespaces::{
    AllowedNamespaces, LabelExpression, LabelOperator, NamespaceSelector, NamespacesFrom,
};
pub use cluster::{
    BrokerStrays, BrokerSummary, Brokers, GroupReflection, KafkaCluster, KafkaClusterSpec,
    KafkaClusterStatus, ListenerStatus, PartitionSummary, RecoverFrom, Reflect,
};
pub use cluster_settings::ClusterConfig;
pub use consumer_group::{
    ConsumerGroup, ConsumerGroupSpec, GroupDeletionPolicy, LagPolicy, MembersPolicy,
    PartitionOffset, Position, Reset, ResetTarget, Scaling, TargetRef,
};
pub use consumer_group_status::{
    ConsumerGroupStatus, Lag, Rebalances, ResetPhase, ResetStatus, SavedOffsets, ScalingStatus,
    WorstPartition,
};
pub use named_settings::{ClientMetricsConfig, GroupConfig};
pub use network::{IpFamily, IpFamilyPolicy, Network};
pub use partition_table::{PartitionTable, PartitionTableSpec};
pub use placing::{
    Listener, ListenerType, PodSettings, PodTemplatePatch, Resources, Storage, Toleration,
    VolumePolicy,
};
pub use process::{DEFAULT_MEMORY_LIMIT, Process, Variable};
pub use quantity::Quantity;
pub use sasl::{Sasl, SaslMechanism};
pub use secret_name::SecretName;
pub use setting::{InvalidSetting, Kind, Setting};
pub use tls::{ClientAuthentication, ClientAuthenticationMode, Tls};
pub use topic::{ClusterRef, DeletionPolicy, Topic, TopicSpec, TopicStatus};
pub use topic_settings::TopicConfig;

/// The API group of every kind.
pub const GROUP: &str = "weir.dev";

/// The version of every kind.
pub const VERSION: &str = "v1alpha1";

/// `apiVersion` of every kind.
pub const API_VERSION: &str = "weir.dev/v1alpha1";

/// The definition of every resource, in the order of installation.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![KafkaCluster::crd(), Topic::crd(), ConsumerGroup::crd(), PartitionTable::crd()]
}

#[cfg(test)]
mod tests;
