//! The token itself: a JWT in compact form (RFC 7515, RFC 7519).

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::keys::{Algorithm, KeySet};

/// The longest token.
pub const TOKEN_BYTES_MAX: usize = 128 * 1024;

/// What a token has to be (`sasl.oauthbearer.*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectations {
    /// The issuer (`expected.issuer`); `None` takes any.
    pub issuer: Option<String>,
    /// The audiences (`expected.audience`), of which a token has to have one. If there are none, a
    /// token with an audience is for somebody else.
    pub audiences: BTreeSet<String>,
    /// The claim that has the user's name (`sub.claim.name`).
    pub subject_claim: String,
    /// The claim that has the scope (`scope.claim.name`).
    pub scope_claim: String,
    /// How far clocks may differ (`clock.skew.seconds`).
    pub clock_skew_s: u32,
    /// The algorithms that are allowed.
    pub algorithms: BTreeSet<Algorithm>,
}

impl Default for Expectations {
    fn default() -> Self {
        Self {
            issuer: None,
            audiences: BTreeSet::new(),
            subject_claim: "sub".to_owned(),
            scope_claim: "scope".to_owned(),
            clock_skew_s: 30,
            algorithms: Algorithm::ALL.into(),
        }
    }
}

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The user.
    pub subject: String,
    /// The scope: one text, or several.
    pub scope: BTreeSet<String>,
    /// When the token ends, in milliseconds since 1970.
    pub expires_at_ms: i64,
}

/// Why a token is not good. It repeats nothing of the token but the id of its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// It has another form.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// No such algorithm is allowed.
    #[error("the token's algorithm is not allowed")]
    Algorithm,
    /// There is no key of this id. A newer key set may have it.
    #[error("the token's key {0:?} is unknown")]
    UnknownKey(String),
    /// No key that fits has signed it.
    #[error("the token's signature is wrong, or by a key for another algorithm")]
    Signature,
    /// A claim is missing, or has another type.
    #[error("the token's claim {0:?} is missing or of another type")]
    Claim(String),
    /// It is of another issuer.
    #[error("the token is of another issuer")]
    Issuer,
    /// It is for somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// It has ended.
    #[error("the token has expired")]
    Expired,
    /// It has not begun.
    #[error("the token is not yet valid")]
    NotYet,
}

/// Verifies a token: its signature, and what it says (`BrokerJwtValidator`). `now_ms` is the time
/// since 1970.
///
/// # Errors
/// Why it is not good.
pub fn verify(
    token: &str,
    keys: &KeySet,
    expected: &Expectations,
    now_ms: i64,
) -> Result<Verified, BadToken> {
    let payload = signed_payload(token, keys, &expected.algorithms)?;
    let claims: Map<String, Value> =
        serde_json::from_slice(&payload).map_err(|_| BadToken::Malformed("no claims"))?;
    let claims = Claims(&claims);
    claims.check(expected, now_ms)?;
    let expires_at_ms = claims.time("exp")?.saturating_mul(1_000);
    let subject = claims.text(&expected.subject_claim)?;
    let scope = claims.scope(&expected.scope_claim)?;
    Ok(Verified { subject, scope, expires_at_ms })
}

