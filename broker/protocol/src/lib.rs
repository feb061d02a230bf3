//! The Kafka wire format: bytes to types and back, and the types of the controller RPC. No I/O, no
//! async.
//!
//! Invariants
//! - A decoder allocates by the bytes that it received, never by a length field.
//! - A message decodes and encodes at every version that the API table (`api`) names.
//! - A decoder skips tagged fields that the schema does not know.
//! - A record batch stays bytes behind a checked header. Its base offset and leader epoch may be
//!   patched in place, since the CRC does not cover them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod address;
pub mod api;
pub mod batch;
pub mod compression;
pub mod error;
pub mod features;
pub mod fetch;
pub mod frame;
pub mod header;
mod measured;
pub mod messages;
pub mod primitive;
pub mod produce;
pub mod record;
pub mod reset_marks;
mod tagged;
pub mod types;

/// The controller RPC: messages, client and server stubs, generated from `proto/controller.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::clone_on_ref_ptr, clippy::unwrap_used)]
pub mod controller {
    include!(concat!(env!("OUT_DIR"), "/weir.controller.v1.rs"));

    /// The header of a request that names its cluster: one operator is the controller of many. A
    /// session names the cluster in its registration.
    pub const CLUSTER_HEADER: &str = "weir-cluster";

    /// The prefix of a cluster's name, in place of its id, while the controller still looks for the
    /// id on the brokers' volumes.
    pub const RECOVERS: &str = "recover:";

    /// The listener that brokers and the controller use among themselves. Listeners of users have
    /// no such name, since theirs have no hyphen.
    pub const INTERNAL_LISTENER: &str = "WEIR-INTERNAL";

    /// Whether a registered broker with these listeners has no certificate: it is of a version
    /// before them, or of a local cluster without TLS. One that a recovery has found on its volume
    /// has no listeners until it registers, which says nothing of it.
    pub fn is_uncertified<'a>(listeners: impl IntoIterator<Item = &'a str>) -> bool {
        let mut listeners = listeners.into_iter().peekable();
        listeners.peek().is_some() && listeners.all(|name| name != INTERNAL_LISTENER)
    }
}
