//! The service for the command line: `apply`, `delete`, `get` and `status`.
//!
//! Resources are validated as the API server of Kubernetes would, then given to the controller as
//! events. Decides nothing.

use serde_json::Value;
use tonic::{Request, Response, Status};

use super::rpc::local_server::{self, Local};
use super::rpc::{
    Applied, ApplyRequest, ApplyResponse, BrokerStatus, DeleteRequest, DeleteResponse, GetRequest,
    GetResponse, StatusRequest, StatusResponse,
};
use std::sync::Arc;

use super::groups::LocalGroups;
use super::view;
use crate::admission::{self, Kind, Violation};
use crate::controller::state::State;
use crate::controller::{self, Event, Reply, Resource, summary};
use crate::shell::{Controller, Unavailable};

/// The largest message; an `apply` may have many resources.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// The service for the command line.
#[derive(Debug)]
pub(super) struct LocalServer {
    controller: Controller,
    groups: Arc<LocalGroups>,
}

/// A validated resource, by its receiver.
enum Checked {
    Controlled(Resource),
    Group(Box<weir_crds::ConsumerGroup>),
}

/// All violations of one resource, in kubectl's form.
pub(super) fn refusal(kind: Kind, name: &str, violations: &[Violation]) -> String {
    let all: Vec<_> = violations.iter().map(|violation| format!("\n  * {violation}")).collect();
    format!("{kind} {name:?} is invalid:{}", all.concat())
}

/// The messages of several resources, one after another.
fn all_of(wrong: Vec<String>) -> Status {
    Status::invalid_argument(wrong.join("\n"))
}

fn unavailable(error: Unavailable) -> Status {
    Status::unavailable(error.to_string())
}

impl LocalServer {
    /// The service that tonic serves.
    pub(super) fn service(
        controller: Controller,
        groups: Arc<LocalGroups>,
    ) -> local_server::LocalServer<Self> {
        local_server::LocalServer::new(Self { controller, groups })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX)
    }

    /// Validates an object against its kind's definition and the object that it would replace.
    async fn admit(&self, text: &str) -> Result<(Kind, String, Checked), Status> {
        let invalid = |message: String| Status::invalid_argument(message);
        let object: Value = serde_json::from_str(text)
            .map_err(|error| invalid(format!("not a resource: {error}")))?;
        let (kind, name) =
            admission::identify(&object).map_err(|violation| invalid(violation.to_string()))?;
        if !matches!(kind, Kind::Controlled(controller::Kind::KafkaCluster)) {
            let home = self
                .controller
                .query(|state| state.cluster.namespace().to_owned())
                .await
                .map_err(unavailable)?;
            in_namespace(&object, &home)
                .map_err(|violation| invalid(refusal(kind, &name, &[violation])))?;
        }
        let old = self.find(kind, &name).await?;
        let admitted = admission::admit(kind, &object, old.as_ref())
            .map_err(|violations| invalid(refusal(kind, &name, &violations)))?;
        let failed = |error: serde_json::Error| invalid(format!("{kind} {name:?}: {error}"));
        let resource = match kind {
            Kind::ConsumerGroup => {
                let group: weir_crds::ConsumerGroup =
                    serde_json::from_value(admitted).map_err(failed)?;
                let cluster = self
                    .controller
                    .query(|state| state.cluster.name().to_owned())
                    .await
                    .map_err(unavailable)?;
                return Ok((kind, name, Checked::Group(Box::new(of_cluster(group, &cluster)?))));
            }
            Kind::Controlled(controller::Kind::KafkaCluster) => {
                let mut cluster: weir_crds::KafkaCluster =
                    serde_json::from_value(admitted).map_err(failed)?;
                // No API server keeps it here; its YAML may come from one.
                cluster.metadata.resource_version = None;
                Resource::Cluster(Box::new(cluster))
            }
            Kind::Controlled(controller::Kind::Topic) => {
                let mut topic: weir_crds::Topic =
                    serde_json::from_value(admitted).map_err(failed)?;
                // No API server has set these; a user applies what `get` printed.
                (topic.metadata.uid, topic.metadata.resource_version) = (None, None);
                Resource::Topic(Box::new(topic))
            }
        };
        Ok((kind, name, Checked::Controlled(resource)))
    }

    async fn find(&self, kind: Kind, name: &str) -> Result<Option<Value>, Status> {
        let kind = match kind {
            Kind::ConsumerGroup => {
                return Ok(self
                    .groups
                    .get(name)
                    .and_then(|group| serde_json::to_value(&*group).ok()));
            }
            Kind::Controlled(kind) => kind,
        };
        let name = name.to_owned();
        self.controller
            .query(move |state| view::resource(state, kind, &name))
            .await
            .map_err(unavailable)
    }

    async fn change(&self, event: Event) -> Result<Vec<&'static str>, Status> {
        match self.controller.ask(event).await.map_err(unavailable)?.reply {
            Reply::Applied(verbs) => Ok(verbs),
            Reply::Invalid(refusal) => Err(Status::invalid_argument(refusal.to_string())),
            Reply::AllInvalid(refusals) => {
                Err(all_of(refusals.iter().map(ToString::to_string).collect()))
            }
            _ => Err(Status::internal("the controller has no answer")),
        }
    }
}

