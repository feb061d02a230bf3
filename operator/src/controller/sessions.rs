//! The sessions of brokers: the soft state beside [`super::State`]. It is lost with the process;
//! the next controller gives every broker a full session.
//!
//! The shell records streams and heartbeats here. Decisions read them to tell live brokers from
//! dead ones. Never stored.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use weir_protocol::types::BrokerId;

/// Milliseconds on a clock that never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This many milliseconds later.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// How often a broker sends a heartbeat.
pub const HEARTBEAT_INTERVAL_MS: u32 = 500;

/// A broker that is silent for this long is fenced.
pub const SESSION_TIMEOUT_MS: u32 = 3_000;

/// A broker whose stream broke has this long to reconnect before it is fenced.
///
/// A broker whose process lives reconnects within some 20 ms. A broker whose process is known to be
/// gone gets no grace: see [`Sessions::gone`].
pub const RECONNECT_GRACE_MS: u32 = 150;

/// Identifies one stream of one broker, so that the end of an old stream does not count for its
/// successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamId(pub u64);

/// The session of one broker.
#[derive(Clone, Debug)]
struct Session {
    /// `None` for a broker that the controller's predecessor knew and that has not connected since.
    stream: Option<StreamId>,
    /// A certificate says that it is this broker.
    is_certified: bool,
    heard_at: Timestamp,
    /// When its stream broke, if it is broken.
    broke_at: Option<Timestamp>,
    /// Its host refuses connections to the broker's port.
    is_gone: bool,
    /// The metadata version that contains its registration. The broker must have applied it before
    /// it may serve.
    registered_at: u64,
    /// The newest metadata version that it reported as applied.
    applied: u64,
    /// Until this time the controller does not fence it for silence, unless it connects first. It
    /// does not know yet where this controller is.
    excused_until: Timestamp,
}

impl Session {
    /// When it expires. If its stream broke after the controller woke, and its process is not known
    /// to be gone, the broker has the time of two heartbeats from then on to come back.
    fn deadline(&self, woke_at: Option<Timestamp>) -> Timestamp {
        let silent = self.heard_at.plus(SESSION_TIMEOUT_MS.into()).max(self.excused_until);
        let Some(broke_at) = self.broke_at else { return silent };
        let grace_ms = if self.is_gone { 0 } else { RECONNECT_GRACE_MS };
        let found_silent = woke_at.filter(|woke_at| broke_at >= *woke_at && !self.is_gone);
        let excused = found_silent.map(|at| at.plus((2 * HEARTBEAT_INTERVAL_MS).into()));
        silent.min(broke_at.plus(grace_ms.into()).max(excused.unwrap_or_default()))
    }
}

/// The sessions of all brokers.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    by_broker: BTreeMap<BrokerId, Session>,
    /// When the controller last woke after it had stood still. Brokers had given it up meanwhile.
    woke_at: Option<Timestamp>,
}

impl Sessions {
    /// After a takeover every registered broker gets a full session before it may be fenced, or the
    /// time until `excused_until` if that is later.
    pub fn take_over(
        brokers: impl Iterator<Item = BrokerId>,
        now: Timestamp,
        version: u64,
        excused_until: Timestamp,
    ) -> Self {
        let session = Session {
            stream: None,
            is_certified: false,
            heard_at: now,
            broke_at: None,
            is_gone: false,
            registered_at: version,
            applied: 0,
            excused_until,
        };
        let by_broker = brokers.map(|broker| (broker, session.clone())).collect();
        Self { by_broker, woke_at: None }
    }

    /// A broker registered on a stream; `version` holds its registration.
    pub fn opened(&mut self, broker: BrokerId, stream: StreamId, now: Timestamp, version: u64) {
        self.by_broker.insert(
            broker,
            Session {
                stream: Some(stream),
                is_certified: false,
                heard_at: now,
                broke_at: None,
                is_gone: false,
                registered_at: version,
                applied: 0,
                excused_until: Timestamp::default(),
            },
        );
    }

    /// The broker that registered has shown a certificate.
    pub fn certified(&mut self, broker: BrokerId) {
        if let Some(session) = self.by_broker.get_mut(&broker) {
            session.is_certified = true;
        }
    }

    /// A broker sent a heartbeat; it has applied the metadata up to this version.
    pub fn heard(&mut self, broker: BrokerId, applied: u64, now: Timestamp) {
        if let Some(session) = self.by_broker.get_mut(&broker) {
            session.heard_at = now;
            session.applied = applied;
        }
    }

    /// A message of a broker has arrived on its stream but is not handled yet.
    pub fn came(&mut self, broker: BrokerId, stream: StreamId, at: Timestamp) {
        if let Some(session) =
            self.by_broker.get_mut(&broker).filter(|session| session.stream == Some(stream))
        {
            session.heard_at = session.heard_at.max(at);
        }
    }

    /// A stream broke.
    pub fn broke(&mut self, broker: BrokerId, stream: StreamId, now: Timestamp) {
        if let Some(session) =
            self.by_broker.get_mut(&broker).filter(|session| session.stream == Some(stream))
        {
            session.broke_at.get_or_insert(now);
        }
    }

