//! PURE: the members of a classic group, with two totals: the bytes that they take, and the
//! protocols that all of them support.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use super::member::{Member, Protocols};
use super::spoken::Spoken;

/// The members, by id.
#[derive(Debug, Default)]
pub(in crate::group) struct Members {
    by_id: BTreeMap<Arc<str>, Member>,
    spoken: Spoken,
    bytes: usize,
}

impl Deref for Members {
    type Target = BTreeMap<Arc<str>, Member>;

    fn deref(&self) -> &Self::Target {
        &self.by_id
    }
}

impl Members {
    pub(in crate::group) fn insert(&mut self, member: Member) {
        self.remove(&Arc::clone(&member.id));
        self.bytes += member.bytes();
        self.spoken.add(&member.protocols);
        self.by_id.insert(Arc::clone(&member.id), member);
    }

    pub(in crate::group) fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.by_id.remove(id)?;
        self.bytes = self.bytes.saturating_sub(member.bytes());
        self.spoken.remove(&member.protocols);
        Some(member)
    }

    /// For changes of neither the protocols nor the assignment of a member.
    pub(in crate::group) fn get_mut(&mut self, id: &str) -> Option<&mut Member> {
        self.by_id.get_mut(id)
    }

    /// Like [`Members::get_mut`], for all members.
    pub(in crate::group) fn values_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.by_id.values_mut()
    }

    /// Replaces a member's protocols.
    pub(in crate::group) fn say(&mut self, id: &str, protocols: Protocols) {
        if let Some(mut member) = self.remove(id) {
            member.protocols = protocols;
            self.insert(member);
        }
    }

    pub(in crate::group) fn assign(&mut self, id: &str, assignment: Bytes) {
        if let Some(member) = self.by_id.get_mut(id) {
            self.bytes = (self.bytes + assignment.len()).saturating_sub(member.assignment.len());
            member.assignment = assignment;
        }
    }

    /// Removes all assignments.
    pub(in crate::group) fn unassign(&mut self) {
        for member in self.by_id.values_mut() {
            self.bytes = self.bytes.saturating_sub(member.assignment.len());
            member.assignment = Bytes::new();
        }
    }

    /// Whether all members support this protocol.
    pub(in crate::group) fn support(&self, protocol: &str) -> bool {
        self.spoken.by_all(protocol)
    }

    /// The bytes that they take ([`crate::group::memory`]).
    pub(in crate::group) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same, computed anew.
    #[cfg(test)]
    pub(in crate::group) fn counted(&self) -> usize {
        self.by_id.values().map(Member::bytes).sum()
    }
}
