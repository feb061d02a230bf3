//! PURE: a member of a consumer group, and the additional state of a member of the classic
//! protocol.
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
    /// Set for a member of the classic protocol.
    pub(super) classic: Option<Classic>,
    pub(super) session: Session,
    pub(super) due: Promises,
}

/// The deadlines of a member in a rebalance.
#[derive(Clone, Debug, Default)]
pub(super) struct Promises {
    /// For revoking partitions, in the consumer protocol.
    pub(super) revocation: Option<u64>,
    /// For joining again, in the classic protocol.
    pub(super) join: Deadline,
    /// For SyncGroup, in the classic protocol.
    pub(super) sync: Deadline,
}

impl Promises {
    /// Clears all deadlines.
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

    /// The bytes that it takes ([`crate::group::memory`]), without its partitions.
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

    /// Whether both would have the same record.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        (&self.instance, &self.rack, &self.client_id, &self.client_host)
            == (&other.instance, &other.rack, &other.client_id, &other.client_host)
            && (&self.topics, &self.regex, &self.assignor)
                == (&other.topics, &other.regex, &other.assignor)
            && self.rebalance_timeout_ms == other.rebalance_timeout_ms
            && self.classic == other.classic
    }

    /// Checks the member epoch, which members of the classic protocol call generation.
    pub(super) fn check_epoch(&self, epoch: i32) -> Result<(), ErrorCode> {
        match &self.classic {
            _ if self.current.epoch == epoch => Ok(()),
            Some(_) => Err(ErrorCode::IllegalGeneration),
            None => Err(ErrorCode::StaleMemberEpoch),
        }
    }
}

/// The state of a member that only the classic protocol has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::group) struct Classic {
    pub(super) session_timeout_ms: i32,
    /// The supported protocols, with the metadata of each.
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

    /// The protocol in its responses. All protocols of a consumer carry the same.
    pub(super) fn protocol(&self) -> Option<&str> {
        self.protocols.first().map(|(name, _)| &**name)
    }
}
