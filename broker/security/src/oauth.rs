//! OAUTHBEARER: tokens that somebody else has issued (RFC 7628, RFC 7519).
//!
//! The broker's `sasl` takes a [`ClientResponse`] and has its token [verified](verify) against the
//! [`KeySet`] of the issuer. Fetching the keys is the caller's; [`Refetch`] says when it may.
//!
//! - The algorithm of a token has to be one that is allowed, and the one that its key is for.
//!   Without a signature, or with one by a shared secret, no token is good.
//! - What a token says is believed only after its signature fits.

mod keys;
mod refetch;
mod response;
mod token;

#[cfg(test)]
mod tests;

pub use keys::{Algorithm, BadKeys, KEYS_BYTES_MAX, KeySet};
pub use refetch::Refetch;
pub use response::{BadResponse, ClientResponse, error_json};
pub use token::{BadToken, Expectations, TOKEN_BYTES_MAX, Verified, verify};
