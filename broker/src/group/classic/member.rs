//! PURE: a member of a classic group (`ClassicGroupMember` in Apache Kafka).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use bytes::Bytes;
use weir_protocol::messages::{JoinGroupRequest, JoinGroupResponse, SyncGroupResponse};

use crate::coordinator::{Outcome, ReplyTo};
use crate::group::client::Client;
use crate::group::deadlines::Session;
use crate::group::memory::{MEMBER_BYTES, PROTOCOL_BYTES};

/// The protocols of a member in the order of its preference: the name, and the metadata for the
/// group leader.
pub(in crate::group) type Protocols = Vec<(Arc<str>, Bytes)>;

/// A member.
#[derive(Debug)]
pub(in crate::group) struct Member {
    pub(in crate::group) id: Arc<str>,
    /// The group instance id of a static member (KIP-345).
    pub(in crate::group) instance: Option<Arc<str>>,
    pub(in crate::group) client_id: Arc<str>,
    pub(in crate::group) client_host: Arc<str>,
    pub(in crate::group) rebalance_timeout_ms: i32,
    pub(in crate::group) session_timeout_ms: i32,
    pub(in crate::group) protocols: Protocols,
    pub(in crate::group) assignment: Bytes,
    pub(in crate::group) session: Session,
    /// It has had no response since it joined, so its client does not know its id yet.
    pub(in crate::group) is_new: bool,
    pub(in crate::group) awaits_join: Option<ReplyTo<JoinGroupResponse>>,
    pub(in crate::group) awaits_sync: Option<ReplyTo<SyncGroupResponse>>,
}

/// The protocols of a request. Copies their bytes, which would otherwise keep the whole request in
/// memory.
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
    /// A joining member with this id.
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

    /// Whether the request has the same protocols and metadata.
    pub(in crate::group) fn matches(&self, request: &JoinGroupRequest) -> bool {
        self.protocols.len() == request.protocols.len()
            && self.protocols.iter().zip(&request.protocols).all(|((name, metadata), asked)| {
                **name == *asked.name && *metadata == asked.metadata
            })
    }

    /// Its metadata for this protocol.
    pub(in crate::group) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| **name == *protocol);
        found.map_or_else(Bytes::new, |(_, metadata)| metadata.clone())
    }

    /// The bytes that it takes ([`crate::group::memory`]).
    pub(super) fn bytes(&self) -> usize {
        self.said_bytes() + self.assignment.len()
    }

    /// The same without its assignment.
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

    /// Whether its session is suspended, because it waits for the group.
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
