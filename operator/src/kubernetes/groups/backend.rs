//! The ConsumerGroups of one cluster in the Kubernetes API, and the workloads that they scale.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::autoscaling::v1::Scale;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions,
};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use serde_json::json;
use tokio::sync::watch;
use weir_crds::{ClusterRef, ConsumerGroup, ConsumerGroupSpec, ConsumerGroupStatus, TargetRef};

use super::super::context::Context;
use super::super::events::publish;
use super::super::metrics::{GroupFigures, Metrics};
use super::super::objects::MANAGER;
use super::status::{put_status, report_unreconciled};
use crate::controller::state::State;
use crate::controller::{Key, resource_name};
use crate::groups::backend::{GroupBackend, Named};
use crate::groups::mirror::REFLECTED_LABEL;
use crate::groups::reconcile::{Seen, Workload};
use crate::store::kube::CLUSTER_LABEL;
use crate::verdict::{NOT_ALLOWED, NOT_READABLE, Verdict};

/// How often groups get the status that the cluster does not take them.
const TELL_EVERY: Duration = Duration::from_secs(3);

/// The groups of one cluster in the Kubernetes API.
pub(super) struct KubeBackend {
    context: Context,
    cluster: Key,
    committed: watch::Receiver<State>,
    changed: tokio::sync::Mutex<watch::Receiver<u64>>,
    /// Kinds with the scale subresource, once it has been found.
    scalable: Mutex<BTreeMap<(String, String), ApiResource>>,
}

impl Drop for KubeBackend {
    fn drop(&mut self) {
        let key = (self.cluster.namespace.clone(), self.cluster.name.clone());
        self.context.figures.groups().remove(&key);
    }
}

/// Why a workload cannot be scaled: a reason and a sentence.
type Trouble = (&'static str, String);

impl KubeBackend {
    pub(super) fn new(context: Context, cluster: Key, committed: watch::Receiver<State>) -> Self {
        Self {
            changed: tokio::sync::Mutex::new(context.groups.changes()),
            context,
            cluster,
            committed,
            scalable: Mutex::default(),
        }
    }

    /// The ConsumerGroups that refer to the cluster, each with the verdict on its namespace.
    fn judged(&self) -> impl Iterator<Item = (Arc<ConsumerGroup>, Verdict)> {
        let cluster = Arc::clone(&self.committed.borrow().cluster.resource);
        let groups = self.context.groups.of_cluster(&self.cluster).into_iter();
        groups.map(move |group| {
            let verdict = self.context.namespaces.verdict(&cluster, namespace_of(&group));
            (group, verdict)
        })
    }

    /// Writes a status to groups whose namespace the cluster does not allow, until it is dropped.
    pub(super) async fn keep_telling(&self) -> Infallible {
        let mut round = tokio::time::interval(TELL_EVERY);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        round.tick().await;
        loop {
            round.tick().await;
            self.report_not_allowed().await;
        }
    }

    async fn report_not_allowed(&self) {
        for (group, verdict) in self.judged().collect::<Vec<_>>() {
            match verdict {
                Verdict::Allowed | Verdict::Pending => {}
                Verdict::NotAllowed(why) => {
                    report_unreconciled(&self.context, &group, Seen::Nothing(NOT_ALLOWED, why))
                        .await
                }
                Verdict::Unknown(why) => {
                    report_unreconciled(&self.context, &group, Seen::Nothing(NOT_READABLE, why))
                        .await
                }
            }
        }
    }

    fn groups_api(&self, namespace: &str) -> Api<ConsumerGroup> {
        Api::namespaced(self.context.client.clone(), namespace)
    }

    /// The API of a target's kind in a namespace, if it can be scaled.
    async fn target(
        &self,
        target: &TargetRef,
        namespace: &str,
    ) -> Result<Api<DynamicObject>, Trouble> {
        let key = (target.api_version.clone(), target.kind.clone());
        let known = self.scalable.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let resource = match known {
            Some(resource) => resource,
            None => {
                let resource = self.discover(target).await?;
                self.scalable
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(key, resource.clone());
                resource
            }
        };
        Ok(Api::namespaced_with(self.context.client.clone(), namespace, &resource))
    }

    async fn discover(&self, target: &TargetRef) -> Result<ApiResource, Trouble> {
        let (group, version) =
            target.api_version.split_once('/').unwrap_or(("", &target.api_version));
        let found =
            pinned_kind(&self.context.client, &GroupVersionKind::gvk(group, version, &target.kind))
                .await;
        let (resource, capabilities) = found.map_err(|error| {
            let message = format!(
                "there is no kind {:?} in {:?}: see spec.scaling.targetRef ({error})",
                target.kind, target.api_version
            );
            ("UnknownKind", message)
        })?;
        let scales = capabilities.subresources.iter().any(|(sub, _)| sub.plural == "scale");
        if !scales || capabilities.scope != Scope::Namespaced {
            let message = format!(
                "a {} of {} cannot be scaled: it has no scale subresource",
                target.kind, target.api_version
            );
            return Err(("NotScalable", message));
        }
        Ok(resource)
    }
}

/// Why the scale subresource of a target could not be read or written.
fn trouble(target: &TargetRef, namespace: &str, error: &kube::Error) -> Trouble {
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            let message = format!(
                "there is no {} {:?} in the namespace {namespace:?}: make it, or see spec.scaling.targetRef",
                target.kind, target.name
            );
            ("TargetNotFound", message)
        }
        kube::Error::Api(status) if status.code == 403 => {
            let message = format!(
                "the operator may not scale a {}: grant it get, update and patch on its scale subresource (rbac.scaleTargets in the chart)",
                target.kind
            );
            ("Forbidden", message)
        }
        error => ("TargetUnavailable", format!("{} {:?}: {error}", target.kind, target.name)),
    }
}

