//! PURE: what local mode and Kubernetes have in common of a listener: its name for brokers, and of
//! its TLS the keys of Secrets, the files of a broker, and what the broker is told of both TLS and
//! SASL.

use weir_crds::{ClientAuthenticationMode, Listener, SaslMechanism, Tls};

/// The key of a Secret with a certificate's chain, and the file of a broker.
pub(crate) const CERTIFICATE: &str = "tls.crt";
/// That with its private key.
pub(crate) const KEY: &str = "tls.key";
/// The key of a Secret with CAs.
pub(crate) const CAS: &str = "ca.crt";
/// The file of a broker with the CAs of clients.
pub(crate) const CLIENT_CAS: &str = "clients.crt";

/// The listener's name in Kafka's form, as brokers use it.
pub(crate) fn listener_name(listener: &Listener) -> String {
    listener.name.to_uppercase().replace('-', "_")
}

/// The keys of a listener's certificate and key in the Secret of what the CA has issued.
pub(crate) fn keys_of(listener: &str) -> [String; 2] {
    [format!("{listener}.crt"), format!("{listener}.key")]
}

/// The security protocol of a listener in Kafka's words.
pub(crate) fn security_protocol(listener: &Listener) -> &'static str {
    match (&listener.tls, &listener.sasl) {
        (None, None) => "PLAINTEXT",
        (None, Some(_)) => "SASL_PLAINTEXT",
        (Some(_), None) => "SSL",
        (Some(_), Some(_)) => "SASL_SSL",
    }
}

/// What a broker is told of the logins on a listener, if it has some.
pub(crate) fn sasl_flag(listener: &Listener) -> Option<(&'static str, String)> {
    let mechanisms = &listener.sasl.as_ref()?.mechanisms;
    let names: Vec<&str> = mechanisms.iter().copied().map(SaslMechanism::name).collect();
    Some(("--sasl", format!("{}={}", listener_name(listener), names.join(","))))
}

/// What a broker is told of a listener's TLS: each flag with its value. Its files are in `folder`.
pub(crate) fn tls_flags(
    listener: &Listener,
    tls: &Tls,
    folder: &str,
) -> Vec<(&'static str, String)> {
    let name = listener_name(listener);
    let mut flags = vec![("--tls", format!("{name}={folder}"))];
    let Some(clients) = &tls.client_authentication else { return flags };
    let auth = match clients.mode {
        ClientAuthenticationMode::Requested => "requested",
        ClientAuthenticationMode::Required => "required",
    };
    flags.push(("--tls-client-auth", format!("{name}={auth}")));
    if let Some(rules) = &clients.principal_mapping_rules {
        flags.push(("--tls-principal-rules", format!("{name}={rules}")));
    }
    flags
}
