//! Answers for tools when the cluster has no authorizer and no quotas: DescribeAcls, CreateAcls,
//! DeleteAcls and DescribeClientQuotas. They are those of an Apache Kafka broker without an
//! authorizer.
//!
//! Tools send these requests first, and take a broker without them for an old one. The broker does
//! not serve AlterClientQuotas, which would change state.

use std::collections::BTreeSet;

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::create_acls_response::AclCreationResult;
use weir_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use weir_protocol::messages::describe_client_quotas_request::ComponentData;
use weir_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse,
    DescribeAclsRequest, DescribeAclsResponse, DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
};

use super::RequestContext;
use crate::api::Services;
use crate::auth::{Authorizer, Operation, Resource};

/// An error and its message.
type Refusal = (ErrorCode, Option<String>);

/// `DescribeClientQuotasRequest.MATCH_TYPE_…` in Apache Kafka.
const MATCH_EXACT: i8 = 0;
const MATCH_DEFAULT: i8 = 1;
const MATCH_ANY: i8 = 2;

/// Answers DescribeAcls.
pub(crate) fn describe_acls(
    services: &Services,
    cx: &RequestContext,
    _: DescribeAclsRequest,
) -> DescribeAclsResponse {
    let (error, error_message) = no_authorizer(
        &services.authorizer,
        cx,
        Operation::Describe,
        "No Authorizer is configured on the broker",
    );
    DescribeAclsResponse { error_code: error.code(), error_message, ..Default::default() }
}

/// Answers CreateAcls.
pub(crate) fn create_acls(
    services: &Services,
    cx: &RequestContext,
    request: CreateAclsRequest,
) -> CreateAclsResponse {
    let (error, error_message) =
        no_authorizer(&services.authorizer, cx, Operation::Alter, "No Authorizer is configured.");
    let result =
        |_| AclCreationResult { error_code: error.code(), error_message: error_message.clone() };
    CreateAclsResponse {
        results: request.creations.iter().map(result).collect(),
        ..Default::default()
    }
}

/// Answers DeleteAcls.
pub(crate) fn delete_acls(
    services: &Services,
    cx: &RequestContext,
    request: DeleteAclsRequest,
) -> DeleteAclsResponse {
    let (error, error_message) =
        no_authorizer(&services.authorizer, cx, Operation::Alter, "No Authorizer is configured.");
    let result = |_| DeleteAclsFilterResult {
        error_code: error.code(),
        error_message: error_message.clone(),
        ..Default::default()
    };
    DeleteAclsResponse {
        filter_results: request.filters.iter().map(result).collect(),
        ..Default::default()
    }
}

/// The reason why there are no ACLs, for a caller with permission (`AclApis`).
fn no_authorizer(
    authorizer: &Authorizer,
    cx: &RequestContext,
    operation: Operation,
    why: &str,
) -> Refusal {
    match authorize(authorizer, cx, operation) {
        Ok(()) => (ErrorCode::SecurityDisabled, Some(why.to_owned())),
        Err(refusal) => refusal,
    }
}

fn authorize(
    authorizer: &Authorizer,
    cx: &RequestContext,
    operation: Operation,
) -> Result<(), Refusal> {
    let error = ErrorCode::ClusterAuthorizationFailed;
    match authorizer.allows(&cx.requester, operation, Resource::Cluster) {
        true => Ok(()),
        false => Err((error, Some(error.message().to_owned()))),
    }
}

/// Answers DescribeClientQuotas: there are no quotas.
pub(crate) fn describe_quotas(
    services: &Services,
    cx: &RequestContext,
    request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    quotas(&services.authorizer, cx, &request)
}

fn quotas(
    authorizer: &Authorizer,
    cx: &RequestContext,
    request: &DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    let checked = authorize(authorizer, cx, Operation::DescribeConfigs)
        .and_then(|()| check_filter(&request.components));
    let (entries, error, error_message) = match checked {
        Ok(()) => (Some(Vec::new()), ErrorCode::None, None),
        Err((error, message)) => (None, error, message),
    };
    DescribeClientQuotasResponse {
        entries,
        error_code: error.code(),
        error_message,
        ..Default::default()
    }
}

