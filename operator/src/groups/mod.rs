//! Consumer groups as resources: a `ConsumerGroup` says what is wanted of a group, and its status
//! how it does.
//!
//! `reconcile` decides, from the resource and what was `observed`, and is pure; with it `lag`,
//! `reset`, `marks`, `scale` and `pace`. `look` observes and `act` carries out, as an ordinary
//! client of the brokers by [`crate::kafka`]: no second door to a group. `keep` runs it for all
//! groups of a cluster. Where the resources live is behind [`backend::GroupBackend`]: local mode
//! and Kubernetes.
//!
//! A look asks the coordinator for members and offsets, and the leaders for both ends of each
//! partition. It comes every five seconds, and every second while something is under way. On
//! Kubernetes one watch feeds a task for each hosted cluster.
//!
//! Invariants
//! - The status is written before anything is done that it speaks of, and the Lease is checked
//!   before each action.
//! - Of the status only `lastReset` and `undo` are read back.
//! - An action uses the public protocol, as any administrator does.
//! - A reset is committed in one request with a mark. The coordinator writes both or neither. An
//!   operator that begins anew, or finds a resource that was made again, asks for the mark, so no
//!   reset runs twice (`reset`).
//! - A group's own wish to be deleted, once it has no members, is a mark too. Marks go with the
//!   group (`weir_protocol::reset_marks`).
//! - A coordinator of a version without marks is asked for no reset, and would refuse one as a
//!   whole.

pub mod act;
pub mod backend;
mod dying;
pub mod keep;
pub mod lag;
pub mod look;
pub mod marks;
pub mod observed;
pub mod pace;
pub mod reconcile;
pub mod reflect;
pub mod reset;
pub mod scale;

#[cfg(test)]
mod tests;
