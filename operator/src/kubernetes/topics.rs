//! Users' `Topic`s: a watch event goes to the controller of the topic's cluster, and the
//! controller's answer into the status.
//!
//! There is no finalizer: deleting a `Topic` deletes the topic, so that no namespace waits for an
//! operator. A retained `Topic` that is deleted is created again. With the chart's policy
//! installed, the API server refuses its deletion in the first place.
//!
//! The operator follows a `Topic` in another namespace than its cluster's while the cluster allows
//! that namespace. After that the controller retains its topic ([`Asked::Retain`]).

mod conditions;
mod hosted;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};
use weir_crds::Topic;

pub(super) use self::hosted::{Hosted, Notice};
pub(super) use self::status::keep_statuses;
use super::context::Context;
use super::namespaces::{self, is_going};
use super::offered;
use super::watch::{Change, in_scope};
use crate::controller::{Event as Asked, Key, Kind, RETAINED, Reply, Resource};
use crate::shell::{Answer, Controller};
use crate::store::kube::cluster_cache::version_of;
use crate::verdict::Verdict;

/// The wait before a topic is offered again after the controller had to reload its state.
const OFFER_AGAIN: Duration = Duration::from_millis(200);

/// How often the task checks whether clusters allow other namespaces than before.
const VERDICTS_EVERY: Duration = Duration::from_secs(1);

/// How often the task looks for topics without a cluster. A cluster applied together with its
/// topics has this long to appear.
const ORPHANS_EVERY: Duration = Duration::from_secs(3);

/// The result of an offer.
struct Offered {
    topic: Key,
    cluster: Key,
    generation: Option<i64>,
    /// The request, unless it was an offer of the watched resource.
    besides: Option<Asked>,
    answer: Result<Answer, oneshot::error::RecvError>,
}

struct Topics {
    context: Context,
    /// All Topics of any cluster.
    known: BTreeMap<Key, Arc<Topic>>,
    hosted: BTreeMap<Key, Hosted>,
    offers: FuturesUnordered<BoxFuture<'static, Offered>>,
    again: FuturesUnordered<BoxFuture<'static, (Key, Key, Option<Asked>)>>,
}

/// Brings topics to the controllers of their clusters.
pub(super) async fn run(context: Context, mut notices: mpsc::Receiver<Notice>) -> Infallible {
    let mut changes = in_scope::<Topic>(&context.client, &context.scope);
    let mut topics = Topics {
        context,
        known: BTreeMap::new(),
        hosted: BTreeMap::new(),
        offers: FuturesUnordered::new(),
        again: FuturesUnordered::new(),
    };
    let mut orphans = tokio::time::interval(ORPHANS_EVERY);
    orphans.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    orphans.tick().await;
    let mut verdicts = tokio::time::interval(VERDICTS_EVERY);
    verdicts.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(Change::Applied(topic))) => topics.put(topic).await,
                Some(Ok(Change::Deleted(key, last))) => topics.remove(&key, last).await,
                Some(Ok(Change::Listed(_))) => {}
                Some(Err(error)) => warn!(%error, "cannot watch Topics; trying again"),
                None => std::future::pending().await,
            },
            Some(notice) = notices.recv() => topics.notice(notice).await,
            Some(offered) = topics.offers.next() => topics.answered(offered),
            Some((topic, cluster, besides)) = topics.again.next() => topics.offer_again(&topic, &cluster, besides).await,
            _ = orphans.tick() => topics.find_orphans().await,
            _ = verdicts.tick() => topics.check_verdicts().await,
        }
    }
}

impl Topics {
    async fn put(&mut self, topic: Topic) {
        let key = Key::of(&topic.metadata);
        // A list shows the next object of this name where the watch missed the former's deletion.
        if self.known.get(&key).is_some_and(|known| known.metadata.uid != topic.metadata.uid) {
            self.remove(&key, None).await;
        }
        self.known.insert(key.clone(), Arc::new(topic));
        self.offer(&key).await;
    }

