//! The annotations of a KafkaCluster that the operator reads and writes.

use weir_crds::KafkaCluster;

/// The cluster's id in the Kafka protocol: it survives a backup that drops the status.
pub(super) const CLUSTER_ID_ANNOTATION: &str = "weir.dev/cluster-id";

/// The image at the cluster's creation.
pub(super) const IMAGE_ANNOTATION: &str = "weir.dev/image";

/// With "new", a cluster whose id is known may start without its partition tables.
pub(super) const STATE_ANNOTATION: &str = "weir.dev/state";

/// With "true", the same as `spec.paused`.
pub(super) const PAUSED_ANNOTATION: &str = "weir.dev/paused";

/// With another value than before, the CA of the cluster's nodes is exchanged.
pub(super) const ROTATE_NODES_CA_ANNOTATION: &str = "weir.dev/rotate-nodes-ca";

/// The value of a cluster's annotation.
pub(super) fn annotation<'a>(cluster: &'a KafkaCluster, name: &str) -> Option<&'a str> {
    cluster.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}
