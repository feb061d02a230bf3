//! A request between its frame and its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures::future::BoxFuture;
use tracing::Span;

use super::context::RequestContext;
use super::reply::Reply;
use super::services::Services;
use crate::budget::Room;
use crate::metrics::{RequestName, Timing};

/// A frame that was received.
pub(crate) struct Received {
    /// The frame without its length prefix.
    pub(crate) frame: BytesMut,
    /// Its memory.
    pub(crate) room: Room,
    /// How long it waited for its memory.
    pub(crate) waited: Duration,
    /// When its last byte came, or its turn if that was later.
    pub(crate) whole_at: Instant,
}

/// The result of dispatching a request.
pub(crate) enum Dispatch {
    /// The answer is ready.
    Now(Reply),
    /// The answer follows.
    Later(BoxFuture<'static, Reply>),
    /// The answer follows, and later produces on the connection need not wait for it.
    Produced {
        reply: BoxFuture<'static, Reply>,
        /// The most bytes of the answer.
        bytes_max: usize,
        /// Every later request, also a produce, waits for this answer.
        alone: bool,
    },
    /// The request cannot be answered; the connection is closed for this reason. The span has what
    /// is known of the request.
    Close(String, Span),
}

/// The parts of a request, besides the body, that its answer needs.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) services: Arc<Services>,
    pub(super) cx: RequestContext,
    /// What it is called in metrics.
    pub(super) name: RequestName,
    /// How long it waited until it started.
    pub(super) queue: Duration,
    pub(super) started: Instant,
}

impl Request {
    /// Closes the connection after a request that cannot be decoded.
    pub(super) fn malformed(&self, error: &dyn std::error::Error) -> Dispatch {
        let reason = format!("{} v{}: {error}", self.cx.api, self.cx.version);
        Dispatch::Close(reason, self.cx.span())
    }

    /// Closes the connection after a large request that cannot be decoded.
    pub(super) fn unreadable(&self, error: &dyn std::error::Error) -> Reply {
        self.services.metrics.bad_request();
        self.cx.span().in_scope(|| {
            tracing::info!(reason = %error, "closed a connection over a request that cannot be answered");
        });
        Reply::close()
    }

    /// Counts the request as answered by `reply`; `failed` says whether that has an error.
    pub(super) fn reply(&self, reply: Reply, failed: bool) -> Reply {
        self.services.metrics.request_answered(self.name, failed);
        Reply { timing: Some(Timing::answered(self.name, self.queue, self.started)), ..reply }
    }
}
