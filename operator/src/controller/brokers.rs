//! Registration, heartbeats, fencing and controlled shutdown of brokers (`ClusterControlManager`,
//! `BrokerHeartbeatManager` in Apache Kafka).
//!
//! A broker that may have lost the end of its log leaves every ISR and ELR before its new
//! registration is written. The partitions are written first and the broker last. After a crash in
//! between it registers again, and the controller cleans up again.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use weir_protocol::types::{BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, PartitionEpoch};

use super::draft::Draft;
use super::election::Loss;
use super::error::{ApiError, wire};
use super::event::{Heartbeat, Registration, Reply};
use super::partitions;
use super::sessions::Sessions;
use super::state::{Broker, Change, Endpoint, Partition, State};

/// The most endpoints of one broker, far more than it has listeners.
const ENDPOINTS_MAX: usize = 64;

pub(super) fn register(
    draft: &mut Draft<'_>,
    sessions: &Sessions,
    registration: Registration,
) -> Reply {
    let state = &draft.state;
    let id = registration.broker;
    let before = state.brokers.get(&id).cloned();
    if let Err((code, reason)) = check(draft, sessions, &registration, before.as_ref()) {
        return Reply::Refused(code, reason);
    }
    raise_above_what_brokers_saw(draft, &registration);
    let same_process =
        before.as_ref().filter(|before| before.incarnation == registration.incarnation);
    if let Some(before) = same_process {
        let now = broker_of(&registration, before.epoch, before.fenced, before.shutting_down);
        if now != *before {
            draft.push(Change::Broker(now));
        }
        return Reply::Registered(before.epoch);
    }
    match loss(&registration, before.as_ref()) {
        Some(loss) => partitions::remove_lost_from_isr(draft, id, loss),
        None => partitions::remove_from_isr(draft, &[id]),
    }
    let epoch = draft.state.cluster.next_broker_epoch;
    draft.push(Change::NextBrokerEpoch(BrokerEpoch(epoch.0 + 1)));
    draft.push(Change::Broker(broker_of(&registration, epoch, true, false)));
    Reply::Registered(epoch)
}

/// What this log may have lost since the broker's last registration. The clean-shutdown file holds
/// the epoch of the run that wrote it; with an older epoch it comes from a copy.
fn loss(new: &Registration, before: Option<&Broker>) -> Option<Loss> {
    match before {
        Some(before) if new.log_dir == before.log_dir => {
            let whole = new.clean && new.previous_epoch == Some(before.epoch);
            (!whole).then_some(Loss::Tail)
        }
        Some(_) | None => Some(Loss::Everything),
    }
}

fn check(
    draft: &Draft<'_>,
    sessions: &Sessions,
    new: &Registration,
    before: Option<&Broker>,
) -> Result<(), (ErrorCode, String)> {
    let state = &draft.state;
    if new.cluster_id != state.cluster.id {
        let reason = format!(
            "Expected cluster ID {}, but got cluster ID {}",
            state.cluster.id, new.cluster_id
        );
        return Err((ErrorCode::InconsistentClusterId, reason));
    }
    if new.broker.0 < 0
        || new.incarnation.is_nil()
        || new.log_dir.is_nil()
        || new.endpoints.is_empty()
        || new.endpoints.len() > ENDPOINTS_MAX
    {
        return Err((
            ErrorCode::InvalidRegistration,
            "a registration needs an id, an incarnation, a log directory id and endpoints"
                .to_owned(),
        ));
    }
    // Somebody without a certificate does not keep the broker out that has one.
    let gives_way = new.is_certified && !sessions.is_certified(new.broker);
    let namesake = before.filter(|before| {
        before.incarnation != new.incarnation
            && sessions.is_live(new.broker, draft.moment.now)
            && !gives_way
    });
    if namesake.is_some() {
        let reason = format!(
            "Another broker is registered with that broker id. If the broker {} was restarted, it can register once the session of its predecessor is over.",
            new.broker
        );
        return Err((ErrorCode::DuplicateBrokerRegistration, reason));
    }
    if let Some(other) =
        state.brokers.values().find(|other| other.id != new.broker && other.log_dir == new.log_dir)
    {
        let reason = format!(
            "Broker {} wants to register with directory {} already registered by {}",
            new.broker, new.log_dir, other.id
        );
        return Err((ErrorCode::InvalidRegistration, reason));
    }
    Ok(())
}

/// Raises epochs above those that the broker has seen. A store restored from a backup would hand
/// out epochs a second time; the broker's own records prove that it is behind.
fn raise_above_what_brokers_saw(draft: &mut Draft<'_>, registration: &Registration) {
    let before = draft.changes.len();
    // The broker used its log under a registration that the state does not contain.
    let known = draft.state.brokers.get(&registration.broker).map(|broker| broker.epoch);
    let mut is_behind = known.is_some_and(|known| registration.previous_epoch > Some(known));
    if registration.controller_epoch > draft.state.cluster.controller_epoch {
        draft.push(Change::ControllerEpoch(ControllerEpoch(
            registration.controller_epoch.0.saturating_add(1),
        )));
    }
    if let Some(previous) = registration
        .previous_epoch
        .filter(|previous| *previous >= draft.state.cluster.next_broker_epoch)
    {
        draft.push(Change::NextBrokerEpoch(BrokerEpoch(previous.0.saturating_add(1))));
    }
    for &(topic, index, seen) in &registration.leader_epochs {
        let known = draft.state.topics.get(&topic);
        let known = known.and_then(|topic| topic.partitions.get(usize::try_from(index).ok()?));
        if let Some(known) = known.filter(|known| known.leader_epoch < seen) {
            let raised = Partition {
                leader_epoch: LeaderEpoch(seen.0.saturating_add(1)),
                partition_epoch: PartitionEpoch(known.partition_epoch.0.saturating_add(1)),
                ..known.clone()
            };
            draft.push(Change::Partition(topic, index, raised));
        }
    }
    is_behind |= draft.changes.len() > before;
    if is_behind && !draft.state.rolled_back {
        draft.push(Change::RolledBack);
    }
}

