//! The session with the controller: registration, heartbeats, and the metadata as it changes.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::{debug, info, warn};
use uuid::Uuid;
use weir_protocol::controller as rpc;
use weir_protocol::controller::broker_message::Message as FromBroker;
use weir_protocol::controller::controller_message::Message as FromController;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{ControllerEpoch, LeaderEpoch, TopicId, TopicPartition};
use weir_security::principal::Fingerprint;
use weir_telemetry::complaints::Complaints;
use weir_tls::Shown;

use super::candidates::CONNECT_MAX;
use super::{Controller, ControllerStatus, kept};
use crate::metadata::Metadata;
use crate::replica::Replicas;

/// The pause before a retry after the stream broke; doubles up to the second value.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// How long a broker is without a controller before it says why. Another operator takes over within
/// some seconds.
const TELL_AFTER: Duration = Duration::from_secs(10);
/// How long after its registration a broker waits with less urgent requests.
const SETTLED: Duration = Duration::from_secs(1);

/// How long a start waits for a controller before it continues with the last run's state. A
/// controller that runs accepts a stream within milliseconds.
const RESUME_AFTER: Duration = Duration::from_secs(1);

/// How much longer it waits for the answer to its registration once its stream was accepted: the
/// operator looks up the broker's address.
const REGISTRATION_MAX: Duration = Duration::from_secs(4);

/// The identity under which this broker registers.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster that the log directory belongs to.
    pub cluster_id: String,
    /// This broker.
    pub broker_id: i32,
    /// Random at each start of the process.
    pub incarnation: Uuid,
    /// The log directory's own id.
    pub log_dir_id: Uuid,
    /// The endpoints for clients.
    pub endpoints: Vec<rpc::Endpoint>,
    /// Its rack; empty for none.
    pub rack: String,
    /// The broker epoch of the log directory's last run.
    pub previous_broker_epoch: Option<i64>,
    /// Whether the log is complete up to its end.
    pub clean: bool,
}

/// The controller refused this broker for a reason that a retry does not cure.
#[derive(Debug, thiserror::Error)]
#[error("the controller refuses this broker: {reason} ({code:?})")]
pub struct Fatal {
    code: ErrorCode,
    reason: String,
}

/// The task that keeps the session.
#[derive(Debug)]
pub struct Session {
    controller: Arc<Controller>,
    metadata: Arc<Metadata>,
    replicas: Arc<Replicas>,
    identity: Identity,
    controller_epoch: ControllerEpoch,
    /// The end of the wait for a controller before the broker continues with the last run's state;
    /// `None` once that is decided.
    patient_until: Option<Instant>,
    /// Whether this run has metadata from a controller, and not only from the last run.
    is_told: bool,
    complaints: Complaints,
}

/// Why a stream ended.
enum Ended {
    Broken(String),
    Fatal(Fatal),
}

impl From<tonic::Status> for Ended {
    fn from(status: tonic::Status) -> Self {
        // The causes say more, such as whose certificate is refused.
        let mut told = format!("{}: {}", status.code(), status.message());
        let mut cause = status.source();
        while let Some(next) = cause {
            told = format!("{told}: {next}");
            cause = next.source();
        }
        Self::Broken(told)
    }
}

impl Session {
    /// Creates a session for this broker.
    pub fn new(
        controller: Arc<Controller>,
        metadata: Arc<Metadata>,
        replicas: Arc<Replicas>,
        identity: Identity,
    ) -> Self {
        Self {
            controller,
            metadata,
            replicas,
            identity,
            controller_epoch: ControllerEpoch::default(),
            patient_until: Some(Instant::now() + RESUME_AFTER),
            is_told: false,
            complaints: Complaints::default(),
        }
    }

