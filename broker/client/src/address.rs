//! Where a broker listens, and which node is there.

use std::fmt;

use weir_protocol::address;
use weir_security::principal::Principal;

/// A host, by name or by number, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The host, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The node that has to be there, over TLS; `None` for plain TCP, where anybody may be.
    pub node: Option<Principal>,
}

impl Address {
    /// The address of this host and port, over plain TCP.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, node: None }
    }

    /// The address of a node of the cluster, over TLS.
    pub fn of_node(host: impl Into<String>, port: u16, node: Principal) -> Self {
        Self { host: host.into(), port, node: Some(node) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&address::join(&self.host, self.port))
    }
}
