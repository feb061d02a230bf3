//! AlterUserScramCredentials (`ScramControlManager` in Apache Kafka). Brokers answer
//! DescribeUserScramCredentials from their metadata.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use weir_protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
};
use weir_security::scram::{self, AlterError, Altered, Deletion, Upsertion};
use weir_security::secret::Secret;

use super::draft::Draft;
use super::error::{ApiError, wire};
use super::limits::CREDENTIALS_BYTES_MAX;
use super::state::{Change, CredentialChange};

/// Gives a cluster the key that makes the salts of users who do not exist.
pub(super) fn begin(draft: &mut Draft<'_>) {
    if draft.state.credentials.mock_key().is_none() {
        let key = Secret::new(draft.moment.seed.to_be_bytes().to_vec());
        draft.push(Change::ScramMockKey(key));
    }
}

pub(super) fn alter(
    draft: &mut Draft<'_>,
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    let deletions: Vec<Deletion> = request
        .deletions
        .into_iter()
        .map(|deletion| Deletion { user: deletion.name, mechanism: deletion.mechanism })
        .collect();
    let upsertions: Vec<Upsertion> = request
        .upsertions
        .into_iter()
        .map(|upsertion| Upsertion {
            user: upsertion.name,
            mechanism: upsertion.mechanism,
            iterations: upsertion.iterations,
            salt: upsertion.salt.to_vec(),
            salted_password: Secret::new(upsertion.salted_password.to_vec()),
        })
        .collect();
    let outcomes = scram::alter(draft.state.credentials.by_user(), &deletions, &upsertions);
    let results = outcomes.into_iter().map(|(user, outcome)| {
        let outcome = outcome.map_err(|error| ApiError::new(code_of(error), error.to_string()));
        let done = outcome.and_then(|altered| carry_out(draft, user.clone(), altered));
        let (error_code, error_message) = wire(&done);
        AlterUserScramCredentialsResult { user, error_code, error_message }
    });
    AlterUserScramCredentialsResponse { results: results.collect(), ..Default::default() }
}

/// Changes the credential of a user, if there is room for it.
fn carry_out(draft: &mut Draft<'_>, user: String, altered: Altered) -> Result<(), ApiError> {
    let (mechanism, credential) = match altered {
        Altered::Deleted(mechanism) => (mechanism, None),
        Altered::Upserted(credential) => (credential.mechanism(), Some(credential)),
    };
    let change = CredentialChange { user, mechanism, credential };
    let is_set = change.credential.is_some();
    if is_set && draft.state.credentials.bytes_after(&change) > CREDENTIALS_BYTES_MAX {
        return Err(ApiError::new(
            ErrorCode::PolicyViolation,
            format!(
                "All SCRAM credentials of the cluster together would take more than {CREDENTIALS_BYTES_MAX} bytes."
            ),
        ));
    }
    draft.push(Change::ScramCredential(change));
    Ok(())
}

fn code_of(error: AlterError) -> ErrorCode {
    match error {
        AlterError::EmptyUser | AlterError::Unacceptable(_) => ErrorCode::UnacceptableCredential,
        AlterError::UnknownMechanism => ErrorCode::UnsupportedSaslMechanism,
        AlterError::Twice => ErrorCode::DuplicateResource,
        AlterError::NotFound => ErrorCode::ResourceNotFound,
    }
}
