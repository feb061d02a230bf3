//! The resources of one cluster that users write, as they were last observed, and the controller's
//! answer to each. All tasks that act on them share this cache.
//!
//! The watch and the store's own writes observe resources; the store patches only the difference
//! from the observation. An older version does not replace a newer one: the watch reports versions
//! that the store has replaced or deleted since. The task of the topics records each offer to the
//! controller and the answer; the task of the statuses writes the status from that.

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
    /// Deleted resources whose topics the controller has not deleted yet.
    deletions: BTreeMap<Key, Deletion>,
}

/// What the store needs of a `Topic` to change it.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedTopic {
    /// The resource's uid.
    pub uid: Option<String>,
    /// Its `metadata.generation` and `metadata.resourceVersion`.
    pub generation: Option<i64>,
    /// See [`Self::generation`].
    pub version: Option<String>,
    /// The topic id annotated on it.
    pub id: Option<TopicId>,
    /// The spec, written by a user, a client or the operator.
    pub spec: TopicSpec,
}

impl ObservedTopic {
    /// Its metadata, as far as it is known.
    pub(super) fn metadata(&self) -> ObjectMeta {
        ObjectMeta {
            uid: self.uid.clone(),
            generation: self.generation,
            resource_version: self.version.clone(),
            ..ObjectMeta::default()
        }
    }

    /// Whether this is not older than `known`.
    fn replaces(&self, known: &Self) -> bool {
        let number =
            |of: &Self| of.version.as_ref().and_then(|version| version.parse::<u64>().ok());
        if self.uid == known.uid {
            self.generation >= known.generation
        } else {
            !matches!((number(self), number(known)), (Some(new), Some(old)) if new < old)
        }
    }
}

/// The identity and the state of an object that the controller is offered.
pub(crate) type Version = (Option<String>, Option<i64>, Option<TopicId>);

/// The version of a resource.
pub(crate) fn version_of(topic: &Topic) -> Version {
    (topic.metadata.uid.clone(), topic.metadata.generation, topic_id_on(topic))
}

/// The cached data of one `Topic`.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicEntry {
    /// The resource from the last watch event or write of the store. `None` once the store has
    /// deleted it.
    observed: Option<Arc<ObservedTopic>>,
    /// The last object that the store has deleted. The watch may still report it, and older ones.
    deleted: Option<Arc<ObservedTopic>>,
    /// The uid of the object in the last watch event; answers and status refer to it.
    pub(crate) uid: Option<String>,
    /// The generation in the last watch event.
    generation: Option<i64>,
    /// The version that the controller was last offered.
    offered: Option<Version>,
    /// The last verdict on the namespace.
    verdict: Option<Verdict>,
    /// The same for the status; `None` if the namespace is the cluster's own.
    pub(crate) allowed: Option<Verdict>,
    /// The generation that the controller last accepted or refused; the status refers to it. `None`
    /// before its first answer.
    pub(crate) answered: Option<i64>,
    /// Why the controller refuses the resource.
    pub(crate) refusal: Option<Refusal>,
    /// The last known status.
    pub(crate) status: TopicStatus,
    /// When the status was last written.
    pub(crate) status_written_at: Option<Instant>,
}

