//! The CA of the cluster's nodes and their certificates: made, kept in Secrets of the cluster, and
//! renewed. The controller's own certificate is in no Secret, since it has the CA's key.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use weir_crds::KafkaCluster;
use weir_security::principal::Principal;
use weir_tls::{Identities, Identity};

use super::super::context::Context;
use super::super::host::domain_of;
use super::super::objects::{Names, authority_in, brokers_in, node_secrets};
use super::apply::Applied;
use super::own_secrets;
use crate::authority::{Authority, Holder, Pair};
use crate::rpc::Controllers;
use crate::store::kube::ours::{Taken, if_ours};

/// The certificates of the nodes, as this process knows them.
#[derive(Debug)]
pub(super) struct NodeCertificates {
    controllers: Controllers,
    domain: String,
    /// The CA. If somebody deletes its Secret, it comes back: brokers trust it.
    authority: Option<Pair>,
    /// The controller's own certificate.
    own: Option<Pair>,
    identities: Arc<Identities>,
}

impl Drop for NodeCertificates {
    fn drop(&mut self) {
        self.controllers.remove_identities(&self.domain, &self.identities);
    }
}

impl NodeCertificates {
    /// None yet. The controller of the cluster is found by its domain from here on.
    pub(super) fn of(context: &Context, cluster: &KafkaCluster) -> Self {
        let identities = Arc::new(Identities::none());
        let (controllers, domain) = (context.controllers.clone(), domain_of(cluster));
        controllers.put_identities(domain.clone(), Arc::clone(&identities));
        Self { controllers, domain, authority: None, own: None, identities }
    }

    /// Gives the controller a certificate, if it has none and there is a CA.
    pub(super) async fn identify(
        &mut self,
        context: &Context,
        cluster: &KafkaCluster,
    ) -> anyhow::Result<()> {
        if self.own.is_some() {
            return Ok(());
        }
        let (names, uid) = (Names::of(cluster), cluster.metadata.uid.as_deref());
        let name = names.nodes_authority();
        let api: Api<Secret> = Api::namespaced(context.client.clone(), &names.namespace);
        let found = api.get_opt(&name).await.with_context(|| format!("read Secret {name}"))?;
        let found = if_ours(found, uid.unwrap_or_default()).and_then(|secret| secret.data);
        let Some(pair) = found.as_ref().and_then(authority_in) else { return Ok(()) };
        let now = Timestamp::now().as_second();
        // What is wrong with it is told by `settle`.
        let Ok(authority) = Authority::load(&of_whom(&names), pair, now) else { return Ok(()) };
        self.show(&authority, now)?;
        self.authority = Some(authority.pair().clone());
        Ok(())
    }

    /// Makes what is missing or due for this number of brokers, and applies the Secrets. Returns
    /// those of somebody else that have one of their names.
    pub(super) async fn settle(
        &mut self,
        context: &Context,
        cluster: &KafkaCluster,
        replicas: i32,
        applied: &mut Applied,
    ) -> anyhow::Result<Vec<Taken>> {
        let names = Names::of(cluster);
        let wanted = [names.nodes_authority(), names.nodes()];
        let [of_authority, of_brokers] =
            match own_secrets::read(context, cluster, wanted, applied).await? {
                Ok(kept) => kept,
                Err(taken) => return Ok(vec![taken]),
            };
        let now = Timestamp::now().as_second();
        let known = authority_in(&of_authority).or_else(|| self.authority.clone());
        let (of_whom, secret) = (of_whom(&names), names.nodes_authority());
        let authority = own_secrets::authority(&names, &of_whom, &secret, known, now)?;
        let domain = &self.domain;
        let good = |id: i32, pair: &Pair| {
            authority.is_good(pair, Holder::Node(domain, &Principal::Broker(id)), now)
        };
        // Those of brokers that are to go stay as long as they are good.
        let mut issued: BTreeMap<i32, Pair> =
            brokers_in(&of_brokers).filter(|(id, pair)| good(*id, pair)).collect();
        for id in 0..replicas {
            if let Entry::Vacant(missing) = issued.entry(id) {
                let holder = Principal::Broker(id);
                missing.insert(authority.issue(Holder::Node(domain, &holder), now)?);
            }
        }
        let taken = applied.apply(&node_secrets(cluster, &authority, &issued)).await?;
        self.show(&authority, now)?;
        self.authority = Some(authority.pair().clone());
        Ok(taken)
    }

    /// Gives the controller a certificate, unless its own is good.
    fn show(&mut self, authority: &Authority, now: i64) -> anyhow::Result<()> {
        let holder = Holder::Node(&self.domain, &Principal::Controller);
        let is_trusted = self.authority.as_ref() == Some(authority.pair());
        if is_trusted && self.own.as_ref().is_some_and(|own| authority.is_good(own, holder, now)) {
            return Ok(());
        }
        let own = authority.issue(holder, now)?;
        let cas = authority.pair().certificate.as_bytes();
        self.identities.set(Identity::new(own.certificate.as_bytes(), &own.key, cas)?);
        self.own = Some(own);
        Ok(())
    }
}

/// The CA's name.
fn of_whom(names: &Names) -> String {
    format!("the nodes of {}", names.cluster)
}
