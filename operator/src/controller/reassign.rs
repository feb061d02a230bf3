//! Reassignments (KIP-455): moving partitions to other replicas while clients use them
//! (`ReplicationControlManager.alterPartitionReassignments` in Apache Kafka).
//!
//! A reassignment begins here, with the new replicas beside the old ones. It ends in
//! `election::settle`, when all replicas that stay are in sync. The order of the new replicas
//! applies immediately: the first is the preferred leader.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use weir_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use weir_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use weir_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};
use weir_protocol::types::{BrokerId, TopicId};

use super::draft::Draft;
use super::election::{Election, Settled, Wanted, derive};
use super::error::{ApiError, wire};
use super::object_meta::with_generation;
use super::partitions::TopicRules;
use super::placement::NoPlace;
use super::state::{Change, Partition, State, Topic};
use super::topic_name::shown;
use super::topics::check_assignment;

pub(super) fn alter(
    draft: &mut Draft<'_>,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let may_resize = request.allow_replication_factor_change;
    let mut named = BTreeSet::new();
    let responses = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let result = alter_one(draft, &topic.name, wanted, may_resize);
            let (error_code, error_message) = wire(&result);
            ReassignablePartitionResponse {
                partition_index: wanted.partition_index,
                error_code,
                error_message,
            }
        });
        let partitions: Vec<_> = partitions.collect();
        if !partitions.is_empty() {
            named.extend(draft.state.topic_by_name(&topic.name).map(|found| found.id));
        }
        ReassignableTopicResponse { name: topic.name, partitions }
    });
    let responses = responses.collect();
    // Once for each topic, however often the request names it: the call walks all of its
    // partitions.
    for id in named {
        note_replicas(draft, id);
    }
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: may_resize,
        error_message: None,
        responses,
        ..AlterPartitionReassignmentsResponse::default()
    }
}

fn alter_one(
    draft: &mut Draft<'_>,
    name: &str,
    wanted: &ReassignablePartition,
    may_resize: bool,
) -> Result<(), ApiError> {
    let unknown = |message: String| ApiError::new(ErrorCode::UnknownTopicOrPartition, message);
    let state = &draft.state;
    let topic = state
        .topic_by_name(name)
        .ok_or_else(|| unknown(format!("Unable to find a topic named {}.", shown(name))))?;
    let index = wanted.partition_index;
    let partition = usize::try_from(index).ok().and_then(|index| topic.partitions.get(index));
    let partition = partition
        .ok_or_else(|| unknown(format!("Unable to find partition {}:{index}.", shown(name))))?;
    let next = match &wanted.replicas {
        None => cancelled(state, topic, index, partition)?,
        Some(replicas) => moved(state, topic, partition, replicas, may_resize)?,
    };
    if let Some(next) = next {
        let id = topic.id;
        draft.push_settled(id, index, next);
    }
    Ok(())
}

/// The partition with a reassignment to `target`; `None` if it has these replicas or that
/// reassignment already.
fn moved(
    state: &State,
    topic: &Topic,
    partition: &Partition,
    target: &[i32],
    may_resize: bool,
) -> Result<Option<Settled>, ApiError> {
    if !may_resize && target.len() != partition.replicas_wanted() {
        let message = format!(
            "The replication factor is changed from {} to {}",
            partition.replicas_wanted(),
            target.len()
        );
        return Err(ApiError::new(ErrorCode::InvalidReplicationFactor, message));
    }
    let target = check_assignment(state, target, None, &partition.replicas)?;
    let removing: Vec<BrokerId> =
        partition.replicas.iter().copied().filter(|id| !target.contains(id)).collect();
    // A replica that an earlier reassignment was adding stays in `adding` if the target contains
    // it. Otherwise it is removed like the others.
    let is_new = |id: &BrokerId| !partition.replicas.contains(id) || partition.adding.contains(id);
    let adding = target.iter().copied().filter(is_new).collect();
    let wanted = Wanted {
        replicas: target.iter().chain(&removing).copied().collect(),
        adding,
        removing,
        ..Wanted::as_it_is(partition)
    };
    let acceptable = |id| state.is_usable(id);
    let rules = TopicRules::of(state, topic).with(Election::Online);
    let next = derive(partition, wanted, &rules.electorate(&acceptable));
    let has_room = |next: &Partition| {
        state.has_room_to_move(topic.id, partition.replicas.len(), next.replicas.len())
    };
    if next.as_ref().is_some_and(|next| !has_room(&next.partition)) {
        return Err(ApiError::new(ErrorCode::PolicyViolation, NoPlace::NoRoomToMove.to_string()));
    }
    Ok(next)
}