#[tonic::async_trait]
impl Local for LocalServer {
    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        let mut names = Vec::new();
        let mut resources = Vec::new();
        let mut groups = Vec::new();
        let mut wrong = Vec::new();
        for text in &request.into_inner().resources {
            let (kind, name, checked) = match self.admit(text).await {
                Ok(admitted) => admitted,
                Err(refused) if refused.code() == tonic::Code::InvalidArgument => {
                    wrong.push(refused.message().to_owned());
                    continue;
                }
                Err(failed) => return Err(failed),
            };
            names.push((kind, name));
            match checked {
                Checked::Controlled(resource) => resources.push(resource),
                Checked::Group(group) => groups.push(*group),
            }
        }
        if !wrong.is_empty() {
            return Err(all_of(wrong));
        }
        let controlled = if resources.is_empty() {
            Vec::new()
        } else {
            self.change(Event::Apply(resources)).await?
        };
        let (mut controlled, mut groups) = (controlled.into_iter(), groups.into_iter());
        let mut verbs = Vec::with_capacity(names.len());
        for (kind, _) in &names {
            verbs.push(match kind {
                Kind::Controlled(_) => controlled.next().unwrap_or_default(),
                Kind::ConsumerGroup => match groups.next() {
                    Some(group) => self
                        .groups
                        .apply(group)
                        .map_err(|error| Status::internal(format!("{error:#}")))?,
                    None => "",
                },
            });
        }
        let applied = names.into_iter().zip(verbs).map(|((kind, name), verb)| Applied {
            kind: kind.to_string(),
            name,
            action: verb.to_owned(),
        });
        Ok(Response::new(ApplyResponse { applied: applied.collect() }))
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let DeleteRequest { kind, name } = request.into_inner();
        match kind_of(&kind)? {
            Kind::Controlled(kind) => {
                let key = self
                    .controller
                    .query(move |state| state.cluster.key(&name))
                    .await
                    .map_err(unavailable)?;
                self.change(Event::Delete(kind, key)).await?;
            }
            Kind::ConsumerGroup => match self.groups.delete(&name) {
                Ok(true) => {}
                Ok(false) => {
                    return Err(Status::not_found(format!("there is no ConsumerGroup {name:?}")));
                }
                Err(error) => return Err(Status::internal(format!("{error:#}"))),
            },
        }
        Ok(Response::new(DeleteResponse {}))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let GetRequest { kind, name } = request.into_inner();
        let kind = kind_of(&kind)?;
        let all = name.is_empty();
        let found: Vec<Value> = match kind {
            _ if !all => self.find(kind, &name).await?.into_iter().collect(),
            Kind::ConsumerGroup => self
                .groups
                .all()
                .iter()
                .filter_map(|group| serde_json::to_value(&**group).ok())
                .collect(),
            Kind::Controlled(kind) => self
                .controller
                .query(move |state| view::resources(state, kind))
                .await
                .map_err(unavailable)?,
        };
        if found.is_empty() && !all {
            return Err(Status::not_found(format!("there is no {kind} {name:?}")));
        }
        Ok(Response::new(GetResponse { resources: found.iter().map(Value::to_string).collect() }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.controller.query(status).await.map_err(unavailable)?))
    }
}

