//! Consumer groups as resources: the spec of a `ConsumerGroup` says what is wanted of a group, and
//! its status reports on it.
//!
//! `reconcile` decides, from the resource and what was `observed`, and is pure; with it `lag`,
//! `reset`, `marks`, `scale` and `pace`. `look` observes and `act` carries out, as an ordinary
//! client of the brokers by [`crate::kafka`]; there is no private API. `keep` runs it for all
//! groups of a cluster. [`backend::GroupBackend`] stores the resources: in local mode or on
//! Kubernetes.
//!
//! A look asks the coordinator for members and offsets, and the leaders for the start and end
//! offset of each partition. On Kubernetes it happens every five seconds, and every second during a
//! change. There, one watch feeds a task for each hosted cluster.
//!
//! Invariants
//! - The task writes the status before any action that the status records, and checks the Lease
//!   before each action.
//! - It reads back only `lastReset` and `undo` of the status.
//! - An action uses the public protocol, as any administrator does.
//! - One request commits a reset and its mark. The coordinator writes both or neither. A restarted
//!   operator, or one that finds a recreated resource, reads the mark, so no reset runs twice
//!   (`reset`).
//! - That a group is to be deleted once it has no members is a mark too. Marks are deleted with the
//!   group (`weir_protocol::reset_marks`).
//! - The operator sends no reset to a coordinator whose version has no marks; it would refuse one
//!   as a whole.

pub mod backend;
mod dying;
pub mod execute;
pub mod lag;
pub mod marks;
pub mod mirror;
pub mod observe;
pub mod observed;
pub mod reconcile;
pub mod reset;
pub mod runner;
pub mod scale;
pub mod schedule;

#[cfg(test)]
mod tests;
