//! Tests the `weir-broker` binary as a process: its APIs over real sockets, its stops and restarts,
//! and its refusals to start.
//!
//! The controller is played by the test (`support::controller`), so that it can go away, come back
//! and refuse. Each test has a directory, ports and processes of its own.
#![allow(clippy::unwrap_used)]

mod apis;
mod consume;
mod consumer_groups;
mod coordinators;
mod damaged;
mod disk;
mod groups;
mod leaders;
mod lifecycle;
mod loading;
mod order;
mod pages;
mod produce;
mod refusals;
mod replication;
mod resume;
mod support;
mod tls;
mod tls_refusals;
mod transactions;
mod unstable;
