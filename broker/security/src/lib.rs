//! The rules of security: who a client is, what it may do, and how much of it.
//!
//! The broker's `net` and `api` and the operator call these cores. They are pure: no I/O, no clock
//! and no random numbers of their own. Time and randomness come as arguments.
//!
//! Invariants
//! - No parser here panics, and none allocates more than a small multiple of the bytes that it got.
//! - A secret is in no `Debug` output and in no error, and its memory is cleared when it is
//!   dropped.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod acl;
pub mod oauth;
pub mod principal;
pub mod quota;
pub mod sasl;
pub mod scram;
pub mod secret;
