//! The election of the leading replica of the operator by a `Lease`: taking, renewing and releasing
//! it.
//!
//! The Lease avoids two leaders; the controller epoch in every `PartitionTable` makes them
//! harmless. A replica that cannot renew stops leading, by its own clock, before another may start.
//! A replica that was paused asks the API server before it loads anything. A replica that regains
//! the Lease starts a new term.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use crate::store::kube::LeaseCheck;
use crate::time::now_micro;

/// A Lease that was not renewed for this long may be taken. With the time of a takeover, broker
/// failures are handled again some five seconds after a leader's death.
///
/// Other operators use 15 s, with 10 s to renew and 2 s between attempts
/// (`client-go/tools/leaderelection`, and controller-runtime after it). There a reconciliation
/// waits; here a partition whose leader died does. If a slow or absent API server deposes a leader
/// too early, that costs a takeover and loses nothing. Brokers go on meanwhile, and without an API
/// server nothing could be committed.
const DURATION: Duration = Duration::from_secs(4);
/// The interval of a leader's renewals.
const RENEW: Duration = Duration::from_millis(1_200);
/// A leader that could not renew for this long stops, before another replica may start.
const DEADLINE: Duration = Duration::from_millis(3_200);
/// The interval of a standby's checks.
const RETRY: Duration = Duration::from_millis(500);
/// The most time for an answer of the API server.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// A term of leadership, from taking the Lease to losing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Term {
    /// The Lease's `leaseTransitions` at the start of the term.
    transitions: i32,
}

/// The handle of the election for the rest of the operator.
#[derive(Debug)]
pub(super) struct Election {
    /// The term of this replica, while it leads.
    pub(super) leads: watch::Receiver<Option<Term>>,
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    ballot: LeaseIdentity,
}

/// The identity of this replica and its Lease.
#[derive(Clone)]
struct LeaseIdentity {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// The Deployment that owns the Lease, if known.
    deployment: Option<(Api<Deployment>, String)>,
}

impl std::fmt::Debug for LeaseIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ballot").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Election {
    /// Takes part in the election for the Lease `name`. `replica` is this process's name; a
    /// restarted process counts as another replica. `deployment`, the operator's own, owns the
    /// Lease.
    pub(super) fn start(
        client: Client,
        namespace: &str,
        name: &str,
        replica: &str,
        deployment: Option<&str>,
    ) -> Self {
        let (publish, leads) = watch::channel(None);
        let (stop, stopped) = oneshot::channel();
        let ballot = LeaseIdentity {
            deployment: deployment
                .map(|name| (Api::namespaced(client.clone(), namespace), name.to_owned())),
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: format!("{replica}_{}", uuid::Uuid::new_v4()),
        };
        let mut elector = LeaderElector { ballot: ballot.clone(), leads: publish, observed: None };
        let task = tokio::spawn(async move {
            tokio::select! {
                never = elector.run() => match never {},
                _ = stopped => {}
            }
            elector.release().await;
        });
        Self { leads, task, stop, ballot }
    }

    /// Returns a check that asks the API server whether a term still continues.
    pub(super) fn check(&self, term: Term) -> LeaseCheck {
        let (ballot, leads) = (self.ballot.clone(), self.leads.clone());
        Arc::new(move || {
            let (ballot, leads) = (ballot.clone(), leads.clone());
            async move {
                let found = tokio::time::timeout(ANSWER_MAX, ballot.api.get(&ballot.name)).await;
                let held = matches!(found, Ok(Ok(lease)) if ballot.holds(&lease, term.transitions));
                held && *leads.borrow() == Some(term)
            }
            .boxed()
        })
    }

    /// Releases the Lease if this replica holds it, so that no standby has to wait for its expiry.
    pub(super) async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            warn!(%error, "the task of the leader election failed; this replica stops");
        }
    }
}

