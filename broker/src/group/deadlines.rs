//! PURE: the deadlines of all groups of one partition: one ordered queue, without timers of their
//! own.
//!
//! An entry stays in the queue when its deadline moves. Its owner checks, when the entry comes up,
//! whether it still counts. So a heartbeat costs one comparison.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::sync::Arc;

/// An event that is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// Offsets and groups are checked for expiry.
    Expiry,
    /// A group's join phase ends.
    Join(Arc<str>),
    /// All members that joined must have synced.
    Sync(Arc<str>),
    /// A member must have done its part of a rebalance: revoked partitions, joined again, or
    /// synced.
    Rebalance(Arc<str>, Arc<str>),
    /// The session of a member ends.
    Session(Arc<str>, Arc<str>),
}

/// The queue. Times are on the clock of [`Now::ms`](crate::coordinator::Now).
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    queue: BTreeSet<(u64, Due)>,
}

impl Deadlines {
    pub(super) fn add(&mut self, at: u64, due: Due) {
        self.queue.insert((at, due));
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.queue.first().map(|(at, _)| *at)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Removes and returns the first event that is due at `now`, with its time.
    pub(super) fn pop(&mut self, now: u64) -> Option<(u64, Due)> {
        if self.next()? > now {
            return None;
        }
        self.queue.pop_first()
    }
}

/// A deadline. It has at most one live entry in the queue, which may be too early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deadline {
    ends: Option<u64>,
    queued: Option<u64>,
}

impl Deadline {
    /// Sets or moves the deadline.
    pub(super) fn set(&mut self, until: u64, due: Due, deadlines: &mut Deadlines) {
        self.ends = Some(until);
        if self.queued.is_none_or(|queued| queued > until) {
            self.queued = Some(until);
            deadlines.add(until, due);
        }
    }

    /// Clears the deadline.
    pub(super) fn clear(&mut self) {
        self.ends = None;
    }

    pub(super) fn is_set(&self) -> bool {
        self.ends.is_some()
    }

    /// Handles a queue entry that was due `at`; returns whether the deadline has passed.
    pub(super) fn is_up(&mut self, at: u64, due: &Due, deadlines: &mut Deadlines) -> bool {
        if self.queued != Some(at) {
            return false;
        }
        self.queued = None;
        match self.ends {
            None => false,
            Some(ends) if ends > at => {
                self.set(ends, due.clone(), deadlines);
                false
            }
            Some(_) => {
                self.ends = None;
                true
            }
        }
    }
}

/// The deadline for a member's next heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Session(Deadline);

/// The meaning of a queue entry for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionIs {
    /// The session has expired.
    Over,
    /// It has not expired, or the entry is an old one.
    Alive,
}

impl Session {
    /// Sets or moves the end of the session.
    pub(super) fn extend(
        &mut self,
        until: u64,
        group: &Arc<str>,
        member: &Arc<str>,
        deadlines: &mut Deadlines,
    ) {
        self.0.set(until, Due::Session(Arc::clone(group), Arc::clone(member)), deadlines);
    }

    /// Handles a queue entry that was due `at`.
    pub(super) fn due(
        &mut self,
        at: u64,
        group: &Arc<str>,
        member: &Arc<str>,
        deadlines: &mut Deadlines,
    ) -> SessionIs {
        match self.0.is_up(at, &Due::Session(Arc::clone(group), Arc::clone(member)), deadlines) {
            true => SessionIs::Over,
            false => SessionIs::Alive,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_it_was_last_said_to_end() {
        let (group, member): (Arc<str>, Arc<str>) = ("g".into(), "m".into());
        let mut deadlines = Deadlines::default();
        let mut session = Session::default();
        session.extend(10, &group, &member, &mut deadlines);
        session.extend(15, &group, &member, &mut deadlines);
        assert_eq!(deadlines.next(), Some(10), "one entry");
        assert_eq!(deadlines.pop(9), None);
        let (at, _) = deadlines.pop(10).unwrap();
        assert_eq!(session.due(at, &group, &member, &mut deadlines), SessionIs::Alive);
        assert_eq!(deadlines.next(), Some(15));
        // A session that is shorter than the one before.
        session.extend(12, &group, &member, &mut deadlines);
        let (at, _) = deadlines.pop(12).unwrap();
        assert_eq!(session.due(at, &group, &member, &mut deadlines), SessionIs::Over);
        let (at, _) = deadlines.pop(20).unwrap();
        assert_eq!(
            session.due(at, &group, &member, &mut deadlines),
            SessionIs::Alive,
            "an old entry"
        );
        assert_eq!(deadlines.pop(100), None);
    }
}
