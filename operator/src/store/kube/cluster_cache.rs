//! The resources of one cluster that users write, as they were last observed, and what became of
//! each. All that act on them share this cache.
//!
//! The watch and the store's own writes observe resources; the store patches only what differs from
//! that. The task of the topics notes what it offered to the controller and what was answered, and
//! the task of the statuses writes what follows. That an observation may be a moment old does no
//! harm: what a patch does not name, it does not change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kube::api::ObjectMeta;
use tokio::sync::Notify;
use weir_crds::{KafkaCluster, Topic, TopicSpec, TopicStatus};
use weir_protocol::types::TopicId;

use crate::controller::{Key, Refusal, topic_id_on};
use crate::verdict::Verdict;

/// The cache of one cluster; clones share it.
#[derive(Clone, Debug, Default)]
pub struct ClusterCache {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    cluster: Option<Arc<KafkaCluster>>,
    topics: BTreeMap<Key, TopicEntry>,
    /// Resources that went, and that the controller has not let go.
    deletions: BTreeMap<Key, Deletion>,
}

/// What the store needs to know of a `Topic` to change it.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedTopic {
    /// The resource's uid.
    pub uid: Option<String>,
    /// The topic's id that is written on it.
    pub id: Option<TopicId>,
    /// What a user, a client or the operator wrote.
    pub spec: TopicSpec,
}

/// Which object, and which state of it, a controller is offered.
pub(crate) type Version = (Option<String>, Option<i64>, Option<TopicId>);

/// The version of a resource.
pub(crate) fn version_of(topic: &Topic) -> Version {
    (topic.metadata.uid.clone(), topic.metadata.generation, topic_id_on(topic))
}

/// What is known of one `Topic`.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicEntry {
    /// The resource, as the watch or a write of the store saw it last. `None` once the store has
    /// deleted it.
    observed: Option<Arc<ObservedTopic>>,
    /// The uid of the object that the watch told of last; the answers and the status are about that
    /// one.
    pub(crate) uid: Option<String>,
    /// The generation that the watch told of last.
    generation: Option<i64>,
    /// What the controller was offered last.
    offered: Option<Version>,
    /// What the cluster said of the namespace, when that was last looked at.
    verdict: Option<Verdict>,
    /// The same for the status; `None` where the namespace is the cluster's own.
    pub(crate) allowed: Option<Verdict>,
    /// The generation that the controller has taken up, or refused: of that the status speaks.
    /// `None` while it has said nothing.
    pub(crate) answered: Option<i64>,
    /// Why the controller does not take the resource as it is.
    pub(crate) refusal: Option<Refusal>,
    /// What the status says, as far as is known.
    pub(crate) status: TopicStatus,
    /// When the status was last written.
    pub(crate) status_written_at: Option<Instant>,
}

/// The deletion of a resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deletion {
    /// What the resource was last.
    pub(crate) metadata: ObjectMeta,
    /// The controller refuses it. Until it has said so, it may still let the topic go.
    pub(crate) refused: bool,
}

impl ClusterCache {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster's resource.
    pub fn cluster(&self) -> Option<Arc<KafkaCluster>> {
        self.inner().cluster.clone()
    }

    /// The cluster's resource was observed.
    pub fn observe_cluster(&self, cluster: KafkaCluster) {
        self.inner().cluster = Some(Arc::new(cluster));
    }

    /// A topic's resource.
    pub fn topic(&self, key: &Key) -> Option<Arc<ObservedTopic>> {
        self.inner().topics.get(key)?.observed.clone()
    }

    /// A topic's resource was observed.
    pub fn observe_topic(&self, topic: &Topic) {
        let observed = Arc::new(ObservedTopic {
            uid: topic.metadata.uid.clone(),
            id: topic_id_on(topic),
            spec: topic.spec.clone(),
        });
        self.inner().topics.entry(Key::of(&topic.metadata)).or_default().observed = Some(observed);
    }

    /// The store has deleted a topic's resource. Its status is of interest until the watch tells of
    /// that, too.
    pub fn deleted_topic(&self, key: &Key) {
        if let Some(entry) = self.inner().topics.get_mut(key) {
            entry.observed = None;
        }
    }

