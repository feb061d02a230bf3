//! The Weir broker: the log, behind the Kafka wire protocol.
//!
//! `net → api → transaction_io → group, transaction → coordinator → controller_client → replica →
//! log → protocol`: each module knows only those to its right. None of them knows Kubernetes.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod auth;
pub mod budget;
pub mod config;
pub mod controller_client;
mod coordinator;
pub mod files;
mod group;
mod health;
pub mod memory;
pub mod metadata;
pub mod metrics;
pub mod net;
pub mod peer_addresses;
pub mod replica;
mod run;
pub mod sasl;
pub mod sim_api;
mod transaction;
mod transaction_io;

pub use run::{keep_the_heap_small, run, strays};