    /// The host of a broker whose stream broke refuses connections to the broker's port. Its
    /// process is gone, so it gets no grace. If it runs after all, it registers again and has lost
    /// only its leaders. Ignored while the stream is open, and for any other stream.
    pub fn gone(&mut self, broker: BrokerId, stream: StreamId) {
        if let Some(session) =
            self.by_broker.get_mut(&broker).filter(|session| session.stream == Some(stream))
        {
            session.is_gone = session.broke_at.is_some();
        }
    }

    /// The controller itself stalled, because of a slow disk or a paused process, and handled no
    /// heartbeats meanwhile. Each broker gets the time of two heartbeats before it is fenced. That
    /// includes those whose stream turns out to be broken: they found the controller silent and
    /// look for it, one attempt after the other. To fence all brokers for the controller's own
    /// stall would be an outage. A broker whose process is gone is fenced at once, as always.
    pub fn slept_until(&mut self, now: Timestamp) {
        let heard = Timestamp(
            now.0.saturating_sub((SESSION_TIMEOUT_MS - 2 * HEARTBEAT_INTERVAL_MS).into()),
        );
        self.woke_at = Some(now);
        for session in self.by_broker.values_mut() {
            session.heard_at = session.heard_at.max(heard);
        }
    }

    /// A broker was fenced: its session ends.
    pub fn ended(&mut self, broker: BrokerId) {
        self.by_broker.remove(&broker);
    }

    /// Whether this stream is the one of the broker's session.
    pub fn belongs_to(&self, broker: BrokerId, stream: StreamId) -> bool {
        self.by_broker.get(&broker).is_some_and(|session| session.stream == Some(stream))
    }

    /// Whether the broker's process seems to run: its stream is open and its session has not
    /// expired.
    pub fn is_live(&self, broker: BrokerId, now: Timestamp) -> bool {
        self.by_broker.get(&broker).is_some_and(|session| {
            session.stream.is_some()
                && session.broke_at.is_none()
                && session.deadline(self.woke_at) > now
        })
    }

    /// Whether the broker of this session has shown a certificate.
    pub fn is_certified(&self, broker: BrokerId) -> bool {
        self.by_broker.get(&broker).is_some_and(|session| session.is_certified)
    }

    /// The brokers that the controller's predecessor knew and that have not connected since.
    pub fn unheard(&self) -> Vec<BrokerId> {
        let unheard = self.by_broker.iter().filter(|(_, session)| session.stream.is_none());
        unheard.map(|(broker, _)| *broker).collect()
    }

    /// The metadata version that the broker must have applied before it may serve.
    pub fn registered_at(&self, broker: BrokerId) -> Option<u64> {
        self.by_broker.get(&broker).map(|session| session.registered_at)
    }

    /// The newest metadata version that the broker has applied in this session.
    pub fn applied(&self, broker: BrokerId) -> u64 {
        self.by_broker.get(&broker).map_or(0, |session| session.applied)
    }

    /// When the last heartbeat or message of the broker arrived.
    pub fn heard_at(&self, broker: BrokerId) -> Option<Timestamp> {
        self.by_broker.get(&broker).map(|session| session.heard_at)
    }

    /// Brokers whose session has expired.
    pub fn expired(&self, now: Timestamp) -> Vec<BrokerId> {
        self.by_broker
            .iter()
            .filter(|(_, session)| session.deadline(self.woke_at) <= now)
            .map(|(broker, _)| *broker)
            .collect()
    }

    /// When the next session expires, unless its broker sends a heartbeat.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.by_broker.values().map(|session| session.deadline(self.woke_at)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Brokers give a silent controller up. When it goes on, it finds their streams broken.
    #[test]
    fn brokers_that_gave_up_a_controller_that_stood_still_may_come_back() {
        let (broker, other) = (BrokerId(0), BrokerId(1));
        let grace = u64::from(RECONNECT_GRACE_MS);
        let mut sessions = Sessions::default();
        for (id, broker) in (0..).zip([broker, other]) {
            sessions.opened(broker, StreamId(id), Timestamp(0), 1);
        }
        let woke = Timestamp(50_000);
        sessions.slept_until(woke);
        sessions.broke(broker, StreamId(0), woke.plus(1));
        sessions.broke(other, StreamId(1), woke.plus(1));
        assert!(sessions.expired(woke.plus(grace + 2)).is_empty());
        assert!(!sessions.is_live(broker, woke.plus(2)));
        assert_eq!(sessions.next_deadline(), Some(woke.plus(1_000)));
        // Whose process is gone does not come back.
        sessions.gone(other, StreamId(1));
        assert_eq!(sessions.expired(woke.plus(2)), [other]);
        sessions.ended(other);
        sessions.opened(broker, StreamId(2), woke.plus(700), 1);
        assert!(sessions.expired(woke.plus(3_000)).is_empty());
        // Later a broken stream has its grace and no more.
        sessions.broke(broker, StreamId(2), woke.plus(2_000));
        assert!(sessions.expired(woke.plus(2_000 + grace - 1)).is_empty());
        assert_eq!(sessions.expired(woke.plus(2_000 + grace)), [broker]);
    }
}
