//! PURE: splits a request when the store refuses some of its resources, and answers for those.
//!
//! On Kubernetes the operator writes a `Topic` and the `KafkaCluster` through the API server, which
//! has its own rules, quotas and policies. A refusal there fails only that part of the client's
//! request, as Apache Kafka's policies do (`create.topic.policy.class.name`,
//! `alter.config.policy.class.name`).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use weir_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use weir_protocol::messages::create_topics_response::CreatableTopicResult;
use weir_protocol::messages::delete_topics_response::DeletableTopicResult;
use weir_protocol::messages::{
    AlterConfigsResponse, AlterPartitionReassignmentsResponse, CreatePartitionsResponse,
    CreateTopicsResponse, DeleteTopicsResponse, IncrementalAlterConfigsResponse,
    alter_configs_response, incremental_alter_configs_response,
};
use weir_protocol::types::TopicId;

use super::admin_request::{AdminRequest, AdminResponse};
use super::configs::TYPE_TOPIC;
use super::event::{Event, Reply};
use super::resource::{Kind, Refusal, Resource};

/// A resource that the store refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnedDown {
    /// The topic of the resource, by its id and its name in the Kafka protocol; `None` for the
    /// cluster.
    pub topic: Option<(TopicId, String)>,
    /// It breaks a rule of the schema, not a quota or a policy.
    pub invalid: bool,
    /// The reason, in the store's words.
    pub message: String,
}

impl TurnedDown {
    /// The error code for a request that sets settings. Other requests cannot be invalid by their
    /// settings.
    fn code_of_settings(&self) -> i16 {
        let code = if self.invalid { ErrorCode::InvalidConfig } else { ErrorCode::PolicyViolation };
        code as i16
    }
}

const POLICY: i16 = ErrorCode::PolicyViolation as i16;

/// The event without the refused resources, if anything is left of it, and the answer for those.
pub fn without(event: Event, turned_down: &[TurnedDown]) -> (Option<Event>, Reply) {
    match event {
        Event::Admin { broker, epoch, request } => {
            let (rest, response) = split(request, turned_down);
            let rest = rest.map(|request| Event::Admin { broker, epoch, request });
            let reply = response.map_or_else(
                || Reply::Refused(ErrorCode::PolicyViolation, words(turned_down)),
                Reply::Admin,
            );
            (rest, reply)
        }
        Event::Apply(resources) => {
            let named = |resource: &Resource| match resource {
                Resource::Cluster(cluster) => (Kind::KafkaCluster, cluster.metadata.name.clone()),
                Resource::Topic(topic) => (Kind::Topic, topic.metadata.name.clone()),
            };
            let first = resources.first().map(named);
            (None, invalid(first, turned_down))
        }
        Event::Gone(key, _) => (None, invalid(Some((Kind::Topic, Some(key.name))), turned_down)),
        Event::Delete(kind, key) => (None, invalid(Some((kind, Some(key.name))), turned_down)),
        _ => (None, Reply::Refused(ErrorCode::PolicyViolation, words(turned_down))),
    }
}

fn words(turned_down: &[TurnedDown]) -> String {
    let all: Vec<&str> = turned_down.iter().map(|one| one.message.as_str()).collect();
    all.join("; ")
}

fn invalid(of: Option<(Kind, Option<String>)>, turned_down: &[TurnedDown]) -> Reply {
    let (kind, name) = of.unwrap_or((Kind::KafkaCluster, None));
    Reply::Invalid(Refusal {
        kind,
        name: name.unwrap_or_default(),
        path: "spec".to_owned(),
        reason: words(turned_down),
    })
}

/// Splits a list into the items that stay and the answers for the others.
fn part<T, A>(items: Vec<T>, of: impl Fn(&T) -> Option<A>) -> (Vec<T>, Vec<A>) {
    let (mut rest, mut answers) = (Vec::new(), Vec::new());
    for item in items {
        match of(&item) {
            Some(answer) => answers.push(answer),
            None => rest.push(item),
        }
    }
    (rest, answers)
}

