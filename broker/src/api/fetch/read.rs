//! Reads the partitions of a consumer's fetch, and waits until there is enough.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::fetch_response::AbortedTransaction;
use weir_protocol::types::{BrokerId, LeaderEpoch, TopicPartition};

use crate::api::fetch_session::{Answer, Key, LastSent, PartitionFetch, ResolvedFetch, TopicRef};
use crate::api::reply::FileRegion;
use crate::api::{RequestContext, Services};
use crate::auth::{Operation, Resource};
use crate::metadata::MetadataImage;
use crate::replica::{Partition, Waiter, read_error};
use weir_log::{Aborted, EpochEnd, LogReader, ReadSlice};

/// The result of reading one partition.
pub(super) struct Read {
    pub(super) code: ErrorCode,
    pub(super) high_watermark: i64,
    pub(super) last_stable_offset: i64,
    pub(super) log_start_offset: i64,
    pub(super) diverging: Option<EpochEnd>,
    pub(super) records: Option<FileRegion>,
    /// The aborted transactions that have records in the region; only for `read_committed`.
    pub(super) aborted: Option<Vec<AbortedTransaction>>,
    /// The replica that the client should read from instead.
    pub(super) preferred: Option<BrokerId>,
    pub(super) partition: Option<Arc<Partition>>,
}

impl Read {
    fn error(code: ErrorCode) -> Self {
        Self {
            code,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging: None,
            records: None,
            aborted: None,
            preferred: None,
            partition: None,
        }
    }

    pub(super) fn answer(&self) -> Answer {
        let has_records = self.records.is_some();
        let has_error = self.code != ErrorCode::None;
        Answer {
            said: LastSent {
                high_watermark: self.high_watermark,
                log_start_offset: self.log_start_offset,
            },
            worth_saying: has_records
                || has_error
                || self.diverging.is_some()
                || self.preferred.is_some(),
            has_records,
            has_error,
        }
    }
}

/// The checked bounds of one request.
pub(super) struct Limits {
    pub(super) wait: Duration,
    pub(super) bytes_min: usize,
    pub(super) bytes_max: usize,
    pub(super) read_committed: bool,
    /// The client supports reads from followers (KIP-392).
    pub(super) from_followers: bool,
    /// The client's rack, if it names one.
    pub(super) rack: Option<String>,
}

/// Reads all partitions. While that gives too few bytes and time is left, waits until one of them
/// advances and reads again.
pub(super) async fn read_until_enough(
    services: &Services,
    cx: &RequestContext,
    asked: &ResolvedFetch,
    limits: &Limits,
) -> Vec<Read> {
    let deadline = Instant::now() + limits.wait;
    let mut waiter = Waiter::new(Partition::waiters);
    let mut registered = false;
    loop {
        if limits.read_committed {
            know_transactions(services, cx, asked).await;
        }
        let reads = read_all(services, cx, asked, limits);
        let bytes: usize =
            reads.iter().filter_map(|read| read.records.as_ref()).map(|region| region.length).sum();
        let must_say = reads.iter().any(|read| {
            read.code != ErrorCode::None || read.diverging.is_some() || read.preferred.is_some()
        });
        if must_say
            || bytes >= limits.bytes_min
            || asked.partitions.is_empty()
            || limits.wait.is_zero()
        {
            return reads;
        }
        if registered {
            if tokio::time::timeout_at(deadline, waiter.woken()).await.is_err() {
                return reads;
            }
            registered = false;
        } else {
            // One more read finds what advanced between the last read and the registration.
            waiter.register(reads.into_iter().filter_map(|read| read.partition));
            registered = true;
        }
    }
}

/// Loads the transactions of all partitions that are read up to the last stable offset.
async fn know_transactions(services: &Services, cx: &RequestContext, asked: &ResolvedFetch) {
    let unknown: Vec<_> = {
        let image = services.metadata.load();
        let partitions =
            asked.partitions.iter().filter_map(|(key, _)| find(services, cx, &image, key).ok());
        partitions.filter(|partition| partition.last_stable_offset().is_none()).collect()
    };
    for partition in unknown {
        partition.know_transactions().await;
    }
}

pub(super) fn read_all(
    services: &Services,
    cx: &RequestContext,
    asked: &ResolvedFetch,
    limits: &Limits,
) -> Vec<Read> {
    let image = services.metadata.load();
    let mut left = limits.bytes_max;
    let mut first = true;
    let mut reads = Vec::with_capacity(asked.partitions.len());
    for (key, wish) in &asked.partitions {
        let read = find(services, cx, &image, key)
            .and_then(|partition| read_counted(&image, partition, wish, limits, left, first))
            .unwrap_or_else(Read::error);
        if let Some(region) = &read.records {
            left = left.saturating_sub(region.length);
            first = false;
        }
        reads.push(read);
    }
    reads
}