    /// Keeps the session until the process ends.
    ///
    /// # Errors
    /// Only when the controller refuses this broker for good.
    pub async fn run(mut self) -> Result<std::convert::Infallible, Fatal> {
        let (mut pause, mut alone_since) = (RETRY_MIN, Instant::now());
        loop {
            let started = Instant::now();
            self.resume_without_controller().await;
            self.controller.candidates.resolve().await;
            let silence = nobody_answers(Arc::clone(&self.controller), self.patient_until);
            let ended = tokio::select! {
                ended = self.stream() => ended,
                () = silence => Ended::Broken("no controller answers".into()),
            };
            self.controller.is_heard.store(false, Ordering::Relaxed);
            // Not a read and a replace: the read guard would still be held while the write waits
            // for it.
            let mut lost = false;
            self.controller
                .standing
                .send_modify(|standing| lost = std::mem::take(&mut standing.connected));
            if !lost {
                // This address is not the leader or not reachable; another one behind the name may
                // be. After a lost stream the same address is tried once more, because the loss may
                // have been brief.
                self.controller.candidates.turn_to_next();
            }
            match ended {
                Ended::Fatal(fatal) => return Err(fatal),
                Ended::Broken(reason) if lost => {
                    warn!(%reason, "lost the controller; serving on with the metadata at hand")
                }
                Ended::Broken(reason) => {
                    let alone = alone_since.elapsed();
                    let due = (alone >= TELL_AFTER).then(|| self.complaints.are_due("alone"));
                    match due.flatten() {
                        Some(left_out) => {
                            warn!(%reason, seconds = alone.as_secs(), left_out, "reaches no controller, and goes on trying");
                        }
                        None => debug!(%reason, "no controller yet"),
                    }
                }
            }
            if lost {
                alone_since = Instant::now();
            }
            // A long stream was a good one, and the cause of its end may be over already.
            pause =
                if started.elapsed() > RETRY_MAX { RETRY_MIN } else { (pause * 2).min(RETRY_MAX) };
            tokio::time::sleep(pause).await;
        }
    }

    /// Continues with the metadata, the roles and the epochs of the last run, if the wait is over
    /// and valid state exists.
    ///
    /// A leader then acknowledges nothing that a successor lacks. It waits for every member of the
    /// ISR in its last image and in its proposals. A leader that was elected meanwhile is one of
    /// them, and does not fetch from it.
    async fn resume_without_controller(&mut self) {
        if self.patient_until.take_if(|until| *until <= Instant::now()).is_none() {
            return;
        }
        let replicas = Arc::clone(&self.replicas);
        let log_dir = replicas.log_dir();
        // Between a registration and its first metadata the roles are unknown; the controller is
        // about to send them.
        let epoch = self
            .identity
            .previous_broker_epoch
            .filter(|epoch| log_dir.left().broker_epoch == Some(*epoch));
        let Some((epoch, left)) = epoch.and_then(|epoch| Some((epoch, kept::left(log_dir)?)))
        else {
            warn!(
                "no controller answers, and there is nothing to go on with: this broker serves nothing until one does"
            );
            return;
        };
        warn!(
            version = left.image.version,
            broker_epoch = epoch,
            controller_epoch = left.image.controller_epoch.0,
            "no controller answers; going on with the metadata, the roles and the epochs of the last run: what needs a controller waits for one"
        );
        self.controller_epoch = self.controller_epoch.max(left.image.controller_epoch);
        self.controller.keeper.adopt_previous(log_dir, epoch, &left);
        self.controller.standing.send_modify(|standing| standing.broker_epoch = Some(epoch));
        self.controller.producer_ids.lock().await.adopt_previous(left.producer_ids);
        replicas.resume(&left.image);
        self.metadata.publish(left.image);
    }

