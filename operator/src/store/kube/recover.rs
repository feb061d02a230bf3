//! Creates the tables of a cluster that has lost them.

use std::collections::BTreeSet;

use weir_crds::Topic;

use super::{KubeStore, read};
use crate::controller::state::{Change, State};
use crate::store::{Store, StoreError};

/// What is left of a cluster that has lost its tables.
#[derive(Debug)]
pub struct Written {
    /// The cluster's topics with a resource.
    pub topics: Vec<Topic>,
    /// The names of resources that are not its topics.
    pub taken: BTreeSet<String>,
    /// The changes that make the SCRAM credentials, if their Secret is there.
    pub credentials: Option<Vec<Change>>,
}

impl KubeStore {
    /// Reads what new tables have to agree with.
    ///
    /// # Errors
    /// When they cannot be listed, and [`StoreError::Taken`] when a table belongs to another
    /// cluster.
    pub async fn written(&mut self) -> Result<Written, StoreError> {
        // Existing tables are overwritten: an operator that died during a recovery has left some.
        self.versions.clear();
        for (part, table) in self.parts().await? {
            self.versions.insert(part, table.metadata.resource_version.unwrap_or_default());
        }
        let credentials = self.read_credentials().await?;
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
        Ok(Written { topics, taken, credentials })
    }

    /// Writes the tables of a recovered state: topics first, the registry last. Without a registry
    /// no tables count. Users' resources of topics stay as they are, except for the id.
    ///
    /// # Errors
    /// When a write fails: start again from [`Self::written`].
    pub async fn recover(&mut self, state: &State, changes: &[Change]) -> Result<(), StoreError> {
        if !(self.leads)().await {
            return Err(StoreError::NotLeader);
        }
        self.committed = Some(state.clone());
        self.commit(state, changes).await
    }
}
