//! PURE: the actions on a group, and its status.
//!
//! [`reconcile`] decides from the resource, its last status and the observation. The shell writes
//! the status before it acts, so the status holds the old offsets before a reset is committed.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff;
use weir_crds::{
    ConsumerGroup, ConsumerGroupStatus, MembersPolicy, Rebalances, ResetPhase, ResetStatus,
    SavedOffsets, ScalingStatus,
};

use super::lag;
use super::marks::Mark;
use super::observed::{Member, Observed, Partition};
use super::reset::{self, Plan};
use super::scale::{self, ScaleMemory};
use crate::conditions::{ConditionValue, condition};

/// The most rebalances counted in an hour.
const REBALANCES_MAX: usize = 1000;

const HOUR_MS: i64 = 3_600_000;

/// The observation of a group.
#[derive(Clone, Debug)]
pub enum Seen<'a> {
    /// The whole observation.
    Group(&'a Observed),
    /// No observation: a reason and a sentence.
    Nothing(&'static str, String),
}

/// The workload to scale, if there is one.
#[derive(Clone, Debug)]
pub enum Workload {
    /// The resource has none.
    None,
    /// Its current replicas.
    Replicas(i32),
    /// It cannot be scaled: a reason and a sentence.
    Trouble(&'static str, String),
}

/// The memory between two looks. It is lost with the process, so nothing that must happen only once
/// depends on it.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    committed: Option<BTreeMap<Partition, i64>>,
    /// When `committed` last changed. The status is not enough, since not every status is written.
    commit_ms: Option<i64>,
    assigned: Option<Vec<Member>>,
    rebalances: VecDeque<i64>,
    /// Since when the lag exceeds a bound of the policy.
    over_since: Option<i64>,
    scale: ScaleMemory,
    /// Why the last action failed.
    pub failure: Option<String>,
}

/// An action after the write of the status.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Remove these members.
    Evict(Vec<Member>),
    /// Delete these committed offsets; repeating it is harmless.
    Forget(Vec<Partition>),
    /// Commit these offsets and the mark in one request.
    Commit(BTreeMap<Partition, i64>, Mark),
    /// Set the workload's replicas.
    Scale(i32),
}

/// The result of a look.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The new status.
    pub status: ConsumerGroupStatus,
    /// The actions, in order, after the status is written.
    pub actions: Vec<Action>,
    /// Whether to look again soon, because a change is under way.
    pub soon: bool,
}

/// Decides, and updates `memory`.
pub fn reconcile(
    resource: &ConsumerGroup,
    before: &ConsumerGroupStatus,
    seen: &Seen<'_>,
    workload: &Workload,
    memory: &mut Memory,
    now_ms: i64,
) -> Decision {
    let now = time(now_ms);
    let mut decision = Decision {
        status: ConsumerGroupStatus {
            observed_generation: resource.metadata.generation,
            group_id: Some(resource.group_id().to_owned()),
            conditions: Vec::new(),
            ..before.clone()
        },
        actions: Vec::new(),
        soon: false,
    };
    let judged = match seen {
        Seen::Nothing(reason, message) => blind(reason, message),
        Seen::Group(observed) => {
            describe(&mut decision.status, resource, observed, memory, now_ms);
            let reset = reset_step(&mut decision, resource, before, observed, memory, &now);
            let scaling = scaling(&mut decision, resource, workload, memory, now_ms);
            judge(&decision.status, resource, before, observed, reset, scaling, memory, now_ms)
        }
    };
    let generation = resource.metadata.generation;
    let conditions = judged
        .into_iter()
        .map(|(kind, judgement)| condition(kind, judgement, generation, &before.conditions, &now));
    decision.status.conditions = conditions.collect();
    decision.soon |= decision
        .status
        .conditions
        .iter()
        .any(|condition| condition.type_ == "Rebalancing" && condition.status == "True");
    decision
}

/// A time in milliseconds as Kubernetes' `Time`, in whole seconds.
pub fn time(ms: i64) -> Time {
    Time(jiff::Timestamp::from_second(ms / 1000).unwrap_or_default())
}

