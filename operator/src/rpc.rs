//! The server of the controller RPC: brokers' messages become calls to the shell, and the shell's
//! messages go out on their streams.
//!
//! Called by tonic. Decodes and validates what a broker sends; decides nothing.

mod caller;
mod desk;
mod directory;
mod incoming;
mod limits;
mod shown;

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use uuid::Uuid;
use weir_protocol::controller::{
    self as rpc, INTERNAL_LISTENER, broker_message, controller_message, controller_server,
    is_uncertified,
};
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{
    BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, PartitionEpoch, TopicId,
};

use crate::controller::sessions::StreamId;
use crate::controller::state::Endpoint;
use crate::controller::{
    AdminRequest, AlterPartitions, Event, Heartbeat, IsrChange, IsrChanged, PRODUCER_IDS_PER_BLOCK,
    Registration, Reply, image,
};
use crate::shell::{Answer, Controller, Outbound, STREAM_MESSAGES_MAX, Unavailable};

pub use caller::Caller;
pub use desk::Desk;
pub use directory::{Controllers, RegistrationEnricher, is_secured};
pub use incoming::{Connections, Incoming, Strangers};
pub use limits::{LimitedByCaller, limited_server};
use limits::{MESSAGE_BYTES_MAX, STRANGERS_MESSAGE_BYTES_MAX};
pub use shown::ShownIdentities;

/// The server of the controllers of this process.
#[derive(Debug)]
pub struct ControllerRpc {
    controllers: Controllers,
    streams: AtomicU64,
}

impl ControllerRpc {
    /// The service that tonic serves.
    pub fn service(
        controllers: Controllers,
    ) -> LimitedByCaller<controller_server::ControllerServer<Self>> {
        let service = controller_server::ControllerServer::new(Self {
            controllers: controllers.clone(),
            streams: AtomicU64::new(0),
        });
        let service = service.max_encoding_message_size(usize::MAX);
        LimitedByCaller::new(
            controllers,
            service.clone().max_decoding_message_size(MESSAGE_BYTES_MAX),
            service.max_decoding_message_size(STRANGERS_MESSAGE_BYTES_MAX),
        )
    }

    /// The controller of the cluster in the request's metadata, for this broker.
    fn controller_of<T>(&self, request: &Request<T>, broker: i32) -> Result<Controller, Status> {
        self.controllers.of(cluster_of(request), &caller_of(request), broker)
    }
}

fn cluster_of<T>(request: &Request<T>) -> &str {
    let cluster = request.metadata().get(rpc::CLUSTER_HEADER).and_then(|id| id.to_str().ok());
    cluster.unwrap_or_default()
}

/// Who sends a request. Tests without connections of their own have nobody there.
fn caller_of<T>(request: &Request<T>) -> Caller {
    request.extensions().get().cloned().unwrap_or(Caller::Anybody)
}

async fn ask(controller: &Controller, event: Event) -> Result<Answer, Status> {
    controller.ask(event).await.map_err(unavailable)
}

