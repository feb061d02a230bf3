//! A client of the classic protocol as consumers are: it joins, leads when it is told to, syncs,
//! heartbeats, and gives up before others get, all at once or only what it must.

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

/// What a client waits for.
#[derive(Debug)]
enum Waits {
    Nothing,
    Join(Asked<JoinGroupResponse>),
    Sync(Asked<SyncGroupResponse>),
}

/// A client.
#[derive(Debug)]
pub(super) struct Classic {
    pub(super) id: String,
    pub(super) instance: Option<&'static str>,
    pub(super) generation: i32,
    pub(super) owned: Partitions,
    /// How often it was told that it is no member any more.
    pub(super) lost: usize,
    topics: Vec<String>,
    /// It gives up only what it must.
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

    /// Its connection is gone, and with it the answer that it waits for, if that is not there yet:
    /// it asks again.
    pub(super) fn reconnect(&mut self, world: &mut World) {
        if !self.is_settled() {
            self.turn(world);
        }
        if !self.is_settled() {
            self.join(world);
        }
    }

    /// Whether it waits for nothing.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.waits, Waits::Nothing)
    }

    /// Does what is next.
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
            // What it has given up is others' once it has said so.
            self.join(world);
        }
    }

    /// Everybody gets as much as everybody else; what another one still has, nobody gets yet.
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

/// Turns until all of these are settled.
pub(super) fn settle(world: &mut World, members: &mut [&mut Classic]) {
    for _ in 0..20 {
        for member in members.iter_mut() {
            member.turn(world);
        }
        world.pass(100);
    }
    assert!(members.iter().all(|member| member.is_settled()), "{members:?}");
}
