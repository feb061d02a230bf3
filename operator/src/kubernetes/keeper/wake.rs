//! What wakes a keeper: objects of its cluster that somebody changed.

use std::sync::{Mutex, PoisonError};

use kube::api::ObjectMeta;
use tokio::sync::Notify;

/// Wakes a keeper.
#[derive(Debug, Default)]
pub(in crate::kubernetes) struct Wake {
    notify: Notify,
    touched: Mutex<Vec<Touched>>,
}

/// An object of the cluster that somebody changed, perhaps the operator itself.
#[derive(Clone, Debug)]
pub(super) struct Touched {
    pub(super) kind: &'static str,
    /// `None`: all of the kind.
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    pub(super) generation: Option<i64>,
    pub(super) deleted: bool,
}

/// Objects that may be noted before the keeper comes to look: beyond that it only knows that
/// something happened.
const TOUCHED_MAX: usize = 4096;

impl Wake {
    pub(in crate::kubernetes) fn touched(
        &self,
        kind: &'static str,
        metadata: &ObjectMeta,
        deleted: bool,
    ) {
        self.put(Touched {
            kind,
            name: metadata.name.clone(),
            version: metadata.resource_version.clone(),
            generation: metadata.generation,
            deleted,
        });
    }

    /// Nothing is known any more of the objects of a kind.
    pub(in crate::kubernetes) fn all_of(&self, kind: &'static str) {
        self.put(Touched { kind, name: None, version: None, generation: None, deleted: true });
    }

    fn put(&self, object: Touched) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        if touched.len() < TOUCHED_MAX {
            touched.push(object);
        }
        drop(touched);
        self.notify.notify_one();
    }

    pub(super) fn take(&self) -> Vec<Touched> {
        std::mem::take(&mut self.touched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until something has happened.
    pub(super) async fn woken(&self) {
        self.notify.notified().await;
    }
}
