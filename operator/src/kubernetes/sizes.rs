//! The sizes of a cluster's topics, to show what deleting one would cost. The operator asks the
//! brokers with DescribeLogDirs, as any client may.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::debug;
use weir_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use weir_protocol::types::TopicId;

use crate::controller::state::State;
use crate::kafka::{Client, check};

/// The interval of the requests. Deletion protection does not see records written since the last
/// one.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The newest version of DescribeLogDirs that reports single partitions as needed here.
const VERSION: i16 = 4;

/// A change below this fraction (1/STEP) of the shown size is not worth a write.
const STEP: i64 = 10;

/// The known sizes, for their readers.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    topics: watch::Receiver<Arc<BTreeMap<TopicId, i64>>>,
    total: watch::Receiver<Option<i64>>,
}

impl Sizes {
    /// The bytes of a topic's records, if known.
    pub(super) fn of(&self, topic: TopicId) -> Option<i64> {
        self.topics.borrow().get(&topic).copied()
    }

    /// The bytes of all records, if known.
    pub(super) fn total(&self) -> Option<i64> {
        *self.total.borrow()
    }

    /// Waits until the size of a topic changes.
    pub(super) async fn changed(&mut self) {
        if self.topics.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the total size changes.
    pub(super) async fn total_changed(&mut self) {
        if self.total.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The size to show, given the one shown so far. A change from or to 0 always shows, however small
/// the step.
pub(super) fn shown(shown: Option<i64>, is: Option<i64>) -> Option<i64> {
    match (shown, is) {
        (Some(shown), Some(is))
            if (shown == 0) == (is == 0)
                && (is.saturating_sub(shown)).saturating_abs() < shown / STEP =>
        {
            Some(shown)
        }
        (shown, None) => shown,
        (_, is) => is,
    }
}

/// The sizes of this client's cluster, and the task that updates them.
pub(super) fn keep_sizes(client: Client) -> (Sizes, impl Future<Output = Infallible> + Send) {
    let (topics, of_topics) = watch::channel(Arc::default());
    let (total, in_all) = watch::channel(None);
    let sizes = Sizes { topics: of_topics, total: in_all };
    let task = async move {
        loop {
            let found = fetch_sizes(&client).await;
            let before = Arc::clone(&topics.borrow());
            let now = found.sizes(&client.state(), &before);
            let sum = now.values().fold(0_i64, |sum, size| sum.saturating_add(*size));
            topics.send_if_modified(|told| {
                let is_new = **told != now;
                *told = Arc::new(now);
                is_new
            });
            // Nothing is known before the first broker has answered.
            let sum = (!found.answered.is_empty()).then_some(sum);
            total.send_if_modified(|told| {
                let next = shown(*told, sum);
                std::mem::replace(told, next) != next
            });
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    (sizes, task)
}

/// A request for all topics; a list of topics, even an empty one, would restrict it.
fn everything() -> DescribeLogDirsRequest {
    DescribeLogDirsRequest { topics: None }
}

async fn fetch_sizes(client: &Client) -> Found {
    let mut found = Found::default();
    for broker in client.brokers() {
        let answer = client.ask(broker, VERSION, &everything()).await;
        match answer.and_then(|answer| {
            check("describe the log directories", answer.error_code).map(|()| answer)
        }) {
            Ok(answer) => found.handle(broker, answer),
            Err(error) => debug!(broker, %error, "ask how much a broker holds"),
        }
    }
    found
}

/// The brokers' answers.
#[derive(Debug, Default)]
struct Found {
    answered: Vec<i32>,
    /// The largest replica of each partition, by topic.
    partitions: BTreeMap<String, BTreeMap<i32, i64>>,
}

impl Found {
    fn handle(&mut self, broker: i32, answer: DescribeLogDirsResponse) {
        self.answered.push(broker);
        for topic in answer.results.into_iter().flat_map(|dir| dir.topics) {
            let partitions = self.partitions.entry(topic.name).or_default();
            for partition in topic.partitions.iter().filter(|partition| !partition.is_future_key) {
                let size = partitions.entry(partition.partition_index).or_default();
                *size = (*size).max(partition.partition_size);
            }
        }
    }

    /// The sizes of the existing topics. If a partition of a topic is missing in the answers, its
    /// earlier size is the minimum.
    fn sizes(&self, state: &State, before: &BTreeMap<TopicId, i64>) -> BTreeMap<TopicId, i64> {
        let none = BTreeMap::new();
        let size = |topic: &Arc<crate::controller::state::Topic>| {
            let told = self.partitions.get(topic.name()).unwrap_or(&none);
            let known = before.get(&topic.id).copied();
            let sum = told.values().fold(0_i64, |sum, size| sum.saturating_add(*size));
            let is_whole = (0..).zip(&topic.partitions).all(|(index, _)| told.contains_key(&index));
            let is = if is_whole { Some(sum) } else { known.map(|known| known.max(sum)) };
            shown(known, is).map(|size| (topic.id, size))
        };
        state.topics.values().filter_map(size).collect()
    }
}

#[cfg(test)]
mod tests;
