//! What exists once per cluster: its resource, counters and features.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weir_crds::KafkaCluster;
use weir_protocol::types::{BrokerEpoch, ControllerEpoch};
use weir_settings::{self as config, Configs};

use super::super::key::{DEFAULT_NAMESPACE, Key};

/// The values that exist once per cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// The cluster's id in the Kafka protocol.
    pub id: String,
    /// The epoch of this controller.
    pub controller_epoch: ControllerEpoch,
    /// The epoch that the next registration gets.
    pub next_broker_epoch: BrokerEpoch,
    /// The first producer id that is not handed out.
    pub next_producer_id: i64,
    /// The finalised features.
    pub features: Features,
    /// The resource that a user wrote.
    pub resource: Arc<KafkaCluster>,
}

/// The finalised features of the cluster (KIP-584).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Counts their changes.
    pub epoch: i64,
    /// The level of each feature above level 0.
    pub levels: BTreeMap<String, i16>,
}

impl Cluster {
    /// A cluster that never had a controller.
    pub fn new(id: String, resource: KafkaCluster) -> Self {
        Self {
            id,
            controller_epoch: ControllerEpoch(0),
            next_broker_epoch: BrokerEpoch(0),
            next_producer_id: 0,
            features: Features::default(),
            resource: Arc::new(resource),
        }
    }

    /// The effective value of a broker setting for all brokers: the configured value, else Kafka's
    /// default.
    pub fn setting(&self, name: &'static str) -> Option<&str> {
        let set = self.configs().get(name).map(String::as_str);
        set.or_else(|| config::broker_key(name)?.default)
    }

    /// The settings configured for all brokers.
    pub fn configs(&self) -> &Configs {
        self.resource.spec.config.texts()
    }

    /// `metadata.name` of the cluster's resource.
    pub fn name(&self) -> &str {
        self.resource.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.resource.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    }

    /// The key of a resource of this name in the cluster's namespace.
    pub fn key(&self, name: &str) -> Key {
        Key::new(Some(self.namespace()), Some(name))
    }

    /// The key of a resource. A resource without a namespace is in the cluster's.
    pub fn key_of(&self, metadata: &ObjectMeta) -> Key {
        Key::new(
            metadata.namespace.as_deref().or_else(|| Some(self.namespace())),
            metadata.name.as_deref(),
        )
    }
}
