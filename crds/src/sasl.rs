//! SASL of a listener.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Logins by name and password on a listener. An empty object turns them on, by SCRAM-SHA-256 and
/// SCRAM-SHA-512. Users and passwords are those of kafka-configs --entity-type users; set the first
/// one over a listener without logins. Default: clients do not log in.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sasl {
    /// The mechanisms, as sasl.enabled.mechanisms of Kafka. PLAIN sends the password as it is, so
    /// it needs tls. Default: SCRAM-SHA-256 and SCRAM-SHA-512.
    #[serde(default = "default_mechanisms")]
    #[schemars(length(min = 1, max = 3))]
    pub mechanisms: Vec<SaslMechanism>,
}

impl Default for Sasl {
    fn default() -> Self {
        Self { mechanisms: default_mechanisms() }
    }
}

fn default_mechanisms() -> Vec<SaslMechanism> {
    vec![SaslMechanism::ScramSha256, SaslMechanism::ScramSha512]
}

/// A mechanism of SASL.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum SaslMechanism {
    /// The client sends the password.
    #[serde(rename = "PLAIN")]
    Plain,
    /// The client proves that it has the password.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with a longer hash.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl SaslMechanism {
    /// Its name in SASL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}
