//! What is known of the statuses of a cluster's topics: what they say, what the controller refused, and when they were last written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use kube::api::ObjectMeta;
use tokio::sync::Notify;
use weir_crds::{Topic, TopicStatus};

use crate::controller::Refusal;

/// Shared between the task that hears of topics and the one that writes their statuses.
#[derive(Clone, Debug, Default)]
pub(in crate::kubernetes) struct Book {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    pages: Mutex<BTreeMap<String, Page>>,
    /// Resources that went, and that the controller has not let go.
    deletions: Mutex<BTreeMap<String, Deletion>>,
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
    /// Why the controller does not take the resource as it is.
    pub(super) refusal: Option<Refusal>,
    pub(super) written_at: Option<Instant>,
}

impl Book {
    fn pages(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Page>> {
        self.shared.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deletions(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Deletion>> {
        self.shared.deletions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The resource was seen.
    pub(super) fn see(&self, topic: &Topic) {
        if let Some(name) = &topic.metadata.name {
            self.deletions().remove(name);
        }
        let mut pages = self.pages();
        let page = pages.entry(topic.metadata.name.clone().unwrap_or_default()).or_default();
        if page.uid != topic.metadata.uid {
            *page = Page::default();
        }
        page.uid.clone_from(&topic.metadata.uid);
        page.seen = topic.metadata.generation;
        page.status = topic.status.clone().unwrap_or_default();
    }

    /// The resource is gone. With these metadata it is made again, if its topic may not go.
    pub(super) fn forget(&self, name: &str, metadata: &ObjectMeta) {
        let deletion = Deletion {
            metadata: metadata.clone(),
            refused: false,
        };
        self.deletions().insert(name.to_owned(), deletion);
        self.pages().remove(name);
        self.changed();
    }

    /// The controller has let the topic of a resource that is gone go, or not.
    pub(super) fn answered_deletion(&self, name: &str, refused: bool) {
        let mut deletions = self.deletions();
        match deletions.get_mut(name) {
            Some(deletion) if refused => deletion.refused = true,
            _ => drop(deletions.remove(name)),
        }
        drop(deletions);
        self.changed();
    }

    /// The deletion of a resource that is gone, if it was seen to go.
    pub(super) fn deletion(&self, name: &str) -> Option<Deletion> {
        self.deletions().get(name).cloned()
    }

    /// The controller took this generation of the resource up.
    pub(super) fn accepted(&self, name: &str, generation: Option<i64>) {
        if let Some(page) = self.pages().get_mut(name) {
            page.judged = generation;
            page.refusal = None;
        }
        self.changed();
    }

    /// The controller refuses this generation of the resource.
    pub(super) fn refused(&self, name: &str, generation: Option<i64>, refusal: &Refusal) {
        if let Some(page) = self.pages().get_mut(name).filter(|page| page.seen == generation) {
            page.judged = generation;
            page.refusal = Some(refusal.clone());
        }
        self.changed();
    }

    /// A status was written.
    pub(super) fn written(&self, name: &str, status: &TopicStatus) {
        if let Some(page) = self.pages().get_mut(name) {
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

    /// All pages, by the resource's name.
    pub(super) fn all(&self) -> BTreeMap<String, Page> {
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
                "apiVersion": weir_crds::API_VERSION, "kind": "Topic", "metadata": {"name": "t", "uid": uid, "generation": generation},
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
        let judged = |book: &Book| book.all().remove("t").map(|page| (page.judged, page.refusal.is_some()));
        book.see(&topic("a", 1));
        assert_eq!(judged(&book), Some((None, false)));
        book.accepted("t", Some(1));
        book.see(&topic("a", 2));
        assert_eq!(judged(&book), Some((Some(1), false)), "not heard of yet");
        book.refused("t", Some(1), &refusal);
        assert_eq!(judged(&book), Some((Some(1), false)), "a refusal of what is not any more");
        book.refused("t", Some(2), &refusal);
        assert_eq!(judged(&book), Some((Some(2), true)));
        book.accepted("t", Some(3));
        assert_eq!(judged(&book), Some((Some(3), false)));
        book.see(&topic("b", 1));
        assert_eq!(judged(&book), Some((None, false)), "another resource of that name");
    }
}
