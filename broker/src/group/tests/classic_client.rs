//! A client of the classic protocol: it joins, assigns if it is the group leader, syncs and sends
//! heartbeats. Before a rebalance it revokes all partitions (eager), or only those it must
//! (cooperative).

use std::collections::BTreeSet;

use bytes::Bytes;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use weir_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use weir_protocol::messages::{
    JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse,
};

use super::world::embedded::{Partitions, assignment, subscription};
use super::world::{Asked, World, join};
use crate::group::embedded;

/// The pending request of a client.
#[derive(Debug)]
enum Waits {
    Nothing,
    Join(Asked<JoinGroupResponse>),
    Sync(Asked<SyncGroupResponse>),
}

/// The client.
#[derive(Debug)]
pub(super) struct Classic {
    pub(super) id: String,
    pub(super) instance: Option<&'static str>,
    pub(super) generation: i32,
    pub(super) owned: Partitions,
    /// The number of times that it lost its membership.
    pub(super) lost: usize,
    topics: Vec<String>,
    /// Whether it revokes only the partitions that it must.
    cooperative: bool,
    waits: Waits,
}

impl Classic {
    pub(super) fn new(topics: &[&str], cooperative: bool) -> Self {
        Self {
            id: String::new(),
            instance: None,
            generation: -1,
            owned: Partitions::new(),
            lost: 0,
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            cooperative,
            waits: Waits::Nothing,
        }
    }

    pub(super) fn protocol(&self) -> &'static str {
        if self.cooperative { "cooperative-sticky" } else { "range" }
    }

    pub(super) fn request(&self) -> JoinGroupRequest {
        JoinGroupRequest {
            group_instance_id: self.instance.map(str::to_owned),
            protocols: vec![JoinGroupRequestProtocol {
                name: self.protocol().to_owned(),
                metadata: subscription(&self.topics, &self.owned, self.generation, None),
            }],
            ..join(&self.id, &[])
        }
    }

    pub(super) fn join(&mut self, world: &mut World) {
        if !self.cooperative {
            self.owned.clear();
        }
        self.waits = Waits::Join(world.join(9, self.request()));
    }

    fn sync(&mut self, world: &mut World, assignments: Vec<SyncGroupRequestAssignment>) {
        let request = SyncGroupRequest {
            group_id: "g".to_owned(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            group_instance_id: self.instance.map(str::to_owned),
            protocol_type: Some("consumer".to_owned()),
            protocol_name: Some(self.protocol().to_owned()),
            assignments,
        };
        self.waits = Waits::Sync(world.sync(request));
    }

    /// Simulates a lost connection: a pending response is lost, and the client sends its request
    /// again.
    pub(super) fn reconnect(&mut self, world: &mut World) {
        if !self.is_settled() {
            self.turn(world);
        }
        if !self.is_settled() {
            self.join(world);
        }
    }

    /// Whether it has no pending request.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.waits, Waits::Nothing)
    }

    /// Does its next step.
    pub(super) fn turn(&mut self, world: &mut World) {
        match std::mem::replace(&mut self.waits, Waits::Nothing) {
            Waits::Nothing if self.generation < 0 => self.join(world),
            Waits::Nothing => {
                let error = world.heartbeat(&self.id, self.generation);
                self.hear(error, world);
            }
            Waits::Join(mut asked) => match asked.answer() {
                None => self.waits = Waits::Join(asked),
                Some(answer) => self.joined(answer, world),
            },
            Waits::Sync(mut asked) => match asked.answer() {
                None => self.waits = Waits::Sync(asked),
                Some(answer) => self.synced(&answer, world),
            },
        }
    }

    fn hear(&mut self, error: ErrorCode, world: &mut World) {
        match error {
            ErrorCode::None => {}
            ErrorCode::RebalanceInProgress => self.join(world),
            ErrorCode::IllegalGeneration | ErrorCode::UnknownMemberId => {
                self.lost += 1;
                self.owned.clear();
                self.generation = -1;
                if error == ErrorCode::UnknownMemberId {
                    self.id.clear();
                }
                self.join(world);
            }
            error => panic!("{}: {error:?}", self.id),
        }
    }

    fn joined(&mut self, answer: JoinGroupResponse, world: &mut World) {
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => {}
            ErrorCode::MemberIdRequired => {
                self.id = answer.member_id;
                return self.join(world);
            }
            error => return self.hear(error, world),
        }
        self.generation = answer.generation_id;
        self.id = answer.member_id.clone();
        let assignments =
            if answer.leader == self.id { self.lead(&answer, world) } else { Vec::new() };
        self.sync(world, assignments);
    }

    fn synced(&mut self, answer: &SyncGroupResponse, world: &mut World) {
        let error = ErrorCode::from_code(answer.error_code);
        if error != ErrorCode::None {
            return self.hear(error, world);
        }
        let assignment = embedded::assignment(&answer.assignment).expect("an assignment");
        let assigned: Partitions = assignment
            .assigned_partitions
            .into_iter()
            .flat_map(|topic| {
                topic.partitions.into_iter().map(move |index| (topic.topic.clone(), index))
            })
            .collect();
        let gives_up = !self.owned.is_subset(&assigned);
        self.owned = assigned;
        if self.cooperative && gives_up {
            // Other members get the revoked partitions after it has joined again.
            self.join(world);
        }
    }

    /// Assigns equal shares. A partition that another member still owns is not assigned yet.
    fn lead(&self, answer: &JoinGroupResponse, world: &World) -> Vec<SyncGroupRequestAssignment> {
        let said = |metadata: &Bytes| embedded::subscription(metadata).expect("a subscription");
        let owned: Vec<Partitions> = answer
            .members
            .iter()
            .map(|member| {
                let topics = said(&member.metadata).owned_partitions.into_iter();
                topics
                    .flat_map(|topic| {
                        topic.partitions.into_iter().map(move |index| (topic.topic.clone(), index))
                    })
                    .collect()
            })
            .collect();
        let wanted: Vec<Vec<String>> =
            answer.members.iter().map(|member| said(&member.metadata).topics).collect();
        let topics: BTreeSet<String> = wanted.iter().flatten().cloned().collect();
        let all = world.partitions(&topics.into_iter().collect::<Vec<_>>());
        let share = all.len().div_ceil(answer.members.len());
        let mut targets: Vec<Partitions> =
            owned.iter().map(|owned| owned.iter().take(share).cloned().collect()).collect();
        for partition in &all {
            if targets.iter().any(|target| target.contains(partition)) {
                continue;
            }
            let is_taken = self.cooperative && owned.iter().any(|owned| owned.contains(partition));
            let takers =
                targets.iter_mut().zip(&wanted).filter(|(_, wanted)| wanted.contains(&partition.0));
            if let Some((poorest, _)) =
                takers.min_by_key(|(target, _)| target.len()).filter(|_| !is_taken)
            {
                poorest.insert(partition.clone());
            }
        }
        let members = answer.members.iter().zip(targets);
        members
            .map(|(member, target)| SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment: assignment(&target, None),
            })
            .collect()
    }
}

/// Runs all clients until none has a pending request.
pub(super) fn settle(world: &mut World, members: &mut [&mut Classic]) {
    for _ in 0..20 {
        for member in members.iter_mut() {
            member.turn(world);
        }
        world.pass(100);
    }
    assert!(members.iter().all(|member| member.is_settled()), "{members:?}");
}
