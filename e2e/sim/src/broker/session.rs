//! The session of a broker with the controller: it connects, registers and sends heartbeats.

use uuid::Uuid;
use weir_operator::controller::state::Endpoint;
use weir_operator::controller::{Heartbeat, Registration};
use weir_protocol::types::BrokerId;

use super::{HEARTBEAT_MS, Machine, SESSION_MS, Session};
use crate::ctx::{BrokerAlarm, Ctx};
use crate::message::{Body, Node, Stream};

impl Machine {
    pub(super) fn session_on(&mut self, stream: Stream) -> Option<&mut Session> {
        let session = self.process.as_mut()?.session.as_mut()?;
        (session.stream == stream).then_some(session)
    }

    pub(super) fn connect(&mut self, ctx: &mut Ctx<'_>) {
        let (id, run, boot_log_dir) = (self.id, self.run, self.disk.log_dir);
        let Some(process) = self.process.as_mut().filter(|process| process.session.is_none())
        else {
            return;
        };
        process.streams += 1;
        let stream = (run << 32) | (process.streams << 8) | id as u64;
        let operator = ctx.rng.index(2);
        process.session = Some(Session { stream, operator, registered: false, heard_at: ctx.now });
        let endpoint = Endpoint {
            listener: "PLAINTEXT".to_owned(),
            host: "localhost".to_owned(),
            port: 9092,
            security_protocol: "PLAINTEXT".to_owned(),
        };
        let registration = Registration {
            cluster_id: "simulated".to_owned(),
            broker: BrokerId(id as i32),
            incarnation: Uuid::from_u128(u128::from(run)),
            log_dir: Uuid::from_u128(boot_log_dir),
            endpoints: vec![endpoint],
            rack: None,
            previous_epoch: process.previous_epoch,
            clean: process.whole,
            controller_epoch: process.controller_epoch,
            leader_epochs: Vec::new(),
            is_certified: false,
        };
        ctx.send_on(
            stream,
            Node::Broker(id),
            Node::Operator(operator),
            Body::Open(stream, Box::new(registration)),
        );
    }

    pub(super) fn reconnect(&mut self, ctx: &mut Ctx<'_>) {
        let Some(process) = &mut self.process else { return };
        if let Some(Session { stream, operator, .. }) = process.session.take() {
            ctx.send_on(
                stream,
                Node::Broker(self.id),
                Node::Operator(operator),
                Body::Ended(stream, self.id),
            );
        }
        let pause = ctx.rng.between(20, 300);
        ctx.broker_alarm(pause, BrokerAlarm::Connect);
    }

    pub(super) fn beat(&mut self, ctx: &mut Ctx<'_>) {
        let id = self.id;
        let Some(process) = &mut self.process else { return };
        let Some(session) = process.session else { return };
        let silence = ctx.now - session.heard_at;
        if silence > SESSION_MS || (!session.registered && silence > HEARTBEAT_MS) {
            return self.reconnect(ctx);
        }
        let Some(epoch) = process.epoch.filter(|_| session.registered) else {
            return;
        };
        let applied_version =
            process.image.as_ref().filter(|_| process.is_told).map_or(0, |image| image.version);
        let heartbeat = Heartbeat {
            broker: BrokerId(id as i32),
            epoch,
            applied_version,
            ready: applied_version > 0,
            wants_shutdown: process.wants_shutdown,
            log_dir_failed: false,
        };
        let stream = session.stream;
        ctx.send_on(
            stream,
            Node::Broker(id),
            Node::Operator(session.operator),
            Body::Beat(stream, heartbeat),
        );
    }
}
