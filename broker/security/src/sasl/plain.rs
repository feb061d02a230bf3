//! PLAIN (RFC 4616): the client sends its password.

use std::fmt;

use super::mechanism::{Context, Failure, Login, Mechanism, Step};
use crate::principal::KafkaPrincipal;
use crate::secret::Secret;

/// Whether a password is the user's. It must take as long for a user who does not exist.
type IsPassword = Box<dyn Fn(&str, &[u8]) -> bool + Send>;

/// A login by PLAIN (`PlainSaslServer`).
pub struct Plain {
    is_password: IsPassword,
}

impl Plain {
    /// A login that asks `is_password`, such as
    /// [`Credential::is_password`](crate::scram::Credential::is_password).
    pub fn new(is_password: impl Fn(&str, &[u8]) -> bool + Send + 'static) -> Self {
        Self { is_password: Box::new(is_password) }
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plain")
    }
}

impl Mechanism for Plain {
    fn step(&mut self, token: &[u8], _: &Context) -> Step {
        match self.verify(token) {
            Ok(user) => {
                let user = KafkaPrincipal::user(&user);
                Step::Done(Login { token: Vec::new(), user, expires_at_ms: None })
            }
            Err(failure) => Step::Failed(failure),
        }
    }
}

impl Plain {
    /// The user of `[authorization id] NUL user NUL password`.
    fn verify(&self, token: &[u8]) -> Result<String, Failure> {
        let text = Secret::new(token.to_vec());
        let parts: Vec<&[u8]> = text.expose().split(|byte| *byte == 0).take(4).collect();
        let [authorization_id, user, password] = parts[..] else {
            let count = parts.len();
            return Err(Failure::told(format!(
                "Invalid SASL/PLAIN response: expected 3 tokens, got {count}"
            )));
        };
        if user.is_empty() {
            return Err(Failure::told("Authentication failed: username not specified"));
        }
        if password.is_empty() {
            return Err(Failure::told("Authentication failed: password not specified"));
        }
        let wrong = || Failure::told("Authentication failed: Invalid username or password");
        let name = std::str::from_utf8(user).map_err(|_| wrong())?;
        if !(self.is_password)(name, password) {
            return Err(wrong());
        }
        if !authorization_id.is_empty() && authorization_id != user {
            return Err(Failure::told(
                "Authentication failed: Client requested an authorization id that is different \
                 from username",
            ));
        }
        Ok(name.to_owned())
    }
}
