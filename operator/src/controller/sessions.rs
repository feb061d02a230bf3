//! Who was heard of and when: the soft state beside [`super::State`]. Lost with the process, and
//! then every broker gets a full session anew.
//!
//! The shell notes streams and heartbeats here; decisions read it to tell the living from the dead.
//! Never stored.
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

/// A broker whose stream broke has this long to come back before it is fenced.
///
/// A broker whose process lives is back after some 20 ms. One whose process is known to be gone
/// does not have it: see [`Sessions::gone`].
pub const RECONNECT_GRACE_MS: u32 = 150;

/// Names one stream of one broker, so that the end of an old one is not taken for the end of its
/// successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamId(pub u64);

/// The session of one broker.
#[derive(Clone, Debug)]
struct Session {
    /// `None` for a broker that the controller's predecessor knew and that was not heard of since.
    stream: Option<StreamId>,
    heard_at: Timestamp,
    /// When its stream broke, if it is broken.
    broke_at: Option<Timestamp>,
    /// Nobody listens any more where it did.
    is_gone: bool,
    /// The metadata version that holds its registration: what it must have applied before it may
    /// serve.
    registered_at: u64,
    /// The newest metadata version that it said to have applied.
    applied: u64,
    /// Until when it may be silent without being fenced, as long as it has not come: it does not
    /// know yet where this controller is.
    excused_until: Timestamp,
}

impl Session {
    fn deadline(&self) -> Timestamp {
        let silent = self.heard_at.plus(SESSION_TIMEOUT_MS.into()).max(self.excused_until);
        let grace_ms = if self.is_gone { 0 } else { RECONNECT_GRACE_MS };
        self.broke_at.map_or(silent, |at| silent.min(at.plus(grace_ms.into())))
    }
}

/// The sessions of all brokers.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    by_broker: BTreeMap<BrokerId, Session>,
}

impl Sessions {
    /// After a takeover: every broker that is registered gets a full session before it may be
    /// fenced, or the time until `excused_until`, if that is longer.
    pub fn take_over(
        brokers: impl Iterator<Item = BrokerId>,
        now: Timestamp,
        version: u64,
        excused_until: Timestamp,
    ) -> Self {
        let session = Session {
            stream: None,
            heard_at: now,
            broke_at: None,
            is_gone: false,
            registered_at: version,
            applied: 0,
            excused_until,
        };
        Self { by_broker: brokers.map(|broker| (broker, session.clone())).collect() }
    }

    /// A broker registered on a stream; `version` holds its registration.
    pub fn opened(&mut self, broker: BrokerId, stream: StreamId, now: Timestamp, version: u64) {
        self.by_broker.insert(
            broker,
            Session {
                stream: Some(stream),
                heard_at: now,
                broke_at: None,
                is_gone: false,
                registered_at: version,
                applied: 0,
                excused_until: Timestamp::default(),
            },
        );
    }

    /// A broker was heard of, and has applied the metadata up to this version.
    pub fn heard(&mut self, broker: BrokerId, applied: u64, now: Timestamp) {
        if let Some(session) = self.by_broker.get_mut(&broker) {
            session.heard_at = now;
            session.applied = applied;
        }
    }

    /// A broker has come to the door on its stream; what it says is not heard yet.
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

    /// The host of a broker whose stream broke refuses connections where the broker listened: its
    /// process is gone, and its time is up. Should it be there after all, it registers again, and
    /// has lost nothing but its leaders. Ignored while the stream is open or for another one.
    pub fn gone(&mut self, broker: BrokerId, stream: StreamId) {
        if let Some(session) =
            self.by_broker.get_mut(&broker).filter(|session| session.stream == Some(stream))
        {
            session.is_gone = session.broke_at.is_some();
        }
    }

    /// The controller itself stood still, for a slow disk or because its process was paused: what
    /// brokers said meanwhile was not heard. Each gets the time of two heartbeats before it is
    /// fenced, but for those whose stream broke. Fencing all for the controller's own sleep is an
    /// outage.
    pub fn slept_until(&mut self, now: Timestamp) {
        let heard = Timestamp(
            now.0.saturating_sub((SESSION_TIMEOUT_MS - 2 * HEARTBEAT_INTERVAL_MS).into()),
        );
        for session in self.by_broker.values_mut() {
            session.heard_at = session.heard_at.max(heard);
        }
    }

    /// A broker was fenced: its session is over.
    pub fn ended(&mut self, broker: BrokerId) {
        self.by_broker.remove(&broker);
    }

    /// Whether this stream is the one of the broker's session.
    pub fn belongs_to(&self, broker: BrokerId, stream: StreamId) -> bool {
        self.by_broker.get(&broker).is_some_and(|session| session.stream == Some(stream))
    }

    /// Whether the broker's process is there for all that is known: its stream is open and it is
    /// not silent.
    pub fn is_live(&self, broker: BrokerId, now: Timestamp) -> bool {
        self.by_broker.get(&broker).is_some_and(|session| {
            session.stream.is_some() && session.broke_at.is_none() && session.deadline() > now
        })
    }

    /// The brokers that the controller's predecessor knew and that were not heard of since.
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

    /// When the broker was last heard of.
    pub fn heard_at(&self, broker: BrokerId) -> Option<Timestamp> {
        self.by_broker.get(&broker).map(|session| session.heard_at)
    }

    /// Brokers whose time is up.
    pub fn expired(&self, now: Timestamp) -> Vec<BrokerId> {
        self.by_broker
            .iter()
            .filter(|(_, session)| session.deadline() <= now)
            .map(|(broker, _)| *broker)
            .collect()
    }

    /// When the next broker's time is up, if it is not heard of.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.by_broker.values().map(Session::deadline).min()
    }
}
