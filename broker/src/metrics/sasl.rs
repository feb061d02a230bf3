//! Logins by SASL, by listener.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

type Labels<const N: usize> = [(&'static str, String); N];

/// The counters of logins.
#[derive(Debug, Default)]
pub(crate) struct Sasl {
    logins: Family<Labels<2>, Counter>,
    failures: Family<Labels<1>, Counter>,
}

fn listener(name: &str) -> (&'static str, String) {
    ("listener", name.to_owned())
}

impl Sasl {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "sasl_logins",
            "Clients that have logged in, by mechanism",
            self.logins.clone(),
        );
        registry.register(
            "sasl_login_failures",
            "Connections that ended before their client had logged in, and not by the client",
            self.failures.clone(),
        );
    }

    /// A listener has these mechanisms.
    pub(crate) fn serves(&self, name: &str, mechanisms: &[String]) {
        drop(self.failures.get_or_create(&[listener(name)]));
        for mechanism in mechanisms {
            let labels = [listener(name), ("mechanism", mechanism.clone())];
            drop(self.logins.get_or_create(&labels));
        }
    }

    /// A client has logged in.
    pub(crate) fn logged_in(&self, name: &str, mechanism: &str) {
        let labels = [listener(name), ("mechanism", mechanism.to_owned())];
        self.logins.get_or_create(&labels).inc();
    }

    /// A client did not log in.
    pub(crate) fn failed(&self, name: &str) {
        self.failures.get_or_create(&[listener(name)]).inc();
    }
}
