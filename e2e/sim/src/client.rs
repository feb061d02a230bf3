//! Clients: producers that send again until they know, and consumers that read what is committed.

use weir_protocol::error::ErrorCode;
use weir_protocol::types::LeaderEpoch;

use crate::checks::{Checks, Rule};
use crate::message::{Body, Node, Produce, Read, ReadAnswer};
use crate::rng::Rng;

/// How long a client waits for an answer.
const ANSWER_MS_MAX: u64 = 700;

/// Requests that a producer has to see through after the faults are over.
const LAST_REQUESTS: u32 = 3;

/// A client of one partition.
#[derive(Debug)]
pub struct Client {
    partition: usize,
    kind: Kind,
    requests: u64,
    /// The request that is not answered, and since when.
    pending: Option<(u64, u64)>,
    /// How often its partition had lost records by right when the request was sent.
    resets: u64,
    left: u32,
}

#[derive(Debug)]
enum Kind {
    Producer {
        producer: u64,
        acks_all: bool,
        sequence: i64,
        /// The newest leader epoch that it has heard of.
        epoch: LeaderEpoch,
        /// What is being sent, again and again.
        value: Option<u64>,
    },
    Consumer {
        offset: i64,
        epoch: LeaderEpoch,
        latest: i64,
    },
}

impl Client {
    /// The clients of a partition: idempotent producers, one that does not care, and a consumer.
    pub fn of(partition: usize, rng: &mut Rng) -> Vec<Self> {
        let producer = |number: u64, acks_all| Kind::Producer {
            producer: partition as u64 * 1_000_000 + number * 1_000,
            acks_all,
            sequence: 0,
            epoch: LeaderEpoch(-1),
            value: None,
        };
        let consumer = Kind::Consumer {
            offset: 0,
            epoch: LeaderEpoch(0),
            latest: 0,
        };
        let mut kinds = vec![producer(1, true), producer(2, true), consumer];
        if rng.chance(500) {
            kinds.push(producer(3, false));
        }
        let client = |kind| Self {
            partition,
            kind,
            requests: 0,
            pending: None,
            resets: 0,
            left: LAST_REQUESTS,
        };
        kinds.into_iter().map(client).collect()
    }

    /// Its partition.
    pub fn partition(&self) -> usize {
        self.partition
    }

    /// Whether it has seen through what it had to after the faults.
    pub fn is_done(&self) -> bool {
        match self.kind {
            Kind::Producer { acks_all: true, .. } => self.left == 0,
            Kind::Producer { value, .. } => self.left == 0 && value.is_none(),
            Kind::Consumer { .. } => true,
        }
    }

    /// What it sends next, if anything.
    pub fn act(&mut self, now: u64, leader: usize, checks: &Checks, faulty: bool) -> Option<(Node, Body)> {
        if self.pending.is_some_and(|(_, since)| now < since + ANSWER_MS_MAX) {
            return None;
        }
        let resets = checks.ledger(self.partition).resets;
        let lost = resets != self.resets;
        self.resets = resets;
        if !faulty && now > crate::plan::FAULTS_BEGIN_MS {
            if self.left == 0 {
                return None;
            }
            self.left -= u32::from(matches!(self.kind, Kind::Consumer { .. }));
        }
        self.requests += 1;
        let (request, partition) = (self.requests, self.partition);
        self.pending = Some((request, now));
        let body = match &mut self.kind {
            Kind::Producer {
                producer,
                acks_all,
                sequence,
                value,
                ..
            } => {
                let value = *value.get_or_insert(*producer * 1_000_000 + request);
                Body::Produce(Produce {
                    request,
                    partition,
                    producer: *producer,
                    sequence: if *acks_all { *sequence } else { -1 },
                    value,
                    acks_all: *acks_all,
                })
            }
            Kind::Consumer { offset, epoch, latest } => {
                if lost {
                    *offset = (*offset).min(checks.ledger(partition).records().len() as i64);
                    *latest = 0;
                }
                Body::Read(Read {
                    request,
                    partition,
                    offset: *offset,
                    epoch: *epoch,
                })
            }
        };
        Some((Node::Broker(leader), body))
    }

    /// An answer comes.
    pub fn receive(&mut self, body: Body, _now: u64, checks: &mut Checks) {
        let request = match &body {
            Body::Produced(request, ..) => *request,
            Body::ReadAnswer(answer) => answer.request,
            _ => return,
        };
        if self.pending.take_if(|(pending, _)| *pending == request).is_none() {
            return;
        }
        match body {
            Body::Produced(_, epoch, result) => self.produced(epoch, result, checks),
            Body::ReadAnswer(answer) => self.read(answer, checks),
            _ => {}
        }
    }

    fn produced(&mut self, from: LeaderEpoch, result: Result<i64, ErrorCode>, checks: &mut Checks) {
        let Kind::Producer {
            producer,
            sequence,
            value,
            epoch,
            ..
        } = &mut self.kind
        else {
            return;
        };
        // A client that has heard of a later leader does not listen to an earlier one (KIP-320).
        if from < *epoch {
            return;
        }
        *epoch = from;
        match result {
            Ok(_) => {
                *sequence += 1;
                *value = None;
                self.left = self.left.saturating_sub(u32::from(checks.verdict.now > checks.faults_end));
            }
            Err(ErrorCode::OutOfOrderSequenceNumber) => {
                if !checks.ledger(self.partition).has_lost() {
                    let (producer, sequence) = (*producer, *sequence);
                    checks.verdict.broken(Rule::InOrderAndOnce, || {
                        format!("producer {producer} is told that {sequence} is out of order, and nothing was lost")
                    });
                }
                // What it sent is lost: it begins anew, as a producer does after a fatal error.
                *producer += 1;
                *sequence = 0;
            }
            Err(_) => {}
        }
    }

    fn read(&mut self, answer: ReadAnswer, checks: &mut Checks) {
        let partition = self.partition;
        if checks.ledger(partition).resets != self.resets {
            return;
        }
        let Kind::Consumer { offset, epoch, latest } = &mut self.kind else {
            return;
        };
        let stale = checks.ledger(partition).is_excused(answer.epoch.0);
        if answer.error == ErrorCode::OffsetOutOfRange && !stale {
            let offset = *offset;
            checks.verdict.broken(Rule::SeenIsCommitted, || {
                format!("partition {partition}: {offset} is beyond the log of the leader of {}", answer.epoch)
            });
        }
        if answer.error.is_error() || stale {
            return;
        }
        *epoch = (*epoch).max(answer.epoch);
        for record in &answer.records {
            checks.read(partition, answer.epoch.0, *offset, record);
            *offset += 1;
        }
        if let Ok(now) = answer.latest {
            if now < *latest {
                let before = *latest;
                checks.verdict.broken(Rule::LatestNeverGoesBack, || {
                    format!("partition {partition}: from {before} to {now} in epoch {}", answer.epoch)
                });
            }
            *latest = now;
        }
    }
}
