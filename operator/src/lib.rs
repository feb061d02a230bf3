//! The Weir operator: the controller of the cluster, the stores of its state, and local mode.
//!
//! `controller` decides and does no I/O; `shell` runs it: commit, then tell. `store` keeps the
//! state, `rpc` talks to brokers, `admission` validates resources as `kubectl apply` would. `local`
//! runs the whole system on one machine, `kubernetes` is the operator.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admission;
mod authority;
pub mod conditions;
pub mod controller;
pub mod groups;
pub mod kafka;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod listener;
pub mod local;
mod mapping_rules;
#[cfg(feature = "kubernetes")]
mod node_cas;
mod probe;
pub mod rpc;
pub mod schema;
pub mod shell;
pub mod store;
mod time;
#[cfg(feature = "kubernetes")]
mod verdict;
