//! InitProducerId of a producer with a transactional id.

use std::time::Duration;

use tokio::time::Instant;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::InitProducerIdRequest;

use super::{ask_with_fresh_id, fenced_as, producer};
use crate::api::RequestContext;
use crate::api::Services;
use crate::transaction::{Producer, Request};

/// The longest wait for the end of the previous transaction. Apache Kafka answers at once, and
/// clients retry after a pause of theirs; some give up.
const ENDING_MAX: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(10);

/// The first version that knows PRODUCER_FENCED.
const FENCED_SINCE: i16 = 4;

/// Asks the coordinator. The caller has checked the client's permission.
///
/// # Errors
/// The error for the client.
pub(crate) async fn init(
    services: &Services,
    cx: &RequestContext,
    id: &str,
    request: &InitProducerIdRequest,
) -> Result<Producer, ErrorCode> {
    let expected =
        (request.producer_id >= 0).then(|| producer(request.producer_id, request.producer_epoch));
    let make = |fresh, to| Request::Init {
        id: id.to_owned(),
        timeout_ms: request.transaction_timeout_ms,
        expected,
        fresh,
        to,
    };
    let deadline = Instant::now() + ENDING_MAX;
    let result = loop {
        let result = ask_with_fresh_id(services, id, make).await;
        if result != Err(ErrorCode::ConcurrentTransactions) {
            break result;
        }
        // The request may have aborted the previous producer's transaction.
        services.transaction_io.ended(id);
        if Instant::now() >= deadline {
            break result;
        }
        tokio::time::sleep(RETRY).await;
    };
    result.map_err(|code| fenced_as(code, cx.version, FENCED_SINCE))
}
