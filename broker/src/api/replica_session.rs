//! Fetch sessions of followers (KIP-227): a follower names only partitions whose fetch has changed,
//! and each partition reports its news to the session.
//!
//! Called by `replica_fetch`. Unlike clients' sessions, these are never scanned: of many thousand
//! partitions a request touches only those that it names or that have news. A session belongs to
//! one connection at a time. While a request of it is answered, only that request has it, and it
//! ends with the request if the connection breaks. Only registered brokers have sessions, a few
//! each, and only of partitions on this broker. That bounds their memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerEpoch, BrokerId, TopicPartition};

use crate::metadata::MetadataImage;
use crate::replica::core::FetchFrom;
use crate::replica::{DirtySlots, Partition};

/// The most sessions of one follower. It uses one, and those of its earlier processes may go.
const SESSIONS_OF_ONE_MAX: usize = 4;

/// The most bytes that a partition takes in a session: its slot, its number, and its registration
/// with the partition.
pub(super) const SLOT_BYTES: usize = 256;

/// A follower by its own claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Follower {
    pub(super) id: BrokerId,
    pub(super) epoch: BrokerEpoch,
}

impl Follower {
    /// Whether it is a registered broker. Its registration may be newer than this broker's
    /// metadata.
    fn is_registered(self, image: &MetadataImage) -> bool {
        image.brokers.get(&self.id).is_some_and(|known| known.epoch <= self.epoch)
    }
}

/// The epoch that opens a new session, and the one that wants none.
const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;

/// A partition in a session.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: TopicPartition,
    /// `None` when this broker does not hold it; the follower asks again.
    pub(super) partition: Option<Arc<Partition>>,
    pub(super) from: FetchFrom,
    pub(super) bytes_max: usize,
    /// The values that the follower knows. The high watermark is `i64::MAX` when the follower does
    /// not want updates of it (KIP-1166).
    pub(super) said_high_watermark: i64,
    pub(super) said_log_start: i64,
    /// The last request has named this partition, so its offset is news.
    pub(super) is_news: bool,
    /// The last answer had records or an error, so the next answer waits until the follower names
    /// the partition again.
    pub(super) is_answered: bool,
}

/// A follower's request for a partition.
#[derive(Debug)]
pub(super) struct FetchRequestPartition {
    pub(super) id: TopicPartition,
    pub(super) partition: Option<Arc<Partition>>,
    pub(super) from: FetchFrom,
    pub(super) bytes_max: usize,
    pub(super) high_watermark: i64,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    /// 0 for a session that ends with its request.
    pub(super) id: i32,
    follower: Follower,
    epoch: i32,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    numbers: HashMap<TopicPartition, u32>,
    changes: Arc<DirtySlots>,
    /// Slots to examine, in order.
    due: VecDeque<u32>,
    /// Slots to examine once the quota of throttled replicas allows it.
    throttled: Vec<u32>,
}

impl Session {
    fn new(id: i32, follower: Follower) -> Self {
        Self {
            id,
            follower,
            epoch: INITIAL_EPOCH,
            slots: Vec::new(),
            free: Vec::new(),
            numbers: HashMap::new(),
            changes: Arc::default(),
            due: VecDeque::new(),
            throttled: Vec::new(),
        }
    }

    /// Applies a request: adds, changes and removes partitions.
    pub(super) fn apply(
        &mut self,
        wanted: Vec<FetchRequestPartition>,
        forgotten: impl Iterator<Item = TopicPartition>,
    ) {
        for id in forgotten {
            if let Some(number) = self.numbers.remove(&id) {
                self.remove(number);
            }
        }
        for wanted in wanted {
            let known = self.numbers.get(&wanted.id).copied();
            let here = |slot: &Slot| {
                slot.partition.as_ref().map(Arc::as_ptr)
                    == wanted.partition.as_ref().map(Arc::as_ptr)
            };
            let number = match known {
                Some(number) if self.slot_mut(number).is_some_and(|slot| here(slot)) => number,
                known => {
                    known.inspect(|number| self.remove(*number));
                    self.add(&wanted)
                }
            };
            if let Some(slot) = self.slot_mut(number) {
                slot.from = wanted.from;
                slot.bytes_max = wanted.bytes_max;
                slot.said_high_watermark = wanted.high_watermark;
                (slot.is_news, slot.is_answered) = (true, false);
            }
            self.changes.mark(number);
        }
    }

