//! The requests of `weir local` commands to the controller: resources and states.
//!
//! The controller's process has written its port to a file. This module starts and stops nothing.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tonic::transport::Channel;
use weir_crds::KafkaCluster;

use super::cluster::LocalCluster;
use super::manifests::Manifest;
use super::rpc::local_client::LocalClient;
use super::rpc::{Applied, ApplyRequest, DeleteRequest, GetRequest, StatusRequest, StatusResponse};
use crate::mapping_rules::unreadable;

/// The most time for the controller's first answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The interval and timeout of keepalives. While a large file keeps the controller busy for long,
/// they go on; a frozen process does not answer them.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

impl LocalCluster {
    /// A connection to the controller, after it has answered once.
    async fn client(&self) -> anyhow::Result<LocalClient<Channel>> {
        let mut client = self.connect().await?;
        self.status_of(&mut client).await?;
        Ok(client)
    }

    async fn connect(&self) -> anyhow::Result<LocalClient<Channel>> {
        anyhow::ensure!(
            self.controller().pid().is_some(),
            "the controller does not run; `weir local up` or `weir local start controller` starts it"
        );
        let address = self.controller_address()?;
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(ANSWER_MAX)
            .http2_keep_alive_interval(SIGN_OF_LIFE)
            .keep_alive_timeout(SIGN_OF_LIFE);
        let connected = tokio::time::timeout(ANSWER_MAX, endpoint.connect())
            .await
            .map_err(|_| self.silent())?;
        let channel = connected.with_context(|| format!("reach the controller at {address}"))?;
        Ok(LocalClient::new(channel)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX))
    }

    pub(super) async fn ask_status(&self) -> anyhow::Result<StatusResponse> {
        self.status_of(&mut self.connect().await?).await
    }

    async fn status_of(&self, client: &mut LocalClient<Channel>) -> anyhow::Result<StatusResponse> {
        let answered = tokio::time::timeout(ANSWER_MAX, client.status(StatusRequest {}))
            .await
            .map_err(|_| self.silent())?;
        Ok(answered.map_err(refused)?.into_inner())
    }

    fn silent(&self) -> anyhow::Error {
        let process =
            self.controller().pid().map_or_else(String::new, |pid| format!(", process {pid},"));
        anyhow::anyhow!(
            "the controller{process} runs, but has not answered for {} s",
            ANSWER_MAX.as_secs()
        )
    }

    /// Creates or changes resources.
    ///
    /// # Errors
    /// When one is invalid: then none is applied, and the message has the field and the reason for
    /// each.
    pub(crate) async fn apply(&self, resources: &[Value]) -> anyhow::Result<Vec<Applied>> {
        // The controller says of a resource that is no KafkaCluster why it is none.
        let clusters = resources
            .iter()
            .filter_map(|one| serde_json::from_value::<KafkaCluster>(one.clone()).ok());
        for cluster in clusters {
            if let Some(told) = unreadable(&cluster.spec.listeners) {
                let name = cluster.metadata.name.unwrap_or_default();
                anyhow::bail!("KafkaCluster \"{name}\" is invalid:\n  * {told}");
            }
        }
        let resources = resources.iter().map(Value::to_string).collect();
        let response =
            self.client().await?.apply(ApplyRequest { resources }).await.map_err(refused)?;
        Ok(response.into_inner().applied)
    }

    /// Deletes the resources of manifests.
    ///
    /// # Errors
    /// When one cannot be deleted: the others are, and the message has each reason.
    pub(crate) async fn delete(&self, manifests: &[Manifest]) -> anyhow::Result<()> {
        let mut client = self.client().await?;
        // The last may depend on the first.
        let mut wrong = Vec::new();
        for manifest in manifests.iter().rev() {
            let (kind, name) = (manifest.text("/kind"), manifest.text("/metadata/name"));
            let request = DeleteRequest { kind: kind.to_owned(), name: name.to_owned() };
            match client.delete(request).await {
                Ok(_) => {
                    super::output::line(&format!("{} \"{name}\" deleted", kind.to_lowercase()))
                }
                Err(status) => wrong.push(status.message().to_owned()),
            }
        }
        anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }

    /// The resources of a kind, or the one with a name.
    ///
    /// # Errors
    /// When the kind or the resource does not exist.
    pub(crate) async fn get(&self, kind: &str, name: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let request =
            GetRequest { kind: kind.to_owned(), name: name.unwrap_or_default().to_owned() };
        let response = self.client().await?.get(request).await.map_err(refused)?;
        response
            .into_inner()
            .resources
            .iter()
            .map(|resource| serde_json::from_str(resource).context("read the controller's answer"))
            .collect()
    }
}

/// The controller's message, without gRPC's details.
fn refused(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}
