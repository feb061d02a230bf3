//! The settings of a broker's process on Kubernetes, which elsewhere are flags of `weir-broker`.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use kube::KubeSchema;
use kube::core::{Message, Rule};
use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;

/// A log filter: a level, or levels by module, separated by commas.
const LOG: &str = r"^([a-z][a-z0-9_]*(::[a-z0-9_]+)*=)?(off|error|warn|info|debug|trace)(,([a-z][a-z0-9_]*(::[a-z0-9_]+)*=)?(off|error|warn|info|debug|trace))*$";

/// The memory limit of a broker without `resources`.
pub const DEFAULT_MEMORY_LIMIT: &str = "2Gi";

/// The broker's own rule: the memory for requests must be below the container's limit, if that is
/// known. A limit of 0 means none.
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

/// Settings of each broker's process. A change restarts the brokers in turn.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Process {
    /// Threads that serve connections. Default: one per CPU core of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub threads: Option<u16>,

    /// The most connections at a time; the broker closes further ones at once. Default: as many as
    /// fit into a quarter of the memory limit, at most 20000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<i32>,

    /// The memory for all requests while they are received or processed, from 16Mi to 1Ti, and
    /// below the memory limit. Default: a quarter of the memory limit, at most 256Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("quantity(string(self)).compareTo(quantity('16Mi')) >= 0 && quantity(string(self)).compareTo(quantity('1Ti')) <= 0")
        .message("must be from 16Mi to 1Ti"))]
    pub request_memory: Option<Quantity>,

    /// The most topics with metrics of their own. The traffic of all other topics is counted
    /// together, as topic "". Default: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub metrics_topics_max: Option<i32>,

    /// The most partitions with metrics of their own: the first ones by topic and index. Default:
    /// 5000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub metrics_partitions_max: Option<i32>,

    /// The log filter: off, error, warn, info, debug or trace, also by module
    /// (info,weir_broker::replica=debug). Default: info.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = LOG))]
    pub log: Option<String>,

    /// Environment variables of the process. Names that begin with WEIR_, and POD_NAME, are
    /// reserved for the operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<Variable>,
}

/// An environment variable of a process.
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
