//! The SCRAM credentials of an image, from and to the messages of the controller.

use std::collections::BTreeMap;

use tracing::warn;
use weir_protocol::controller as rpc;
use weir_security::scram::{Credential, Mechanism, Stored, store};

/// Applies the credentials that changed. One that this version cannot read counts as deleted: the
/// user cannot log in with it, and everything else goes on.
pub(super) fn apply(known: &mut Stored, update: &rpc::MetadataUpdate) {
    for rpc::ScramCredential { user, mechanism: code, credential } in &update.scram_credentials {
        let Some(mechanism) = i8::try_from(*code).ok().and_then(Mechanism::from_code) else {
            warn!(
                user,
                code,
                "the controller tells of a SCRAM mechanism that this broker does not know: the user cannot log in by it here"
            );
            continue;
        };
        let read = match credential.as_str() {
            "" => None,
            text => match Credential::from_text(mechanism, text) {
                Ok(credential) => Some(credential),
                Err(error) => {
                    warn!(user, %mechanism, %error, "the controller tells of a SCRAM credential that this broker cannot read: the user cannot log in by it here");
                    None
                }
            },
        };
        store(known, user, mechanism, read);
    }
}

/// The messages that make these credentials.
pub(super) fn whole(known: &Stored) -> Vec<rpc::ScramCredential> {
    let of_user = |(user, of): (&String, &BTreeMap<Mechanism, Credential>)| {
        let message = |credential: &Credential| rpc::ScramCredential {
            user: user.clone(),
            mechanism: i32::from(credential.mechanism().code()),
            credential: credential.to_text(),
        };
        of.values().map(message).collect::<Vec<_>>()
    };
    known.iter().flat_map(of_user).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(user: &str, mechanism: i32, credential: &str) -> rpc::ScramCredential {
        rpc::ScramCredential { user: user.to_owned(), mechanism, credential: credential.to_owned() }
    }

    fn after(known: &Stored, messages: Vec<rpc::ScramCredential>) -> Stored {
        let mut next = known.clone();
        let update = rpc::MetadataUpdate { scram_credentials: messages, ..Default::default() };
        apply(&mut next, &update);
        next
    }

    #[test]
    fn users_have_what_they_were_told_last_and_what_is_unreadable_lets_nobody_in() {
        let text = |password: &str| {
            let salt = b"salt".to_vec();
            Credential::of_password(Mechanism::Sha256, password.as_bytes(), salt, 4096)
                .unwrap()
                .to_text()
        };
        let two = after(
            &Stored::new(),
            vec![
                message("a", 1, &text("x")),
                message("b", 1, &text("y")),
                message("a", 1, &text("z")),
            ],
        );
        assert!(two["a"][&Mechanism::Sha256].is_password(b"z"));
        assert_eq!(two.len(), 2);
        assert_eq!(after(&Stored::new(), whole(&two)), two);
        // The text of another mechanism, of no credential, and of a mechanism of the future.
        assert_eq!(after(&two, vec![message("c", 2, &text("x")), message("c", 3, "x")]), two);
        assert!(!after(&two, vec![message("a", 1, "salt=")]).contains_key("a"));
        let none = vec![message("a", 1, ""), message("b", 1, ""), message("c", 2, "")];
        assert!(after(&two, none).is_empty());
    }
}
