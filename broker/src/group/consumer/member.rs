//! PURE: a member of a group of the consumer protocol, and what is known of one that speaks the
//! classic protocol.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::JoinGroupRequest;
use weir_protocol::messages::consumer_group_member_metadata_value::{
    ClassicMemberMetadata, ClassicProtocol,
};

use super::reconcile::Current;
use crate::group::classic::{Protocols, protocols};
use crate::group::deadlines::{Deadline, Session};
use crate::group::memory::{MEMBER_BYTES, NAME_BYTES, PROTOCOL_BYTES};

/// A member.
#[derive(Clone, Debug)]
pub(in crate::group) struct Member {
    pub(super) id: Arc<str>,
    pub(super) instance: Option<Arc<str>>,
    pub(super) rack: Option<Arc<str>>,
    pub(super) client_id: Arc<str>,
    pub(super) client_host: Arc<str>,
    pub(super) topics: BTreeSet<Arc<str>>,
    pub(super) regex: Option<Arc<str>>,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) assignor: Option<Arc<str>>,
    pub(super) current: Current,
    /// Of a member that speaks the classic protocol.
    pub(super) classic: Option<Classic>,
    pub(super) session: Session,
    pub(super) due: Promises,
}

/// When a member must have done its part of a rebalance.
#[derive(Clone, Debug, Default)]
pub(super) struct Promises {
    /// Given up what it is to: of the consumer protocol.
    pub(super) revocation: Option<u64>,
    /// Joined again: of the classic protocol.
    pub(super) join: Deadline,
    /// Synced: of the classic protocol.
    pub(super) sync: Deadline,
}

impl Promises {
    /// Nothing is awaited any more.
    pub(super) fn clear(&mut self) {
        self.revocation = None;
        self.join.clear();
        self.sync.clear();
    }
}

impl Member {
    pub(super) fn new(id: Arc<str>) -> Self {
        Self {
            id,
            instance: None,
            rack: None,
            client_id: "".into(),
            client_host: "".into(),
            topics: BTreeSet::new(),
            regex: None,
            rebalance_timeout_ms: -1,
            assignor: None,
            current: Current::default(),
            classic: None,
            session: Session::default(),
            due: Promises::default(),
        }
    }

    /// What it takes ([`crate::group::memory`]) but for its partitions.
    pub(super) fn said_bytes(&self) -> usize {
        let length = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
        let topics = self.topics.iter().map(|name| NAME_BYTES + name.len());
        let classic = self.classic.iter().flat_map(|classic| &classic.protocols);
        let said = classic.map(|(name, said)| PROTOCOL_BYTES + name.len() + said.len());
        MEMBER_BYTES
            + self.id.len()
            + length(&self.instance)
            + length(&self.rack)
            + self.client_id.len()
            + self.client_host.len()
            + length(&self.regex)
            + length(&self.assignor)
            + topics.chain(said).sum::<usize>()
    }

    /// Whether both would be written down alike.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        (&self.instance, &self.rack, &self.client_id, &self.client_host)
            == (&other.instance, &other.rack, &other.client_id, &other.client_host)
            && (&self.topics, &self.regex, &self.assignor)
                == (&other.topics, &other.regex, &other.assignor)
            && self.rebalance_timeout_ms == other.rebalance_timeout_ms
            && self.classic == other.classic
    }

    /// Whether it is in this epoch, which members of the classic protocol call their generation.
    pub(super) fn check_epoch(&self, epoch: i32) -> Result<(), ErrorCode> {
        match &self.classic {
            _ if self.current.epoch == epoch => Ok(()),
            Some(_) => Err(ErrorCode::IllegalGeneration),
            None => Err(ErrorCode::StaleMemberEpoch),
        }
    }
}

/// What is known of a member because it speaks the classic protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::group) struct Classic {
    pub(super) session_timeout_ms: i32,
    /// What it can do, and what it says in each.
    pub(super) protocols: Protocols,
}

impl Classic {
    pub(super) fn new(request: &JoinGroupRequest) -> Self {
        Self {
            session_timeout_ms: request.session_timeout_ms,
            protocols: protocols(request, &Protocols::new()),
        }
    }

    pub(super) fn of_record(value: ClassicMemberMetadata) -> Self {
        let copied = |protocol: ClassicProtocol| {
            (protocol.name.into(), Bytes::copy_from_slice(&protocol.metadata))
        };
        Self {
            session_timeout_ms: value.session_timeout_ms,
            protocols: value.supported_protocols.into_iter().map(copied).collect(),
        }
    }

    pub(super) fn record(&self) -> ClassicMemberMetadata {
        let protocol = |(name, metadata): &(Arc<str>, Bytes)| ClassicProtocol {
            name: name.to_string(),
            metadata: metadata.clone(),
        };
        ClassicMemberMetadata {
            session_timeout_ms: self.session_timeout_ms,
            supported_protocols: self.protocols.iter().map(protocol).collect(),
        }
    }

    /// The protocol that it is told to speak: all of a consumer's say the same here.
    pub(super) fn protocol(&self) -> Option<&str> {
        self.protocols.first().map(|(name, _)| &**name)
    }
}