    async fn stream(&mut self) -> Ended {
        match self.stream_until_it_ends().await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn stream_until_it_ends(&mut self) -> Result<std::convert::Infallible, Ended> {
        let (sender, outgoing) = mpsc::channel(4);
        let registration =
            rpc::BrokerMessage { message: Some(FromBroker::Registration(self.registration())) };
        sender
            .send(registration)
            .await
            .map_err(|_| Ended::Broken("the stream is closed".into()))?;
        let mut client = self.controller.client();
        // A host that is cut off or frozen answers nothing, not even that it does not lead.
        let opened =
            tokio::time::timeout(CONNECT_MAX, client.session(ReceiverStream::new(outgoing))).await;
        let mut incoming = opened
            .map_err(|_| Ended::Broken("no answer to the opening of a stream".into()))??
            .into_inner();
        self.controller.is_heard.store(true, Ordering::Relaxed);
        let registered = self.await_registration(&mut incoming).await?;
        let mut beat =
            interval(Duration::from_millis(u64::from(registered.heartbeat_interval_ms.max(10))));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let silence_max =
            Duration::from_millis(u64::from(registered.session_timeout_ms)).max(RETRY_MAX);
        let mut wants_shutdown = self.controller.wants_shutdown.subscribe();
        let started = Instant::now();
        let mut heard = started;
        loop {
            tokio::select! {
                message = incoming.message() => {
                    heard = Instant::now();
                    if self.apply(said(message)?)? {
                        // The next heartbeat reports the applied version at once, because others
                        // wait for it.
                        beat.reset_immediately();
                    }
                }
                _ = beat.tick() => {
                    // Messages that are already here count as heard, because this process itself
                    // may have been paused.
                    while let Some(message) = incoming.message().now_or_never() {
                        heard = Instant::now();
                        self.apply(said(message)?)?;
                    }
                    if heard.elapsed() > silence_max {
                        // The next attempt uses another address, because this connection may be
                        // dead without a sign.
                        self.controller.candidates.turn_to_next();
                        return Err(Ended::Broken("the controller is silent".into()));
                    }
                    let heartbeat = rpc::BrokerMessage { message: Some(FromBroker::Heartbeat(self.heartbeat(registered.broker_epoch))) };
                    sender.send(heartbeat).await.map_err(|_| Ended::Broken("the stream is closed".into()))?;
                    if started.elapsed() > SETTLED && self.controller.is_short_of_producer_ids() {
                        let (controller, replicas) = (Arc::clone(&self.controller), Arc::clone(&self.replicas));
                        tokio::spawn(async move { controller.stock_up(replicas.log_dir()).await });
                    }
                }
                Ok(()) = wants_shutdown.changed() => beat.reset_immediately(),
            }
        }
    }

    async fn await_registration(
        &mut self,
        incoming: &mut Streaming<rpc::ControllerMessage>,
    ) -> Result<rpc::Registered, Ended> {
        let message = tokio::time::timeout(CONNECT_MAX * 5, incoming.message())
            .await
            .map_err(|_| Ended::Broken("no answer to the registration".into()))?;
        let message = said(message)?;
        // An operator that is no controller of the cluster, because the tables are lost, has no
        // epoch. It can only refuse.
        if message.controller_epoch == 0
            && let Some(FromController::Refused(refused)) = message.message
        {
            return Err(refusal(refused));
        }
        self.check_epoch(message.controller_epoch)?;
        match message.message {
            Some(FromController::Registered(registered)) => {
                info!(
                    broker_epoch = registered.broker_epoch,
                    controller_epoch = message.controller_epoch,
                    "registered with the controller"
                );
                let epoch = Some(registered.broker_epoch);
                // From here on the roles of the last run have ended, even if this task is
                // interrupted.
                self.identity.previous_broker_epoch = epoch;
                self.patient_until = None;
                self.remember(registered.broker_epoch).await;
                // From here on the process itself knows its log: the log is complete as long as the
                // process lives.
                self.identity.clean = true;
                self.controller.standing.send_modify(|standing| {
                    *standing = ControllerStatus {
                        broker_epoch: epoch,
                        connected: true,
                        fenced: true,
                        may_shut_down: false,
                    }
                });
                Ok(registered)
            }
            Some(FromController::Refused(refused)) => Err(refusal(refused)),
            _ => Err(Ended::Broken("the controller did not answer the registration".into())),
        }
    }

    /// Stores the broker epoch for the next run, before this run does anything under it.
    async fn remember(&self, epoch: i64) {
        let replicas = Arc::clone(&self.replicas);
        let written =
            tokio::task::spawn_blocking(move || replicas.log_dir().set_broker_epoch(epoch)).await;
        if let Ok(Err(error)) = written {
            warn!(%error, "cannot write the broker epoch down: the next start may be taken for one that lost records");
        }
    }

    /// Applies a message of the controller. Returns whether it was metadata.
    fn apply(&mut self, message: rpc::ControllerMessage) -> Result<bool, Ended> {
        self.check_epoch(message.controller_epoch)?;
        match message.message {
            Some(FromController::Metadata(update)) => {
                self.apply_update(update)?;
                return Ok(true);
            }
            Some(FromController::HeartbeatReply(reply)) => {
                self.controller.standing.send_if_modified(|standing| {
                    let next = ControllerStatus {
                        fenced: reply.fenced,
                        may_shut_down: reply.may_shut_down,
                        ..*standing
                    };
                    std::mem::replace(standing, next) != next
                });
            }
            Some(FromController::Refused(refused)) => return Err(refusal(refused)),
            Some(FromController::Registered(_)) | None => {
                return Err(Ended::Broken("an answer that nobody asked for".into()));
            }
        }
        Ok(false)
    }

    /// Rejects messages of a deposed controller.
    fn check_epoch(&mut self, epoch: i64) -> Result<(), Ended> {
        let epoch = ControllerEpoch(epoch);
        if epoch < self.controller_epoch {
            return Err(Ended::Broken(format!(
                "controller epoch {epoch} is older than {}",
                self.controller_epoch
            )));
        }
        self.controller_epoch = epoch;
        Ok(())
    }

    fn apply_update(&mut self, update: rpc::MetadataUpdate) -> Result<(), Ended> {
        let before = self.metadata.load();
        if !update.full && update.version <= before.version {
            return Ok(());
        }
        let (next, touched) = before
            .after(self.controller_epoch, &update)
            .map_err(|error| Ended::Broken(error.to_string()))?;
        debug!(version = next.version, full = update.full, topics = touched.len(), "metadata");
        // The disk comes first, so that the next run finds everything that this one knew. Then the
        // partitions take their roles, before readers see them in the image.
        if let Some(epoch) = self.identity.previous_broker_epoch {
            self.controller.keeper.keep(self.replicas.log_dir(), epoch, update, &next);
        }
        self.replicas.apply(&before, &next, &touched);
        drop(before);
        self.metadata.publish(next);
        self.is_told = true;
        Ok(())
    }

    fn registration(&self) -> rpc::Registration {
        let identity = &self.identity;
        rpc::Registration {
            cluster_id: identity.cluster_id.clone(),
            broker_id: identity.broker_id,
            incarnation: identity.incarnation.as_bytes().to_vec(),
            log_dir_id: identity.log_dir_id.as_bytes().to_vec(),
            endpoints: identity.endpoints.clone(),
            rack: identity.rack.clone(),
            previous_broker_epoch: identity.previous_broker_epoch,
            clean: identity.clean,
            controller_epoch: self.controller_epoch.0,
            logs: log_epochs(self.replicas.log_dir().latest_epochs()),
        }
    }

    fn heartbeat(&self, broker_epoch: i64) -> rpc::Heartbeat {
        // The last run's metadata does not count as applied under this registration.
        let applied_version = if self.is_told { self.metadata.load().version } else { 0 };
        rpc::Heartbeat {
            broker_epoch,
            applied_version,
            ready: applied_version > 0,
            wants_shutdown: *self.controller.wants_shutdown.borrow(),
            log_dir_failure: self.controller.log_dir_failure.lock().clone().unwrap_or_default(),
            identity: self.controller.candidates.identity().map(|identity| {
                let Shown { own, cas } = identity.shown();
                let bytes = |one: &Fingerprint| one.as_bytes().to_vec();
                rpc::NodeIdentity { certificate: bytes(own), cas: cas.iter().map(bytes).collect() }
            }),
        }
    }
}

/// Returns the controller's message, unless the stream has ended.
fn said(
    message: Result<Option<rpc::ControllerMessage>, tonic::Status>,
) -> Result<rpc::ControllerMessage, Ended> {
    message?.ok_or_else(|| Ended::Broken("the controller ended the stream".into()))
}

/// Returns when a start has waited long enough and no controller has accepted its registration.
async fn nobody_answers(controller: Arc<Controller>, patient_until: Option<Instant>) {
    match patient_until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
    if controller.is_heard.load(Ordering::Relaxed) {
        tokio::time::sleep(REGISTRATION_MAX).await;
    }
    if controller.standing.borrow().broker_epoch.is_some() {
        std::future::pending().await
    }
}

fn log_epochs(latest: Vec<(TopicPartition, LeaderEpoch)>) -> Vec<rpc::LogEpochs> {
    let mut topics: BTreeMap<TopicId, rpc::LogEpochs> = BTreeMap::new();
    for (id, epoch) in latest {
        let topic = topics.entry(id.topic).or_insert_with(|| rpc::LogEpochs {
            topic_id: id.topic.0.as_bytes().to_vec(),
            ..Default::default()
        });
        topic.partitions.push(id.index);
        topic.leader_epochs.push(epoch.0);
    }
    topics.into_values().collect()
}

fn refusal(refused: rpc::Refused) -> Ended {
    let code = i16::try_from(refused.error_code)
        .map_or(ErrorCode::UnknownServerError, ErrorCode::from_code);
    match code {
        // Another process still holds the id, or the epoch is old: both are temporary.
        ErrorCode::DuplicateBrokerRegistration
        | ErrorCode::StaleBrokerEpoch
        | ErrorCode::NotController => Ended::Broken(refused.reason),
        code => Ended::Fatal(Fatal { code, reason: refused.reason }),
    }
}
