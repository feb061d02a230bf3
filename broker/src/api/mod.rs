//! The Kafka APIs, a file per family: decode, authorize, act, encode.
//!
//! `net` passes a frame and gets a `Dispatch`. `replica` does the work on partitions. The
//! `controller_client` forwards requests that the controller decides. Nothing here knows sockets or
//! files.
//!
//! Invariants
//! - No API acts before the authorizer has permitted it.
//! - The broker advertises an API version only if it serves all of it.

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
mod login;
mod metadata;
mod produce;
mod producer_ids;
mod repeats;
mod replica_fetch;
mod replica_session;
mod reply;
mod request;
mod scram_users;
mod security;
mod services;
mod topic_name;
mod topics;
mod transactions;

pub use context::{Caller, Listener, RequestContext};
pub(crate) use dispatch::dispatch;
pub use fetch_session::FetchSessions;
pub use large::LargeRequests;
pub(crate) use login::{LoginFrame, encode as encode_login};
pub use replica_session::FollowerSessions;
pub(crate) use reply::{Chunk, FileRegion, Reply};
pub(crate) use request::{Dispatch, Received};
pub use services::{CachedSettings, Services};
