//! The Secret of a cluster's SCRAM credentials. It is a part of the state like the tables: each
//! write is a compare-and-swap, and a controller that takes over writes it under its epoch.
//!
//! The operator may not update Secrets, so the swap is a patch that names the version. It knows the
//! Secret by its owner; where the volumes outlive the cluster, by the cluster on it.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};

use super::calls::answered;
use super::ours::{Taken, controller_of};
use super::{CLUSTER_LABEL, KubeStore, Part};
use crate::controller::state::{Change, State};
use crate::store::credentials::{read_credentials, write_credentials};
use crate::store::error::StoreError;

/// The key of the text in the Secret.
const KEY: &str = "credentials";

/// On the Secret: the epoch of the controller that wrote it. It makes each take-over a change, so
/// that no earlier controller can write any more.
const EPOCH_ANNOTATION: &str = "weir.dev/controller-epoch";

impl KubeStore {
    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Reads the credentials, as the changes that make them, and notes the version of their Secret;
    /// `None` without a Secret.
    pub(super) async fn read_credentials(&mut self) -> Result<Option<Vec<Change>>, StoreError> {
        let name = self.object(Part::Credentials);
        let found = answered("get", &name, self.secrets().get_opt(&name)).await?;
        let Some(secret) = found else { return Ok(None) };
        self.check_secret(&secret)?;
        let version = secret.metadata.resource_version.unwrap_or_default();
        self.versions.insert(Part::Credentials, version);
        let data = secret.data.unwrap_or_default();
        let damaged = |line, reason| StoreError::DamagedObject {
            object: format!("Secret {name}"),
            line,
            reason,
        };
        let text = data.get(KEY).map_or(&[][..], |text| &text.0);
        let text = std::str::from_utf8(text)
            .map_err(|_| damaged(1, "the text is not UTF-8".to_owned()))?;
        read_credentials(text).map(Some).map_err(|bad| damaged(bad.line, bad.reason))
    }

    /// Writes the credentials of the state.
    pub(super) async fn put_credentials(&mut self, state: &State) -> Result<(), StoreError> {
        let (name, secret) = (self.object(Part::Credentials), self.secret(state));
        let written = match &secret.metadata.resource_version {
            None => self.create_secret(secret).await?,
            Some(_) => {
                let (params, patch) = (PatchParams::default(), Patch::Merge(&secret));
                match answered("patch", &name, self.secrets().patch(&name, &params, &patch)).await {
                    // Somebody deleted it. The state still has what it held.
                    Err(StoreError::Gone(_)) => self.create_secret(secret).await?,
                    patched => patched?,
                }
            }
        };
        let version = written.metadata.resource_version.ok_or(StoreError::Conflict)?;
        self.versions.insert(Part::Credentials, version);
        Ok(())
    }

    async fn create_secret(&self, mut secret: Secret) -> Result<Secret, StoreError> {
        let (name, secrets) = (self.object(Part::Credentials), self.secrets());
        secret.metadata.resource_version = None;
        let params = PostParams::default();
        let created = answered("create", &name, secrets.create(&params, &secret)).await;
        if let Err(StoreError::Conflict) = created
            && let Some(there) = answered("get", &name, secrets.get_opt(&name)).await?
        {
            self.check_secret(&there)?;
        }
        created
    }

    fn secret(&self, state: &State) -> Secret {
        let text = write_credentials(&state.credentials).into_bytes();
        let epoch = state.cluster.controller_epoch.0.to_string();
        Secret {
            metadata: ObjectMeta {
                name: Some(self.object(Part::Credentials)),
                labels: Some([(CLUSTER_LABEL.to_owned(), self.cluster.clone())].into()),
                annotations: Some([(EPOCH_ANNOTATION.to_owned(), epoch)].into()),
                // In a patch an empty list removes the owner, and none would leave it.
                owner_references: Some(self.owners(state).unwrap_or_default()),
                resource_version: self.versions.get(&Part::Credentials).cloned(),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(text))])),
            ..Secret::default()
        }
    }

    /// Refuses a Secret of somebody else with this name.
    fn check_secret(&self, secret: &Secret) -> Result<(), StoreError> {
        let metadata = &secret.metadata;
        let label = metadata.labels.as_ref().and_then(|labels| labels.get(CLUSTER_LABEL));
        let has_epoch =
            metadata.annotations.as_ref().is_some_and(|all| all.contains_key(EPOCH_ANNOTATION));
        let is_ours = match controller_of(metadata) {
            Some(owner) => owner.uid == self.owner.uid,
            None => label == Some(&self.cluster) && has_epoch,
        };
        if is_ours {
            return Ok(());
        }
        let name = self.object(Part::Credentials);
        Err(StoreError::Taken(Taken::of("Secret", &self.namespace, &name, metadata)))
    }
}
