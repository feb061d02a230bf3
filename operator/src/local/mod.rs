//! Local mode: the whole system on one machine, without Kubernetes and without containers.
//!
//! `command` is the command line, `cluster` starts and stops the processes and calls the
//! controller, `controller` is the controller's process. The resources are the same as on
//! Kubernetes, and so are their effects.

mod ask;
mod broker_probe;
mod cluster;
pub mod command;
pub mod controller;
mod files;
mod groups;
mod listeners;
mod manifests;
mod nodes;
mod output;
mod process;
mod recovery;
mod server;
mod shape;
mod status;
mod target;
mod tls;
mod view;

pub use process::detach_if_child;

/// The service of the controller for the command line, generated from `proto/local.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::clone_on_ref_ptr, clippy::unwrap_used)]
pub mod rpc {
    include!(concat!(env!("OUT_DIR"), "/weir.local.v1.rs"));
}
