//! TLS of a listener, as users of Strimzi and of cert-manager expect it.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::secret_name::SecretName;

/// The most characters of mapping rules.
const RULES_CHARACTERS_MAX: u32 = 8_192;

/// TLS on a listener: versions 1.2 and 1.3. An empty object turns it on, with a certificate that
/// the operator issues: it is of the CA whose certificate is in the Secret <cluster>-ca-cert under
/// ca.crt. Brokers take changed certificates over without a restart. Default: no TLS.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// The Secret in this namespace with the listener's certificate, as cert-manager writes it:
    /// tls.crt has the chain and tls.key the private key, both in PEM. Default: the operator issues
    /// a certificate for the names and addresses of the listener, and renews it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_secret: Option<SecretName>,

    /// Clients show certificates. Default: they are not asked for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_authentication: Option<ClientAuthentication>,
}

/// How clients show who they are by a certificate.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientAuthentication {
    /// Whether a client must show a certificate, as ssl.client.auth of Kafka. Required: it must.
    /// Requested: it may; one without is User:ANONYMOUS, and one with a bad one is refused.
    /// Default: Required.
    #[serde(default)]
    pub mode: ClientAuthenticationMode,

    /// The Secret in this namespace with the CAs of clients, in PEM under ca.crt.
    pub ca_secret: SecretName,

    /// How the subject of a client's certificate becomes the name of its principal, as
    /// ssl.principal.mapping.rules of Kafka: RULE:pattern/replacement/[L|U] or DEFAULT, separated
    /// by commas. Patterns have no look-around and no back-references. A broker does not start with
    /// rules that it cannot read. Default: DEFAULT, the whole subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = RULES_CHARACTERS_MAX))]
    pub principal_mapping_rules: Option<String>,
}

/// Whether a client must show a certificate.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum ClientAuthenticationMode {
    /// It must.
    #[default]
    Required,
    /// It may.
    Requested,
}