    /// The watch tells of a topic's resource.
    pub(crate) fn watched(&self, topic: &Topic) {
        self.observe_topic(topic);
        let key = Key::of(&topic.metadata);
        let mut inner = self.inner();
        inner.deletions.remove(&key);
        let entry = inner.topics.entry(key).or_default();
        if entry.uid != topic.metadata.uid {
            // Another object of this name.
            *entry = TopicEntry {
                observed: entry.observed.take(),
                offered: entry.offered.take(),
                verdict: entry.verdict.take(),
                uid: topic.metadata.uid.clone(),
                ..TopicEntry::default()
            };
        }
        entry.generation = topic.metadata.generation;
        entry.status = topic.status.clone().unwrap_or_default();
    }

    /// What the cluster last said of a topic's namespace.
    pub(crate) fn verdict(&self, key: &Key) -> Option<Verdict> {
        self.inner().topics.get(key)?.verdict.clone()
    }

    /// What the cluster says of a topic's namespace, which is its own or not; returns whether that
    /// is news. Only what is allowed stays offered.
    pub(crate) fn judged(&self, key: &Key, verdict: &Verdict, is_elsewhere: bool) -> bool {
        let mut inner = self.inner();
        let Some(entry) = inner.topics.get_mut(key) else { return false };
        let is_news = entry.verdict.as_ref() != Some(verdict);
        entry.verdict = Some(verdict.clone());
        if *verdict != Verdict::Allowed {
            entry.offered = None;
        }
        if is_elsewhere && *verdict != Verdict::Pending {
            if *verdict != Verdict::Allowed {
                (entry.answered, entry.refusal) = (entry.generation, None);
            }
            if entry.allowed.as_ref() != Some(verdict) {
                entry.allowed = Some(verdict.clone());
                self.shared.changed.notify_one();
            }
        }
        is_news
    }

    /// This version of a topic is to be offered to the controller; returns whether it was not
    /// before.
    pub(crate) fn offers(&self, key: &Key, version: Version) -> bool {
        let mut inner = self.inner();
        let Some(entry) = inner.topics.get_mut(key) else { return false };
        entry.offered.replace(version.clone()) != Some(version)
    }

    /// An offer has come to nothing: the topic is to be offered again.
    pub(crate) fn withdraw(&self, key: &Key) {
        if let Some(entry) = self.inner().topics.get_mut(key) {
            entry.offered = None;
        }
    }

    /// The controller took this generation of the resource up.
    pub(crate) fn accepted(&self, key: &Key, generation: Option<i64>) {
        if let Some(entry) = self.inner().topics.get_mut(key) {
            entry.answered = generation;
            entry.refusal = None;
        }
        self.changed();
    }

    /// The controller refuses this generation of the resource.
    pub(crate) fn refused(&self, key: &Key, generation: Option<i64>, refusal: &Refusal) {
        let mut inner = self.inner();
        if let Some(entry) =
            inner.topics.get_mut(key).filter(|entry| entry.generation == generation)
        {
            entry.answered = generation;
            entry.refusal = Some(refusal.clone());
        }
        drop(inner);
        self.changed();
    }

    /// The resources that the controller refuses as they are.
    pub(crate) fn refused_topics(&self) -> Vec<Key> {
        let inner = self.inner();
        let refused = inner.topics.iter().filter(|(_, entry)| entry.refusal.is_some());
        refused.map(|(key, _)| key.clone()).collect()
    }

    /// The watch tells that a resource is gone. With these metadata it is made again, if its topic
    /// may not go.
    pub(crate) fn gone(&self, key: &Key, metadata: &ObjectMeta) {
        let deletion = Deletion { metadata: metadata.clone(), refused: false };
        let mut inner = self.inner();
        inner.deletions.insert(key.clone(), deletion);
        inner.topics.remove(key);
        drop(inner);
        self.changed();
    }

    /// The controller has let the topic of a resource that is gone go, or not.
    pub(crate) fn answered_deletion(&self, key: &Key, refused: bool) {
        let mut inner = self.inner();
        match inner.deletions.get_mut(key) {
            Some(deletion) if refused => deletion.refused = true,
            _ => drop(inner.deletions.remove(key)),
        }
        drop(inner);
        self.changed();
    }

    /// The deletion of a resource that is gone, if it was seen to go.
    pub(crate) fn deletion(&self, key: &Key) -> Option<Deletion> {
        self.inner().deletions.get(key).cloned()
    }

