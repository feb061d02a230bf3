//! What a `KafkaCluster` says of its pods, volumes and listeners: the part that only Kubernetes gives a meaning. Local mode reads past it.

#![expect(unreachable_pub, reason = "the derive of the schema writes public types inside of functions")]

use std::borrow::Cow;
use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A quantity as Kubernetes writes it: a number, or a number with a unit (`500m`, `2Gi`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quantity(pub String);

/// As in `k8s.io/apimachinery/pkg/api/resource`, without exponents.
const QUANTITY: &str = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$";

impl Serialize for Quantity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            serde_json::Value::Number(number) => Ok(Self(number.to_string())),
            other => Err(serde::de::Error::custom(format!("{other} is no quantity"))),
        }
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY,
        })
    }
}

impl Quantity {
    /// Its value in bytes (or in whole units), if it is a quantity. Thousandths are rounded up.
    pub fn value(&self) -> Option<u128> {
        let end = self.0.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.0.len());
        let (number, unit) = self.0.split_at_checked(end)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let fraction = fraction.get(..fraction.len().min(9))?;
        let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
        let power = |base: u128, exponent: u32| base.checked_pow(exponent);
        let (factor, divisor) = match unit {
            "" => (1, 1),
            "m" => (1, 1000),
            "k" => (power(1000, 1)?, 1),
            "M" => (power(1000, 2)?, 1),
            "G" => (power(1000, 3)?, 1),
            "T" => (power(1000, 4)?, 1),
            "P" => (power(1000, 5)?, 1),
            "E" => (power(1000, 6)?, 1),
            "Ki" => (power(1024, 1)?, 1),
            "Mi" => (power(1024, 2)?, 1),
            "Gi" => (power(1024, 3)?, 1),
            "Ti" => (power(1024, 4)?, 1),
            "Pi" => (power(1024, 5)?, 1),
            "Ei" => (power(1024, 6)?, 1),
            _ => return None,
        };
        Some(digits.checked_mul(factor)?.div_ceil(scale.checked_mul(divisor)?))
    }
}

/// The volume of each broker.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Storage {
    /// The size of each broker's volume. It can be raised if the storage class allows it, never lowered. Default: 10Gi.
    #[serde(default = "ten_gibibytes")]
    pub size: Quantity,

    /// The storage class of the volumes. Default: that of the Kubernetes cluster. It cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("storageClassName cannot change: volumes stay in the class in which they were made"))]
    pub storage_class_name: Option<String>,

    /// What a deletion of the cluster leaves. Retain: the volumes, and what says what is in them: the partition tables, and all Topics, those that clients made too; a KafkaCluster of the same name takes
    /// them up and goes on. Delete: nothing but Topics that users made; all records go with the cluster. Default: Retain.
    #[serde(default)]
    pub on_delete: VolumePolicy,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            size: ten_gibibytes(),
            storage_class_name: None,
            on_delete: VolumePolicy::Retain,
        }
    }
}

fn ten_gibibytes() -> Quantity {
    Quantity("10Gi".to_owned())
}

/// What a deletion of the cluster leaves.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum VolumePolicy {
    /// Volumes, partition tables and topics stay, and a cluster of the same name goes on with them.
    #[default]
    Retain,
    /// They go with the cluster, but for topics that users made.
    Delete,
}

/// What a container is guaranteed and limited to.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, Quantity>,

    /// What the container cannot exceed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: BTreeMap<String, Quantity>,
}

/// How pods are placed and what they carry.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSettings {
    /// Labels of the pods, besides those of the operator.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,

    /// Annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,

    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that the pods bear.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,

    /// Secrets of this namespace with which the brokers' image is pulled from a private registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<SecretName>,

    /// The priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// A secret, by its name.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SecretName {
    /// The secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A taint that pods bear, as in the specification of a pod.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Toleration {
    /// The taint's key; absent: every taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,

    /// `Exists` or `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,

    /// The taint's value, with `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,

    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`; absent: every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,

    /// With `NoExecute`, how long the pod stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// A way for clients to reach the brokers.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Its name, which names of services and the port's name are made from: up to 15 small letters, digits and single hyphens, a letter first. http is taken.
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"))]
    pub name: String,

    /// The port on which every broker listens, and that of the services. 9100 is taken by metrics.
    #[schemars(range(min = 1024, max = 65_535))]
    pub port: u16,

    /// How it is reached. Internal: from inside of the Kubernetes cluster, by names of services. NodePort: from outside, on a port of the nodes for each broker. LoadBalancer: from outside, by a load
    /// balancer for each broker. SharedLoadBalancer: from outside, by one load balancer; clients find the cluster on the listener's port, and each broker on the port that is its id + 1 higher.
    /// Default: Internal.
    #[serde(default, rename = "type")]
    pub kind: ListenerType,

    /// The host that clients outside of Kubernetes are told for every broker, where it is not to be the address of the node or of the load balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,

    /// Annotations of the services that the listener needs, for instance for a provider of load balancers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// How a listener is reached.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum ListenerType {
    /// From inside of the Kubernetes cluster, by names of services.
    #[default]
    Internal,
    /// From outside, on a port of the nodes for each broker.
    NodePort,
    /// From outside, by a load balancer for each broker.
    LoadBalancer,
    /// From outside, by one load balancer: clients find the cluster on the listener's port, and each broker on the port that is its id + 1 higher.
    SharedLoadBalancer,
}
