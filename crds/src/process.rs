//! How a broker's process runs on Kubernetes: what is a flag of `weir-broker` elsewhere.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use kube::KubeSchema;
use kube::core::{Message, Rule};
use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;

/// Directives of the log: a level, or levels by module, with commas between them.
const LOG: &str = r"^([a-z][a-z0-9_]*(::[a-z0-9_]+)*=)?(off|error|warn|info|debug|trace)(,([a-z][a-z0-9_]*(::[a-z0-9_]+)*=)?(off|error|warn|info|debug|trace))*$";

/// The memory limit of a broker whose resource says nothing of its resources.
pub const DEFAULT_MEMORY_LIMIT: &str = "2Gi";

/// What a broker asks of its own: requests take less than the container may have, where that is
/// known. A limit of 0 is none.
pub(crate) fn request_memory_is_below_the_limit() -> Rule {
    let is_limited =
        "has(self.resources) && has(self.resources.limits) && 'memory' in self.resources.limits";
    let is_default = "!has(self.resources) || \
         ((!has(self.resources.requests) || size(self.resources.requests) == 0) && (!has(self.resources.limits) || size(self.resources.limits) == 0))";
    let (asked, limit) = (
        "quantity(string(self.process.requestMemory))",
        "quantity(string(self.resources.limits['memory']))",
    );
    let rule = format!(
        "!has(self.process) || !has(self.process.requestMemory) || ({is_limited} \
         ? {limit}.compareTo(quantity('0')) == 0 || {asked}.compareTo({limit}) < 0 \
         : !({is_default}) || {asked}.compareTo(quantity('{DEFAULT_MEMORY_LIMIT}')) < 0)"
    );
    let message = format!(
        "'process.requestMemory is ' + string(self.process.requestMemory) + ' and the memory limit ' + \
         ({is_limited} ? string(self.resources.limits['memory']) : '{DEFAULT_MEMORY_LIMIT} by default') + \
         ': requests need to be given less than the limit, since a broker that takes more is killed'"
    );
    Rule::new(rule).message(Message::Expression(message))
}

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
    /// to 1Ti, and less than the memory limit. Default: a quarter of the memory limit, 256Mi at
    /// most.
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
