//! DeleteTopics and CreatePartitions; `create` has CreateTopics. The checks and their order are
//! those of Apache Kafka's `ReplicationControlManager` and `ControllerApis`. The order decides
//! which error a client sees.
//!
//! Each request of a client becomes a change of the topic's resource. Topics come from resources
//! only.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub(super) mod create;

use std::collections::BTreeSet;

use weir_crds::DeletionPolicy;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use weir_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use weir_protocol::messages::delete_topics_response::DeletableTopicResult;
use weir_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
};
use weir_protocol::types::{BrokerId, TopicId};

use super::draft::Draft;
use super::error::{ApiError, too_large, wire};
use super::limits::{BY_NUMBER, PARTITIONS_MAX, PARTITIONS_PER_REQUEST_MAX};
use super::object_meta::with_generation;
use super::partitions;
use super::placement::{NoPlace, place};
use super::state::{Change, Partition, State};

pub(super) fn delete_topics(
    draft: &mut Draft<'_>,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let by_name = request.topic_names.into_iter().map(|name| (Some(name), uuid::Uuid::nil()));
    let by_either = request.topics.into_iter().map(|topic| (topic.name, topic.topic_id));
    let responses = by_name.chain(by_either).map(|(name, id)| delete_one(draft, name, TopicId(id)));
    DeleteTopicsResponse { responses: responses.collect(), ..DeleteTopicsResponse::default() }
}

fn delete_one(draft: &mut Draft<'_>, name: Option<String>, id: TopicId) -> DeletableTopicResult {
    let found = match (&name, id) {
        (Some(_), id) if id != TopicId::ZERO => Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "You may not specify both topic name and topic id.",
        )),
        (None, TopicId::ZERO) => Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "Neither topic name nor id were specified.",
        )),
        (Some(name), _) => draft.state.topic_by_name(name).cloned().ok_or_else(|| {
            ApiError::new(
                ErrorCode::UnknownTopicOrPartition,
                ErrorCode::UnknownTopicOrPartition.message(),
            )
        }),
        (None, id) => draft.state.topics.get(&id).cloned().ok_or_else(|| {
            ApiError::new(ErrorCode::UnknownTopicId, ErrorCode::UnknownTopicId.message())
        }),
    };
    let (answered_name, answered_id) = match &found {
        Ok(topic) => (Some(topic.name().to_owned()), topic.id),
        Err(_) => (name, id),
    };
    let result = found.and_then(|topic| {
        if draft
            .state
            .cluster
            .configs()
            .get("delete.topic.enable")
            .is_some_and(|text| text == "false")
        {
            return Err(ApiError::new(
                ErrorCode::TopicDeletionDisabled,
                ErrorCode::TopicDeletionDisabled.message(),
            ));
        }
        if topic.resource.spec.deletion_policy == DeletionPolicy::Retain {
            return Err(ApiError::new(
                ErrorCode::PolicyViolation,
                "The topic's deletionPolicy is Retain: set it to Delete first.",
            ));
        }
        draft.push(Change::RemoveTopic(topic.id, topic.key.clone()));
        Ok(())
    });
    let (error_code, error_message) = wire(&result);
    DeletableTopicResult { name: answered_name, topic_id: answered_id.0, error_code, error_message }
}

pub(super) fn create_partitions(
    draft: &mut Draft<'_>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let validate_only = request.validate_only;
    let mut seen = BTreeSet::new();
    let results = request.topics.into_iter().map(|topic| {
        let result = if draft.is_spent() {
            Err(too_large())
        } else if seen.insert(topic.name.clone()) {
            let mut branch = draft.branch();
            let result = grow_one(&mut branch, &topic);
            draft.merge(branch, result.is_ok() && !validate_only);
            result
        } else {
            Err(ApiError::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
        };
        let (error_code, error_message) = wire(&result);
        CreatePartitionsTopicResult { name: topic.name, error_code, error_message }
    });
    CreatePartitionsResponse { results: results.collect(), ..CreatePartitionsResponse::default() }
}

fn grow_one(draft: &mut Draft<'_>, wanted: &CreatePartitionsTopic) -> Result<(), ApiError> {
    let unknown = || {
        ApiError::new(
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::UnknownTopicOrPartition.message(),
        )
    };
    let topic = draft.state.topic_by_name(&wanted.name).cloned().ok_or_else(unknown)?;
    let (count, before) =
        (usize::try_from(wanted.count).unwrap_or_default(), topic.partitions.len());
    if count == before {
        return Err(ApiError::new(
            ErrorCode::InvalidPartitions,
            format!("Topic already has {before} partition(s)."),
        ));
    }
    if count < before {
        let message = format!(
            "The topic {} currently has {before} partition(s); {} would not be an increase.",
            wanted.name, wanted.count
        );
        return Err(ApiError::new(ErrorCode::InvalidPartitions, message));
    }
    if topic.is_internal() {
        let message =
            format!("The number of partitions of {} cannot change: {BY_NUMBER}.", wanted.name);
        return Err(ApiError::new(ErrorCode::InvalidPartitions, message));
    }
    check_total(&draft.state, count - before)?;
    let replicas = topic.partitions.first().map_or(1, Partition::replicas_wanted);
    let placed = match &wanted.assignments {
        None => place(&draft.state, topic.id, before, count - before, replicas)
            .map_err(|error| no_place(replicas, &error))?,
        Some(assignments) if assignments.len() != count - before => {
            let message = format!(
                "Attempted to add {} additional partition(s), but only {} assignment(s) were specified.",
                count - before,
                assignments.len()
            );
            return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message));
        }
        Some(assignments) => assignments
            .iter()
            .map(|CreatePartitionsAssignment { broker_ids, .. }| {
                assigned(&draft.state, broker_ids, Some(replicas))
            })
            .collect::<Result<_, _>>()?,
    };
    if !draft.state.has_room(topic.id, placed.len(), replicas) {
        return Err(no_place(replicas, &NoPlace::NoRoom(placed.len())));
    }
    let mut resource = with_generation(&topic.resource);
    resource.spec.partitions = Some(wanted.count);
    draft.push(Change::Topic(topic.id, Box::new(resource)));
    partitions::add(draft, topic.id, placed);
    Ok(())
}

