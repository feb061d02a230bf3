//! The parts of a running broker, as the APIs see them. Wired in `lib.rs`, and holds no behaviour of its own.

use std::time::Duration;

use crate::api::{FetchSessions, FollowerSessions};
use crate::auth::Authorizer;
use crate::config::Config;
use crate::controller_client::Controller;
use crate::metadata::Metadata;
use crate::metrics::Metrics;
use crate::net::RequestMemory;
use crate::replica::{self, Replicas};

/// Everything that a request may need. One per process, shared by all connections.
#[derive(Debug)]
pub struct Broker {
    /// The process's configuration.
    pub config: Config,
    /// The image of the cluster.
    pub metadata: Metadata,
    /// The partitions of this broker.
    pub replicas: Replicas,
    /// The controller, for what only it can decide.
    pub controller: Controller,
    /// Who may do what.
    pub authorizer: Authorizer,
    /// Incremental fetch sessions (KIP-227).
    pub fetch_sessions: FetchSessions,
    /// Those of the brokers that follow this one.
    pub follower_sessions: FollowerSessions,
    /// The budget for requests in memory.
    pub request_memory: RequestMemory,
    /// What is counted.
    pub metrics: Metrics,
}

/// Settings of the broker that its parts look up as they go, from the configuration that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `socket.request.max.bytes`
    pub socket_request_bytes_max: usize,
    /// `connections.max.idle.ms`
    pub connections_idle_max: Duration,
    /// `log.retention.check.interval.ms`
    pub retention_check_interval: Duration,
    /// `log.cleaner.backoff.ms`
    pub cleaner_backoff: Duration,
}

impl Broker {
    /// The settings that are in force now.
    pub fn settings(&self) -> Settings {
        let image = self.metadata.load();
        let layers = replica::layers(&image, self.config.id);
        let number = |key, default| layers.broker_value(key).and_then(|value| value.parse::<u64>().ok()).unwrap_or(default);
        Settings {
            socket_request_bytes_max: usize::try_from(number("socket.request.max.bytes", 104_857_600)).unwrap_or(usize::MAX),
            connections_idle_max: Duration::from_millis(number("connections.max.idle.ms", 600_000)),
            retention_check_interval: Duration::from_millis(number("log.retention.check.interval.ms", 300_000)),
            cleaner_backoff: Duration::from_millis(number("log.cleaner.backoff.ms", 15_000)),
        }
    }
}
