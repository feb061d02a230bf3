//! EndTxn: commits or aborts a transaction.

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{EndTxnRequest, EndTxnResponse};

use super::{ask_with_fresh_id, authorize, fenced_as, producer};
use crate::api::RequestContext;
use crate::api::Services;
use crate::auth::Operation;
use crate::transaction::{Producer, Request};

/// The first version with PRODUCER_FENCED, and the first of transactions v2.
const FENCED_SINCE: i16 = 2;
const V2_SINCE: i16 = 5;

/// Answers a request.
pub(crate) async fn handle(
    services: &Services,
    cx: &RequestContext,
    request: EndTxnRequest,
) -> EndTxnResponse {
    match end(services, cx, &request).await {
        Ok(_) if cx.version < V2_SINCE => EndTxnResponse::default(),
        Ok(producer) => EndTxnResponse {
            producer_id: producer.id.0,
            producer_epoch: producer.epoch.0,
            ..Default::default()
        },
        Err(code) => EndTxnResponse {
            error_code: fenced_as(code, cx.version, FENCED_SINCE).code(),
            ..Default::default()
        },
    }
}

async fn end(
    services: &Services,
    cx: &RequestContext,
    request: &EndTxnRequest,
) -> Result<Producer, ErrorCode> {
    let id = &request.transactional_id;
    authorize(services, cx, Operation::Write, id)?;
    if id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    let make = |fresh, to| Request::End {
        id: id.clone(),
        from: producer(request.producer_id, request.producer_epoch),
        commit: request.committed,
        version: if cx.version >= V2_SINCE { 2 } else { 0 },
        fresh,
        to,
    };
    let ended = ask_with_fresh_id(services, id, make).await?;
    services.transaction_io.ended(id);
    Ok(ended)
}