fn unavailable(error: Unavailable) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl controller_server::Controller for ControllerRpc {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<rpc::ControllerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<rpc::BrokerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (out, outbound) = mpsc::channel(STREAM_MESSAGES_MAX);
        let id = StreamId(self.streams.fetch_add(1, Ordering::Relaxed));
        let caller = caller_of(&request);
        let inbound = receive(self.controllers.clone(), (id, caller), request.into_inner(), out);
        // The receiver is a part of the outgoing stream and ends with it, so no task is left over.
        let inbound = stream::once(inbound)
            .filter_map(|end| std::future::ready(end.err().map(|status| Some(Err(status)))));
        // When the shell drops the stream it ends, though the broker still sends: the broker has to
        // register again.
        let outbound =
            ReceiverStream::new(outbound).map(Some).chain(stream::once(std::future::ready(None)));
        let messages = stream::select(outbound, inbound)
            .take_while(|message| std::future::ready(message.is_some()));
        Ok(Response::new(Box::pin(messages.filter_map(std::future::ready))))
    }

    async fn allocate_producer_ids(
        &self,
        request: Request<rpc::AllocateProducerIdsRequest>,
    ) -> Result<Response<rpc::AllocateProducerIdsResponse>, Status> {
        let controller = self.controller_of(&request, request.get_ref().broker_id)?;
        let rpc::AllocateProducerIdsRequest { broker_id, broker_epoch } = request.into_inner();
        let event = Event::AllocateProducerIds {
            broker: BrokerId(broker_id),
            epoch: BrokerEpoch(broker_epoch),
        };
        let response = match ask(&controller, event).await?.reply {
            Reply::ProducerIds(first) => rpc::AllocateProducerIdsResponse {
                error_code: 0,
                first,
                count: u32::try_from(PRODUCER_IDS_PER_BLOCK).unwrap_or_default(),
            },
            Reply::Refused(code, _) => rpc::AllocateProducerIdsResponse {
                error_code: (code as i16).into(),
                first: -1,
                count: 0,
            },
            _ => return Err(Status::internal("the controller has no answer")),
        };
        Ok(Response::new(response))
    }

    async fn alter_partitions(
        &self,
        request: Request<rpc::AlterPartitionsRequest>,
    ) -> Result<Response<rpc::AlterPartitionsResponse>, Status> {
        let controller = self.controller_of(&request, request.get_ref().broker_id)?;
        let request =
            alter_partitions_of(request.into_inner()).map_err(Status::invalid_argument)?;
        let Answer { reply, version: metadata_version } =
            ask(&controller, Event::AlterPartitions(request)).await?;
        let response = match reply {
            Reply::AlteredPartitions(results) => rpc::AlterPartitionsResponse {
                error_code: 0,
                results: results.iter().map(isr_changed).collect(),
                metadata_version,
            },
            Reply::Refused(code, _) => rpc::AlterPartitionsResponse {
                error_code: (code as i16).into(),
                results: Vec::new(),
                metadata_version,
            },
            _ => return Err(Status::internal("the controller has no answer")),
        };
        Ok(Response::new(response))
    }

    async fn take_stock(
        &self,
        request: Request<rpc::TakeStockRequest>,
    ) -> Result<Response<rpc::TakeStockResponse>, Status> {
        let broker = request.get_ref().broker_id;
        let desk = self.controllers.desk(cluster_of(&request), &caller_of(&request), broker)?;
        let answer = desk.hand_in(request.into_inner()).map_err(Status::invalid_argument)?;
        Ok(Response::new(answer))
    }

    async fn forward(
        &self,
        request: Request<rpc::ForwardRequest>,
    ) -> Result<Response<rpc::ForwardResponse>, Status> {
        let controller = self.controller_of(&request, request.get_ref().broker_id)?;
        let request = request.into_inner();
        let version = i16::try_from(request.api_version)
            .map_err(|_| Status::invalid_argument("api_version is no version"))?;
        let admin = AdminRequest::decode(request.api_key, version, request.request.into())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let event = Event::Admin {
            broker: BrokerId(request.broker_id),
            epoch: BrokerEpoch(request.broker_epoch),
            request: admin,
        };
        let Answer { reply, version: metadata_version } = ask(&controller, event).await?;
        match reply {
            Reply::Admin(response) => {
                let response = response
                    .encode(version)
                    .map_err(|error| Status::internal(error.to_string()))?;
                Ok(Response::new(rpc::ForwardResponse {
                    response: response.into(),
                    metadata_version,
                    error_code: 0,
                }))
            }
            // The broker reports this error for each part of the request.
            Reply::Refused(code @ ErrorCode::PolicyViolation, _) => {
                Ok(Response::new(rpc::ForwardResponse {
                    response: Vec::new(),
                    metadata_version,
                    error_code: i32::from(code as i16),
                }))
            }
            Reply::Refused(_, reason) => Err(Status::failed_precondition(reason)),
            _ => Err(Status::internal("the controller has no answer")),
        }
    }
}

