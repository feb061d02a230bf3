//! Writes the resources that users write too: only the fields that a decision changed.

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};
use weir_crds::{KafkaCluster, Topic};

use super::calls::resource;
use super::{CLUSTER_LABEL, KubeStore, merge};
use crate::controller::state::{Change, State, Topic as TopicState};
use crate::controller::{Key, Kind, TOPIC_ID_ANNOTATION};
use crate::store::StoreError;
use crate::store::touched::Touched;

/// The most resources written at the same time.
const TOPICS_AT_ONCE: usize = 32;

impl KubeStore {
    /// Writes the resources that the changes touch: topics that a client created or changed, and
    /// filled-in defaults.
    pub(super) async fn write_resources(
        &self,
        state: &State,
        touched: &Touched,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let mut writes: Vec<BoxFuture<'_, Result<(), StoreError>>> = Vec::new();
        if touched.cluster_resource {
            writes.push(self.patch_cluster(&state.cluster.resource).boxed());
        }
        for change in changes {
            if let Change::RemoveTopic(_, key) = change
                && state.topic_by_resource(key).is_none()
            {
                writes.push(self.remove_topic(key).boxed());
            }
        }
        for id in &touched.topics {
            if let Some(topic) = state.topics.get(id) {
                writes.push(self.write_topic(topic, state).boxed());
            }
        }
        // Waits for every answer. After a refusal the shell decides again and finds the other
        // writes done.
        let written: Vec<Result<(), StoreError>> =
            stream::iter(writes).buffer_unordered(TOPICS_AT_ONCE).collect().await;
        let mut refused = Vec::new();
        for result in written {
            match result {
                Ok(()) => {}
                Err(StoreError::Refused(more)) => refused.extend(more),
                Err(error) => return Err(error),
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(StoreError::Refused(refused)) }
    }

    async fn patch_cluster(&self, wanted: &KafkaCluster) -> Result<(), StoreError> {
        let Some(there) = self.cache.cluster() else { return Ok(()) };
        let before =
            self.committed.as_ref().map_or(&there.spec, |state| &state.cluster.resource.spec);
        let Some(spec) = merge::owed(&json!(before), &json!(wanted.spec), &json!(there.spec))
        else {
            return Ok(());
        };
        let patch = Patch::Merge(json!({"metadata": {"uid": self.owner.uid}, "spec": spec}));
        let params = PatchParams::default();
        let written = self.clusters.patch(&self.cluster, &params, &patch);
        let key = Key::new(self.clusters.namespace(), Some(&self.cluster));
        self.cache.observe_cluster(resource(Kind::KafkaCluster, "patch", &key, written).await?);
        Ok(())
    }

    fn topics(&self, namespace: &str) -> Api<Topic> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn write_topic(&self, topic: &TopicState, state: &State) -> Result<(), StoreError> {
        let (id, key, wanted) = (topic.id, &topic.key, &topic.resource);
        let Some(there) = self.cache.topic(key) else {
            // A user created a topic of another namespace there, and the store does not create it.
            // The status task does if the topic is retained (`topics::status`). That may fail,
            // since the namespace may be gone.
            return if is_elsewhere(key, state) {
                Ok(())
            } else {
                self.create_topic(topic, state).await
            };
        };
        let before = self.committed.as_ref().and_then(|state| state.topics.get(&id));
        let before = before.map_or(&there.spec, |topic| &topic.resource.spec);
        let mut spec = merge::owed(&json!(before), &json!(wanted.spec), &json!(there.spec));
        // Only the user writes the deletion policy. If the controller retains a topic, its shard
        // says so.
        if let Some(Value::Object(fields)) = &mut spec {
            fields.remove("deletionPolicy");
        }
        let spec = spec.filter(|spec| *spec != json!({}));
        let annotations =
            (there.id != Some(id)).then(|| json!({TOPIC_ID_ANNOTATION: id.0.to_string()}));
        if spec.is_none() && annotations.is_none() {
            return Ok(());
        }
        // The uid excludes an object that was created again under this name. Fields not named here
        // stay as they are.
        let patch = match (spec, annotations) {
            (Some(spec), Some(annotations)) => {
                json!({"metadata": {"uid": there.uid, "annotations": annotations}, "spec": spec})
            }
            (Some(spec), None) => json!({"metadata": {"uid": there.uid}, "spec": spec}),
            (None, annotations) => {
                json!({"metadata": {"uid": there.uid, "annotations": annotations}})
            }
        };
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let topics = self.topics(&key.namespace);
        match resource(Kind::Topic, "patch", key, topics.patch(&key.name, &params, &patch)).await {
            Ok(written) => self.cache.observe_topic(&written),
            // A user deleted it; the watch reports that next.
            Err(StoreError::Gone(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn create_topic(&self, wanted: &TopicState, state: &State) -> Result<(), StoreError> {
        let key = &wanted.key;
        let mut topic = Topic::new(&key.name, wanted.resource.spec.clone());
        topic.metadata = ObjectMeta {
            name: Some(key.name.clone()),
            labels: Some([(CLUSTER_LABEL.to_owned(), self.cluster.clone())].into()),
            annotations: Some([(TOPIC_ID_ANNOTATION.to_owned(), wanted.id.0.to_string())].into()),
            owner_references: self.owners(state),
            ..ObjectMeta::default()
        };
        let params = PostParams::default();
        let topics = self.topics(&key.namespace);
        let created = resource(Kind::Topic, "create", key, topics.create(&params, &topic)).await?;
        self.cache.observe_topic(&created);
        Ok(())
    }

    async fn remove_topic(&self, key: &Key) -> Result<(), StoreError> {
        let Some(seen) = self.cache.topic(key) else { return Ok(()) };
        let params = DeleteParams::default()
            .preconditions(Preconditions { uid: seen.uid.clone(), resource_version: None });
        let topics = self.topics(&key.namespace);
        match resource(Kind::Topic, "delete", key, topics.delete(&key.name, &params)).await {
            // It is gone, or another object has the name by now; the watch reports that next.
            Ok(_) | Err(StoreError::Gone(_) | StoreError::Conflict) => {}
            Err(error) => return Err(error),
        }
        self.cache.deleted_topic(key);
        Ok(())
    }
}

/// Whether a resource is in another namespace than its cluster.
fn is_elsewhere(key: &Key, state: &State) -> bool {
    key.namespace != state.cluster.namespace()
}
