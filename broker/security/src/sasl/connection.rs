//! The states of a connection, from its first frame on (`SaslServerAuthenticator`).

use super::authenticated::Authenticated;
use super::mechanism::{Context, Failure, Login, Mechanism, Mechanisms, Now, Step};
use crate::principal::KafkaPrincipal;

/// How soon a client may log in again after it began to do so. Kafka's second is too long for
/// kafkajs, which does it before each request when sessions are short, and gives up when refused.
pub const REAUTHENTICATION_INTERVAL_MIN_MS: u64 = 100;

/// The settings of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// `connections.max.reauth.ms`: how long a session lasts; 0 is for ever.
    pub reauthentication_max_ms: u64,
    /// `sasl.server.max.receive.size`: the longest frame before the login, in bytes.
    pub frame_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { reauthentication_max_ms: 0, frame_bytes_max: 524_288 }
    }
}

/// What the next frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expects {
    /// A request with a header, at most this long. Any API but ApiVersions, SaslHandshake and
    /// SaslAuthenticate is to be handed over as [`Input::Other`] before its body is decoded.
    Login {
        /// The bytes of the frame.
        frame_bytes_max: usize,
    },
    /// A token without any header, at most this long.
    Token {
        /// The bytes of the frame.
        frame_bytes_max: usize,
    },
    /// A request of a client that has logged in.
    Request,
    /// Nothing: the connection ends.
    Nothing,
}

/// A frame that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// ApiVersions.
    ApiVersions(Result<(), Refusal>),
    /// SaslHandshake in a version that is served.
    Handshake {
        /// The version.
        version: i16,
        /// The mechanism.
        mechanism: &'a str,
    },
    /// SaslAuthenticate in a version that is served.
    Authenticate {
        /// The token.
        token: &'a [u8],
    },
    /// A token without header.
    Token(&'a [u8]),
    /// Another request.
    Other,
    /// No request at all, a version of a SASL request that is not served, or a frame that is too
    /// long.
    Malformed,
}

/// Why an ApiVersions request gets an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// UNSUPPORTED_VERSION (35), answered in version 0.
    Version,
    /// INVALID_REQUEST (42), for the client's name of its software.
    Software,
}

/// What to do about a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this, and read on.
    Answer(Reply),
    /// Give the request to its handler. Who sent it is what the connection has learnt.
    Request(Authenticated),
    /// Bring the keys of tokens up to date if that may be done now, and hand over the same frame
    /// again.
    BringKeys,
    /// After `connection.failed.authentication.delay.ms`, send this if there is something, and
    /// close the connection. The delay slows down those who guess.
    Fail {
        /// The last answer.
        answer: Option<Reply>,
        /// Why, for the log.
        reason: String,
    },
    /// Close the connection without an answer.
    Close(&'static str),
}

/// An answer to a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// To ApiVersions: the list, or an error.
    ApiVersions(Result<(), Refusal>),
    /// To SaslHandshake: 0, and the mechanisms.
    Handshake,
    /// To SaslHandshake: UNSUPPORTED_SASL_MECHANISM (33), and the mechanisms.
    UnknownMechanism,
    /// To SaslHandshake at a wrong time: ILLEGAL_SASL_STATE (34).
    HandshakeRefused,
    /// To SaslAuthenticate: 0.
    Authenticate {
        /// The server's token, which may be empty.
        token: Vec<u8>,
        /// From version 1 on. 0 while the login goes on, and for sessions without end.
        session_lifetime_ms: u64,
    },
    /// To SaslAuthenticate: SASL_AUTHENTICATION_FAILED (58).
    Failed(String),
    /// To SaslAuthenticate at a wrong time: ILLEGAL_SASL_STATE (34).
    AuthenticateRefused,
    /// To another request during a login: its own response with ILLEGAL_SASL_STATE (34).
    IllegalState,
    /// A frame without any header, which may be empty.
    Token(Vec<u8>),
}

/// How tokens travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// Raw, after SaslHandshake version 0.
    Raw,
    /// In SaslAuthenticate.
    Requests,
}

#[derive(Debug)]
enum State {
    /// ApiVersions or SaslHandshake.
    Initial,
    /// After ApiVersions: SaslHandshake.
    Handshake,
    /// Tokens.
    Tokens(Attempt),
    Ready(Session),
    Over,
}

/// A login that is under way.
#[derive(Debug)]
struct Attempt {
    mechanism: String,
    framing: Framing,
    /// `None` when it is another mechanism than that of the session: the first token fails.
    login: Option<Box<dyn Mechanism>>,
    /// The session that it is to go on with.
    former: Option<Session>,
    /// Whether the keys were brought up to date for its token.
    keys_are_new: bool,
}

