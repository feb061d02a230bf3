//! PURE: the state of a consumer group by member or regular expression, with the bytes that it
//! takes. Every insertion and removal is counted here ([`crate::group::memory`]).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{ConsumerGroup, Member, Partitions};
use crate::group::memory::{NAME_BYTES, TARGET_BYTES};

fn bytes_of_target(target: &Partitions) -> usize {
    TARGET_BYTES * target.values().map(BTreeSet::len).sum::<usize>()
}

/// The bytes of a regular expression and the names of its topics.
fn bytes_of_regex(pattern: &str, topics: &BTreeSet<Arc<str>>) -> usize {
    pattern.len() + topics.iter().map(|name| NAME_BYTES + name.len()).sum::<usize>()
}

impl ConsumerGroup {
    /// The bytes that its members take.
    pub(in crate::group) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes of a member's fields; for a static member those of its predecessor.
    pub(in crate::group) fn bytes_of_member(&self, id: &str, instance: Option<&str>) -> usize {
        let of_instance = || self.statics.get(instance?);
        let known = self.members.get(id).or_else(|| self.members.get(of_instance()?));
        known.map_or(0, Member::said_bytes)
    }

    /// The same as [`ConsumerGroup::bytes`], computed anew.
    #[cfg(test)]
    pub(in crate::group) fn counted(&self) -> usize {
        let members =
            self.members.values().map(|member| member.said_bytes() + member.current.bytes());
        let targets = self.targets.values().map(bytes_of_target);
        let regexes = self.regexes.iter().map(|(pattern, topics)| bytes_of_regex(pattern, topics));
        members.chain(targets).chain(regexes).sum()
    }

    fn less(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Inserts or replaces a member, with its present partitions.
    pub(super) fn put_member(&mut self, member: Member) {
        self.take_member(&Arc::clone(&member.id));
        self.bytes += member.said_bytes() + member.current.bytes();
        if let Some(classic) = &member.classic {
            self.spoken.add(&classic.protocols);
        }
        self.members.insert(Arc::clone(&member.id), member);
    }

    pub(super) fn take_member(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        self.less(member.said_bytes() + member.current.bytes());
        if let Some(classic) = &member.classic {
            self.spoken.remove(&classic.protocols);
        }
        Some(member)
    }

    pub(super) fn put_target(&mut self, id: Arc<str>, target: Partitions) {
        self.bytes += bytes_of_target(&target);
        if let Some(before) = self.targets.insert(id, target) {
            self.less(bytes_of_target(&before));
        }
    }

    pub(super) fn remove_target(&mut self, id: &str) {
        if let Some(before) = self.targets.remove(id) {
            self.less(bytes_of_target(&before));
        }
    }

    pub(super) fn put_regex(&mut self, pattern: Arc<str>, topics: BTreeSet<Arc<str>>) {
        self.remove_regex(&pattern);
        self.bytes += bytes_of_regex(&pattern, &topics);
        self.regexes.insert(pattern, topics);
    }

    pub(super) fn remove_regex(&mut self, pattern: &str) {
        if let Some(topics) = self.regexes.remove(pattern) {
            self.less(bytes_of_regex(pattern, &topics));
        }
    }
}