    fn add(&mut self, wanted: &FetchRequestPartition) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(partition) = &wanted.partition {
            partition.watchers().add(&self.changes, number);
        }
        if let Some(slot) = self.slots.get_mut(number as usize) {
            *slot = Some(Slot {
                id: wanted.id,
                partition: wanted.partition.clone(),
                from: wanted.from,
                bytes_max: wanted.bytes_max,
                said_high_watermark: wanted.high_watermark,
                said_log_start: -1,
                is_news: true,
                is_answered: false,
            });
        }
        self.numbers.insert(wanted.id, number);
        number
    }

    fn remove(&mut self, number: u32) {
        if let Some(slot) = self.slots.get_mut(number as usize).and_then(Option::take) {
            if let Some(partition) = slot.partition {
                partition.watchers().remove(&self.changes, number);
            }
            self.free.push(number);
        }
    }

    pub(super) fn slot_mut(&mut self, number: u32) -> Option<&mut Slot> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    /// The slots to examine now: those left over, and those with news.
    pub(super) fn take_due(&mut self) -> VecDeque<u32> {
        self.changes.take(&mut self.due);
        std::mem::take(&mut self.due)
    }

    /// Leaves slots for the next request.
    pub(super) fn leave(&mut self, slots: impl IntoIterator<Item = u32>) {
        self.due.extend(slots);
    }

    /// Postpones slots that the quota does not allow to read.
    pub(super) fn throttle(&mut self, slots: Vec<u32>) {
        self.throttled.extend(slots);
    }

    /// Marks the postponed slots again.
    pub(super) fn end_throttling(&mut self) {
        for slot in std::mem::take(&mut self.throttled) {
            self.changes.mark(slot);
        }
    }

    /// Whether slots are left for the next request.
    pub(super) fn has_left(&self) -> bool {
        !self.due.is_empty()
    }

    /// The news that the partitions report to this session.
    pub(super) fn changes(&self) -> Arc<DirtySlots> {
        Arc::clone(&self.changes)
    }
}

impl Drop for Session {
    /// The partitions must not report to this session any more.
    fn drop(&mut self) {
        for (number, slot) in (0..).zip(&self.slots) {
            if let Some(partition) = slot.as_ref().and_then(|slot| slot.partition.as_ref()) {
                partition.watchers().remove(&self.changes, number);
            }
        }
    }
}

/// All followers' sessions.
#[derive(Debug, Default)]
pub struct FollowerSessions {
    inner: Mutex<Sessions>,
}

#[derive(Debug, Default)]
struct Sessions {
    /// Sessions without a request under way, the last used at the end.
    idle: Vec<Session>,
    /// All sessions, the newest at the end.
    live: Vec<Live>,
    last_id: i32,
    /// The metadata version at the last search for ended registrations.
    version: u64,
}

/// A session, idle or with a request under way.
#[derive(Debug)]
struct Live {
    id: i32,
    follower: Follower,
    changes: Weak<DirtySlots>,
}

impl Sessions {
    /// Begins a session, and ends the follower's oldest if it has too many: a follower uses its
    /// newest.
    fn begin(&mut self, follower: Follower) -> Session {
        self.live.retain(|live| live.changes.strong_count() > 0);
        let same = |live: &Live| live.follower.id == follower.id;
        while self.live.iter().filter(|live| same(live)).count() >= SESSIONS_OF_ONE_MAX
            && let Some(oldest) = self.live.iter().position(same)
        {
            let oldest = self.live.remove(oldest);
            self.end(&oldest);
        }
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let session = Session::new(self.last_id, follower);
        self.live.push(Live {
            id: session.id,
            follower,
            changes: Arc::downgrade(&session.changes),
        });
        session
    }

    fn end(&mut self, live: &Live) {
        match self.idle.iter().position(|session| session.id == live.id) {
            Some(index) => drop(self.idle.remove(index)),
            None => drop(live.changes.upgrade().inspect(|changes| changes.end())),
        }
    }

