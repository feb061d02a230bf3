//! PURE: a member of a classic group (`ClassicGroupMember` in Apache Kafka).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use bytes::Bytes;
use weir_protocol::messages::{JoinGroupRequest, JoinGroupResponse, SyncGroupResponse};

use crate::coordinator::{Outcome, ReplyTo};
use crate::group::client::Client;
use crate::group::deadlines::Session;
use crate::group::memory::{MEMBER_BYTES, PROTOCOL_BYTES};

/// What a member can do, in the order in which it would rather do it: the protocol's name, and what
/// the member says to the leader in it.
pub(in crate::group) type Protocols = Vec<(Arc<str>, Bytes)>;

/// A member.
#[derive(Debug)]
pub(in crate::group) struct Member {
    pub(in crate::group) id: Arc<str>,
    /// A static member's id of its own (KIP-345).
    pub(in crate::group) instance: Option<Arc<str>>,
    pub(in crate::group) client_id: Arc<str>,
    pub(in crate::group) client_host: Arc<str>,
    pub(in crate::group) rebalance_timeout_ms: i32,
    pub(in crate::group) session_timeout_ms: i32,
    pub(in crate::group) protocols: Protocols,
    pub(in crate::group) assignment: Bytes,
    pub(in crate::group) session: Session,
    /// It has not been answered since it joined: its client does not know its id yet.
    pub(in crate::group) is_new: bool,
    pub(in crate::group) awaits_join: Option<ReplyTo<JoinGroupResponse>>,
    pub(in crate::group) awaits_sync: Option<ReplyTo<SyncGroupResponse>>,
}

/// The protocols of a request. Bytes are copied out of it: it would be kept in memory whole.
pub(in crate::group) fn protocols(request: &JoinGroupRequest, known: &Protocols) -> Protocols {
    let name = |name: &str| match known.iter().find(|(known, _)| **known == *name) {
        Some((known, _)) => Arc::clone(known),
        None => name.into(),
    };
    request
        .protocols
        .iter()
        .map(|protocol| (name(&protocol.name), Bytes::copy_from_slice(&protocol.metadata)))
        .collect()
}

impl Member {
    /// Who asks to join, under this id.
    pub(in crate::group) fn new(
        id: Arc<str>,
        client: &Client,
        request: &JoinGroupRequest,
        known: &Protocols,
    ) -> Self {
        Self {
            id,
            instance: request.group_instance_id.as_deref().map(Arc::from),
            client_id: client.id.as_str().into(),
            client_host: client.host.as_str().into(),
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: protocols(request, known),
            assignment: Bytes::new(),
            session: Session::default(),
            is_new: true,
            awaits_join: None,
            awaits_sync: None,
        }
    }

    /// Whether it says the same as before.
    pub(in crate::group) fn matches(&self, request: &JoinGroupRequest) -> bool {
        self.protocols.len() == request.protocols.len()
            && self.protocols.iter().zip(&request.protocols).all(|((name, metadata), asked)| {
                **name == *asked.name && *metadata == asked.metadata
            })
    }

    /// What it says in this protocol.
    pub(in crate::group) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| **name == *protocol);
        found.map_or_else(Bytes::new, |(_, metadata)| metadata.clone())
    }

    /// What it takes ([`crate::group::memory`]).
    pub(super) fn bytes(&self) -> usize {
        self.said_bytes() + self.assignment.len()
    }

    /// Of that, what it says.
    pub(super) fn said_bytes(&self) -> usize {
        let protocols = self.protocols.iter();
        let said = protocols.map(|(name, said)| PROTOCOL_BYTES + name.len() + said.len());
        MEMBER_BYTES
            + self.id.len()
            + self.instance.as_ref().map_or(0, |instance| instance.len())
            + self.client_id.len()
            + self.client_host.len()
            + said.sum::<usize>()
    }

    /// Whether time does nothing to it: it waits for the group, not the group for it.
    pub(in crate::group) fn is_waiting(&self) -> bool {
        !self.is_new && (self.awaits_join.is_some() || self.awaits_sync.is_some())
    }

    pub(in crate::group) fn answer_join(
        &mut self,
        outcome: &mut Outcome,
        response: JoinGroupResponse,
    ) {
        if let Some(to) = self.awaits_join.take() {
            outcome.reply(to, response);
        }
    }

    /// Answers its SyncGroup; returns whether there was one.
    pub(in crate::group) fn answer_sync(
        &mut self,
        outcome: &mut Outcome,
        response: SyncGroupResponse,
    ) -> bool {
        match self.awaits_sync.take() {
            Some(to) => {
                outcome.reply(to, response);
                true
            }
            None => false,
        }
    }
}
