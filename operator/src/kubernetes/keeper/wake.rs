//! Wakes a keeper when somebody changed an object of its cluster.

use std::collections::BTreeSet;
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

impl Touched {
    fn all_of(kind: &'static str) -> Self {
        Self { kind, name: None, version: None, generation: None, deleted: true }
    }
}

/// The most changes recorded between two passes. Beyond that all objects of the kinds that changed
/// count as changed.
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
        self.put(Touched::all_of(kind));
    }

    fn put(&self, object: Touched) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.push(object);
        if touched.len() > TOUCHED_MAX {
            let kinds: BTreeSet<_> = touched.iter().map(|touched| touched.kind).collect();
            *touched = kinds.into_iter().map(Touched::all_of).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_changes_than_are_recorded_are_changes_of_whole_kinds() {
        let wake = Wake::default();
        let named =
            |index: usize| ObjectMeta { name: Some(index.to_string()), ..ObjectMeta::default() };
        wake.touched("Service", &named(0), false);
        for index in 0..TOUCHED_MAX {
            wake.touched("Pod", &named(index), false);
        }
        wake.touched("ConfigMap", &named(1), true);
        let touched: Vec<_> =
            wake.take().into_iter().map(|touched| (touched.kind, touched.name)).collect();
        let expected = [("Pod", None), ("Service", None), ("ConfigMap", Some("1".to_owned()))];
        assert_eq!(touched, expected);
    }
}
