//! Changes of partitions when brokers join, leave or fail, and the placement of missing partitions.
//!
//! Called by `brokers`, `topics` and `apply`. `election` decides which replica leads, `placement`
//! where replicas go.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_crds::PartitionSummary;
use weir_protocol::types::{BrokerId, TopicId};

use super::draft::Draft;
use super::election::{Election, ElectionContext, Loss, Wanted, derive};
use super::limits::PARTITIONS_MAX;
use super::placement::{NoPlace, place};
use super::state::{Change, Partition, State, Topic};

/// Counts partitions: all, with a leader, without one, under-replicated.
pub fn summary<'a>(partitions: impl Iterator<Item = &'a Partition>) -> PartitionSummary {
    partitions.fold(PartitionSummary::default(), |mut summary, partition| {
        summary.total += 1;
        summary.online += i64::from(partition.leader.is_some());
        summary.offline += i64::from(partition.leader.is_none());
        summary.under_replicated += i64::from(partition.isr.len() < partition.replicas.len());
        summary
    })
}

/// Removes brokers from every ISR and elects other leaders where they led. It handles all of them
/// at once, so none is elected in another's place.
pub(super) fn remove_from_isr(draft: &mut Draft<'_>, gone: &[BrokerId]) {
    let acceptable =
        |state: &State, replica: BrokerId| !gone.contains(&replica) && state.is_usable(replica);
    change_all(draft, acceptable, |_, partition| {
        let concerned = partition.isr.iter().any(|replica| gone.contains(replica));
        let isr = concerned.then(|| {
            partition.isr.iter().copied().filter(|replica| !gone.contains(replica)).collect()
        })?;
        Some(Wanted::with_isr(partition, isr))
    });
}

/// Removes a broker that has lost records from every ISR and ELR, and as the last known leader. Its
/// former role no longer makes it eligible.
pub(super) fn remove_lost_from_isr(draft: &mut Draft<'_>, id: BrokerId, loss: Loss) {
    let acceptable = |state: &State, replica: BrokerId| replica != id && state.is_usable(replica);
    change_all(draft, acceptable, |_, partition| {
        let counts = partition.isr.contains(&id)
            || partition.elr.contains(&id)
            || partition.last_known_leader == Some(id);
        let isr = counts
            .then(|| partition.isr.iter().copied().filter(|replica| *replica != id).collect())?;
        Some(Wanted { lost: Some((id, loss)), ..Wanted::with_isr(partition, isr) })
    });
}

/// Settles the partitions whose leader or ISR is invalid: a predecessor began a change and did not
/// complete it.
pub(super) fn complete_interrupted_changes(draft: &mut Draft<'_>) {
    change_all(draft, State::is_usable, |state, partition| {
        let usable = |id: &BrokerId| state.is_usable(*id);
        let sound = partition.isr.iter().all(usable)
            && partition.leader.is_some() != partition.isr.is_empty();
        let isr = (!sound).then(|| partition.isr.iter().copied().filter(usable).collect())?;
        Some(Wanted::with_isr(partition, isr))
    });
}

/// Elects a leader for each partition that has none but can have one now.
pub(super) fn elect_where_leaderless(draft: &mut Draft<'_>) {
    change_all(draft, State::is_usable, |_, partition| {
        partition.leader.is_none().then(|| Wanted::as_it_is(partition))
    });
}

/// Clears the ELR after a change of a topic's `min.insync.replicas`. A replica that was eligible
/// under the old minimum may lack records committed under the new one (KIP-966).
pub(super) fn forget_eligible(draft: &mut Draft<'_>, id: TopicId) {
    let Some(topic) = draft.state.topics.get(&id).cloned() else { return };
    for (index, partition) in (0..).zip(&topic.partitions) {
        if !partition.isr.is_empty() && !partition.elr.is_empty() {
            let mut next = partition.clone();
            next.elr.clear();
            next.partition_epoch.0 += 1;
            draft.push(Change::Partition(id, index, next));
        }
    }
}