/// The conditions when the group could not be observed; the rest of the status stays.
fn blind(reason: &'static str, message: &str) -> Vec<(&'static str, ConditionValue)> {
    let unknown = || ConditionValue::unknown(reason, message);
    vec![
        ("Ready", ConditionValue::fails(reason, message)),
        ("Active", unknown()),
        ("LagWithinPolicy", unknown()),
        ("Rebalancing", unknown()),
        ("OffsetsValid", unknown()),
        ("ScalingActive", unknown()),
        ("ResetDone", unknown()),
    ]
}

fn describe(
    status: &mut ConsumerGroupStatus,
    resource: &ConsumerGroup,
    observed: &Observed,
    memory: &mut Memory,
    now_ms: i64,
) {
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    status.state = some(&observed.state);
    status.protocol = some(&observed.protocol);
    status.assignor = some(&observed.assignor);
    status.coordinator = observed.coordinator;
    status.members = Some(count(observed.members.len()));
    let idle = observed.members.iter().filter(|member| member.partitions.is_empty()).count();
    status.idle_members = Some(if observed.is_rebalancing() { 0 } else { count(idle) });
    status.lag = Some(lag::lag(observed, &resource.spec.topics, now_ms));

    let committed: BTreeMap<Partition, i64> = observed
        .partitions
        .iter()
        .filter_map(|(partition, log)| Some((partition.clone(), log.committed?)))
        .collect();
    if memory.committed.as_ref().is_some_and(|before| *before != committed) && !committed.is_empty()
    {
        memory.commit_ms = Some(now_ms);
    }
    memory.committed = Some(committed);
    if let Some(at) = memory.commit_ms {
        status.last_commit = Some(time(at));
    }

    if !observed.is_rebalancing() {
        let mut assigned = observed.members.clone();
        assigned.sort_by(|one, other| one.id.cmp(&other.id));
        if memory.assigned.as_ref().is_some_and(|before| *before != assigned) {
            memory.rebalances.push_back(now_ms);
        }
        memory.assigned = Some(assigned);
    }
    while memory.rebalances.len() > REBALANCES_MAX
        || memory.rebalances.front().is_some_and(|at| now_ms.saturating_sub(*at) > HOUR_MS)
    {
        memory.rebalances.pop_front();
    }
    let earlier = status.rebalances.take().and_then(|rebalances| rebalances.last);
    status.rebalances = Some(Rebalances {
        last_hour: count(memory.rebalances.len()),
        last: memory.rebalances.back().map(|at| time(*at)).or(earlier),
    });
}

