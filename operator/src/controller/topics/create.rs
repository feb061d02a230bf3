//! CreateTopics: a client's request becomes a `Topic` resource
//! (`ReplicationControlManager.createTopics` in Apache Kafka).
//!
//! Each topic is decided on its own. With `validateOnly` the decision is made and discarded.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use weir_crds::{ClusterRef, TopicConfig, TopicSpec};
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::create_topics_request::CreatableTopic;
use weir_protocol::messages::create_topics_response::CreatableTopicResult;
use weir_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use weir_protocol::types::{BrokerId, TopicId};
use weir_settings::Configs;

use super::super::configs::canonical_topic_settings;
use super::super::draft::Draft;
use super::super::error::{ApiError, too_large, wire};
use super::super::limits::PARTITIONS_PER_REQUEST_MAX;
use super::super::names::resource_name;
use super::super::object_meta::new_meta;
use super::super::partitions;
use super::super::placement::{NoPlace, place};
use super::super::state::Change;
use super::super::topic_name::check_name;
use super::{assigned, check_total, no_place, too_many_partitions};

pub(crate) fn create_topics(
    draft: &mut Draft<'_>,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let validate_only = request.validate_only;
    let mut seen = BTreeSet::new();
    let partitions = partitions_of(draft, &request);
    let topics = request.topics.into_iter().map(|topic| {
        let mut branch = draft.branch();
        let result = match seen.insert(topic.name.clone()) {
            // Kafka refuses the whole request in this case.
            _ if partitions > PARTITIONS_PER_REQUEST_MAX => Err(too_many_partitions()),
            _ if branch.is_spent() => Err(too_large()),
            true => create_one(&mut branch, &topic),
            false => Err(ApiError::new(ErrorCode::InvalidRequest, "Duplicate topic name.")),
        };
        let answer = answer(&branch, topic.name, &result);
        draft.merge(branch, result.is_ok() && !validate_only);
        answer
    });
    CreateTopicsResponse { topics: topics.collect(), ..CreateTopicsResponse::default() }
}

/// The number of partitions that the whole request would create
/// (`validateTotalNumberOfPartitions`).
fn partitions_of(draft: &Draft<'_>, request: &CreateTopicsRequest) -> usize {
    let default = default_of(draft, "num.partitions");
    let of_topic = |topic: &CreatableTopic| match (topic.assignments.len(), topic.num_partitions) {
        (0, -1) => default,
        (0, count) => usize::try_from(count).unwrap_or_default(),
        (assigned, _) => assigned,
    };
    request.topics.iter().map(of_topic).fold(0, usize::saturating_add)
}

fn create_one(draft: &mut Draft<'_>, wanted: &CreatableTopic) -> Result<TopicId, ApiError> {
    check_name(&wanted.name)?;
    if draft.state.topic_by_name(&wanted.name).is_some() {
        return Err(ApiError::new(
            ErrorCode::TopicAlreadyExists,
            format!("Topic '{}' already exists.", wanted.name),
        ));
    }
    if let Some(other) = draft.state.lookalike(&wanted.name) {
        let message = format!("Topic '{}' collides with existing topic: {other}", wanted.name);
        return Err(ApiError::new(ErrorCode::InvalidTopicException, message));
    }
    let settings = settings_of(draft, wanted)?;
    let id = draft.topic_id(&wanted.name);
    let replicas = replicas_of(draft, wanted, id)?;
    check_total(&draft.state, replicas.len())?;
    let most = replicas.iter().map(Vec::len).max().unwrap_or_default();
    if !draft.state.has_room(id, replicas.len(), most) {
        return Err(ApiError::new(
            ErrorCode::PolicyViolation,
            NoPlace::NoRoom(replicas.len()).to_string(),
        ));
    }
    let resource = resource_of(draft, wanted, id, &replicas, settings)?;
    draft.push(Change::Topic(id, Box::new(resource)));
    partitions::add(draft, id, replicas);
    Ok(id)
}

fn settings_of(draft: &Draft<'_>, wanted: &CreatableTopic) -> Result<TopicConfig, ApiError> {
    let mut settings = Configs::new();
    for entry in &wanted.configs {
        let Some(value) = &entry.value else {
            return Err(ApiError::new(
                ErrorCode::InvalidConfig,
                format!("Null value not supported for topic configs: {}", entry.name),
            ));
        };
        settings.insert(entry.name.clone(), value.clone());
    }
    canonical_topic_settings(&settings, draft.state.cluster.configs())
}