    /// Ends the sessions of registrations that have ended.
    fn end_those_of_the_gone(&mut self, image: &MetadataImage) {
        if self.version == image.version {
            return;
        }
        self.version = image.version;
        let all = std::mem::take(&mut self.live).into_iter();
        let (stay, gone): (Vec<_>, Vec<_>) =
            all.partition(|live| live.follower.is_registered(image));
        self.live = stay;
        for live in gone {
            self.end(&live);
        }
    }
}

impl FollowerSessions {
    /// The session of a request. The caller has it alone until [`FollowerSessions::give_back`]. A
    /// client that is no registered broker gets a session for this request only. Each partition
    /// then refuses it as no replica, as in Apache Kafka.
    ///
    /// # Errors
    /// FETCH_SESSION_ID_NOT_FOUND or INVALID_FETCH_SESSION_EPOCH. The follower then begins a new
    /// session.
    pub(super) fn take(
        &self,
        follower: Follower,
        image: &MetadataImage,
        id: i32,
        epoch: i32,
    ) -> Result<Session, ErrorCode> {
        let mut inner = self.inner.lock();
        inner.end_those_of_the_gone(image);
        let found =
            inner.idle.iter().position(|session| session.id == id && session.follower == follower);
        let found = found.map(|index| inner.idle.remove(index));
        match epoch {
            INITIAL_EPOCH if follower.is_registered(image) => {
                drop(found);
                Ok(inner.begin(follower))
            }
            INITIAL_EPOCH | FINAL_EPOCH => Ok(Session::new(0, follower)),
            epoch => {
                let session = found.ok_or(ErrorCode::FetchSessionIdNotFound)?;
                if session.epoch != epoch {
                    return Err(ErrorCode::InvalidFetchSessionEpoch);
                }
                Ok(session)
            }
        }
    }

    /// Keeps a session for its next request, unless it has ended.
    pub(super) fn give_back(&self, mut session: Session) {
        if session.id == 0 {
            return;
        }
        session.epoch = session.epoch.checked_add(1).unwrap_or(1);
        let mut inner = self.inner.lock();
        if !session.changes.has_ended() {
            inner.idle.push(session);
        }
    }

    /// The number of sessions without a request under way.
    pub fn len(&self) -> usize {
        self.inner.lock().idle.len()
    }

    /// Whether there is no such session.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use weir_protocol::types::{LeaderEpoch, TopicId};

    use super::*;
    use crate::metadata::BrokerImage;

    fn follower(id: i32, epoch: i64) -> Follower {
        Follower { id: BrokerId(id), epoch: BrokerEpoch(epoch) }
    }

    /// Metadata with brokers of these ids and epochs.
    fn image(version: u64, brokers: &[(i32, i64)]) -> MetadataImage {
        let mut image = MetadataImage::default();
        image.version = version;
        for (id, epoch) in brokers {
            let broker = BrokerImage {
                id: BrokerId(*id),
                epoch: BrokerEpoch(*epoch),
                endpoints: Vec::new(),
                rack: None,
                fenced: false,
                shutting_down: false,
            };
            image.brokers.insert(broker.id, Arc::new(broker));
        }
        image
    }

    fn wanted(index: i32, offset: i64) -> FetchRequestPartition {
        FetchRequestPartition {
            id: TopicPartition { topic: TopicId::ZERO, index },
            partition: None,
            from: FetchFrom {
                offset,
                last_fetched_epoch: None,
                current_leader_epoch: LeaderEpoch(0),
                log_start: 0,
            },
            bytes_max: 1,
            high_watermark: 0,
        }
    }

    fn due(session: &mut Session) -> Vec<i32> {
        let numbers = session.take_due();
        numbers.into_iter().filter_map(|number| Some(session.slot_mut(number)?.id.index)).collect()
    }