/// The deletion of a resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deletion {
    /// The last metadata of the resource.
    pub(crate) metadata: ObjectMeta,
    /// The controller refused the deletion. Until it answers, it may still delete the topic.
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

    /// Records an observation of the cluster's resource.
    pub fn observe_cluster(&self, cluster: KafkaCluster) {
        let mut inner = self.inner();
        let is_old = inner.cluster.as_ref().is_some_and(|known| {
            let (known, new) = (&known.metadata, &cluster.metadata);
            known.uid == new.uid && new.generation < known.generation
        });
        if !is_old {
            inner.cluster = Some(Arc::new(cluster));
        }
    }

    /// A topic's resource.
    pub fn topic(&self, key: &Key) -> Option<Arc<ObservedTopic>> {
        self.inner().topics.get(key)?.observed.clone()
    }

    /// Records an observation of a topic's resource.
    pub fn observe_topic(&self, topic: &Topic) {
        let observed = ObservedTopic {
            uid: topic.metadata.uid.clone(),
            generation: topic.metadata.generation,
            version: topic.metadata.resource_version.clone(),
            id: topic_id_on(topic),
            spec: topic.spec.clone(),
        };
        let mut inner = self.inner();
        let entry = inner.topics.entry(Key::of(&topic.metadata)).or_default();
        let is_deleted = entry
            .deleted
            .as_ref()
            .is_some_and(|deleted| deleted.uid == observed.uid || !observed.replaces(deleted));
        if !is_deleted && entry.observed.as_ref().is_none_or(|known| observed.replaces(known)) {
            entry.observed = Some(Arc::new(observed));
        }
    }

    /// Records that the store deleted a topic's resource. The entry stays until the watch reports
    /// the deletion too, because of its status.
    pub fn deleted_topic(&self, key: &Key) {
        if let Some(entry) = self.inner().topics.get_mut(key)
            && let Some(observed) = entry.observed.take()
        {
            entry.deleted = Some(observed);
        }
    }

    /// Records a watch event of a topic's resource.
    pub(crate) fn watched(&self, topic: &Topic) {
        self.observe_topic(topic);
        let key = Key::of(&topic.metadata);
        let mut inner = self.inner();
        inner.deletions.remove(&key);
        let entry = inner.topics.entry(key).or_default();
        if entry.uid != topic.metadata.uid {
            // Another object with this name.
            *entry = TopicEntry {
                observed: entry.observed.take(),
                deleted: entry.deleted.take(),
                offered: entry.offered.take(),
                verdict: entry.verdict.take(),
                uid: topic.metadata.uid.clone(),
                ..TopicEntry::default()
            };
        }
        entry.generation = topic.metadata.generation;
        entry.status = topic.status.clone().unwrap_or_default();
    }

    /// The last verdict on a topic's namespace.
    pub(crate) fn verdict(&self, key: &Key) -> Option<Verdict> {
        self.inner().topics.get(key)?.verdict.clone()
    }

    /// Records the verdict on a topic's namespace; returns whether it is new. `is_elsewhere` says
    /// that the namespace is not the cluster's own. An offer stays only if the verdict is
    /// `Allowed`.
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

    /// Records that this version of a topic is offered to the controller; returns whether it is a
    /// new offer.
    pub(crate) fn offers(&self, key: &Key, version: Version) -> bool {
        let mut inner = self.inner();
        let Some(entry) = inner.topics.get_mut(key) else { return false };
        entry.offered.replace(version.clone()) != Some(version)
    }

    /// Discards an offer that failed, so that the topic is offered again.
    pub(crate) fn withdraw(&self, key: &Key) {
        if let Some(entry) = self.inner().topics.get_mut(key) {
            entry.offered = None;
        }
    }

    /// Records that the controller accepted this generation of the resource.
    pub(crate) fn accepted(&self, key: &Key, generation: Option<i64>) {
        if let Some(entry) = self.inner().topics.get_mut(key) {
            entry.answered = generation;
            entry.refusal = None;
        }
        self.changed();
    }

    /// Records that the controller refused this generation of the resource.
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

    /// The resources that the controller refuses at present.
    pub(crate) fn refused_topics(&self) -> Vec<Key> {
        let inner = self.inner();
        let refused = inner.topics.iter().filter(|(_, entry)| entry.refusal.is_some());
        refused.map(|(key, _)| key.clone()).collect()
    }

    /// Records that the watch reported a deletion. The resource is created again with this metadata
    /// if its topic may not be deleted.
    pub(crate) fn gone(&self, key: &Key, metadata: &ObjectMeta) {
        let deletion = Deletion { metadata: metadata.clone(), refused: false };
        let mut inner = self.inner();
        inner.deletions.insert(key.clone(), deletion);
        // The store may have created the next object of this name, and deleted that too.
        let former = inner.topics.remove(key).unwrap_or_default();
        let next = |of: &Arc<ObservedTopic>| of.uid != metadata.uid;
        let (observed, deleted) = (former.observed.filter(next), former.deleted.filter(next));
        if observed.is_some() || deleted.is_some() {
            let entry = TopicEntry { observed, deleted, ..TopicEntry::default() };
            inner.topics.insert(key.clone(), entry);
        }
        drop(inner);
        self.changed();
    }

    /// Records whether the controller deleted the topic of a deleted resource, or refused.
    pub(crate) fn answered_deletion(&self, key: &Key, refused: bool) {
        let mut inner = self.inner();
        match inner.deletions.get_mut(key) {
            Some(deletion) if refused => deletion.refused = true,
            _ => drop(inner.deletions.remove(key)),
        }
        drop(inner);
        self.changed();
    }

    /// The recorded deletion of a resource, if the watch saw it.
    pub(crate) fn deletion(&self, key: &Key) -> Option<Deletion> {
        self.inner().deletions.get(key).cloned()
    }

    /// Records that a status was written.
    pub(crate) fn written(&self, key: &Key, status: &TopicStatus) {
        if let Some(entry) = self.inner().topics.get_mut(key) {
            entry.status = status.clone();
            entry.status_written_at = Some(Instant::now());
        }
    }

    /// Signals a change that may affect a status.
    pub(crate) fn changed(&self) {
        self.shared.changed.notify_one();
    }

    /// Waits for [`Self::changed`].
    pub(crate) async fn wait(&self) {
        self.shared.changed.notified().await;
    }

    /// All topics by the key of their resource.
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
        // A topic that was not allowed is offered again once it is.
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
        cache.gone(t, &topic("a", 1).metadata);
        assert!(cache.topics().is_empty() && cache.deletion(t).is_some());
        cache.watched(&topic("b", 1));
        assert!(cache.deletion(t).is_none());
    }
}