/// A client that has logged in.
#[derive(Clone, Debug)]
struct Session {
    user: KafkaPrincipal,
    mechanism: String,
    /// By the monotonic clock; `None` is never.
    ends_at_ms: Option<u64>,
    /// When the last login on top of it began, by the monotonic clock.
    renewal_began_ms: Option<u64>,
}

/// The state of a connection on a listener with SASL.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    state: State,
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(config: Config) -> Self {
        Self { config, state: State::Initial }
    }

    /// What the next frame is, and how long it may be.
    pub fn expects(&self) -> Expects {
        let frame_bytes_max = self.config.frame_bytes_max;
        match &self.state {
            State::Initial | State::Handshake => Expects::Login { frame_bytes_max },
            State::Tokens(Attempt { framing: Framing::Requests, .. }) => {
                Expects::Login { frame_bytes_max }
            }
            State::Tokens(Attempt { framing: Framing::Raw, .. }) => {
                Expects::Token { frame_bytes_max }
            }
            State::Ready(_) => Expects::Request,
            State::Over => Expects::Nothing,
        }
    }

    /// The user who has logged in. During a new login on top it is that of the session.
    pub fn user(&self) -> Option<&KafkaPrincipal> {
        match &self.state {
            State::Ready(session) => Some(&session.user),
            State::Tokens(Attempt { former: Some(session), .. }) => Some(&session.user),
            _ => None,
        }
    }

    /// Takes a frame. A token may cost milliseconds of a processor: call it where that holds up
    /// nobody.
    pub fn input(
        &mut self,
        input: Input<'_>,
        mechanisms: &dyn Mechanisms,
        context: &Context,
    ) -> Output {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Initial => self.before_login(input, true, mechanisms),
            State::Handshake => self.before_login(input, false, mechanisms),
            State::Tokens(attempt) => self.token(attempt, input, context),
            State::Ready(session) => self.ready(session, input, mechanisms, context.now),
            State::Over => Output::Close("the connection is over"),
        }
    }

    fn before_login(
        &mut self,
        input: Input<'_>,
        may_ask_versions: bool,
        mechanisms: &dyn Mechanisms,
    ) -> Output {
        match input {
            Input::ApiVersions(asked) if may_ask_versions => {
                // A client that asked in vain asks again.
                self.state = if asked.is_ok() { State::Handshake } else { State::Initial };
                Output::Answer(Reply::ApiVersions(asked))
            }
            Input::ApiVersions(_) => Output::Close("a second ApiVersions before the login"),
            Input::Handshake { version, mechanism } => {
                self.handshake(version, mechanism, None, mechanisms)
            }
            Input::Authenticate { .. } | Input::Token(_) | Input::Other => {
                Output::Close("a request before the login")
            }
            Input::Malformed => Output::Close("no request that a login begins with"),
        }
    }

    fn handshake(
        &mut self,
        version: i16,
        name: &str,
        former: Option<Session>,
        mechanisms: &dyn Mechanisms,
    ) -> Output {
        let Some(login) = mechanisms.start(name) else {
            let reason = "a SASL mechanism that is not enabled".to_owned();
            return Output::Fail { answer: Some(Reply::UnknownMechanism), reason };
        };
        let is_same = former.as_ref().is_none_or(|session| session.mechanism == name);
        self.state = State::Tokens(Attempt {
            mechanism: name.to_owned(),
            framing: if version == 0 { Framing::Raw } else { Framing::Requests },
            login: Some(login).filter(|_| is_same),
            former,
            keys_are_new: false,
        });
        Output::Answer(Reply::Handshake)
    }

    fn token(&mut self, mut attempt: Attempt, input: Input<'_>, context: &Context) -> Output {
        let token = match (attempt.framing, input) {
            (Framing::Requests, Input::Authenticate { token }) => token,
            (Framing::Raw, Input::Token(token)) => token,
            (Framing::Requests, Input::Other | Input::ApiVersions(_)) => {
                let reason = "another request during the login".to_owned();
                return Output::Fail { answer: Some(Reply::IllegalState), reason };
            }
            (Framing::Requests, Input::Handshake { .. }) => {
                let reason = "a second SaslHandshake during the login".to_owned();
                return Output::Fail { answer: Some(Reply::HandshakeRefused), reason };
            }
            _ => return Output::Close("no token of a login"),
        };
        let Some(login) = &mut attempt.login else {
            let former = attempt.former.as_ref().map_or("", |session| &session.mechanism);
            let mechanism = &attempt.mechanism;
            return attempt.failed(Failure::told(format!(
                "SASL mechanism '{mechanism}' requested by client is not supported for \
                 re-authentication of mechanism '{former}'"
            )));
        };
        match login.step(token, context) {
            Step::Challenge(token) => {
                let answer = attempt.answer(token, 0);
                self.state = State::Tokens(attempt);
                Output::Answer(answer)
            }
            Step::UnknownKey if attempt.keys_are_new => {
                attempt.failed(Failure::untold("the key is unknown, though the keys are new"))
            }
            Step::UnknownKey => {
                attempt.keys_are_new = true;
                self.state = State::Tokens(attempt);
                Output::BringKeys
            }
            Step::Failed(failure) => attempt.failed(failure),
            Step::Done(login) => self.done(attempt, login, context.now),
        }
    }

    fn done(&mut self, attempt: Attempt, login: Login, now: Now) -> Output {
        if let Some(session) = &attempt.former
            && session.user != login.user
        {
            let (before, after) = (&session.user, &login.user);
            return attempt.failed(Failure::told(format!(
                "Cannot change principals during re-authentication from {}.{}: {}.{}",
                before.kind(),
                before.name(),
                after.kind(),
                after.name()
            )));
        }
        let lifetime_ms = self.lifetime_ms(login.expires_at_ms, now);
        let answer = attempt.answer(login.token, lifetime_ms.unwrap_or(0));
        self.state = State::Ready(Session {
            user: login.user,
            mechanism: attempt.mechanism,
            ends_at_ms: lifetime_ms.map(|lifetime| now.monotonic_ms.saturating_add(lifetime)),
            renewal_began_ms: attempt.former.and_then(|session| session.renewal_began_ms),
        });
        Output::Answer(answer)
    }

    /// How long the session lasts: `None` is without end. A credential that has ended gives a
    /// session of no length, and not one without end (KAFKA-13848).
    fn lifetime_ms(&self, expires_at_ms: Option<i64>, now: Now) -> Option<u64> {
        let of_credential =
            expires_at_ms.map(|at| u64::try_from(at.saturating_sub(now.wall_ms)).unwrap_or(0));
        let of_listener =
            Some(self.config.reauthentication_max_ms).filter(|lifetime| *lifetime > 0);
        match (of_credential, of_listener) {
            (Some(credential), Some(listener)) => Some(credential.min(listener)),
            (credential, listener) => credential.or(listener),
        }
    }

    /// `SocketServer.processCompletedReceives`, and `KafkaApis` for SASL requests at a wrong time.
    fn ready(
        &mut self,
        mut session: Session,
        input: Input<'_>,
        mechanisms: &dyn Mechanisms,
        now: Now,
    ) -> Output {
        let now_ms = now.monotonic_ms;
        if let Input::Handshake { version, mechanism } = input
            && session.may_be_renewed(now_ms)
        {
            session.renewal_began_ms = Some(now_ms);
            return self.handshake(version, mechanism, Some(session), mechanisms);
        }
        if session.ends_at_ms.is_some_and(|end| now_ms > end) {
            return Output::Close("the session has ended, and the client has not logged in again");
        }
        let output = match input {
            Input::Handshake { .. } => Output::Answer(Reply::HandshakeRefused),
            Input::Authenticate { .. } => Output::Answer(Reply::AuthenticateRefused),
            Input::Malformed | Input::Token(_) => return Output::Close("no request"),
            Input::ApiVersions(_) | Input::Other => {
                Output::Request(Authenticated::by_login(session.user.clone()))
            }
        };
        self.state = State::Ready(session);
        output
    }
}

impl Session {
    fn may_be_renewed(&self, now_ms: u64) -> bool {
        let is_soon = |began: u64| now_ms.saturating_sub(began) < REAUTHENTICATION_INTERVAL_MIN_MS;
        self.ends_at_ms.is_some() && !self.renewal_began_ms.is_some_and(is_soon)
    }
}

impl Attempt {
    fn answer(&self, token: Vec<u8>, session_lifetime_ms: u64) -> Reply {
        match self.framing {
            Framing::Raw => Reply::Token(token),
            Framing::Requests => Reply::Authenticate { token, session_lifetime_ms },
        }
    }

    fn failed(&self, failure: Failure) -> Output {
        let (mechanism, what) = match &self.former {
            None => (&self.mechanism, "authentication"),
            Some(_) => (&self.mechanism, "re-authentication"),
        };
        let general = || {
            format!(
                "Authentication failed during {what} due to invalid credentials with SASL \
                 mechanism {mechanism}"
            )
        };
        let told = failure.told.unwrap_or_else(general);
        Output::Fail {
            answer: (self.framing == Framing::Requests).then_some(Reply::Failed(told)),
            reason: failure.reason,
        }
    }
}
