//! Reconciles all ConsumerGroups of a cluster: look, decide, write the status, act. There is one
//! task for each cluster, and it writes nothing without a change.
//!
//! An action follows the write of the status that records it. If the write failed, the action is
//! skipped, and the next look decides again.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::Instant;
use tracing::{debug, info, warn};
use weir_crds::{ConsumerGroup, ConsumerGroupStatus, GroupDeletionPolicy, ResetPhase};

use super::backend::{GroupBackend, Named};
use super::dying::Dying;
use super::observe::{Ages, Question, observe};
use super::reconcile::{Action, Decision, Memory, Seen, Workload, reconcile};
use super::schedule::Pace;
use super::{execute, mirror, reset};
use crate::kafka::{Client, KafkaError};
use crate::time::now_ms;

/// The most time for a look, so that a hanging broker does not delay other groups forever.
const LOOK_MAX: Duration = Duration::from_secs(20);

/// The most groups looked at concurrently.
const AT_ONCE: usize = 4;

/// The most looks in a second, over all groups.
const LOOKS_PER_SECOND: u64 = 50;

/// How long a coordinator may be unavailable before the conditions say so: it may be moving or
/// loading.
const AWAY_MAX: Duration = Duration::from_secs(10);

/// The interval of reflecting groups and of deleting marked ones.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// What the task remembers of a group between two looks.
#[derive(Debug)]
struct Kept {
    uid: Option<String>,
    generation: Option<i64>,
    status: ConsumerGroupStatus,
    written_ms: Option<i64>,
    memory: Memory,
    ages: Ages,
    away_since: Option<Instant>,
    /// The last look and its actions succeeded.
    is_looked_after: bool,
    /// The last decided status, written or not.
    decided: ConsumerGroupStatus,
    next: Instant,
}

impl Kept {
    fn new(resource: &ConsumerGroup) -> Self {
        Self {
            uid: resource.metadata.uid.clone(),
            generation: None,
            status: resource.status.clone().unwrap_or_default(),
            written_ms: None,
            memory: Memory::default(),
            ages: Ages::default(),
            away_since: None,
            is_looked_after: false,
            decided: ConsumerGroupStatus::default(),
            next: Instant::now(),
        }
    }
}

impl Kept {
    /// A deposed operator may have written, after this one read the resource, that a reset is done.
    /// That must not be lost.
    fn take_over_done(&mut self, resource: &ConsumerGroup) {
        let done = |status: &ConsumerGroupStatus| {
            let last = status.last_reset.as_ref().filter(|last| last.phase == ResetPhase::Done);
            last.filter(|last| {
                resource.spec.reset.as_ref().is_some_and(|reset| reset.id == last.id)
            })
            .cloned()
        };
        if let Some(theirs) = &resource.status
            && let Some(last) = done(theirs)
            && done(&self.status).is_none()
        {
            self.status.last_reset = Some(last);
            self.status.undo.clone_from(&theirs.undo);
        }
    }
}

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
enum Away {
    #[error(transparent)]
    Failed(KafkaError),
    #[error("its brokers do not answer in {} s", LOOK_MAX.as_secs())]
    Slow,
}

