//! `KafkaCluster`: the brokers and what is set for all of them.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::allowed_namespaces::AllowedNamespaces;
use crate::cluster_settings::ClusterConfig;
use crate::kubernetes_values::IMAGE;
use crate::named_settings::{ClientMetricsConfig, GroupConfig};
use crate::network::Network;
use crate::placing::{Listener, PodSettings, PodTemplatePatch, Resources, Storage};
use crate::process::{Process, request_memory_is_below_the_limit};

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

    /// Settings of all brokers under Kafka's names, and the defaults of topics.
    #[serde(default, skip_serializing_if = "ClusterConfig::is_empty")]
    pub config: ClusterConfig,

    /// Where clients reach the brokers. The first is the one that brokers use among themselves.
    /// Default: one Internal listener, plain, on port 9092. Local mode has a listener of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(
        validation = Rule::new("self.size() == 0 || self[0].type == 'Internal'")
            .message("the first listener must be of type Internal: brokers use it among themselves"),
        validation = Rule::new("self.all(one, one.port != 9100 && one.name != 'http')").message("port 9100, called http, is that of the brokers' metrics"),
        validation = Rule::new("self.all(one, one.name != 'bootstrap' && one.name != 'brokers')").message("no listener is called bootstrap or brokers: services of the cluster are"),
        validation = Rule::new("self.all(one, self.exists_one(other, other.port == one.port))").message("two listeners cannot have one port"),
    )]
    pub listeners: Vec<Listener>,

    /// Which IP families the services of the cluster have.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: Network,

    /// The image of the brokers. Default: the one that the operator brought when the cluster was
    /// made; a newer operator does not change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = IMAGE))]
    pub image: Option<String>,

    /// The namespaces whose Topics and ConsumerGroups belong to the cluster where they name it,
    /// with spec.clusterRef.namespace. A Topic whose namespace is taken off stays as it is, and is
    /// followed no more. Default: the cluster's own namespace.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allowed_namespaces: AllowedNamespaces,

    /// Which consumer groups have a ConsumerGroup resource, and settings of single groups.
    #[serde(default, skip_serializing_if = "is_default")]
    pub consumer_groups: GroupReflection,

    /// Subscriptions to the metrics of clients, by name. They are not collected, so it has no
    /// effect.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub client_metrics: BTreeMap<String, ClientMetricsConfig>,

    /// Where the cluster gets its partition tables from where they are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover_from: Option<RecoverFrom>,

    /// Whether the API server refuses to delete this KafkaCluster while its topics hold records, as
    /// status.bytes says: the chart's policy does (deletionProtection.enabled). With false it may
    /// be deleted. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_protection: Option<bool>,

    /// With true, the objects of the cluster stay as they are, whatever is written here. Leaders
    /// still move when brokers fail, and topics still change. The annotation weir.dev/paused=true
    /// does the same. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// Where the cluster gets its partition tables from where they are gone. Volumes: from what the
/// brokers find on their volumes, once all of them have come (docs/backup.md). With its tables, a
/// cluster goes on as without this; where all volumes are new, it begins. Default: from nowhere,
/// and a cluster that has run does not begin without them.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum RecoverFrom {
    /// From what the brokers find on their volumes.
    Volumes,
}

/// Which consumer groups have a resource, and what is set for single groups.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GroupReflection {
    /// Whether groups that exist without a ConsumerGroup get one. Declared: no, only groups that
    /// somebody declared have one. All: yes, and it goes when the group is gone. Default: Declared.
    #[serde(default)]
    pub reflect: Reflect,

    /// The most ConsumerGroups that are made for groups without one. Default: 100.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1, max = 1000))]
    pub max: i32,

    /// Settings of single groups under Kafka's names, by the group's id, whether it has a resource
    /// or not.
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
    /// No: only groups that somebody declared have one.
    #[default]
    Declared,
    /// Yes, and it goes when the group is gone.
    All,
}

