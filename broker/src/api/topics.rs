//! CreateTopics, DeleteTopics and CreatePartitions: checks permissions and the request itself. The
//! controller decides the rest.
//!
//! Kafka's `ControllerApis` divides the work in the same way. Refusals of this broker never reach
//! the controller, and are merged into the response.

mod delete;

use std::collections::BTreeMap;

use weir_protocol::api::ApiKey;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use weir_protocol::messages::create_topics_request::CreatableTopic;
use weir_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use weir_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
};
use weir_settings::{Configs, Layers, TOPIC};

pub(crate) use self::delete::handle as handle_delete;
use super::RequestContext;
use crate::api::Services;
use crate::auth::{Authorizer, Operation, Resource};

const DUPLICATE_NAME: &str = "Duplicate topic name.";

/// The results of a CreateTopics, which are small until they are described.
#[derive(Debug)]
pub(crate) struct Creations {
    /// The topics sent to the controller, with the settings of each.
    asked: Vec<CreatableTopic>,
    results: Vec<CreatableTopicResult>,
}

/// Runs CreateTopics.
pub(crate) async fn create(
    services: &Services,
    cx: &RequestContext,
    mut request: CreateTopicsRequest,
) -> Creations {
    let mut results = refuse_creations(&services.authorizer, cx, &mut request.topics);
    if !request.topics.is_empty() {
        let answer = services
            .controller
            .forward::<_, CreateTopicsResponse>(
                &services.metadata,
                cx.forwarded_by(),
                (ApiKey::CreateTopics, cx.version),
                &request,
            )
            .await;
        results.extend(created(&request.topics, answer));
    }
    Creations { asked: request.topics, results }
}

/// The answer to CreateTopics.
pub(crate) fn describe_creations(
    services: &Services,
    cx: &RequestContext,
    creations: &Creations,
) -> CreateTopicsResponse {
    let image = services.metadata.load();
    creations.describe(&services.authorizer, cx, image.layers(services.config.id))
}

/// Removes the topics that this broker refuses from `topics`, and returns their results.
fn refuse_creations(
    authorizer: &Authorizer,
    cx: &RequestContext,
    topics: &mut Vec<CreatableTopic>,
) -> Vec<CreatableTopicResult> {
    let allowed_all = authorizer.allows(&cx.requester, Operation::Create, Resource::Cluster);
    let counts = count(topics.iter().map(|topic| topic.name.as_str()));
    let mut refused: BTreeMap<String, (ErrorCode, &str)> = BTreeMap::new();
    for (name, count) in &counts {
        if *count > 1 {
            refused.insert((*name).to_owned(), (ErrorCode::InvalidRequest, DUPLICATE_NAME));
        } else if !allowed_all
            && !authorizer.allows(&cx.requester, Operation::Create, Resource::Topic(name))
        {
            let error = ErrorCode::TopicAuthorizationFailed;
            refused.insert((*name).to_owned(), (error, error.message()));
        }
    }
    topics.retain(|topic| !refused.contains_key(&topic.name));
    refused
        .into_iter()
        .map(|(name, (error, message))| creation_error(name, error, Some(message.to_owned())))
        .collect()
}

/// The controller's result for each topic that it was asked for.
fn created(
    asked: &[CreatableTopic],
    answer: Result<CreateTopicsResponse, ErrorCode>,
) -> Vec<CreatableTopicResult> {
    match answer {
        Ok(response) => response.topics,
        Err(error) => {
            asked.iter().map(|topic| creation_error(topic.name.clone(), error, None)).collect()
        }
    }
}

