//! The messages of RFC 5802, parsed without changing a byte of what the proof covers.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A message that is not of the form of RFC 5802. It says what is wrong, and repeats nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed SCRAM message: {0}")]
pub struct Malformed(pub &'static str);

/// The extension by which a client logs in with a delegation token (KIP-48).
const TOKEN_AUTH: &str = "tokenauth";

/// The first message of a client.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientFirst {
    /// The header, such as `n,,`: the final message repeats it.
    pub(super) header: String,
    /// The rest, which the proof covers.
    pub(super) bare: String,
    pub(super) nonce: String,
    user: String,
    authorization_id: Option<String>,
    is_token: bool,
}

impl ClientFirst {
    /// Parses `n,[a=authzid],n=user,r=nonce[,extension=value…]`.
    ///
    /// # Errors
    /// When it has another form, asks for channel binding or has a mandatory extension (`m=`).
    pub fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(message).map_err(|_| Malformed("not UTF-8"))?;
        let (flag, rest) = text.split_once(',').ok_or(Malformed("no header"))?;
        match flag {
            "n" => {}
            // A client that thinks the server knows no channel binding; Kafka refuses it, too.
            "y" => return Err(Malformed("channel binding is not supported (y)")),
            flag if flag.starts_with("p=") => {
                return Err(Malformed("channel binding is not supported (p=)"));
            }
            _ => return Err(Malformed("an unknown flag of channel binding")),
        }
        let (authorization_id, bare) = rest.split_once(',').ok_or(Malformed("no header"))?;
        let authorization_id = match authorization_id {
            "" => None,
            id => Some(unescaped(id.strip_prefix("a=").ok_or(Malformed("an unknown header"))?)?),
        };
        let header = &text[..text.len() - bare.len()];
        let mut attributes = bare.split(',');
        let mut next = |prefix, what| {
            attributes.next().and_then(|a| a.strip_prefix(prefix)).ok_or(Malformed(what))
        };
        let user = unescaped(next("n=", "no user name, or a mandatory extension")?)?;
        let nonce = next("r=", "no nonce")?;
        if !is_nonce(nonce) {
            return Err(Malformed("a nonce that is empty or not printable"));
        }
        let mut is_token = false;
        for attribute in attributes {
            let (name, value) = extension(attribute)?;
            is_token |= name == TOKEN_AUTH && value.eq_ignore_ascii_case("true");
        }
        Ok(Self {
            header: header.to_owned(),
            bare: bare.to_owned(),
            nonce: nonce.to_owned(),
            user,
            authorization_id,
            is_token,
        })
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether the client logs in with a delegation token.
    pub fn is_token(&self) -> bool {
        self.is_token
    }

    /// Whether the client wants to act as another user.
    pub fn wants_another_user(&self) -> bool {
        self.authorization_id.as_ref().is_some_and(|id| *id != self.user)
    }
}

/// Without the nonce, which is part of what the proof covers.
impl fmt::Debug for ClientFirst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientFirst").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The final message of a client.
#[derive(Debug)]
pub(super) struct ClientFinal<'a> {
    /// The decoded `c=`: the header of the first message.
    pub(super) header: Vec<u8>,
    pub(super) nonce: &'a str,
    /// The message up to the proof, which the proof covers.
    pub(super) without_proof: &'a str,
    pub(super) proof: Vec<u8>,
}

impl<'a> ClientFinal<'a> {
    /// Parses `c=…,r=…[,extension=value…],p=…`.
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(message).map_err(|_| Malformed("not UTF-8"))?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Malformed("no proof"))?;
        let mut attributes = without_proof.split(',');
        let mut next = |prefix, what| {
            attributes.next().and_then(|a| a.strip_prefix(prefix)).ok_or(Malformed(what))
        };
        let header = decoded(next("c=", "no channel binding")?)?;
        let nonce = next("r=", "no nonce")?;
        if !is_nonce(nonce) {
            return Err(Malformed("a nonce that is empty or not printable"));
        }
        attributes.try_for_each(|attribute| extension(attribute).map(|_| ()))?;
        Ok(Self { header, nonce, without_proof, proof: decoded(proof)? })
    }
}

/// The first message of a server.
#[derive(Debug)]
pub(super) struct ServerFirst<'a> {
    pub(super) nonce: &'a str,
    pub(super) salt: Vec<u8>,
    pub(super) iterations: u32,
}

impl<'a> ServerFirst<'a> {
    /// Parses `r=…,s=…,i=…[,extension=value…]`.
    pub(super) fn parse(text: &'a str) -> Result<Self, Malformed> {
        let mut attributes = text.split(',');
        let mut next = |prefix, what| {
            attributes.next().and_then(|a| a.strip_prefix(prefix)).ok_or(Malformed(what))
        };
        let nonce = next("r=", "no nonce, or a mandatory extension")?;
        let salt = decoded(next("s=", "no salt")?)?;
        let iterations = next("i=", "no iterations")?;
        if !iterations.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Malformed("iterations that are no number"));
        }
        let iterations =
            iterations.parse().map_err(|_| Malformed("iterations that are no number"))?;
        attributes.try_for_each(|attribute| extension(attribute).map(|_| ()))?;
        Ok(Self { nonce, salt, iterations })
    }
}

/// `name=value`, the form of every extension.
fn extension(attribute: &str) -> Result<(&str, &str), Malformed> {
    let (name, value) = attribute.split_once('=').ok_or(Malformed("an extension without value"))?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic());
    let is_value = !value.is_empty() && !value.contains('\0');
    match is_name && is_value {
        true => Ok((name, value)),
        false => Err(Malformed("an extension of another form than name=value")),
    }
}

fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

pub(super) fn decoded(base64: &str) -> Result<Vec<u8>, Malformed> {
    STANDARD.decode(base64).map_err(|_| Malformed("not base64"))
}

pub(super) fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A name as it is in messages: `,` and `=` are escaped.
pub(super) fn escaped(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// The name of an escaped one (`ScramFormatter.username`).
fn unescaped(name: &str) -> Result<String, Malformed> {
    if name.is_empty() || name.contains('\0') {
        return Err(Malformed("an empty name, or one with NUL"));
    }
    let mut parts = name.split('=');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (letter, rest) = match part {
            _ if part.starts_with("2C") => (',', &part[2..]),
            _ if part.starts_with("3D") => ('=', &part[2..]),
            _ => return Err(Malformed("a name with = that escapes nothing")),
        };
        plain.push(letter);
        plain.push_str(rest);
    }
    Ok(plain)
}
