//! The cluster's own Secrets with CAs and certificates: read before they are written, so that what
//! is good stays.

use std::collections::BTreeMap;

use anyhow::Context as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use tracing::{info, warn};
use weir_crds::KafkaCluster;

use super::super::context::Context;
use super::super::objects::Names;
use super::apply::Applied;
use crate::authority::{Authority, Pair};
use crate::store::kube::ours::{Taken, is_ours};

/// What a Secret holds; nothing where there is none.
pub(super) type Data = BTreeMap<String, ByteString>;

/// Reads the Secrets of these names, in their order. If one is somebody else's, returns that.
///
/// # Errors
/// When the Kubernetes API does not answer.
pub(super) async fn read<const COUNT: usize>(
    context: &Context,
    cluster: &KafkaCluster,
    names: [String; COUNT],
    applied: &mut Applied,
) -> anyhow::Result<Result<[Data; COUNT], Taken>> {
    let namespace = Names::of(cluster).namespace;
    let uid = cluster.metadata.uid.as_deref().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
    let mut kept = [const { Data::new() }; COUNT];
    for (name, kept) in names.iter().zip(&mut kept) {
        let found = api.get_opt(name).await.with_context(|| format!("read Secret {name}"))?;
        match found {
            None => applied.forget("Secret", name),
            Some(secret) if !is_ours(&secret.metadata, uid) => {
                return Ok(Err(Taken::of("Secret", &namespace, name, &secret.metadata)));
            }
            Some(secret) => *kept = secret.data.unwrap_or_default(),
        }
    }
    Ok(Ok(kept))
}

/// What a Secret has, and what this process knows where the Secret has nothing, or something that
/// cannot be read.
///
/// # Errors
/// When what the Secret has cannot be read, and this process knows nothing.
pub(super) fn kept_or_known<T>(
    names: &Names,
    secret: &str,
    kept: anyhow::Result<Option<T>>,
    known: impl FnOnce() -> anyhow::Result<Option<T>>,
    applied: &mut Applied,
) -> anyhow::Result<Option<T>> {
    match kept {
        Ok(Some(kept)) => Ok(Some(kept)),
        Ok(None) => known(),
        Err(error) => {
            let Some(known) = known()? else { return Err(error) };
            let (cluster, namespace) = (&names.cluster, &names.namespace);
            let error = format!("{error:#}");
            warn!(cluster, namespace, error, "puts back the CA that it has used so far");
            applied.forget("Secret", secret);
            Ok(Some(known))
        }
    }
}

/// The CA that was made before, or else a new one. `secret` is where it is kept.
///
/// # Errors
/// When what the Secret holds is no CA, and this process knows none.
pub(super) fn authority(
    names: &Names,
    of_whom: &str,
    secret: &str,
    [kept, known]: [Option<Pair>; 2],
    applied: &mut Applied,
    now: i64,
) -> anyhow::Result<Authority> {
    let load = |pair| {
        Authority::load(of_whom, pair, now).with_context(|| format!("the CA in Secret {secret}"))
    };
    let kept = kept.map(load).transpose();
    let known = || known.map(load).transpose();
    if let Some(authority) = kept_or_known(names, secret, kept, known, applied)? {
        return Ok(authority);
    }
    let (cluster, namespace) = (&names.cluster, &names.namespace);
    info!(cluster, namespace, secret, "makes a CA");
    Authority::new(of_whom, now)
}
