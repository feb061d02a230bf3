//! A listener with TLS: for clients, or for the nodes of the cluster.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};
use tracing::{info, warn};
use weir_protocol::controller::INTERNAL_LISTENER;
use weir_security::principal::{Certificate, KafkaPrincipal, Principal};
use weir_tls::{Identities, Look};

use super::certificates::{Certificates, now};
use super::refused::Refused;
use crate::metrics::Metrics;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// What a listener shows, and whom it lets in.
#[derive(Clone, Debug)]
pub(in crate::net) enum Secured {
    /// A certificate for clients, who may have to show one of theirs.
    Clients(Arc<Certificates>),
    /// This broker's identity. Only nodes of the cluster come in.
    Nodes(Arc<Identities>),
}

impl Secured {
    /// What new connections go by.
    ///
    /// # Errors
    /// When this broker has no identity.
    pub(super) fn config(&self) -> io::Result<Arc<ServerConfig>> {
        match self {
            Self::Clients(certificates) => Ok(certificates.config()),
            Self::Nodes(identities) => Ok(identities.current()?.server()),
        }
    }

    /// Until when the certificate is valid, in seconds since 1970.
    pub(in crate::net) fn not_after(&self) -> i64 {
        match self {
            Self::Clients(certificates) => certificates.not_after(),
            Self::Nodes(identities) => not_after(identities),
        }
    }

    /// Who has got through the handshake.
    ///
    /// # Errors
    /// When the certificate names nobody that this listener is for.
    pub(super) fn principal(&self, session: &ServerConnection) -> Result<Principal, Refused> {
        let shown = session.peer_certificates();
        let certificates = match self {
            Self::Clients(certificates) => certificates,
            Self::Nodes(identities) => {
                let own = identities.current().map_err(|error| Refused::by(&error))?;
                let peer = own.peer(shown);
                return peer.map_err(|error| Refused::no_principal(error.to_string()));
            }
        };
        let Some([own, ..]) = shown else {
            return Ok(KafkaPrincipal::anonymous().into());
        };
        let certificate =
            Certificate::parse(own).map_err(|error| Refused::no_principal(error.to_string()))?;
        // TLS has checked it, unless the client came back with a ticket.
        if !certificate.validity.contains(now()) {
            return Err(Refused::expired());
        }
        let name = certificates.rules().name(&certificate.subject);
        let name = name.map_err(|error| Refused::no_principal(error.to_string()))?;
        Ok(KafkaPrincipal::user(&name).into())
    }

    /// Looks at the files, and takes over what has changed.
    fn look(&self, metrics: &Metrics) {
        match self {
            Self::Clients(certificates) => certificates.look(metrics),
            Self::Nodes(identities) => look_at(identities, metrics),
        }
    }
}

fn not_after(identities: &Identities) -> i64 {
    identities.current().map_or(0, |identity| identity.not_after())
}

fn look_at(identities: &Identities, metrics: &Metrics) {
    match identities.look() {
        Look::Same => {}
        Look::Changed => {
            let not_after = not_after(identities);
            metrics.tls().taken_over(INTERNAL_LISTENER, not_after);
            info!(
                listener = INTERNAL_LISTENER,
                valid_seconds = not_after - now(),
                "takes over a changed identity; connections keep theirs"
            );
        }
        Look::Bad(error) => {
            metrics.tls().refused(INTERNAL_LISTENER);
            warn!(
                listener = INTERNAL_LISTENER,
                error = format!("{error:#}"),
                "cannot use the changed identity; the last good one stays in use"
            );
        }
    }
}

/// Looks at the files of all listeners, again and again.
pub(in crate::net) async fn keep_current(all: Vec<Secured>, metrics: Arc<Metrics>) {
    if all.is_empty() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let (all, metrics) = (all.clone(), Arc::clone(&metrics));
        let looking = move || all.iter().for_each(|secured| secured.look(&metrics));
        // A panic is logged where it happens; the next look goes on.
        let _ = tokio::task::spawn_blocking(looking).await;
    }
}
