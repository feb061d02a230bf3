//! Topics, as users write them: what the watch sees is put to the controller of its cluster, and what the controller thinks of it is written into the status.
//!
//! There is no finalizer: a deleted `Topic` is gone, and the topic with it, so that no namespace waits for an operator. A `Topic` that is deleted although it is to be retained comes back as it was:
//! where the chart's policy is installed, the API server does not let it go at all.

mod book;
mod conditions;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, SelectAll};
use futures::{FutureExt, StreamExt, TryStreamExt};
use kube::api::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};
use weir_crds::Topic;
use weir_protocol::types::TopicId;

use super::clusters::apis;
use super::listed::Listed;
use super::sizes::Sizes;
use super::{Context, metadata_for_the_controller};
use crate::controller::{Event as Asked, Kind, RETAINED, Reply, Resource, TOPIC_ID_ANNOTATION, topic_id_on};
use crate::shell::{Answer, Controller};
use crate::store::kube::Seen;

pub(super) use book::Book;
pub(super) use conditions::{Judgement, condition};
pub(super) use status::{keep_statuses, now, publish};

/// How soon a topic is offered again that the controller could not take, because it had to read its state anew.
const OFFER_AGAIN: Duration = Duration::from_millis(200);

/// How often it is looked for topics whose cluster does not exist; a cluster that is applied with its topics has this long to appear.
const ORPHANS_EVERY: Duration = Duration::from_secs(3);

/// A namespace and a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(namespace: Option<&str>, name: Option<&str>) -> Self {
        Self {
            namespace: namespace.unwrap_or_default().to_owned(),
            name: name.unwrap_or_default().to_owned(),
        }
    }
}

/// A cluster whose controller runs here.
#[derive(Clone, Debug)]
pub(super) struct Hosted {
    pub(super) cluster: Key,
    pub(super) controller: Controller,
    pub(super) seen: Seen,
    pub(super) sizes: Sizes,
    pub(super) book: Book,
}

/// What keepers tell the task of the topics.
#[derive(Debug)]
pub(super) enum Notice {
    /// A cluster's controller runs.
    Hosted(Hosted),
    /// It does not any more.
    Gone(Key),
}

/// A topic's resource, and what of it the controller was offered.
struct Known {
    topic: Arc<Topic>,
    offered: Option<Version>,
    /// The namespace's watch that knows of it.
    scope: usize,
}

/// What of a resource a controller cares about.
type Version = (Option<String>, Option<i64>, Option<TopicId>);

fn version_of(topic: &Topic) -> Version {
    (topic.metadata.uid.clone(), topic.metadata.generation, topic_id_on(topic))
}

/// What became of an offer.
struct Offered {
    topic: Key,
    cluster: Key,
    generation: Option<i64>,
    answer: Result<Answer, oneshot::error::RecvError>,
}

struct Topics {
    context: Context,
    known: BTreeMap<Key, Known>,
    hosted: BTreeMap<Key, Hosted>,
    listed: Listed,
    offers: FuturesUnordered<BoxFuture<'static, Offered>>,
    again: FuturesUnordered<BoxFuture<'static, (Key, Key)>>,
}

/// Brings topics to the controllers of their clusters.
pub(super) async fn run(context: Context, mut notices: mpsc::Receiver<Notice>) -> Infallible {
    let mut events: SelectAll<BoxStream<'static, _>> = SelectAll::new();
    for (scope, api) in apis::<DeserializeGuard<Topic>>(&context.client, &context.scope).into_iter().enumerate() {
        let watched = watch_objects(api, watcher::Config::default()).default_backoff();
        events.push(watched.map_ok(move |event| (scope, event)).boxed());
    }
    let mut topics = Topics {
        context,
        known: BTreeMap::new(),
        hosted: BTreeMap::new(),
        listed: Listed::default(),
        offers: FuturesUnordered::new(),
        again: FuturesUnordered::new(),
    };
    let mut orphans = tokio::time::interval(ORPHANS_EVERY);
    orphans.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    orphans.tick().await;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok((scope, event))) => topics.hear(scope, event).await,
                Some(Err(error)) => warn!(%error, "watch Topics"),
                None => std::future::pending().await,
            },
            Some(notice) = notices.recv() => topics.notice(notice).await,
            Some(offered) = topics.offers.next() => topics.answered(offered),
            Some((topic, cluster)) = topics.again.next() => topics.offer_again(&topic, &cluster).await,
            _ = orphans.tick() => topics.look_for_orphans().await,
        }
    }
}

