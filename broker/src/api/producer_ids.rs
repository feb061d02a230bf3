//! InitProducerId: an id for an idempotent producer (KIP-98, KIP-360), or the id and the next epoch
//! of a transactional id, from its coordinator.

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::{RequestContext, transactions};
use crate::api::Services;
use crate::auth::{Authorizer, Operation, Resource};

/// The value for no producer id.
const NONE: i64 = -1;

/// Answers a request.
pub(crate) async fn handle(
    services: &Services,
    cx: &RequestContext,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let outcome =
        match (check(&services.authorizer, cx, &request), request.transactional_id.as_deref()) {
            (Ok(()), Some(id)) => transactions::init(services, cx, id, &request)
                .await
                .map(|producer| (producer.id, producer.epoch.0)),
            // An idempotent producer after an error sends the id that it has, and gets a new one
            // (KIP-360). Only transactional producers go on with an old id.
            (Ok(()), None) => {
                services.controller.producer_id(services.replicas.log_dir()).await.map(|id| (id, 0))
            }
            (Err(error), _) => Err(error),
        };
    match outcome {
        Ok((id, producer_epoch)) => {
            InitProducerIdResponse { producer_id: id.0, producer_epoch, ..Default::default() }
        }
        Err(error) => InitProducerIdResponse {
            error_code: error.code(),
            producer_id: NONE,
            producer_epoch: -1,
            ..Default::default()
        },
    }
}

/// Checks that the caller may get an id (`KafkaApis.handleInitProducerIdRequest`).
fn check(
    authorizer: &Authorizer,
    cx: &RequestContext,
    request: &InitProducerIdRequest,
) -> Result<(), ErrorCode> {
    match request.transactional_id.as_deref() {
        Some(id)
            if !authorizer.allows(
                &cx.requester,
                Operation::Write,
                Resource::TransactionalId(id),
            ) =>
        {
            return Err(ErrorCode::TransactionalIdAuthorizationFailed);
        }
        Some("") => return Err(ErrorCode::InvalidRequest),
        Some(_) => {}
        None if !authorizer.allows(
            &cx.requester,
            Operation::IdempotentWrite,
            Resource::Cluster,
        ) =>
        {
            return Err(ErrorCode::ClusterAuthorizationFailed);
        }
        None => {}
    }
    match (request.producer_id == NONE, request.producer_epoch == -1) {
        (true, true) | (false, false) => Ok(()),
        _ => Err(ErrorCode::InvalidRequest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fixtures::{everyone, nobody, request};

    #[test]
    fn who_gets_an_id() {
        let ask =
            |transactional_id: Option<&str>, producer_id, producer_epoch| InitProducerIdRequest {
                transactional_id: transactional_id.map(str::to_owned),
                producer_id,
                producer_epoch,
                ..Default::default()
            };
        let rows = [
            (everyone(), ask(None, -1, -1), Ok(())),
            (everyone(), ask(None, 7, 3), Ok(())),
            (everyone(), ask(None, 7, -1), Err(ErrorCode::InvalidRequest)),
            (everyone(), ask(None, -1, 3), Err(ErrorCode::InvalidRequest)),
            (everyone(), ask(Some(""), -1, -1), Err(ErrorCode::InvalidRequest)),
            (everyone(), ask(Some("t"), -1, -1), Ok(())),
            (everyone(), ask(Some("t"), 7, -1), Err(ErrorCode::InvalidRequest)),
            (nobody(), ask(Some("t"), -1, -1), Err(ErrorCode::TransactionalIdAuthorizationFailed)),
            (nobody(), ask(None, -1, -1), Err(ErrorCode::ClusterAuthorizationFailed)),
        ];
        for (authorizer, body, expected) in rows {
            assert_eq!(check(&authorizer, &request(5), &body), expected, "{body:?}");
        }
    }
}