/// The brokers of a cluster.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    // A broker that is to go is throttled by the tool that moves its partitions away, which writes
    // it here while there are fewer replicas already.
    validation = Rule::new(
        "!has(self.config) || self.config.all(one, one.matches('^(0|[1-9][0-9]{0,2})$') && (int(one) < self.replicas || \
         has(self.config[one].leader__dot__replication__dot__throttled__dot__rate) || has(self.config[one].follower__dot__replication__dot__throttled__dot__rate)))")
        .message("config names brokers by their ids, which are 0 to replicas - 1"),
    validation = request_memory_is_below_the_limit(),
)]
pub struct Brokers {
    /// How many there are. Their ids are 0 to replicas - 1. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: i32,

    /// Settings of single brokers under Kafka's names, by the broker's id. They prevail over those
    /// of the cluster.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 1000))]
    pub config: BTreeMap<String, ClusterConfig>,

    /// Where the records lie.
    #[serde(default, skip_serializing_if = "is_default")]
    pub storage: Storage,

    /// Processor time and memory of each broker, as in a container of a pod. Default: 100m of cpu
    /// and 512Mi of memory are requested, and 2Gi of memory are the limit. What is written here
    /// replaces all of it. A memory limit is 128Mi at least, or 0, which is none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Resources,

    /// How each broker's process runs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub process: Process,

    /// How pods are placed and what they carry.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pod: PodSettings,

    /// What is to be otherwise in the template of the pods: a strategic merge patch of metadata
    /// (labels, annotations) and spec (securityContext, affinity, containers, volumes, ...), as
    /// `kubectl patch` takes one. What the operator relies on cannot be changed by it: then
    /// UpToDate is False and says which field it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplatePatch>,
}

impl Default for Brokers {
    fn default() -> Self {
        Self {
            replicas: one(),
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

/// What a cluster is. A summary for people, never read back.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {"observedGeneration": -1}))]
pub struct KafkaClusterStatus {
    /// The generation of the spec that this speaks of.
    pub observed_generation: Option<i64>,
    /// The cluster's id in the Kafka protocol.
    pub cluster_id: Option<String>,
    /// The image that the brokers shall run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How many brokers there are, and how they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brokers: Option<BrokerSummary>,
    /// Where clients connect, in the order of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub listeners: Vec<ListenerStatus>,
    /// The number of its topics.
    pub topics: Option<i64>,
    /// How its partitions do.
    pub partitions: Option<PartitionSummary>,
    /// The bytes of the records in all its topics, each counted once however many replicas have it.
    /// It follows in steps of a tenth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// Logs that brokers have set aside, since their topics were not in the metadata: nothing reads
    /// them, and nothing removes them but the command that is given.
    pub strays: Option<Vec<BrokerStrays>>,
    /// `Ready`: every broker serves and every partition has a leader.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How many brokers there are, and how they do.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerSummary {
    /// The pods that there are.
    pub replicas: i32,
    /// Brokers that serve.
    pub ready: i32,
    /// Pods that are as the spec wants them.
    pub updated: i32,
    /// `ready/wanted`, for people.
    pub summary: String,
    /// What selects the brokers' pods.
    pub selector: String,
}

/// The logs that one broker has set aside.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerStrays {
    /// The broker's id.
    pub broker: i32,
    /// How many there are.
    pub count: i64,
    /// The bytes that they take.
    pub bytes: i64,
    /// The directories of the first ten: the topic and the partition, something random, and
    /// `-stray`.
    pub logs: Vec<String>,
    /// What removes them all, with their records for good.
    pub remove: String,
}

/// Where clients of a listener connect.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// The listener's name.
    pub name: String,
    /// What clients give as `bootstrap.servers`; empty while it is not known.
    pub bootstrap: String,
    /// What each broker is told to advertise, by id; empty where it is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brokers: Vec<String>,
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