/// The next step of the requested reset, and its condition.
fn reset_step(
    decision: &mut Decision,
    resource: &ConsumerGroup,
    before: &ConsumerGroupStatus,
    observed: &Observed,
    memory: &Memory,
    now: &Time,
) -> ConditionValue {
    let last = before.last_reset.as_ref();
    let was_carried_out = |id: &str| observed.marks.as_ref().is_some_and(|marks| marks.has(id));
    let Some(reset) = &resource.spec.reset else {
        if let Some(last) =
            last.filter(|last| last.phase == ResetPhase::Committing && was_carried_out(&last.id))
        {
            // The reset was withdrawn after it had been carried out.
            let phase = ResetPhase::Done;
            decision.status.last_reset = Some(ResetStatus { phase, ..last.clone() });
            decision.status.undo.truncate(reset::UNDO_MAX);
        }
        return ConditionValue::holds("NoReset", "no reset is asked for");
    };
    let done = || {
        ConditionValue::holds(
            "Done",
            format!("the reset {:?} is done: another one needs another id", reset.id),
        )
    };
    let ours = last.filter(|last| last.id == reset.id);
    if ours.is_some_and(|last| last.phase == ResetPhase::Done) {
        return done();
    }
    decision.soon = true;
    let phase = |phase, partitions: usize| {
        let unchanged = ours.filter(|last| last.phase == phase).and_then(|last| last.since.clone());
        Some(ResetStatus {
            id: reset.id.clone(),
            phase,
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            since: unchanged.or_else(|| Some(now.clone())),
        })
    };
    if was_carried_out(&reset.id) {
        let partitions =
            ours.map_or(0, |last| usize::try_from(last.partitions).unwrap_or_default());
        decision.status.last_reset = phase(ResetPhase::Done, partitions);
        decision.status.undo.truncate(reset::UNDO_MAX);
        return done();
    }
    let Some(marks) = &observed.marks else {
        decision.status.last_reset = phase(ResetPhase::Waiting, 0);
        let message = "the broker that coordinates the group is of a version that does not remember resets: upgrade the cluster's brokers (spec.image of the KafkaCluster)";
        return ConditionValue::fails("BrokerTooOld", message);
    };
    let (replaced, set) = match reset::plan(resource, before, reset, observed) {
        Plan::Wait(reason, message) => {
            decision.status.last_reset = phase(ResetPhase::Waiting, 0);
            return ConditionValue::fails(reason, message);
        }
        Plan::Set { before, after } => (before, after),
    };
    if !observed.members.is_empty() && reset.members == MembersPolicy::Wait {
        decision.status.last_reset = phase(ResetPhase::Waiting, set.len());
        let message = format!(
            "the group has {} members: stop its consumers, or set spec.reset.members to Evict",
            observed.members.len()
        );
        return ConditionValue::fails("WaitingForMembers", message);
    }
    decision.status.last_reset = phase(ResetPhase::Committing, set.len());
    decision.status.undo.retain(|saved| saved.id != reset.id);
    decision
        .status
        .undo
        .insert(0, SavedOffsets { id: reset.id.clone(), offsets: reset::pack(&replaced) });
    // One more than can be undone: if an undo has to start again, its source is still there.
    decision.status.undo.truncate(reset::UNDO_MAX + 1);
    if !observed.members.is_empty() {
        decision.actions.push(Action::Evict(observed.members.clone()));
    }
    let forgotten: Vec<Partition> = set
        .iter()
        .filter(|(partition, offset)| {
            offset.is_none() && replaced.get(*partition).is_some_and(Option::is_some)
        })
        .map(|(partition, _)| partition.clone())
        .collect();
    if !forgotten.is_empty() {
        decision.actions.push(Action::Forget(forgotten));
    }
    let offsets =
        set.into_iter().filter_map(|(partition, offset)| Some((partition, offset?))).collect();
    decision.actions.push(Action::Commit(offsets, marks.next(&reset.id)));
    let message = match &memory.failure {
        None => format!("the reset {:?} is being carried out", reset.id),
        Some(failure) => format!("the reset {:?} is tried again: {failure}", reset.id),
    };
    ConditionValue::fails("Committing", message)
}

fn scaling(
    decision: &mut Decision,
    resource: &ConsumerGroup,
    workload: &Workload,
    memory: &mut Memory,
    now_ms: i64,
) -> ConditionValue {
    let Some(scaling) = &resource.spec.scaling else {
        decision.status.scaling = None;
        return ConditionValue::fails("NotConfigured", "spec.scaling is not set");
    };
    let Some(lag) = &decision.status.lag else {
        return ConditionValue::unknown("LagUnknown", "the lag is not known");
    };
    let earlier = decision.status.scaling.take();
    let current = match workload {
        Workload::Replicas(current) => *current,
        Workload::None => 0,
        Workload::Trouble(reason, message) => {
            return ConditionValue::fails(reason, message.clone());
        }
    };
    let desired = if lag.partitions == 0 {
        current
    } else {
        scale::desired(scaling, current, lag, now_ms, &mut memory.scale)
    };
    let changed = desired != current;
    decision.status.scaling = Some(ScalingStatus {
        current: Some(current),
        desired,
        last_change: if changed {
            Some(time(now_ms))
        } else {
            earlier.and_then(|earlier| earlier.last_change)
        },
    });
    if lag.partitions == 0 {
        return ConditionValue::fails(
            "NoPartitions",
            "the group has no committed offsets yet, so it is not known how many members are of use: name its topics in spec.topics",
        );
    }
    if changed {
        decision.actions.push(Action::Scale(desired));
    }
    if desired < scaling.max.unwrap_or(i32::MAX) && desired == lag.partitions.max(scaling.min) {
        let message = format!(
            "{desired} replicas, as many as there are partitions: further members would be idle"
        );
        return ConditionValue::holds("AtPartitions", message);
    }
    ConditionValue::holds("Scaling", "replicas follow the lag")
}

