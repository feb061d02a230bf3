//! A cluster on Kubernetes to which clients write while something happens to it: what was
//! acknowledged is there exactly once, in order, where the client was told.
//!
//! Its assertions are tests' assertions.
#![allow(clippy::unwrap_used)]

use anyhow::Context as _;
use serde_json::Value;

use crate::driver::{Client, Driver};
use crate::kubernetes::{Namespace, condition, eventually, topic};
use crate::tools::kcat;
use crate::writer::Writer;

/// A cluster `k` of three brokers, and clients that write to a partition each of the topic `load`.
#[derive(Debug)]
pub struct Load {
    /// Where all of it is.
    pub namespace: Namespace,
    /// Where clients on this machine find it.
    pub bootstrap: String,
    writers: Vec<Writer>,
}

impl Load {
    /// Makes the cluster in a namespace of this stem, and waits until every client has written
    /// something.
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

    /// Waits until more was acknowledged to each client than is now.
    pub fn moves(&self) {
        self.writers.iter().for_each(Writer::moves);
    }

    /// The pod that leads the first partition.
    #[must_use]
    pub fn leader(&self) -> String {
        format!("k-{}", self.namespace.leader(&self.bootstrap, "load", 0))
    }

    /// Waits until every pod is ready, every partition has all its replicas in sync, as the brokers
    /// say, and the status says so too.
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

    /// A partition that lacks replicas in sync, as Metadata of the brokers have it.
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

    /// The uid of a broker's pod, once it is another one than this and ready.
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

    /// Whole again, still writing, and everything where it was said to be.
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