/// Whether a resource and its cluster reference are in the cluster's namespace: local mode has no
/// other.
fn in_namespace(object: &Value, home: &str) -> Result<(), Violation> {
    for (pointer, path) in [
        ("/metadata/namespace", "metadata.namespace"),
        ("/spec/clusterRef/namespace", "spec.clusterRef.namespace"),
    ] {
        if let Some(named) =
            object.pointer(pointer).and_then(Value::as_str).filter(|named| *named != home)
        {
            return Err(Violation {
                path: path.to_owned(),
                reason: format!(
                    "{named:?} is another namespace than that of the cluster, {home:?}, and local mode has that one alone: leave it out"
                ),
            });
        }
    }
    Ok(())
}

/// The group, if it refers to this cluster.
fn of_cluster(
    group: weir_crds::ConsumerGroup,
    cluster: &str,
) -> Result<weir_crds::ConsumerGroup, Status> {
    let named = &group.spec.cluster_ref.name;
    if named == cluster {
        return Ok(group);
    }
    Err(Status::invalid_argument(format!(
        "ConsumerGroup {:?}: spec.clusterRef.name: there is no KafkaCluster {named:?}; the one here is {cluster:?}",
        group.metadata.name.as_deref().unwrap_or_default()
    )))
}

fn status(state: &State) -> StatusResponse {
    let broker = |broker: &crate::controller::state::Broker| {
        let endpoint = broker.endpoints.first();
        BrokerStatus {
            id: broker.id.0,
            ready: broker.is_usable(),
            fenced: broker.fenced,
            host: endpoint.map(|endpoint| endpoint.host.clone()).unwrap_or_default(),
            port: endpoint.map_or(0, |endpoint| u32::from(endpoint.port)),
            epoch: broker.epoch.0,
            stopping: broker.shutting_down,
        }
    };
    let partitions = summary(state.topics.values().flat_map(|topic| &topic.partitions));
    let count = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    StatusResponse {
        brokers: state.brokers.values().map(broker).collect(),
        partitions: count(partitions.total),
        under_replicated: count(partitions.under_replicated),
        offline: count(partitions.offline),
        cluster_id: state.cluster.id.clone(),
        recovering: String::new(),
    }
}

/// A kind by any of its names, as in kubectl.
fn kind_of(name: &str) -> Result<Kind, Status> {
    for definition in weir_crds::definitions() {
        let names = definition.spec.names;
        // Kinds that exist only on Kubernetes have no name here.
        let Some(kind) = Kind::named(&names.kind) else { continue };
        let short = names.short_names.unwrap_or_default();
        let known = [Some(names.kind.clone()), Some(names.plural), names.singular]
            .into_iter()
            .flatten()
            .chain(short);
        if known.into_iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return Ok(kind);
        }
    }
    Err(Status::invalid_argument(format!(
        "there is no kind {name:?}: kafkacluster (kfc), topic (ktp) and consumergroup (kcg) are the kinds"
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_resource_of_another_namespace_is_refused_and_told_why() {
        let said = |namespace: Value, cluster: Value| {
            let object = json!({"metadata": {"name": "t", "namespace": namespace}, "spec": {"clusterRef": {"name": "local", "namespace": cluster}}});
            in_namespace(&object, "default").map_err(|violation| violation.to_string())
        };
        for own in [json!("default"), Value::Null] {
            assert_eq!(said(own.clone(), own), Ok(()));
        }
        assert_eq!(
            said(json!("payments"), json!("default")).unwrap_err(),
            "metadata.namespace: \"payments\" is another namespace than that of the cluster, \"default\", and local mode has that one alone: leave it out"
        );
        assert!(
            said(Value::Null, json!("kafka"))
                .unwrap_err()
                .starts_with("spec.clusterRef.namespace: \"kafka\" is another")
        );
    }
}