/// The partition that the client names, if the client may read it.
fn find(
    services: &Services,
    cx: &RequestContext,
    image: &MetadataImage,
    key: &Key,
) -> Result<Arc<Partition>, ErrorCode> {
    let (topic, unknown) = match &key.topic {
        TopicRef::Id(id) => (image.topic(*id), ErrorCode::UnknownTopicId),
        TopicRef::Name(name) => (image.topic_by_name(name), ErrorCode::UnknownTopicOrPartition),
    };
    let name = match (&key.topic, topic) {
        (_, Some(topic)) => Some(&topic.name),
        (TopicRef::Name(name), None) => Some(name),
        (TopicRef::Id(_), None) => None,
    };
    if let Some(name) = name
        && !services.authorizer.allows(&cx.requester, Operation::Read, Resource::Topic(name))
    {
        return Err(ErrorCode::TopicAuthorizationFailed);
    }
    let topic = topic.ok_or(unknown)?;
    topic.partition(key.index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    services
        .replicas
        .get(TopicPartition { topic: topic.id, index: key.index })
        .ok_or(ErrorCode::NotLeaderOrFollower)
}

fn read_counted(
    image: &MetadataImage,
    partition: Arc<Partition>,
    wish: &PartitionFetch,
    limits: &Limits,
    left: usize,
    first: bool,
) -> Result<Read, ErrorCode> {
    match read(image, &partition, wish, limits, left, first) {
        Ok(read) => Ok(Read { partition: Some(partition), ..read }),
        Err(code) => {
            partition.traffic().fetches();
            partition.traffic().fetch_failed();
            // A leader that was replaced while its process was down does not know where the log
            // ends now. On OFFSET_OUT_OF_RANGE the client would leave its position.
            let is_beyond = wish.fetch_offset > partition.log().log_end_offset();
            match code == ErrorCode::OffsetOutOfRange && is_beyond && partition.is_resumed() {
                true => Err(ErrorCode::OffsetNotAvailable),
                false => Err(code),
            }
        }
    }
}

fn read(
    image: &MetadataImage,
    partition: &Partition,
    wish: &PartitionFetch,
    limits: &Limits,
    left: usize,
    first: bool,
) -> Result<Read, ErrorCode> {
    let epoch = LeaderEpoch(wish.current_leader_epoch);
    match limits.from_followers {
        true => partition.check_replica(epoch)?,
        false => partition.check_leader(epoch).map(|_| ())?,
    }
    let log = partition.log();
    let high_watermark = partition.high_watermark();
    // `read_uncommitted` does not use the last stable offset, so its transactions are not loaded.
    let last_stable_offset = match partition.last_stable_offset() {
        Some(offset) => offset,
        None if limits.read_committed => return Err(ErrorCode::OffsetNotAvailable),
        None => high_watermark,
    };
    let mut read = Read {
        high_watermark,
        last_stable_offset,
        log_start_offset: log.log_start_offset(),
        ..Read::error(ErrorCode::None)
    };
    if wish.last_fetched_epoch >= 0 {
        let end = log
            .end_offset_for_epoch(LeaderEpoch(wish.last_fetched_epoch))
            .filter(|_| wish.fetch_offset >= read.log_start_offset)
            .ok_or(ErrorCode::OffsetOutOfRange)?;
        if end.epoch.0 < wish.last_fetched_epoch || end.offset < wish.fetch_offset {
            read.diverging = Some(end);
            return Ok(read);
        }
    }
    if let Some(rack) = limits.rack.as_deref().filter(|_| partition.is_leader()) {
        let in_rack = |id| {
            image
                .brokers
                .get(&id)
                .is_some_and(|broker| !broker.fenced && broker.rack.as_deref() == Some(rack))
        };
        read.preferred = partition.preferred_read_replica(wish.fetch_offset, &in_rack);
        if read.preferred.is_some() {
            return Ok(read);
        }
    }
    let bound = if limits.read_committed { last_stable_offset } else { high_watermark };
    let bytes_max = usize::try_from(wish.max_bytes).unwrap_or(0).min(left);
    let slice = if limits.read_committed {
        let (slice, found) = log
            .read_committed(wish.fetch_offset, bound, bytes_max, first)
            .map_err(|error| read_error(&error))?;
        // The log was truncated since its transactions were loaded.
        let found = found.ok_or(ErrorCode::OffsetNotAvailable)?;
        read.aborted =
            Some(aborted(log, found, slice.as_ref()).map_err(|_| ErrorCode::KafkaStorageError)?);
        slice
    } else {
        log.read(wish.fetch_offset, bound, bytes_max, first).map_err(|error| read_error(&error))?
    };
    read.records = slice.map(FileRegion::from);
    Ok(read)
}

/// The aborted transactions with records in the region, in the order of their first offsets.
fn aborted(
    log: &LogReader,
    mut found: Vec<Aborted>,
    slice: Option<&ReadSlice>,
) -> std::io::Result<Vec<AbortedTransaction>> {
    // Usually there is none, and then the end of the region is not needed.
    if let Some(slice) = slice.filter(|_| !found.is_empty()) {
        let end = log.end_of(slice)?;
        found.retain(|aborted| aborted.first_offset < end);
        found.sort_by_key(|aborted| aborted.first_offset);
    }
    let said = found.iter().map(|aborted| AbortedTransaction {
        producer_id: aborted.producer.0,
        first_offset: aborted.first_offset,
    });
    Ok(said.collect())
}
