//! PURE: the server-side assignors `uniform` and `range` (KIP-848), which assign partitions to
//! members.
//!
//! Both are deterministic functions of the subscriptions and of the previous assignment, so two
//! coordinators get the same result.
//!
//! Other groups of the same coordinator wait meanwhile. So the cost of an assignment is in
//! proportion to the subscriptions and partitions, at most `uniform::ROUNDS_MAX` times.
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

/// The assignors, in order of preference.
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