/// Checks a filter of quotas (`ClientQuotasImage.describe`).
fn check_filter(components: &[ComponentData]) -> Result<(), Refusal> {
    let invalid = |message: String| Err((ErrorCode::InvalidRequest, Some(message)));
    let mut types = BTreeSet::new();
    for ComponentData { entity_type, match_type, r#match, .. } in components {
        if entity_type.is_empty() {
            return invalid("Invalid empty entity type.".to_owned());
        }
        if !types.insert(entity_type.as_str()) {
            return invalid(format!(
                "Entity type {entity_type} cannot appear more than once in the filter."
            ));
        }
        if !["ip", "user", "client-id"].contains(&entity_type.as_str()) {
            return Err((
                ErrorCode::UnsupportedVersion,
                Some(format!("Unsupported entity type {entity_type}")),
            ));
        }
        match (*match_type, r#match) {
            (MATCH_EXACT, None) => {
                return invalid(
                    "Request specified MATCH_TYPE_EXACT, but set match string to null.".to_owned(),
                );
            }
            (MATCH_DEFAULT, Some(_)) => {
                return invalid(
                    "Request specified MATCH_TYPE_DEFAULT, but also specified a match string."
                        .to_owned(),
                );
            }
            (MATCH_ANY, Some(_)) => {
                return invalid(
                    "Request specified MATCH_TYPE_SPECIFIED, but also specified a match string."
                        .to_owned(),
                );
            }
            (MATCH_EXACT | MATCH_DEFAULT | MATCH_ANY, _) => {}
            (other, _) => return invalid(format!("Unknown match type {other}")),
        }
    }
    if types.contains("ip") && types.len() > 1 {
        let message = "Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component.";
        return invalid(message.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use weir_protocol::api::ApiKey;

    use super::*;
    use crate::api::fixtures::{assert_encodes, everyone, nobody, request};

    #[test]
    fn there_is_no_authorizer_and_those_who_may_are_told() {
        let cx = request(1);
        let refusal = no_authorizer(&everyone(), &cx, Operation::Describe, "none");
        assert_eq!(refusal, (ErrorCode::SecurityDisabled, Some("none".to_owned())));
        assert_eq!(ErrorCode::SecurityDisabled.code(), 54);
        assert_eq!(no_authorizer(&nobody(), &cx, Operation::Describe, "none").0.code(), 31);
    }

    #[test]
    fn nobody_has_a_quota_and_a_filter_that_makes_no_sense_is_refused() {
        let component = |entity_type: &str, match_type, matches: Option<&str>| ComponentData {
            entity_type: entity_type.to_owned(),
            match_type,
            r#match: matches.map(str::to_owned),
        };
        let rows = [
            (vec![], 0),
            (vec![component("user", 1, None), component("client-id", 0, Some("a"))], 0),
            (vec![component("ip", 2, None)], 0),
            (vec![component("", 2, None)], 42),
            (vec![component("user", 2, None), component("user", 1, None)], 42),
            (vec![component("group", 2, None)], 35),
            (vec![component("user", 0, None)], 42),
            (vec![component("user", 1, Some("a"))], 42),
            (vec![component("user", 2, Some("a"))], 42),
            (vec![component("user", 3, None)], 42),
            (vec![component("ip", 2, None), component("user", 2, None)], 42),
        ];
        for version in ApiKey::DescribeClientQuotas.versions() {
            for (components, code) in &rows {
                let asked =
                    DescribeClientQuotasRequest { components: components.clone(), strict: false };
                let answer = quotas(&everyone(), &request(version), &asked);
                assert_encodes(&answer, version);
                assert_eq!(
                    (answer.error_code, answer.entries.is_some()),
                    (*code, *code == 0),
                    "{components:?}"
                );
                assert_eq!(quotas(&nobody(), &request(version), &asked).error_code, 31);
            }
        }
    }
}
