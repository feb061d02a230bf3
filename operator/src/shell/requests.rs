//! Requests that write resources. They are decided and committed together, apart from the other
//! calls. If the store refuses resources, the requests for these are decided again one by one,
//! without the refused parts. So a refusal fails only that part of one request: the state is not
//! loaded again, and the epoch stays.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{error, warn};

use super::committed::Committed;
use super::takeover::take_over_from;
use super::{Answer, Command, ControllerRuntime, PendingReply, journal};
use crate::controller::state::{Change, Cluster, State};
use crate::controller::turned_down::{TurnedDown, join, without};
use crate::controller::{Event, Kind, Moment, RECORDS_PER_REQUEST_MAX, Reply};
use crate::store::{Refused, Store, StoreError};

/// The longest time that one batch decides requests before brokers' calls are handled again; only
/// its last request may exceed it. Sessions last seconds.
const DECIDING_MS_MAX: u64 = 100;

/// The first and the longest wait before a failing file system is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The most times that one request is decided again. Each round drops a part of it or marks another
/// name as taken.
const ROUNDS_MAX: usize = 16;

/// A request and the moment of its decisions. Every decision uses the same moment, so its topics
/// get the same ids each time.
struct Asked {
    event: Event,
    tell: oneshot::Sender<Answer>,
    moment: Moment,
}

struct Decided {
    asked: Asked,
    reply: Reply,
    /// Its part of the batch's changes.
    changes: Range<usize>,
}

impl Command {
    /// Whether it may change a `Topic` or the `KafkaCluster`.
    pub(super) fn may_write_resources(&self) -> bool {
        matches!(
            self,
            Self::Ask(
                Event::Admin { .. }
                    | Event::Apply(_)
                    | Event::Delete(..)
                    | Event::Gone(..)
                    | Event::Retain(_),
                _
            )
        )
    }
}

impl<S: Store> ControllerRuntime<S> {
    /// Makes the changes from `before` to the current state durable, and sends them to brokers.
    pub(super) async fn commit(
        &mut self,
        before: &State,
        changes: &[Change],
    ) -> Result<Committed, StoreError> {
        if changes.is_empty() {
            return Ok(Committed::Done);
        }
        match self.store.commit(&self.state, changes).await {
            Ok(()) => self.store.settle(&mut self.state, changes),
            Err(StoreError::Refused(refused)) => return Ok(Committed::Refused(refused)),
            Err(error) => {
                error!(%error, "cannot commit the cluster's state: it is read anew");
                self.read_anew().await?;
                return Ok(Committed::Lost);
            }
        }
        self.publish.send_replace(self.state.clone());
        for change in changes {
            if let Change::RemoveBroker(broker) = change {
                // If its process still runs, it registers again.
                self.sessions.ended(*broker);
                self.streams.remove(broker);
            }
        }
        journal::write(&self.counted, before, changes);
        self.send_metadata(before, changes);
        self.send_granted_shutdowns(changes);
        Ok(Committed::Done)
    }

    /// Discards the state and loads it from the store. A failing file system, such as a full one,
    /// is tried again without limit, because no other controller would take over its files. Any
    /// other error ends this controller.
    pub(super) async fn read_anew(&mut self) -> Result<(), StoreError> {
        self.streams.clear();
        let mut pause = PAUSE_MIN;
        (self.state, self.sessions) = loop {
            match take_over_from(&mut self.store, &self.clock, self.excused_until).await {
                Ok(taken) => break taken,
                Err(error @ StoreError::Io { .. }) => {
                    error!(%error, seconds = pause.as_secs_f32(), "cannot take over the cluster's state; it is tried again");
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(PAUSE_MAX);
                }
                Err(error) => return Err(error),
            }
        };
        self.publish.send_replace(self.state.clone());
        Ok(())
    }

    /// Decides and commits requests. Returns the calls for the next batch, once this one has become
    /// large or taken long.
    pub(super) async fn requests(
        &mut self,
        calls: Vec<Command>,
    ) -> Result<Vec<Command>, StoreError> {
        let before = self.state.clone();
        let until = self.clock.now().plus(DECIDING_MS_MAX);
        let (mut decided, mut changes) = (Vec::new(), Vec::new());
        let mut calls = calls.into_iter();
        while changes.len() <= RECORDS_PER_REQUEST_MAX
            && self.clock.now() <= until
            && let Some(call) = calls.next()
        {
            if let Command::Ask(event, tell) = call {
                let moment = self.clock.moment();
                decided.push(self.decide_asked(Asked { event, tell, moment }, &mut changes));
            }
        }
        let mut refused = Vec::new();
        loop {
            let turned_down = match self.commit(&before, &changes).await? {
                Committed::Done => break,
                Committed::Lost => return Ok(calls.collect()),
                Committed::Refused(turned_down) => turned_down,
            };
            self.state = before.clone();
            let (theirs, others): (Vec<Decided>, Vec<Decided>) =
                decided.into_iter().partition(|one| {
                    let changes = changes.get(one.changes.clone()).unwrap_or_default();
                    changes.iter().any(|change| {
                        turned_down.iter().any(|refused| is_of(&before.cluster, change, refused))
                    })
                });
            // Each round leaves fewer requests, whatever the store answers.
            let (theirs, others) =
                if theirs.is_empty() { (others, theirs) } else { (theirs, others) };
            refused.extend(theirs.into_iter().map(|one| one.asked));
            changes = Vec::new();
            decided =
                others.into_iter().map(|one| self.decide_asked(one.asked, &mut changes)).collect();
        }
        for one in decided {
            self.reply(PendingReply::Answer(one.asked.tell, one.reply));
        }
        for asked in refused {
            if !self.one_by_one(asked).await? {
                break;
            }
        }
        Ok(calls.collect())
    }

