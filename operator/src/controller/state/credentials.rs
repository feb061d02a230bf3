//! The SCRAM credentials of users, with the bytes that they take in a store, and the key that makes
//! the salts of users who do not exist.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use weir_security::scram::{Credential, Mechanism, Stored, store};
use weir_security::secret::Secret;

/// The credential of a user for one mechanism, as it is from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialChange {
    /// The user.
    pub user: String,
    /// The mechanism.
    pub mechanism: Mechanism,
    /// `None`: it is deleted.
    pub credential: Option<Credential>,
}

/// The credentials of all users. Cloning is cheap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScramCredentials {
    by_user: Arc<Stored>,
    bytes: usize,
    mock_key: Option<Secret>,
}

/// What a line of a store has besides the user and the credential, and is to spare.
const LINE_BYTES: usize = 32;

impl ScramCredentials {
    /// The credentials, by user and mechanism.
    pub fn by_user(&self) -> &Stored {
        &self.by_user
    }

    /// The key that makes the salts of users who do not exist; `None` before the first controller.
    /// It never changes: else their salts would, and nobody else's.
    pub fn mock_key(&self) -> Option<&Secret> {
        self.mock_key.as_ref()
    }

    /// One change for each credential.
    pub fn iter(&self) -> impl Iterator<Item = CredentialChange> {
        self.by_user.iter().flat_map(|(user, of_user)| {
            of_user.values().map(|credential| CredentialChange {
                user: user.clone(),
                mechanism: credential.mechanism(),
                credential: Some(credential.clone()),
            })
        })
    }

    /// The bytes that they take in a store after this change.
    pub fn bytes_after(&self, change: &CredentialChange) -> usize {
        let known = self.by_user.get(&change.user).and_then(|of| of.get(&change.mechanism));
        let bytes = |credential| line_bytes(&change.user, credential);
        (self.bytes + change.credential.as_ref().map_or(0, bytes))
            .saturating_sub(known.map_or(0, bytes))
    }

    pub(super) fn set_mock_key(&mut self, key: &Secret) {
        self.mock_key = Some(key.clone());
    }

    pub(super) fn apply(&mut self, change: &CredentialChange) {
        self.bytes = self.bytes_after(change);
        let CredentialChange { user, mechanism, credential } = change;
        store(Arc::make_mut(&mut self.by_user), user, *mechanism, credential.clone());
    }
}

/// The bytes of a line for this credential. A store writes the user as JSON.
fn line_bytes(user: &str, credential: &Credential) -> usize {
    let user = serde_json::Value::from(user).to_string();
    user.len() + credential.to_text().len() + LINE_BYTES
}
