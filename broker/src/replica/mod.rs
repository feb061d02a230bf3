//! The partitions of this broker: takes up the replicas that the metadata assigns to it, with their
//! roles and logs.
//!
//! The controller client calls this with each new image, and `api` for each partition of a request.
//! Decides which records are committed. Does not know requests.
//!
//! Invariants
//! - Each partition has one writer, in a serial executor. The thread that takes it appends every
//!   queued batch, publishes the new end and puts it back (`serial_executor`). No lock is held
//!   across I/O, and no partition has a task.
//! - The high watermark never passes what is durable under the partition's `flush.mode`, on any
//!   replica that counts. A follower fetches from the end of what it has, after its flush.
//! - A broker takes up a role while it holds the writer, so a leader knows the exact start of its
//!   epoch. A role ends immediately.
//! - A leader's epoch begins at the end of its log, before its first record. The log stores the
//!   epoch with that record.
//! - A follower appends and cuts under the epoch of the fetch, and drops the answer under any
//!   other. So no change of leaders waits for a fetcher.
//! - A wait for a flush ends when the log is deleted or its leader changes. A deleted log is not
//!   changed any more: a job queued behind the deletion is dropped.
//! - The partitions take up a change of the ISR together with the metadata that it is part of,
//!   never under older settings.
//! - Once [`Replicas::close`] has begun, no metadata is taken up. A log opened in place of a closed
//!   one would be empty, and the next start believes the catalogue of an orderly stop.

mod assignments;
mod cleaning;
mod clock;
pub mod core;
mod fetch_subscriptions;
mod fetcher;
mod leaving;
mod maintenance;
mod partition;
mod serial_executor;
mod settings;
mod shared;
#[cfg(test)]
mod tests;
mod throttle;
mod traffic;
mod unreachable_leaders;
mod waiters;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tracing::{error, info, warn};
use weir_protocol::types::{BrokerId, TopicId, TopicPartition};
use weir_settings::topic_key;

pub(crate) use self::clock::now_ms;
use self::core::PartitionState;
pub(crate) use self::fetch_subscriptions::DirtySlots;
pub use self::fetcher::{FetcherContext, Fetchers};
use self::leaving::{Fate, Leaving};
pub use self::maintenance::{Maintenance, MaintenanceSettings};
pub(crate) use self::partition::Shared;
pub(crate) use self::partition::{
    Acks, Appending, FollowerFetch, Led, Observed, Partition, Served, Throttled, read_error,
};
pub(crate) use self::serial_executor::{Backlog, SerialExecutor, run_backlog_later};
pub(crate) use self::settings::Settings;
pub(crate) use self::traffic::Counted;
pub(crate) use self::unreachable_leaders::UnreachableLeaders;
pub(crate) use self::waiters::Waiter;
use crate::metadata::{MetadataImage, PartitionImage, TopicImage};
use weir_log::{LogConfig, LogDir};

/// How long a stopping broker waits for one log that is being deleted: a rename and a sync between
/// two rounds of flushes. A thousand logs may take longer in total.
const LEAVING_MAX: Duration = Duration::from_secs(10);

/// The partitions of this broker.
#[derive(Debug)]
pub struct Replicas {
    broker: BrokerId,
    log_dir: LogDir,
    shared: Arc<Shared>,
    settings: Mutex<Settings>,
    partitions: RwLock<HashMap<TopicPartition, Arc<Partition>>>,
    configs: Mutex<SharedConfigs>,
    /// The first full image was taken up. A log that it does not claim belongs to no topic.
    complete: AtomicBool,
    leaving: Arc<Leaving>,
    /// Locked while metadata is taken up. True once the broker stops: its logs are closed then, and
    /// a log opened in place of one of them would be empty.
    is_over: Mutex<bool>,
}

/// The configurations of logs. Topics with equal settings share one.
#[derive(Debug, Default)]
struct SharedConfigs {
    known: Vec<Arc<LogConfig>>,
}

/// The number of configurations that are searched for an equal one. Topics beyond it get their own.
const SHARED_CONFIGS_MAX: usize = 64;

impl SharedConfigs {
    fn share(&mut self, config: LogConfig) -> Arc<LogConfig> {
        if let Some(known) = self.known.iter().find(|known| ***known == config) {
            return Arc::clone(known);
        }
        let config = Arc::new(config);
        self.known.retain(|known| Arc::strong_count(known) > 1);
        if self.known.len() < SHARED_CONFIGS_MAX {
            self.known.push(Arc::clone(&config));
        }
        config
    }
}

impl Replicas {
    /// No partitions yet. The first image claims the logs in the directory.
    pub fn new(broker: BrokerId, log_dir: LogDir) -> Self {
        Self {
            broker,
            log_dir,
            shared: Arc::new(Shared::new(broker)),
            settings: Mutex::default(),
            partitions: RwLock::default(),
            configs: Mutex::default(),
            complete: AtomicBool::new(false),
            leaving: Arc::default(),
            is_over: Mutex::new(false),
        }
    }

