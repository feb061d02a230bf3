//! The controller core: what the cluster's metadata becomes when something happens.
//!
//! [`decide`] is pure: it looks at the state and the event and says what changes, what is answered, and when to look again. The shell
//! ([`crate::shell`]) applies the changes, commits them to the store and only then tells anyone. Nothing here does I/O, reads a clock or rolls dice,
//! so that whole clusters can be simulated.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod admin;
mod brokers;
mod configs;
mod election;
mod features;
pub mod image;
mod isr;
mod key;
mod leaders;
mod names;
mod partitions;
mod placement;
mod quorum;
mod reassign;
pub mod recovery;
mod resources;
pub mod sessions;
pub mod state;
mod topics;
pub mod turned_down;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerEpoch, BrokerId, ControllerEpoch, TopicId};

pub use admin::{AdminRequest, AdminResponse};
pub use brokers::{Heartbeat, Registration};
pub use isr::{AlterPartitions, IsrChange, IsrChanged};
pub use key::Key;
pub use leaders::balance_interval_ms;
pub use names::{is_subdomain, resource_name};
pub use partitions::summary;
pub(crate) use resources::gone;
pub use resources::{DEFAULT_NAMESPACE, Kind, RETAINED, Refusal, Resource, TOPIC_ID_ANNOTATION, topic_id_on};
use sessions::{Sessions, Timestamp};
use state::{Change, State};

/// The most partitions that one request may create, as in Apache Kafka (`ReplicationControlManager.MAX_PARTITIONS_PER_BATCH`).
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// The most changes that one request of a Kafka client may make, and the most things that it may name to change, as in Apache Kafka (`QuorumController.MAX_RECORDS_PER_USER_OP`): while
/// one is decided, all others wait.
pub const RECORDS_PER_REQUEST_MAX: usize = 10_000;

/// The most partitions of a cluster: what its shards can hold and a failover can write in good time.
pub const PARTITIONS_MAX: usize = 200_000;

/// The most topics and partitions that a request may name that only asks about them: each partition of the largest cluster, as `kafka-topics --describe` does, with
/// a topic for each. Apache Kafka has no bound.
pub const NAMED_TO_LIST_MAX: usize = 2 * PARTITIONS_MAX;

/// Producer ids that a broker gets at a time: so many producers begin while no controller is there. Apache Kafka has 1,000 (`ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
pub const PRODUCER_IDS_PER_BLOCK: i64 = 10_000;

/// The most bytes of settings on one topic or broker: they are kept in memory and sent to every broker.
pub const SETTINGS_BYTES_MAX: usize = 32 * 1024;

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
    /// Clients reach a broker elsewhere than it said, or not any more: a load balancer got its address, a pod another node.
    Readdress {
        /// The broker.
        broker: BrokerId,
        /// All of its endpoints.
        endpoints: Vec<state::Endpoint>,
    },
    /// A user wrote resources: all of them or none.
    Apply(Vec<Resource>),
    /// A user deletes a resource.
    Delete(Kind, Key),
    /// The Topic that lies here is not followed any more, or goes without its topic being meant: the topic is retained.
    Retain(Key),
    /// It is time to balance the leaders.
    Balance,
    /// Time passed.
    Tick,
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
    /// The ids that topics of these names got when the same was decided before, and not all of it was taken: their resources may be there.
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
    /// These producer ids are the broker's: the first of [`PRODUCER_IDS_PER_BLOCK`].
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

/// Decides what an event changes. The state is looked at and never touched.
pub fn decide(state: &State, sessions: &Sessions, event: Event, moment: &Moment) -> Outcome {
    let mut draft = Draft::new(state, sessions, moment);
    let reply = match event {
        Event::Register(registration) => brokers::register(&mut draft, sessions, registration),
        Event::Heartbeat(heartbeat) => brokers::heartbeat(&mut draft, sessions, &heartbeat),
        Event::AlterPartitions(request) => isr::alter(&mut draft, request),
        Event::AllocateProducerIds { broker, epoch } => allocate_producer_ids(&mut draft, broker, epoch),
        Event::Admin { broker, epoch, request } => match brokers::check_epoch(state, broker, epoch) {
            Ok(()) => match admin::carry_out(&mut draft, request) {
                Ok(response) => Reply::Admin(response),
                Err(error) => {
                    draft = Draft::new(state, sessions, moment);
                    Reply::Refused(error.code, error.message)
                }
            },
            Err(refused) => refused,
        },
        Event::Readdress { broker, endpoints } => {
            brokers::readdress(&mut draft, broker, endpoints);
            Reply::Nothing
        }
        Event::Apply(resources) => match resources::apply(&mut draft, resources) {
            Ok(verbs) => Reply::Applied(verbs),
            Err(refusals) => {
                draft = Draft::new(state, sessions, moment);
                match <[_; 1]>::try_from(refusals) {
                    Ok([refusal]) => Reply::Invalid(refusal),
                    Err(refusals) => Reply::AllInvalid(refusals),
                }
            }
        },
        Event::Delete(kind, key) => match resources::delete(&mut draft, kind, &key) {
            Ok(()) => Reply::Applied(vec!["deleted"]),
            Err(refusal) => Reply::Invalid(refusal),
        },
        Event::Retain(key) => resources::retain(&mut draft, &key),
        Event::Balance => leaders::balance(&mut draft),
        Event::Tick => {
            brokers::fence(&mut draft, &sessions.expired(moment.now));
            brokers::grant_shutdowns(&mut draft, sessions);
            Reply::Nothing
        }
    };
    Outcome {
        changes: draft.changes,
        reply,
        wake_at: sessions.next_deadline(),
    }
}

