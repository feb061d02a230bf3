//! `KafkaCluster`: the brokers and their common settings.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::allowed_namespaces::AllowedNamespaces;
use crate::cluster_settings::ClusterConfig;
use crate::kubernetes_values::IMAGE;
use crate::named_settings::{ClientMetricsConfig, GroupConfig};
use crate::network::Network;
use crate::placing::{Listener, PodSettings, PodTemplatePatch, Resources, Storage};
use crate::process::{Process, requests_and_connections_fit_into_the_limit};

/// The desired state of a cluster.
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
    printcolumn(name = "Brokers", type_ = "string", json_path = ".status.brokers.summary"),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".status.partitions.total"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Topics", type_ = "integer", json_path = ".status.topics", priority = "1"),
    printcolumn(name = "Under-Replicated", type_ = "integer", json_path = ".status.partitions.underReplicated", priority = "1"),
    printcolumn(name = "Offline", type_ = "integer", json_path = ".status.partitions.offline", priority = "1"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.bytes", priority = "1"),
    printcolumn(name = "Bootstrap", type_ = "string", json_path = ".status.listeners[0].bootstrap", priority = "1"),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.image", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = "1"),
    scale(spec_replicas_path = ".spec.brokers.replicas", status_replicas_path = ".status.brokers.replicas", label_selector_path = ".status.brokers.selector"),
    validation = Rule::new("size(self.metadata.name) <= 37")
        .message("a cluster's name has at most 37 characters: names of other objects are made from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')")
        .message("a cluster's name has lower-case letters, digits and '-' only, and begins with a letter: names of services are made from it"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new(
        "!has(self.brokers) || !has(self.config) || !has(self.config.default__dot__replication__dot__factor) || \
         int(self.config.default__dot__replication__dot__factor) <= self.brokers.replicas")
        .message("config's default.replication.factor must not be greater than brokers.replicas"),
    validation = Rule::new(
        "!has(self.brokers) || !has(self.config) || !has(self.config.min__dot__insync__dot__replicas) || \
         int(self.config.min__dot__insync__dot__replicas) <= self.brokers.replicas")
        .message("config's min.insync.replicas must not be greater than brokers.replicas: nothing could be written with acks=all"),
    validation = Rule::new(
        "!has(self.brokers) || !has(self.config) || !has(self.config.offsets__dot__topic__dot__replication__dot__factor) || \
         int(self.config.offsets__dot__topic__dot__replication__dot__factor) <= self.brokers.replicas")
        .message("config's offsets.topic.replication.factor must not be greater than brokers.replicas"),
    validation = Rule::new(
        "!has(self.brokers) || !has(self.config) || !has(self.config.transaction__dot__state__dot__log__dot__replication__dot__factor) || \
         int(self.config.transaction__dot__state__dot__log__dot__replication__dot__factor) <= self.brokers.replicas")
        .message("config's transaction.state.log.replication.factor must not be greater than brokers.replicas"),
    validation = Rule::new(
        "!has(self.brokers) || !has(self.config) || !has(self.config.transaction__dot__state__dot__log__dot__min__dot__isr) || \
         int(self.config.transaction__dot__state__dot__log__dot__min__dot__isr) <= self.brokers.replicas")
        .message("config's transaction.state.log.min.isr must not be greater than brokers.replicas: no transaction could be written"),
    validation = Rule::new(
        "!has(self.brokers) || !has(self.listeners) || \
         self.listeners.all(one, one.type != 'SharedLoadBalancer' || one.port + self.brokers.replicas <= 65535)")
        .message("a listener of type SharedLoadBalancer takes a port more for each broker, up to 65535"),
    validation = Rule::new(
        "!has(self.brokers) || !has(self.listeners) || self.brokers.replicas == 1 || \
         self.listeners.all(one, one.type != 'LoadBalancer' || !has(one.host) || one.host.contains('{broker}'))")
        .message("with the type LoadBalancer each broker has an address of its own: host needs {broker}, which stands for the broker's id, as in kafka-{broker}.example.com"),
    validation = Rule::new(
        "(has(self.listeners) && size(self.listeners) > 0 ? self.listeners[0].name : 'plain') == \
         (has(oldSelf.listeners) && size(oldSelf.listeners) > 0 ? oldSelf.listeners[0].name : 'plain')")
        .message("the first listener keeps its name: brokers find one another by it while they are restarted; its port may change"),
)]
pub struct KafkaClusterSpec {
    /// The brokers.
    #[serde(default)]
    pub brokers: Brokers,

