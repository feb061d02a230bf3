//! The cluster's CA and its listeners' certificates: made, kept in Secrets of the cluster, and
//! renewed. Checks that Secrets of users have what their listeners need.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use tracing::info;
use weir_crds::{KafkaCluster, ListenerStatus};
use weir_security::principal::Validity;

use super::super::context::Context;
use super::super::objects::{
    Names, all_issued_in, authority_in, hosts, issued_in, secrets, secrets_of_users, secured,
};
use super::apply::Applied;
use super::node_certificates::NodeCertificates;
use super::observation::{CertificateFindings, Observation};
use super::own_secrets;
use super::pods::PodView;
use crate::authority::{Holder, Pair, validity};
use crate::mapping_rules::unreadable;
use crate::node_cas::Brokers;
use crate::store::kube::ours::Taken;

/// The certificates of a cluster, as this process knows them.
#[derive(Debug)]
pub(super) struct Certificates {
    nodes: NodeCertificates,
    /// The CA. If somebody deletes its Secret, it comes back: clients trust it.
    authority: Option<Pair>,
    issued: BTreeMap<String, Pair>,
    /// The listeners whose certificates every pod mounts, and no others.
    mounted: Option<BTreeSet<String>>,
    /// The addresses of the listeners when the status was made last.
    told: Vec<ListenerStatus>,
    /// When the certificates of users are valid, with what they are for.
    of_users: Vec<(String, Validity)>,
}

impl Certificates {
    /// None yet.
    pub(super) fn of(context: &Context, cluster: &KafkaCluster) -> Self {
        Self {
            nodes: NodeCertificates::of(context, cluster),
            authority: None,
            issued: BTreeMap::new(),
            mounted: None,
            told: Vec::new(),
            of_users: Vec::new(),
        }
    }

    /// Gives the controller its certificate as soon as there is a CA, also if something else fails:
    /// brokers reach no controller without one.
    pub(super) async fn identify(
        &mut self,
        context: &Context,
        cluster: &KafkaCluster,
    ) -> anyhow::Result<()> {
        self.nodes.identify(context, cluster).await
    }

    /// Makes the certificates of nodes and listeners that are missing or due, for these brokers,
    /// and applies the Secrets. Returns those of somebody else that have one of their
    /// names.
    pub(super) async fn settle(
        &mut self,
        context: &Context,
        cluster: &KafkaCluster,
        brokers: &Brokers,
        applied: &mut Applied,
    ) -> anyhow::Result<Vec<Taken>> {
        let mut taken = self.nodes.settle(context, cluster, brokers, applied).await?;
        taken.extend(self.settle_listeners(context, cluster, brokers.replicas, applied).await?);
        Ok(taken)
    }

    async fn settle_listeners(
        &mut self,
        context: &Context,
        cluster: &KafkaCluster,
        replicas: i32,
        applied: &mut Applied,
    ) -> anyhow::Result<Vec<Taken>> {
        let names = Names::of(cluster);
        let mut to_issue = secured(cluster);
        to_issue.retain(|(_, tls)| tls.certificate_secret.is_none());
        if to_issue.is_empty() {
            self.issued.clear();
            return Ok(Vec::new());
        }
        let wanted = [names.authority(), names.issued(), names.authority_for_clients()];
        let [of_authority, of_listeners, _] =
            match own_secrets::read(context, cluster, wanted, applied).await? {
                Ok(kept) => kept,
                Err(taken) => return Ok(vec![taken]),
            };
        let now = Timestamp::now().as_second();
        let known = [authority_in(&of_authority), self.authority.clone()];
        let authority = own_secrets::authority(
            &names,
            &names.cluster,
            &names.authority(),
            known,
            applied,
            now,
        )?;
        let mut issued = BTreeMap::new();
        for (listener, _) in &to_issue {
            let told = self.told.iter().find(|told| told.name == listener.name);
            let hosts = hosts(cluster, listener, replicas, told);
            let kept = issued_in(&of_listeners, &listener.name);
            let pair =
                match kept.filter(|pair| authority.is_good(pair, Holder::Listener(&hosts), now)) {
                    Some(pair) => pair,
                    None => {
                        info!(
                            cluster = names.cluster,
                            namespace = names.namespace,
                            listener = listener.name,
                            hosts = hosts.len(),
                            "issues a certificate"
                        );
                        authority.issue(Holder::Listener(&hosts), now)?
                    }
                };
            issued.insert(listener.name.clone(), pair);
        }
        let mut all = issued.clone();
        if !self.mounted.as_ref().is_some_and(|mounted| issued.keys().eq(mounted)) {
            self.mounted = None;
            // Pods of the spec before mount these files. Without one of them, Kubernetes would
            // start none of these pods again.
            for (listener, pair) in all_issued_in(&of_listeners) {
                all.entry(listener).or_insert(pair);
            }
        }
        let taken = applied.apply(&secrets(cluster, &authority, &all)).await?;
        (self.authority, self.issued) = (Some(authority.pair().clone()), issued);
        Ok(taken)
    }

