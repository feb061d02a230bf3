//! The resources of a cluster that users write, as they were last seen at the API server, by the watch or by a write.
//!
//! The store patches only what differs from them. That they may be a moment old does no harm: what a patch does not name, it does not change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use weir_crds::{KafkaCluster, Topic, TopicSpec};
use weir_protocol::types::TopicId;

use crate::controller::{Key, topic_id_on};

/// What was seen, shared between the watch and the store.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    shared: Arc<Mutex<Resources>>,
}

#[derive(Debug, Default)]
struct Resources {
    cluster: Option<Arc<KafkaCluster>>,
    topics: BTreeMap<Key, SeenTopic>,
}

/// What matters of a topic's resource.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenTopic {
    /// The resource's uid.
    pub uid: Option<String>,
    /// The topic's id that is written on it.
    pub id: Option<TopicId>,
    /// What a user, a client or the operator wrote.
    pub spec: TopicSpec,
}

impl Seen {
    fn lock(&self) -> std::sync::MutexGuard<'_, Resources> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster's resource.
    pub fn cluster(&self) -> Option<Arc<KafkaCluster>> {
        self.lock().cluster.clone()
    }

    /// The cluster's resource was seen.
    pub fn put_cluster(&self, cluster: KafkaCluster) {
        self.lock().cluster = Some(Arc::new(cluster));
    }

    /// A topic's resource.
    pub fn topic(&self, key: &Key) -> Option<SeenTopic> {
        self.lock().topics.get(key).cloned()
    }

    /// A topic's resource was seen.
    pub fn put_topic(&self, topic: &Topic) {
        let seen = SeenTopic {
            uid: topic.metadata.uid.clone(),
            id: topic_id_on(topic),
            spec: topic.spec.clone(),
        };
        let key = Key::new(topic.metadata.namespace.as_deref(), topic.metadata.name.as_deref());
        self.lock().topics.insert(key, seen);
    }

    /// A topic's resource is gone.
    pub fn forget_topic(&self, key: &Key) {
        self.lock().topics.remove(key);
    }
}
