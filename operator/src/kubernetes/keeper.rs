//! Keeps one cluster: hosts its controller, brings its objects to the resource's spec, restarts
//! brokers when the partitions allow it, and writes the status.
//!
//! One task for each cluster, one pass at a time. A pass hosts the controller (`host`: store,
//! controller, the RPC's directory), gives it the spec, and builds the objects. It applies those
//! that differ from the last application. Then it grows volumes, reads the pods, restarts the next
//! broker that differs from the spec (`rollout`), and writes the status.
//!
//! Invariants
//! - Watches only wake a keeper. A pass reads what it acts on, and writes only differences.
//! - A rollout restarts one broker at a time, with all replicas in sync, and never below
//!   `min.insync.replicas`.
//! - A failed pass is tried again. If it fails twice in a row, a condition says so in the API
//!   server's words; the other conditions stay as they were. The controller goes on.
//! - A condition refers to the generation that the controller has answered, not to one that only
//!   the watch has seen.
//! - An event reports news: another status of a condition, or another fault.

mod absences;
mod addresses;
mod apply;
mod certificates;
mod claims;
mod deadline;
mod drain;
mod hosting;
mod judge;
mod kept;
mod log_recovery;
mod make;
mod node_certificates;
mod observation;
mod own_secrets;
mod owners;
mod page;
mod pods;
mod rollout;
mod status;
mod strays;
mod table_recovery;
mod trouble;
mod unheard;
mod volumes;
mod wake;
mod words;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};
use weir_crds::KafkaCluster;

use self::absences::Absences;
use self::apply::Applied;
use self::certificates::Certificates;
use self::claims::Claims;
use self::deadline::Deadline;
use self::log_recovery::LogRecovery;
use self::observation::Observation;
use self::pods::Pods;
use self::rollout::Step;
use self::strays::Strays;
use self::table_recovery::TableRecovery;
pub(super) use self::wake::Wake;
use super::annotations::{IMAGE_ANNOTATION, PAUSED_ANNOTATION, annotation};
use super::context::Context;
use super::host::{self, Host};
use super::hosted_clusters::HostedClusters;
use super::metrics::Metrics;
use super::objects::{Names, Place, SLICE_MANAGED_BY, service_of, slices};
use super::topics::Notice;
use crate::controller::state::State;
use crate::controller::{Key, summary};
use crate::store::StoreError;

/// The most time for one pass.
const PASS_MAX: Duration = Duration::from_secs(60);

/// The least time between two passes, so that one pass handles a burst of events.
const BETWEEN_PASSES: Duration = Duration::from_millis(250);

/// The first and the longest wait before a failed pass is tried again.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The longest time between two passes, in case a watch event was lost.
const WITHOUT_REASON: Duration = Duration::from_secs(300);

/// The wait while something is in progress that no watch reports.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// The wait while objects of others have the cluster's names: no watch reports their deletion.
const TAKEN_AGAIN: Duration = Duration::from_secs(5);

/// The keeper of one cluster.
pub(super) struct ClusterReconciler {
    context: Context,
    sites: Arc<HostedClusters>,
    key: Key,
    resource: watch::Receiver<Arc<KafkaCluster>>,
    wake: Arc<Wake>,
    notices: mpsc::Sender<Notice>,
    host: Option<Host>,
    recovery: Option<TableRecovery>,
    applied: Applied,
    /// The generation that the controller was last given, and why it refused if it did.
    taken_up: Option<(Option<i64>, Result<(), String>)>,
    status: status::Written,
    absences: Absences,
    deadline: Deadline,
    topics: kept::Topics,
    claims: Claims,
    certificates: Certificates,
    strays: Strays,
    log_recovery: LogRecovery,
    /// The brokers that the disruption budgets hold.
    held: BTreeSet<i32>,
    /// Whether the kind `PodMonitor` exists, and when that was looked up.
    monitored: Option<(bool, Instant)>,
}

impl Drop for ClusterReconciler {
    fn drop(&mut self) {
        let key = (self.key.namespace.clone(), self.key.name.clone());
        self.context.figures.partitions().remove(&key);
        self.context.figures.counted().remove(&key);
        self.context.figures.conditions().remove(&key);
        self.context.figures.brokers().remove(&key);
        self.context.figures.forget_successes(&key);
    }
}

