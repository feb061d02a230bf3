//! Where a broker listens, and which node is there.

use std::fmt;

use weir_protocol::address;
use weir_protocol::types::BrokerId;
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

    /// How a node of the cluster reaches a broker, by host and port: on the broker's internal
    /// listener, where it has to be itself, or else on `other` over plain TCP.
    pub fn of_broker(
        id: BrokerId,
        internal: Option<(&str, u16)>,
        other: Option<(&str, u16)>,
    ) -> Option<Self> {
        let of_node = |(host, port)| Self::of_node(host, port, Principal::Broker(id.0));
        let plain = |(host, port)| Self::new(host, port);
        internal.map(of_node).or_else(|| other.map(plain))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&address::join(&self.host, self.port))
    }
}