impl Creations {
    /// The response for this caller. From version 5 on it has the new topics' configurations
    /// (KIP-525), if the caller may read them.
    fn describe(
        &self,
        authorizer: &Authorizer,
        cx: &RequestContext,
        layers: Layers<'_>,
    ) -> CreateTopicsResponse {
        let asked: BTreeMap<&str, &CreatableTopic> =
            self.asked.iter().map(|topic| (topic.name.as_str(), topic)).collect();
        let mut topics = self.results.clone();
        for result in topics.iter_mut().filter(|result| result.error_code == 0) {
            if !authorizer.allows(
                &cx.requester,
                Operation::DescribeConfigs,
                Resource::Topic(&result.name),
            ) {
                result.topic_config_error_code = ErrorCode::TopicAuthorizationFailed.code();
                result.num_partitions = -1;
                result.replication_factor = -1;
                result.configs = None;
            } else if cx.version >= 5 {
                let topic = asked.get(result.name.as_str());
                let set = topic.into_iter().flat_map(|topic| &topic.configs);
                let set: Configs = set
                    .filter_map(|config| Some((config.name.clone(), config.value.clone()?)))
                    .collect();
                result.configs = Some(describe_new(&set, layers));
            }
        }
        CreateTopicsResponse { topics, ..Default::default() }
    }
}

fn describe_new(set: &Configs, layers: Layers<'_>) -> Vec<CreatableTopicConfigs> {
    let entry = |key| {
        let effective = layers.describe_topic(set, key);
        CreatableTopicConfigs {
            name: key.name.to_owned(),
            value: effective.value.map(String::from),
            read_only: false,
            config_source: effective.source as i8,
            is_sensitive: false,
        }
    };
    TOPIC.iter().map(entry).collect()
}

fn creation_error(
    name: String,
    error: ErrorCode,
    error_message: Option<String>,
) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: error.code(),
        error_message,
        num_partitions: -1,
        replication_factor: -1,
        ..Default::default()
    }
}

/// Answers CreatePartitions.
pub(crate) async fn handle_create_partitions(
    services: &Services,
    cx: &RequestContext,
    mut request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = refuse_growth(&services.authorizer, cx, &mut request);
    if !request.topics.is_empty() {
        match services
            .controller
            .forward::<_, CreatePartitionsResponse>(
                &services.metadata,
                cx.forwarded_by(),
                (ApiKey::CreatePartitions, cx.version),
                &request,
            )
            .await
        {
            Ok(response) => results.extend(response.results),
            Err(error) => results.extend(
                request.topics.into_iter().map(|topic| growth_error(topic.name, error, None)),
            ),
        }
    }
    CreatePartitionsResponse { results, ..Default::default() }
}

fn refuse_growth(
    authorizer: &Authorizer,
    cx: &RequestContext,
    request: &mut CreatePartitionsRequest,
) -> Vec<CreatePartitionsTopicResult> {
    let counts = count(request.topics.iter().map(|topic| topic.name.as_str()));
    let mut refused = BTreeMap::new();
    for (name, count) in &counts {
        if *count > 1 {
            refused.insert(
                (*name).to_owned(),
                (ErrorCode::InvalidRequest, Some(DUPLICATE_NAME.to_owned())),
            );
        } else if !authorizer.allows(&cx.requester, Operation::Alter, Resource::Topic(name)) {
            refused.insert((*name).to_owned(), (ErrorCode::TopicAuthorizationFailed, None));
        }
    }
    request.topics.retain(|topic| !refused.contains_key(&topic.name));
    refused.into_iter().map(|(name, (error, message))| growth_error(name, error, message)).collect()
}

fn growth_error(
    name: String,
    error: ErrorCode,
    error_message: Option<String>,
) -> CreatePartitionsTopicResult {
    CreatePartitionsTopicResult { name, error_code: error.code(), error_message }
}

