//! What is known of the statuses of a cluster's topics: what they say, what the controller refused, and when they were last written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use kube::api::ObjectMeta;
use tokio::sync::Notify;
use weir_crds::{Topic, TopicStatus};

use super::super::namespaces::Verdict;
use crate::controller::{Key, Refusal};

/// Shared between the task that hears of topics and the one that writes their statuses.
#[derive(Clone, Debug, Default)]
pub(in crate::kubernetes) struct Book {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    pages: Mutex<BTreeMap<Key, Page>>,
    /// Resources that went, and that the controller has not let go.
    deletions: Mutex<BTreeMap<Key, Deletion>>,
    changed: Notify,
}

/// The deletion of a resource.
#[derive(Clone, Debug, Default)]
pub(super) struct Deletion {
    /// What the resource was last.
    pub(super) metadata: ObjectMeta,
    /// The controller refuses it. Until it has said so, it may still let the topic go.
    pub(super) refused: bool,
}

/// What is known of one topic's resource.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    pub(super) uid: Option<String>,
    /// The generation that was seen last.
    seen: Option<i64>,
    /// The generation that the controller has taken up, or refused: of that the status speaks. None while it has said nothing.
    pub(super) judged: Option<i64>,
    /// What the status says, as far as is known.
    pub(super) status: TopicStatus,
    /// Whether the cluster takes resources of this one's namespace; `None` where that is its own.
    pub(super) allowed: Option<Verdict>,
    /// Why the controller does not take the resource as it is.
    pub(super) refusal: Option<Refusal>,
    pub(super) written_at: Option<Instant>,
}

impl Book {
    fn pages(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Page>> {
        self.shared.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deletions(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Deletion>> {
        self.shared.deletions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The resource was seen.
    pub(super) fn see(&self, topic: &Topic) {
        self.deletions().remove(&Key::of(&topic.metadata));
        let mut pages = self.pages();
        let page = pages.entry(Key::of(&topic.metadata)).or_default();
        if page.uid != topic.metadata.uid {
            *page = Page::default();
        }
        page.uid.clone_from(&topic.metadata.uid);
        page.seen = topic.metadata.generation;
        page.status = topic.status.clone().unwrap_or_default();
    }

    /// Its cluster, which is in another namespace, says whether it takes resources of this one.
    pub(super) fn allowed(&self, key: &Key, verdict: &Verdict) {
        if let Some(page) = self.pages().get_mut(key).filter(|_| *verdict != Verdict::Pending) {
            if *verdict != Verdict::Allowed {
                (page.judged, page.refusal) = (page.seen, None);
            }
            if page.allowed.as_ref() != Some(verdict) {
                page.allowed = Some(verdict.clone());
                self.changed();
            }
        }
    }

    /// The resource is gone. With these metadata it is made again, if its topic may not go.
    pub(super) fn forget(&self, key: &Key, metadata: &ObjectMeta) {
        let deletion = Deletion {
            metadata: metadata.clone(),
            refused: false,
        };
        self.deletions().insert(key.clone(), deletion);
        self.pages().remove(key);
        self.changed();
    }

    /// The controller has let the topic of a resource that is gone go, or not.
    pub(super) fn answered_deletion(&self, key: &Key, refused: bool) {
        let mut deletions = self.deletions();
        match deletions.get_mut(key) {
            Some(deletion) if refused => deletion.refused = true,
            _ => drop(deletions.remove(key)),
        }
        drop(deletions);
        self.changed();
    }

    /// The deletion of a resource that is gone, if it was seen to go.
    pub(super) fn deletion(&self, key: &Key) -> Option<Deletion> {
        self.deletions().get(key).cloned()
    }

    /// The controller took this generation of the resource up.
    pub(super) fn accepted(&self, key: &Key, generation: Option<i64>) {
        if let Some(page) = self.pages().get_mut(key) {
            page.judged = generation;
            page.refusal = None;
        }
        self.changed();
    }

    /// The controller refuses this generation of the resource.
    pub(super) fn refused(&self, key: &Key, generation: Option<i64>, refusal: &Refusal) {
        if let Some(page) = self.pages().get_mut(key).filter(|page| page.seen == generation) {
            page.judged = generation;
            page.refusal = Some(refusal.clone());
        }
        self.changed();
    }

    /// The resources that the controller refuses as they are.
    pub(super) fn refused_ones(&self) -> Vec<Key> {
        let pages = self.pages();
        let refused = pages.iter().filter(|(_, page)| page.refusal.is_some());
        refused.map(|(key, _)| key.clone()).collect()
    }

    /// A status was written.
    pub(super) fn written(&self, key: &Key, status: &TopicStatus) {
        if let Some(page) = self.pages().get_mut(key) {
            page.status = status.clone();
            page.written_at = Some(Instant::now());
        }
    }

    /// Something changed that may change a status.
    pub(super) fn changed(&self) {
        self.shared.changed.notify_one();
    }

    /// Waits for [`Self::changed`].
    pub(super) async fn wait(&self) {
        self.shared.changed.notified().await;
    }

    /// All pages, by where the resources lie.
    pub(super) fn all(&self) -> BTreeMap<Key, Page> {
        self.pages().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_speaks_of_what_the_controller_has_said_something_of() {
        let topic = |uid: &str, generation: i64| {
            let object = serde_json::json!({
                "apiVersion": weir_crds::API_VERSION, "kind": "Topic", "metadata": {"namespace": "n", "name": "t", "uid": uid, "generation": generation},
                "spec": {"clusterRef": {"name": "c"}},
            });
            serde_json::from_value::<Topic>(object).unwrap()
        };
        let refusal = Refusal {
            kind: crate::controller::Kind::Topic,
            name: "t".to_owned(),
            path: "spec".to_owned(),
            reason: "no".to_owned(),
        };
        let book = Book::default();
        let t = &Key::new(Some("n"), Some("t"));
        let judged = |book: &Book| book.all().remove(t).map(|page| (page.judged, page.refusal.is_some()));
        book.see(&topic("a", 1));
        assert_eq!(judged(&book), Some((None, false)));
        book.accepted(t, Some(1));
        book.see(&topic("a", 2));
        assert_eq!(judged(&book), Some((Some(1), false)), "not heard of yet");
        book.refused(t, Some(1), &refusal);
        assert_eq!(judged(&book), Some((Some(1), false)), "a refusal of what is not any more");
        book.refused(t, Some(2), &refusal);
        assert_eq!(judged(&book), Some((Some(2), true)));
        book.accepted(t, Some(3));
        assert_eq!(judged(&book), Some((Some(3), false)));
        book.see(&topic("b", 1));
        assert_eq!(judged(&book), Some((None, false)), "another resource of that name");
    }
}
