//! SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677) with the habits of Kafka's clients.
//!
//! The broker's `sasl` runs a [`Server`] for each login. Brokers and tests that log in themselves
//! use a [`Client`]. The controller keeps [`Credential`]s and changes them by [`alter()`].
//!
//! - No SASLprep: user names and passwords are UTF-8 as they come, as in Apache Kafka.
//! - No channel binding: only the header `n` is taken, as in Apache Kafka.
//! - A proof covers the messages as they were received, not as they are understood.
//! - An unknown user is answered like a known one, up to the refusal of the proof.

mod alter;
mod client;
mod credential;
mod mechanism;
mod message;
mod server;
mod text;

#[cfg(test)]
mod tests;

pub use alter::{
    AlterError, Altered, Deletion, DescribeError, Described, Stored, Upsertion, alter, describe,
    store,
};
pub use client::{Client, ClientError};
pub use credential::{
    BadCredential, Credential, ITERATIONS_MAX, ITERATIONS_MIN, Keys, SALT_BYTES_MAX,
    SALT_RANDOM_BYTES, salt,
};
pub use mechanism::Mechanism;
pub use message::{ClientFirst, Malformed};
pub use server::{Accepted, Refused, Server};
pub use text::BadText;
