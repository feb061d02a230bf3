//! The IP families of a `KafkaCluster`'s services, with Kubernetes' own names and values. Local
//! mode ignores them.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use std::fmt;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The IP families of the cluster's services.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.ipFamilies) || size(self.ipFamilies) < 2 || (has(self.ipFamilyPolicy) && self.ipFamilyPolicy != 'SingleStack')")
        .message("two ipFamilies need the ipFamilyPolicy PreferDualStack or RequireDualStack"),
    validation = Rule::new(
        "!has(self.ipFamilies) || !has(oldSelf.ipFamilies) || size(self.ipFamilies) == 0 || size(oldSelf.ipFamilies) == 0 || self.ipFamilies[0] == oldSelf.ipFamilies[0]")
        .message("the first of ipFamilies cannot change: Kubernetes keeps that of a service; the second may come and go"),
)]
pub struct Network {
    /// The number of IP families of the services. The schema takes the description of this optional
    /// enum from its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,

    /// ipFamilies of the services, in the order of preference. The first one cannot change once it
    /// is set. Default: Kubernetes' default, the family of the cluster's first address range.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(validation = Rule::new("self.all(one, self.exists_one(other, other == one))").message("no family is there twice"))]
    pub ip_families: Vec<IpFamily>,
}

/// ipFamilyPolicy of the services. SingleStack: one family. PreferDualStack: both, if the
/// Kubernetes cluster has both. RequireDualStack: both; if the Kubernetes cluster has only one, the
/// operator cannot apply the spec. Brokers listen on all addresses of their pods in any case.
/// Default: Kubernetes' default, SingleStack.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum IpFamilyPolicy {
    /// One family.
    SingleStack,
    /// Both, if the Kubernetes cluster has both.
    PreferDualStack,
    /// Both, or none.
    RequireDualStack,
}

/// A family of IP addresses.
#[derive(
    JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize,
)]
pub enum IpFamily {
    /// Addresses such as 192.0.2.1.
    IPv4,
    /// Addresses such as 2001:db8::1.
    IPv6,
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IPv4 => "IPv4",
            Self::IPv6 => "IPv6",
        })
    }
}
