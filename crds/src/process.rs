//! The settings of a broker's process on Kubernetes, which elsewhere are flags of `weir-broker`.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use kube::KubeSchema;
use kube::core::Rule;
use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;

/// A log filter: a level, or levels by module, separated by commas.
const LOG: &str = r"^([a-z][a-z0-9_]*(::[a-z0-9_]+)*=)?(off|error|warn|info|debug|trace)(,([a-z][a-z0-9_]*(::[a-z0-9_]+)*=)?(off|error|warn|info|debug|trace))*$";

/// The memory limit of a broker without `resources`.
pub const DEFAULT_MEMORY_LIMIT: &str = "2Gi";

/// The most memory of a connection, in bytes; the broker has the same number
/// (`broker/src/memory.rs`).
const CONNECTION_BYTES: &str = "81920.0";

/// The part of the memory limit that requests and connections may take together: the other bounds
/// of the broker take up to six sixteenths (docs/memory.md).
const REQUESTS_AND_CONNECTIONS: &str = "0.625";

/// The memory for requests and connections must leave the broker its other bounds, if the
/// container's limit is known. A limit of 0 means none. What is not given counts as the broker
/// chooses it: a quarter of the limit for each, at most 256 MiB and 20,000 connections.
pub(crate) fn requests_and_connections_fit_into_the_limit() -> Rule {
    let is_limited =
        "has(self.resources) && has(self.resources.limits) && 'memory' in self.resources.limits";
    let is_default = "!has(self.resources) || \
         ((!has(self.resources.requests) || size(self.resources.requests) == 0) && (!has(self.resources.limits) || size(self.resources.limits) == 0))";
    let asks_for = |field: &str| format!("(has(self.process) && has(self.process.{field}))");
    let (memory, number) = (asks_for("requestMemory"), asks_for("maxConnections"));
    let bytes = |quantity: &str| format!("quantity({quantity}).asApproximateFloat()");
    let fit = |limit: &str| {
        let quarter = |most: &str| format!("({limit} < 4.0 * {most} ? {limit} / 4.0 : {most})");
        let (default_memory, default_number) =
            (quarter("268435456.0"), quarter(&format!("(20000.0 * {CONNECTION_BYTES})")));
        let requests = bytes("string(self.process.requestMemory)");
        format!(
            "(({memory} ? {requests} : {default_memory}) + ({number} ? double(self.process.maxConnections) * {CONNECTION_BYTES} : {default_number}) <= {limit} * {REQUESTS_AND_CONNECTIONS})"
        )
    };
    let limit = bytes("string(self.resources.limits['memory'])");
    let default_limit = bytes(&format!("'{DEFAULT_MEMORY_LIMIT}'"));
    let rule = format!(
        "!({memory} || {number}) || ({is_limited} ? {limit} == 0.0 || {} : !({is_default}) || {})",
        fit(&limit),
        fit(&default_limit)
    );
    // The API server estimates what an expression may cost, and the text of quantities has no bound
    // there: a message that repeats them costs more than a whole schema may.
    Rule::new(rule).message(
        "process.requestMemory, and process.maxConnections with 80Ki each, may take ten sixteenths of the memory limit \
         together (2Gi without resources): a broker that takes more is killed. What is not given counts as a quarter of the \
         limit, at most 256Mi and 20000 connections",
    )
}

/// Settings of each broker's process. A change restarts the brokers in turn.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Process {
    /// Threads that serve connections. Default: one per CPU core of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub threads: Option<u16>,

    /// The most connections at a time, 80Ki of memory each; the broker closes further ones at once.
    /// With requestMemory they take at most ten sixteenths of the memory limit. Default: as many as
    /// fit into a quarter of the memory limit, at most 20000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<i32>,

    /// The memory for all requests while they are received or processed, from 16Mi to 1Ti. With the
    /// connections it takes at most ten sixteenths of the memory limit. Default: a quarter of the
    /// memory limit, at most 256Mi.
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
