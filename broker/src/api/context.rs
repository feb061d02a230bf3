//! What an API knows of a request besides its body.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::Notify;

use crate::auth::Principal;
use crate::budget::Room;
use crate::controller_client::ForwardedBy;

/// A listener that clients connect to.
#[derive(Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name, by which the endpoints of all brokers on it are found.
    pub name: String,
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub struct Caller {
    /// The listener on which the connection came in.
    pub listener: Arc<Listener>,
    /// Who the connection belongs to.
    pub principal: Principal,
    /// The other end's address.
    pub peer: SocketAddr,
    /// Told when the next request is there while one is still being answered: a follower's long
    /// poll ends then, since what comes next is news of its partitions.
    pub next_is_here: Notify,
    /// Metadata of topics was asked for on this connection.
    pub has_asked_for_topics: AtomicBool,
}

/// Who asks, and in which version.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// Whose connection it is.
    pub caller: Arc<Caller>,
    /// What the client calls itself; it can be anything.
    pub client_id: Option<String>,
    /// The version of the API that the request is in, and its response will be.
    pub version: i16,
    /// The request's room in memory, until it is answered or nothing of it is left.
    pub room: Room,
}

impl RequestContext {
    /// Who asks, as the controller is told.
    pub(crate) fn forwarded_by(&self) -> ForwardedBy<'_> {
        ForwardedBy {
            principal: &self.principal,
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
