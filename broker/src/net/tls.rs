//! TLS of a listener: certificates, handshakes, and the stream of a connection.
//!
//! Invariants
//! - Nothing is read of a request, and no room is taken, before the handshake is done.
//! - The number and the time of handshakes have bounds (`places`, `handshake`).
//! - A certificate that cannot be used leaves the last good one in use (`certificates`).

mod certificates;
mod handshake;
mod places;
mod refused;
mod secured;
mod stream;

pub(super) use certificates::Certificates;
pub(super) use handshake::{Greeted, greet};
pub(super) use places::Places;
pub(super) use refused::Refused;
pub(super) use secured::{Secured, keep_current};
pub(super) use stream::{RECORD_BYTES_MAX, TlsStream};