impl Topics {
    async fn hear(&mut self, scope: usize, event: Event<DeserializeGuard<Topic>>) {
        match event {
            Event::Init => self.listed.begins(scope),
            Event::InitApply(object) => {
                let key = key_of(object.0.as_ref().map_or_else(|invalid| &invalid.metadata, |topic| &topic.metadata));
                self.listed.names(scope, key);
                self.put(scope, object).await;
            }
            Event::InitDone => {
                let known = self.known.iter().map(|(key, known)| (key, known.scope));
                for key in self.listed.gone(scope, known) {
                    self.remove(&key).await;
                }
            }
            Event::Apply(object) => self.put(scope, object).await,
            Event::Delete(object) => {
                let key = key_of(object.0.as_ref().map_or_else(|invalid| &invalid.metadata, |topic| &topic.metadata));
                // As it was when it went: with all that was changed last.
                if let (Ok(topic), Some(known)) = (object.0, self.known.get_mut(&key)) {
                    known.topic = Arc::new(topic);
                }
                self.remove(&key).await
            }
        }
    }

    async fn put(&mut self, scope: usize, object: DeserializeGuard<Topic>) {
        let mut topic = match object.0 {
            Ok(topic) => topic,
            Err(invalid) => {
                // The topic goes on as it was. The schema does not let such a resource in: it is older than the schema.
                warn!(
                    topic = invalid.metadata.name,
                    namespace = invalid.metadata.namespace,
                    error = invalid.error,
                    "a Topic cannot be read"
                );
                return;
            }
        };
        topic.metadata.managed_fields = None;
        let key = key_of(&topic.metadata);
        let offered = self.known.remove(&key).and_then(|known| known.offered);
        let known = Known {
            topic: Arc::new(topic),
            offered,
            scope,
        };
        self.known.insert(key.clone(), known);
        self.offer(&key).await;
    }

    /// Puts a topic to its controller, unless the controller knows this version of it.
    async fn offer(&mut self, key: &Key) {
        let Some(known) = self.known.get_mut(key) else { return };
        let cluster = cluster_of(key, &known.topic);
        let Some(hosted) = self.hosted.get(&cluster) else { return };
        hosted.book.see(&known.topic);
        hosted.seen.put_topic(&known.topic);
        let version = version_of(&known.topic);
        if known.offered.as_ref() == Some(&version) {
            return;
        }
        let event = Asked::Apply(vec![Resource::Topic(Box::new(as_offered(&known.topic)))]);
        known.offered = Some(version.clone());
        let controller = hosted.controller.clone();
        self.submit(&controller, event, key.clone(), cluster, version.1).await;
    }

    async fn submit(&mut self, controller: &Controller, event: Asked, topic: Key, cluster: Key, generation: Option<i64>) {
        // A controller that is gone is followed by another, to which everything is offered.
        if let Ok(told) = controller.submit(event).await {
            let answered = async move {
                let answer = told.await;
                Offered {
                    topic,
                    cluster,
                    generation,
                    answer,
                }
            };
            self.offers.push(answered.boxed());
        }
    }

    async fn remove(&mut self, key: &Key) {
        let Some(known) = self.known.remove(key) else { return };
        let cluster = cluster_of(key, &known.topic);
        if let Some(hosted) = self.hosted.get(&cluster) {
            hosted.seen.forget_topic(&key.name);
            hosted.book.forget(&key.name, &known.topic.metadata);
            let controller = hosted.controller.clone();
            self.submit(&controller, Asked::Delete(Kind::Topic, key.name.clone()), key.clone(), cluster, None)
                .await;
        }
    }