    /// Settings of all brokers, with Kafka's names. They are also the defaults of topics.
    #[serde(default, skip_serializing_if = "ClusterConfig::is_empty")]
    pub config: ClusterConfig,

    /// The listeners of the brokers for clients. Default: one Internal listener, plain, on port
    /// 9092. Brokers among themselves use port 9091. Local mode has a listener of its own, and
    /// serves those with tls or sasl: broker i on the listener's port plus i.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(
        validation = Rule::new("self.size() == 0 || self[0].type == 'Internal'")
            .message("the first listener must be of type Internal: clients inside the Kubernetes cluster use it"),
        validation = Rule::new("self.all(one, one.port != 9100 && one.name != 'http')").message("port 9100, called http, is that of the brokers' metrics"),
        validation = Rule::new("self.all(one, one.port != 9091 && one.name != 'weir-internal')").message("port 9091, called weir-internal, is that of brokers among themselves"),
        validation = Rule::new("self.all(one, one.name != 'bootstrap' && one.name != 'brokers')").message("no listener is called bootstrap or brokers: services of the cluster are"),
        validation = Rule::new("self.all(one, self.exists_one(other, other.port == one.port))").message("two listeners cannot have one port"),
    )]
    pub listeners: Vec<Listener>,

    /// The IP families of the cluster's services.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: Network,

    /// The image of the brokers. Default: the operator's default when the cluster was created; a
    /// newer operator does not change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = IMAGE))]
    pub image: Option<String>,

    /// The namespaces whose Topics and ConsumerGroups may belong to this cluster, by naming it in
    /// spec.clusterRef.namespace. If a namespace is removed, its topics stay in Kafka, but changes
    /// of their Topics have no effect. Default: the cluster's own namespace.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allowed_namespaces: AllowedNamespaces,

    /// Which consumer groups get a ConsumerGroup resource, and settings of single groups.
    #[serde(default, skip_serializing_if = "is_default")]
    pub consumer_groups: GroupReflection,

    /// Client metrics subscriptions, by name. Client metrics are not collected, so this has no
    /// effect.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub client_metrics: BTreeMap<String, ClientMetricsConfig>,

    /// The source for rebuilding lost partition tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover_from: Option<RecoverFrom>,

    /// Whether the API server refuses to delete this KafkaCluster while its topics hold records, by
    /// status.bytes. The chart's policy enforces it (deletionProtection.enabled). With false the
    /// cluster can be deleted. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_protection: Option<bool>,

    /// With true, the operator does not change the cluster's objects, whatever this resource says.
    /// Leaders still move when brokers fail, and topics can still change. The annotation
    /// weir.dev/paused=true does the same. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// The source for rebuilding lost partition tables. Volumes: the operator rebuilds them from the
/// brokers' volumes, once every broker has reported its volume (docs/backup.md). It has no effect
/// while the tables exist; if all volumes are new, the cluster starts empty. Default: none, and a
/// cluster that has run before does not start without its tables.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum RecoverFrom {
    /// From the brokers' volumes.
    Volumes,
}

/// Which consumer groups have a resource, and settings of single groups.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GroupReflection {
    /// Whether a group without a ConsumerGroup gets one. Declared: no, only declared groups have
    /// one. All: yes, and the resource is deleted when the group is gone. Default: Declared.
    #[serde(default)]
    pub reflect: Reflect,

    /// The most ConsumerGroups that the operator creates for groups without one. Default: 100.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1, max = 1000))]
    pub max: i32,

    /// Settings of single groups, by group id, with Kafka's names. The group need not have a
    /// resource.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 1000))]
    pub config: BTreeMap<String, GroupConfig>,
}

impl Default for GroupReflection {
    fn default() -> Self {
        Self { reflect: Reflect::default(), max: hundred(), config: BTreeMap::new() }
    }
}

const fn hundred() -> i32 {
    100
}

/// Whether groups without a resource get one.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum Reflect {
    /// No: only declared groups have one.
    #[default]
    Declared,
    /// Yes, and it is deleted when the group is gone.
    All,
}

