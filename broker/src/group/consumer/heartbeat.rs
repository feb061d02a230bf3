//! PURE: ConsumerGroupHeartbeat (`GroupMetadataManager.consumerGroupHeartbeat` in Apache Kafka).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use weir_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::assignor::{NAMES, Partitions};
use super::patterns::compile;
use super::reconcile::Towards;
use super::{ConsumerGroup, LEFT_FOR_A_WHILE, Member};
use crate::coordinator::ReplyTo;
use crate::group::client::Client;
use crate::group::decision::DecisionContext;
use crate::group::settings::Settings;

/// The first version in which members choose their own ids.
const OWN_MEMBER_ID: i16 = 1;

/// The most bytes of a regular expression.
const REGEX_LENGTH_MAX: usize = 4096;

/// The heartbeat interval of members while their group changes, if it is shorter than the usual
/// one.
const HEARTBEAT_INTERVAL_OF_CHANGES_MS: i32 = 500;

/// A ConsumerGroupHeartbeat.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    pub(crate) client: Client,
    pub(crate) request: ConsumerGroupHeartbeatRequest,
    pub(crate) to: ReplyTo<ConsumerGroupHeartbeatResponse>,
}

/// The reason why a heartbeat is refused: an error code, and a message for the client's log.
#[derive(Debug)]
pub(in crate::group) struct Refusal {
    pub(in crate::group) error: ErrorCode,
    pub(in crate::group) message: String,
}

pub(in crate::group) fn refuse<T>(
    error: ErrorCode,
    message: impl Into<String>,
) -> Result<T, Refusal> {
    Err(Refusal { error, message: message.into() })
}

impl Refusal {
    pub(in crate::group) fn answer(self) -> ConsumerGroupHeartbeatResponse {
        ConsumerGroupHeartbeatResponse {
            error_code: self.error.code(),
            error_message: Some(self.message),
            ..Default::default()
        }
    }
}

impl Heartbeat {
    /// Validates the request (`throwIfConsumerGroupHeartbeatRequestIsInvalid`).
    pub(in crate::group) fn check(&self) -> Result<(), Refusal> {
        let request = &self.request;
        let invalid = |message: &str| refuse(ErrorCode::InvalidRequest, message);
        let is_empty =
            |text: &Option<String>| text.as_deref().is_some_and(|text| text.trim().is_empty());
        if is_empty(&request.instance_id) {
            return invalid("InstanceId can't be empty.");
        }
        if is_empty(&request.rack_id) {
            return invalid("RackId can't be empty.");
        }
        let needs_id = self.client.version >= OWN_MEMBER_ID
            || request.member_epoch > 0
            || request.member_epoch == -1;
        if needs_id && request.member_id.is_empty() {
            return invalid("MemberId can't be empty.");
        }
        match request.member_epoch {
            0 if request.rebalance_timeout_ms == -1 => {
                return invalid("RebalanceTimeoutMs must be provided in first request.");
            }
            0 if request.topic_partitions.as_ref().is_none_or(|owned| !owned.is_empty()) => {
                return invalid("TopicPartitions must be empty when (re-)joining.");
            }
            0 if request.subscribed_topic_names.is_none()
                && request.subscribed_topic_regex.is_none() =>
            {
                return invalid(
                    "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
                );
            }
            LEFT_FOR_A_WHILE if request.instance_id.is_none() => {
                return invalid("InstanceId can't be null.");
            }
            ..LEFT_FOR_A_WHILE => return invalid("MemberEpoch is invalid."),
            _ => {}
        }
        if let Some(assignor) = &request.server_assignor
            && !NAMES.contains(&assignor.as_str())
        {
            let message = format!(
                "ServerAssignor {assignor} is not supported. Supported assignors: {}.",
                NAMES.join(", ")
            );
            return refuse(ErrorCode::UnsupportedAssignor, message);
        }
        if let Some(pattern) = request.subscribed_topic_regex.as_deref()
            && (pattern.len() > REGEX_LENGTH_MAX || compile(pattern).is_none())
        {
            let message =
                format!("SubscribedTopicRegex `{pattern}` is not a valid regular expression.");
            return refuse(ErrorCode::InvalidRegularExpression, message);
        }
        Ok(())
    }

    fn owned(&self) -> Option<Partitions> {
        let owned = self.request.topic_partitions.as_ref()?;
        Some(
            owned
                .iter()
                .map(|topic| (topic.topic_id, topic.partitions.iter().copied().collect()))
                .collect(),
        )
    }
}

impl ConsumerGroup {
    pub(in crate::group) fn heartbeat(
        &mut self,
        heartbeat: &Heartbeat,
        turn: &mut DecisionContext<'_>,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let request = &heartbeat.request;
        if request.member_epoch < 0 {
            return self.leave(request, turn);
        }
        self.check_room(&request.member_id, turn.settings)?;
        let owned = heartbeat.owned();
        let id = match request.member_id.as_str() {
            "" => turn.ids.uuid().to_string().into(),
            id => Arc::<str>::from(id),
        };
        let is_new = self.admit(&id, request, owned.as_ref(), turn)?;
        let before = self.members.get(&id).cloned().unwrap_or_else(|| Member::new(Arc::clone(&id)));
        let member = updated(&before, heartbeat);
        // A member without a changed subscription triggers nothing. A changed assignor takes effect
        // with the next assignment (`hasMemberSubscriptionChanged`).
        let wants_other = member.topics != before.topics || member.regex != before.regex;
        if is_new || !member.says_the_same(&before) {
            self.set_member(member, turn.outcome);
        }
        // The group epoch rises when subscriptions change, and when subscribed topics do.
        let topics_changed = self.look_at_topics(wants_other, turn);
        if wants_other || topics_changed {
            self.bump(turn);
        }
        self.assign_anew(turn);
        self.reconcile(&id, owned.as_ref(), wants_other, turn);
        self.heard_of(&id, turn);
        self.expect_revocation(&id, turn);
        Ok(self.told(&id, request, &before, turn))
    }

