//! DeleteTopics, by name or by id (`ControllerApis.deleteTopics` in Apache Kafka).

use std::collections::BTreeMap;

use uuid::Uuid;
use weir_protocol::api::ApiKey;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::delete_topics_request::DeleteTopicState;
use weir_protocol::messages::delete_topics_response::DeletableTopicResult;
use weir_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use weir_protocol::types::TopicId;

use super::DUPLICATE_NAME;
use crate::api::Services;
use crate::api::{RequestContext, configs};
use crate::auth::{Authorizer, Operation, Resource};
use crate::metadata::MetadataImage;

/// The first version whose requests name topics by name or id; earlier ones by name alone.
const TOPIC_STATES_VERSION: i16 = 6;
/// The first version whose clients know TOPIC_DELETION_DISABLED.
const DELETION_DISABLED_VERSION: i16 = 3;

/// Answers a request.
pub(crate) async fn handle(
    services: &Services,
    cx: &RequestContext,
    mut request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let by_name = std::mem::take(&mut request.topic_names)
        .into_iter()
        .map(|name| DeleteTopicState { name: Some(name), ..Default::default() });
    let asked: Vec<_> = by_name.chain(std::mem::take(&mut request.topics)).collect();
    let (allowed, mut responses) = {
        let image = services.metadata.load();
        if !configs::flag(&image, services.config.id, "delete.topic.enable") {
            let error = if cx.version < DELETION_DISABLED_VERSION {
                ErrorCode::InvalidRequest
            } else {
                ErrorCode::TopicDeletionDisabled
            };
            return DeleteTopicsResponse {
                responses: asked.into_iter().map(|topic| result(topic, error, None)).collect(),
                ..Default::default()
            };
        }
        refuse(&image, &services.authorizer, cx, asked)
    };
    if !allowed.is_empty() {
        match cx.version >= TOPIC_STATES_VERSION {
            true => request.topics = allowed.clone(),
            false => {
                request.topic_names =
                    allowed.iter().filter_map(|topic| topic.name.clone()).collect()
            }
        }
        match services
            .controller
            .forward::<_, DeleteTopicsResponse>(
                &services.metadata,
                cx.forwarded_by(),
                (ApiKey::DeleteTopics, cx.version),
                &request,
            )
            .await
        {
            Ok(response) => responses.extend(response.responses),
            Err(error) => {
                responses.extend(allowed.into_iter().map(|topic| result(topic, error, None)))
            }
        }
    }
    DeleteTopicsResponse { responses, ..Default::default() }
}

/// The topics for the controller, and the results of the refused ones.
fn refuse(
    image: &MetadataImage,
    authorizer: &Authorizer,
    cx: &RequestContext,
    asked: Vec<DeleteTopicState>,
) -> (Vec<DeleteTopicState>, Vec<DeletableTopicResult>) {
    let name_of = |topic: &DeleteTopicState| match &topic.name {
        Some(name) => Some(name.clone()),
        None => image.topic(TopicId(topic.topic_id)).map(|topic| topic.name.to_string()),
    };
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut ids: BTreeMap<Uuid, usize> = BTreeMap::new();
    for topic in &asked {
        *names.entry(name_of(topic).unwrap_or_default()).or_default() += 1;
        *ids.entry(topic.topic_id).or_default() += 1;
    }
    let (mut allowed, mut refused) = (Vec::new(), BTreeMap::new());
    for topic in asked {
        let name = name_of(&topic);
        let repeated = |name: &str| names.get(name).is_some_and(|count| *count > 1);
        let may = |operation, name: &str| {
            authorizer.allows(&cx.requester, operation, Resource::Topic(name))
        };
        let outcome = match (&topic.name, topic.topic_id.is_nil(), name.as_deref()) {
            (None, true, _) => {
                Err((ErrorCode::InvalidRequest, Some("Neither topic name nor id were specified.")))
            }
            (Some(_), false, _) => Err((
                ErrorCode::InvalidRequest,
                Some("You may not specify both topic name and topic id."),
            )),
            (None, false, _) if ids.get(&topic.topic_id).is_some_and(|count| *count > 1) => {
                Err((ErrorCode::InvalidRequest, Some("Duplicate topic id.")))
            }
            (_, _, None) => Err((ErrorCode::UnknownTopicId, None)),
            // A caller without permission must not learn that the topic exists.
            (_, _, Some(name))
                if !may(Operation::Describe, name) || !may(Operation::Delete, name) =>
            {
                Err((ErrorCode::TopicAuthorizationFailed, None))
            }
            (_, _, Some(name)) if repeated(name) => {
                Err((ErrorCode::InvalidRequest, Some(DUPLICATE_NAME)))
            }
            _ => Ok(()),
        };
        match outcome {
            Ok(()) => allowed.push(topic),
            Err((error, message)) => {
                refused.insert((topic.name.clone(), topic.topic_id), result(topic, error, message));
            }
        }
    }
    (allowed, refused.into_values().collect())
}

/// A result that contains no more about the topic than the caller sent.
fn result(
    topic: DeleteTopicState,
    error: ErrorCode,
    message: Option<&str>,
) -> DeletableTopicResult {
    DeletableTopicResult {
        name: topic.name,
        topic_id: topic.topic_id,
        error_code: error.code(),
        error_message: message.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fixtures::{A, B, everyone, image, nobody, request};

    fn ask(
        authorizer: &Authorizer,
        topics: &[(Option<&str>, Uuid)],
    ) -> (usize, Vec<(Option<String>, i16)>) {
        let state = |(name, topic_id): &(Option<&str>, Uuid)| DeleteTopicState {
            name: name.map(str::to_owned),
            topic_id: *topic_id,
        };
        let (allowed, refused) =
            refuse(&image(), authorizer, &request(6), topics.iter().map(state).collect());
        (
            allowed.len(),
            refused.into_iter().map(|result| (result.name, result.error_code)).collect(),
        )
    }

    #[test]
    fn by_name_by_id_but_each_once() {
        let nil = Uuid::nil();
        let (a, none) = (Some("a".to_owned()), None);
        assert_eq!(ask(&everyone(), &[(Some("a"), nil), (None, B)]), (2, vec![]));
        assert_eq!(
            ask(&everyone(), &[(Some("gone"), nil)]),
            (1, vec![]),
            "the controller may know more"
        );
        assert_eq!(ask(&everyone(), &[(None, Uuid::from_u128(9))]), (0, vec![(none.clone(), 100)]));
        assert_eq!(ask(&everyone(), &[(None, nil)]), (0, vec![(none.clone(), 42)]));
        assert_eq!(ask(&everyone(), &[(Some("a"), A)]), (0, vec![(a.clone(), 42)]));
        assert_eq!(
            ask(&everyone(), &[(Some("a"), nil), (Some("a"), nil), (Some("b"), nil)]),
            (1, vec![(a.clone(), 42)])
        );
        assert_eq!(
            ask(&everyone(), &[(Some("a"), nil), (None, A)]),
            (0, vec![(none.clone(), 42), (a.clone(), 42)])
        );
        assert_eq!(ask(&everyone(), &[(None, A), (None, A)]), (0, vec![(none.clone(), 42)]));
    }

    #[test]
    fn nothing_is_told_to_those_who_may_not_see() {
        let nil = Uuid::nil();
        let expected = vec![(None, 29), (Some("a".to_owned()), 29), (Some("gone".to_owned()), 29)];
        assert_eq!(
            ask(&nobody(), &[(Some("a"), nil), (Some("gone"), nil), (None, B)]),
            (0, expected)
        );
    }
}