    /// A status was written.
    pub(crate) fn written(&self, key: &Key, status: &TopicStatus) {
        if let Some(entry) = self.inner().topics.get_mut(key) {
            entry.status = status.clone();
            entry.status_written_at = Some(Instant::now());
        }
    }

    /// Something changed that may change a status.
    pub(crate) fn changed(&self) {
        self.shared.changed.notify_one();
    }

    /// Waits for [`Self::changed`].
    pub(crate) async fn wait(&self) {
        self.shared.changed.notified().await;
    }

    /// All topics, by where their resources lie.
    pub(crate) fn topics(&self) -> BTreeMap<Key, TopicEntry> {
        self.inner().topics.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(uid: &str, generation: i64) -> Topic {
        let object = serde_json::json!({
            "apiVersion": weir_crds::API_VERSION, "kind": "Topic", "metadata": {"namespace": "n", "name": "t", "uid": uid, "generation": generation},
            "spec": {"clusterRef": {"name": "c"}},
        });
        serde_json::from_value(object).unwrap()
    }

    fn refusal() -> Refusal {
        Refusal {
            kind: crate::controller::Kind::Topic,
            name: "t".to_owned(),
            path: "spec".to_owned(),
            reason: "no".to_owned(),
        }
    }

    #[test]
    fn a_status_speaks_of_what_the_controller_has_said_something_of() {
        let cache = ClusterCache::default();
        let t = &Key::new(Some("n"), Some("t"));
        let answered = |cache: &ClusterCache| {
            cache.topics().remove(t).map(|entry| (entry.answered, entry.refusal.is_some()))
        };
        cache.watched(&topic("a", 1));
        assert_eq!(answered(&cache), Some((None, false)));
        cache.accepted(t, Some(1));
        cache.watched(&topic("a", 2));
        assert_eq!(answered(&cache), Some((Some(1), false)), "not heard of yet");
        cache.refused(t, Some(1), &refusal());
        assert_eq!(answered(&cache), Some((Some(1), false)), "a refusal of what is not any more");
        cache.refused(t, Some(2), &refusal());
        assert_eq!(answered(&cache), Some((Some(2), true)));
        cache.accepted(t, Some(3));
        assert_eq!(answered(&cache), Some((Some(3), false)));
        cache.watched(&topic("b", 1));
        assert_eq!(answered(&cache), Some((None, false)), "another resource of that name");
    }

    #[test]
    fn a_version_is_offered_once_and_again_where_that_came_to_nothing() {
        let cache = ClusterCache::default();
        let t = &Key::new(Some("n"), Some("t"));
        let offers = |topic: &Topic| cache.offers(t, version_of(topic));
        let (first, second) = (topic("a", 1), topic("a", 2));
        assert!(!offers(&first), "nobody has seen it");
        cache.watched(&first);
        assert!(
            cache.judged(t, &Verdict::Allowed, true) && !cache.judged(t, &Verdict::Allowed, true)
        );
        assert!(offers(&first) && !offers(&first));
        assert!(offers(&second) && !offers(&second));
        cache.withdraw(t);
        assert!(offers(&second));
        // What is not allowed any more is offered anew once it is allowed again.
        assert!(cache.judged(t, &Verdict::NotAllowed("no".to_owned()), true));
        assert!(cache.judged(t, &Verdict::Allowed, true));
        assert!(offers(&second));
    }

    #[test]
    fn what_the_store_writes_is_observed_and_what_it_deletes_is_not() {
        let cache = ClusterCache::default();
        let t = &Key::new(Some("n"), Some("t"));
        let uid = |cache: &ClusterCache| cache.topic(t).and_then(|observed| observed.uid.clone());
        cache.observe_topic(&topic("a", 1));
        assert_eq!(uid(&cache).as_deref(), Some("a"));
        cache.watched(&topic("a", 1));
        cache.accepted(t, Some(1));
        cache.deleted_topic(t);
        assert_eq!(uid(&cache), None);
        assert_eq!(
            cache.topics().remove(t).and_then(|entry| entry.answered),
            Some(1),
            "the watch has not told of it yet"
        );
        cache.gone(t, &ObjectMeta::default());
        assert!(cache.topics().is_empty() && cache.deletion(t).is_some());
        cache.watched(&topic("b", 1));
        assert!(cache.deletion(t).is_none());
    }
}
