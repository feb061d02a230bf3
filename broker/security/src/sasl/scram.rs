//! SCRAM as a mechanism of a connection (`ScramSaslServer`).

use std::fmt;

use super::mechanism::{Context, Failure, Login, Mechanism, Step};
use crate::principal::KafkaPrincipal;
use crate::scram::{ClientFirst, Credential, Server};

/// The credential of a user; of one who does not exist that of nobody.
type CredentialOf = Box<dyn Fn(&str) -> Credential + Send>;

/// A login by SCRAM.
pub struct Scram {
    credential_of: CredentialOf,
    state: State,
}

#[derive(Debug)]
enum State {
    First,
    Final(Box<Server>),
    Over,
}

impl Scram {
    /// A login with the credentials of one mechanism. For a user who does not exist, give
    /// [`Credential::of_nobody`]: the client must not learn who exists.
    pub fn new(credential_of: impl Fn(&str) -> Credential + Send + 'static) -> Self {
        Self { credential_of: Box::new(credential_of), state: State::First }
    }
}

impl fmt::Debug for Scram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scram({:?})", self.state)
    }
}

impl Mechanism for Scram {
    fn step(&mut self, token: &[u8], context: &Context) -> Step {
        let step = match std::mem::replace(&mut self.state, State::Over) {
            State::First => self.begin(token, context),
            State::Final(server) => finish(*server, token),
            State::Over => Err(Failure::untold("a token after the end of the login")),
        };
        step.unwrap_or_else(Step::Failed)
    }
}

impl Scram {
    fn begin(&mut self, token: &[u8], context: &Context) -> Result<Step, Failure> {
        let first = ClientFirst::parse(token).map_err(Failure::untold)?;
        if first.is_token() {
            return Err(Failure::untold("delegation tokens are not supported"));
        }
        if first.wants_another_user() {
            return Err(Failure::told(
                "Authentication failed: Client requested an authorization id that is different \
                 from username",
            ));
        }
        let credential = (self.credential_of)(first.user());
        let (server, message) = Server::begin(first, credential, &context.random);
        self.state = State::Final(Box::new(server));
        Ok(Step::Challenge(message))
    }
}

fn finish(server: Server, token: &[u8]) -> Result<Step, Failure> {
    let accepted = server.finish(token).map_err(Failure::untold)?;
    Ok(Step::Done(Login {
        token: accepted.message,
        user: KafkaPrincipal::user(&accepted.user),
        expires_at_ms: None,
    }))
}
