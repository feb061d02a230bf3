//! A cluster on Kubernetes to which clients write while something happens to it: what was acknowledged is there exactly once, in order, where the client was told.
//!
//! Its assertions are tests' assertions.
#![allow(clippy::unwrap_used)]

use crate::driver::{Client, Driver};
use crate::kubernetes::{Namespace, topic};
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
    /// Makes the cluster in a namespace of this stem, and waits until every client has written something.
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
        let load = Self {
            namespace,
            bootstrap,
            writers,
        };
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

    /// Whole again, still writing, and everything where it was said to be.
    pub fn finish(self) {
        self.namespace.whole("k");
        self.moves();
        let pauses: Vec<_> = self.writers.iter().map(Writer::longest).collect();
        eprintln!("the longest call of each client: {pauses:?}");
        let mut driver = Driver::start(Client::Java, &self.bootstrap).unwrap();
        for writer in self.writers {
            writer.finish_and_check(&mut driver);
        }
    }
}
