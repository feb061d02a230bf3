//! Consumer groups as resources: a `ConsumerGroup` says what is wanted of a group, and its status
//! how it does.
//!
//! `reconcile` decides, from the resource and what was `observed`, and is pure; with it `lag`,
//! `reset`, `marks`, `scale` and `pace`. `look` observes and `act` carries out, as an ordinary
//! client of the brokers by [`crate::kafka`]: no second door to a group. `keep` runs it for all
//! groups of a cluster. Where the resources live is behind [`backend::GroupBackend`]: local mode
//! and Kubernetes.

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
