//! Where this broker reaches the other brokers, and what it shows them.
//!
//! With an identity, brokers meet on the internal listener, over TLS. A broker of a version before
//! has none. Then, and without an identity, they meet on the first listener of this broker.

use std::sync::Arc;

use weir_client::Address;
use weir_protocol::controller::INTERNAL_LISTENER;
use weir_protocol::types::BrokerId;
use weir_tls::Identities;

use crate::metadata::Metadata;

/// The addresses of the other brokers.
#[derive(Clone, Debug)]
pub struct PeerAddresses {
    metadata: Arc<Metadata>,
    listener: String,
    identities: Option<Arc<Identities>>,
}

/// The metadata has no broker of this id, or no address of it on this listener.
#[derive(Debug, thiserror::Error)]
#[error("the metadata has no address of it on the listener {0}")]
pub struct NoAddress(String);

impl PeerAddresses {
    /// The addresses in the metadata: on `listener` as far as there is no internal one.
    pub fn new(
        metadata: &Arc<Metadata>,
        listener: &str,
        identities: Option<&Arc<Identities>>,
    ) -> Self {
        Self {
            metadata: Arc::clone(metadata),
            listener: listener.to_owned(),
            identities: identities.map(Arc::clone),
        }
    }

    /// What this broker shows the others.
    pub fn identities(&self) -> Option<&Arc<Identities>> {
        self.identities.as_ref()
    }

    /// The address of a broker.
    ///
    /// # Errors
    /// When the metadata has none.
    pub fn of(&self, id: BrokerId) -> Result<Address, NoAddress> {
        let image = self.metadata.load();
        let missing = || NoAddress(self.listener.clone());
        let broker = image.brokers.get(&id).ok_or_else(missing)?;
        let at = |listener: &str| {
            broker.endpoint(listener).map(|endpoint| (endpoint.host.as_str(), endpoint.port))
        };
        let internal = at(INTERNAL_LISTENER).filter(|_| self.identities.is_some());
        Address::of_broker(id, internal, at(&self.listener)).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use weir_protocol::controller as rpc;
    use weir_protocol::types::ControllerEpoch;
    use weir_security::principal::Principal;
    use weir_tls::testing::Ca;

    use super::*;
    use crate::metadata::MetadataImage;

    #[test]
    fn brokers_meet_on_the_internal_listener_if_both_have_it() {
        let endpoint = |name: &&str| rpc::Endpoint {
            listener: (*name).to_owned(),
            host: name.to_lowercase(),
            port: 1,
            ..Default::default()
        };
        let broker = |id, listeners: &[&str]| rpc::Broker {
            id,
            epoch: 1,
            endpoints: listeners.iter().map(endpoint).collect(),
            ..Default::default()
        };
        let update = rpc::MetadataUpdate {
            version: 1,
            full: true,
            brokers: vec![
                broker(0, &["A", INTERNAL_LISTENER]),
                broker(1, &["A"]),
                broker(2, &["B"]),
            ],
            ..Default::default()
        };
        let metadata = Metadata::new();
        metadata.publish(MetadataImage::default().after(ControllerEpoch(1), &update).unwrap().0);
        let (metadata, ca) = (Arc::new(metadata), Ca::new());
        let own = Arc::new(Identities::new(ca.identity("c", &Principal::Broker(1), &[&ca])));
        let of = |id, own| PeerAddresses::new(&metadata, "A", own).of(BrokerId(id)).ok();
        let node = Address::of_node("weir-internal", 1, Principal::Broker(0));
        assert_eq!(of(0, Some(&own)), Some(node));
        assert_eq!(of(0, None), Some(Address::new("a", 1)));
        assert_eq!(of(1, Some(&own)), Some(Address::new("a", 1)), "of a version before");
        assert_eq!((of(2, Some(&own)), of(3, Some(&own))), (None, None));
    }
}