    /// Checks that the group has room for a member of this id (`throwIfConsumerGroupIsFull`).
    pub(in crate::group) fn check_room(
        &self,
        id: &str,
        settings: &Settings,
    ) -> Result<(), Refusal> {
        if !self.members.contains_key(id) && self.members.len() >= settings.consumer_group_size_max
        {
            let message = "The consumer group has reached its maximum capacity of members.";
            return refuse(ErrorCode::GroupMaxSizeReached, message);
        }
        Ok(())
    }

    fn told(
        &self,
        id: &Arc<str>,
        request: &ConsumerGroupHeartbeatRequest,
        before: &Member,
        turn: &DecisionContext<'_>,
    ) -> ConsumerGroupHeartbeatResponse {
        let current = self.members.get(id).map(|member| member.current.clone()).unwrap_or_default();
        let subscribes =
            request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some();
        let is_full =
            request.rebalance_timeout_ms != -1 && subscribes && request.topic_partitions.is_some();
        let is_told =
            request.member_epoch == 0 || is_full || current.assigned != before.current.assigned;
        ConsumerGroupHeartbeatResponse {
            member_id: Some(id.to_string()),
            member_epoch: current.epoch,
            heartbeat_interval_ms: self.heartbeat_interval_ms(turn),
            assignment: is_told.then(|| Assignment {
                topic_partitions: current
                    .assigned
                    .iter()
                    .map(|(topic_id, partitions)| TopicPartitions {
                        topic_id: *topic_id,
                        partitions: partitions.iter().copied().collect(),
                    })
                    .collect(),
            }),
            ..Default::default()
        }
    }

    /// The heartbeat interval for a member. After a change of the group it is short, for one usual
    /// interval at most: the member that gives up a partition and the one that gets it learn so
    /// only by their heartbeats. In Apache Kafka a hundred members that join at once wait two whole
    /// intervals.
    fn heartbeat_interval_ms(&self, turn: &DecisionContext<'_>) -> i32 {
        let usual = turn.settings.of_group(turn.image, &self.id).heartbeat_interval_ms;
        let changing = self
            .bumped_at
            .is_some_and(|at| turn.now.ms.saturating_sub(at) < u64::from(usual.unsigned_abs()));
        if changing { usual.min(HEARTBEAT_INTERVAL_OF_CHANGES_MS) } else { usual }
    }

    /// Raises the group epoch.
    pub(super) fn bump(&mut self, turn: &mut DecisionContext<'_>) {
        self.bumped_at = Some(turn.now.ms);
        let hash = self.hash_of_topics(turn.image);
        self.set_epoch(self.epoch.saturating_add(1), hash, turn.outcome);
    }

    /// Moves a member towards its target assignment. `subscribes_anew` says whether it has just
    /// changed its subscription.
    pub(super) fn reconcile(
        &mut self,
        id: &Arc<str>,
        owned: Option<&Partitions>,
        subscribes_anew: bool,
        turn: &mut DecisionContext<'_>,
    ) {
        let Some(member) = self.members.get(id) else { return };
        if !subscribes_anew && member.current.has_reached(self.target_epoch) {
            return;
        }
        let (owners, target, subscribed) =
            (&self.owners, self.target_of(id), self.subscribed_ids(member, turn.image));
        let next = member.current.next(&Towards {
            epoch: self.target_epoch,
            target: &target,
            subscribed: &subscribed,
            subscribes_anew,
            owned,
            is_taken: &|topic, partition| {
                owners.get(&(topic, partition)).is_some_and(|owner| owner != id)
            },
        });
        if next != member.current {
            self.set_current(id, next, turn.outcome);
            // The member has other partitions to revoke now, so its deadline starts anew.
            if let Some(member) = self.members.get_mut(id) {
                member.due.revocation = None;
            }
        }
    }
}

/// The member with the fields of the request; absent fields keep their values.
fn updated(before: &Member, heartbeat: &Heartbeat) -> Member {
    let Heartbeat { client, request, .. } = heartbeat;
    let mut member = before.clone();
    let text = |text: &String| -> Arc<str> { text.as_str().into() };
    member.client_id = client.id.as_str().into();
    member.client_host = client.host.as_str().into();
    if let Some(instance) = &request.instance_id {
        member.instance = Some(text(instance));
    }
    if let Some(rack) = &request.rack_id {
        member.rack = Some(text(rack));
    }
    if request.rebalance_timeout_ms != -1 {
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(topics) = &request.subscribed_topic_names {
        member.topics = topics.iter().map(text).collect();
    }
    if let Some(regex) = &request.subscribed_topic_regex {
        member.regex = Some(text(regex)).filter(|regex| !regex.is_empty());
    }
    if let Some(assignor) = &request.server_assignor {
        member.assignor = Some(text(assignor));
    }
    if member.classic.take().is_some() {
        member.due.clear();
    }
    member
}
