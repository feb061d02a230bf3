//! The client's message, and the answer to a bad token (RFC 7628).

use std::collections::BTreeMap;
use std::fmt;

/// Why a message is none of RFC 7628. It repeats nothing of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid OAUTHBEARER client first message: {0}")]
pub struct BadResponse(&'static str);

/// The client's message (`OAuthBearerClientInitialResponse`).
#[derive(Clone, PartialEq, Eq)]
pub struct ClientResponse {
    /// The token.
    pub token: String,
    /// The user that the client wants to be; it has to be the one of the token.
    pub authorization_id: Option<String>,
    /// What else the client says of itself. Nobody has verified it.
    pub extensions: BTreeMap<String, String>,
}

const SEPARATOR: char = '\u{1}';

impl ClientResponse {
    /// Parses `n,[a=user],^Aauth=Bearer token^A[key=value^A…]^A`.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(message: &[u8]) -> Result<Self, BadResponse> {
        let text = std::str::from_utf8(message).map_err(|_| BadResponse("not UTF-8"))?;
        let rest = text.strip_prefix("n,").ok_or(BadResponse("no header"))?;
        let (user, rest) = rest.split_once(',').ok_or(BadResponse("no header"))?;
        let authorization_id = match user {
            "" => None,
            user => Some(name(user.strip_prefix("a=").ok_or(BadResponse("an unknown header"))?)?),
        };
        let pairs = rest
            .strip_prefix(SEPARATOR)
            .and_then(|rest| rest.strip_suffix(SEPARATOR))
            .ok_or(BadResponse("no separator"))?;
        let mut extensions = BTreeMap::new();
        if !pairs.is_empty() {
            let pairs = pairs.strip_suffix(SEPARATOR).ok_or(BadResponse("no separator"))?;
            for pair in pairs.split(SEPARATOR) {
                let (key, value) =
                    pair.split_once('=').ok_or(BadResponse("a key without value"))?;
                let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphabetic());
                let is_value = !value.is_empty()
                    && value.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t' | b'\r' | b'\n'));
                if !is_key || !is_value {
                    return Err(BadResponse("a key or a value of another form"));
                }
                extensions.insert(key.to_owned(), value.to_owned());
            }
        }
        let auth = extensions.remove("auth").ok_or(BadResponse("'auth' not specified"))?;
        let (scheme, token) = auth.split_once(' ').ok_or(BadResponse("invalid 'auth' format"))?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(BadResponse("invalid scheme"));
        }
        let token = token.trim_start_matches(' ');
        let inner = token.trim_end_matches('=');
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"-_~+/.".contains(&b);
        if inner.is_empty() || !inner.bytes().all(is_token) {
            return Err(BadResponse("invalid 'auth' format"));
        }
        Ok(Self { token: token.to_owned(), authorization_id, extensions })
    }
}

/// Without the token, which is as good as a password.
impl fmt::Debug for ClientResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientResponse")
            .field("authorization_id", &self.authorization_id)
            .finish_non_exhaustive()
    }
}

/// The name of an escaped one.
fn name(escaped: &str) -> Result<String, BadResponse> {
    let name = escaped.replace("=2C", ",");
    if name.is_empty() || name.replace("=3D", "").contains('=') || name.contains('\0') {
        return Err(BadResponse("a name with = that escapes nothing"));
    }
    Ok(name.replace("=3D", "="))
}

/// The answer to a bad token. The client acknowledges it, and is refused with the same text.
pub fn error_json(status: &str, scope: Option<&str>, openid_configuration: Option<&str>) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut json = format!("{{\"status\":{}", quoted(status));
    for (key, value) in [("scope", scope), ("openid-configuration", openid_configuration)] {
        if let Some(value) = value {
            json += &format!(", \"{key}\":{}", quoted(value));
        }
    }
    json + "}"
}
