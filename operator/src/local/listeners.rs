//! The listeners with TLS or SASL of a local cluster: taken from its resource, served by its
//! brokers.

use anyhow::Context as _;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use weir_crds::Listener;
use weir_security::principal::Principal;

use super::cluster::LocalCluster;
use super::nodes;
use super::shape::Shape;
use super::tls::{self, ClientFile, Secured};
use crate::listener::security_protocol;

impl LocalCluster {
    /// Keeps the listeners of a KafkaCluster for the next starts of brokers. Returns whether they
    /// have changed.
    ///
    /// # Errors
    /// When two listeners need one port.
    pub(super) fn remember_listeners(&self, resource: &Value) -> anyhow::Result<bool> {
        let secured = Secured::of(resource)?;
        secured.check_ports(self.shape.port, self.shape.brokers)?;
        // The file's current contents count, as for the cluster's id.
        let shape = Shape::read(&self.data)?.unwrap_or_else(|| self.shape.clone());
        if shape.secured == secured {
            return Ok(false);
        }
        Shape { secured, ..shape }.remember(&self.data)?;
        Ok(true)
    }

    fn secured(&self) -> anyhow::Result<Secured> {
        Ok(Shape::read(&self.data)?.map(|shape| shape.secured).unwrap_or_default())
    }

    /// The flags of a broker for its listeners with TLS or SASL, whose files are there afterwards.
    /// If there are any, brokers have certificates among themselves too.
    ///
    /// # Errors
    /// When a file cannot be made, or a Secret that a listener names is missing.
    pub(super) fn tls_of(&self, broker: i32) -> anyhow::Result<Vec<(&'static str, String)>> {
        let (secured, host) = (self.secured()?, self.shape.host);
        if secured.is_empty() {
            return Ok(Vec::new());
        }
        let now = Timestamp::now().as_second();
        secured.prepare(&self.data, host, now)?;
        nodes::prepare(&self.data, &Principal::Broker(broker), now)?;
        let mut flags = secured.flags(&self.data, host, broker);
        flags.extend(nodes::flags(&self.data, host, broker)?);
        Ok(flags)
    }

    /// The addresses of each listener with TLS or SASL, by its name and which of them it has.
    pub(super) fn bootstraps(&self) -> anyhow::Result<Vec<(String, String)>> {
        let secured = self.secured()?;
        let all = secured.bootstraps(self.shape.host, self.shape.brokers);
        let told = |(listener, addresses): (&Listener, String)| {
            let has = match security_protocol(listener) {
                "SSL" => "TLS",
                "SASL_PLAINTEXT" => "SASL",
                _ => "TLS and SASL",
            };
            (format!("{}, with {has}", listener.name), addresses)
        };
        Ok(all.into_iter().map(told).collect())
    }

    /// The Secrets of the data directory, or the one with a name. No controller is needed.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(crate) fn secrets(&self, name: Option<&str>) -> anyhow::Result<Vec<Value>> {
        tls::secrets(&self.data, name)
    }

    /// The file with which a client runs against the first listener with TLS.
    ///
    /// # Errors
    /// When there is no such listener, or the Secret has no CA.
    pub(crate) fn client_file(&self, secret: &str, file: ClientFile) -> anyhow::Result<String> {
        let secured = self.secured()?;
        let listener = secured.first_with_tls().context("no listener of the cluster has tls")?;
        let mut all = secured.bootstraps(self.shape.host, self.shape.brokers).into_iter();
        let bootstrap = all.find(|(one, _)| one.name == listener.name);
        let bootstrap = bootstrap.map(|(_, addresses)| addresses).unwrap_or_default();
        tls::client_file(&self.data, secret, listener, &bootstrap, file)
    }
}