    /// The log directory.
    pub fn log_dir(&self) -> &LogDir {
        &self.log_dir
    }

    /// The partition, if this broker holds it.
    pub(crate) fn get(&self, id: TopicPartition) -> Option<Arc<Partition>> {
        self.partitions.read().get(&id).cloned()
    }

    /// All partitions of this broker.
    pub(crate) fn all(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().values().cloned().collect()
    }

    /// How many partitions there are, and how many of them this broker leads.
    pub fn count(&self) -> (usize, usize) {
        let partitions = self.partitions.read();
        (partitions.len(), partitions.values().filter(|partition| partition.is_leader()).count())
    }

    /// The state that all partitions share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Finds followers that lag or have caught up; never returns.
    pub(crate) async fn keep_checking(&self) {
        self.shared.keep_checking(Partition::check).await;
    }

    /// The leaders to which this broker has just lost its connection.
    pub(crate) fn lost_leaders(&self) -> &UnreachableLeaders {
        &self.shared.lost
    }

    /// The settings of fetching from leaders.
    pub(crate) fn settings(&self) -> Settings {
        *self.settings.lock()
    }

    /// Takes up the changes from one image to the next; `touched` lists the topics that changed.
    /// The caller publishes the next image afterwards.
    ///
    /// A replica that the same controller has removed is deleted. A replica that a new controller
    /// does not know is set aside: its state may come from a backup, and this log may be the last
    /// copy. Does nothing once the broker stops.
    pub fn apply(&self, before: &MetadataImage, next: &MetadataImage, touched: &[TopicId]) {
        let is_over = self.is_over.lock();
        if *is_over {
            return;
        }
        let all_configs_changed = before.cluster_configs != next.cluster_configs
            || before.broker_configs.get(&self.broker) != next.broker_configs.get(&self.broker);
        let settings = Settings::of(&next.layers(self.broker));
        let settings_before = std::mem::replace(&mut *self.settings.lock(), settings);
        self.shared.confirmed();
        self.shared.apply(next, &settings);
        if settings.lag_ms_max != settings_before.lag_ms_max {
            for partition in self.all() {
                partition.reconfigure();
            }
        }
        let topics: Vec<_> = match all_configs_changed {
            true => next.topics().map(|topic| topic.id).chain(touched.iter().copied()).collect(),
            false => touched.to_vec(),
        };
        let fate = match before.controller_epoch == next.controller_epoch
            && self.complete.load(Ordering::Acquire)
        {
            true => Fate::Deleted,
            false => Fate::SetAside,
        };
        for id in topics {
            match (before.topic(id), next.topic(id)) {
                (_, Some(topic)) => self.apply_topic(next, topic, fate),
                (Some(topic), None) => self.give_up(topic, fate),
                (None, None) => {}
            }
        }
        self.set_aside_unclaimed();
        if before.brokers != next.brokers {
            // A follower that has fetched everything may have become eligible for the ISR.
            for partition in self.all().iter().filter(|partition| partition.is_leader()) {
                partition.check();
            }
        }
    }

    /// Resumes the roles of the previous run. `image` is the image that it used. The caller
    /// publishes the image afterwards. Replaces the first [`Replicas::apply`].
    pub fn resume(&self, image: &MetadataImage) {
        let is_over = self.is_over.lock();
        if *is_over {
            return;
        }
        let settings = Settings::of(&image.layers(self.broker));
        *self.settings.lock() = settings;
        self.shared.apply(image, &settings);
        self.shared.resume();
        // A newer image may claim the logs that this one does not, so nothing is set aside yet.
        for topic in image.topics() {
            self.apply_topic(image, topic, Fate::SetAside);
        }
    }

    /// Sets aside the logs that no topic claims, once the first full image is taken up.
    fn set_aside_unclaimed(&self) {
        if !self.complete.swap(true, Ordering::AcqRel) {
            self.log_dir.set_aside_unclaimed();
        }
    }

    fn apply_topic(&self, image: &MetadataImage, topic: &TopicImage, fate: Fate) {
        let config = self.config(image, topic);
        for (index, state) in (0..).zip(&topic.partitions) {
            let id = TopicPartition { topic: topic.id, index };
            if !state.replicas.contains(&self.broker) {
                if self.drop_partition(id, fate) {
                    info!(topic = %topic.name, partition = index, ?fate, "this broker is no replica any more; its log goes");
                }
                continue;
            }
            let partition = match self.get(id) {
                Some(partition) => {
                    partition.set_config(Arc::clone(&config));
                    partition
                }
                None => match self.open(id, topic, &config) {
                    Some(partition) => partition,
                    None => continue,
                },
            };
            partition.set_throttled(throttled(topic, index, self.broker));
            partition.apply(state.leader, committed(state));
        }
    }

