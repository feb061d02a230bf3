//! The settings of a local cluster's processes, stored in its data directory, so that commands find
//! them with or without a controller.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::tls::Secured;

/// The settings of a cluster.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Shape {
    pub(super) brokers: i32,
    pub(super) port: u16,
    /// The address on which brokers listen, and which they advertise.
    #[serde(default = "loopback")]
    pub(super) host: IpAddr,
    /// The cluster's id from the controller's last answer, for starting brokers without a
    /// controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cluster_id: Option<String>,
    /// The listeners with TLS, from the resource when the brokers were last started or changed.
    #[serde(default, skip_serializing_if = "Secured::is_empty")]
    pub(super) secured: Secured,
}

/// The default address.
pub(super) const fn loopback() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}

impl Shape {
    /// Reads the settings of the cluster in `data`, if there is one.
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

    /// Stores the settings for later commands.
    pub(super) fn remember(&self, data: &Path) -> anyhow::Result<()> {
        std::fs::write(data.join("cluster.json"), serde_json::to_vec(self)?)
            .context("remember the shape of the cluster")
    }
}