impl LeaseIdentity {
    /// The owner of the Lease, so that uninstalling the operator deletes it. The Lease works
    /// without one too.
    async fn owner(&self) -> Option<OwnerReference> {
        let (api, name) = self.deployment.as_ref()?;
        match tokio::time::timeout(ANSWER_MAX, api.get_metadata_opt(name)).await {
            Ok(Ok(found)) => Some(OwnerReference {
                api_version: "apps/v1".to_owned(),
                kind: "Deployment".to_owned(),
                name: name.clone(),
                uid: found?.metadata.uid?,
                ..OwnerReference::default()
            }),
            Ok(Err(error)) => {
                debug!(%error, deployment = name, "look for the owner of the lease");
                None
            }
            Err(_) => {
                debug!(deployment = name, "looking for the owner of the lease takes too long");
                None
            }
        }
    }

    fn holds(&self, lease: &Lease, transitions: i32) -> bool {
        let spec = lease.spec.as_ref();
        spec.is_some_and(|spec| {
            spec.holder_identity.as_deref() == Some(&self.identity)
                && spec.lease_transitions == Some(transitions)
        })
    }
}

struct LeaderElector {
    ballot: LeaseIdentity,
    leads: watch::Sender<Option<Term>>,
    /// The Lease as last seen, and when this version was first seen.
    observed: Option<(Option<String>, Instant)>,
}

/// What a standby does about the Lease.
#[derive(Debug, PartialEq, Eq)]
enum LeaseAction {
    /// It is free: take it.
    Take,
    /// Another replica holds it.
    Wait,
}

fn turn(spec: Option<&LeaseSpec>, unchanged_for: Duration) -> LeaseAction {
    let Some(spec) = spec else { return LeaseAction::Take };
    let duration = spec
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(DURATION, Duration::from_secs);
    let held = spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty());
    if held && unchanged_for < duration { LeaseAction::Wait } else { LeaseAction::Take }
}

