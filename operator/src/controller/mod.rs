//! The controller core: what the cluster's metadata becomes when something happens.
//!
//! [`decide`] is pure: it looks at the state and the event and says what changes, what is answered,
//! and when to look again. The shell ([`crate::shell`]) applies the changes, commits them to the
//! store and only then tells anyone. Nothing here does I/O, reads a clock or rolls dice, so that
//! whole clusters can be simulated.
//!
//! Invariants
//! - The order is decide, apply, commit, tell. No reply, image or log line leaves before the commit
//!   of the state that it speaks of.
//! - `State::apply` asserts what no decision may break. A leader is in its ISR. ISR and ELR are
//!   replicas and share none. Leader and partition epochs only go up. An ISR grows only around a
//!   leader that has recovered.
//! - Within a commit, partitions come before the registry of brokers. What a crash cuts off between
//!   the two, [`take_over`] settles first.
//! - A request of a client makes at most 10,000 changes or none, and names no more; 400,000 if it
//!   only asks (`limits`). The cost of a change does not depend on what else the request names.
//! - No broker is fenced for the time that decisions took: a heartbeat counts from its arrival, not
//!   from its turn.
//! - A controlled shutdown is granted, by fencing, once every remaining broker has applied the
//!   version in which leadership moved.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod admin;
mod admin_request;
mod apply;
mod brokers;
mod configs;
mod draft;
mod election;
mod error;
mod event;
mod features;
pub mod image;
mod isr;
mod key;
mod leaders;
mod limits;
mod names;
mod object_meta;
mod partitions;
mod placement;
mod quorum;
mod reassign;
pub mod recovery;
mod resource;
pub mod sessions;
pub mod state;
mod topic_name;
mod topics;
pub mod turned_down;

#[cfg(test)]
mod tests;

use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerEpoch, BrokerId, ControllerEpoch};

pub use admin_request::{AdminRequest, AdminResponse, BadForward};
pub(crate) use apply::gone;
use draft::Draft;
pub use event::{
    AlterPartitions, Event, Heartbeat, IsrChange, IsrChanged, Moment, Outcome, Registration, Reply,
};
pub use key::{DEFAULT_NAMESPACE, Key};
pub use leaders::balance_interval_ms;
pub use limits::{
    NAMED_TO_LIST_MAX, PARTITIONS_MAX, PARTITIONS_PER_REQUEST_MAX, PRODUCER_IDS_PER_BLOCK,
    RECORDS_PER_REQUEST_MAX, SETTINGS_BYTES_MAX,
};
pub use names::{is_subdomain, resource_name};
pub use object_meta::{TOPIC_ID_ANNOTATION, topic_id_on};
pub use partitions::summary;
pub use resource::{Kind, RETAINED, Refusal, Resource};
use sessions::Sessions;
use state::{Change, State};

/// Decides what an event changes. The state is looked at and never touched.
pub fn decide(state: &State, sessions: &Sessions, event: Event, moment: &Moment) -> Outcome {
    let mut draft = Draft::new(state, sessions, moment);
    let reply = match event {
        Event::Register(registration) => brokers::register(&mut draft, sessions, registration),
        Event::Heartbeat(heartbeat) => brokers::heartbeat(&mut draft, sessions, &heartbeat),
        Event::AlterPartitions(request) => isr::alter(&mut draft, request),
        Event::AllocateProducerIds { broker, epoch } => {
            allocate_producer_ids(&mut draft, broker, epoch)
        }
        Event::Admin { broker, epoch, request } => match brokers::check_epoch(state, broker, epoch)
        {
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
        Event::Apply(resources) => match apply::apply(&mut draft, resources) {
            Ok(verbs) => Reply::Applied(verbs),
            Err(refusals) => {
                draft = Draft::new(state, sessions, moment);
                match <[_; 1]>::try_from(refusals) {
                    Ok([refusal]) => Reply::Invalid(refusal),
                    Err(refusals) => Reply::AllInvalid(refusals),
                }
            }
        },
        Event::Delete(kind, key) => match apply::delete(&mut draft, kind, &key) {
            Ok(()) => Reply::Applied(vec!["deleted"]),
            Err(refusal) => Reply::Invalid(refusal),
        },
        Event::Retain(key) => apply::retain(&mut draft, &key),
        Event::Balance => leaders::balance(&mut draft),
        Event::Tick => {
            brokers::fence(&mut draft, &sessions.expired(moment.now));
            brokers::grant_shutdowns(&mut draft, sessions);
            Reply::Nothing
        }
    };
    Outcome { changes: draft.changes, reply, wake_at: sessions.next_deadline() }
}

/// What a controller does before anything else: it raises the epoch, so that its predecessor is
/// known for what it is, and brings to an end what the predecessor began: a commit that was cut off
/// between two objects leaves leaders that are fenced, partitions without a leader whose replicas
/// are alive, and topics that lack partitions.
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
        return Reply::Refused(
            ErrorCode::UnknownServerError,
            "all producer ids are given away".to_owned(),
        );
    };
    draft.push(Change::NextProducerId(next));
    Reply::ProducerIds(first)
}
