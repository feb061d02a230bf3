//! Brings the cluster's objects to the resource's spec.

use std::time::Instant;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use weir_crds::KafkaCluster;

use super::super::host::Host;
use super::super::objects::{MANAGED_BY, Names, Plan, build};
use super::observation::Observation;
use super::table_recovery::TableRecovery;
use super::volumes::Volumes;
use super::{ClusterReconciler, WITHOUT_REASON, drain, pods, rollout};
use crate::node_cas::Brokers;
use crate::store::kube::ours::Taken;

impl ClusterReconciler {
    /// Builds the cluster's objects, and applies those that differ from the last application.
    pub(super) async fn make_objects(
        &mut self,
        cluster: &KafkaCluster,
        findings: &mut Observation,
    ) -> anyhow::Result<()> {
        let recovery = self.recovery.as_ref().filter(|recovery| recovery.stage().is_some());
        let (state, cluster_id) = match (&self.host, recovery) {
            (Some(host), _) => (host.state(), host.cluster_id().to_owned()),
            (None, Some(recovery)) => (recovery.state(cluster), recovery.name().to_owned()),
            (None, None) => return Ok(()),
        };
        let held = recovery.map_or_else(|| pods::brokers_held(&state), TableRecovery::replicas);
        // The kind may be installed after the cluster.
        let is_fresh = |(known, at): &(bool, Instant)| *known || at.elapsed() < WITHOUT_REASON;
        if !self.monitored.as_ref().is_some_and(is_fresh) {
            self.monitored = Some((self.applied.knows_pod_monitors().await?, Instant::now()));
        }
        let wanted = cluster.spec.brokers.replicas;
        findings.replicas = wanted.max(held);
        (findings.scale_down, findings.moving) = rollout::held_back(&state, wanted, held);
        let volumes =
            Volumes::observe(&self.context, &self.key, cluster, findings.replicas).await?;
        let remade = volumes.grow(&self.context, &self.key, findings).await?;
        let effective = volumes.effective(cluster, remade);
        let listening = findings.pods.iter().flat_map(|pod| pod.ports.clone()).collect();
        let ready = findings
            .pods
            .iter()
            .filter(|pod| pod.ready && !pod.terminating && pod.id < findings.replicas)
            .map(|pod| pod.id)
            .collect();
        findings.away = self.away(&findings.pods, Some(&state), findings.replicas);
        let plan = Plan {
            cluster: &effective,
            image: &findings.image,
            cluster_id: &cluster_id,
            controller: &self.context.controller_address,
            replicas: findings.replicas,
            listening: &listening,
            evictions: drain::evictions(&state, findings.replicas, &findings.away, &ready),
            held_before: &self.held,
            monitoring: self
                .monitored
                .filter(|(known, _)| *known)
                .map(|_| &self.context.monitoring),
        };
        let built = build(&plan);
        let held_now = plan.evictions.held;
        findings.refusal = built.refusal;
        let (sets, objects): (Vec<_>, Vec<_>) =
            built.all.into_iter().partition(|object| object["kind"] == "StatefulSet");
        // While a former StatefulSet's pods still have the names, the controller of a new one would
        // retry with growing delays.
        let is_left = !volumes.has_set() && findings.pods.iter().any(|pod| pod.owner.is_some());
        findings.under_way |= is_left;
        let mut taken = volumes.taken;
        if findings.refusal.is_none() {
            let Self { context, certificates, .. } = self;
            findings.refusal = certificates.look_at_users(context, cluster).await?;
        }
        taken.extend(self.keep_certificates(cluster, findings.replicas).await?);
        taken.extend(self.applied.apply(&objects).await?);
        // Brokers use no account, settings, certificates or volumes of somebody else.
        let needed = |by: &Taken| {
            ["PersistentVolumeClaim", "ServiceAccount", "ConfigMap", "Secret"]
                .contains(&by.kind.as_str())
        };
        if !is_left && findings.refusal.is_none() && !taken.iter().any(needed) {
            taken.extend(self.applied.apply(&sets).await?);
        }
        taken.extend(
            pods::taken(&self.context, &self.key, findings.replicas, &findings.pods).await?,
        );
        findings.taken = Some(taken);
        self.held = held_now;
        let names = Names::of(cluster);
        self.applied.prune::<Service>(&names, MANAGED_BY, &objects).await?;
        self.applied.prune::<PodDisruptionBudget>(&names, MANAGED_BY, &objects).await
    }

    /// Makes the certificates that are missing or due, also while the cluster is paused: its
    /// brokers go on, and certificates end. Returns the Secrets of somebody else that have one of
    /// their names.
    pub(super) async fn keep_certificates(
        &mut self,
        cluster: &KafkaCluster,
        replicas: i32,
    ) -> anyhow::Result<Vec<Taken>> {
        let Self { context, certificates, applied, host, .. } = self;
        let registered = |host: &Host| host.state().brokers.keys().map(|id| id.0).collect();
        let brokers = Brokers { replicas, registered: host.as_ref().map(registered) };
        certificates.settle(context, cluster, &brokers, applied).await
    }
}