impl ClusterReconciler {
    pub(super) fn new(
        context: Context,
        sites: Arc<HostedClusters>,
        key: Key,
        resource: watch::Receiver<Arc<KafkaCluster>>,
        wake: Arc<Wake>,
        notices: mpsc::Sender<Notice>,
    ) -> Self {
        let first = Arc::clone(&resource.borrow());
        let uid = first.metadata.uid.clone().unwrap_or_default();
        Self {
            applied: Applied::new(&context, &key.namespace, &uid),
            certificates: Certificates::of(&context, &first),
            context,
            sites,
            key,
            resource,
            wake,
            notices,
            host: None,
            recovery: None,
            taken_up: None,
            status: status::Written::default(),
            absences: Absences::default(),
            deadline: Deadline::of(&first),
            held: BTreeSet::new(),
            topics: kept::Topics::default(),
            claims: Claims::default(),
            strays: Strays::default(),
            log_recovery: LogRecovery::default(),
            monitored: None,
        }
    }

    pub(super) async fn run(mut self) -> Infallible {
        let mut retry = RETRY_MIN;
        loop {
            Metrics::count(&self.context.figures.reconciles);
            let began = Instant::now();
            let wait = match tokio::time::timeout(PASS_MAX, self.reconcile()).await {
                Ok(Ok(wait)) => {
                    retry = RETRY_MIN;
                    let key = (self.key.namespace.clone(), self.key.name.clone());
                    self.context.figures.succeeded("KafkaCluster", key);
                    wait
                }
                Ok(Err(error)) => {
                    warn!(
                        cluster = self.key.name,
                        namespace = self.key.namespace,
                        error = format!("{error:#}"),
                        "cannot reconcile a KafkaCluster; it is tried again"
                    );
                    self.failed(&error, &mut retry).await
                }
                Err(_) => {
                    warn!(
                        cluster = self.key.name,
                        namespace = self.key.namespace,
                        "reconciling a KafkaCluster takes too long; it is tried again"
                    );
                    self.failed(
                        &anyhow::anyhow!("the Kubernetes API takes too long to answer"),
                        &mut retry,
                    )
                    .await
                }
            };
            tokio::time::sleep(BETWEEN_PASSES.saturating_sub(began.elapsed())).await;
            self.sleep(wait).await;
        }
    }

    /// Sleeps until an event, or for this long.
    async fn sleep(&mut self, wait: Duration) {
        let host = self.host.as_mut();
        tokio::select! {
            () = self.wake.woken() => {}
            _ = self.resource.changed() => {}
            () = host::news(host) => {}
            () = table_recovery::news(self.recovery.as_ref()) => {}
            () = tokio::time::sleep(wait) => {}
        }
    }

    /// Handles a failed pass: the first failure is only retried, the next one is written to the
    /// status.
    async fn failed(&mut self, error: &anyhow::Error, retry: &mut Duration) -> Duration {
        Metrics::count(&self.context.figures.reconcile_errors);
        let cluster = Arc::clone(&self.resource.borrow());
        let state = self.host.as_ref().map(Host::state);
        if *retry > RETRY_MIN {
            let taken = error.chain().find_map(|cause| match cause.downcast_ref() {
                Some(StoreError::Taken(taken)) => Some(vec![taken.clone()]),
                _ => None,
            });
            let mut findings = Observation {
                failed: Some(status::said(error)),
                refused: is_refusal(error),
                away: self.away(&Pods::default(), state.as_ref(), i32::MAX),
                taken,
                ..self.first_findings(&cluster)
            };
            self.deadline.observe(&cluster, state.as_ref(), &mut findings, Instant::now());
            let written =
                self.status.write(&self.context, &cluster, state.as_ref(), &findings).await;
            if let Err(error) = written {
                debug!(cluster = self.key.name, %error, "write the status of a KafkaCluster");
            }
        }
        let wait = *retry;
        *retry = (*retry * 2).min(RETRY_MAX);
        wait
    }