/// The partition without its reassignment, as before it (`PartitionReassignmentRevert`).
fn cancelled(
    state: &State,
    topic: &Topic,
    index: i32,
    partition: &Partition,
) -> Result<Option<Settled>, ApiError> {
    if !partition.is_reassigning() {
        let code = ErrorCode::NoReassignmentInProgress;
        return Err(ApiError::new(code, code.message()));
    }
    let rules = TopicRules::of(state, topic);
    let was_there = |id: &BrokerId| !partition.adding.contains(id);
    let holders = || partition.isr.iter().chain(&partition.elr);
    let all_is_with_the_new = holders().next().is_some() && !holders().any(was_there);
    if all_is_with_the_new && !rules.allows_unclean() {
        let message = format!(
            "Unable to revert partition assignment for {}:{index} because it would require an unclean leader election.",
            topic.name()
        );
        return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message));
    }
    let replicas: Vec<BrokerId> = partition.replicas.iter().copied().filter(was_there).collect();
    if replicas.is_empty() {
        let message = "Invalid replica assignment: addingReplicas contains all replicas.";
        return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message));
    }
    let wanted = Wanted {
        replicas,
        adding: Vec::new(),
        removing: Vec::new(),
        ..Wanted::with_isr(partition, partition.isr.iter().copied().filter(was_there).collect())
    };
    let acceptable = |id| state.is_usable(id);
    Ok(derive(partition, wanted, &rules.electorate(&acceptable)))
}

/// Reassigns a topic's partitions to the number of replicas in its resource. Additional replicas go
/// to the brokers with the fewest; when the number shrinks, `narrow` chooses those that stay.
///
/// # Errors
/// When there are not enough brokers that can take replicas, or no room for the new replicas beside
/// the old ones.
pub(super) fn resize(draft: &mut Draft<'_>, id: TopicId) -> Result<(), NoPlace> {
    let Some(topic) = draft.state.topics.get(&id).cloned() else {
        return Ok(());
    };
    let wanted =
        topic.resource.spec.replicas.and_then(|count| usize::try_from(count).ok()).unwrap_or(1);
    let mut load = load(&draft.state);
    for (index, partition) in (0..).zip(&topic.partitions) {
        let mut target: Vec<BrokerId> = partition
            .replicas
            .iter()
            .copied()
            .filter(|id| !partition.removing.contains(id))
            .collect();
        narrow(&draft.state, &mut target, wanted);
        widen(&draft.state, &mut target, wanted, &mut load)?;
        let ids: Vec<i32> = target.iter().map(|id| id.0).collect();
        // The target contains only registered brokers, so the assignment is valid. Only room can be
        // lacking.
        let next = moved(&draft.state, &topic, partition, &ids, true)
            .map_err(|_| NoPlace::NoRoomToMove)?;
        if let Some(next) = next {
            draft.push_settled(id, index, next);
        }
    }
    Ok(())
}

/// The number of replicas on each broker that can take more.
fn load(state: &State) -> BTreeMap<BrokerId, usize> {
    let mut load: BTreeMap<BrokerId, usize> =
        state.open_brokers().map(|broker| (broker.id, 0)).collect();
    for replica in state
        .topics
        .values()
        .flat_map(|topic| &topic.partitions)
        .flat_map(|partition| &partition.replicas)
    {
        if let Some(count) = load.get_mut(replica) {
            *count += 1;
        }
    }
    load
}