/// Settles each partition for which `wanted` returns a value. It visits the topics in the order of
/// their ids, so equal states give equal changes.
fn change_all(
    draft: &mut Draft<'_>,
    acceptable: impl Fn(&State, BrokerId) -> bool,
    wanted: impl Fn(&State, &Partition) -> Option<Wanted>,
) {
    let state = draft.state.clone();
    for (id, topic) in &state.topics {
        let mut rules = None;
        for (index, partition) in (0..).zip(&topic.partitions) {
            let Some(wanted) = wanted(&state, partition) else { continue };
            let rules = rules.get_or_insert_with(|| TopicRules::of(&state, topic));
            let acceptable = |replica| acceptable(&state, replica);
            if let Some(next) = derive(partition, wanted, &rules.electorate(&acceptable)) {
                draft.push_settled(*id, index, next);
            }
        }
    }
}

/// The settings of a topic that its elections use.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopicRules {
    min_isr: usize,
    election: Election,
}

impl TopicRules {
    pub(super) fn of(state: &State, topic: &Topic) -> Self {
        let min_isr =
            state.topic_setting(topic, "min.insync.replicas").and_then(|text| text.parse().ok());
        let unclean = state.topic_setting(topic, "unclean.leader.election.enable");
        Self {
            min_isr: min_isr.unwrap_or(1),
            election: if unclean.is_some_and(|text| text == "true") {
                Election::Unclean
            } else {
                Election::Online
            },
        }
    }

    /// The same rules with another kind of election.
    pub(super) fn with(self, election: Election) -> Self {
        Self { election, ..self }
    }

    /// Whether the topic allows unclean leader election.
    pub(super) fn allows_unclean(&self) -> bool {
        self.election == Election::Unclean
    }

    /// The rules for one election among the acceptable brokers.
    pub(super) fn electorate<'a>(
        &self,
        acceptable: &'a dyn Fn(BrokerId) -> bool,
    ) -> ElectionContext<'a> {
        ElectionContext { acceptable, min_isr: self.min_isr, election: self.election }
    }
}

/// Creates the partitions that topics' resources ask for and that brokers can take. The others wait
/// for the next broker.
pub(super) fn place_what_is_missing(draft: &mut Draft<'_>) {
    let short: Vec<TopicId> = draft
        .state
        .topics
        .iter()
        .filter(|(_, topic)| topic.partitions.len() < topic.partitions_wanted())
        .map(|(id, _)| *id)
        .collect();
    for id in short {
        // A topic without a place stays as it is, and its status says so.
        let _ = grow(draft, id);
    }
}

/// Creates the partitions that one topic's resource asks for.
///
/// # Errors
/// When there are not enough brokers to take them, or no room in the topic's shard.
pub(super) fn grow(draft: &mut Draft<'_>, id: TopicId) -> Result<(), NoPlace> {
    let Some(topic) = draft.state.topics.get(&id) else { return Ok(()) };
    let (first, wanted) = (topic.partitions.len(), topic.partitions_wanted().min(PARTITIONS_MAX));
    let replicas = topic
        .resource
        .spec
        .replicas
        .and_then(|replicas| usize::try_from(replicas).ok())
        .unwrap_or(1);
    if wanted <= first {
        return Ok(());
    }
    let placed = place(&draft.state, id, first, wanted - first, replicas)?;
    add(draft, id, placed);
    Ok(())
}

/// Appends partitions with these replicas. Every replica that can serve starts in sync, because the
/// partitions are empty.
pub(super) fn add(draft: &mut Draft<'_>, id: TopicId, replicas: Vec<Vec<BrokerId>>) {
    let first = draft.state.topics.get(&id).map_or(0, |topic| topic.partitions.len());
    for (index, replicas) in (first..).zip(replicas) {
        let isr =
            replicas.iter().copied().filter(|replica| draft.state.is_usable(*replica)).collect();
        let Ok(index) = i32::try_from(index) else { return };
        draft.push(Change::Partition(id, index, Partition::new(replicas, isr)));
    }
}
