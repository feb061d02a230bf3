//! A producer: it sends each record until it knows the result. An idempotent one has several
//! records in flight.

use std::collections::VecDeque;

use weir_protocol::error::ErrorCode;
use weir_protocol::types::{LeaderEpoch, TopicId};

use crate::checks::{Checks, Rule};
use crate::message::{Body, Produce};

/// The timeout of a request.
pub(super) const ANSWER_MS_MAX: u64 = 700;

/// A producer.
#[derive(Debug)]
pub(super) struct Producer {
    id: u64,
    /// It has sequence numbers and uses `acks=all`; otherwise `acks=1`.
    is_idempotent: bool,
    in_flight_max: usize,
    /// The sequence of the next record.
    sequence: i64,
    /// The newest leader epoch that it knows.
    epoch: LeaderEpoch,
    /// The records without a known result, in the order of their sequences.
    unknown: VecDeque<Sent>,
}

/// A record that is being sent, possibly several times.
#[derive(Debug)]
struct Sent {
    request: u64,
    sequence: i64,
    value: u64,
    /// The time of the last send; `None` if it must be sent again.
    since: Option<u64>,
    /// All records before it were acknowledged when it was last sent.
    was_first: bool,
}

impl Producer {
    /// An idempotent producer with `acks=all` and at most this many records in flight.
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

    /// A producer without sequence numbers, with `acks=1`.
    pub(super) fn careless(id: u64) -> Self {
        Self { is_idempotent: false, ..Self::idempotent(id, 1) }
    }

    /// The requests that it sends: unanswered records again, in order; or, once none is in flight,
    /// as many new ones as the limit allows.
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

    /// Handles an answer, possibly to an earlier send. Returns whether it acknowledged a record.
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
        // A client that knows a later leader ignores an earlier one (KIP-320).
        if from < self.epoch {
            return false;
        }
        self.epoch = from;
        match result {
            // The leader knows that it has the record, but not the offset: it was acknowledged
            // before.
            Ok(_) | Err(ErrorCode::DuplicateSequenceNumber) => {
                self.unknown.remove(place);
                return true;
            }
            // For a record sent behind others, this only means that those did not arrive first
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

    /// Stops sending records to a deleted topic.
    pub(super) fn begin_with_another_topic(&mut self) {
        self.unknown.clear();
        self.epoch = LeaderEpoch(-1);
        self.begin_anew();
    }

    /// The leader has lost its records, so it starts again as a Kafka producer does: with a new id,
    /// and with the records whose result it does not know.
    fn begin_anew(&mut self) {
        self.id += 1;
        self.sequence = 0;
        for sent in &mut self.unknown {
            (sent.sequence, sent.since) = (self.sequence, None);
            self.sequence += 1;
        }
    }
}