/// Whether the pods of a workload are brokers of any cluster, or the operator. A user who may write
/// ConsumerGroups must not scale these.
fn is_weirs_own(scale: &Scale) -> bool {
    let selector =
        scale.status.as_ref().and_then(|status| status.selector.as_deref()).unwrap_or_default();
    let mut pairs = selector.split(',').filter_map(|pair| pair.split_once('='));
    pairs.any(|(label, value)| {
        label == CLUSTER_LABEL || (label, value) == ("app.kubernetes.io/name", MANAGER)
    })
}

fn namespace_of(resource: &ConsumerGroup) -> &str {
    resource.metadata.namespace.as_deref().unwrap_or_default()
}

impl GroupBackend for KubeBackend {
    fn groups(&self) -> Vec<Arc<ConsumerGroup>> {
        let taken = self.judged().filter(|(_, verdict)| *verdict == Verdict::Allowed);
        taken.map(|(group, _)| group).collect()
    }

    fn knows_all(&self) -> bool {
        // A resource with an unknown verdict may own the group.
        self.context.groups.knows_all()
            && !self
                .judged()
                .any(|(_, verdict)| matches!(verdict, Verdict::Unknown(_) | Verdict::Pending))
    }

    fn take_deleted(&self) -> Vec<Arc<ConsumerGroup>> {
        let cluster = Arc::clone(&self.committed.borrow().cluster.resource);
        let is_followed = |group: &Arc<ConsumerGroup>| {
            self.context.namespaces.verdict(&cluster, namespace_of(group)) == Verdict::Allowed
        };
        let mut deleted = self.context.groups.take_deleted(&self.cluster);
        deleted.retain(is_followed);
        deleted
    }

    async fn changed(&self) {
        // The sender lives as long as the context.
        let _ = self.changed.lock().await.changed().await;
    }

    async fn write_status(
        &self,
        resource: &ConsumerGroup,
        status: &ConsumerGroupStatus,
    ) -> anyhow::Result<()> {
        Ok(put_status(&self.context, resource, status).await?)
    }