/// The payload of a token whose signature fits.
pub(super) fn signed_payload(
    token: &str,
    keys: &KeySet,
    allowed: &BTreeSet<Algorithm>,
) -> Result<Vec<u8>, BadToken> {
    let token = token.trim();
    if token.len() > TOKEN_BYTES_MAX {
        return Err(BadToken::Malformed("too long"));
    }
    let parts: Vec<&str> = token.split('.').take(4).collect();
    let [header, payload, signature] = parts[..] else {
        return Err(BadToken::Malformed("not three parts"));
    };
    let bytes = |part: &str| {
        URL_SAFE_NO_PAD.decode(part).map_err(|_| BadToken::Malformed("a part that is no base64url"))
    };
    let fields: Map<String, Value> = serde_json::from_slice(&bytes(header)?)
        .map_err(|_| BadToken::Malformed("a header that is no object"))?;
    // An extension that has to be understood: none is (RFC 7515, section 4.1.11).
    if fields.contains_key("crit") {
        return Err(BadToken::Malformed("a critical extension"));
    }
    let algorithm = fields.get("alg").and_then(Value::as_str).and_then(Algorithm::from_name);
    let algorithm = algorithm.filter(|algorithm| allowed.contains(algorithm));
    let algorithm = algorithm.ok_or(BadToken::Algorithm)?;
    let id = match fields.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(&**id),
        Some(_) => return Err(BadToken::Malformed("a key id that is no text")),
    };
    if let Some(id) = id.filter(|id| !keys.knows(id)) {
        return Err(BadToken::UnknownKey(shortened(id)));
    }
    let signed = &token.as_bytes()[..header.len() + 1 + payload.len()];
    match keys.has_signed(id, algorithm, signed, &bytes(signature)?) {
        true => bytes(payload),
        false => Err(BadToken::Signature),
    }
}

fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 100;
    text.chars().take(CHARACTERS_MAX).collect()
}

struct Claims<'a>(&'a Map<String, Value>);

impl Claims<'_> {
    fn check(&self, expected: &Expectations, now_ms: i64) -> Result<(), BadToken> {
        let (now, skew) = (now_ms.div_euclid(1_000), i64::from(expected.clock_skew_s));
        let (ends, issued) = (self.time("exp")?, self.time("iat")?);
        if now.saturating_sub(skew) >= ends {
            return Err(BadToken::Expired);
        }
        let begins = self.0.get("nbf").map(|_| self.time("nbf")).transpose()?;
        // Kafka does not look whether the token was issued in the future.
        if now.saturating_add(skew) < issued.max(begins.unwrap_or(i64::MIN)) {
            return Err(BadToken::NotYet);
        }
        if ends < issued || begins.is_some_and(|begins| ends < begins) {
            return Err(BadToken::Expired);
        }
        if let Some(issuer) = &expected.issuer
            && self.0.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(BadToken::Issuer);
        }
        let is_for_us = |one: &Value| one.as_str().is_some_and(|a| expected.audiences.contains(a));
        let is_expected = match self.0.get("aud") {
            None => expected.audiences.is_empty(),
            Some(Value::Array(all)) => all.iter().any(is_for_us),
            Some(one) => is_for_us(one),
        };
        if is_expected { Ok(()) } else { Err(BadToken::Audience) }
    }

    fn wrong(name: &str) -> BadToken {
        BadToken::Claim(shortened(name))
    }

    /// A time in seconds since 1970.
    fn time(&self, name: &str) -> Result<i64, BadToken> {
        let claim = self.0.get(name).ok_or_else(|| Self::wrong(name))?;
        let whole = claim.as_i64();
        // A number with a fraction, or one that is too large.
        let seconds = whole.or_else(|| claim.as_f64().map(|seconds| seconds as i64));
        seconds.filter(|seconds| *seconds >= 0).ok_or_else(|| Self::wrong(name))
    }

    /// A text that is not empty, without spaces around it.
    fn text(&self, name: &str) -> Result<String, BadToken> {
        let claim = self.0.get(name).and_then(Value::as_str);
        Self::checked(name, claim)
    }

    fn checked(name: &str, text: Option<&str>) -> Result<String, BadToken> {
        let text = text.map(str::trim).filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| Self::wrong(name))
    }

    /// `ClaimValidationUtils.validateScopes`: what is there must be texts, none of them twice.
    fn scope(&self, name: &str) -> Result<BTreeSet<String>, BadToken> {
        let all = match self.0.get(name) {
            Some(Value::Array(all)) => all.as_slice(),
            Some(one @ Value::String(_)) => std::slice::from_ref(one),
            _ => &[],
        };
        let mut scope = BTreeSet::new();
        for one in all {
            if !scope.insert(Self::checked(name, one.as_str())?) {
                return Err(Self::wrong(name));
            }
        }
        Ok(scope)
    }
}
