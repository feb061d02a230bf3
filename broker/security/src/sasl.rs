//! SASL on a connection: which frames it takes, what it answers, and when a request may go on.
//!
//! `net` keeps a [`Connection`] for each client of a listener with SASL. It decodes the frame that
//! the connection [expects](Connection::expects), hands it over as an [`Input`], and does what the
//! [`Output`] says. The mechanisms are plug-ins ([`Mechanism`]).
//!
//! Invariants
//! - A request reaches a handler only with an [`Authenticated`]. On a listener with SASL only a
//!   login makes one.
//! - After the session's end nothing goes on but a new login.
//! - A connection has one attempt: after a failure it is closed.

mod authenticated;
mod connection;
mod mechanism;
mod oauth;
mod plain;
mod scram;

#[cfg(test)]
mod tests;

pub use authenticated::Authenticated;
pub use connection::{
    Config, Connection, Expects, Input, Output, REAUTHENTICATION_INTERVAL_MIN_MS, Refusal, Reply,
};
pub use mechanism::{Context, Failure, Login, Mechanism, Mechanisms, Now, Step};
pub use oauth::OAuthBearer;
pub use plain::Plain;
pub use scram::Scram;
