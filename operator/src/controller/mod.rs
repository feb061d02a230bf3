//! The controller core: how each event changes the cluster's metadata.
//!
//! [`decide`] is pure: from the state and an event it computes the changes, the reply and the next
//! wake-up time. The shell ([`crate::shell`]) applies the changes, commits them to the store and
//! only then sends replies and images. Nothing here does I/O, reads a clock or draws random
//! numbers, so the simulation can run whole clusters.
//!
//! Invariants
//! - The order is decide, apply, commit, tell. No reply, image or log line leaves before the commit
//!   of the state that it reports.
//! - `State::apply` asserts the invariants of a partition. The leader is in the ISR. ISR and ELR
//!   are disjoint subsets of the replicas. Leader and partition epochs only go up. An ISR grows
//!   only if its leader has recovered.
//! - Within a commit, partitions come before the registry of brokers. When a crash separates the
//!   two, [`take_over`] first completes the decision.
//! - A client's request makes at most 10,000 changes, or none at all. It may name at most 10,000
//!   things to change, or 400,000 to read (`limits`). The cost of a change does not depend on the
//!   rest of the request.
//! - A slow controller does not fence brokers: a heartbeat counts from its arrival, not from the
//!   time when the controller handles it.
//! - The controller grants a controlled shutdown by fencing the broker. It does so once every
//!   remaining broker has applied the version that moved the leaders.
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
mod scram;
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
    CREDENTIALS_BYTES_MAX, NAMED_TO_LIST_MAX, PARTITIONS_MAX, PARTITIONS_PER_REQUEST_MAX,
    PRODUCER_IDS_PER_BLOCK, RECORDS_PER_REQUEST_MAX, SETTINGS_BYTES_MAX,
};
pub use names::{is_subdomain, resource_name};
pub use object_meta::{TOPIC_ID_ANNOTATION, topic_id_on};
pub use partitions::summary;
pub use resource::{Kind, RETAINED, Refusal, Resource};
use sessions::Sessions;
use state::{Change, State};

/// Decides how an event changes the state. It only reads the state; the caller applies the changes.
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
        Event::UpdateEndpoints { broker, before, endpoints } => {
            brokers::readdress(&mut draft, broker, &before, endpoints);
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
        Event::Gone(key, uid) => match apply::gone_object(&mut draft, &key, &uid) {
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

/// Returns the first changes of a new controller. It raises the controller epoch, so that brokers
/// can recognise its predecessor as old. Then it completes what the predecessor began. A commit
/// that was cut off between two objects leaves fenced leaders, partitions without a leader whose
/// replicas are alive, and topics that lack partitions.
pub fn take_over(state: &State, moment: &Moment) -> Vec<Change> {
    let nobody = Sessions::default();
    let mut draft = Draft::new(state, &nobody, moment);
    draft.push(Change::ControllerEpoch(ControllerEpoch(
        state.cluster.controller_epoch.0.saturating_add(1),
    )));
    features::begin(&mut draft);
    scram::begin(&mut draft);
    partitions::complete_interrupted_changes(&mut draft);
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
