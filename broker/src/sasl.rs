//! The SASL mechanisms of a listener, over the users of the metadata, and how long a login is good.
//!
//! `net` carries out logins with them. PLAIN verifies the password against the user's SCRAM
//! credential, so one credential serves all mechanisms.

use std::fmt;
use std::sync::Arc;

use weir_security::sasl::{Mechanism, Mechanisms, Plain, Scram};
use weir_security::scram::{Credential, Mechanism as ScramMechanism, Stored};
use weir_security::secret::Secret;

use crate::metadata::Metadata;

/// The name of PLAIN.
pub const PLAIN: &str = "PLAIN";

/// The mechanisms for one connection. All of its login goes by the users of one moment.
#[derive(Clone)]
pub struct Offered {
    names: Arc<[String]>,
    users: Users,
}

/// Users at one moment.
#[derive(Clone)]
struct Users {
    stored: Arc<Stored>,
    mock_key: Secret,
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Offered {
    /// The mechanisms of these names for a connection that begins to log in now.
    pub fn now(names: &Arc<[String]>, metadata: &Metadata) -> Self {
        let image = metadata.load();
        // A controller of a version before has no key. Then the salts of unknown users are the same
        // in all clusters.
        let mock_key = image.scram_mock_key.clone().unwrap_or_else(|| Secret::new(Vec::new()));
        let users = Users { stored: Arc::clone(&image.scram_credentials), mock_key };
        Self { names: Arc::clone(names), users }
    }

    /// What the login of this user by this mechanism rests on.
    pub fn grounds(&self, mechanism: &str, user: &str) -> Option<Grounds> {
        let mechanism = ScramMechanism::from_name(mechanism);
        let credential = credential_of(&self.users.stored, mechanism, user)?.clone();
        Some(Grounds { user: user.to_owned(), mechanism, credential })
    }
}

impl Mechanisms for Offered {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn start(&self, name: &str) -> Option<Box<dyn Mechanism>> {
        let name = self.names.iter().find(|known| *known == name)?;
        let users = self.users.clone();
        Some(match ScramMechanism::from_name(name) {
            Some(mechanism) => Box::new(Scram::new(move |user| users.credential(mechanism, user))),
            None => Box::new(Plain::new(move |user, password| users.is_password(user, password))),
        })
    }
}

impl Users {
    fn credential(&self, mechanism: ScramMechanism, user: &str) -> Credential {
        let known = credential_of(&self.stored, Some(mechanism), user);
        known.cloned().unwrap_or_else(|| Credential::of_nobody(mechanism, &self.mock_key, user))
    }

    fn is_password(&self, user: &str, password: &[u8]) -> bool {
        let known = credential_of(&self.stored, None, user);
        let of_nobody = || Credential::of_nobody(ScramMechanism::Sha512, &self.mock_key, user);
        known.cloned().unwrap_or_else(of_nobody).is_password(password)
    }
}

/// The credential by which a mechanism of SCRAM verifies a user; without one PLAIN, which takes the
/// strongest.
fn credential_of<'a>(
    stored: &'a Stored,
    mechanism: Option<ScramMechanism>,
    user: &str,
) -> Option<&'a Credential> {
    let of_user = stored.get(user)?;
    match mechanism {
        Some(mechanism) => of_user.get(&mechanism),
        None => of_user.values().next_back(),
    }
}

/// What a login rests on: a credential of a user, as it was at the login.
#[derive(Clone, Debug)]
pub struct Grounds {
    user: String,
    /// `None` is PLAIN.
    mechanism: Option<ScramMechanism>,
    credential: Credential,
}

impl Grounds {
    /// Whether every password that was good at the login still is. The client has one of at most
    /// two, and nobody knows which.
    pub fn still_hold(&self, stored: &Stored) -> bool {
        let Some(known) = credential_of(stored, self.mechanism, &self.user) else { return false };
        let is_good = |keys| known.keys() == keys || known.previous() == Some(keys);
        is_good(self.credential.keys()) && self.credential.previous().is_none_or(is_good)
    }
}

#[cfg(test)]
mod tests {
    use weir_security::scram::ITERATIONS_MIN;

    use super::*;

    fn credential(mechanism: ScramMechanism, password: &str) -> Credential {
        let salt = b"salt".to_vec();
        Credential::of_password(mechanism, password.as_bytes(), salt, ITERATIONS_MIN).unwrap()
    }

    fn stored(users: &[(&str, Credential)]) -> Arc<Stored> {
        let mut stored = Stored::new();
        for (user, credential) in users {
            let of_user = stored.entry((*user).to_owned()).or_default();
            of_user.insert(credential.mechanism(), credential.clone());
        }
        Arc::new(stored)
    }

    fn offered(names: &[&str], stored: &Arc<Stored>) -> Offered {
        let users = Users { stored: Arc::clone(stored), mock_key: Secret::new(vec![1]) };
        Offered { names: names.iter().map(|name| (*name).to_owned()).collect(), users }
    }

    #[test]
    fn a_listener_has_the_mechanisms_that_it_names_and_no_other() {
        let one = offered(&["SCRAM-SHA-512"], &stored(&[]));
        assert!(one.start("SCRAM-SHA-512").is_some());
        for other in ["SCRAM-SHA-256", "PLAIN", "scram-sha-512", "", "OAUTHBEARER"] {
            assert!(one.start(other).is_none(), "{other}");
        }
    }

    #[test]
    fn plain_takes_the_password_of_the_strongest_credential() {
        let stored = stored(&[
            ("a", credential(ScramMechanism::Sha256, "weak")),
            ("a", credential(ScramMechanism::Sha512, "strong")),
            ("b", credential(ScramMechanism::Sha256, "weak")),
        ]);
        let users = offered(&[], &stored).users;
        let takes = |user, password: &str| users.is_password(user, password.as_bytes());
        assert!(takes("a", "strong") && !takes("a", "weak") && takes("b", "weak"));
        assert!(!takes("c", "weak") && !takes("c", ""));
    }

    #[test]
    fn a_login_is_good_as_long_as_each_of_its_passwords() {
        let first = credential(ScramMechanism::Sha256, "1");
        let (rotated, second) = (first.rotated(b"2"), first.rotated(b"2").without_previous());
        let other = credential(ScramMechanism::Sha512, "1");
        let grounds = |credential: &Credential, mechanism| {
            offered(&[], &stored(&[("a", credential.clone())])).grounds(mechanism, "a")
        };
        for (at_login, later, holds) in [
            (&first, Some(&first), true),
            (&first, Some(&rotated), true),
            (&first, Some(&second), false),
            (&first, Some(&other), false),
            (&other, Some(&first), false),
            (&first, None, false),
            (&rotated, Some(&rotated), true),
            (&rotated, Some(&second), false),
            (&second, Some(&second), true),
        ] {
            for mechanism in [at_login.mechanism().name(), PLAIN] {
                let grounds = grounds(at_login, mechanism).unwrap();
                let users = later.map(|later| ("a", later.clone()));
                let still = grounds.still_hold(&stored(users.as_slice()));
                assert_eq!(still, holds, "{at_login:?}, then {later:?}");
            }
        }
        assert!(grounds(&first, "SCRAM-SHA-512").is_none());
        // A stronger one beside it: PLAIN would take the old password no more.
        let both = stored(&[("a", first.clone()), ("a", other)]);
        assert!(!grounds(&first, PLAIN).unwrap().still_hold(&both));
        assert!(grounds(&first, "SCRAM-SHA-256").unwrap().still_hold(&both));
    }
}
