//! The server's side of a login.

use std::fmt;

use super::credential::Credential;
use super::message::{ClientFinal, ClientFirst, Malformed, encoded};
use crate::secret::Secret;

/// The random bytes of a server's nonce.
const NONCE_BYTES: usize = 24;

/// The header of a client without channel binding and authorization id.
const PLAIN_HEADER: &[u8] = b"n,,";

/// Why a login is refused. What the client is told does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A message is malformed.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The final message is for another exchange (CVE-2024-56128).
    #[error("the nonce is not that of this login")]
    Nonce,
    /// The final message repeats another header.
    #[error("the channel binding is not that of the first message")]
    Header,
    /// The password is wrong, or there is no such user.
    #[error("the proof does not fit: a wrong password, or no such user")]
    Proof,
}

/// A login that waits for the client's proof.
pub struct Server {
    first: ClientFirst,
    credential: Credential,
    /// The client's nonce and the server's.
    nonce: String,
    server_first: String,
}

/// A login that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The user.
    pub user: String,
    /// The server's final message. The login is complete when it is sent.
    pub message: Vec<u8>,
    /// Whether the former password was used.
    pub by_previous: bool,
}

impl Server {
    /// Begins a login, and returns the server's first message. `credential` is the user's, or
    /// [`Credential::of_nobody`].
    pub fn begin(
        first: ClientFirst,
        credential: Credential,
        random: &[u8; NONCE_BYTES],
    ) -> (Self, Vec<u8>) {
        Self::begin_with_nonce(first, credential, &encoded(random))
    }

    pub(super) fn begin_with_nonce(
        first: ClientFirst,
        credential: Credential,
        server_nonce: &str,
    ) -> (Self, Vec<u8>) {
        let nonce = format!("{}{server_nonce}", first.nonce);
        let (salt, iterations) = (encoded(credential.salt()), credential.iterations());
        let server_first = format!("r={nonce},s={salt},i={iterations}");
        let message = server_first.clone().into_bytes();
        (Self { first, credential, nonce, server_first }, message)
    }

    /// Verifies the client's final message. A login has one attempt.
    ///
    /// # Errors
    /// Why the login is refused.
    pub fn finish(self, message: &[u8]) -> Result<Accepted, Refused> {
        let last = ClientFinal::parse(message)?;
        // librdkafka before 2.6.1 repeats its own nonce in front. The server's is there either way.
        let is_ours = last.nonce == self.nonce
            || last.nonce.strip_prefix(&*self.first.nonce) == Some(&*self.nonce);
        if !is_ours {
            return Err(Refused::Nonce);
        }
        // Clients that give an authorization id do not all repeat it here, and Kafka does not look.
        // The header says in both forms that there is no channel binding.
        if last.header != self.first.header.as_bytes() && last.header != PLAIN_HEADER {
            return Err(Refused::Header);
        }
        let mechanism = self.credential.mechanism();
        let signed: [&[u8]; 5] = [
            self.first.bare.as_bytes(),
            b",",
            self.server_first.as_bytes(),
            b",",
            last.without_proof.as_bytes(),
        ];
        let fits = |stored_key: &Secret| {
            let signature = mechanism.hmac(stored_key.expose(), &signed);
            if signature.len() != last.proof.len() {
                return false;
            }
            let key = signature.iter().zip(&last.proof).map(|(a, b)| a ^ b).collect();
            stored_key.is(&mechanism.hash(Secret::new(key).expose()))
        };
        let keys = self.credential.matching(|keys| fits(&keys.stored_key));
        let keys = keys.ok_or(Refused::Proof)?;
        let signature = mechanism.hmac(keys.server_key.expose(), &signed);
        Ok(Accepted {
            user: self.first.user().to_owned(),
            message: format!("v={}", encoded(&signature)).into_bytes(),
            by_previous: !std::ptr::eq(keys, self.credential.keys()),
        })
    }
}

/// Without nonces and keys.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("user", &self.first.user()).finish_non_exhaustive()
    }
}
