//! Tests of Weir from outside: code that starts a cluster, drives real clients and sends raw bytes
//! to a broker.
//!
//! The tests in `tests/` use it. It uses no crate of Weir. It runs the `weir` binary and Kafka
//! clients as a user does. With `WEIR_E2E_BOOTSTRAP=host:port` the same tests run against an
//! existing cluster of any kind. They were written against Apache Kafka and pass on it, so they
//! assert Kafka's behaviour.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod batch;
pub mod bystander;
pub mod cluster;
pub mod driver;
pub mod fuzz;
pub mod group;
pub mod kubernetes;
pub mod load;
pub mod node;
pub mod numbered;
pub mod record;
pub mod replica;
pub mod schema;
pub mod tools;
pub mod topics;
pub mod transactions;
pub mod txn;
pub mod wire;
pub mod writer;

use std::path::{Path, PathBuf};

/// The root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The directory in which `e2e/install` puts the clients.
#[must_use]
pub fn clients() -> PathBuf {
    std::env::var_os("WEIR_E2E_CLIENTS")
        .map_or_else(|| workspace().join("target/e2e-clients"), PathBuf::from)
}