/// Reports the end of a stream, whatever the cause.
struct End {
    controller: Controller,
    controllers: Controllers,
    caller: Caller,
    broker: BrokerId,
    stream: StreamId,
}

impl Drop for End {
    fn drop(&mut self) {
        self.controller.broke(self.broker, self.stream);
        if let Caller::Node(domain, _) = &self.caller {
            self.controllers.shown().forget(domain, self.broker.0, self.stream);
        }
    }
}

async fn receive(
    controllers: Controllers,
    (stream, caller): (StreamId, Caller),
    mut inbound: Streaming<rpc::BrokerMessage>,
    out: Outbound,
) -> Result<(), Status> {
    let first = inbound.message().await?.and_then(|message| message.message);
    let Some(broker_message::Message::Registration(registration)) = first else {
        return Err(Status::invalid_argument("the first message of a stream is a registration"));
    };
    let (cluster_id, id) = (&registration.cluster_id, registration.broker_id);
    let controller = match controllers.of(cluster_id, &caller, id) {
        Ok(controller) => controller,
        Err(status) if status.code() == Code::Unavailable && controllers.has_desk(cluster_id) => {
            let reason =
                "the cluster has lost its tables and recovers: this process ends, so that its successor says what is on its volume".to_owned();
            return refuse(&out, reason).await;
        }
        Err(status) => return Err(status),
    };
    let registration = match registration_of(registration, &caller) {
        Ok(registration) => controllers.enrich(registration).await?,
        Err(reason) => return refuse(&out, reason).await,
    };
    let broker = registration.broker;
    let end = End { controller: controller.clone(), controllers, caller, broker, stream };
    controller.open(registration, stream, out).await.map_err(unavailable)?;
    while let Some(message) = inbound.message().await? {
        match message.message {
            Some(broker_message::Message::Heartbeat(heartbeat)) => {
                if let (Caller::Node(domain, _), Some(said)) = (&end.caller, &heartbeat.identity) {
                    end.controllers.shown().note(domain, broker.0, stream, said);
                }
                controller
                    .heartbeat(heartbeat_of(broker, heartbeat), stream)
                    .await
                    .map_err(unavailable)?;
            }
            _ => {
                return Err(Status::invalid_argument(
                    "after the registration a stream carries heartbeats",
                ));
            }
        }
    }
    Ok(())
}

/// Refuses a broker's registration.
async fn refuse(out: &Outbound, reason: String) -> Result<(), Status> {
    let refused =
        rpc::Refused { error_code: (ErrorCode::InvalidRegistration as i16).into(), reason };
    let message = rpc::ControllerMessage {
        controller_epoch: 0,
        message: Some(controller_message::Message::Refused(refused)),
    };
    // The broker may already be gone.
    let _ = out.send(Ok(message)).await;
    Ok(())
}

fn leader_epochs_of(logs: Vec<rpc::LogEpochs>) -> Result<Vec<(TopicId, i32, LeaderEpoch)>, String> {
    let mut epochs = Vec::new();
    for topic in logs {
        let id =
            Uuid::from_slice(&topic.topic_id).map_err(|_| "topic_id is not 16 bytes".to_owned())?;
        if topic.partitions.len() != topic.leader_epochs.len() {
            return Err("a topic's partitions and leader epochs are not equally many".to_owned());
        }
        epochs.extend(
            topic
                .partitions
                .into_iter()
                .zip(topic.leader_epochs)
                .map(|(index, epoch)| (TopicId(id), index, LeaderEpoch(epoch))),
        );
    }
    Ok(epochs)
}

