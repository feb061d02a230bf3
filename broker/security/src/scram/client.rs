//! The client's side of a login.

use std::fmt;
use std::num::NonZeroU32;

use super::mechanism::Mechanism;
use super::message::{Malformed, ServerFirst, decoded, encoded, escaped};
use crate::secret::Secret;

/// The header: no channel binding, no authorization id.
const HEADER: &str = "n,,";

/// The fewest iterations that a client takes: fewer make the password easy to guess.
const ITERATIONS_MIN: u32 = 4096;

/// The most iterations that a client takes: a server must not keep a processor busy.
const ITERATIONS_MAX: u32 = 1_000_000;

/// Why a client gives up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// A message is malformed.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The server's nonce does not begin with the client's.
    #[error("the server's nonce does not begin with the client's")]
    Nonce,
    /// Too few or too many iterations.
    #[error("the server wants {0} iterations")]
    Iterations(u32),
    /// The server says why it refuses.
    #[error("the server refuses the login: {0}")]
    Refused(String),
    /// The server does not know the password either.
    #[error("the server's signature is wrong: it does not know the password")]
    Signature,
    /// A message came when none was to come.
    #[error("the server sent a message too many")]
    Unexpected,
}

/// A client that logs in.
pub struct Client {
    mechanism: Mechanism,
    user: String,
    password: Secret,
    nonce: String,
    /// The server's key and what it has to sign, once the proof is sent.
    expected: Option<Secret>,
}

impl Client {
    /// A client with a user's password.
    pub fn new(mechanism: Mechanism, user: &str, password: &str, random: &[u8; 24]) -> Self {
        Self::with_nonce(mechanism, user, password, encoded(random))
    }

    pub(super) fn with_nonce(
        mechanism: Mechanism,
        user: &str,
        password: &str,
        nonce: String,
    ) -> Self {
        let password = Secret::new(password.as_bytes().to_vec());
        Self { mechanism, user: user.to_owned(), password, nonce, expected: None }
    }

    fn bare(&self) -> String {
        format!("n={},r={}", escaped(&self.user), self.nonce)
    }

    /// The first message.
    pub fn first(&self) -> Vec<u8> {
        format!("{HEADER}{}", self.bare()).into_bytes()
    }

    /// The final message, with the proof.
    ///
    /// # Errors
    /// When the server's message is not for this login, or asks for what no client should do.
    pub fn answer(&mut self, server_first: &[u8]) -> Result<Vec<u8>, ClientError> {
        let text = std::str::from_utf8(server_first).map_err(|_| Malformed("not UTF-8"))?;
        let server = ServerFirst::parse(text)?;
        let own = server.nonce.strip_prefix(&*self.nonce);
        if own.is_none_or(str::is_empty) {
            return Err(ClientError::Nonce);
        }
        let iterations = Some(server.iterations)
            .filter(|many| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(many))
            .and_then(NonZeroU32::new)
            .ok_or(ClientError::Iterations(server.iterations))?;
        let mechanism = self.mechanism;
        let salted = mechanism.salted_password(self.password.expose(), &server.salt, iterations);
        let without_proof = format!("c={},r={}", encoded(HEADER.as_bytes()), server.nonce);
        let signed = format!("{},{text},{without_proof}", self.bare());
        let client_key = Secret::new(mechanism.hmac(salted.expose(), &[b"Client Key"]));
        let stored_key = Secret::new(mechanism.hash(client_key.expose()));
        let signature = mechanism.hmac(stored_key.expose(), &[signed.as_bytes()]);
        let proof: Vec<u8> =
            client_key.expose().iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let server_key = Secret::new(mechanism.hmac(salted.expose(), &[b"Server Key"]));
        self.expected = Some(mechanism.hmac(server_key.expose(), &[signed.as_bytes()]).into());
        Ok(format!("{without_proof},p={}", encoded(&proof)).into_bytes())
    }

    /// Verifies the server's final message.
    ///
    /// # Errors
    /// When the server refuses, or cannot prove that it knows the password.
    pub fn finish(mut self, server_final: &[u8]) -> Result<(), ClientError> {
        const TEXT_MAX: usize = 200;
        let expected = self.expected.take().ok_or(ClientError::Unexpected)?;
        let text = std::str::from_utf8(server_final).map_err(|_| Malformed("not UTF-8"))?;
        let first = text.split(',').next().unwrap_or_default();
        if let Some(error) = first.strip_prefix("e=") {
            return Err(ClientError::Refused(error.chars().take(TEXT_MAX).collect()));
        }
        let signature = first.strip_prefix("v=").ok_or(Malformed("no signature"))?;
        match expected.is(&decoded(signature)?) {
            true => Ok(()),
            false => Err(ClientError::Signature),
        }
    }
}

/// Without password and nonce.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("user", &self.user).finish_non_exhaustive()
    }
}