    async fn workload(&self, resource: &ConsumerGroup) -> Workload {
        let Some(scaling) = &resource.spec.scaling else { return Workload::None };
        let (target, namespace) = (&scaling.target_ref, namespace_of(resource));
        let found = match self.target(target, namespace).await {
            Ok(api) => api
                .get_scale(&target.name)
                .await
                .map_err(|error| trouble(target, namespace, &error)),
            Err(trouble) => Err(trouble),
        };
        match found {
            Ok(scale) if is_weirs_own(&scale) => {
                let message = format!(
                    "the pods of the {} {:?} are brokers or the operator itself: what a group scales are its consumers, see spec.scaling.targetRef",
                    target.kind, target.name
                );
                Workload::Trouble("NotScalable", message)
            }
            Ok(scale) => {
                Workload::Replicas(scale.spec.and_then(|spec| spec.replicas).unwrap_or_default())
            }
            Err((reason, message)) => Workload::Trouble(reason, message),
        }
    }

    async fn scale(&self, resource: &ConsumerGroup, replicas: i32) -> anyhow::Result<()> {
        let Some(scaling) = &resource.spec.scaling else { return Ok(()) };
        let (target, namespace) = (&scaling.target_ref, namespace_of(resource));
        let api = self
            .target(target, namespace)
            .await
            .map_err(|(_, message)| anyhow::anyhow!(message))?;
        Metrics::count(&self.context.figures.writes);
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        api.patch_scale(&target.name, &PatchParams::default(), &patch)
            .await
            .map_err(|error| anyhow::anyhow!(trouble(target, namespace, &error).1))?;
        let note = format!("scales {} {} to {replicas}", target.kind, target.name);
        let regarding = kube::Resource::object_ref(resource, &());
        publish(&self.context, &regarding, true, "Scale", &note, "Scale").await;
        Ok(())
    }

    async fn make(&self, group: &str) -> anyhow::Result<()> {
        let name = resource_name(group, |name| {
            self.context.groups.has(&Key::new(Some(&self.cluster.namespace), Some(name)))
        });
        let spec = ConsumerGroupSpec {
            cluster_ref: ClusterRef { name: self.cluster.name.clone(), namespace: None },
            group_id: Some(group.to_owned()).filter(|group| *group != name),
            ..ConsumerGroupSpec::default()
        };
        let mut resource = ConsumerGroup::new(&name, spec);
        resource.metadata.labels = Some([(REFLECTED_LABEL.to_owned(), "true".to_owned())].into());
        // It is deleted with its cluster.
        let owner = kube::Resource::owner_ref(&*self.committed.borrow().cluster.resource, &());
        resource.metadata.owner_references = owner.map(|owner| vec![owner]);
        Metrics::count(&self.context.figures.writes);
        self.groups_api(&self.cluster.namespace).create(&PostParams::default(), &resource).await?;
        Ok(())
    }

    async fn remove(&self, resource: &ConsumerGroup) -> anyhow::Result<()> {
        let ours = Preconditions { uid: resource.metadata.uid.clone(), resource_version: None };
        let how = DeleteParams::default().preconditions(ours);
        Metrics::count(&self.context.figures.writes);
        self.groups_api(namespace_of(resource))
            .delete(resource.metadata.name.as_deref().unwrap_or_default(), &how)
            .await?;
        Ok(())
    }

    fn show<'a>(
        &self,
        groups: impl Iterator<Item = (&'a Named, &'a ConsumerGroupStatus)>,
        all_looked_after: bool,
    ) {
        let figures = groups.filter_map(|((namespace, name), status)| {
            let lag = status.lag.as_ref()?;
            Some(GroupFigures {
                namespace: namespace.clone(),
                name: name.clone(),
                messages: lag.messages,
                seconds: lag.seconds,
                members: status.members.unwrap_or_default(),
                exceeded: status
                    .conditions
                    .iter()
                    .any(|one| one.type_ == "LagWithinPolicy" && one.status == "False"),
            })
        });
        let key = (self.cluster.namespace.clone(), self.cluster.name.clone());
        self.context.figures.groups().insert(key.clone(), figures.collect());
        if all_looked_after {
            self.context.figures.succeeded("ConsumerGroup", key);
        }
    }

    async fn may_act(&self) -> bool {
        (self.context.leads)().await
    }
}

#[cfg(test)]
mod tests;
