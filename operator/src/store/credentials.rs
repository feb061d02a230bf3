//! The text of the SCRAM credentials in a store: a versioned first line, the key that makes the
//! salts of users who do not exist, then a line for each credential with its mechanism, the text
//! form of [`Credential::to_text`] and the user as JSON. The text is a secret: passwords can be
//! guessed against it.
//!
//! ```text
//! weir-credentials 1
//! mock-key 0f1e…
//! SCRAM-SHA-512 salt=…,stored_key=…,server_key=…,iterations=4096 "alice"
//! end
//! ```

use std::fmt::Write as _;

use uuid::Uuid;
use weir_security::scram::{Credential, Mechanism};
use weir_security::secret::Secret;

use super::packed::{BadLine, END, lines};
use crate::controller::state::{Change, CredentialChange, ScramCredentials};

const HEADER: &str = "weir-credentials 1";

/// The first word of the line with that key.
const MOCK_KEY: &str = "mock-key";

/// The text of all credentials.
pub(crate) fn write_credentials(credentials: &ScramCredentials) -> String {
    let mut text = format!("{HEADER}\n");
    if let Some(key) = credentials.mock_key() {
        let key = Uuid::from_slice(key.expose()).unwrap_or_default();
        let _ = writeln!(text, "{MOCK_KEY} {}", key.simple());
    }
    for CredentialChange { user, mechanism, credential } in credentials.iter() {
        let user = serde_json::Value::from(user);
        let credential = credential.as_ref().map(Credential::to_text).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{mechanism} {credential} {user}");
    }
    text.push_str(END);
    text.push('\n');
    text
}

/// Parses the text of all credentials, into the changes that make them.
///
/// # Errors
/// The first invalid line. The error repeats nothing of it.
pub(crate) fn read_credentials(text: &str) -> Result<Vec<Change>, BadLine> {
    let read = |(line, content): (usize, &str)| {
        read_line(content).map_err(|reason| BadLine { line, reason })
    };
    lines(text, HEADER)?.into_iter().map(read).collect()
}

fn read_line(line: &str) -> Result<Change, String> {
    let mut words = line.splitn(3, ' ');
    let mut next = |what: &str| words.next().ok_or_else(|| format!("the {what} is missing"));
    let mechanism = match next("mechanism")? {
        MOCK_KEY => {
            let key = Uuid::try_parse(next("key")?).map_err(|_| "the key is no 16 bytes")?;
            return Ok(Change::ScramMockKey(Secret::new(key.into_bytes().to_vec())));
        }
        name => Mechanism::from_name(name).ok_or("there is no SCRAM mechanism of this name")?,
    };
    let credential = Credential::from_text(mechanism, next("credential")?);
    let credential = credential.map_err(|error| error.to_string())?;
    let user = serde_json::from_str(next("user")?).map_err(|_| "the user is no JSON string")?;
    Ok(Change::ScramCredential(CredentialChange { user, mechanism, credential: Some(credential) }))
}
