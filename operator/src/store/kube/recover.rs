//! The tables of a cluster that has lost them, made anew.

use std::collections::BTreeSet;

use weir_crds::Topic;

use super::{KubeStore, read};
use crate::controller::state::{Change, State};
use crate::store::{Store, StoreError};

impl KubeStore {
    /// The cluster's topics that have a resource, and the names of those that are none of its
    /// topics: what tables that are made anew have to agree with.
    ///
    /// # Errors
    /// When they cannot be listed, and [`StoreError::Taken`] when a table is that of another
    /// cluster.
    pub async fn written(&mut self) -> Result<(Vec<Topic>, BTreeSet<String>), StoreError> {
        // What there is of tables is written over: who died while it made them has left some.
        self.versions.clear();
        for (part, table) in self.parts().await? {
            self.versions.insert(part, table.metadata.resource_version.unwrap_or_default());
        }
        let home = self.clusters.namespace().unwrap_or_default().to_owned();
        let listed = self.list_topics(&home).await?;
        let mut taken: BTreeSet<String> =
            listed.iter().filter_map(|topic| topic.metadata.name.clone()).collect();
        let mut topics = Vec::new();
        for (topic, seen) in read::written(&self.cluster, &home, listed) {
            taken.remove(topic.metadata.name.as_deref().unwrap_or_default());
            self.cache.observe_topic(&seen);
            topics.push(topic);
        }
        Ok((topics, taken))
    }

    /// Makes the tables of a state: topics first, the registry last, without which there are none.
    /// What users wrote of topics stays as it is, but for the id.
    ///
    /// # Errors
    /// When it cannot be written: it is to be made anew from [`Self::written`] on.
    pub async fn recover(&mut self, state: &State, changes: &[Change]) -> Result<(), StoreError> {
        if !(self.leads)().await {
            return Err(StoreError::NotLeader);
        }
        self.committed = Some(state.clone());
        self.commit(state, changes).await
    }
}
