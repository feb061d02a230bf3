//! The context of a request: everything that an API knows besides the body.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::Notify;
use tracing::{Span, error_span};
use weir_protocol::api::ApiKey;

use crate::auth::Requester;
use crate::budget::Room;
use crate::controller_client::ForwardedBy;

/// A listener that clients connect to.
#[derive(Debug, PartialEq, Eq)]
pub struct Listener {
    /// The name, which selects the endpoints of all brokers on this listener.
    pub name: String,
}

/// The client of a connection.
#[derive(Debug)]
pub struct Caller {
    /// The number of the connection, from 1 on in the order of this process.
    pub connection: u64,
    /// The listener that accepted the connection.
    pub listener: Arc<Listener>,
    /// The client as ACLs know it: its principal and its address.
    pub requester: Requester,
    /// The client's address.
    pub peer: SocketAddr,
    /// Notified when the next request arrives before the last is answered. A follower's long poll
    /// then ends, because the next request brings news of its partitions.
    pub next_is_here: Notify,
    /// Whether a Metadata request on this connection has named topics.
    pub has_asked_for_topics: AtomicBool,
}

/// The client of a request, and the version of the API.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The client of the connection.
    pub caller: Arc<Caller>,
    /// The API.
    pub api: ApiKey,
    /// The number by which the client knows the request again.
    pub correlation_id: i32,
    /// The client id, any text.
    pub client_id: Option<String>,
    /// The version of the API, for the request and its response.
    pub version: i16,
    /// The memory of the request, until it is answered or nothing of it is left.
    pub room: Room,
}

impl Caller {
    /// The span of a log line about the connection. It is made where a line is written, so that a
    /// connection without lines costs nothing.
    pub(crate) fn span(&self) -> Span {
        error_span!(parent: None, "connection", connection = self.connection, peer = %self.peer, listener = %self.listener.name)
    }
}

impl RequestContext {
    /// The span of a log line about the request, made where the line is written.
    pub(crate) fn span(&self) -> Span {
        let client_id = self.client_id.as_deref();
        error_span!(parent: None, "request", connection = self.connection, peer = %self.peer, client_id, api = %self.api, version = self.version, correlation_id = self.correlation_id)
    }

    /// The client, in the form that the controller gets.
    pub(crate) fn forwarded_by(&self) -> ForwardedBy<'_> {
        ForwardedBy {
            principal: &self.requester.principal,
            client_id: self.client_id.as_deref(),
            host: self.peer.ip(),
        }
    }
}

impl std::ops::Deref for RequestContext {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}