impl LeaderElector {
    /// Takes part until it is dropped. Errors are only retried.
    async fn run(&mut self) -> std::convert::Infallible {
        loop {
            match self.stand_by().await {
                Ok(Some((lease, asked))) => self.lead(lease, asked).await,
                Ok(None) => {}
                Err(error) => debug!(%error, "look at the lease"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn release(&mut self) {
        self.leads.send_replace(None);
        let released = async {
            let mut lease = self.ballot.api.get(&self.ballot.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.ballot.identity) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                self.ballot.api.replace(&self.ballot.name, &PostParams::default(), &lease).await?;
                info!("gave the lease back");
            }
            Ok::<(), kube::Error>(())
        };
        match tokio::time::timeout(ANSWER_MAX, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(%error, "cannot give the lease back: another replica leads once it has expired")
            }
            Err(_) => warn!("giving the lease back takes too long"),
        }
    }

    /// Takes the Lease if it may be taken: the written Lease, and when the write was asked for.
    async fn stand_by(&mut self) -> anyhow::Result<Option<(Lease, Instant)>> {
        let found =
            tokio::time::timeout(ANSWER_MAX, self.ballot.api.get_opt(&self.ballot.name)).await??;
        let version = found.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        let since = match &self.observed {
            Some((seen, since)) if *seen == version => *since,
            _ => {
                let now = Instant::now();
                self.observed = Some((version, now));
                now
            }
        };
        if turn(found.as_ref().and_then(|lease| lease.spec.as_ref()), since.elapsed())
            == LeaseAction::Wait
        {
            return Ok(None);
        }
        let transitions = found
            .as_ref()
            .and_then(|lease| lease.spec.as_ref()?.lease_transitions)
            .unwrap_or_default();
        let mut lease = found.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.ballot.name.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        if lease.metadata.owner_references.as_ref().is_none_or(Vec::is_empty) {
            lease.metadata.owner_references = self.ballot.owner().await.map(|owner| vec![owner]);
        }
        let now = now_micro();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.ballot.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions.wrapping_add(1)),
            ..LeaseSpec::default()
        });
        let asked = Instant::now();
        Ok(Some((self.write(&lease).await?, asked)))
    }

    async fn write(&self, lease: &Lease) -> anyhow::Result<Lease> {
        let params = PostParams::default();
        let written = async {
            if lease.metadata.resource_version.is_some() {
                self.ballot.api.replace(&self.ballot.name, &params, lease).await
            } else {
                self.ballot.api.create(&params, lease).await
            }
        };
        Ok(tokio::time::timeout(ANSWER_MAX, written).await??)
    }

    /// Leads until the Lease is lost. It was `renewed` when the last write of it was asked for,
    /// since a standby may count from before the answer.
    async fn lead(&mut self, mut lease: Lease, mut renewed: Instant) {
        let transitions =
            lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default();
        info!(transitions, "this replica leads");
        self.leads.send_replace(Some(Term { transitions }));
        loop {
            tokio::time::sleep(
                RENEW.min((renewed + DEADLINE).saturating_duration_since(Instant::now())),
            )
            .await;
            let asked = Instant::now();
            if asked.duration_since(renewed) >= DEADLINE {
                warn!("the lease could not be renewed in time: this replica stops leading");
                break;
            }
            if let Some(spec) = &mut lease.spec {
                spec.renew_time = Some(now_micro());
            }
            match self.write(&lease).await {
                Ok(written) => {
                    lease = written;
                    renewed = asked;
                }
                Err(error) => {
                    debug!(%error, "renew the lease");
                    if !self.read_again(&mut lease, transitions).await {
                        warn!("another replica took the lease: this one stops leading");
                        break;
                    }
                }
            }
        }
        self.leads.send_replace(None);
        self.observed = None;
    }

    /// After a failed renewal: whether this replica still holds the Lease, as far as it can tell.
    async fn read_again(&self, lease: &mut Lease, transitions: i32) -> bool {
        let Ok(Ok(found)) =
            tokio::time::timeout(ANSWER_MAX, self.ballot.api.get(&self.ballot.name)).await
        else {
            return true;
        };
        let ours = self.ballot.holds(&found, transitions);
        *lease = found;
        ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::kube::tests::server::Server;

    #[test]
    fn a_lease_is_taken_when_it_is_free_or_ran_out() {
        let held = |holder: &str| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(4),
            ..LeaseSpec::default()
        };
        assert_eq!(turn(None, Duration::ZERO), LeaseAction::Take);
        assert_eq!(turn(Some(&held("")), Duration::ZERO), LeaseAction::Take);
        assert_eq!(turn(Some(&held("a")), Duration::from_secs(3)), LeaseAction::Wait);
        assert_eq!(turn(Some(&held("a")), Duration::from_secs(4)), LeaseAction::Take);
        assert!(RENEW + ANSWER_MAX < DEADLINE && DEADLINE < DURATION);
    }

    #[tokio::test]
    async fn a_lease_that_is_given_back_is_taken_at_once() {
        let server = Server::default();
        let holder = || {
            let lease = server.get("/apis/coordination.k8s.io/v1/namespaces/n/leases/l").unwrap();
            lease["spec"]["holderIdentity"].as_str().unwrap().to_owned()
        };
        let mut first = Election::start(server.client(), "n", "l", "a", None);
        let term = *first.leads.wait_for(Option::is_some).await.unwrap();
        assert!(holder().starts_with("a_"), "{}", holder());
        assert!(first.check(term.unwrap())().await);
        let leads = first.leads.clone();
        first.stop().await;
        assert_eq!((holder().as_str(), *leads.borrow()), ("", None));
        // The Lease was released, not expired: a standby that has just seen it takes it at once.
        let lease: Lease = serde_json::from_value(
            server.get("/apis/coordination.k8s.io/v1/namespaces/n/leases/l").unwrap(),
        )
        .unwrap();
        assert_eq!(turn(lease.spec.as_ref(), Duration::ZERO), LeaseAction::Take);
        let deployment = "/apis/apps/v1/namespaces/n/deployments/weir-operator";
        server.put(deployment, &serde_json::json!({"metadata": {"name": "weir-operator"}}));
        let mut second = Election::start(server.client(), "n", "l", "b", Some("weir-operator"));
        second.leads.wait_for(Option::is_some).await.unwrap();
        assert!(holder().starts_with("b_"), "{}", holder());
        // Deleting the operator deletes it.
        let owners = server.get("/apis/coordination.k8s.io/v1/namespaces/n/leases/l").unwrap()["metadata"]["ownerReferences"].clone();
        assert_eq!(owners[0]["uid"], server.get(deployment).unwrap()["metadata"]["uid"]);
        assert_eq!(owners[0].get("blockOwnerDeletion"), None);
        second.stop().await;
    }
}
