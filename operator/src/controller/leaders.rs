//! ElectLeaders (KIP-183, KIP-460), and the periodic balance of preferred leaders
//! (`ReplicationControlManager.electLeaders`, `maybeBalancePartitionLeaders` in Apache Kafka).
//!
//! `election` decides which replica can lead. The shell decides when to balance, by
//! [`balance_interval_ms`].
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use weir_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use weir_protocol::types::{BrokerId, TopicId};

use super::draft::Draft;
use super::election::{Election, Settled, Wanted, derive};
use super::error::{ApiError, too_large, wire};
use super::event::Reply;
use super::partitions::TopicRules;
use super::state::{Partition, State};
use super::topic_name::shown;

/// The most leaders that one round of balancing moves; the next round follows immediately
/// (`maxElectionsPerImbalance` in Apache Kafka).
const ELECTIONS_PER_ROUND_MAX: usize = 1_000;

pub(super) fn elect_leaders(
    draft: &mut Draft<'_>,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let election = match request.election_type {
        0 => Ok(Election::Preferred),
        1 => Ok(Election::Unclean),
        other => {
            Err(ApiError::new(ErrorCode::InvalidRequest, format!("Unknown election type {other}")))
        }
    };
    let (error_code, _) = wire(&election.as_ref().map(|_| ()).map_err(Clone::clone));
    let elect = |draft: &mut Draft<'_>, topic: &str, index: i32| {
        // Once the request exceeds its limit none of its changes count, so the rest is skipped.
        let result = match draft.is_spent() {
            true => Err(too_large()),
            false => election.clone().and_then(|election| elect_one(draft, topic, index, election)),
        };
        let (error_code, error_message) = wire(&result);
        PartitionResult { partition_id: index, error_code, error_message }
    };
    let asked: Vec<(String, Vec<i32>)> = match request.topic_partitions {
        Some(topics) => topics.into_iter().map(|topic| (topic.topic, topic.partitions)).collect(),
        None if election.is_err() => Vec::new(),
        None => {
            let all = |state: &State| -> Vec<(String, Vec<i32>)> {
                let topics = state.topics_by_name();
                topics
                    .map(|topic| {
                        (
                            topic.name().to_owned(),
                            (0..).zip(&topic.partitions).map(|(index, _)| index).collect(),
                        )
                    })
                    .collect()
            };
            let results = all(&draft.state).into_iter().map(|(topic, partitions)| {
                let results = partitions.into_iter().map(|index| elect(draft, &topic, index));
                // A request for all partitions gets no result for those that needed no election.
                let told = results
                    .filter(|result| result.error_code != ErrorCode::ElectionNotNeeded as i16);
                ReplicaElectionResult { partition_result: told.collect(), topic }
            });
            return ElectLeadersResponse {
                replica_election_results: results.collect(),
                ..ElectLeadersResponse::default()
            };
        }
    };
    let results = asked.into_iter().map(|(topic, partitions)| ReplicaElectionResult {
        partition_result: partitions.into_iter().map(|index| elect(draft, &topic, index)).collect(),
        topic,
    });
    ElectLeadersResponse {
        error_code,
        replica_election_results: results.collect(),
        ..ElectLeadersResponse::default()
    }
}

fn elect_one(
    draft: &mut Draft<'_>,
    topic: &str,
    index: i32,
    election: Election,
) -> Result<(), ApiError> {
    let unknown = |message: String| ApiError::new(ErrorCode::UnknownTopicOrPartition, message);
    let error = |code: ErrorCode| ApiError::new(code, code.message());
    let found = draft
        .state
        .topic_by_name(topic)
        .ok_or_else(|| unknown(format!("No such topic as {}", shown(topic))))?;
    let partition = usize::try_from(index).ok().and_then(|index| found.partitions.get(index));
    let partition = partition
        .ok_or_else(|| unknown(format!("No such partition as {}-{index}", shown(topic))))?;
    let needed = match election {
        Election::Preferred => {
            partition.leader.is_none() || partition.leader != partition.replicas.first().copied()
        }
        Election::Online | Election::Unclean => partition.leader.is_none(),
    };
    if !needed {
        return Err(error(ErrorCode::ElectionNotNeeded));
    }
    let id = found.id;
    match elected(&draft.state, id, partition, election) {
        Some(next) => {
            draft.push_settled(id, index, next);
            Ok(())
        }
        None if election == Election::Preferred => {
            Err(error(ErrorCode::PreferredLeaderNotAvailable))
        }
        None => Err(error(ErrorCode::EligibleLeadersNotAvailable)),
    }
}

/// The partition under a new leader, if one is available.
fn elected(
    state: &State,
    topic: TopicId,
    partition: &Partition,
    election: Election,
) -> Option<Settled> {
    let rules = TopicRules::of(state, state.topics.get(&topic)?).with(election);
    let acceptable = |id| state.is_usable(id);
    let next = derive(partition, Wanted::as_it_is(partition), &rules.electorate(&acceptable))?;
    let leader = next.partition.leader;
    (leader.is_some() && leader != partition.leader).then_some(next)
}

/// The interval of balancing in milliseconds; `None`: never.
pub fn balance_interval_ms(state: &State) -> Option<u64> {
    let wanted = state.cluster.setting("auto.leader.rebalance.enable") == Some("true");
    let seconds =
        state.cluster.setting("leader.imbalance.check.interval.seconds")?.parse::<u64>().ok()?;
    wanted.then_some(seconds.saturating_mul(1000))
}

/// Makes the preferred replica the leader of each partition where it is in sync. Restarts of
/// brokers move leaders away from it.
pub(super) fn balance(draft: &mut Draft<'_>) -> Reply {
    let tolerated = tolerated_percentage(&draft.state);
    let mut led: BTreeMap<BrokerId, (usize, usize)> = BTreeMap::new();
    let mut moves = Vec::new();
    for (id, topic) in &draft.state.topics {
        for (index, partition) in (0..).zip(&topic.partitions) {
            let Some(preferred) = partition.replicas.first().copied() else {
                continue;
            };
            let (all, elsewhere) = led.entry(preferred).or_default();
            *all += 1;
            if partition.leader == Some(preferred) {
                continue;
            }
            *elsewhere += 1;
            if partition.leader.is_some()
                && partition.isr.contains(&preferred)
                && draft.state.is_usable(preferred)
            {
                moves.push((*id, index, preferred));
            }
        }
    }
    moves.retain(|(_, _, preferred)| {
        led.get(preferred).is_some_and(|(all, elsewhere)| elsewhere * 100 > all * tolerated)
    });
    let more = moves.len() > ELECTIONS_PER_ROUND_MAX;
    for (id, index, _) in moves.into_iter().take(ELECTIONS_PER_ROUND_MAX) {
        let partition = draft
            .state
            .topics
            .get(&id)
            .and_then(|topic| topic.partitions.get(usize::try_from(index).ok()?));
        if let Some(next) = partition
            .and_then(|partition| elected(&draft.state, id, partition, Election::Preferred))
        {
            draft.push_settled(id, index, next);
        }
    }
    Reply::Balanced { more }
}

/// The percentage of a broker's partitions that other brokers may lead. If unset it is 0, as in
/// Apache Kafka with KRaft, which ignores the setting. If set, it means what Kafka's documentation
/// says.
fn tolerated_percentage(state: &State) -> usize {
    let set = state.cluster.configs().get("leader.imbalance.per.broker.percentage");
    set.and_then(|text| text.parse().ok()).unwrap_or(0)
}
