//! The text form of a credential, for stores and for messages between nodes
//! (`ScramCredentialUtils`): `salt=…,stored_key=…,server_key=…,iterations=…` with base64. While a
//! former password is good, `previous_stored_key=…,previous_server_key=…` follow.

use std::fmt::Write as _;

use super::credential::{BadCredential, Credential, Keys};
use super::mechanism::Mechanism;
use super::message::{decoded, encoded};
use crate::secret::Secret;

/// Why a text is no credential. It does not repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadText {
    /// A field is missing, is there twice, or belongs to no credential.
    #[error("a credential has salt, stored_key, server_key and iterations, once each")]
    Fields,
    /// A value is neither base64 nor a number.
    #[error("a value of a credential is not readable")]
    Value,
    /// The values are no credential.
    #[error(transparent)]
    Credential(#[from] BadCredential),
}

impl Credential {
    /// The text form. It is a secret: passwords can be guessed against it.
    pub fn to_text(&self) -> String {
        let Keys { stored_key, server_key } = self.keys();
        let mut text = format!(
            "salt={},stored_key={},server_key={},iterations={}",
            encoded(self.salt()),
            encoded(stored_key.expose()),
            encoded(server_key.expose()),
            self.iterations()
        );
        if let Some(Keys { stored_key, server_key }) = self.previous() {
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                ",previous_stored_key={},previous_server_key={}",
                encoded(stored_key.expose()),
                encoded(server_key.expose())
            );
        }
        text
    }

    /// The credential of a text form, with its fields in any order.
    ///
    /// # Errors
    /// When the text is none.
    pub fn from_text(mechanism: Mechanism, text: &str) -> Result<Self, BadText> {
        const NAMES: [&str; 6] = [
            "salt",
            "stored_key",
            "server_key",
            "iterations",
            "previous_stored_key",
            "previous_server_key",
        ];
        let mut values: [Option<&str>; 6] = [None; 6];
        for field in text.split(',') {
            let (name, value) = field.split_once('=').ok_or(BadText::Fields)?;
            let at = NAMES.iter().position(|known| *known == name).ok_or(BadText::Fields)?;
            if values[at].replace(value).is_some() {
                return Err(BadText::Fields);
            }
        }
        let bytes = |value: &str| decoded(value).map_err(|_| BadText::Value);
        let keys = |stored_key, server_key| -> Result<Keys, BadText> {
            Ok(Keys {
                stored_key: Secret::new(bytes(stored_key)?),
                server_key: Secret::new(bytes(server_key)?),
            })
        };
        let [Some(salt), Some(stored), Some(server), Some(iterations), previous @ ..] = values
        else {
            return Err(BadText::Fields);
        };
        let previous = match previous {
            [Some(stored), Some(server)] => Some(keys(stored, server)?),
            [None, None] => None,
            _ => return Err(BadText::Fields),
        };
        let iterations = iterations.parse().map_err(|_| BadText::Value)?;
        Ok(Self::of_keys(mechanism, bytes(salt)?, iterations, keys(stored, server)?, previous)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ITERATIONS_MIN;
    use super::*;

    #[test]
    fn a_credential_is_read_as_it_was_written() {
        for mechanism in Mechanism::ALL {
            let salt = b"salt,=\n".to_vec();
            let first = Credential::of_password(mechanism, b"a", salt, ITERATIONS_MIN).unwrap();
            for credential in [first.clone(), first.rotated(b"b")] {
                let text = credential.to_text();
                let read = |end: usize| Credential::from_text(mechanism, &text[..end]).ok();
                assert!((0..text.len()).all(|end| read(end).as_ref() != Some(&credential)));
                assert_eq!(read(text.len()), Some(credential));
            }
        }
    }

    #[test]
    fn what_no_credential_has_is_refused() {
        let key = encoded(&[1; 32]);
        let read = |text: &str| Credential::from_text(Mechanism::Sha256, text);
        let with = |rest: &str| read(&format!("stored_key={key},server_key={key},{rest}"));
        assert!(with("iterations=4096,salt=c2FsdA==").is_ok());
        for (text, error) in [
            ("iterations=4096", BadText::Fields),
            ("iterations=4096,salt=c2FsdA==,salt=c2FsdA==", BadText::Fields),
            ("iterations=4096,salt=c2FsdA==,pepper=", BadText::Fields),
            ("iterations=4096,salt=c2FsdA==,", BadText::Fields),
            ("iterations=4096,salt=c2FsdA==,previous_stored_key=AA==", BadText::Fields),
            ("iterations=many,salt=c2FsdA==", BadText::Value),
            ("iterations=-1,salt=c2FsdA==", BadText::Value),
            ("iterations=4096,salt=c2FsdA", BadText::Value),
            ("iterations=4096,salt=", BadCredential::Salt.into()),
            ("iterations=4095,salt=c2FsdA==", BadCredential::TooFewIterations.into()),
            ("iterations=16385,salt=c2FsdA==", BadCredential::TooManyIterations.into()),
        ] {
            assert_eq!(with(text), Err(error), "{text}");
        }
        assert_eq!(read(""), Err(BadText::Fields));
        let short = read("stored_key=AA==,server_key=AA==,iterations=4096,salt=c2FsdA==");
        assert_eq!(short, Err(BadCredential::KeyLength.into()));
    }
}
