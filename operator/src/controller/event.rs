//! The input and the output of a decision: [`Event`], [`Moment`], [`Outcome`], [`Reply`].
//!
//! The shell makes events from the brokers' messages, the users' resources and the time, and sends
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

/// The input of a decision.
#[derive(Clone, Debug)]
pub enum Event {
    /// A broker registers.
    Register(Registration),
    /// A broker's heartbeat.
    Heartbeat(Heartbeat),
    /// A leader proposes new ISRs.
    AlterPartitions(AlterPartitions),
    /// A broker asks for a block of producer ids.
    AllocateProducerIds {
        /// The broker.
        broker: BrokerId,
        /// Its epoch.
        epoch: BrokerEpoch,
    },
    /// A Kafka client asks for an administrative change. The broker has authorised it.
    Admin {
        /// The broker that received it.
        broker: BrokerId,
        /// Its epoch.
        epoch: BrokerEpoch,
        /// The client's request.
        request: AdminRequest,
    },
    /// The addresses of a broker changed after its registration, or it lost one: a load balancer
    /// got its address, or a pod moved to another node.
    UpdateEndpoints {
        /// The broker's id.
        broker: BrokerId,
        /// Its endpoints as the sender read them. If the broker has registered others meanwhile,
        /// nothing changes: the sender has to look again.
        before: Vec<Endpoint>,
        /// All of its endpoints.
        endpoints: Vec<Endpoint>,
    },
    /// A user wrote resources; the controller accepts all of them or none.
    Apply(Vec<Resource>),
    /// A user deletes a resource.
    Delete(Kind, Key),
    /// The object of this uid at the API server, a Topic, is gone.
    Gone(Key, String),
    /// Keeps the topic although its Topic resource goes: the operator no longer watches the
    /// namespace, or the deletion was not meant for the topic.
    Retain(Key),
    /// It is time to balance the leaders.
    Balance,
    /// Time passed.
    Tick,
}

/// The broker's own description when it joins.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The cluster that its log directory belongs to.
    pub cluster_id: String,
    /// Its id.
    pub broker: BrokerId,
    /// Random at each start of its process.
    pub incarnation: Uuid,
    /// Random when its log directory was formatted.
    pub log_dir: Uuid,
    /// The addresses of its listeners.
    pub endpoints: Vec<Endpoint>,
    /// Its rack, if it has one.
    pub rack: Option<String>,
    /// The epoch under which its log directory was last used; `None` for a fresh one.
    pub previous_epoch: Option<BrokerEpoch>,
    /// It stopped cleanly: its log is complete up to its end.
    pub clean: bool,
    /// The highest controller epoch that it has accepted.
    pub controller_epoch: ControllerEpoch,
    /// The newest leader epoch in each of its logs, by topic and partition.
    pub leader_epochs: Vec<(TopicId, i32, LeaderEpoch)>,
    /// A certificate says that it is this broker.
    pub is_certified: bool,
}

/// A broker's heartbeat.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// The broker's id.
    pub broker: BrokerId,
    /// Its epoch.
    pub epoch: BrokerEpoch,
    /// The newest metadata version that it has applied.
    pub applied_version: u64,
    /// It has finished recovery and bound its listeners.
    pub ready: bool,
    /// It asks for a controlled shutdown.
    pub wants_shutdown: bool,
    /// Its log directory is offline.
    pub log_dir_failed: bool,
}

/// A leader's request for new ISRs of partitions that it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterPartitions {
    /// The broker's id.
    pub broker: BrokerId,
    /// Its epoch.
    pub epoch: BrokerEpoch,
    /// The proposed ISRs.
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
    /// The partition epoch on which the proposal builds.
    pub partition_epoch: PartitionEpoch,
    /// The whole ISR, the leader included, each with the broker epoch under which it fetched. If a
    /// replica restarted since, it does not join. `-1`: it was in the ISR before, and has not
    /// fetched from this leader.
    pub isr: Vec<(BrokerId, BrokerEpoch)>,
    /// The leader was elected uncleanly and has recovered.
    pub recovered: bool,
}

/// The outside facts that a decision may use besides the state.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The time on a clock that never goes back.
    pub now: Timestamp,
    /// The wall-clock time, for timestamps that people read.
    pub wall: Time,
    /// Fresh random bits for new ids.
    pub seed: u128,
    /// Topic ids by name from an earlier attempt at the same decision, of which only a part was
    /// committed. Their resources may exist.
    pub given: BTreeMap<String, TopicId>,
}

/// The output of a decision.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// The reply that the sender gets once the changes are committed.
    pub reply: Reply,
    /// When to send [`Event::Tick`] at the latest.
    pub wake_at: Option<Timestamp>,
}

/// The answer to the event's sender.
#[derive(Debug, Default)]
pub enum Reply {
    /// Nothing.
    #[default]
    Nothing,
    /// The broker is registered under this epoch.
    Registered(BrokerEpoch),
    /// The heartbeat was accepted.
    Heartbeat {
        /// The broker may not serve yet, or no longer.
        fenced: bool,
        /// The controlled shutdown is granted.
        may_shut_down: bool,
    },
    /// The result of each ISR change, in the order of the request.
    AlteredPartitions(Vec<IsrChanged>),
    /// The leaders were balanced.
    Balanced {
        /// More leaders remain to be moved, in another round.
        more: bool,
    },
    /// The broker gets these producer ids: the first of
    /// [`PRODUCER_IDS_PER_BLOCK`](super::PRODUCER_IDS_PER_BLOCK).
    ProducerIds(i64),
    /// The broker's request is refused: Kafka's error and the reason.
    Refused(ErrorCode, String),
    /// The answer to a Kafka client.
    Admin(AdminResponse),
    /// What happened to each resource, in one word.
    Applied(Vec<&'static str>),
    /// The resources are refused; nothing was changed.
    Invalid(Refusal),
    /// The same, when more than one resource is invalid.
    AllInvalid(Vec<Refusal>),
}

/// The result of an [`IsrChange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrChanged {
    /// The topic.
    pub topic: TopicId,
    /// The partition's index.
    pub partition: i32,
    /// The partition as it is now, or Kafka's error.
    pub result: Result<Partition, ErrorCode>,
}