    /// The findings from the resource alone.
    fn first_findings(&self, cluster: &KafkaCluster) -> Observation {
        let image = cluster.spec.image.as_deref().or_else(|| annotation(cluster, IMAGE_ANNOTATION));
        Observation {
            image: image.unwrap_or(&self.context.broker_image).to_owned(),
            paused: cluster.spec.paused || annotation(cluster, PAUSED_ANNOTATION) == Some("true"),
            ..Observation::default()
        }
    }

    async fn reconcile(&mut self) -> anyhow::Result<Duration> {
        for touched in self.wake.take() {
            self.applied.touched(&touched);
            self.claims.touched(&touched);
        }
        let cluster = Arc::clone(&self.resource.borrow_and_update());
        if cluster.metadata.deletion_timestamp.is_some() {
            return Ok(WITHOUT_REASON);
        }
        let mut findings = self.first_findings(&cluster);
        self.certificates.identify(&self.context, &cluster).await?;
        self.host(&cluster).await?;
        if let Some(host) = &self.host {
            kept::remember(&self.context, &self.key, &cluster, host.cluster_id()).await?;
        }
        findings.recovering = self.recovery.as_ref().and_then(TableRecovery::stage).cloned();
        findings.pods = pods::read_pods(&self.context, &self.key, &cluster).await?;
        if findings.paused {
            if let Some(held) = self.host.as_ref().map(|host| pods::brokers_held(&host.state())) {
                let replicas = cluster.spec.brokers.replicas.max(held);
                self.keep_certificates(&cluster, replicas).await?;
            }
        } else {
            self.offer(&cluster).await;
            self.make_objects(&cluster, &mut findings).await?;
        }
        if let Some(host) = &self.host {
            let (state, pods) = (host.state(), &findings.pods);
            self.topics.set_owners(&self.context, &self.key, &cluster, &state).await?;
            self.claims.set_owners(&self.context, &self.key, &cluster, &state, pods).await?;
        }
        self.observe(&cluster, &mut findings).await?;
        if !findings.paused {
            self.lead_to_pods(&cluster, &mut findings).await?;
        }
        let state = self.host.as_ref().map(Host::state);
        if let Some(state) = &state {
            let all = summary(state.topics.values().flat_map(|topic| &topic.partitions));
            self.context
                .figures
                .partitions()
                .insert((self.key.namespace.clone(), self.key.name.clone()), all);
        }
        if let Some(state) = state.as_ref().filter(|_| !findings.paused) {
            self.roll(&cluster, state, &mut findings).await?;
        }
        findings.away = self.away(&findings.pods, state.as_ref(), findings.replicas);
        findings.taken_up = matches!(&self.taken_up, Some((generation, _)) if *generation == cluster.metadata.generation);
        let turned_down =
            self.taken_up.as_ref().and_then(|(_, result)| result.as_ref().err().cloned());
        findings.refusal = turned_down.or(findings.refusal.take());
        findings.strays = Some(self.strays.current(&self.key, &findings.pods).await);
        findings.bytes = self.host.as_ref().and_then(Host::bytes);
        let left = self.deadline.observe(&cluster, state.as_ref(), &mut findings, Instant::now());
        let written = self.status.write(&self.context, &cluster, state.as_ref(), &findings).await?;
        let wait = match written {
            status::Outcome::Later(wait) => wait,
            status::Outcome::Done if findings.under_way || findings.refusal.is_some() => UNDER_WAY,
            status::Outcome::Done
                if findings.taken.as_ref().is_some_and(|taken| !taken.is_empty()) =>
            {
                TAKEN_AGAIN
            }
            // A StorageClass or a quota of others may stop a volume; no watch reports their
            // changes.
            status::Outcome::Done if findings.storage_trouble().is_some() => RETRY_MAX,
            status::Outcome::Done => self.strays.again().unwrap_or(WITHOUT_REASON),
        };
        Ok(left.map_or(wait, |left| wait.min(left)))
    }

    /// The brokers below `replicas` that are down as planned.
    fn away(&mut self, pods: &Pods, state: Option<&State>, replicas: i32) -> BTreeSet<i32> {
        state.map_or_else(BTreeSet::new, |state| {
            self.absences.observe(pods, state, replicas, Instant::now())
        })
    }

