//! A cluster on Kubernetes that clients write to while faults happen. Each acknowledged record must
//! be there exactly once, in order, at the offset that the client got.
//!
//! Its assertions are part of the tests.
#![allow(clippy::unwrap_used)]

use anyhow::Context as _;
use serde_json::Value;

use crate::driver::{Client, Driver};
use crate::kubernetes::{Namespace, condition, eventually, topic};
use crate::tools::kcat;
use crate::writer::Writer;

/// A cluster `k` of three brokers, and clients that each write to one partition of the topic
/// `load`.
#[derive(Debug)]
pub struct Load {
    /// Its namespace.
    pub namespace: Namespace,
    /// The bootstrap address for clients on this machine.
    pub bootstrap: String,
    writers: Vec<Writer>,
}

impl Load {
    /// Creates the cluster in a new namespace, and waits until every client has an acknowledged
    /// record.
    #[must_use]
    pub fn start(stem: &str, clients: &[Client]) -> Self {
        let namespace = Namespace::create(stem).unwrap();
        let bootstrap = namespace.kafka("k", 3, "").unwrap();
        let partitions = u32::try_from(clients.len()).unwrap();
        namespace
            .apply(&topic("load", "k", partitions, 3, "  config: {min.insync.replicas: 2}\n"))
            .unwrap();
        namespace.ready("topic/load");
        let start = |(partition, client): (i32, &Client)| {
            let _ = namespace.leader(&bootstrap, "load", partition);
            Writer::start(*client, &bootstrap, "load", partition)
        };
        let writers: Vec<_> = (0..).zip(clients).map(start).collect();
        let load = Self { namespace, bootstrap, writers };
        load.moves();
        load
    }

    /// Waits until every client gets further acknowledgements.
    pub fn moves(&self) {
        self.writers.iter().for_each(Writer::moves);
    }

    /// The pod of the first partition's leader.
    #[must_use]
    pub fn leader(&self) -> String {
        format!("k-{}", self.namespace.leader(&self.bootstrap, "load", 0))
    }

    /// Waits until every pod is ready and every partition has all its replicas in sync, by the
    /// brokers' Metadata and by the status.
    pub fn whole(&self) {
        eventually("every broker serves, and every replica is in sync", || {
            let pods = self.namespace.list("pods", "weir.dev/cluster=k")?;
            let set = self.namespace.object("statefulset/k")?.context("no StatefulSet")?;
            let wanted =
                set["spec"]["replicas"].as_u64().and_then(|count| usize::try_from(count).ok());
            let ready = pods
                .iter()
                .filter(|pod| condition(pod, "Ready").is_some_and(|ready| ready.status == "True"))
                .count();
            Ok((Some(ready) == wanted && self.lacking()?.is_none()).then_some(()))
        });
        self.namespace.whole("k");
    }

    /// A partition without all replicas in sync, by the brokers' Metadata.
    fn lacking(&self) -> anyhow::Result<Option<String>> {
        let metadata: Value =
            serde_json::from_str(&kcat(&self.bootstrap, &["-L", "-J"], b"")?.success()?)?;
        let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let topics = all(&metadata["topics"]);
        let partitions = topics.iter().flat_map(|topic| {
            all(&topic["partitions"]).into_iter().map(move |partition| (&topic["topic"], partition))
        });
        let lacks =
            |partition: &Value| all(&partition["isrs"]).len() < all(&partition["replicas"]).len();
        let mut lacking = partitions.filter(|(_, partition)| lacks(partition));
        Ok(lacking.next().map(|(topic, partition)| format!("{topic} {partition}")))
    }

    /// The uid of a broker's pod, once it is another pod than `before` and ready.
    #[must_use]
    pub fn successor(&self, pod: &str, before: &str) -> String {
        eventually(&format!("{pod} is there again"), || {
            let found = self.namespace.object(&format!("pod/{pod}"))?;
            let ready = found
                .filter(|pod| condition(pod, "Ready").is_some_and(|ready| ready.status == "True"));
            let uid = ready.and_then(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned));
            Ok(uid.filter(|uid| uid != before))
        })
    }

    /// Waits until the cluster is whole and still accepts writes; then checks all records.
    pub fn finish(self) {
        self.whole();
        self.moves();
        let pauses: Vec<_> = self.writers.iter().map(Writer::longest).collect();
        eprintln!("the longest call of each client: {pauses:?}");
        let mut driver = Driver::start(Client::Java, &self.bootstrap).unwrap();
        for writer in self.writers {
            writer.finish_and_check(&mut driver);
        }
    }
}