    /// Offers a topic to its controller, unless the controller knows this version.
    async fn offer(&mut self, key: &Key) {
        let Some(topic) = self.known.get(key).cloned() else { return };
        let cluster = cluster_of(key, &topic);
        let Some(hosted) = self.hosted.get(&cluster) else { return };
        let (cache, controller) = (hosted.cache.clone(), hosted.controller.clone());
        cache.watched(&topic);
        let verdict = hosted.verdict(&self.context, &key.namespace);
        let is_news = cache.judged(key, &verdict, cluster.namespace != key.namespace);
        match verdict {
            Verdict::Allowed => {}
            // A topic that was followed stays, and is followed again as soon as the verdict allows
            // it.
            Verdict::Unknown(_) | Verdict::Pending => return,
            Verdict::NotAllowed(_) => {
                if is_news {
                    self.ask(&controller, Asked::Retain(key.clone()), key.clone(), cluster).await;
                }
                return;
            }
        }
        if cache.offers(key, version_of(&topic)) {
            let event = Asked::Apply(vec![Resource::Topic(Box::new(offered::topic(&topic)))]);
            self.submit(&controller, event, key.clone(), cluster, topic.metadata.generation, None)
                .await;
        }
    }

    /// Sends another request about a topic to a controller.
    async fn ask(&mut self, controller: &Controller, event: Asked, topic: Key, cluster: Key) {
        self.submit(controller, event.clone(), topic, cluster, None, Some(event)).await;
    }

    async fn submit(
        &mut self,
        controller: &Controller,
        event: Asked,
        topic: Key,
        cluster: Key,
        generation: Option<i64>,
        besides: Option<Asked>,
    ) {
        // If the controller is gone, its successor gets an offer of every topic.
        if let Ok(told) = controller.submit(event).await {
            let answered = async move {
                let answer = told.await;
                Offered { topic, cluster, generation, besides, answer }
            };
            self.offers.push(answered.boxed());
        }
    }

    /// Handles the deletion of a topic's resource. `last` is its final version, with the latest
    /// changes.
    async fn remove(&mut self, key: &Key, last: Option<Topic>) {
        let Some(known) = self.known.remove(key) else { return };
        let topic = last.map_or(known, Arc::new);
        let cluster = cluster_of(key, &topic);
        if let Some(hosted) = self.hosted.get(&cluster) {
            hosted.cache.gone(key, &topic.metadata);
            let controller = hosted.controller.clone();
            let is_followed = hosted.verdict(&self.context, &key.namespace) == Verdict::Allowed;
            let goes_with_its_topic =
                is_followed && !goes_with_a_namespace(&self.context, key, &topic, &cluster).await;
            let event = if goes_with_its_topic {
                match topic.metadata.uid.clone() {
                    Some(uid) => Asked::Gone(key.clone(), uid),
                    None => Asked::Delete(Kind::Topic, key.clone()),
                }
            } else {
                Asked::Retain(key.clone())
            };
            self.ask(&controller, event, key.clone(), cluster).await;
        }
    }

    fn answered(&mut self, offered: Offered) {
        let Offered { topic, cluster, generation, besides, answer } = offered;
        let Some(hosted) = self.hosted.get(&cluster) else { return };
        match answer.map(|answer| answer.reply) {
            // If the topic is retained, the status task creates its resource again.
            Ok(reply) if besides.is_some() => {
                let refused = match reply {
                    Reply::Invalid(refusal) => refusal.path == RETAINED,
                    Reply::Applied(_) => matches!(besides, Some(Asked::Retain(_))),
                    _ => false,
                };
                hosted.cache.answered_deletion(&topic, refused);
                if !refused {
                    self.offer_the_refused(&cluster);
                }
            }
            Ok(Reply::Applied(_)) => hosted.cache.accepted(&topic, generation),
            Ok(Reply::Invalid(refusal)) => {
                debug!(%topic, %refusal, "the controller refuses a Topic");
                hosted.cache.refused(&topic, generation, &refusal);
            }
            Ok(_) => {}
            Err(_) => {
                hosted.cache.withdraw(&topic);
                self.again.push(
                    tokio::time::sleep(OFFER_AGAIN)
                        .map(move |()| (topic, cluster, besides))
                        .boxed(),
                );
            }
        }
    }

