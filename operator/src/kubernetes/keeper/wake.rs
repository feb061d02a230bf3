//! Wakes a keeper when somebody changed an object of its cluster.

use std::sync::{Mutex, PoisonError};

use kube::api::ObjectMeta;
use tokio::sync::Notify;

/// Wakes a keeper.
#[derive(Debug, Default)]
pub(in crate::kubernetes) struct Wake {
    notify: Notify,
    touched: Mutex<Vec<Touched>>,
}

/// A changed object of the cluster; the writer may be the operator itself.
#[derive(Clone, Debug)]
pub(super) struct Touched {
    pub(super) kind: &'static str,
    /// `None`: all objects of the kind.
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    pub(super) generation: Option<i64>,
    pub(super) deleted: bool,
}

/// The most changes recorded between two passes; later ones only wake the keeper.
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

    /// Drops all knowledge of the objects of a kind.
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

    /// Waits for a change.
    pub(super) async fn woken(&self) {
        self.notify.notified().await;
    }
}
