//! ISR proposals of leaders (AlterPartition, KIP-497, KIP-903). The checks and their order are
//! those of Apache Kafka's `ReplicationControlManager.validateAlterPartitionData`. The order
//! decides which error a broker sees, and so what it does next.
//!
//! Only the leader knows which replicas have caught up, and only the controller may change the ISR.
//! Reads nothing but the state.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerEpoch, BrokerId, PartitionEpoch};

use super::draft::Draft;
use super::election::{Settled, Wanted, derive};
use super::event::{AlterPartitions, IsrChange, IsrChanged, Reply};
use super::partitions::TopicRules;
use super::state::{Partition, State, Topic};

pub(super) fn alter(draft: &mut Draft<'_>, request: AlterPartitions) -> Reply {
    let sender = draft.state.brokers.get(&request.broker);
    if sender.is_none_or(|broker| broker.epoch != request.epoch || broker.fenced) {
        let reason = format!(
            "broker {} is not registered with epoch {}, or is fenced: it leads nothing",
            request.broker, request.epoch
        );
        return Reply::Refused(ErrorCode::StaleBrokerEpoch, reason);
    }
    let results = request.changes.iter().map(|change| IsrChanged {
        topic: change.topic,
        partition: change.partition,
        result: alter_one(draft, request.broker, change),
    });
    Reply::AlteredPartitions(results.collect())
}

fn alter_one(
    draft: &mut Draft<'_>,
    leader: BrokerId,
    change: &IsrChange,
) -> Result<Partition, ErrorCode> {
    let next = {
        let state = &draft.state;
        let topic = state.topics.get(&change.topic).ok_or(ErrorCode::UnknownTopicId)?;
        let index =
            usize::try_from(change.partition).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
        let before = topic.partitions.get(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        check(state, leader, before, change)?;
        altered(state, topic, before, change)
    };
    let partition = next.partition.clone();
    draft.push_settled(change.topic, change.partition, next);
    // The change completed a reassignment that removes the leader. It has to learn of that from the
    // metadata first.
    if partition.leader == Some(leader) { Ok(partition) } else { Err(ErrorCode::NewLeaderElected) }
}

fn altered(state: &State, topic: &Topic, before: &Partition, change: &IsrChange) -> Settled {
    // A proposal of the current ISR in another order changes nothing.
    let in_order = before
        .replicas
        .iter()
        .copied()
        .filter(|replica| change.isr.iter().any(|(member, _)| member == replica));
    let isr: Vec<BrokerId> = in_order.collect();
    let same =
        isr.len() == before.isr.len() && isr.iter().all(|member| before.isr.contains(member));
    let wanted = Wanted {
        recovered: change.recovered,
        ..Wanted::with_isr(before, if same { before.isr.clone() } else { isr })
    };
    let acceptable = |replica| state.is_usable(replica);
    // A proposal of the current ISR gets a new partition epoch all the same. A leader uses it to
    // make sure that none of its earlier proposals can still take effect. Apache Kafka writes
    // nothing in this case (`PartitionChangeBuilder.changeRecordIsNoOp`), and its leaders do not
    // ask.
    derive(before, wanted, &TopicRules::of(state, topic).electorate(&acceptable)).unwrap_or_else(
        || Settled {
            partition: Partition {
                partition_epoch: PartitionEpoch(before.partition_epoch.0.saturating_add(1)),
                ..before.clone()
            },
            unclean: false,
        },
    )
}

fn check(
    state: &State,
    leader: BrokerId,
    before: &Partition,
    change: &IsrChange,
) -> Result<(), ErrorCode> {
    // A leader that knows a later epoch than this controller has another controller: this one is
    // deposed, or its state was restored.
    if change.leader_epoch > before.leader_epoch || change.partition_epoch > before.partition_epoch
    {
        return Err(ErrorCode::NotController);
    }
    if change.leader_epoch < before.leader_epoch {
        return Err(ErrorCode::FencedLeaderEpoch);
    }
    if before.leader != Some(leader) {
        return Err(ErrorCode::InvalidRequest);
    }
    if change.partition_epoch < before.partition_epoch {
        return Err(ErrorCode::InvalidUpdateVersion);
    }
    let members = || change.isr.iter().map(|(member, _)| *member);
    let twice =
        |(index, member): (usize, BrokerId)| members().take(index).any(|other| other == member);
    // The check of the length comes first: it bounds the search for duplicates.
    if change.isr.len() > before.replicas.len()
        || !members().all(|member| before.replicas.contains(&member))
        || members().enumerate().any(twice)
        || !members().any(|member| member == leader)
    {
        return Err(ErrorCode::InvalidRequest);
    }
    if before.recovering && !change.recovered && change.isr.len() > 1 {
        return Err(ErrorCode::InvalidRequest);
    }
    let eligible = |(member, epoch): &(BrokerId, BrokerEpoch)| {
        // The leader does not know the epoch of a member that has not fetched since its term began.
        // Such a member was in sync before.
        let known_by_the_isr = epoch.0 == -1 && before.isr.contains(member);
        let broker = state.brokers.get(member);
        broker.is_some_and(|broker| {
            broker.is_usable() && (broker.epoch == *epoch || known_by_the_isr)
        })
    };
    if !change.isr.iter().all(eligible) {
        return Err(ErrorCode::IneligibleReplica);
    }
    Ok(())
}