#[expect(clippy::too_many_arguments, reason = "all that a verdict rests on")]
fn judge(
    status: &ConsumerGroupStatus,
    resource: &ConsumerGroup,
    before: &ConsumerGroupStatus,
    observed: &Observed,
    reset: ConditionValue,
    scaling: ConditionValue,
    memory: &mut Memory,
    now_ms: i64,
) -> Vec<(&'static str, ConditionValue)> {
    let members = observed.members.len();
    let active = if members > 0 {
        ConditionValue::holds("HasMembers", "the group has members")
    } else if observed.is_missing() {
        ConditionValue::fails("NoGroup", "nobody has joined the group and nothing is committed")
    } else {
        ConditionValue::fails("NoMembers", "the group has no members: nobody consumes")
    };
    let rebalancing = if observed.is_rebalancing() {
        ConditionValue::holds("Rebalancing", "partitions are being assigned anew")
    } else {
        ConditionValue::fails("Settled", "partitions are where they belong")
    };
    let policy = lag_policy(status, resource, before, memory, now_ms);
    let valid = match lag::outside(observed, &resource.spec.topics) {
        Some((reason, message)) => ConditionValue::fails(reason, message),
        None => ConditionValue::holds("InLog", "the committed offsets lie in their logs"),
    };
    let unknown_topic =
        resource.spec.topics.iter().find(|topic| observed.unknown_topics.contains(*topic));
    let ready = if observed.is_missing() && resource.spec.topics.is_empty() {
        let id = resource.group_id();
        ConditionValue::fails(
            "GroupNotFound",
            format!("there is no group {id:?} yet: consumers with group.id={id} make it"),
        )
    } else if let Some(topic) = unknown_topic {
        let message =
            format!("there is no topic {topic:?}: make it, or take it out of spec.topics");
        ConditionValue::fails("UnknownTopic", message)
    } else if reset.status == "False" {
        reset.clone()
    } else if valid.status == "False" {
        valid.clone()
    } else if policy.status == "False" {
        policy.clone()
    } else if resource.spec.scaling.is_some() && scaling.status == "False" {
        scaling.clone()
    } else if observed.is_missing() {
        ConditionValue::holds("NoGroup", "nobody has joined yet")
    } else {
        ConditionValue::holds(
            "Ready",
            if members > 0 { "the group consumes" } else { "the group has no members" },
        )
    };
    vec![
        ("Ready", ready),
        ("Active", active),
        ("LagWithinPolicy", policy),
        ("Rebalancing", rebalancing),
        ("OffsetsValid", valid),
        ("ScalingActive", scaling),
        ("ResetDone", reset),
    ]
}

fn lag_policy(
    status: &ConsumerGroupStatus,
    resource: &ConsumerGroup,
    before: &ConsumerGroupStatus,
    memory: &mut Memory,
    now_ms: i64,
) -> ConditionValue {
    let Some(policy) = &resource.spec.lag_policy else {
        memory.over_since = None;
        return ConditionValue::holds("NoPolicy", "spec.lagPolicy is not set");
    };
    let Some(lag) = &status.lag else {
        return ConditionValue::unknown("LagUnknown", "the lag is not known");
    };
    let too_old =
        policy.max_seconds.is_some_and(|max| lag.seconds.is_some_and(|seconds| seconds > max));
    let too_many = policy.max_messages.is_some_and(|max| lag.messages > max);
    if !too_old && !too_many {
        memory.over_since = None;
        return ConditionValue::holds("WithinPolicy", "the lag is within spec.lagPolicy");
    }
    let since = *memory.over_since.get_or_insert(now_ms);
    let worst = lag
        .worst
        .as_ref()
        .map_or_else(String::new, |worst| format!(", most in {}-{}", worst.topic, worst.partition));
    // The numbers are in `status.lag`: a message with them would be written constantly.
    let message = match (too_old, too_many) {
        (true, _) => format!(
            "records wait for more than maxSeconds={}{worst}",
            policy.max_seconds.unwrap_or_default()
        ),
        _ => format!(
            "more than maxMessages={} records wait{worst}",
            policy.max_messages.unwrap_or_default()
        ),
    };
    let broken = before
        .conditions
        .iter()
        .any(|condition| condition.type_ == "LagWithinPolicy" && condition.status == "False");
    if broken || now_ms.saturating_sub(since) >= policy.for_seconds.saturating_mul(1000) {
        ConditionValue::fails(
            "LagExceeded",
            format!("{message}: add members, or see why those there are slow"),
        )
    } else {
        ConditionValue::holds(
            "LagRising",
            format!("{message}, not for {} s yet", policy.for_seconds),
        )
    }
}