/// The rest of a request, and the answer for the refused part. There is no answer if the request
/// names none of the refused resources.
fn split(
    request: AdminRequest,
    turned_down: &[TurnedDown],
) -> (Option<AdminRequest>, Option<AdminResponse>) {
    let by_name = |name: &str| {
        turned_down.iter().find(|one| one.topic.as_ref().is_some_and(|(_, of)| of == name))
    };
    let by_id = |id: TopicId| {
        turned_down.iter().find(|one| one.topic.as_ref().is_some_and(|(of, _)| *of == id))
    };
    let by_resource = |kind: i8, name: &str| match kind {
        TYPE_TOPIC => by_name(name),
        _ => turned_down.iter().find(|one| one.topic.is_none()),
    };
    let said = |one: &TurnedDown| Some(one.message.clone());
    match request {
        AdminRequest::CreateTopics(mut request) => {
            let (rest, topics) = part(std::mem::take(&mut request.topics), |topic| {
                by_name(&topic.name).map(|one| CreatableTopicResult {
                    name: topic.name.clone(),
                    error_code: one.code_of_settings(),
                    error_message: said(one),
                    num_partitions: -1,
                    replication_factor: -1,
                    ..Default::default()
                })
            });
            request.topics = rest;
            let (left, some) = (!request.topics.is_empty(), !topics.is_empty());
            let response = CreateTopicsResponse { topics, ..Default::default() };
            both(
                left,
                AdminRequest::CreateTopics(request),
                some,
                AdminResponse::CreateTopics(response),
            )
        }
        AdminRequest::CreatePartitions(mut request) => {
            let (rest, results) = part(std::mem::take(&mut request.topics), |topic| {
                by_name(&topic.name).map(|one| CreatePartitionsTopicResult {
                    name: topic.name.clone(),
                    error_code: POLICY,
                    error_message: said(one),
                })
            });
            request.topics = rest;
            let (left, some) = (!request.topics.is_empty(), !results.is_empty());
            let response = CreatePartitionsResponse { results, ..Default::default() };
            both(
                left,
                AdminRequest::CreatePartitions(request),
                some,
                AdminResponse::CreatePartitions(response),
            )
        }
        AdminRequest::DeleteTopics(mut request) => {
            let result = |one: &TurnedDown| {
                let (id, name) = one.topic.clone().unwrap_or((TopicId::ZERO, String::new()));
                DeletableTopicResult {
                    name: Some(name),
                    topic_id: id.0,
                    error_code: POLICY,
                    error_message: said(one),
                }
            };
            let (topics, mut responses) = part(std::mem::take(&mut request.topics), |topic| {
                let found =
                    topic.name.as_deref().map_or_else(|| by_id(TopicId(topic.topic_id)), by_name);
                found.map(result)
            });
            let (names, others) =
                part(std::mem::take(&mut request.topic_names), |name| by_name(name).map(result));
            (request.topics, request.topic_names) = (topics, names);
            responses.extend(others);
            let left = !request.topics.is_empty() || !request.topic_names.is_empty();
            let some = !responses.is_empty();
            let response = DeleteTopicsResponse { responses, ..Default::default() };
            both(
                left,
                AdminRequest::DeleteTopics(request),
                some,
                AdminResponse::DeleteTopics(response),
            )
        }
        AdminRequest::AlterPartitionReassignments(mut request) => {
            let (rest, responses) = part(std::mem::take(&mut request.topics), |topic| {
                let one = by_name(&topic.name)?;
                let partitions =
                    topic.partitions.iter().map(|partition| ReassignablePartitionResponse {
                        partition_index: partition.partition_index,
                        error_code: POLICY,
                        error_message: said(one),
                    });
                Some(ReassignableTopicResponse {
                    name: topic.name.clone(),
                    partitions: partitions.collect(),
                })
            });
            request.topics = rest;
            let (left, some) = (!request.topics.is_empty(), !responses.is_empty());
            let response = AlterPartitionReassignmentsResponse {
                allow_replication_factor_change: request.allow_replication_factor_change,
                responses,
                ..Default::default()
            };
            let response = AdminResponse::AlterPartitionReassignments(response);
            both(left, AdminRequest::AlterPartitionReassignments(request), some, response)
        }
        AdminRequest::AlterConfigs(mut request) => {
            let (rest, responses) = part(std::mem::take(&mut request.resources), |resource| {
                by_resource(resource.resource_type, &resource.resource_name).map(|one| {
                    alter_configs_response::AlterConfigsResourceResponse {
                        error_code: one.code_of_settings(),
                        error_message: said(one),
                        resource_type: resource.resource_type,
                        resource_name: resource.resource_name.clone(),
                    }
                })
            });
            request.resources = rest;
            let (left, some) = (!request.resources.is_empty(), !responses.is_empty());
            let response = AlterConfigsResponse { responses, ..Default::default() };
            both(
                left,
                AdminRequest::AlterConfigs(request),
                some,
                AdminResponse::AlterConfigs(response),
            )
        }
        AdminRequest::IncrementalAlterConfigs(mut request) => {
            let (rest, responses) = part(std::mem::take(&mut request.resources), |resource| {
                let found = by_resource(resource.resource_type, &resource.resource_name);
                found.map(|one| incremental_alter_configs_response::AlterConfigsResourceResponse {
                    error_code: one.code_of_settings(),
                    error_message: said(one),
                    resource_type: resource.resource_type,
                    resource_name: resource.resource_name.clone(),
                })
            });
            request.resources = rest;
            let (left, some) = (!request.resources.is_empty(), !responses.is_empty());
            let response = IncrementalAlterConfigsResponse { responses, ..Default::default() };
            let response = AdminResponse::IncrementalAlterConfigs(response);
            both(left, AdminRequest::IncrementalAlterConfigs(request), some, response)
        }
        _ => (None, None),
    }
}