    async fn offer_again(&mut self, topic: &Key, cluster: &Key, besides: Option<Asked>) {
        let controller = self.hosted.get(cluster).map(|hosted| hosted.controller.clone());
        if let (Some(event), Some(controller)) = (besides, controller)
            && (matches!(event, Asked::Retain(_)) || !self.known.contains_key(topic))
        {
            self.ask(&controller, event, topic.clone(), cluster.clone()).await;
        }
        // A topic that was deleted meanwhile is unknown here.
        self.offer(topic).await;
    }

    /// Offers all refused topics again after a topic may have been deleted: one of them may have
    /// claimed its name.
    fn offer_the_refused(&mut self, cluster: &Key) {
        let Some(hosted) = self.hosted.get(cluster) else { return };
        for key in hosted.cache.refused_topics() {
            if self.known.contains_key(&key) {
                hosted.cache.withdraw(&key);
                self.again.push(std::future::ready((key, cluster.clone(), None)).boxed());
            }
        }
    }

    /// Offers topics that are allowed now, and retains those that no longer are.
    async fn check_verdicts(&mut self) {
        let others =
            self.known.iter().filter(|(_, topic)| topic.spec.cluster_ref.namespace.is_some());
        let is_other = |(key, topic): &(&Key, &Arc<Topic>)| {
            let hosted = self.hosted.get(&cluster_of(key, topic));
            hosted.is_some_and(|hosted| {
                hosted.cache.verdict(key) != Some(hosted.verdict(&self.context, &key.namespace))
            })
        };
        let others: Vec<Key> = others.filter(is_other).map(|(key, _)| key.clone()).collect();
        for key in others {
            self.offer(&key).await;
        }
    }

    async fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Gone(cluster) => drop(self.hosted.remove(&cluster)),
            Notice::Hosted(hosted) => {
                let cluster = hosted.cluster.clone();
                self.hosted.insert(cluster.clone(), hosted);
                let its =
                    self.known.iter().filter(|(key, topic)| cluster_of(key, topic) == cluster);
                // Of two topics with one name the older gets it.
                let mut its: Vec<_> = its
                    .map(|(key, topic)| (topic.metadata.creation_timestamp.clone(), key.clone()))
                    .collect();
                its.sort();
                for (_, key) in its {
                    self.offer(&key).await;
                }
            }
        }
    }

    /// Writes a status to topics whose cluster does not exist.
    async fn find_orphans(&mut self) {
        let homeless: BTreeSet<Key> = self
            .known
            .iter()
            .map(|(key, topic)| cluster_of(key, topic))
            .filter(|cluster| !self.hosted.contains_key(cluster))
            // Another operator may watch that namespace.
            .filter(|cluster| self.context.scope.has(&cluster.namespace))
            .collect();
        for cluster in homeless {
            let its = self.known.iter().filter(|(key, topic)| cluster_of(key, topic) == cluster);
            let topics: Vec<(Key, Arc<Topic>)> =
                its.map(|(key, topic)| (key.clone(), Arc::clone(topic))).collect();
            status::report_orphans(&self.context, &cluster, &topics).await;
        }
    }
}

/// Whether a protected Topic is deleted with its namespace, while the cluster with its records
/// stays. Admission policies do not stop the namespace controller.
async fn goes_with_a_namespace(context: &Context, key: &Key, topic: &Topic, cluster: &Key) -> bool {
    let is_protected = topic.spec.deletion_protection.unwrap_or(true);
    let holds_records =
        topic.status.as_ref().and_then(|status| status.bytes).is_some_and(|bytes| bytes > 0);
    key.namespace != cluster.namespace
        && is_protected
        && holds_records
        && is_going(&context.client, &key.namespace).await
}

fn cluster_of(topic: &Key, resource: &Topic) -> Key {
    namespaces::cluster_of(&topic.namespace, &resource.spec.cluster_ref)
}

#[cfg(test)]
mod tests;
