//! The pods, volumes and listeners of a `KafkaCluster`: fields that matter only on Kubernetes.
//! Local mode ignores them, except listeners with TLS or SASL.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use std::borrow::Cow;
use std::collections::BTreeMap;

use kube::KubeSchema;
use kube::core::Rule;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::kubernetes_values::{
    self, LABEL_VALUE, QUALIFIED_NAME_OR_NOTHING, SUBDOMAIN, SUBDOMAIN_OR_NOTHING,
};
use crate::quantity::Quantity;
use crate::sasl::Sasl;
use crate::secret_name::SecretName;
use crate::tls::Tls;

/// Labels of at most 63 characters, separated by dots; `{broker}` counts as a digit.
const HOST: &str = concat!(
    r"^(([A-Za-z0-9]|\{broker\})(([-A-Za-z0-9]|\{broker\}){0,61}([A-Za-z0-9]|\{broker\}))?\.)*",
    r"([A-Za-z0-9]|\{broker\})(([-A-Za-z0-9]|\{broker\}){0,61}([A-Za-z0-9]|\{broker\}))?$"
);

/// The last label needs a letter. Resolvers take a name with a numeric last label for an address,
/// and a wrong one.
const HOST_IS_A_NAME: &str = r"(^|\.)([-0-9]|\{broker\})*[A-Za-z]([-A-Za-z0-9]|\{broker\})*$";

/// The same holds for a hexadecimal number.
const HOST_IS_HEXADECIMAL: &str = r"(^|\.)0[xX]([0-9A-Fa-f]|\{broker\})*$";

/// The host that clients connect to: a DNS name for every broker, or an address.
fn host_rule() -> Rule {
    let [host, name, hexadecimal] =
        [HOST, HOST_IS_A_NAME, HOST_IS_HEXADECIMAL].map(|pattern| pattern.replace('\\', "\\\\"));
    Rule::new(format!(
        "isIP(self) || (self.matches('{host}') && self.matches('{name}') && !self.matches('{hexadecimal}'))"
    ))
    .message("must be an IP address, or a DNS name in which {broker} may stand for the broker's id; the last part of a name has a letter besides {broker}, as in kafka-{broker}.example.com")
}

/// The volume of each broker.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Storage {
    /// The size of each broker's volume, at least 64Mi. It can grow if the storage class allows
    /// that, but never shrink. Default: 10Gi.
    #[serde(default = "ten_gibibytes")]
    #[x_kube(validation = Rule::new("quantity(string(self)).compareTo(quantity('64Mi')) >= 0")
        .message("a volume has at least 64Mi: on less, a broker's log is full before a topic is in it"))]
    pub size: Quantity,

    /// The storage class of the volumes; empty for existing volumes without a class. It cannot
    /// change. Default: that of the Kubernetes cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = SUBDOMAIN_OR_NOTHING))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("storageClassName cannot change: volumes stay in the class in which they were made"))]
    pub storage_class_name: Option<String>,

    /// What stays when the cluster is deleted. Retain: the volumes, the partition tables, which
    /// describe them, and all Topics, including those that clients created; a new KafkaCluster of
    /// the same name continues with them. Delete: only Topics that users created; all records are
    /// deleted with the cluster. Default: Retain.
    #[serde(default)]
    pub on_delete: VolumePolicy,
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: ten_gibibytes(), storage_class_name: None, on_delete: VolumePolicy::Retain }
    }
}

fn ten_gibibytes() -> Quantity {
    Quantity("10Gi".to_owned())
}

/// What stays when the cluster is deleted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum VolumePolicy {
    /// Volumes, partition tables and topics stay, and a new cluster of the same name continues with
    /// them.
    #[default]
    Retain,
    /// They are deleted with the cluster, except Topics that users created.
    Delete,
}

/// The resource requests and limits of a container.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
#[x_kube(
    validation = Rule::new(
        "!has(self.requests) || !has(self.limits) || self.requests.all(one, !(one in self.limits) || \
         quantity(string(self.requests[one])).compareTo(quantity(string(self.limits[one]))) <= 0)")
        .message("no request is above its limit"),
    validation = Rule::new(
        "!has(self.requests) || self.requests.all(one, one in ['cpu', 'memory', 'ephemeral-storage'] || \
         (has(self.limits) && one in self.limits && quantity(string(self.requests[one])).compareTo(quantity(string(self.limits[one]))) == 0))")
        .message("what is not cpu, memory or ephemeral-storage has the same limit as its request, or a limit only"),
)]
pub struct Resources {
    /// The resources that the scheduler reserves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "kubernetes_values::amounts")]
    pub requests: BTreeMap<String, Quantity>,