fn registration_of(message: rpc::Registration, caller: &Caller) -> Result<Registration, String> {
    let uuid = |bytes: &[u8], what: &str| {
        Uuid::from_slice(bytes).map_err(|_| format!("{what} is not 16 bytes"))
    };
    let endpoints = message.endpoints.into_iter().map(|endpoint| {
        let port = u16::try_from(endpoint.port)
            .map_err(|_| format!("port {} is over 65535", endpoint.port))?;
        Ok(Endpoint {
            listener: endpoint.listener,
            host: endpoint.host,
            port,
            security_protocol: endpoint.security_protocol,
        })
    });
    let endpoints = endpoints.collect::<Result<Vec<_>, String>>()?;
    let is_certified = matches!(caller, Caller::Node(..));
    if is_certified && is_uncertified(endpoints.iter().map(|endpoint| &*endpoint.listener)) {
        // Afterwards anybody could come as this broker, as if it were of a version before.
        return Err(format!("a broker with a certificate has a listener {INTERNAL_LISTENER}"));
    }
    Ok(Registration {
        cluster_id: message.cluster_id,
        broker: BrokerId(message.broker_id),
        incarnation: uuid(&message.incarnation, "incarnation")?,
        log_dir: uuid(&message.log_dir_id, "log_dir_id")?,
        endpoints,
        rack: Some(message.rack).filter(|rack| !rack.is_empty()),
        previous_epoch: message.previous_broker_epoch.map(BrokerEpoch),
        clean: message.clean,
        controller_epoch: ControllerEpoch(message.controller_epoch),
        leader_epochs: leader_epochs_of(message.logs)?,
        is_certified,
    })
}

fn alter_partitions_of(message: rpc::AlterPartitionsRequest) -> Result<AlterPartitions, String> {
    let changes = message.changes.into_iter().map(|change| {
        let topic = Uuid::from_slice(&change.topic_id)
            .map_err(|_| "topic_id is not 16 bytes".to_owned())?;
        let member =
            |member: rpc::IsrMember| (BrokerId(member.broker_id), BrokerEpoch(member.broker_epoch));
        Ok(IsrChange {
            topic: TopicId(topic),
            partition: change.partition,
            leader_epoch: LeaderEpoch(change.leader_epoch),
            partition_epoch: PartitionEpoch(change.partition_epoch),
            isr: change.isr.into_iter().map(member).collect(),
            recovered: change.recovered,
        })
    });
    Ok(AlterPartitions {
        broker: BrokerId(message.broker_id),
        epoch: BrokerEpoch(message.broker_epoch),
        changes: changes.collect::<Result<_, String>>()?,
    })
}

fn isr_changed(changed: &IsrChanged) -> rpc::IsrChanged {
    rpc::IsrChanged {
        topic_id: changed.topic.0.into_bytes().to_vec(),
        partition: changed.partition,
        error_code: changed.result.as_ref().map_or_else(|code| (*code as i16).into(), |_| 0),
        state: changed.result.as_ref().ok().map(|state| image::partition(changed.partition, state)),
    }
}

fn heartbeat_of(broker: BrokerId, message: rpc::Heartbeat) -> Heartbeat {
    Heartbeat {
        broker,
        epoch: BrokerEpoch(message.broker_epoch),
        applied_version: message.applied_version,
        ready: message.ready,
        wants_shutdown: message.wants_shutdown,
        log_dir_failed: !message.log_dir_failure.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use weir_security::principal::Principal;

    use super::*;

    #[test]
    fn who_has_a_certificate_names_the_listener_for_it() {
        let read = |caller: &Caller, listeners: &[&str]| {
            let endpoint = |name: &&str| rpc::Endpoint {
                listener: (*name).to_owned(),
                ..rpc::Endpoint::default()
            };
            let message = rpc::Registration {
                incarnation: vec![1; 16],
                log_dir_id: vec![2; 16],
                endpoints: listeners.iter().map(endpoint).collect(),
                ..rpc::Registration::default()
            };
            registration_of(message, caller).map(|read| read.is_certified)
        };
        let node = Caller::Node("c".to_owned(), Principal::Broker(0));
        assert_eq!(read(&node, &["PLAINTEXT", INTERNAL_LISTENER]), Ok(true));
        assert!(read(&node, &["PLAINTEXT"]).is_err());
        assert_eq!(read(&Caller::Anybody, &["PLAINTEXT"]), Ok(false));
    }
}
