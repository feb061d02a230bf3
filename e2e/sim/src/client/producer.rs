//! A producer: it sends each record until it knows what became of it, and an idempotent one has
//! several under way.

use std::collections::VecDeque;

use weir_protocol::error::ErrorCode;
use weir_protocol::types::{LeaderEpoch, TopicId};

use crate::checks::{Checks, Rule};
use crate::message::{Body, Produce};

/// How long a client waits for an answer.
pub(super) const ANSWER_MS_MAX: u64 = 700;

/// A producer.
#[derive(Debug)]
pub(super) struct Producer {
    id: u64,
    /// It has a sequence, and asks for all replicas; else for the leader alone.
    is_idempotent: bool,
    in_flight_max: usize,
    /// The sequence of the next record.
    sequence: i64,
    /// The newest leader epoch that it has heard of.
    epoch: LeaderEpoch,
    /// What it does not know of, in the order of the sequences.
    unknown: VecDeque<Sent>,
}

/// A record that is being sent, again and again.
#[derive(Debug)]
struct Sent {
    request: u64,
    sequence: i64,
    value: u64,
    /// When it was sent last; `None`: it is to be sent again.
    since: Option<u64>,
    /// All before it were acknowledged when it was sent last.
    was_first: bool,
}

impl Producer {
    /// An idempotent one, that asks for all replicas and has at most so many records under way.
    pub(super) fn idempotent(id: u64, in_flight_max: usize) -> Self {
        Self {
            id,
            is_idempotent: true,
            in_flight_max,
            sequence: 0,
            epoch: LeaderEpoch(-1),
            unknown: VecDeque::new(),
        }
    }

    /// One that has no sequence and asks for the leader alone.
    pub(super) fn careless(id: u64) -> Self {
        Self { is_idempotent: false, ..Self::idempotent(id, 1) }
    }

    /// What it sends: again what was not answered, in order, or as much that is new as it may have
    /// under way, once nothing is.
    pub(super) fn act(
        &mut self,
        (partition, topic): (usize, TopicId),
        requests: &mut u64,
        now: u64,
    ) -> Vec<Body> {
        let is_due = |sent: &Sent| sent.since.is_none_or(|since| now >= since + ANSWER_MS_MAX);
        if self.unknown.is_empty() {
            for _ in 0..self.in_flight_max {
                let sequence = self.sequence;
                self.sequence += 1;
                self.unknown.push_back(Sent {
                    request: 0,
                    sequence,
                    value: self.id * 1_000_000 + *requests + 1 + self.unknown.len() as u64,
                    since: None,
                    was_first: false,
                });
            }
        }
        let mut bodies = Vec::new();
        for (place, sent) in self.unknown.iter_mut().enumerate().filter(|(_, sent)| is_due(sent)) {
            *requests += 1;
            (sent.request, sent.since, sent.was_first) = (*requests, Some(now), place == 0);
            bodies.push(Body::Produce(Produce {
                topic,
                request: sent.request,
                partition,
                producer: self.id,
                sequence: if self.is_idempotent { sent.sequence } else { -1 },
                value: sent.value,
                acks_all: self.is_idempotent,
            }));
        }
        bodies
    }

    /// An answer comes, perhaps to what was sent before. Returns whether a record was acknowledged.
    pub(super) fn answered(
        &mut self,
        partition: usize,
        request: u64,
        from: LeaderEpoch,
        result: Result<i64, ErrorCode>,
        checks: &mut Checks,
    ) -> bool {
        let Some(place) =
            self.unknown.iter().position(|sent| sent.request == request && sent.since.is_some())
        else {
            return false;
        };
        self.unknown[place].since = None;
        // A client that has heard of a later leader does not listen to an earlier one (KIP-320).
        if from < self.epoch {
            return false;
        }
        self.epoch = from;
        match result {
            // What is known to be there, though not where any more, was acknowledged before.
            Ok(_) | Err(ErrorCode::DuplicateSequenceNumber) => {
                self.unknown.remove(place);
                return true;
            }
            // Of one that was sent behind others it says only that these did not come first
            // (`TransactionManager.canRetry`).
            Err(ErrorCode::OutOfOrderSequenceNumber) if self.unknown[place].was_first => {
                let sequence = self.unknown[place].sequence;
                if !checks.ledger(partition).may_forget_producers() {
                    let id = self.id;
                    checks.verdict.broken(Rule::InOrderAndOnce, || {
                        format!("producer {id} is told that {sequence} is out of order, and nothing was lost")
                    });
                }
                self.begin_anew();
            }
            Err(_) => {}
        }
        false
    }

    /// What it sent to a topic that is gone is sent to nobody any more.
    pub(super) fn begin_with_another_topic(&mut self) {
        self.unknown.clear();
        self.epoch = LeaderEpoch(-1);
        self.begin_anew();
    }

    /// What it sent is lost: it begins anew, as a producer does after that: under another id, with
    /// what it does not know of.
    fn begin_anew(&mut self) {
        self.id += 1;
        self.sequence = 0;
        for sent in &mut self.unknown {
            (sent.sequence, sent.since) = (self.sequence, None);
            self.sequence += 1;
        }
    }
}