/// Reconciles the groups of a cluster until it is dropped.
pub async fn keep<H: GroupBackend>(home: Arc<H>, client: Client, pace: Pace) -> Infallible {
    let mut kept: BTreeMap<Named, Kept> = BTreeMap::new();
    let mut dying = Dying::default();
    let mut housekeeping = Instant::now();
    loop {
        let groups = home.groups();
        let owners = owners(&groups);
        let due = due(&groups, &mut kept);
        let looks = due.into_iter().map(|(resource, kept)| {
            let owner = owners
                .get(resource.group_id())
                .filter(|owner| **owner != named(&resource))
                .cloned();
            reconcile_one(&*home, &client, pace, resource, kept, owner)
        });
        let looked: Vec<_> =
            stream::iter(looks.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).collect().await;
        let each =
            u64::try_from(groups.len()).unwrap_or(u64::MAX).saturating_mul(1000) / LOOKS_PER_SECOND;
        for (resource, mut done, soon) in looked {
            let wait_ms = if soon { pace.soon_ms } else { pace.look_ms }.max(each);
            done.next = Instant::now() + Duration::from_millis(wait_ms);
            kept.insert(named(&resource), done);
        }
        let all_looked_after = kept.values().all(|kept| kept.is_looked_after);
        home.show(kept.iter().map(|(name, kept)| (name, &kept.decided)), all_looked_after);
        for gone in home.take_deleted() {
            if gone.spec.deletion_policy == GroupDeletionPolicy::Delete {
                dying.add(gone.group_id());
            }
        }
        if housekeeping <= Instant::now() {
            // A resource that is not listed yet may own the group.
            if home.knows_all() {
                dying.step(&*home, &client).await;
                reflect_groups(&*home, &client).await;
            }
            housekeeping = Instant::now() + HOUSEKEEPING;
        }
        let next = kept
            .values()
            .map(|kept| kept.next)
            .min()
            .map_or(housekeeping, |next| next.min(housekeeping));
        tokio::select! {
            () = home.changed() => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

fn named(resource: &ConsumerGroup) -> Named {
    let metadata = &resource.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// The name of a resource in the log.
fn name_of(resource: &ConsumerGroup) -> String {
    let (namespace, name) = named(resource);
    format!("{namespace}/{name}")
}

/// The owner of each group: the oldest resource that names it.
fn owners(groups: &[Arc<ConsumerGroup>]) -> BTreeMap<String, Named> {
    let mut sorted: Vec<&Arc<ConsumerGroup>> = groups.iter().collect();
    // A reflected resource yields to a user's.
    sorted.sort_by_key(|resource| {
        (
            mirror::is_reflected(resource),
            resource.metadata.creation_timestamp.clone(),
            named(resource),
        )
    });
    let mut owners = BTreeMap::new();
    for resource in sorted {
        owners.entry(resource.group_id().to_owned()).or_insert_with(|| named(resource));
    }
    owners
}

/// The groups to look at now, with their memories taken out of `kept`. Memories of deleted
/// resources are dropped.
fn due(
    groups: &[Arc<ConsumerGroup>],
    kept: &mut BTreeMap<Named, Kept>,
) -> Vec<(Arc<ConsumerGroup>, Kept)> {
    let names: BTreeSet<Named> = groups.iter().map(|resource| named(resource)).collect();
    kept.retain(|name, _| names.contains(name));
    let now = Instant::now();
    let mut due = Vec::new();
    for resource in groups {
        let name = named(resource);
        let known = kept.remove(&name).filter(|known| known.uid == resource.metadata.uid);
        let known = known.unwrap_or_else(|| Kept::new(resource));
        if known.next <= now || known.generation != resource.metadata.generation {
            due.push((Arc::clone(resource), known));
        } else {
            kept.insert(name, known);
        }
    }
    due
}

/// One look at a group with its actions; also returns whether to look again soon.
async fn reconcile_one<H: GroupBackend>(
    home: &H,
    client: &Client,
    pace: Pace,
    resource: Arc<ConsumerGroup>,
    mut kept: Kept,
    owner: Option<Named>,
) -> (Arc<ConsumerGroup>, Kept, bool) {
    kept.take_over_done(&resource);
    kept.generation = resource.metadata.generation;
    kept.is_looked_after = false;
    let (decision, now_ms) = match owner {
        Some((namespace, name)) => {
            let owner = if resource.metadata.namespace.as_ref().is_none_or(|own| *own == namespace)
            {
                name
            } else {
                format!("{namespace}/{name}")
            };
            let message = format!(
                "the group {:?} is that of the ConsumerGroup {owner:?} already: delete one of the two, or give this one another groupId",
                resource.group_id()
            );
            let seen = Seen::Nothing("Conflict", message);
            let now_ms = now_ms();
            (
                reconcile(
                    &resource,
                    &kept.status,
                    &seen,
                    &Workload::None,
                    &mut kept.memory,
                    now_ms,
                ),
                now_ms,
            )
        }
        None => match decide(home, client, &resource, &mut kept).await {
            Some(decided) => decided,
            None => return (resource, kept, true),
        },
    };
    let soon = decision.soon;
    kept.decided.clone_from(&decision.status);
    if pace.is_due(&kept.status, &decision.status, kept.written_ms, now_ms) {
        if let Err(error) = home.write_status(&resource, &decision.status).await {
            debug!(
                name = name_of(&resource),
                error = format!("{error:#}"),
                "write the status of a ConsumerGroup"
            );
            return (resource, kept, true);
        }
        log_readiness(&resource, &kept.status, &decision.status);
        kept.status = decision.status;
        kept.written_ms = Some(now_ms);
    }
    kept.memory.failure = None;
    for action in decision.actions {
        if !home.may_act().await {
            break;
        }
        if let Err(error) = carry_out(home, client, &resource, action).await {
            let error = format!("{error:#}");
            debug!(group = resource.group_id(), error, "act on a group");
            kept.memory.failure = Some(error);
            break;
        }
    }
    kept.is_looked_after = kept.memory.failure.is_none();
    (resource, kept, soon)
}

/// Looks and decides; `None` while the coordinator is unavailable and may come back.
async fn decide<H: GroupBackend>(
    home: &H,
    client: &Client,
    resource: &ConsumerGroup,
    kept: &mut Kept,
) -> Option<(Decision, i64)> {
    let question = question(resource, &kept.status);
    let workload = match resource.spec.scaling {
        Some(_) => home.workload(resource).await,
        None => Workload::None,
    };
    let looked = tokio::time::timeout(LOOK_MAX, observe(client, &question, &mut kept.ages)).await;
    let looked = looked.map_err(|_| Away::Slow).and_then(|looked| looked.map_err(Away::Failed));
    match looked {
        Ok(observed) => {
            kept.away_since = None;
            let now_ms = now_ms();
            let seen = Seen::Group(&observed);
            Some((
                reconcile(resource, &kept.status, &seen, &workload, &mut kept.memory, now_ms),
                now_ms,
            ))
        }
        Err(error) => {
            let since = *kept.away_since.get_or_insert_with(Instant::now);
            debug!(group = question.group, %error, "look at a group");
            if since.elapsed() < AWAY_MAX {
                return None;
            }
            let reason = if matches!(error, Away::Failed(KafkaError::NoBroker)) {
                "NoBroker"
            } else {
                "CoordinatorNotAvailable"
            };
            let message = format!("the group cannot be looked at: {error}");
            let now_ms = now_ms();
            let seen = Seen::Nothing(reason, message);
            Some((
                reconcile(resource, &kept.status, &seen, &workload, &mut kept.memory, now_ms),
                now_ms,
            ))
        }
    }
}

fn question(resource: &ConsumerGroup, status: &ConsumerGroupStatus) -> Question {
    let mut question = Question {
        group: resource.group_id().to_owned(),
        topics: resource.spec.topics.iter().cloned().collect(),
        named: resource.spec.topics.clone(),
        at_ms: None,
        marks: false,
    };
    let done = |id: &str| {
        status
            .last_reset
            .as_ref()
            .is_some_and(|last| last.id == id && last.phase == ResetPhase::Done)
    };
    // A reset that was withdrawn may have been carried out before.
    question.marks =
        status.last_reset.as_ref().is_some_and(|last| last.phase == ResetPhase::Committing);
    if let Some(reset) = resource.spec.reset.as_ref().filter(|reset| !done(&reset.id)) {
        question.marks = true;
        question.topics.extend(reset::topics_named(reset, status));
        question.at_ms = reset.to.timestamp.as_ref().map(|time| time.0.as_millisecond().max(0));
    }
    question
}

async fn carry_out<H: GroupBackend>(
    home: &H,
    client: &Client,
    resource: &ConsumerGroup,
    action: Action,
) -> anyhow::Result<()> {
    let group = resource.group_id();
    match action {
        Action::Evict(members) => {
            info!(group, members = members.len(), "evicts the members of a group for its reset");
            Ok(execute::evict(client, group, &members).await?)
        }
        Action::Forget(partitions) => Ok(execute::forget(client, group, partitions).await?),
        Action::Commit(offsets, mark) => {
            let partitions = offsets.len();
            execute::commit(client, group, offsets, mark).await?;
            info!(group, partitions, "reset the offsets of a group");
            Ok(())
        }
        Action::Scale(replicas) => {
            home.scale(resource, replicas).await?;
            info!(group, replicas, "scaled the workload of a group");
            Ok(())
        }
    }
}

/// Logs each change of readiness.
fn log_readiness(
    resource: &ConsumerGroup,
    before: &ConsumerGroupStatus,
    after: &ConsumerGroupStatus,
) {
    let ready = |status: &ConsumerGroupStatus| {
        status.conditions.iter().find(|condition| condition.type_ == "Ready").cloned()
    };
    let (was, Some(is)) = (ready(before), ready(after)) else { return };
    if was.is_none_or(|was| was.reason != is.reason) {
        info!(
            name = name_of(resource),
            ready = is.status,
            reason = is.reason,
            message = is.message,
            "a ConsumerGroup changed"
        );
    }
}

/// Creates resources for groups that have none, and deletes those whose group is gone, as the
/// cluster's spec says.
async fn reflect_groups<H: GroupBackend>(home: &H, client: &Client) {
    let wanted = client.state().cluster.resource.spec.consumer_groups.clone();
    let resources = home.groups();
    let groups = match wanted.reflect {
        weir_crds::Reflect::All => match execute::list(client).await {
            Ok(groups) => groups,
            Err(error) => {
                debug!(%error, "list the groups of a cluster");
                return;
            }
        },
        weir_crds::Reflect::Declared => Vec::new(),
    };
    let reflection = mirror::reflect(&wanted, &resources, &groups);
    for group in reflection.make {
        if let Err(error) = home.make(&group).await {
            warn!(
                group,
                error = format!("{error:#}"),
                "cannot make a ConsumerGroup for a group; it is tried again"
            );
        }
    }
    for resource in reflection.remove {
        if let Err(error) = home.remove(&resource).await {
            warn!(
                name = name_of(&resource),
                error = format!("{error:#}"),
                "remove a ConsumerGroup whose group is gone"
            );
        }
    }
}

#[cfg(test)]
mod tests;
