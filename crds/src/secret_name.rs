//! The reference to a Secret of the resource's namespace.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::kubernetes_values::SUBDOMAIN;

/// A secret, by its name.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SecretName {
    /// The secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN))]
    pub name: String,
}