fn broker_of(
    registration: &Registration,
    epoch: BrokerEpoch,
    fenced: bool,
    shutting_down: bool,
) -> Broker {
    Broker {
        id: registration.broker,
        epoch,
        incarnation: registration.incarnation,
        log_dir: registration.log_dir,
        endpoints: registration.endpoints.clone(),
        rack: registration.rack.clone(),
        fenced,
        shutting_down,
    }
}

/// Replaces the endpoints of a registered broker, if they still are those that the sender has read:
/// a registration that came meanwhile names listeners that the sender does not know. It never
/// removes the last one: brokers need one for replication.
pub(super) fn readdress(
    draft: &mut Draft<'_>,
    id: BrokerId,
    before: &[Endpoint],
    endpoints: Vec<Endpoint>,
) {
    let broker = draft.state.brokers.get(&id).cloned();
    if let Some(broker) =
        broker.filter(|broker| broker.endpoints == before && broker.endpoints != endpoints)
        && !endpoints.is_empty()
    {
        draft.push(Change::Broker(Broker { endpoints, ..broker }));
    }
}

/// Checks that a message's epoch is that of the broker's current registration.
pub(super) fn check_epoch(state: &State, id: BrokerId, epoch: BrokerEpoch) -> Result<(), Reply> {
    match state.brokers.get(&id) {
        None => Err(Reply::Refused(
            ErrorCode::StaleBrokerEpoch,
            format!("No broker registration found for broker id {id}"),
        )),
        Some(broker) if broker.epoch != epoch => Err(Reply::Refused(
            ErrorCode::StaleBrokerEpoch,
            format!("Expected broker epoch {}, but got broker epoch {epoch}", broker.epoch),
        )),
        Some(_) => Ok(()),
    }
}

pub(super) fn heartbeat(
    draft: &mut Draft<'_>,
    sessions: &Sessions,
    heartbeat: &Heartbeat,
) -> Reply {
    let id = heartbeat.broker;
    if let Err(refused) = check_epoch(&draft.state, id, heartbeat.epoch) {
        return refused;
    }
    let Some(broker) = draft.state.brokers.get(&id).cloned() else {
        return Reply::Nothing;
    };
    let up_to_date =
        sessions.registered_at(id).is_some_and(|version| heartbeat.applied_version >= version);
    if heartbeat.log_dir_failed {
        fence(draft, &[id]);
    } else if heartbeat.wants_shutdown {
        if !broker.shutting_down {
            partitions::remove_from_isr(draft, &[id]);
            draft.push(Change::Broker(Broker { shutting_down: true, ..broker }));
        }
    } else if broker.fenced && heartbeat.ready && up_to_date {
        draft.push(Change::Broker(Broker { fenced: false, ..broker }));
        partitions::elect_where_leaderless(draft);
        partitions::place_what_is_missing(draft);
    }
    grant_shutdowns(draft, sessions);
    let after = draft.state.brokers.get(&id);
    Reply::Heartbeat {
        fenced: after.is_none_or(|broker| broker.fenced),
        may_shut_down: after.is_some_and(Broker::may_shut_down),
    }
}

/// Fences each broker in a controlled shutdown once every usable broker knows the new leaders. So
/// the remaining brokers learn of them before it stops. The fence is the grant
/// ([`Broker::may_shut_down`]).
pub(super) fn grant_shutdowns(draft: &mut Draft<'_>, sessions: &Sessions) {
    let state = &draft.state;
    let known_to_all =
        |id| state.usable_brokers().all(|other| sessions.applied(other.id) >= state.told_at(id));
    let leaving = state.brokers.values().filter(|broker| broker.shutting_down && !broker.fenced);
    let granted: Vec<Broker> = leaving.filter(|broker| known_to_all(broker.id)).cloned().collect();
    for broker in granted {
        draft.push(Change::Broker(Broker { fenced: true, ..broker }));
    }
}

pub(super) fn unregister(
    draft: &mut Draft<'_>,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let id = BrokerId(request.broker_id);
    let result = if draft.state.brokers.contains_key(&id) {
        partitions::remove_lost_from_isr(draft, id, Loss::Tail);
        draft.push(Change::RemoveBroker(id));
        Ok(())
    } else {
        let message = format!("Broker ID {id} is not currently registered");
        Err(ApiError::new(ErrorCode::BrokerIdNotRegistered, message))
    };
    let (error_code, error_message) = wire(&result);
    UnregisterBrokerResponse { error_code, error_message, ..UnregisterBrokerResponse::default() }
}

/// Removes brokers from every ISR, moves their leaders, then fences them.
pub(super) fn fence(draft: &mut Draft<'_>, ids: &[BrokerId]) {
    let is_unfenced =
        |id: &BrokerId| draft.state.brokers.get(id).is_some_and(|broker| !broker.fenced);
    let gone: Vec<BrokerId> = ids.iter().copied().filter(is_unfenced).collect();
    if gone.is_empty() {
        return;
    }
    partitions::remove_from_isr(draft, &gone);
    for id in gone {
        if let Some(broker) = draft.state.brokers.get(&id).cloned() {
            draft.push(Change::Broker(Broker { fenced: true, ..broker }));
        }
    }
}
