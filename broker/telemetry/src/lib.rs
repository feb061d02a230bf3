//! How the broker and the operator report on themselves: log lines ([`logs`]), few of a
//! kind ([`complaints`]), and HTTP pages for
//! Prometheus, the kubelet and people ([`pages`]). Each program supplies the contents. Both also
//! listen through this crate ([`listen`]).

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod complaints;
pub mod listen;
pub mod logs;
pub mod pages;
pub mod process;