    fn open(
        &self,
        id: TopicPartition,
        topic: &TopicImage,
        config: &Arc<LogConfig>,
    ) -> Option<Arc<Partition>> {
        match self.log_dir.open_log(id, &topic.name, Arc::clone(config)) {
            Ok(writer) => {
                let partition = Partition::new(writer, Arc::clone(config), &self.shared);
                self.partitions.write().insert(id, Arc::clone(&partition));
                Some(partition)
            }
            Err(error) => {
                error!(topic = %topic.name, partition = id.index, %error, "cannot open a log; the partition stays offline here");
                None
            }
        }
    }

    fn give_up(&self, topic: &TopicImage, fate: Fate) {
        let ids = (0..)
            .take(topic.partitions.len())
            .map(|index| TopicPartition { topic: topic.id, index });
        let gone = ids.filter(|id| self.drop_partition(*id, fate)).count();
        info!(topic = %topic.name, id = %topic.id, partitions = gone, ?fate, "gave up the logs of a topic that is not there any more");
    }

    /// Retires a partition and queues its log for removal; returns whether this broker held it.
    fn drop_partition(&self, id: TopicPartition, fate: Fate) -> bool {
        let Some(partition) = self.partitions.write().remove(&id) else {
            return false;
        };
        partition.retire();
        self.leaving.push(partition, fate);
        true
    }

    /// The settings of a topic's logs: those of the topic, of this broker and of the cluster, in
    /// Kafka's order.
    fn config(&self, image: &MetadataImage, topic: &TopicImage) -> Arc<LogConfig> {
        let layers = image.layers(self.broker);
        let resolve = layers.resolve_topic(&topic.configs);
        let mut resolved = log_settings(resolve);
        if let Some(expiration) = layers.broker_value("producer.id.expiration.ms") {
            resolved.insert("producer.id.expiration.ms".to_owned(), expiration.into_owned());
        }
        let (config, invalid) = LogConfig::parse(&resolved);
        for error in invalid {
            warn!(topic = %topic.name, %error, "a setting of a topic is not understood; its logs go by the default, but nothing is removed or acknowledged because of it");
        }
        self.configs.lock().share(config)
    }

    /// Closes all logs and the log directory in order. The caller makes sure that nothing appends
    /// any more.
    ///
    /// # Errors
    /// The I/O error when the directory cannot be closed in order; the next start then recovers.
    pub async fn close(&self) -> std::io::Result<()> {
        *self.is_over.lock() = true;
        let leaving = Arc::clone(&self.leaving);
        let is_settled = tokio::task::spawn_blocking(move || leaving.wait_until_done(LEAVING_MAX))
            .await
            .unwrap_or(false);
        if !is_settled {
            warn!(
                seconds = LEAVING_MAX.as_secs(),
                "logs that are being deleted are not gone in time; the next start recovers"
            );
            return Err(std::io::Error::new(
                ErrorKind::TimedOut,
                "logs that are being deleted are not gone",
            ));
        }
        let partitions = std::mem::take(&mut *self.partitions.write());
        let mut writers = Vec::with_capacity(partitions.len());
        for partition in partitions.into_values() {
            writers.extend(partition.take_writer().await);
        }
        self.log_dir.close(&mut writers)
    }
}

/// The settings of a topic that its logs need, as the tables of settings write them: who set them
/// may have written ` 5 ` or `TRUE`.
fn log_settings<'a>(resolve: impl Fn(&str) -> Option<Cow<'a, str>>) -> BTreeMap<String, String> {
    let written = |key: &&'static str| {
        let (setting, text) = (topic_key(key)?, resolve(key)?);
        let text = setting.parse(&text).map_or_else(|_| text.into_owned(), |it| it.to_string());
        Some(((*key).to_owned(), text))
    };
    LogConfig::KEYS.iter().filter_map(written).collect()
}

/// Whether a replica on this broker is throttled as a leader, and as a follower.
fn throttled(topic: &TopicImage, partition: i32, broker: BrokerId) -> Throttled {
    let is_named = |key| {
        topic
            .configs
            .get(key)
            .is_some_and(|setting| throttle::names_replica(setting, partition, broker))
    };
    Throttled {
        leader: is_named("leader.replication.throttled.replicas"),
        follower: is_named("follower.replication.throttled.replicas"),
    }
}

/// The state of a partition that the controller has committed.
pub(crate) fn committed(state: &PartitionImage) -> PartitionState {
    PartitionState {
        replicas: state.replicas.to_vec(),
        isr: state.isr.to_vec(),
        leader_epoch: state.leader_epoch,
        partition_epoch: state.partition_epoch,
        recovering: state.recovering,
        has_eligible: !state.elr.is_empty(),
    }
}
