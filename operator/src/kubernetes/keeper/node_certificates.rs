//! The CA of the cluster's nodes and their certificates: made, kept in Secrets of the cluster,
//! renewed and exchanged. The controller's own certificate is in no Secret, since it has the CA's
//! key.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use tracing::info;
use weir_crds::KafkaCluster;
use weir_security::principal::{Principal, Validity};
use weir_tls::{Identities, Identity};

use super::super::annotations::{ROTATE_NODES_CA_ANNOTATION, annotation};
use super::super::context::Context;
use super::super::host::domain_of;
use super::super::objects::{Names, brokers_in, node_secrets, trusted_in};
use super::apply::Applied;
use super::own_secrets::{self, Data};
use crate::authority::{Holder, Pair, validity};
use crate::node_cas::{Brokers, NodeCas, Waits};
use crate::rpc::Controllers;
use crate::store::kube::ours::{Taken, if_ours};

/// The certificates of the nodes, as this process knows them.
#[derive(Debug)]
pub(super) struct NodeCertificates {
    controllers: Controllers,
    domain: String,
    /// What the CA's Secret holds. If somebody deletes it, it comes back: brokers trust the CA.
    kept: Option<Data>,
    /// The controller's own certificate, and the CAs that it trusts.
    own: Option<(Pair, String)>,
    identities: Arc<Identities>,
    exchange: Option<Waits>,
    certificates: Vec<(String, Validity)>,
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
        Self {
            controllers,
            domain,
            kept: None,
            own: None,
            identities,
            exchange: None,
            certificates: Vec::new(),
        }
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
        let now = Timestamp::now().as_second();
        let cas = found.map(|kept| NodeCas::load((&of_whom(&names), &self.domain), &kept, now));
        // What is wrong with it is told by `settle`.
        let Some(Ok(Some(cas))) = cas else { return Ok(()) };
        self.show(&cas, now)?;
        self.kept = Some(cas.kept());
        Ok(())
    }

    /// Makes what is missing or due for these brokers, and applies the Secrets. Takes the next step
    /// of an exchange of the CA. Returns the Secrets of somebody else that have one of the names.
    pub(super) async fn settle(
        &mut self,
        context: &Context,
        cluster: &KafkaCluster,
        brokers: &Brokers,
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
        let request = annotation(cluster, ROTATE_NODES_CA_ANNOTATION).unwrap_or_default();
        let kept = [&of_authority, &of_brokers];
        let mut cas = self.cas(&names, kept, request, (applied, now))?;
        let step = cas.step();
        if cas.request(&of_whom(&names), request, now)? {
            let Names { cluster, namespace, .. } = &names;
            info!(cluster, namespace, request, "exchanges the CA of the nodes");
        }
        let mut issued: BTreeMap<i32, Pair> = brokers_in(&of_brokers).collect();
        let shown = self.controllers.shown().of(&self.domain);
        self.exchange = cas.settle(brokers, &shown, &mut issued, now)?;
        if cas.step() != step {
            let (cluster, namespace) = (&names.cluster, &names.namespace);
            let step = cas.step().map_or("Done", |step| step.name());
            info!(cluster, namespace, step, "the exchange of the CA of the nodes goes on");
        }
        let taken = applied.apply(&node_secrets(cluster, &cas, &issued)).await?;
        self.show(&cas, now)?;
        let ca = ("the CA of the nodes".to_owned(), &cas.newest().certificate);
        let of_brokers =
            issued.iter().map(|(id, pair)| (format!("broker {id} among nodes"), &pair.certificate));
        let valid = of_brokers.chain([ca]).map(|(name, pem)| Some((name, validity(pem)?)));
        self.certificates = valid.flatten().collect();
        self.kept = Some(cas.kept());
        Ok(taken)
    }

    /// The CA that was made before, or else a new one: that of the Secret, and that of this process
    /// where the Secret has none, or something that is none.
    fn cas(
        &self,
        names: &Names,
        [of_authority, of_brokers]: [&Data; 2],
        request: &str,
        (applied, now): (&mut Applied, i64),
    ) -> anyhow::Result<NodeCas> {
        let (of_whom, secret) = (of_whom(names), names.nodes_authority());
        let whose = (of_whom.as_str(), self.domain.as_str());
        let load = |kept: &Data| {
            let what = || format!("the CA in Secret {secret}");
            NodeCas::load(whose, kept, now).with_context(what)
        };
        let known = || self.kept.as_ref().map(load).transpose().map(Option::flatten);
        let kept = load(of_authority);
        if let Some(cas) = own_secrets::kept_or_known(names, &secret, kept, known, applied)? {
            return Ok(cas);
        }
        let (cluster, namespace) = (&names.cluster, &names.namespace);
        info!(cluster, namespace, secret, "makes a CA");
        NodeCas::new(whose, trusted_in(of_brokers), request, now)
    }

    /// Gives the controller a certificate, unless its own is good.
    fn show(&mut self, cas: &NodeCas, now: i64) -> anyhow::Result<()> {
        let holder = Holder::Node(&self.domain, &Principal::Controller);
        let (issuer, trusted) = (cas.issuer(), cas.trusted());
        let is_good =
            |(own, trusts): &(Pair, String)| *trusts == trusted && issuer.is_good(own, holder, now);
        if self.own.as_ref().is_some_and(is_good) {
            return Ok(());
        }
        let own = issuer.issue(holder, now)?;
        let identity = Identity::new(own.certificate.as_bytes(), &own.key, trusted.as_bytes())?;
        self.identities.set(identity);
        self.own = Some((own, trusted));
        Ok(())
    }

    /// Whom an exchange of the CA waits for.
    pub(super) fn exchange(&self) -> Option<&Waits> {
        self.exchange.as_ref()
    }

    /// The certificates of the newest CA and of the brokers, with what they are.
    pub(super) fn certificates(&self) -> &[(String, Validity)] {
        &self.certificates
    }
}

/// The CA's name.
fn of_whom(names: &Names) -> String {
    format!("the nodes of {}", names.cluster)
}
