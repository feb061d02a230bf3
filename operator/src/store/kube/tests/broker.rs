//! A broker that serves, as the controller sees it.

use tokio::sync::mpsc;
use tonic::Status;
use uuid::Uuid;
use weir_protocol::controller::ControllerMessage;
use weir_protocol::types::{BrokerEpoch, BrokerId, ControllerEpoch};

use crate::controller::sessions::StreamId;
use crate::controller::state::Endpoint;
use crate::controller::{AdminRequest, Event, Heartbeat, Registration};
use crate::shell::{Controller, Outbound, STREAM_MESSAGES_MAX};

/// Broker 0; its stream is open until this is dropped.
pub(crate) struct Broker {
    epoch: BrokerEpoch,
    _told: mpsc::Receiver<Result<ControllerMessage, Status>>,
}

impl Broker {
    /// Registers with the controller of the cluster with this id, and reports ready.
    pub(crate) async fn serves(controller: &Controller, cluster_id: &str) -> Self {
        Self::serves_at("PLAINTEXT", "localhost", controller, cluster_id).await
    }

    /// The same, with a listener of this name at this host.
    pub(crate) async fn serves_at(
        listener: &str,
        host: &str,
        controller: &Controller,
        cluster_id: &str,
    ) -> Self {
        let (out, told): (Outbound, _) = mpsc::channel(STREAM_MESSAGES_MAX);
        let registration = Registration {
            broker: BrokerId(0),
            cluster_id: cluster_id.to_owned(),
            incarnation: Uuid::from_u128(1),
            log_dir: Uuid::from_u128(2),
            endpoints: vec![Endpoint {
                listener: listener.to_owned(),
                host: host.to_owned(),
                port: 9092,
                security_protocol: "PLAINTEXT".to_owned(),
            }],
            rack: None,
            previous_epoch: None,
            clean: true,
            controller_epoch: ControllerEpoch(0),
            leader_epochs: Vec::new(),
            is_certified: false,
        };
        controller.open(registration, StreamId(1), out).await.unwrap();
        let (epoch, applied_version) = controller
            .query(|state| (state.brokers[&BrokerId(0)].epoch, state.version))
            .await
            .unwrap();
        let heartbeat = Heartbeat {
            broker: BrokerId(0),
            epoch,
            applied_version,
            ready: true,
            wants_shutdown: false,
            log_dir_failed: false,
        };
        controller.heartbeat(heartbeat, StreamId(1)).await.unwrap();
        assert!(controller.query(|state| state.is_usable(BrokerId(0))).await.unwrap());
        Self { epoch, _told: told }
    }

    /// An event with a client's request through this broker.
    pub(crate) fn asks(&self, request: AdminRequest) -> Event {
        let (broker, epoch) = (BrokerId(0), self.epoch);
        Event::Admin { broker, epoch, request }
    }
}
