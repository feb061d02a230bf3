//! What a mechanism is to a connection.

use std::fmt;

use crate::principal::KafkaPrincipal;

/// The time, by two clocks, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// By a clock that never goes back: for the lengths of sessions.
    pub monotonic_ms: u64,
    /// Since 1970: for what is written in tokens.
    pub wall_ms: i64,
}

/// What a step may need from outside.
#[derive(Clone, Copy)]
pub struct Context {
    /// The time.
    pub now: Now,
    /// Random bytes that nobody else has seen or will see.
    pub random: [u8; 24],
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("now", &self.now).finish_non_exhaustive()
    }
}

/// One login by one mechanism.
pub trait Mechanism: fmt::Debug + Send {
    /// Takes the client's next token. It may take milliseconds of a processor: call it where that
    /// holds up nobody.
    fn step(&mut self, token: &[u8], context: &Context) -> Step;
}

/// What comes of a token.
#[derive(Debug)]
pub enum Step {
    /// The login goes on with this token of the server.
    Challenge(Vec<u8>),
    /// The login has succeeded.
    Done(Login),
    /// The login has failed.
    Failed(Failure),
    /// The token is signed with a key that is not known. Bring the keys up to date if that may be
    /// done now, and give the same token once more; the mechanism asks only once.
    UnknownKey,
}

/// A login that has succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The last token of the server; empty if there is none.
    pub token: Vec<u8>,
    /// The user.
    pub user: KafkaPrincipal,
    /// When the credential ends, in milliseconds since 1970; `None` if it does not.
    pub expires_at_ms: Option<i64>,
}

/// A login that has failed.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the client may know; `None` is the general text.
    pub told: Option<String>,
    /// The reason, for the log.
    pub reason: String,
}

impl Failure {
    /// A failure of which the client learns nothing.
    pub fn untold(reason: impl fmt::Display) -> Self {
        Self { told: None, reason: reason.to_string() }
    }

    /// A failure of which the client learns the reason.
    pub fn told(reason: impl fmt::Display) -> Self {
        Self { told: Some(reason.to_string()), reason: reason.to_string() }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// The mechanisms of a listener.
pub trait Mechanisms {
    /// Their names, as clients are told them.
    fn names(&self) -> &[String];

    /// Begins a login; `None` for a mechanism that the listener does not have. Case matters.
    fn start(&self, name: &str) -> Option<Box<dyn Mechanism>>;
}
