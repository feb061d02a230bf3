//! TLS by listener: handshakes, why they fail, connections, and the certificates' ends.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Labels<const N: usize> = [(&'static str, String); N];

/// The counters of TLS.
#[derive(Debug, Default)]
pub(crate) struct Tls {
    handshakes: Family<Labels<3>, Counter>,
    failures: Family<Labels<2>, Counter>,
    connections: Family<Labels<2>, Gauge>,
    expiry: Family<Labels<1>, Gauge>,
    taken_over: Family<Labels<1>, Counter>,
    refused: Family<Labels<1>, Counter>,
}

fn listener(name: &str) -> (&'static str, String) {
    ("listener", name.to_owned())
}

impl Tls {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "tls_handshakes",
            "Handshakes of TLS that clients got through, by protocol and whether a ticket resumed a session",
            self.handshakes.clone(),
        );
        registry.register(
            "tls_handshake_failures",
            "Connections that ended before their handshake was done, by reason",
            self.failures.clone(),
        );
        registry.register(
            "tls_connections",
            "Open connections with TLS, by protocol",
            self.connections.clone(),
        );
        registry.register(
            "tls_certificate_expiry_timestamp_seconds",
            "Until when the listener's certificate is valid, in seconds since 1970",
            self.expiry.clone(),
        );
        registry.register(
            "tls_certificates_taken_over",
            "Changed certificates that were taken over from their files",
            self.taken_over.clone(),
        );
        registry.register(
            "tls_certificates_refused",
            "Changed certificates that could not be used; the last good one stays in use",
            self.refused.clone(),
        );
    }

    /// A listener serves TLS with a certificate that is valid until then.
    pub(crate) fn serves(&self, name: &str, not_after: i64, reasons: &[&'static str]) {
        self.expiry.get_or_create(&[listener(name)]).set(not_after);
        drop(self.taken_over.get_or_create(&[listener(name)]));
        drop(self.refused.get_or_create(&[listener(name)]));
        for reason in reasons {
            let labels = [listener(name), ("reason", (*reason).to_owned())];
            drop(self.failures.get_or_create(&labels));
        }
    }

    /// A client got through its handshake.
    pub(crate) fn greeted(&self, name: &str, protocol: &str, resumed: bool) {
        let [of, protocol] = [listener(name), ("protocol", protocol.to_owned())];
        let resumed = ("resumed", resumed.to_string());
        self.connections.get_or_create(&[of.clone(), protocol.clone()]).inc();
        self.handshakes.get_or_create(&[of, protocol, resumed]).inc();
    }

    /// Its connection has ended.
    pub(crate) fn closed(&self, name: &str, protocol: &str) {
        self.connections.get_or_create(&[listener(name), ("protocol", protocol.to_owned())]).dec();
    }

    /// A connection ended before its handshake was done.
    pub(crate) fn failed(&self, name: &str, reason: &'static str) {
        self.failures.get_or_create(&[listener(name), ("reason", reason.to_owned())]).inc();
    }

    /// A changed certificate was taken over.
    pub(crate) fn taken_over(&self, name: &str, not_after: i64) {
        self.expiry.get_or_create(&[listener(name)]).set(not_after);
        self.taken_over.get_or_create(&[listener(name)]).inc();
    }

    /// A changed certificate could not be used.
    pub(crate) fn refused(&self, name: &str) {
        self.refused.get_or_create(&[listener(name)]).inc();
    }
}