/// Removes replicas until there are `wanted`: first those on brokers that are to go, then those on
/// brokers that do not serve, and otherwise the last ones. The others keep their order.
fn narrow(state: &State, target: &mut Vec<BrokerId>, wanted: usize) {
    while target.len() > wanted {
        let worst = target
            .iter()
            .enumerate()
            .max_by_key(|(index, id)| (state.is_cordoned(**id), !state.is_usable(**id), *index));
        let Some((index, _)) = worst else { return };
        target.remove(index);
    }
}

/// Adds brokers until there are `wanted`. Those that serve come first, since a move to a broker
/// that is down lasts until it is back. Then come racks without a replica, then brokers with the
/// fewest replicas.
fn widen(
    state: &State,
    target: &mut Vec<BrokerId>,
    wanted: usize,
    load: &mut BTreeMap<BrokerId, usize>,
) -> Result<(), NoPlace> {
    let rack = |id: &BrokerId| state.brokers.get(id).and_then(|broker| broker.rack.as_deref());
    while target.len() < wanted {
        let in_rack = |id: &BrokerId| target.iter().filter(|other| rack(other) == rack(id)).count();
        let free = load.iter().filter(|(id, _)| !target.contains(id));
        let next = free
            .min_by_key(|(id, count)| (!state.is_usable(**id), in_rack(id), **count))
            .map(|(id, _)| *id);
        let Some(next) = next else {
            return Err(NoPlace::TooFew { replicas: wanted, brokers: load.len() });
        };
        *load.entry(next).or_default() += 1;
        target.push(next);
    }
    Ok(())
}

/// Writes the number of replicas to the topic's resource when all of its partitions agree on it.
/// The resource stays the only source of that number.
fn note_replicas(draft: &mut Draft<'_>, id: TopicId) {
    let Some(topic) = draft.state.topics.get(&id) else { return };
    let mut counts = topic.partitions.iter().map(Partition::replicas_wanted);
    let Some(count) = counts.next().filter(|count| counts.all(|other| other == *count)) else {
        return;
    };
    let count = i16::try_from(count).ok();
    if count.is_some() && topic.resource.spec.replicas != count {
        let mut resource = with_generation(&topic.resource);
        resource.spec.replicas = count;
        draft.push(Change::Topic(id, Box::new(resource)));
    }
}

pub(super) fn list(
    draft: &mut Draft<'_>,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let state = &draft.state;
    let mut told = BTreeSet::new();
    let topics = match request.topics {
        None => {
            state.topics_by_name().filter_map(|topic| ongoing(topic, None, &mut told)).collect()
        }
        Some(topics) => topics
            .iter()
            .filter_map(|asked| {
                ongoing(
                    state.topic_by_name(&asked.name)?,
                    Some(&asked.partition_indexes),
                    &mut told,
                )
            })
            .collect(),
    };
    ListPartitionReassignmentsResponse {
        error_message: None,
        topics,
        ..ListPartitionReassignmentsResponse::default()
    }
}

/// The reassignments of a topic, of these partitions or of all. A partition that the request names
/// twice appears once (`told`), so the answer cannot outgrow the cluster.
fn ongoing(
    topic: &Topic,
    asked: Option<&[i32]>,
    told: &mut BTreeSet<(TopicId, i32)>,
) -> Option<OngoingTopicReassignment> {
    let ids = |brokers: &[BrokerId]| brokers.iter().map(|id| id.0).collect();
    let mut one = |index: i32, partition: &Partition| {
        (partition.is_reassigning() && told.insert((topic.id, index))).then(|| {
            OngoingPartitionReassignment {
                partition_index: index,
                replicas: ids(&partition.replicas),
                adding_replicas: ids(&partition.adding),
                removing_replicas: ids(&partition.removing),
            }
        })
    };
    let partitions: Vec<_> = match asked {
        None => (0..)
            .zip(&topic.partitions)
            .filter_map(|(index, partition)| one(index, partition))
            .collect(),
        Some(indexes) => indexes
            .iter()
            .filter_map(|index| one(*index, topic.partitions.get(usize::try_from(*index).ok()?)?))
            .collect(),
    };
    (!partitions.is_empty())
        .then(|| OngoingTopicReassignment { name: topic.name().to_owned(), partitions })
}
