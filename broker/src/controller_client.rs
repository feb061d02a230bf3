//! This broker's side of the controller RPC: the session, which carries the metadata, and the
//! requests that only the controller can decide.
//!
//! The session is one task for the life of the process. It registers, applies the controller's
//! messages, and reconnects when the stream breaks. Meanwhile the broker continues with its image.
//! If no controller answers at the start, it continues with the image of the last run. This module
//! decides nothing about partitions: `replica` applies its part of an image before the image is
//! published.

mod candidates;
mod isr;
mod kept;
mod producer_ids;
mod session;
mod stock;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{debug, warn};
use weir_protocol::api::ApiKey;
use weir_protocol::controller as rpc;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::Message;
use weir_protocol::types::ProducerId;
use weir_tls::Identities;

use self::candidates::{Candidates, Client};
pub(crate) use self::isr::keep_proposing;
use self::kept::Keeper;
use self::producer_ids::ProducerIds;
pub use self::session::{Fatal, Identity, Session};
pub use self::stock::{Tables, await_tables, is_recovering};
use crate::auth::Principal;
use crate::metadata::Metadata;
use weir_log::LogDir;

/// The state of the broker's registration with the controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControllerStatus {
    /// The epoch of the registration; `None` before the first.
    pub broker_epoch: Option<i64>,
    /// Whether the stream is up.
    pub connected: bool,
    /// Whether the controller has fenced this broker.
    pub fenced: bool,
    /// Whether a controlled shutdown was granted.
    pub may_shut_down: bool,
}

/// The client whose request is forwarded to the controller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForwardedBy<'a> {
    /// The connection's principal. The request is authorised already.
    pub(crate) principal: &'a Principal,
    /// The client's own id.
    pub(crate) client_id: Option<&'a str>,
    /// Its address.
    pub(crate) host: IpAddr,
}

/// How long an answer waits for the metadata that it refers to. The request is done, whether this
/// broker has that metadata or not.
const OWN_WRITES_MAX: Duration = Duration::from_secs(5);

/// A client of the controller for a broker's requests.
#[derive(Debug)]
pub struct Controller {
    candidates: Candidates,
    broker_id: i32,
    standing: watch::Sender<ControllerStatus>,
    producer_ids: tokio::sync::Mutex<ProducerIds>,
    /// Why the log directory is offline, for the next heartbeat.
    log_dir_failure: Mutex<Option<String>>,
    /// Turns true when this broker is stopping.
    wants_shutdown: watch::Sender<bool>,
    /// Whether a controller has accepted this broker's stream.
    is_heard: AtomicBool,
    keeper: Keeper,
}