/// The brokers of a cluster.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    // The tool that moves partitions away from a removed broker throttles that broker, after the
    // number of replicas is lower already.
    validation = Rule::new(
        "!has(self.config) || self.config.all(one, one.matches('^(0|[1-9][0-9]{0,2})$') && (int(one) < self.replicas || \
         has(self.config[one].leader__dot__replication__dot__throttled__dot__rate) || has(self.config[one].follower__dot__replication__dot__throttled__dot__rate)))")
        .message("config names brokers by their ids, which are 0 to replicas - 1"),
    validation = requests_and_connections_fit_into_the_limit(),
)]
pub struct Brokers {
    /// The number of brokers. Their ids are 0 to replicas - 1. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: i32,

    /// How long, in seconds, a change may come no further before it counts as stuck: then Stalled
    /// is True and Progressing False, with the reason ProgressDeadlineExceeded. The operator goes
    /// on trying. Raise it where replicas take longer to catch up. Default: 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub progress_deadline_seconds: Option<i32>,

    /// Settings of single brokers, by broker id, with Kafka's names. They override those of the
    /// cluster.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 1000))]
    pub config: BTreeMap<String, ClusterConfig>,

    /// The brokers' volumes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub storage: Storage,

    /// CPU and memory of each broker, as in a container of a pod. A value here replaces the whole
    /// default. A memory limit is at least 128Mi, or 0 for no limit. Default: requests of 100m cpu
    /// and 512Mi memory, and a limit of 2Gi memory.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Resources,

    /// Settings of each broker's process.
    #[serde(default, skip_serializing_if = "is_default")]
    pub process: Process,

    /// Settings of the brokers' pods.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pod: PodSettings,

    /// Changes to the pod template: a strategic merge patch of metadata (labels, annotations) and
    /// spec (securityContext, affinity, containers, volumes, ...), as for `kubectl patch`. It
    /// cannot change fields that the operator relies on: then UpToDate is False and names the
    /// field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplatePatch>,
}

impl Default for Brokers {
    fn default() -> Self {
        Self {
            replicas: one(),
            progress_deadline_seconds: None,
            config: BTreeMap::new(),
            storage: Storage::default(),
            resources: Resources::default(),
            process: Process::default(),
            pod: PodSettings::default(),
            pod_template: None,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const fn one() -> i32 {
    1
}

/// The observed state of a cluster. It is a summary for people, and the operator never reads it
/// back.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {"observedGeneration": -1}))]
pub struct KafkaClusterStatus {
    /// The generation of the spec that this status describes.
    pub observed_generation: Option<i64>,
    /// The cluster's id in the Kafka protocol.
    pub cluster_id: Option<String>,
    /// The image that the brokers should run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The number of brokers and their state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brokers: Option<BrokerSummary>,
    /// The addresses for clients, in the order of the spec's listeners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub listeners: Vec<ListenerStatus>,
    /// The number of topics.
    pub topics: Option<i64>,
    /// The partitions by state.
    pub partitions: Option<PartitionSummary>,
    /// The size of the records in all topics in bytes, counting only one replica. It is updated
    /// once it has changed by a tenth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// Logs that brokers have set aside because their topics are not in the metadata. Nothing reads
    /// them, and only the given command removes them.
    pub strays: Option<Vec<BrokerStrays>>,
    /// `Ready`: every broker serves and every partition has a leader.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The number of brokers and their state.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerSummary {
    /// Existing pods.
    pub replicas: i32,
    /// Brokers that serve.
    pub ready: i32,
    /// Pods that match the spec.
    pub updated: i32,
    /// `ready/wanted`.
    pub summary: String,
    /// The label selector of the brokers' pods.
    pub selector: String,
}

/// The logs that a broker has set aside.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerStrays {
    /// The broker's id.
    pub broker: i32,
    /// The number of logs.
    pub count: i64,
    /// Their size in bytes.
    pub bytes: i64,
    /// The directories of the first ten: topic and partition, a random part, and `-stray`.
    pub logs: Vec<String>,
    /// The command that removes all of them. Their records are lost for good.
    pub remove: String,
}

/// The addresses of a listener for clients.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// The listener's name.
    pub name: String,
    /// The value for `bootstrap.servers`; empty while it is unknown.
    pub bootstrap: String,
    /// The address that each broker advertises, by id; empty if it is unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brokers: Vec<String>,
    /// Until when the certificate is valid that the operator has issued for the listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_not_after: Option<Time>,
}

/// The number of partitions by state.
#[derive(KubeSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionSummary {
    /// All partitions.
    pub total: i64,
    /// Partitions with a leader.
    pub online: i64,
    /// Partitions with fewer in-sync replicas than replicas.
    pub under_replicated: i64,
    /// Partitions without a leader.
    pub offline: i64,
}
