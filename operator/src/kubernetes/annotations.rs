//! The annotations of a KafkaCluster that the operator writes and reads.

use weir_crds::KafkaCluster;

/// Where the cluster's id in the Kafka protocol is kept on its resource: a backup that drops the
/// status keeps it.
pub(super) const CLUSTER_ID_ANNOTATION: &str = "weir.dev/cluster-id";

/// The image that the cluster was made with.
pub(super) const IMAGE_ANNOTATION: &str = "weir.dev/image";

/// With "new", a cluster whose id is known may begin without its partition tables.
pub(super) const STATE_ANNOTATION: &str = "weir.dev/state";

/// With "true", as `spec.paused`.
pub(super) const PAUSED_ANNOTATION: &str = "weir.dev/paused";

/// An annotation of a cluster.
pub(super) fn annotation<'a>(cluster: &'a KafkaCluster, name: &str) -> Option<&'a str> {
    cluster.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}