/// The replicas of each partition: as the client assigned them, or spread over the brokers.
fn replicas_of(
    draft: &Draft<'_>,
    wanted: &CreatableTopic,
    id: TopicId,
) -> Result<Vec<Vec<BrokerId>>, ApiError> {
    let error = |code, message: &str| Err(ApiError::new(code, message));
    if !wanted.assignments.is_empty() {
        if wanted.replication_factor != -1 {
            return error(
                ErrorCode::InvalidRequest,
                "A manual partition assignment was specified, but replication factor was not set to -1.",
            );
        }
        if wanted.num_partitions != -1 {
            return error(
                ErrorCode::InvalidRequest,
                "A manual partition assignment was specified, but numPartitions was not set to -1.",
            );
        }
        return replicas_as_assigned(draft, wanted);
    }
    if wanted.replication_factor < -1 || wanted.replication_factor == 0 {
        return error(
            ErrorCode::InvalidReplicationFactor,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        );
    }
    if wanted.num_partitions < -1 || wanted.num_partitions == 0 {
        return error(
            ErrorCode::InvalidPartitions,
            "Number of partitions must be larger than 0, or -1 to use the default value.",
        );
    }
    let given = |number: i32| usize::try_from(number).ok();
    let count = given(wanted.num_partitions).unwrap_or_else(|| default_of(draft, "num.partitions"));
    let replicas = given(wanted.replication_factor.into())
        .or_else(|| coordinators_replicas(draft, &wanted.name))
        .unwrap_or_else(|| default_of(draft, "default.replication.factor"));
    check_total(&draft.state, count)?;
    place(&draft.state, id, 0, count, replicas).map_err(|error| no_place(replicas, &error))
}

/// The default number of replicas of a coordinator's topic: the configured value, else Kafka's
/// default of three, limited to the brokers that the cluster's spec asks for. Kafka does not create
/// the topic in a smaller cluster.
fn coordinators_replicas(draft: &Draft<'_>, name: &str) -> Option<usize> {
    let setting = match name {
        "__consumer_offsets" => "offsets.topic.replication.factor",
        "__transaction_state" => "transaction.state.log.replication.factor",
        _ => return None,
    };
    let is_set = draft.state.cluster.configs().contains_key(setting);
    let brokers =
        usize::try_from(draft.state.cluster.resource.spec.brokers.replicas).unwrap_or(1).max(1);
    Some(if is_set { default_of(draft, setting) } else { brokers.min(3) })
}

fn replicas_as_assigned(
    draft: &Draft<'_>,
    wanted: &CreatableTopic,
) -> Result<Vec<Vec<BrokerId>>, ApiError> {
    let invalid = |message: String| ApiError::new(ErrorCode::InvalidReplicaAssignment, message);
    let mut by_index: BTreeMap<usize, Vec<BrokerId>> = BTreeMap::new();
    let mut replicas = None;
    for assignment in &wanted.assignments {
        let index = usize::try_from(assignment.partition_index).map_err(|_| {
            invalid("partitions should be a consecutive 0-based integer sequence".to_owned())
        })?;
        if by_index.contains_key(&index) {
            return Err(invalid(format!(
                "Found multiple manual partition assignments for partition {index}"
            )));
        }
        let brokers = assigned(&draft.state, &assignment.broker_ids, replicas)?;
        replicas = Some(brokers.len());
        by_index.insert(index, brokers);
    }
    if !by_index.keys().copied().eq(0..by_index.len()) {
        return Err(invalid(
            "partitions should be a consecutive 0-based integer sequence".to_owned(),
        ));
    }
    Ok(by_index.into_values().collect())
}

/// A number from the cluster's configuration, or Kafka's default.
pub(crate) fn default_of(draft: &Draft<'_>, name: &'static str) -> usize {
    let text = draft.state.cluster.setting(name);
    text.and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn resource_of(
    draft: &Draft<'_>,
    wanted: &CreatableTopic,
    id: TopicId,
    replicas: &[Vec<BrokerId>],
    config: TopicConfig,
) -> Result<weir_crds::Topic, ApiError> {
    let cluster = &draft.state.cluster;
    let name = resource_name(&wanted.name, |name| {
        draft.state.topic_by_resource(&cluster.key(name)).is_some()
            || draft.state.taken.contains(name)
    });
    let too_many =
        |_| ApiError::new(ErrorCode::InvalidPartitions, "Number of partitions is too large.");
    let spec = TopicSpec {
        cluster_ref: ClusterRef { name: cluster.name().to_owned(), namespace: None },
        topic_name: (name != wanted.name).then(|| wanted.name.clone()),
        partitions: Some(i32::try_from(replicas.len()).map_err(too_many)?),
        replicas: Some(i16::try_from(replicas.first().map_or(1, Vec::len)).map_err(too_many)?),
        config,
        ..TopicSpec::default()
    };
    Ok(weir_crds::Topic {
        metadata: new_meta(draft.moment, &cluster.key(&name), id),
        spec,
        status: None,
    })
}

fn answer(
    draft: &Draft<'_>,
    name: String,
    result: &Result<TopicId, ApiError>,
) -> CreatableTopicResult {
    let (error_code, error_message) = wire(&result.as_ref().map(|_| ()).map_err(Clone::clone));
    let unknown = CreatableTopicResult {
        name,
        error_code,
        error_message,
        num_partitions: -1,
        replication_factor: -1,
        ..Default::default()
    };
    let Some(topic) = result.as_ref().ok().and_then(|id| draft.state.topics.get(id)) else {
        return unknown;
    };
    CreatableTopicResult {
        topic_id: topic.id.0,
        num_partitions: topic.resource.spec.partitions.unwrap_or(-1),
        replication_factor: topic.resource.spec.replicas.unwrap_or(-1),
        // The broker that received the request describes the configuration; it knows which settings
        // the client may see.
        ..unknown
    }
}