    #[test]
    fn only_what_is_named_or_has_news_is_looked_at() {
        let (sessions, image) = (FollowerSessions::default(), image(1, &[(1, 5)]));
        let mut session = sessions.take(follower(1, 5), &image, 0, INITIAL_EPOCH).unwrap();
        session.apply(vec![wanted(0, 5), wanted(1, 5), wanted(2, 5)], std::iter::empty());
        assert_eq!(due(&mut session), [0, 1, 2]);
        assert_eq!(due(&mut session), [0; 0]);
        let changes = session.changes();
        changes.mark(2);
        session.leave([1]);
        assert!(session.has_left());
        assert_eq!(due(&mut session), [1, 2], "what was left comes first");
        let id = session.id;
        sessions.give_back(session);
        let mut session = sessions.take(follower(1, 5), &image, id, 1).unwrap();
        session.apply(vec![wanted(1, 9)], [wanted(2, 0).id, wanted(0, 0).id].into_iter());
        changes.mark(2);
        assert_eq!(due(&mut session), [1], "what is forgotten has no news");
        session.apply(vec![wanted(7, 1)], std::iter::empty());
        assert_eq!(due(&mut session), [7], "in the place of another");
    }

    #[test]
    fn a_session_belongs_to_one_request_of_one_follower() {
        let (sessions, image) = (FollowerSessions::default(), image(1, &[(1, 5), (2, 5)]));
        let begin = || sessions.take(follower(1, 5), &image, 0, INITIAL_EPOCH).unwrap();
        let resume = |id, epoch| sessions.take(follower(1, 5), &image, id, epoch);
        let session = begin();
        let id = session.id;
        assert_eq!(resume(id, 1).unwrap_err(), ErrorCode::FetchSessionIdNotFound, "it is in use");
        sessions.give_back(session);
        for other in [follower(2, 5), follower(1, 6)] {
            let refused = sessions.take(other, &image, id, 1).unwrap_err();
            assert_eq!(refused, ErrorCode::FetchSessionIdNotFound, "it is another's");
        }
        assert_eq!(resume(id, 2).unwrap_err(), ErrorCode::InvalidFetchSessionEpoch);
        assert!(sessions.is_empty(), "who has lost count begins anew");
        for _ in 0..2 * SESSIONS_OF_ONE_MAX {
            sessions.give_back(begin());
        }
        assert_eq!(sessions.len(), SESSIONS_OF_ONE_MAX, "those of former lives go");
        sessions.give_back(sessions.take(follower(1, 5), &image, 0, FINAL_EPOCH).unwrap());
        assert_eq!(sessions.len(), SESSIONS_OF_ONE_MAX, "one that was not asked for is not kept");
        // Sessions with a request under way count, too: the oldest ends.
        let held: Vec<_> = (0..=SESSIONS_OF_ONE_MAX).map(|_| begin()).collect();
        assert!(sessions.is_empty());
        let ended: Vec<_> = held.iter().map(|session| session.changes.has_ended()).collect();
        assert!(ended[0] && ended[1..].iter().all(|ended| !ended), "{ended:?}");
        held.into_iter().for_each(|session| sessions.give_back(session));
        assert_eq!(sessions.len(), SESSIONS_OF_ONE_MAX);
    }

    /// Otherwise a client could create sessions without bound by claiming broker ids.
    #[test]
    fn only_registered_brokers_have_sessions() {
        let sessions = FollowerSessions::default();
        let known = image(1, &[(1, 5)]);
        for stranger in [follower(7, 5), follower(1, 4), follower(1, -1)] {
            let session = sessions.take(stranger, &known, 0, INITIAL_EPOCH).unwrap();
            assert_eq!(session.id, 0);
            sessions.give_back(session);
        }
        assert!(sessions.is_empty());
        // A registration newer than the metadata counts. A new registration, or the end of one,
        // ends the sessions of the old one.
        let (idle, held) = (follower(1, 6), follower(1, 6));
        sessions.give_back(sessions.take(idle, &known, 0, INITIAL_EPOCH).unwrap());
        let held = sessions.take(held, &known, 0, INITIAL_EPOCH).unwrap();
        sessions.take(follower(1, 7), &image(2, &[(1, 7)]), 0, INITIAL_EPOCH).unwrap();
        assert!(sessions.is_empty() && held.changes.has_ended());
        sessions.give_back(held);
        assert!(sessions.is_empty());
    }
}
