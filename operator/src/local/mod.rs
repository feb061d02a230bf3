//! Local mode: the whole system on one machine, without Kubernetes and without containers.
//!
//! `command` is the command line, `cluster` starts and stops the processes and asks the controller,
//! `controller` is the controller's process. The resources are those of Kubernetes, and so is what
//! happens to them.

mod ask;
mod broker_probe;
mod cluster;
pub mod command;
pub mod controller;
mod groups;
mod manifests;
mod output;
mod process;
mod recovery;
mod server;
mod shape;
mod status;
mod target;
mod view;

pub use process::detach_if_child;

/// What the command line asks of the controller, generated from `proto/local.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::clone_on_ref_ptr, clippy::unwrap_used)]
pub mod rpc {
    include!(concat!(env!("OUT_DIR"), "/weir.local.v1.rs"));
}
