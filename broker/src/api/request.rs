//! A request on its way to its answer.

use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use weir_protocol::api::ApiKey;

use super::context::RequestContext;
use super::reply::Reply;
use super::services::Services;

/// What is to be done with a request.
pub(crate) enum Handled {
    /// It is answered.
    Now(Reply),
    /// It will be.
    Later(BoxFuture<'static, Reply>),
    /// It will be, and other produces need not wait for that.
    Produced {
        reply: BoxFuture<'static, Reply>,
        /// What the answer takes at most.
        bytes_max: usize,
        /// What comes after it has to wait for the answer: also the next produce.
        alone: bool,
    },
    /// It cannot be answered: the connection ends, for this reason.
    Close(String),
}

/// A request on its way: what an answer needs besides its body.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) services: Arc<Services>,
    pub(super) cx: RequestContext,
    pub(super) api: ApiKey,
    pub(super) correlation_id: i32,
    pub(super) started: Instant,
}

impl Request {
    /// The end of a connection whose request is not what it says.
    pub(super) fn malformed(&self, error: &dyn std::error::Error) -> Handled {
        Handled::Close(format!("{} v{}: {error}", self.api, self.cx.version))
    }

    /// The end of a connection whose large request is not what it says.
    pub(super) fn unreadable(&self, error: &dyn std::error::Error) -> Reply {
        self.services.metrics.bad_request();
        tracing::info!(peer = %self.cx.peer, api = %self.api, version = self.cx.version, %error, "closed a connection over a request that cannot be answered");
        Reply::close()
    }

    /// Counts the request as answered by `reply`, which may tell of an error.
    pub(super) fn reply(&self, reply: Reply, failed: bool) -> Reply {
        self.services.metrics.request_finished(self.api, self.started.elapsed(), failed);
        reply
    }
}