    /// Points the ports of shared load balancers to the current pods.
    async fn lead_to_pods(
        &mut self,
        cluster: &KafkaCluster,
        findings: &mut Observation,
    ) -> anyhow::Result<()> {
        let places = findings.pods.iter().filter_map(|pod| {
            (!pod.addresses.is_empty()).then_some(Place {
                id: pod.id,
                addresses: &pod.addresses,
                ports: &pod.ports,
                ready: pod.ready && !pod.terminating,
            })
        });
        let places: Vec<Place<'_>> = places.collect();
        let mut slices = slices(cluster, findings.replicas, &places);
        // A slice directs a service's clients. None directs clients of somebody else's service to
        // the brokers.
        let taken = findings.taken.get_or_insert_default();
        let is_taken = |service: Option<&str>| {
            taken.iter().any(|by| by.kind == "Service" && Some(by.name.as_str()) == service)
        };
        slices.retain(|slice| !is_taken(service_of(slice)));
        taken.extend(self.applied.apply(&slices).await?);
        self.applied.prune::<EndpointSlice>(&Names::of(cluster), SLICE_MANAGED_BY, &slices).await
    }

    async fn observe(
        &mut self,
        cluster: &KafkaCluster,
        findings: &mut Observation,
    ) -> anyhow::Result<()> {
        let uid = cluster.metadata.uid.as_deref().unwrap_or_default();
        pods::compare(&self.context, &self.key, uid, &mut findings.pods).await?;
        unheard::find_unheard(self.host.as_ref(), findings).await;
        if let Some(host) = &self.host {
            self.absences.came(&findings.pods, &host.state());
        }
        // No watch reports the progress of log recovery.
        findings.under_way |= self.log_recovery.observe(&mut findings.pods).await;
        findings.under_way |= pods::inspect(&self.context, &self.key, &mut findings.pods).await;
        findings.troubles.extend(findings.pods.iter().filter_map(|pod| pod.trouble.clone()));
        let missing = usize::try_from(findings.replicas)
            .unwrap_or_default()
            .saturating_sub(findings.pods.len());
        if missing > 0 {
            findings.under_way = true;
            let refused = pods::why_missing(&self.context, &self.key).await;
            findings.troubles.extend(refused.clone());
            findings.pods.refused = refused;
        }
        let state = self.host.as_ref().map(Host::state);
        let taken = findings.taken.clone().unwrap_or_default();
        findings.listeners =
            status::listeners(&self.context, cluster, findings.replicas, state.as_ref(), &taken)
                .await
                .context("read the addresses of listeners")?;
        self.certificates.complete(findings);
        let (Some(host), Some(state)) = (&self.host, state) else { return Ok(()) };
        addresses::keep_true(&self.context, host, cluster, &state, &taken).await;
        Ok(())
    }

    /// Restarts the next broker whose pod differs from the spec, if the partitions allow it.
    async fn roll(
        &mut self,
        cluster: &KafkaCluster,
        state: &State,
        findings: &mut Observation,
    ) -> anyhow::Result<()> {
        let step = rollout::next(&findings.pods, state, findings.replicas);
        if let Step::Restart { id, name, uid, reason } = &step {
            info!(
                cluster = self.key.name,
                namespace = self.key.namespace,
                broker = id,
                reason,
                "restarts a broker"
            );
            self.absences.restarts(*id, Instant::now());
            pods::delete(&self.context, &self.key, name, uid).await?;
            let note = format!("restarts broker {id}: {reason}");
            status::publish_event(&self.context, cluster, true, "RestartBroker", &note).await;
        }
        findings.under_way |= !matches!(step, Step::Done);
        findings.rollout = Some(step);
        Ok(())
    }
}

/// Whether the API server refused the request for a lasting reason.
fn is_refusal(error: &anyhow::Error) -> bool {
    let answer = error.chain().find_map(|cause| cause.downcast_ref::<kube::Error>());
    matches!(answer, Some(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422))
}

#[cfg(test)]
mod tests;
