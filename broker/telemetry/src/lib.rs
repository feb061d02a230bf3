//! What Weir's long-running programs tell about themselves, the broker and the operator alike: log
//! lines ([`logs`]), and pages over HTTP for Prometheus, kubelets and people ([`pages`]). What is
//! in them is each program's own. And how both listen ([`listen`]).

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod listen;
pub mod logs;
pub mod pages;
pub mod process;
