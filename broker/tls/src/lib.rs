//! TLS of Weir's programs: certificates in files, and the identities of a cluster's nodes.
//!
//! A node is a broker or the controller. The cluster has a CA for its nodes, and each node has a
//! certificate of it, which names the cluster's domain and the node in one URI (`weir_security`'s
//! `node_uri`). [`Identity`] is what a node shows and whom it believes, [`Identities`] the current
//! one of a process, which can change while connections live.
//!
//! Invariants
//! - Both sides of a connection between nodes show a certificate, over TLS 1.3. There are no
//!   session tickets, so each connection is checked against the CAs of today.
//! - A host name proves nothing here: a node is who its certificate says, wherever it runs.
//! - What cannot be used leaves what was good in use.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arrivals;
mod files;
mod identities;
mod identity;
mod provider;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use arrivals::{Arrival, Arrivals};
pub use files::{FileContent, certificates, private_key, read};
pub use identities::{Identities, Look, TlsServer, accept};
pub use identity::{Identity, NotThatNode, Shown, TlsClient};
pub use provider::provider;
