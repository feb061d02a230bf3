//! Writes the resources that users write too: only the fields that a decision changed.

use std::fmt::Debug;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use kube::Resource;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weir_crds::Topic;

use super::calls::{answered, resource};
use super::{CLUSTER_LABEL, KubeStore, merge};
use crate::controller::state::{Change, State, TakenUp, Topic as TopicState};
use crate::controller::{Key, Kind, TOPIC_ID_ANNOTATION};
use crate::store::StoreError;
use crate::store::touched::Touched;

/// The most resources written at the same time.
const TOPICS_AT_ONCE: usize = 32;

/// The most attempts at a patch that applies to one version of an object. After that the store
/// reads everything again, as after any other conflict.
const ATTEMPTS_MAX: usize = 8;

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
            writes.push(self.patch_cluster(state).boxed());
        }
        for change in changes {
            if let Change::RemoveTopic(_, key) = change
                && state.topic_by_resource(key).is_none()
            {
                writes.push(self.remove_topic(key, state).boxed());
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

    async fn patch_cluster(&self, state: &State) -> Result<(), StoreError> {
        let wanted = &state.cluster.resource;
        let taken_up = state.objects.cluster.as_ref().and_then(|object| object.spec.as_deref());
        let key = Key::new(self.clusters.namespace(), Some(&self.cluster));
        for _ in 0..ATTEMPTS_MAX {
            let Some(there) = self.cache.cluster() else { return Ok(()) };
            let (before, there_spec) = (taken_up.unwrap_or(&there.spec), json!(there.spec));
            let Some(spec) = merge::owed(&json!(before), &json!(wanted.spec), &there_spec) else {
                return Ok(());
            };
            let patch = json!({"metadata": {"uid": self.owner.uid}, "spec": spec});
            let observed = (there.metadata.resource_version.as_deref(), &there_spec);
            let (cluster, is_written) =
                patched(&self.clusters, Kind::KafkaCluster, &key, observed, patch).await?;
            self.cache.observe_cluster(cluster);
            if is_written {
                return Ok(());
            }
        }
        Err(StoreError::Conflict)
    }

    fn topics(&self, namespace: &str) -> Api<Topic> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn write_topic(&self, topic: &TopicState, state: &State) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS_MAX {
            if self.try_to_write_topic(topic, state).await? {
                return Ok(());
            }
        }
        Err(StoreError::Conflict)
    }

    /// Returns false if the object is another than the one observed last.
    async fn try_to_write_topic(
        &self,
        topic: &TopicState,
        state: &State,
    ) -> Result<bool, StoreError> {
        let (id, key, wanted) = (topic.id, &topic.key, &topic.resource);
        let taken_up = state.objects.topics.get(key).filter(|object| object.spec.is_some());
        let there = self.cache.topic(key);
        // The object that the state has taken up is gone, and another may have its name. The watch
        // reports that next. If the topic is retained, its resource is created again.
        if taken_up.is_some_and(|object| {
            there.as_ref().and_then(|there| there.uid.as_ref()) != Some(&object.uid)
        }) {
            return Ok(true);
        }
        let Some(there) = there else {
            // A user created a topic of another namespace there, and the store does not create it.
            // The status task does if the topic is retained (`topics::status`). That may fail,
            // since the namespace may be gone.
            if !is_elsewhere(key, state) {
                self.create_topic(topic, state).await?;
            }
            return Ok(true);
        };
        let before = self.committed.as_ref().and_then(|state| state.topics.get(&id));
        let before = before.map_or(&there.spec, |topic| &topic.resource.spec);
        let before = taken_up.and_then(|object| object.spec.as_deref()).unwrap_or(before);
        let there_spec = json!(there.spec);
        let mut spec = merge::owed(&json!(before), &json!(wanted.spec), &there_spec);
        // Only the user writes the deletion policy. If the controller retains a topic, its shard
        // says so.
        if let Some(Value::Object(fields)) = &mut spec {
            fields.remove("deletionPolicy");
        }
        let spec = spec.filter(|spec| *spec != json!({}));
        if spec.is_none() && there.id == Some(id) {
            return Ok(true);
        }
        // The uid excludes an object that was created again under this name. Fields not named here
        // stay as they are.
        let mut patch = json!({"metadata": {"uid": there.uid}});
        if there.id != Some(id) {
            patch["metadata"]["annotations"] = json!({TOPIC_ID_ANNOTATION: id.0.to_string()});
        }
        if let Some(spec) = spec {
            patch["spec"] = spec;
        }
        let observed = (there.version.as_deref(), &there_spec);
        let topics = self.topics(&key.namespace);
        match patched(&topics, Kind::Topic, key, observed, patch).await {
            Ok((topic, is_written)) => {
                self.cache.observe_topic(&topic);
                Ok(is_written)
            }
            // A user deleted it; the watch reports that next. A client's new topic gets an object
            // of its own instead.
            Err(StoreError::Gone(_)) => {
                self.cache.deleted_topic(key);
                Ok(taken_up.is_some())
            }
            Err(error) => Err(error),
        }
    }

    /// Tells the state which versions of the objects that the changes touch contain it.
    pub(super) fn settle_objects(&self, state: &mut State, changes: &[Change]) {
        let touched = Touched::by(changes);
        if touched.cluster_resource
            && let Some(there) = self.cache.cluster()
            && let Some(there) = TakenUp::of(&there.metadata, &there.spec)
        {
            let (before, ours) = (state.objects.cluster.as_ref(), &state.cluster.resource.spec);
            state.objects.cluster = Some(TakenUp::settled(before, there, ours));
        }
        for topic in touched.topics.iter().filter_map(|id| state.topics.get(id)).cloned() {
            if let Some(there) = self.cache.topic(&topic.key)
                && let Some(there) = TakenUp::of(&there.metadata(), &there.spec)
            {
                let before = state.objects.topics.get(&topic.key);
                let settled = TakenUp::settled(before, there, &topic.resource.spec);
                state.objects.topics.insert(topic.key.clone(), settled);
            }
        }
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

    async fn remove_topic(&self, key: &Key, state: &State) -> Result<(), StoreError> {
        let Some(seen) = self.cache.topic(key) else { return Ok(()) };
        // Another object may have the name by now, which the controller has not been offered.
        let taken_up = state.objects.topics.get(key).map(|object| object.uid.clone());
        if taken_up.is_some() && taken_up != seen.uid {
            return Ok(());
        }
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

/// Patches an object of users, which was `observed` with this `resourceVersion` and spec. A patch
/// that removes an object within the spec applies to that version only: users may have written into
/// it since. Returns the object as it is now, and whether the patch was written.
async fn patched<K>(
    api: &Api<K>,
    kind: Kind,
    key: &Key,
    observed: (Option<&str>, &Value),
    mut patch: Value,
) -> Result<(K, bool), StoreError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let (version, spec) = observed;
    let removes = patch.get("spec").is_some_and(|patch| merge::removes_an_object(patch, spec));
    let version = version.filter(|_| removes);
    if let Some(version) = version {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    let uid = patch["metadata"]["uid"].as_str().map(str::to_owned);
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    match resource(kind, "patch", key, api.patch(&key.name, &params, &patch)).await {
        Ok(written) => Ok((written, true)),
        Err(StoreError::Conflict) if version.is_some() => {
            let read = answered("get", &key.name, api.get(&key.name)).await?;
            if read.meta().uid == uid { Ok((read, false)) } else { Err(StoreError::Conflict) }
        }
        Err(error) => Err(error),
    }
}

/// Whether a resource is in another namespace than its cluster.
fn is_elsewhere(key: &Key, state: &State) -> bool {
    key.namespace != state.cluster.namespace()
}
