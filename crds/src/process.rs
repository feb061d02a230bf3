//! How a broker's process runs on Kubernetes: what is a flag of `weir-broker` elsewhere.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;

/// Directives of the log: a level, or levels by module, with commas between them.
const LOG: &str = r"^([a-z][a-z0-9_]*(::[a-z0-9_]+)*=)?(off|error|warn|info|debug|trace)(,([a-z][a-z0-9_]*(::[a-z0-9_]+)*=)?(off|error|warn|info|debug|trace))*$";

/// How each broker's process runs. What is changed here restarts the brokers, one after the other.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Process {
    /// Threads that serve connections. Default: one per core of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub threads: Option<u16>,

    /// The most connections at a time; more are closed at once. Default: as many as fit into a
    /// quarter of the memory limit, 20000 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<i32>,

    /// The memory that requests may take together while they are received or carried out, from 16Mi
    /// to 1Ti. Default: a quarter of the memory limit, 256Mi at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("quantity(string(self)).compareTo(quantity('16Mi')) >= 0 && quantity(string(self)).compareTo(quantity('1Ti')) <= 0")
        .message("must be from 16Mi to 1Ti"))]
    pub request_memory: Option<Quantity>,

    /// Topics that have metrics of their own, at most; what goes in and out of all others is
    /// counted together, as topic "". Default: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub metrics_topics_max: Option<i32>,

    /// Partitions that have metrics of their own, at most: the first by topic and index. Default:
    /// 5000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub metrics_partitions_max: Option<i32>,

    /// What is logged: off, error, warn, info, debug or trace, also by module
    /// (info,weir_broker::replica=debug). Default: info.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = LOG))]
    pub log: Option<String>,

    /// Variables of the process's environment. What begins with WEIR_, and POD_NAME, are the
    /// operator's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<Variable>,
}

/// A variable of a process's environment.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    #[x_kube(validation = Rule::new("!self.startsWith('WEIR_') && self != 'POD_NAME'").message("what begins with WEIR_, and POD_NAME, are the operator's: other fields set them"))]
    pub name: String,

    /// Its value.
    #[serde(default)]
    #[schemars(length(max = 32_768))]
    pub value: String,
}