/// The rest of a request if `left`, and the answer for the part taken out if `some`.
fn both(
    left: bool,
    request: AdminRequest,
    some: bool,
    response: AdminResponse,
) -> (Option<AdminRequest>, Option<AdminResponse>) {
    ((left && some).then_some(request), some.then_some(response))
}

/// Adds the answer of another part of the same request.
pub fn join(to: &mut Reply, other: Reply) {
    let (Reply::Admin(to), Reply::Admin(other)) = (to, other) else { return };
    match (to, other) {
        (AdminResponse::CreateTopics(to), AdminResponse::CreateTopics(other)) => {
            to.topics.extend(other.topics)
        }
        (AdminResponse::CreatePartitions(to), AdminResponse::CreatePartitions(other)) => {
            to.results.extend(other.results)
        }
        (AdminResponse::DeleteTopics(to), AdminResponse::DeleteTopics(other)) => {
            to.responses.extend(other.responses)
        }
        (
            AdminResponse::AlterPartitionReassignments(to),
            AdminResponse::AlterPartitionReassignments(other),
        ) => to.responses.extend(other.responses),
        (AdminResponse::AlterConfigs(to), AdminResponse::AlterConfigs(other)) => {
            to.responses.extend(other.responses)
        }
        (
            AdminResponse::IncrementalAlterConfigs(to),
            AdminResponse::IncrementalAlterConfigs(other),
        ) => to.responses.extend(other.responses),
        // Both parts come from one event, so their kinds agree.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use weir_protocol::messages::delete_topics_request::DeleteTopicState;
    use weir_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
    use weir_protocol::messages::{
        CreateTopicsRequest, DeleteTopicsRequest, IncrementalAlterConfigsRequest,
        create_topics_request,
    };
    use weir_protocol::types::{BrokerEpoch, BrokerId};

    use super::*;

    fn down(topic: Option<&str>, invalid: bool) -> TurnedDown {
        TurnedDown {
            topic: topic.map(|name| (TopicId(Uuid::from_u128(7)), name.to_owned())),
            invalid,
            message: "the API server's words".to_owned(),
        }
    }

    fn asked(request: AdminRequest) -> Event {
        let (broker, epoch) = (BrokerId(0), BrokerEpoch(1));
        Event::Admin { broker, epoch, request }
    }

    #[test]
    fn what_is_turned_down_costs_that_and_nothing_else() {
        let resource = |resource_type: i8, name: &str| AlterConfigsResource {
            resource_type,
            resource_name: name.to_owned(),
            ..Default::default()
        };
        let resources =
            vec![resource(2, "a"), resource(2, "b"), resource(4, ""), resource(32, "g")];
        let request = || IncrementalAlterConfigsRequest {
            resources: resources.clone(),
            ..Default::default()
        };
        let cases = [
            (vec![down(Some("b"), true)], vec!["a", "", "g"], vec![("b", 40)]),
            (vec![down(None, false)], vec!["a", "b"], vec![("", 44), ("g", 44)]),
        ];
        for (turned_down, left, said) in cases {
            let event = asked(AdminRequest::IncrementalAlterConfigs(request()));
            let (rest, reply) = without(event, &turned_down);
            let Some(Event::Admin { request: AdminRequest::IncrementalAlterConfigs(rest), .. }) =
                rest
            else {
                panic!("nothing is left")
            };
            let names: Vec<&str> =
                rest.resources.iter().map(|resource| resource.resource_name.as_str()).collect();
            assert_eq!(names, left);
            let Reply::Admin(AdminResponse::IncrementalAlterConfigs(response)) = reply else {
                panic!("{reply:?}")
            };
            let codes: Vec<(&str, i16)> = response
                .responses
                .iter()
                .map(|one| (one.resource_name.as_str(), one.error_code))
                .collect();
            assert_eq!(codes, said);
            assert_eq!(
                response.responses[0].error_message.as_deref(),
                Some("the API server's words")
            );
        }
    }

    #[test]
    fn a_request_of_which_nothing_is_left_is_answered() {
        let topic =
            create_topics_request::CreatableTopic { name: "t".to_owned(), ..Default::default() };
        let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        let (rest, mut reply) =
            without(asked(AdminRequest::CreateTopics(request.clone())), &[down(Some("t"), false)]);
        assert!(rest.is_none());
        let (_, other) =
            without(asked(AdminRequest::CreateTopics(request.clone())), &[down(Some("t"), true)]);
        join(&mut reply, other);
        let Reply::Admin(AdminResponse::CreateTopics(response)) = reply else {
            panic!("{reply:?}")
        };
        assert_eq!(
            response.topics.iter().map(|topic| topic.error_code).collect::<Vec<_>>(),
            [44, 40]
        );
        // A deletion names a topic by its name or by its id.
        let state = |name: Option<&str>, id: u128| DeleteTopicState {
            name: name.map(str::to_owned),
            topic_id: Uuid::from_u128(id),
        };
        let request_of = DeleteTopicsRequest {
            topics: vec![state(None, 7), state(Some("t"), 0), state(Some("other"), 0)],
            topic_names: vec!["t".to_owned()],
            ..Default::default()
        };
        let (rest, reply) =
            without(asked(AdminRequest::DeleteTopics(request_of)), &[down(Some("t"), true)]);
        let Some(Event::Admin { request: AdminRequest::DeleteTopics(rest), .. }) = rest else {
            panic!("nothing is left")
        };
        assert_eq!((rest.topics.len(), rest.topic_names.len()), (1, 0));
        let Reply::Admin(AdminResponse::DeleteTopics(response)) = reply else {
            panic!("{reply:?}")
        };
        assert_eq!(
            response.responses.iter().map(|one| one.error_code).collect::<Vec<_>>(),
            [44; 3]
        );
        // A request that does not name the refused resource is refused as a whole, instead of being
        // retried forever.
        let (rest, reply) =
            without(asked(AdminRequest::CreateTopics(request)), &[down(Some("another"), false)]);
        assert!(rest.is_none() && matches!(reply, Reply::Refused(ErrorCode::PolicyViolation, _)));
    }
}