    fn decide_asked(&mut self, asked: Asked, changes: &mut Vec<Change>) -> Decided {
        let from = changes.len();
        let reply = self.decide_at(asked.event.clone(), &asked.moment, changes);
        Decided { asked, reply, changes: from..changes.len() }
    }

    /// Carries out as much of a request as the store accepts. Returns false if a commit failed and
    /// the shell loaded the state again.
    async fn one_by_one(&mut self, asked: Asked) -> Result<bool, StoreError> {
        let Asked { mut event, tell, mut moment } = asked;
        let mut answered: Option<Reply> = None;
        for _ in 0..ROUNDS_MAX {
            let before = self.state.clone();
            let mut changes = Vec::new();
            let mut reply = self.decide_at(event.clone(), &moment, &mut changes);
            let refused = match self.commit(&before, &changes).await? {
                Committed::Lost => return Ok(false),
                Committed::Done => {
                    if let Some(other) = answered {
                        join(&mut reply, other);
                    }
                    self.reply(PendingReply::Answer(tell, reply));
                    return Ok(true);
                }
                Committed::Refused(refused) => refused,
            };
            self.state = before;
            // Created topics keep their ids, whatever is left of the request.
            moment.given.extend(changes.iter().filter_map(|change| match change {
                Change::Topic(id, resource) if !self.state.topics.contains_key(id) => {
                    Some((resource.topic_name().to_owned(), *id))
                }
                _ => None,
            }));
            let (taken, refused): (Vec<Refused>, Vec<Refused>) =
                refused.into_iter().partition(|one| one.taken);
            for one in taken {
                // Somebody else's resource has the name: the next decision uses another.
                Arc::make_mut(&mut self.state.taken).insert(one.key.name);
            }
            if refused.is_empty() {
                continue;
            }
            for one in &refused {
                warn!(kind = %one.kind, resource = %one.key, message = one.message, "the store does not take a resource as it was asked for");
            }
            let turned_down: Vec<TurnedDown> =
                refused.into_iter().map(|one| self.turned_down(one, &changes)).collect();
            let (rest, mut reply) = without(event, &turned_down);
            if let Some(other) = answered.take() {
                join(&mut reply, other);
            }
            let Some(rest) = rest else {
                self.reply(PendingReply::Answer(tell, reply));
                return Ok(true);
            };
            (event, answered) = (rest, Some(reply));
        }
        let reason = "the store refuses each attempt".to_owned();
        let reply = Reply::Refused(weir_protocol::error::ErrorCode::PolicyViolation, reason);
        self.reply(PendingReply::Answer(tell, reply));
        Ok(true)
    }

    fn turned_down(&self, refused: Refused, changes: &[Change]) -> TurnedDown {
        let cluster = &self.state.cluster;
        let id =
            changes.iter().filter(|change| is_of(cluster, change, &refused)).find_map(|change| {
                match change {
                    Change::Topic(id, _) | Change::RemoveTopic(id, _) => Some(*id),
                    _ => None,
                }
            });
        let name = |id| {
            let decided = changes.iter().find_map(|change| match change {
                Change::Topic(of, resource) if *of == id => Some(resource.topic_name().to_owned()),
                _ => None,
            });
            decided.or_else(|| self.state.topics.get(&id).map(|topic| topic.name().to_owned()))
        };
        TurnedDown {
            topic: id.map(|id| (id, name(id).unwrap_or_default())),
            invalid: refused.invalid,
            message: refused.message,
        }
    }
}

/// Whether a change concerns the refused resource.
fn is_of(cluster: &Cluster, change: &Change, refused: &Refused) -> bool {
    match change {
        Change::Cluster(_) => refused.kind == Kind::KafkaCluster,
        Change::Topic(_, resource) => {
            refused.kind == Kind::Topic && cluster.key_of(&resource.metadata) == refused.key
        }
        Change::RemoveTopic(_, key) => refused.kind == Kind::Topic && *key == refused.key,
        _ => false,
    }
}
