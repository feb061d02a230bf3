//! OAUTHBEARER as a mechanism of a connection (`OAuthBearerSaslServer`).

use std::fmt;

use super::mechanism::{Context, Failure, Login, Mechanism, Now, Step};
use crate::oauth::{BadToken, ClientResponse, Verified, error_json};
use crate::principal::KafkaPrincipal;

/// Verifies a token.
type Verify = Box<dyn Fn(&str, Now) -> Result<Verified, BadToken> + Send>;

/// A login by OAUTHBEARER.
pub struct OAuthBearer {
    verify: Verify,
    /// Whether the keys were brought up to date for the token.
    keys_are_new: bool,
    /// What the client was told of its token. Whatever it sends then, it is refused.
    refused: Option<(String, BadToken)>,
}

impl OAuthBearer {
    /// A login that asks `verify`, such as [`crate::oauth::verify`] with the present keys.
    pub fn new(verify: impl Fn(&str, Now) -> Result<Verified, BadToken> + Send + 'static) -> Self {
        Self { verify: Box::new(verify), keys_are_new: false, refused: None }
    }
}

impl fmt::Debug for OAuthBearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OAuthBearer({:?})", self.refused)
    }
}

impl Mechanism for OAuthBearer {
    fn step(&mut self, token: &[u8], context: &Context) -> Step {
        if let Some((told, reason)) = self.refused.take() {
            return Step::Failed(Failure { told: Some(told), reason: reason.to_string() });
        }
        let response = match ClientResponse::parse(token) {
            Ok(response) => response,
            Err(error) => return Step::Failed(Failure::untold(error)),
        };
        let verified = match (self.verify)(&response.token, context.now) {
            Ok(verified) => verified,
            Err(BadToken::UnknownKey(_)) if !self.keys_are_new => {
                self.keys_are_new = true;
                return Step::UnknownKey;
            }
            Err(error) => {
                let told = error_json("invalid_token", None, None);
                self.refused = Some((told.clone(), error));
                return Step::Challenge(told.into_bytes());
            }
        };
        let (wanted, subject) = (response.authorization_id, verified.subject);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != subject) {
            return Step::Failed(Failure::told(format!(
                "Authentication failed: Client requested an authorization id ({wanted}) that is \
                 different from the token's principal name ({subject})"
            )));
        }
        Step::Done(Login {
            token: Vec::new(),
            user: KafkaPrincipal::user(&subject),
            expires_at_ms: Some(verified.expires_at_ms),
        })
    }
}
