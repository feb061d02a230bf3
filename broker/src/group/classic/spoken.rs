//! PURE: the protocols that the members of a group support (`ClassicGroup.supportedProtocols` in
//! Apache Kafka). Counted, because each JoinGroup asks for it, and members and protocols are many.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::member::Protocols;

/// The number of members that support each protocol.
#[derive(Debug, Default)]
pub(in crate::group) struct Spoken {
    members: usize,
    by_name: BTreeMap<Arc<str>, usize>,
}

/// The names without repetitions: a member may name a protocol twice.
fn names(protocols: &Protocols) -> BTreeSet<&Arc<str>> {
    protocols.iter().map(|(name, _)| name).collect()
}

impl Spoken {
    pub(in crate::group) fn add(&mut self, protocols: &Protocols) {
        self.members += 1;
        for name in names(protocols) {
            *self.by_name.entry(Arc::clone(name)).or_default() += 1;
        }
    }

    pub(in crate::group) fn remove(&mut self, protocols: &Protocols) {
        self.members = self.members.saturating_sub(1);
        for name in names(protocols) {
            if let Some(count) = self.by_name.get_mut(name) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.by_name.remove(name);
                }
            }
        }
    }

    /// Whether all members support this protocol.
    pub(in crate::group) fn by_all(&self, name: &str) -> bool {
        self.members == 0 || self.by_name.get(name) == Some(&self.members)
    }
}
