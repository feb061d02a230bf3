//! PURE: the server-side assignors `uniform` and `range` (KIP-848): which member is to have which
//! partitions.
//!
//! Both are functions of the subscriptions and of what was assigned before, with nothing left to
//! chance: two coordinators come to the same result.
//!
//! Others' groups wait for the same coordinator meanwhile: what an assignment costs is in
//! proportion to what members are subscribed to and to the partitions, `uniform::ROUNDS_MAX` times
//! at most.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod candidate;
mod range;
mod uniform;

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

pub(in crate::group) use self::candidate::{Candidate, Partitions, Topic};
use self::range::range;
use self::uniform::uniform;

/// The assignors, in the order in which they are preferred.
pub(in crate::group) const NAMES: [&str; 2] = ["uniform", "range"];

/// Runs the assignor of this name.
pub(in crate::group) fn assign(
    name: &str,
    members: &[Candidate<'_>],
    topics: &BTreeMap<Uuid, Topic>,
) -> BTreeMap<Arc<str>, Partitions> {
    let assigned = match name {
        "range" => range(members, topics),
        _ => uniform(members, topics).0,
    };
    members
        .iter()
        .zip(assigned)
        .map(|(member, partitions)| (Arc::clone(member.id), partitions))
        .collect()
}

#[cfg(test)]
mod tests;
