//! The parts of a running broker that the APIs use. `run.rs` wires them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use weir_settings::Layers;

use super::fetch_session::FetchSessions;
use super::large::LargeRequests;
use super::replica_session::FollowerSessions;
use crate::auth::Authorizer;
use crate::budget::{AnswerMemory, RequestMemory};
use crate::config::Config;
use crate::controller_client::Controller;
use crate::coordinator::{Coordinator, Memory};
use crate::group::Groups;
use crate::metadata::{Metadata, MetadataImage};
use crate::metrics::{KeptReadings, Metrics, Part};
use crate::replica::Replicas;
use crate::transaction::Transactions;
use crate::transaction_io::TransactionIo;

/// Everything that a request may need. One per process, shared by all connections.
#[derive(Debug)]
pub struct Services {
    /// The process's configuration.
    pub config: Config,
    /// The metadata of the cluster.
    pub metadata: Arc<Metadata>,
    /// The partitions of this broker.
    pub replicas: Arc<Replicas>,
    /// The controller, which decides changes of metadata.
    pub controller: Arc<Controller>,
    /// The group coordinators.
    pub(crate) groups: Arc<Coordinator<Groups>>,
    /// The transaction coordinators.
    pub(crate) transactions: Arc<Coordinator<Transactions>>,
    /// The requests of transactions to other brokers.
    pub(crate) transaction_io: Arc<TransactionIo>,
    /// The permissions of principals.
    pub authorizer: Authorizer,
    /// Incremental fetch sessions (KIP-227).
    pub fetch_sessions: FetchSessions,
    /// Fetch sessions of the brokers that follow this one.
    pub follower_sessions: FollowerSessions,
    /// The thread for requests that take long.
    pub large_requests: LargeRequests,
    /// The budget for requests in memory.
    pub request_memory: RequestMemory,
    /// The budget for answers in memory.
    pub answer_memory: AnswerMemory,
    /// The counters and gauges.
    pub metrics: Arc<Metrics>,
    /// The cache behind [`Services::settings`].
    pub settings: CachedSettings,
}

/// The settings with the version of the metadata that they come from, so that no request parses
/// texts.
#[derive(Debug, Default)]
pub struct CachedSettings(ArcSwap<Option<(u64, Settings)>>);

/// Longer than any broker runs, and short enough to be added to any `Instant`.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Settings of the broker that are looked up on each use, so that changes apply at once.
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
    /// `log.cleaner.dedupe.buffer.size`, bounded by the memory of the process
    pub cleaner_dedupe_bytes: u64,
    /// `fetch.max.bytes`
    pub fetch_bytes_max: usize,
    /// `max.incremental.fetch.session.cache.slots`
    pub fetch_sessions_max: usize,
}

impl Services {
    /// The memory of what coordinators keep for their clients.
    pub(crate) fn kept(&self) -> KeptReadings {
        let part = |memory: &Memory| Part {
            used_bytes: memory.used_bytes(),
            bytes_max: memory.bytes_max(),
        };
        let groups = self.groups.shared();
        KeptReadings {
            group_members: part(&groups.members),
            committed_offsets: part(&groups.offsets),
            transactional_ids: part(self.transactions.shared()),
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> Settings {
        let image = self.metadata.load();
        if let Some((version, settings)) = **self.settings.0.load()
            && version == image.version
        {
            return settings;
        }
        let settings = self.read_settings(&image);
        self.settings.0.store(Arc::new(Some((image.version, settings))));
        settings
    }

    fn read_settings(&self, image: &MetadataImage) -> Settings {
        let layers = image.layers(self.config.id);
        let millis = |key| Duration::from_millis(layers.broker_size(key));
        let size = |key| usize::try_from(layers.broker_size(key)).unwrap_or(usize::MAX);
        Settings {
            socket_request_bytes_max: size("socket.request.max.bytes"),
            connections_idle_max: connections_idle_max(&layers),
            retention_check_interval: millis("log.retention.check.interval.ms"),
            cleaner_backoff: millis("log.cleaner.backoff.ms"),
            cleaner_dedupe_bytes: layers
                .broker_size("log.cleaner.dedupe.buffer.size")
                .min(self.config.memory.cleaner_keys),
            fetch_bytes_max: size("fetch.max.bytes"),
            fetch_sessions_max: size("max.incremental.fetch.session.cache.slots"),
        }
    }
}

/// `connections.max.idle.ms`; a negative number means no limit.
fn connections_idle_max(layers: &Layers<'_>) -> Duration {
    match layers.broker_number("connections.max.idle.ms") {
        ..0 => FOR_EVER,
        idle_ms => Duration::from_millis(idle_ms.unsigned_abs()),
    }
}

#[cfg(test)]
mod tests {
    use weir_settings::Configs;

    use super::*;

    #[test]
    fn connections_may_be_idle_for_ever() {
        let idle_max = |set: &[&str]| {
            let set: Configs = set
                .iter()
                .map(|value| ("connections.max.idle.ms".to_owned(), (*value).to_owned()))
                .collect();
            connections_idle_max(&Layers { cluster: Some(&set), ..Layers::default() })
        };
        assert_eq!(idle_max(&[]), Duration::from_secs(600));
        assert_eq!(idle_max(&["1500"]), Duration::from_millis(1500));
        assert_eq!(idle_max(&["-1"]), FOR_EVER);
        assert!(std::time::Instant::now().checked_add(idle_max(&["-1"])).is_some());
    }
}
