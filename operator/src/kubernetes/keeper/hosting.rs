//! Hosts the cluster's controller, and gives it the cluster's resource.

use std::time::Instant;

use tracing::{info, warn};
use weir_crds::KafkaCluster;

use super::super::host::{Host, Trouble, may_be_recovered};
use super::super::offered;
use super::table_recovery::{Stage, TableRecovery};
use super::{ClusterReconciler, kept, status};
use crate::controller::{Event, Reply, Resource, gone};

impl ClusterReconciler {
    /// Hosts the controller, unless it runs.
    pub(super) async fn host(&mut self, cluster: &KafkaCluster) -> anyhow::Result<()> {
        if let Some(host) = &mut self.host {
            match host.ended().await {
                None => return Ok(()),
                Some(reason) => {
                    warn!(
                        cluster = self.key.name,
                        namespace = self.key.namespace,
                        reason,
                        "the controller ended; it is started again"
                    );
                    self.host = None;
                    self.taken_up = None;
                }
            }
        }
        let Some(host) = self.begin(cluster).await? else {
            return Ok(());
        };
        info!(
            cluster = self.key.name,
            namespace = self.key.namespace,
            id = host.cluster_id(),
            "this replica is the controller of the cluster"
        );
        if host.takes_up() {
            let note = kept::taken_up(host.cluster_id(), &host.state());
            info!(
                cluster = self.key.name,
                namespace = self.key.namespace,
                note,
                "takes up what was kept"
            );
            status::publish_event(&self.context, cluster, true, "TakesUpKept", &note).await;
            // They stopped with the former cluster, so their absence counts as planned; or their
            // pods were left behind, and they come without a restart.
            for broker in host.state().brokers.keys() {
                self.absences.was_left(broker.0, Instant::now());
            }
        }
        let key = (self.key.namespace.clone(), self.key.name.clone());
        self.context.figures.counted().insert(key, host.controller().counted());
        self.host = Some(host);
        Ok(())
    }

    /// Hosts the controller; `None` while its tables are being recovered.
    async fn begin(&mut self, cluster: &KafkaCluster) -> anyhow::Result<Option<Host>> {
        let (mut begins, mut note) = (false, None);
        let started = loop {
            match Host::start(
                &self.context,
                &self.sites,
                &self.key,
                cluster,
                &self.resource,
                &self.notices,
                begins,
            )
            .await
            {
                Err(Trouble::Recovers) => {}
                started => break started,
            }
            let open = self.recovery.take().filter(|recovery| recovery.stage().is_some());
            let recovery = self.recovery.insert(
                open.unwrap_or_else(|| TableRecovery::begin(&self.context, &self.key, cluster)),
            );
            match recovery.build_when_complete(&self.context, cluster).await? {
                Stage::Waits(_) | Stage::Refused(_) => return Ok(None),
                Stage::Made(_, made) => note = Some(made),
                Stage::New => begins = true,
            }
        };
        let host = started.map_err(|trouble| trouble.said(&self.key))?;
        if let Some(note) = note {
            status::publish_event(&self.context, cluster, true, "Recovered", &note).await;
        }
        match &self.recovery {
            Some(recovery) => recovery.close(host.cluster_id()),
            None if may_be_recovered(cluster) => {
                self.recovery =
                    Some(TableRecovery::over(&self.context, &self.key, cluster, host.cluster_id()))
            }
            None => {}
        }
        Ok(Some(host))
    }

    /// Gives the resource to the controller if it changed.
    pub(super) async fn offer(&mut self, cluster: &KafkaCluster) {
        let Some(host) = &self.host else { return };
        host.saw(cluster);
        let generation = cluster.metadata.generation;
        if self
            .taken_up
            .as_ref()
            .is_some_and(|(taken, result)| *taken == generation && result.is_ok())
            // Brokers that can be unregistered since then.
            && gone(&host.state(), cluster.spec.brokers.replicas).is_empty()
        {
            return;
        }
        let answer = host
            .controller()
            .ask(Event::Apply(vec![Resource::Cluster(Box::new(offered::cluster(cluster)))]))
            .await;
        let result = match answer.map(|answer| answer.reply) {
            Ok(Reply::Applied(_)) => Ok(()),
            Ok(Reply::Invalid(refusal)) => Err(format!("{}: {}", refusal.path, refusal.reason)),
            Ok(_) | Err(_) => return,
        };
        self.taken_up = Some((generation, result));
    }
}