/// The number of times that each name occurs.
fn count<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use weir_protocol::messages::create_partitions_request::CreatePartitionsTopic;
    use weir_protocol::messages::create_topics_request::CreatableTopicConfig;

    use super::*;
    use crate::api::fixtures::{A, assert_encodes, everyone, nobody, request};

    fn creatable(name: &str) -> CreatableTopic {
        let config =
            CreatableTopicConfig { name: "retention.ms".to_owned(), value: Some("5".to_owned()) };
        CreatableTopic { name: name.to_owned(), configs: vec![config], ..Default::default() }
    }

    #[test]
    fn each_topic_once_and_only_by_those_who_may() {
        let mut topics = vec![creatable("a"), creatable("b"), creatable("a")];
        let refused = refuse_creations(&everyone(), &request(7), &mut topics);
        assert_eq!(
            refused.iter().map(|topic| (topic.name.as_str(), topic.error_code)).collect::<Vec<_>>(),
            [("a", 42)]
        );
        assert_eq!(topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(refuse_creations(&nobody(), &request(7), &mut topics)[0].error_code, 29);
        assert!(topics.is_empty());
        let growth = |name: &str| CreatePartitionsTopic {
            name: name.to_owned(),
            count: 3,
            ..Default::default()
        };
        let mut body = CreatePartitionsRequest {
            topics: vec![growth("a"), growth("b"), growth("a")],
            ..Default::default()
        };
        assert_eq!(
            refuse_growth(&everyone(), &request(3), &mut body)
                .iter()
                .map(|result| result.error_code)
                .collect::<Vec<_>>(),
            [42]
        );
        assert_eq!(
            refuse_growth(&nobody(), &request(3), &mut body)
                .iter()
                .map(|result| result.error_code)
                .collect::<Vec<_>>(),
            [29]
        );
        assert!(body.topics.is_empty());
    }

    #[test]
    fn a_new_topic_is_described_to_those_who_may_see_it() {
        let answer = || {
            let good = CreatableTopicResult {
                name: "a".to_owned(),
                num_partitions: 3,
                replication_factor: 1,
                ..Default::default()
            };
            let bad = creation_error("b".to_owned(), ErrorCode::TopicAlreadyExists, None);
            Ok(CreateTopicsResponse { topics: vec![good, bad], ..Default::default() })
        };
        let asked = [creatable("a"), creatable("b")];
        let creations =
            |answer| Creations { asked: asked.to_vec(), results: created(&asked, answer) };
        let seen = creations(answer()).describe(&everyone(), &request(7), Layers::default()).topics;
        let configs = seen[0].configs.as_ref().unwrap();
        let retention = configs.iter().find(|config| config.name == "retention.ms").unwrap();
        assert_eq!(
            (configs.len(), retention.value.as_deref(), retention.config_source),
            (TOPIC.len(), Some("5"), 1)
        );
        assert_eq!((seen[1].error_code, seen[1].configs.as_ref().map_or(0, Vec::len)), (36, 0));
        let hidden = creations(answer()).describe(&nobody(), &request(7), Layers::default()).topics;
        assert_eq!(
            (hidden[0].topic_config_error_code, hidden[0].num_partitions, &hidden[0].configs),
            (29, -1, &None)
        );
        let failed = created(&asked, Err(ErrorCode::NotController));
        assert_eq!(failed.iter().map(|topic| topic.error_code).collect::<Vec<_>>(), [41, 41]);
    }

    #[test]
    fn every_version_can_carry_its_answer() {
        for version in ApiKey::CreateTopics.versions() {
            for authorizer in [everyone(), nobody()] {
                let good = CreatableTopicResult {
                    name: "a".to_owned(),
                    topic_id: A,
                    num_partitions: 3,
                    replication_factor: 1,
                    ..Default::default()
                };
                let answer = Ok(CreateTopicsResponse { topics: vec![good], ..Default::default() });
                let asked = vec![creatable("a")];
                let mut results = created(&asked, answer);
                results.extend(refuse_creations(
                    &nobody(),
                    &request(version),
                    &mut vec![creatable("b")],
                ));
                let creations = Creations { asked, results };
                assert_encodes(
                    &creations.describe(&authorizer, &request(version), Layers::default()),
                    version,
                );
            }
        }
    }
}
