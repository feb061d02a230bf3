//! The SCRAM credentials that brokers knew last.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::controller as rpc;
use weir_security::scram::{Credential, Mechanism};
use weir_security::secret::Secret;

use super::super::state::{Change, CredentialChange};

/// The changes that make the credentials of an image. A credential that cannot be read is left
/// out: somebody sets it again.
pub(super) fn last_known(image: &rpc::MetadataUpdate) -> Vec<Change> {
    let key = Some(&image.scram_mock_key).filter(|key| !key.is_empty());
    let key = key.map(|key| Change::ScramMockKey(Secret::new(key.clone())));
    let read = |of: &rpc::ScramCredential| {
        let mechanism = Mechanism::from_code(i8::try_from(of.mechanism).ok()?)?;
        let credential = Some(Credential::from_text(mechanism, &of.credential).ok()?);
        let user = of.user.clone();
        Some(Change::ScramCredential(CredentialChange { user, mechanism, credential }))
    };
    key.into_iter().chain(image.scram_credentials.iter().filter_map(read)).collect()
}
