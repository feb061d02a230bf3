//! What goes into a decision and what comes out of it: [`Event`], [`Moment`], [`Outcome`],
//! [`Reply`].
//!
//! The shell makes events of the brokers' messages, the users' resources and the time, and sends
//! the replies. Nothing here decides.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use uuid::Uuid;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{
    BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, PartitionEpoch, TopicId,
};

use super::admin_request::{AdminRequest, AdminResponse};
use super::key::Key;
use super::resource::{Kind, Refusal, Resource};
use super::sessions::Timestamp;
use super::state::{Change, Endpoint, Partition};

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A broker asks to be part of the cluster.
    Register(Registration),
    /// A broker says that it is there.
    Heartbeat(Heartbeat),
    /// A leader asks for other ISRs.
    AlterPartitions(AlterPartitions),
    /// A broker asks for a block of producer ids.
    AllocateProducerIds {
        /// Who asks.
        broker: BrokerId,
        /// Its epoch.
        epoch: BrokerEpoch,
    },
    /// A Kafka client asks for an administrative change; the broker has authorised it.
    Admin {
        /// The broker that received it.
        broker: BrokerId,
        /// Its epoch.
        epoch: BrokerEpoch,
        /// What is asked.
        request: AdminRequest,
    },
    /// Clients reach a broker elsewhere than it said, or not any more: a load balancer got its
    /// address, a pod another node.
    Readdress {
        /// The broker.
        broker: BrokerId,
        /// All of its endpoints.
        endpoints: Vec<Endpoint>,
    },
    /// A user wrote resources: all of them or none.
    Apply(Vec<Resource>),
    /// A user deletes a resource.
    Delete(Kind, Key),
    /// The Topic that lies here is not followed any more, or goes without its topic being meant:
    /// the topic is retained.
    Retain(Key),
    /// It is time to balance the leaders.
    Balance,
    /// Time passed.
    Tick,
}

/// What a broker says of itself when it joins.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The cluster that it was made for.
    pub cluster_id: String,
    /// Its id.
    pub broker: BrokerId,
    /// Random at each start of its process.
    pub incarnation: Uuid,
    /// Random when its log directory was formatted.
    pub log_dir: Uuid,
    /// Where it answers.
    pub endpoints: Vec<Endpoint>,
    /// Its rack, if it has one.
    pub rack: Option<String>,
    /// The epoch under which its log directory was last used; `None` for a fresh one.
    pub previous_epoch: Option<BrokerEpoch>,
    /// Its log is whole up to its end.
    pub clean: bool,
    /// The highest controller epoch that it has obeyed.
    pub controller_epoch: ControllerEpoch,
    /// The newest leader epoch in each of its logs, by topic and partition.
    pub leader_epochs: Vec<(TopicId, i32, LeaderEpoch)>,
}

/// A sign of life.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// Who.
    pub broker: BrokerId,
    /// Its epoch.
    pub epoch: BrokerEpoch,
    /// The newest metadata version that it has applied.
    pub applied_version: u64,
    /// Recovery is over and the listeners are bound.
    pub ready: bool,
    /// It wants to stop.
    pub wants_shutdown: bool,
    /// Its log directory is offline.
    pub log_dir_failed: bool,
}

/// A leader asks for other ISRs of partitions that it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterPartitions {
    /// Who asks.
    pub broker: BrokerId,
    /// Its epoch.
    pub epoch: BrokerEpoch,
    /// What it asks for.
    pub changes: Vec<IsrChange>,
}

/// The ISR that a leader wants for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrChange {
    /// The topic.
    pub topic: TopicId,
    /// The partition's index.
    pub partition: i32,
    /// The epoch under which it leads.
    pub leader_epoch: LeaderEpoch,
    /// The state that the change builds on.
    pub partition_epoch: PartitionEpoch,
    /// The whole ISR, the leader included, each with the epoch under which it fetched: a replica
    /// that was restarted since is no member. `-1`: it was in the ISR before, and has not fetched
    /// from this leader.
    pub isr: Vec<(BrokerId, BrokerEpoch)>,
    /// The leader, elected uncleanly, has recovered.
    pub recovered: bool,
}

/// What a decision may know of the world besides the state.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The time on a clock that never goes back.
    pub now: Timestamp,
    /// The time of day, for people.
    pub wall: Time,
    /// Fresh random bits: what ids are made from.
    pub seed: u128,
    /// The ids that topics of these names got when the same was decided before, and not all of it
    /// was taken: their resources may be there.
    pub given: BTreeMap<String, TopicId>,
}

/// What came of an event.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What changes, in order.
    pub changes: Vec<Change>,
    /// What is answered once the changes are committed.
    pub reply: Reply,
    /// When to send [`Event::Tick`] at the latest.
    pub wake_at: Option<Timestamp>,
}

/// What an event's sender is told.
#[derive(Debug, Default)]
pub enum Reply {
    /// Nothing.
    #[default]
    Nothing,
    /// The broker is registered under this epoch.
    Registered(BrokerEpoch),
    /// A heartbeat was taken.
    Heartbeat {
        /// The broker may not serve yet, or no more.
        fenced: bool,
        /// The controlled shutdown is granted.
        may_shut_down: bool,
    },
    /// What became of each change of an ISR, in the order of the request.
    AlteredPartitions(Vec<IsrChanged>),
    /// Leaders were balanced.
    Balanced {
        /// There are more to be moved, in another round.
        more: bool,
    },
    /// These producer ids are the broker's: the first of
    /// [`PRODUCER_IDS_PER_BLOCK`](super::PRODUCER_IDS_PER_BLOCK).
    ProducerIds(i64),
    /// The broker must not go on as it is: Kafka's error and the reason.
    Refused(ErrorCode, String),
    /// The answer to a Kafka client.
    Admin(AdminResponse),
    /// What became of each resource, in a word.
    Applied(Vec<&'static str>),
    /// The resources are refused: nothing was changed.
    Invalid(Refusal),
    /// The same, where more than one is wrong.
    AllInvalid(Vec<Refusal>),
}

/// What became of an [`IsrChange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrChanged {
    /// The topic.
    pub topic: TopicId,
    /// The partition's index.
    pub partition: i32,
    /// The partition as it is now, or Kafka's error.
    pub result: Result<Partition, ErrorCode>,
}
