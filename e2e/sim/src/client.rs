//! Clients: producers that retry until they know the result, and consumers of committed records.

mod producer;

use weir_protocol::error::ErrorCode;
use weir_protocol::types::{LeaderEpoch, TopicId};

use self::producer::{ANSWER_MS_MAX, Producer};
use crate::checks::{Checks, Rule};
use crate::message::{Body, Read, ReadAnswer};
use crate::rng::Rng;

/// Requests that a producer must complete after the faults.
const LAST_REQUESTS: u32 = 3;

/// A client of one partition.
#[derive(Debug)]
pub struct Client {
    partition: usize,
    /// The topic that it knows under the name.
    topic: Option<TopicId>,
    kind: Kind,
    requests: u64,
    /// The partition's allowed losses when the request was sent.
    resets: u64,
    left: u32,
}

#[derive(Debug)]
enum Kind {
    Producer(Producer),
    Consumer {
        offset: i64,
        epoch: LeaderEpoch,
        /// The epoch of the last record that it read, if that is right before the offset.
        last_epoch: Option<LeaderEpoch>,
        latest: i64,
        /// The unanswered request, and the time when it was sent.
        pending: Option<(u64, u64)>,
    },
}

impl Client {
    /// The clients of a partition: idempotent producers, one without idempotence, and a consumer.
    pub fn of(partition: usize, rng: &mut Rng) -> Vec<Self> {
        let id = |number: u64| partition as u64 * 1_000_000 + number * 1_000;
        let mut idempotent = |number: u64| {
            // Kafka's clients allow up to five (`max.in.flight.requests.per.connection`).
            let in_flight_max = [1, 2, 5][rng.index(3)];
            Kind::Producer(Producer::idempotent(id(number), in_flight_max))
        };
        let consumer = Kind::Consumer {
            offset: 0,
            epoch: LeaderEpoch(0),
            last_epoch: None,
            latest: 0,
            pending: None,
        };
        let mut kinds = vec![idempotent(1), idempotent(2), consumer];
        if rng.chance(500) {
            kinds.push(Kind::Producer(Producer::careless(id(3))));
        }
        let client = |kind| Self {
            partition,
            topic: None,
            kind,
            requests: 0,
            resets: 0,
            left: LAST_REQUESTS,
        };
        kinds.into_iter().map(client).collect()
    }

    /// Its partition.
    pub fn partition(&self) -> usize {
        self.partition
    }

    /// Whether it has completed its requests after the faults.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// The requests that it sends next.
    pub fn act(&mut self, now: u64, checks: &Checks, faulty: bool) -> Vec<Body> {
        let ledger = checks.ledger(self.partition);
        let Some(topic) = ledger.topic() else { return Vec::new() };
        if self.topic.replace(topic).is_some_and(|before| before != topic) {
            self.begin_anew();
        }
        let resets = ledger.resets;
        let is_ending = !faulty && now > crate::plan::FAULTS_BEGIN_MS;
        if is_ending && self.left == 0 {
            return Vec::new();
        }
        let partition = self.partition;
        match &mut self.kind {
            Kind::Producer(producer) => {
                self.resets = resets;
                producer.act((partition, topic), &mut self.requests, now)
            }
            Kind::Consumer { pending: Some((_, since)), .. } if now < *since + ANSWER_MS_MAX => {
                Vec::new()
            }
            Kind::Consumer { offset, epoch, last_epoch, latest, pending } => {
                if std::mem::replace(&mut self.resets, resets) != resets {
                    *offset = (*offset).min(checks.ledger(partition).records().len() as i64);
                    (*latest, *last_epoch) = (0, None);
                }
                self.left -= u32::from(is_ending);
                self.requests += 1;
                *pending = Some((self.requests, now));
                vec![Body::Read(Read {
                    topic,
                    request: self.requests,
                    partition,
                    offset: *offset,
                    epoch: *epoch,
                    last_epoch: *last_epoch,
                })]
            }
        }
    }

    /// Another topic has the name now.
    fn begin_anew(&mut self) {
        self.resets = 0;
        match &mut self.kind {
            Kind::Producer(producer) => producer.begin_with_another_topic(),
            Kind::Consumer { offset, epoch, last_epoch, latest, pending } => {
                (*offset, *epoch, *last_epoch, *latest, *pending) =
                    (0, LeaderEpoch(0), None, 0, None)
            }
        }
    }

    /// Handles an answer.
    pub fn receive(&mut self, body: Body, checks: &mut Checks) {
        match (body, &mut self.kind) {
            (Body::Produced(request, epoch, result), Kind::Producer(producer)) => {
                let topic = self
                    .topic
                    .filter(|topic| checks.ledger(self.partition).topic() == Some(*topic));
                let acknowledged = topic.is_some()
                    && producer.answered(self.partition, request, epoch, result, checks);
                let counts = acknowledged && checks.verdict.now > checks.faults_end;
                self.left = self.left.saturating_sub(u32::from(counts));
            }
            (Body::ReadAnswer(answer), Kind::Consumer { pending: Some((awaited, _)), .. })
                if *awaited == answer.request =>
            {
                self.read(*answer, checks)
            }
            _ => {}
        }
    }

    fn read(&mut self, answer: ReadAnswer, checks: &mut Checks) {
        let partition = self.partition;
        let Kind::Consumer { offset, epoch, last_epoch, latest, pending } = &mut self.kind else {
            return;
        };
        *pending = None;
        let Some(topic) =
            self.topic.filter(|topic| checks.ledger(partition).topic() == Some(*topic))
        else {
            return;
        };
        if checks.ledger(partition).resets != self.resets {
            return;
        }
        let stale = checks.ledger(partition).is_excused(answer.epoch.0);
        if answer.error == ErrorCode::OffsetOutOfRange && !stale && *offset < answer.log_start {
            // As with `auto.offset.reset=earliest`; the answer with the offset also has the epoch.
            (*offset, *last_epoch) = (answer.log_start, None);
            *epoch = (*epoch).max(answer.epoch);
        } else if answer.error == ErrorCode::OffsetOutOfRange && !stale {
            let offset = *offset;
            checks.verdict.broken(Rule::SeenIsCommitted, || {
                format!(
                    "partition {partition}: {offset} is beyond the log of the leader of {}",
                    answer.epoch
                )
            });
        }
        if answer.error.is_error() || stale {
            return;
        }
        checks.epoch_ends(partition, topic, *epoch, *offset, last_epoch.is_some(), &answer);
        *epoch = (*epoch).max(answer.epoch);
        for (at, record) in &answer.records {
            checks.read(partition, topic, answer.epoch.0, *at, record);
            (*offset, *last_epoch) = (at + 1, Some(record.epoch));
        }
        if let Ok(now) = answer.latest {
            if now < *latest {
                let before = *latest;
                checks.verdict.broken(Rule::LatestNeverGoesBack, || {
                    format!(
                        "partition {partition}: from {before} to {now} in epoch {}",
                        answer.epoch
                    )
                });
            }
            *latest = now;
        }
    }
}
