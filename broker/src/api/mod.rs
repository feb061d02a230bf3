//! The Kafka APIs, a file per family: decode, authorise, act, encode.
//!
//! `net` hands over a frame and gets back what is to be done with it. What an API does to
//! partitions happens in `replica`, what the controller must decide is forwarded through
//! `controller_client`. Nothing here knows sockets or files.
//!
//! Invariants
//! - No API acts before it has asked the authoriser.
//! - An API and a version are advertised only if they are served completely.

mod answer;
mod api_versions;
mod cluster;
mod configs;
mod context;
mod delete_records;
mod describe_cluster;
mod describe_quorum;
mod describe_topic_partitions;
mod dispatch;
mod fetch;
mod fetch_session;
#[cfg(test)]
mod fixtures;
mod groups;
mod large;
mod leader_epoch;
mod list_offsets;
mod log_dirs;
mod metadata;
mod produce;
mod producer_ids;
mod repeats;
mod replica_fetch;
mod replica_session;
mod reply;
mod request;
mod security;
mod services;
mod topic_name;
mod topics;
mod transactions;

pub use context::{Caller, Listener, RequestContext};
pub(crate) use dispatch::dispatch;
pub use fetch_session::FetchSessions;
pub use large::LargeRequests;
pub use replica_session::FollowerSessions;
pub(crate) use reply::{Chunk, FileRegion, Reply};
pub(crate) use request::Handled;
pub use services::{CachedSettings, Services};