/// Checks the limits on the number of partitions.
fn check_total(state: &State, more: usize) -> Result<(), ApiError> {
    if more > PARTITIONS_PER_REQUEST_MAX {
        return Err(too_many_partitions());
    }
    if state.partition_count() + more > PARTITIONS_MAX {
        return Err(ApiError::new(
            ErrorCode::PolicyViolation,
            format!("The cluster would have more than {PARTITIONS_MAX} partitions."),
        ));
    }
    Ok(())
}

fn too_many_partitions() -> ApiError {
    ApiError::new(ErrorCode::PolicyViolation, "Excessively large number of partitions per request.")
}

fn no_place(replicas: usize, error: &NoPlace) -> ApiError {
    if let NoPlace::NoRoom(_) | NoPlace::NoRoomToMove = error {
        return ApiError::new(ErrorCode::PolicyViolation, error.to_string());
    }
    ApiError::new(
        ErrorCode::InvalidReplicationFactor,
        format!("Unable to replicate the partition {replicas} time(s): {error}"),
    )
}

/// Checks the brokers that a client chose for a new partition. At least one of them must be able to
/// lead it.
fn assigned(
    state: &State,
    brokers: &[i32],
    replicas: Option<usize>,
) -> Result<Vec<BrokerId>, ApiError> {
    let chosen = check_assignment(state, brokers, replicas, &[])?;
    if !chosen.iter().any(|id| state.is_usable(*id)) {
        return Err(ApiError::new(
            ErrorCode::InvalidReplicaAssignment,
            "All brokers specified in the manual partition assignment are fenced or in controlled shutdown.",
        ));
    }
    Ok(chosen)
}

/// Checks the brokers that a client chose for a partition (`validateManualPartitionAssignment` in
/// Apache Kafka). Cordoned brokers get no replica that they do not already hold.
pub(super) fn check_assignment(
    state: &State,
    brokers: &[i32],
    replicas: Option<usize>,
    held: &[BrokerId],
) -> Result<Vec<BrokerId>, ApiError> {
    let invalid = |message: String| ApiError::new(ErrorCode::InvalidReplicaAssignment, message);
    if brokers.is_empty() {
        return Err(invalid(
            "The manual partition assignment includes an empty replica list.".to_owned(),
        ));
    }
    let mut chosen = Vec::with_capacity(brokers.len().min(state.brokers.len()));
    for id in brokers.iter().copied().map(BrokerId) {
        if !state.brokers.contains_key(&id) {
            return Err(invalid(format!(
                "The manual partition assignment includes broker {id}, but no such broker is registered."
            )));
        }
        if state.is_cordoned(id) && !held.contains(&id) {
            let places = state.cluster.resource.spec.brokers.replicas;
            return Err(invalid(format!(
                "The manual partition assignment includes broker {id}, which is to go: the cluster is to have {places} broker(s)."
            )));
        }
        if chosen.contains(&id) {
            return Err(invalid(format!(
                "The manual partition assignment includes the broker {id} more than once."
            )));
        }
        chosen.push(id);
    }
    if let Some(expected) = replicas.filter(|expected| *expected != chosen.len()) {
        return Err(invalid(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with previous partitions, which have {expected} replica(s).",
            chosen.len()
        )));
    }
    Ok(chosen)
}
