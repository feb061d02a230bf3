//! DescribeUserScramCredentials and AlterUserScramCredentials (KIP-554). The broker describes what
//! its metadata has, and the controller alters.

use std::collections::BTreeSet;

use weir_protocol::api::ApiKey;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use weir_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResult,
};
use weir_protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};
use weir_security::scram::{self, DescribeError, Described, Stored};

use super::RequestContext;
use crate::api::Services;
use crate::auth::{Authorizer, Operation, Resource};

/// Answers DescribeUserScramCredentials.
pub(crate) fn describe(
    services: &Services,
    cx: &RequestContext,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let stored = &services.metadata.load().scram_credentials;
    described(&services.authorizer, cx, stored, &request)
}

fn described(
    authorizer: &Authorizer,
    cx: &RequestContext,
    stored: &Stored,
    request: &DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let users = request.users.as_ref();
    let users: Option<Vec<String>> =
        users.map(|users| users.iter().map(|user| user.name.clone()).collect());
    if !authorizer.allows(&cx.requester, Operation::Describe, Resource::Cluster) {
        let error = ErrorCode::ClusterAuthorizationFailed;
        let error_message = Some(error.message().to_owned());
        let result = |user: String| DescribeUserScramCredentialsResult {
            user,
            error_code: error.code(),
            error_message: error_message.clone(),
            ..Default::default()
        };
        return DescribeUserScramCredentialsResponse {
            error_code: error.code(),
            results: users.into_iter().flatten().map(result).collect(),
            error_message,
            ..Default::default()
        };
    }
    let results = scram::describe(stored, users.as_deref()).into_iter().map(told);
    DescribeUserScramCredentialsResponse {
        results: results.collect(),
        error_message: None,
        ..Default::default()
    }
}

fn told(
    (user, described): (String, Result<Described, DescribeError>),
) -> DescribeUserScramCredentialsResult {
    match described {
        Ok(credentials) => DescribeUserScramCredentialsResult {
            user,
            error_message: None,
            credential_infos: credentials
                .into_iter()
                .map(|(mechanism, iterations)| CredentialInfo {
                    mechanism: mechanism.code(),
                    iterations: i32::try_from(iterations).unwrap_or(i32::MAX),
                })
                .collect(),
            ..Default::default()
        },
        Err(error) => {
            let code = match error {
                DescribeError::NotFound(_) => ErrorCode::ResourceNotFound,
                DescribeError::Twice(_) => ErrorCode::DuplicateResource,
            };
            DescribeUserScramCredentialsResult {
                user,
                error_code: code.code(),
                error_message: Some(error.to_string()),
                ..Default::default()
            }
        }
    }
}

/// Answers AlterUserScramCredentials.
pub(crate) async fn alter(
    services: &Services,
    cx: &RequestContext,
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    if !services.authorizer.allows(&cx.requester, Operation::Alter, Resource::Cluster) {
        return altered_nothing(&request, ErrorCode::ClusterAuthorizationFailed);
    }
    let key = (ApiKey::AlterUserScramCredentials, cx.version);
    let forwarded =
        services.controller.forward(&services.metadata, cx.forwarded_by(), key, &request);
    forwarded.await.unwrap_or_else(|error| altered_nothing(&request, error))
}

/// One error for each user of the request
/// (`AlterUserScramCredentialsRequest.getErrorResponse`).
fn altered_nothing(
    request: &AlterUserScramCredentialsRequest,
    error: ErrorCode,
) -> AlterUserScramCredentialsResponse {
    let deleted = request.deletions.iter().map(|deletion| &deletion.name);
    let users: BTreeSet<&String> =
        deleted.chain(request.upsertions.iter().map(|upsertion| &upsertion.name)).collect();
    let result = |user: &String| AlterUserScramCredentialsResult {
        user: user.clone(),
        error_code: error.code(),
        error_message: Some(error.message().to_owned()),
    };
    AlterUserScramCredentialsResponse {
        results: users.into_iter().map(result).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use weir_protocol::messages::alter_user_scram_credentials_request::{
        ScramCredentialDeletion, ScramCredentialUpsertion,
    };
    use weir_protocol::messages::describe_user_scram_credentials_request::UserName;
    use weir_security::scram::{Credential, Mechanism};

    use super::*;
    use crate::api::fixtures::{assert_encodes, everyone, nobody, request};

    #[test]
    fn users_are_described_without_their_keys_and_those_who_may_not_ask_learn_nothing() {
        let credential = |mechanism, iterations| {
            let made = Credential::of_password(mechanism, b"a", b"salt".to_vec(), iterations);
            (mechanism, made.unwrap())
        };
        let both =
            [credential(Mechanism::Sha512, 8192), credential(Mechanism::Sha256, 4096)].into();
        let stored = Stored::from([("a".to_owned(), both)]);
        let ask = |users: Option<&[&str]>| DescribeUserScramCredentialsRequest {
            users: users.map(|users| {
                users.iter().map(|name| UserName { name: (*name).to_owned() }).collect()
            }),
        };
        let codes = |authorizer: &Authorizer, stored: &Stored, users| {
            let answer = described(authorizer, &request(0), stored, &ask(users));
            assert_encodes(&answer, 0);
            let results = answer.results.iter().map(|result| {
                let told = result.credential_infos.iter();
                let told: Vec<_> = told.map(|info| (info.mechanism, info.iterations)).collect();
                (result.user.clone(), result.error_code, told)
            });
            (answer.error_code, results.collect::<Vec<_>>())
        };
        let a = || ("a".to_owned(), 0, vec![(1, 4096), (2, 8192)]);
        assert_eq!(codes(&everyone(), &Stored::new(), None), (0, vec![]));
        for all in [None, Some(&[][..])] {
            assert_eq!(codes(&everyone(), &stored, all), (0, vec![a()]));
        }
        let none = |user: &str, code| (user.to_owned(), code, vec![]);
        let asked = Some(&["c", "a", "b", "c"][..]);
        assert_eq!(
            codes(&everyone(), &stored, asked),
            (0, vec![a(), none("b", 91), none("c", 92)])
        );
        assert_eq!(codes(&nobody(), &stored, Some(&["a"])), (31, vec![none("a", 31)]));
        assert_eq!(codes(&nobody(), &stored, None), (31, vec![]));
    }

    #[test]
    fn each_user_is_told_once_that_nothing_is_altered() {
        let deletion = |name: &str| ScramCredentialDeletion { name: name.to_owned(), mechanism: 1 };
        let upsertion =
            |name: &str| ScramCredentialUpsertion { name: name.to_owned(), ..Default::default() };
        let asked = AlterUserScramCredentialsRequest {
            deletions: vec![deletion("b"), deletion("a")],
            upsertions: vec![upsertion("a"), upsertion("c")],
        };
        let answer = altered_nothing(&asked, ErrorCode::ClusterAuthorizationFailed);
        assert_encodes(&answer, 0);
        let told = answer.results.iter().map(|result| (&*result.user, result.error_code));
        assert_eq!(told.collect::<Vec<_>>(), [("a", 31), ("b", 31), ("c", 31)]);
    }
}