    /// The limits of the container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "kubernetes_values::limits")]
    pub limits: BTreeMap<String, Quantity>,
}

/// Settings of the brokers' pods.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSettings {
    /// Additional labels of the pods. Those by which the operator finds the pods cannot be set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "kubernetes_values::pod_labels")]
    pub labels: BTreeMap<String, String>,

    /// Annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "kubernetes_values::annotations")]
    pub annotations: BTreeMap<String, String>,

    /// Labels that a node must have to run the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "kubernetes_values::labels")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,

    /// Secrets in this namespace for pulling the brokers' image from a private registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<SecretName>,

    /// Annotations of the pods' service account, for instance for a cloud identity.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "kubernetes_values::annotations")]
    pub service_account_annotations: BTreeMap<String, String>,

    /// The priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub priority_class_name: Option<String>,
}

/// A strategic merge patch of the pod template. Each version of Kubernetes defines its valid
/// fields.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PodTemplatePatch(pub serde_json::Map<String, serde_json::Value>);

impl JsonSchema for PodTemplatePatch {
    fn schema_name() -> Cow<'static, str> {
        "PodTemplatePatch".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        kubernetes_values::pod_template_patch()
    }
}

/// A toleration, as in the spec of a pod.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')")
        .message("without a key the operator is Exists: every taint is borne"),
    validation = Rule::new("!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''")
        .message("with the operator Exists there is no value"),
    validation = Rule::new("!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')")
        .message("tolerationSeconds goes with the effect NoExecute only"),
)]
pub struct Toleration {
    /// The taint's key; absent means every taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317), regex(pattern = QUALIFIED_NAME_OR_NOTHING))]
    pub key: Option<String>,

    /// `Exists` or `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = "^(Exists|Equal)?$"))]
    pub operator: Option<String>,

    /// The taint's value, with `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), regex(pattern = LABEL_VALUE))]
    pub value: Option<String>,

    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`; absent means every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = "^(NoSchedule|PreferNoSchedule|NoExecute)?$"))]
    pub effect: Option<String>,

    /// With `NoExecute`, how long the pod stays, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// An endpoint of the brokers for clients.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.host) || self.type != 'Internal'")
        .message("host is for clients outside: with the type Internal each broker is told by the name of its service"),
    validation = Rule::new("has(self.tls) || !has(self.sasl) || !('PLAIN' in self.sasl.mechanisms)")
        .message("PLAIN sends passwords as they are: it needs tls"),
)]
pub struct Listener {
    /// The listener's name, which becomes a part of service names and the name of the port. It has
    /// up to 15 lower-case letters, digits and single hyphens, and begins with a letter. http and
    /// weir-internal are reserved.
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"))]
    pub name: String,

    /// The port on which every broker listens, which is also that of the services. 9091 is reserved
    /// for brokers among themselves, and 9100 for metrics.
    #[schemars(range(min = 1024, max = 65_535))]
    pub port: u16,

    /// How clients reach it. Internal: inside the Kubernetes cluster, by service names. NodePort:
    /// from outside, by one port of the nodes for each broker. LoadBalancer: from outside, by one
    /// load balancer for each broker. SharedLoadBalancer: from outside, by one load balancer for
    /// all; its port is the bootstrap port, and the port of each broker is one plus its id higher.
    /// Default: Internal.
    #[serde(default, rename = "type")]
    pub kind: ListenerType,

    /// The host that each broker advertises to clients outside Kubernetes, instead of the address
    /// of the node or the load balancer: a DNS name or an IP address. {broker} in it stands for the
    /// broker's id, as in kafka-{broker}.example.com. With the type LoadBalancer and more than one
    /// broker, a host must contain {broker}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(
        validation = host_rule(),
        validation = Rule::new("!isIP(self) || !self.matches('^[0:.]+$')")
            .message("no client can connect to 0.0.0.0 or ::"),
    )]
    pub host: Option<String>,

    /// TLS for the clients of the listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// Logins of the clients of the listener by name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,

    /// Annotations of the listener's services, for instance for a load balancer provider.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "kubernetes_values::annotations")]
    pub annotations: BTreeMap<String, String>,
}

impl Listener {
    /// The placeholder for a broker's id in [`Self::host`].
    pub const BROKER: &str = "{broker}";
}

/// How clients reach a listener.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum ListenerType {
    /// Inside the Kubernetes cluster, by service names.
    #[default]
    Internal,
    /// From outside, by one port of the nodes for each broker.
    NodePort,
    /// From outside, by one load balancer for each broker.
    LoadBalancer,
    /// From outside, by one load balancer for all: its port is the bootstrap port, and the port of
    /// each broker is one plus its id higher.
    SharedLoadBalancer,
}
