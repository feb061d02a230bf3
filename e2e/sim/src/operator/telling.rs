//! What an operator tells the brokers, each on its stream, once a commit is through.

use weir_operator::controller::sessions::StreamId;
use weir_operator::controller::state::{Broker, Change};
use weir_operator::controller::{Registration, Reply};
use weir_protocol::error::ErrorCode;
use weir_protocol::types::BrokerId;

use super::{Running, Telling};
use crate::ctx::Ctx;
use crate::message::{Body, Node, Stream, Told};

impl Running {
    pub(super) fn tell(
        &mut self,
        id: usize,
        changes: &[Change],
        tellings: Vec<Telling>,
        ctx: &mut Ctx<'_>,
    ) {
        if changes.iter().any(|change| {
            matches!(
                change,
                Change::Partition(..)
                    | Change::Broker(_)
                    | Change::Topic(..)
                    | Change::RemoveTopic(..)
            )
        }) {
            for (broker, stream) in self.streams.clone() {
                let state = Box::new(self.state.clone());
                self.say(id, broker, stream, Told::Metadata { full: false, state }, ctx);
            }
        }
        for change in changes {
            if let Change::Broker(broker) = change
                && broker.may_shut_down()
            {
                self.tell_beat(id, broker.id, broker, ctx);
            }
        }
        for telling in tellings {
            match telling {
                Telling::Altered(to, call, reply) => {
                    let result = match reply {
                        Reply::AlteredPartitions(results) => results
                            .into_iter()
                            .next()
                            .map_or(Err(ErrorCode::UnknownServerError), |one| one.result),
                        Reply::Refused(code, _) => Err(code),
                        _ => Err(ErrorCode::UnknownServerError),
                    };
                    ctx.send(Node::Operator(id), to, Body::Altered(call, Box::new(result)));
                }
                Telling::Opened(registration, stream, reply) => {
                    self.tell_opened(id, &registration, stream, reply, ctx)
                }
                Telling::Beat(broker, Reply::Heartbeat { fenced, may_shut_down }) => {
                    if let Some(stream) = self.streams.get(&broker).copied() {
                        self.say(id, broker, stream, Told::Beat { fenced, may_shut_down }, ctx);
                    }
                }
                Telling::Beat(broker, _) => {
                    if let Some(stream) = self.streams.get(&broker).copied() {
                        self.say(
                            id,
                            broker,
                            stream,
                            Told::Refused(ErrorCode::StaleBrokerEpoch),
                            ctx,
                        );
                    }
                    self.close(id, broker, ctx);
                }
            }
        }
    }

    fn tell_beat(&self, id: usize, to: BrokerId, broker: &Broker, ctx: &mut Ctx<'_>) {
        if let Some(stream) = self.streams.get(&to) {
            let (fenced, may_shut_down) = (broker.fenced, broker.may_shut_down());
            self.say(id, to, *stream, Told::Beat { fenced, may_shut_down }, ctx);
        }
    }

    fn tell_opened(
        &mut self,
        id: usize,
        registration: &Registration,
        stream: Stream,
        reply: Reply,
        ctx: &mut Ctx<'_>,
    ) {
        let broker = registration.broker;
        let Reply::Registered(epoch) = reply else {
            let code = if let Reply::Refused(code, _) = reply {
                code
            } else {
                ErrorCode::UnknownServerError
            };
            self.say(id, broker, stream, Told::Refused(code), ctx);
            return;
        };
        ctx.checks.registered(
            epoch.0,
            broker.0 as usize,
            registration.incarnation.as_u128() as u64,
        );
        if self.sessions.belongs_to(broker, StreamId(stream)) {
            self.say(id, broker, stream, Told::Registered(epoch), ctx);
            let state = Box::new(self.state.clone());
            self.say(id, broker, stream, Told::Metadata { full: true, state }, ctx);
            self.streams.insert(broker, stream);
        }
    }

    fn say(&self, id: usize, broker: BrokerId, stream: Stream, told: Told, ctx: &mut Ctx<'_>) {
        let body = Body::Told(stream, self.state.cluster.controller_epoch, told);
        ctx.send_on(stream, Node::Operator(id), Node::Broker(broker.0 as usize), body);
    }

    pub(super) fn close(&mut self, id: usize, broker: BrokerId, ctx: &mut Ctx<'_>) {
        if let Some(stream) = self.streams.remove(&broker) {
            ctx.send_on(
                stream,
                Node::Operator(id),
                Node::Broker(broker.0 as usize),
                Body::Closed(stream),
            );
        }
    }

    pub(super) fn close_all(&self, id: usize, ctx: &mut Ctx<'_>) {
        for (broker, stream) in &self.streams {
            ctx.send_on(
                *stream,
                Node::Operator(id),
                Node::Broker(broker.0 as usize),
                Body::Closed(*stream),
            );
        }
    }
}
