//! What the command line asks of the controller: `apply`, `delete`, `get` and `status`.
//!
//! Resources are checked as the API server of Kubernetes would check them, then put to the controller like everything else. Decides nothing.

use serde_json::Value;
use tonic::{Request, Response, Status};

use super::rpc::local_server::{self, Local};
use super::rpc::{
    Applied, ApplyRequest, ApplyResponse, BrokerStatus, DeleteRequest, DeleteResponse, GetRequest, GetResponse, StatusRequest, StatusResponse,
};
use super::view;
use crate::admission::{self, Violation};
use crate::controller::state::State;
use crate::controller::{Event, Kind, Reply, Resource, summary};
use crate::shell::{Controller, Unavailable};

/// The largest message: many resources are applied at once.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// The server.
#[derive(Debug)]
pub(super) struct LocalServer {
    controller: Controller,
}

/// Everything that is wrong with one resource, as kubectl says it.
pub(super) fn refusal(kind: Kind, name: &str, violations: &[Violation]) -> String {
    let all: Vec<_> = violations.iter().map(|violation| format!("\n  * {violation}")).collect();
    format!("{kind} {name:?} is invalid:{}", all.concat())
}

fn unavailable(error: Unavailable) -> Status {
    Status::unavailable(error.to_string())
}

impl LocalServer {
    /// The service that tonic serves.
    pub(super) fn service(controller: Controller) -> local_server::LocalServer<Self> {
        local_server::LocalServer::new(Self { controller })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX)
    }

    /// Checks one object against its kind's definition, beside the one that it would replace.
    async fn admit(&self, text: &str) -> Result<(Kind, String, Resource), Status> {
        let invalid = |message: String| Status::invalid_argument(message);
        let object: Value = serde_json::from_str(text).map_err(|error| invalid(format!("not a resource: {error}")))?;
        let (kind, name) = admission::identify(&object).map_err(|violation| invalid(violation.to_string()))?;
        let wanted = name.clone();
        let old = self
            .controller
            .look(move |state| view::resource(state, kind, &wanted))
            .await
            .map_err(unavailable)?;
        let admitted = admission::admit(kind, &object, old.as_ref()).map_err(|violations| invalid(refusal(kind, &name, &violations)))?;
        let failed = |error: serde_json::Error| invalid(format!("{kind} {name:?}: {error}"));
        let resource = match kind {
            Kind::KafkaCluster => Resource::Cluster(Box::new(serde_json::from_value(admitted).map_err(failed)?)),
            Kind::Topic => {
                let mut topic: weir_crds::Topic = serde_json::from_value(admitted).map_err(failed)?;
                // There is no API server that would have given them: what was read back and applied again is the user's.
                (topic.metadata.uid, topic.metadata.resource_version) = (None, None);
                Resource::Topic(Box::new(topic))
            }
        };
        Ok((kind, name, resource))
    }

    async fn change(&self, event: Event) -> Result<Vec<&'static str>, Status> {
        match self.controller.ask(event).await.map_err(unavailable)?.reply {
            Reply::Applied(verbs) => Ok(verbs),
            Reply::Invalid(refusal) => Err(Status::invalid_argument(refusal.to_string())),
            _ => Err(Status::internal("the controller has no answer")),
        }
    }
}

#[tonic::async_trait]
impl Local for LocalServer {
    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let mut names = Vec::new();
        let mut resources = Vec::new();
        for text in &request.into_inner().resources {
            let (kind, name, resource) = self.admit(text).await?;
            names.push((kind, name));
            resources.push(resource);
        }
        let verbs = self.change(Event::Apply(resources)).await?;
        let applied = names.into_iter().zip(verbs).map(|((kind, name), verb)| Applied {
            kind: kind.to_string(),
            name,
            action: verb.to_owned(),
        });
        Ok(Response::new(ApplyResponse { applied: applied.collect() }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let DeleteRequest { kind, name } = request.into_inner();
        self.change(Event::Delete(kind_of(&kind)?, name)).await?;
        Ok(Response::new(DeleteResponse {}))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let GetRequest { kind, name } = request.into_inner();
        let kind = kind_of(&kind)?;
        let all = name.is_empty();
        let wanted = name.clone();
        let found = self.controller.look(move |state| {
            if all {
                view::resources(state, kind)
            } else {
                view::resource(state, kind, &wanted).into_iter().collect()
            }
        });
        let found = found.await.map_err(unavailable)?;
        if found.is_empty() && !all {
            return Err(Status::not_found(format!("there is no {kind} {name:?}")));
        }
        Ok(Response::new(GetResponse {
            resources: found.iter().map(Value::to_string).collect(),
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.controller.look(status).await.map_err(unavailable)?))
    }
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
    }
}

/// A kind by any of its names, as kubectl takes them.
fn kind_of(name: &str) -> Result<Kind, Status> {
    for definition in weir_crds::definitions() {
        let names = definition.spec.names;
        let kind = match names.kind.as_str() {
            "Topic" => Kind::Topic,
            "KafkaCluster" => Kind::KafkaCluster,
            // What is only there on Kubernetes.
            _ => continue,
        };
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
        "there is no kind {name:?}: kafkacluster (kfc) and topic (ktp) are the kinds"
    )))
}
