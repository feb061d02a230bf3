//! The states of a connection as a list of facts: what has happened, and what follows from it.

use super::Frame;
use crate::sasl::{Output, Reply};

/// What is seen of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Answer,
    Refusal,
    Request,
    Keys,
    End,
}

impl Seen {
    pub(super) fn of(output: &Output) -> Self {
        match output {
            Output::Answer(Reply::HandshakeRefused | Reply::AuthenticateRefused) => Self::Refusal,
            Output::Answer(_) => Self::Answer,
            Output::Request(_) => Self::Request,
            Output::BringKeys => Self::Keys,
            Output::Fail { .. } | Output::Close(_) => Self::End,
        }
    }
}

pub(super) struct Model {
    max_ms: u64,
    ended: bool,
    versions_told: bool,
    /// The handshake of a login that is under way: whether its tokens are raw, its mechanism, and
    /// whether keys were brought for it.
    login: Option<(bool, &'static str, bool)>,
    /// The mechanism and the user of the last login, and when it ends.
    session: Option<(&'static str, &'static str, Option<u64>)>,
    last_renewal_ms: Option<u64>,
}

impl Model {
    pub(super) fn new(max_ms: u64) -> Self {
        Self {
            max_ms,
            ended: false,
            versions_told: false,
            login: None,
            session: None,
            last_renewal_ms: None,
        }
    }

    pub(super) fn play(&mut self, frame: &Frame, now_ms: u64) -> Seen {
        let seen = if self.ended { Seen::End } else { self.next(frame, now_ms) };
        self.ended |= seen == Seen::End;
        seen
    }

    fn next(&mut self, frame: &Frame, now_ms: u64) -> Seen {
        match (self.login, self.session) {
            (Some(login), _) => self.token(frame, login, now_ms),
            (None, None) => match frame {
                Frame::Versions(_) if self.versions_told => Seen::End,
                Frame::Versions(asked) => {
                    self.versions_told = asked.is_ok();
                    Seen::Answer
                }
                Frame::Handshake(version, name) => self.handshake(*version, name),
                _ => Seen::End,
            },
            (None, Some((_, _, end))) => {
                let is_renewal = matches!(frame, Frame::Handshake(..))
                    && end.is_some()
                    && self.last_renewal_ms.is_none_or(|last| now_ms >= last + 100);
                if let Frame::Handshake(version, name) = frame
                    && is_renewal
                {
                    self.last_renewal_ms = Some(now_ms);
                    return self.handshake(*version, name);
                }
                if end.is_some_and(|end| end < now_ms) {
                    return Seen::End;
                }
                match frame {
                    Frame::Versions(_) | Frame::Other => Seen::Request,
                    Frame::Handshake(..) | Frame::Authenticate(_) => Seen::Refusal,
                    Frame::Token(_) | Frame::Malformed => Seen::End,
                }
            }
        }
    }

    fn handshake(&mut self, version: i16, name: &'static str) -> Seen {
        if name == "C" {
            return Seen::End;
        }
        self.login = Some((version == 0, name, false));
        Seen::Answer
    }

    fn token(
        &mut self,
        frame: &Frame,
        (is_raw, mechanism, has_keys): (bool, &'static str, bool),
        now_ms: u64,
    ) -> Seen {
        let token = match frame {
            Frame::Token(token) if is_raw => *token,
            Frame::Authenticate(token) if !is_raw => *token,
            _ => return Seen::End,
        };
        if self.session.is_some_and(|(former, _, _)| former != mechanism) {
            return Seen::End;
        }
        let (user, expiry) = match token {
            "go" => return Seen::Answer,
            "key" if has_keys => return Seen::End,
            "key" => {
                self.login = Some((is_raw, mechanism, true));
                return Seen::Keys;
            }
            "bad" | "secret" => return Seen::End,
            done => done.split_once('@').unwrap(),
        };
        if self.session.is_some_and(|(_, former, _)| former != user) {
            return Seen::End;
        }
        let of_credential =
            expiry.parse::<u64>().ok().map(|at| at.saturating_sub(1_000_000 + now_ms));
        let of_listener = (self.max_ms > 0).then_some(self.max_ms);
        let lifetime = match (of_credential, of_listener) {
            (Some(one), Some(other)) => Some(std::cmp::min(one, other)),
            (one, other) => one.or(other),
        };
        self.session = Some((mechanism, user, lifetime.map(|lifetime| now_ms + lifetime)));
        self.login = None;
        Seen::Answer
    }
}