/// What a controller does before anything else: it raises the epoch, so that its predecessor is known for what it is, and brings to an end what
/// the predecessor began: a commit that was cut off between two objects leaves leaders that are fenced, partitions without a leader whose replicas are
/// alive, and topics that lack partitions.
pub fn take_over(state: &State, moment: &Moment) -> Vec<Change> {
    let nobody = Sessions::default();
    let mut draft = Draft::new(state, &nobody, moment);
    draft.push(Change::ControllerEpoch(ControllerEpoch(
        state.cluster.controller_epoch.0.saturating_add(1),
    )));
    features::begin(&mut draft);
    partitions::settle_what_was_cut_off(&mut draft);
    partitions::elect_where_leaderless(&mut draft);
    partitions::place_what_is_missing(&mut draft);
    draft.changes
}

fn allocate_producer_ids(draft: &mut Draft<'_>, broker: BrokerId, epoch: BrokerEpoch) -> Reply {
    if let Err(refused) = brokers::check_epoch(&draft.state, broker, epoch) {
        return refused;
    }
    let first = draft.state.cluster.next_producer_id;
    let Some(next) = first.checked_add(PRODUCER_IDS_PER_BLOCK) else {
        return Reply::Refused(ErrorCode::UnknownServerError, "all producer ids are given away".to_owned());
    };
    draft.push(Change::NextProducerId(next));
    Reply::ProducerIds(first)
}

/// A decision that is being made: the state as it would be, and the changes that lead there.
#[derive(Debug)]
struct Draft<'a> {
    state: State,
    sessions: &'a Sessions,
    changes: Vec<Change>,
    moment: &'a Moment,
    ids: u128,
    /// The changes that were made, those of branches that were thrown away, too.
    spent: usize,
}

impl<'a> Draft<'a> {
    fn new(state: &State, sessions: &'a Sessions, moment: &'a Moment) -> Self {
        Self {
            state: state.clone(),
            sessions,
            changes: Vec::new(),
            moment,
            ids: 0,
            spent: 0,
        }
    }

    fn push(&mut self, change: Change) {
        self.state.apply(&change);
        self.changes.push(change);
        self.spent += 1;
    }

    /// Whether more was changed than one request may.
    fn is_spent(&self) -> bool {
        self.spent > RECORDS_PER_REQUEST_MAX
    }

    /// A draft of a part of this decision, which may be thrown away.
    fn branch(&self) -> Self {
        Self {
            state: self.state.clone(),
            sessions: self.sessions,
            changes: Vec::new(),
            moment: self.moment,
            ids: self.ids,
            spent: self.spent,
        }
    }

    /// Ends a branch, whose changes are taken over or thrown away.
    fn merge(&mut self, branch: Self, take: bool) {
        self.spent = branch.spent;
        if take {
            self.state = branch.state;
            // The cluster's resource is one object: of its changes the last one holds them all, and thousands of copies would take the memory.
            let is_cluster = |change: Option<&Change>| matches!(change, Some(Change::Cluster(_)));
            if is_cluster(self.changes.last()) && is_cluster(branch.changes.first()) {
                self.changes.pop();
            }
            self.changes.extend(branch.changes);
            self.ids = branch.ids;
        }
    }

    /// A topic id that no topic has, for the topic of this name.
    fn topic_id(&mut self, name: &str) -> TopicId {
        if let Some(id) = self.moment.given.get(name).filter(|id| !self.state.topics.contains_key(*id)) {
            return *id;
        }
        loop {
            let bits = self.moment.seed.wrapping_add(self.ids);
            self.ids += 1;
            let id = TopicId(uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid());
            if !self.state.topics.contains_key(&id) && self.moment.given.values().all(|given| *given != id) {
                return id;
            }
        }
    }
}
