//! The Kafka client of Weir's own programs. The broker uses it to reach other brokers, and the
//! operator to reach the brokers.
//!
//! [`connect`] makes the stream, a [`Connection`] sends requests over it and receives responses,
//! and a [`Pool`] keeps idle connections for the next request. The callers choose brokers and
//! versions: a follower its leader, a transaction its coordinator, the operator both. This crate
//! knows no metadata.
//!
//! Invariants
//! - Every wait has a bound that the caller chooses: resolving and connecting, sending, the answer,
//!   and a place in the pool.
//! - A response is read into a buffer that grows as bytes arrive, never by a length field alone. A
//!   longer one than the caller's limit ends the connection.
//! - A response belongs to the oldest request without one, and must carry its correlation id.
//! - After an error a connection is not used again.
//! - The client does not negotiate versions. All peers are programs of one cluster, which serve the
//!   versions that their callers name.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod connection;
mod error;
mod pool;
mod stream;
#[cfg(test)]
mod tests;

pub use address::Address;
pub use connection::{Connection, ConnectionSettings};
pub use error::ClientError;
pub use pool::{Pool, PoolSettings, Repeat};
pub use stream::connect;
