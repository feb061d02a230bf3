//! What is sent once a batch is committed: answers, metadata, and the first messages of a stream.

use tracing::warn;
use weir_protocol::controller as rpc;
use weir_protocol::types::BrokerId;

use super::{Answer, ControllerRuntime, PendingReply, Stream};
use crate::controller::sessions::{HEARTBEAT_INTERVAL_MS, SESSION_TIMEOUT_MS};
use crate::controller::state::{Change, State};
use crate::controller::{Reply, image};
use crate::store::Store;

impl<S: Store> ControllerRuntime<S> {
    pub(super) fn send_metadata(&mut self, before: &State, changes: &[Change]) {
        if let Some(update) = image::delta(before, &self.state, changes) {
            let message = self.message(rpc::controller_message::Message::Metadata(update));
            self.streams.retain(|broker, stream| {
                let told = stream.out.try_send(Ok(message.clone())).is_ok();
                if !told {
                    warn!(%broker, "the broker does not take its metadata: its stream is closed");
                }
                told
            });
        }
    }

    /// Grants shutdowns. The controller grants one once the other brokers have applied the new
    /// leaders. The grant follows a later commit, so it goes as a separate message.
    pub(super) fn send_granted_shutdowns(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Broker(broker) = change
                && broker.may_shut_down()
            {
                let (fenced, may_shut_down) = (true, true);
                self.reply(PendingReply::Heartbeat(
                    broker.id,
                    Reply::Heartbeat { fenced, may_shut_down },
                ));
            }
        }
    }

    pub(super) fn reply(&mut self, telling: PendingReply) {
        match telling {
            // The caller may be gone; then its answer is lost.
            PendingReply::Answer(tell, reply) => {
                drop(tell.send(Answer { reply, version: self.state.version }))
            }
            PendingReply::Query(look) => look(&self.state),
            PendingReply::Opened(broker, stream, reply) => self.send_opened(broker, stream, reply),
            PendingReply::Heartbeat(broker, reply) => {
                let message = match reply {
                    Reply::Heartbeat { fenced, may_shut_down } => {
                        rpc::controller_message::Message::HeartbeatReply(rpc::HeartbeatReply {
                            fenced,
                            may_shut_down,
                        })
                    }
                    other => refused(other),
                };
                let ends = matches!(message, rpc::controller_message::Message::Refused(_));
                let message = self.message(message);
                if let Some(stream) = self.streams.get(&broker)
                    && (stream.out.try_send(Ok(message)).is_err() || ends)
                {
                    self.streams.remove(&broker);
                }
            }
        }
    }

    /// Sends the first messages of a stream: the registration's answer and the whole metadata.
    fn send_opened(&mut self, broker: BrokerId, stream: Stream, reply: Reply) {
        let Reply::Registered(epoch) = reply else {
            let _ = stream.out.try_send(Ok(self.message(refused(reply))));
            return;
        };
        let registered = rpc::Registered {
            broker_epoch: epoch.0,
            heartbeat_interval_ms: HEARTBEAT_INTERVAL_MS,
            session_timeout_ms: SESSION_TIMEOUT_MS,
        };
        let registered = self.message(rpc::controller_message::Message::Registered(registered));
        let metadata =
            self.message(rpc::controller_message::Message::Metadata(image::full(&self.state)));
        // With two registrations of one broker in one batch, the later one has the session.
        let is_current = self.sessions.belongs_to(broker, stream.id);
        if is_current
            && stream.out.try_send(Ok(registered)).is_ok()
            && stream.out.try_send(Ok(metadata)).is_ok()
        {
            self.streams.insert(broker, stream);
        }
    }

    fn message(&self, message: rpc::controller_message::Message) -> rpc::ControllerMessage {
        rpc::ControllerMessage {
            controller_epoch: self.state.cluster.controller_epoch.0,
            message: Some(message),
        }
    }
}

fn refused(reply: Reply) -> rpc::controller_message::Message {
    let (error_code, reason) = match reply {
        Reply::Refused(code, reason) => (code as i16, reason),
        _ => (
            weir_protocol::error::ErrorCode::UnknownServerError as i16,
            "the controller has no answer".to_owned(),
        ),
    };
    rpc::controller_message::Message::Refused(rpc::Refused {
        error_code: error_code.into(),
        reason,
    })
}
