//! What the processes of a local cluster are started with, kept in its data directory: so that
//! commands find it again, with or without a controller.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// The shape of a cluster.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Shape {
    pub(super) brokers: i32,
    pub(super) port: u16,
    /// The address that brokers listen on, and that clients are told.
    #[serde(default = "loopback")]
    pub(super) host: IpAddr,
    /// The cluster's id, as its controller said last: brokers are started without one, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cluster_id: Option<String>,
}

/// Where a cluster is that nobody said anything else of.
pub(super) const fn loopback() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}

impl Shape {
    /// The shape of the cluster in `data`, if there is one.
    pub(super) fn read(data: &Path) -> anyhow::Result<Option<Self>> {
        let file = data.join("cluster.json");
        match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| format!("read {}", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
        }
    }

    /// Writes it down for the commands to come.
    pub(super) fn remember(&self, data: &Path) -> anyhow::Result<()> {
        std::fs::write(data.join("cluster.json"), serde_json::to_vec(self)?)
            .context("remember the shape of the cluster")
    }
}