    /// Learns from the pods which certificates they mount, and completes the status of the
    /// listeners. If their addresses have changed, certificates have to name them: that is under
    /// way.
    pub(super) fn complete(&mut self, findings: &mut Observation) {
        let is_current = |pod: &PodView| pod.outdated == Some(false) && !pod.terminating;
        let there = usize::try_from(findings.replicas).is_ok_and(|all| findings.pods.len() == all);
        let is_rolled_out =
            findings.refusal.is_none() && there && findings.pods.iter().all(is_current);
        self.mounted = is_rolled_out.then(|| self.issued.keys().cloned().collect());
        findings.under_way |= !self.issued.is_empty() && self.told != findings.listeners;
        self.told.clone_from(&findings.listeners);
        findings.under_way |= self.nodes.exchange().is_some();
        findings.certificates = Some(CertificateFindings {
            all: self.all_valid(),
            exchange: self.nodes.exchange().cloned(),
        });
        for status in &mut findings.listeners {
            let end = self.issued.get(&status.name).and_then(|pair| validity(&pair.certificate));
            status.certificate_not_after =
                end.and_then(|end| Timestamp::from_second(end.not_after).ok()).map(Time);
        }
    }
}

impl Certificates {
    /// When the certificates of the cluster are valid, with what they are.
    fn all_valid(&self) -> Vec<(String, Validity)> {
        let ca = self.authority.as_ref().map(|pair| ("the CA of the listeners".to_owned(), pair));
        let issued = self.issued.iter().map(|(name, pair)| (format!("listener {name}"), pair));
        let issued =
            issued.chain(ca).map(|(name, pair)| Some((name, validity(&pair.certificate)?)));
        let mut all: Vec<_> = issued.flatten().collect();
        all.extend_from_slice(&self.of_users);
        all.extend_from_slice(self.nodes.certificates());
        all
    }

    /// Looks at the Secrets of users. Returns why the pods cannot have what a listener of the
    /// resource needs: no Secret of that name, or none with these keys. Or why its brokers would
    /// not start.
    pub(super) async fn look_at_users(
        &mut self,
        context: &Context,
        cluster: &KafkaCluster,
    ) -> anyhow::Result<Option<String>> {
        self.of_users.clear();
        if let Some(told) = unreadable(&cluster.spec.listeners) {
            return Ok(Some(told));
        }
        let namespace = Names::of(cluster).namespace;
        let api: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
        for (field, name, keys) in secrets_of_users(cluster) {
            let found = api.get_opt(&name).await.with_context(|| format!("read Secret {name}"))?;
            let Some(secret) = found else {
                return Ok(Some(format!("{field}: there is no Secret {name:?} in this namespace")));
            };
            let data = secret.data.unwrap_or_default();
            if let Some(key) = keys.iter().find(|key| !data.contains_key(**key)) {
                return Ok(Some(format!("{field}: the Secret {name:?} has no {key}")));
            }
            let certificates = keys.iter().filter_map(|key| data.get(*key));
            let valid = certificates.filter_map(|pem| validity(std::str::from_utf8(&pem.0).ok()?));
            self.of_users.extend(valid.map(|valid| (format!("{field} (Secret {name})"), valid)));
        }
        Ok(None)
    }
}