    fn answered(&mut self, offered: Offered) {
        let Offered {
            topic,
            cluster,
            generation,
            answer,
        } = offered;
        let Some(hosted) = self.hosted.get(&cluster) else { return };
        match answer.map(|answer| answer.reply) {
            // Where it is to be retained, the status task brings its resource back.
            Ok(reply) if generation.is_none() => {
                let refused = matches!(reply, Reply::Invalid(refusal) if refusal.path == RETAINED);
                hosted.book.answered_deletion(&topic.name, refused);
            }
            Ok(Reply::Applied(_)) => hosted.book.accepted(&topic.name, generation),
            Ok(Reply::Invalid(refusal)) => {
                debug!(topic = topic.name, %refusal, "the controller refuses a Topic");
                hosted.book.refused(&topic.name, generation, &refusal);
            }
            Ok(_) => {}
            Err(_) => {
                if let Some(known) = self.known.get_mut(&topic) {
                    known.offered = None;
                }
                self.again.push(tokio::time::sleep(OFFER_AGAIN).map(move |()| (topic, cluster)).boxed());
            }
        }
    }

    async fn offer_again(&mut self, topic: &Key, cluster: &Key) {
        if self.known.contains_key(topic) {
            self.offer(topic).await;
        } else if let Some(controller) = self.hosted.get(cluster).map(|hosted| hosted.controller.clone()) {
            self.submit(
                &controller,
                Asked::Delete(Kind::Topic, topic.name.clone()),
                topic.clone(),
                cluster.clone(),
                None,
            )
            .await;
        }
    }

    async fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Gone(cluster) => drop(self.hosted.remove(&cluster)),
            Notice::Hosted(hosted) => {
                let cluster = hosted.cluster.clone();
                self.hosted.insert(cluster.clone(), hosted);
                let its: Vec<Key> = self
                    .known
                    .iter()
                    .filter(|(key, known)| cluster_of(key, &known.topic) == cluster)
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in its {
                    if let Some(known) = self.known.get_mut(&key) {
                        known.offered = None;
                    }
                    self.offer(&key).await;
                }
            }
        }
    }

    /// Tells topics whose cluster does not exist.
    async fn look_for_orphans(&mut self) {
        let homeless: BTreeSet<Key> = self
            .known
            .iter()
            .map(|(key, known)| cluster_of(key, &known.topic))
            .filter(|cluster| !self.hosted.contains_key(cluster))
            .collect();
        for cluster in homeless {
            let its = self.known.iter().filter(|(key, known)| cluster_of(key, &known.topic) == cluster);
            let topics: Vec<Arc<Topic>> = its.map(|(_, known)| Arc::clone(&known.topic)).collect();
            status::tell_orphans(&self.context, &cluster, &topics).await;
        }
    }
}

fn key_of(metadata: &ObjectMeta) -> Key {
    Key::new(metadata.namespace.as_deref(), metadata.name.as_deref())
}

fn cluster_of(topic: &Key, resource: &Topic) -> Key {
    Key {
        namespace: topic.namespace.clone(),
        name: resource.spec.cluster_ref.name.clone(),
    }
}

/// A topic without what a controller does not need: what it does not have cannot change.
fn as_offered(topic: &Topic) -> Topic {
    let metadata = &topic.metadata;
    let id = topic_id_on(topic).map(|id| [(TOPIC_ID_ANNOTATION.to_owned(), id.0.to_string())].into());
    let mut offered = Topic::new(metadata.name.as_deref().unwrap_or_default(), topic.spec.clone());
    offered.metadata = ObjectMeta {
        annotations: id,
        ..metadata_for_the_controller(metadata)
    };
    offered
}

#[cfg(test)]
mod tests;