impl Controller {
    /// Creates a client of the controller at `address` (`host:port`), or of the leader among the
    /// addresses behind that name. If `file` contains another address, that one is used instead.
    /// With `identities` both sides show a certificate. Connects on the first request.
    ///
    /// # Errors
    /// When the address is invalid.
    pub fn new(
        address: &str,
        file: Option<&Path>,
        cluster_id: &str,
        broker_id: i32,
        identities: Option<Arc<Identities>>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            candidates: Candidates::new(address, file, cluster_id, identities)?,
            broker_id,
            standing: watch::Sender::default(),
            producer_ids: tokio::sync::Mutex::default(),
            log_dir_failure: Mutex::default(),
            wants_shutdown: watch::Sender::new(false),
            is_heard: AtomicBool::new(false),
            keeper: Keeper::default(),
        })
    }

    /// The client of the controller that the session last turned to.
    fn client(&self) -> Client {
        self.candidates.client()
    }

    /// Returns the state of the registration; changes can be awaited.
    pub fn standing(&self) -> watch::Receiver<ControllerStatus> {
        self.standing.subscribe()
    }

    /// Reports, with the next heartbeat, that the log directory is offline.
    pub fn report_log_dir_failure(&self, reason: String) {
        *self.log_dir_failure.lock() = Some(reason);
    }

    /// Requests a controlled shutdown. The controller moves the leaders away, then grants it
    /// ([`ControllerStatus::may_shut_down`]).
    pub fn request_shutdown(&self) {
        self.wants_shutdown.send_replace(true);
    }

    /// Forwards an authorised administrative request to the controller, and waits until this broker
    /// has the resulting metadata. So the client reads its own writes here, unless the metadata
    /// takes longer than [`OWN_WRITES_MAX`].
    ///
    /// # Errors
    /// NOT_CONTROLLER while no controller can be reached: clients look for the controller again and
    /// retry. POLICY_VIOLATION when one request asks for too much. UNKNOWN_SERVER_ERROR when the
    /// controller's answer cannot be decoded.
    pub(crate) async fn forward<Q: Message, R: Message>(
        &self,
        metadata: &Metadata,
        by: ForwardedBy<'_>,
        (key, version): (ApiKey, i16),
        request: &Q,
    ) -> Result<R, ErrorCode> {
        let mut body = BytesMut::new();
        request
            .encode(&mut body, version)
            .map_err(|error| unexpected("encode a request for the controller", &error))?;
        let forwarded = rpc::ForwardRequest {
            broker_id: self.broker_id,
            broker_epoch: self.broker_epoch()?,
            api_key: i32::from(key as i16),
            api_version: i32::from(version),
            request: body.to_vec(),
            principal: by.principal.to_string(),
            client_id: by.client_id.unwrap_or_default().to_owned(),
            client_host: by.host.to_string(),
        };
        let answer = self
            .candidates
            .forwards()
            .forward(forwarded)
            .await
            .map_err(|status| unreachable(&status))?
            .into_inner();
        if let Ok(code @ 1..) = i16::try_from(answer.error_code) {
            return Err(ErrorCode::from_code(code));
        }
        let known_from = answer.metadata_version;
        if tokio::time::timeout(OWN_WRITES_MAX, metadata.wait_for(known_from)).await.is_err() {
            warn!(api = ?key, version = known_from, known = metadata.load().version, "the controller has carried out a request, and this broker does not hear of it; the client is answered all the same");
        }
        R::decode(&mut Bytes::from(answer.response), version)
            .map_err(|error| unexpected("decode the controller's answer", &error))
    }

    /// Returns an unused producer id.
    ///
    /// # Errors
    /// COORDINATOR_LOAD_IN_PROGRESS, which clients retry, while all blocks are used up and no
    /// controller can be reached.
    pub(crate) async fn producer_id(&self, log_dir: &LogDir) -> Result<ProducerId, ErrorCode> {
        let mut ids = self.producer_ids.lock().await;
        let mut id = ids.next();
        if id.is_none() {
            // Other requests for an id wait for the same answer, because this one holds the lock.
            let block =
                self.block_of_producer_ids().await.ok_or(ErrorCode::CoordinatorLoadInProgress)?;
            ids.refill(&block);
            id = ids.next();
        }
        if let Some(left) = ids.news() {
            self.keeper.keep_producer_ids(log_dir, left);
        }
        id.ok_or(ErrorCode::CoordinatorLoadInProgress)
    }

    /// Returns whether the caller must call [`Self::stock_up`].
    fn is_short_of_producer_ids(&self) -> bool {
        // The holder of the lock requests a block already.
        self.producer_ids.try_lock().is_ok_and(|mut ids| ids.asks())
    }

    /// Requests a block of producer ids before it is needed.
    async fn stock_up(&self, log_dir: &LogDir) {
        let block = self.block_of_producer_ids().await;
        let mut ids = self.producer_ids.lock().await;
        match block {
            Some(block) => ids.refill(&block),
            None => ids.unanswered(),
        }
        if let Some(left) = ids.news() {
            self.keeper.keep_producer_ids(log_dir, left);
        }
    }

    async fn block_of_producer_ids(&self) -> Option<rpc::AllocateProducerIdsResponse> {
        let request = rpc::AllocateProducerIdsRequest {
            broker_id: self.broker_id,
            broker_epoch: self.broker_epoch().ok()?,
        };
        match self.client().allocate_producer_ids(request).await {
            Ok(block) => Some(block.into_inner()),
            Err(status) => {
                debug!(%status, "no producer ids from the controller");
                None
            }
        }
    }

    fn broker_epoch(&self) -> Result<i64, ErrorCode> {
        self.standing.borrow().broker_epoch.ok_or(ErrorCode::NotController)
    }
}

fn unreachable(status: &tonic::Status) -> ErrorCode {
    debug!(%status, "the controller did not answer");
    ErrorCode::NotController
}

fn unexpected(what: &'static str, error: &dyn std::error::Error) -> ErrorCode {
    tracing::error!(%error, "{what}");
    ErrorCode::UnknownServerError
}
