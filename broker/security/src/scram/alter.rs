//! AlterUserScramCredentials and DescribeUserScramCredentials (`ScramControlManager`,
//! `ScramImage`).

use std::collections::BTreeMap;

use super::credential::{BadCredential, Credential};
use super::mechanism::Mechanism;
use crate::secret::Secret;

/// The credentials of all users.
pub type Stored = BTreeMap<String, BTreeMap<Mechanism, Credential>>;

/// Sets the credential of a user for a mechanism; `None` deletes it. A user without credentials is
/// none.
pub fn store(
    stored: &mut Stored,
    user: &str,
    mechanism: Mechanism,
    credential: Option<Credential>,
) {
    match credential {
        Some(credential) => {
            stored.entry(user.to_owned()).or_default().insert(mechanism, credential);
        }
        None => {
            if let Some(of_user) = stored.get_mut(user) {
                of_user.remove(&mechanism);
                if of_user.is_empty() {
                    stored.remove(user);
                }
            }
        }
    }
}

/// A credential to delete, as the request has it.
#[derive(Clone, Debug)]
pub struct Deletion {
    /// The user.
    pub user: String,
    /// The code of the mechanism.
    pub mechanism: i8,
}

/// A credential to store, as the request has it.
#[derive(Clone, Debug)]
pub struct Upsertion {
    /// The user.
    pub user: String,
    /// The code of the mechanism.
    pub mechanism: i8,
    /// The iterations.
    pub iterations: i32,
    /// The salt.
    pub salt: Vec<u8>,
    /// The salted password, which is as good as the password: never logged, never stored.
    pub salted_password: Secret,
}

/// What a request does to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Altered {
    /// The credential of this mechanism goes.
    Deleted(Mechanism),
    /// This credential replaces what there is for its mechanism.
    Upserted(Credential),
}

/// Why nothing is done to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterError {
    /// UNACCEPTABLE_CREDENTIAL (93).
    #[error("Username must not be empty")]
    EmptyUser,
    /// UNSUPPORTED_SASL_MECHANISM (33).
    #[error("Unknown SCRAM mechanism")]
    UnknownMechanism,
    /// UNACCEPTABLE_CREDENTIAL (93).
    #[error(transparent)]
    Unacceptable(#[from] BadCredential),
    /// DUPLICATE_RESOURCE (92). A second mechanism counts, too.
    #[error("A user credential cannot be altered twice in the same request")]
    Twice,
    /// RESOURCE_NOT_FOUND (91).
    #[error("Attempt to delete a user credential that does not exist")]
    NotFound,
}

/// What a request does, by user.
pub fn alter(
    stored: &Stored,
    deletions: &[Deletion],
    upsertions: &[Upsertion],
) -> BTreeMap<String, Result<Altered, AlterError>> {
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    let users = deletions.iter().map(|d| &d.user).chain(upsertions.iter().map(|u| &u.user));
    users.for_each(|user| *named.entry(user).or_default() += 1);
    let deleted = deletions.iter().map(|deletion| (&deletion.user, delete(stored, deletion)));
    let upserted = upsertions.iter().map(|upsertion| (&upsertion.user, upsert(upsertion)));
    // Kafka names the first thing that is wrong, and a second one only where the first was right.
    let mut outcomes: BTreeMap<String, Result<Altered, AlterError>> = BTreeMap::new();
    for (user, outcome) in deleted.chain(upserted) {
        let is_twice = named.get(user.as_str()).is_some_and(|times| *times > 1);
        let outcome = if is_twice { outcome.and(Err(AlterError::Twice)) } else { outcome };
        outcomes.entry(user.clone()).or_insert(outcome);
    }
    outcomes
}

fn mechanism_of(user: &str, code: i8) -> Result<Mechanism, AlterError> {
    if user.is_empty() {
        return Err(AlterError::EmptyUser);
    }
    Mechanism::from_code(code).ok_or(AlterError::UnknownMechanism)
}

fn delete(stored: &Stored, deletion: &Deletion) -> Result<Altered, AlterError> {
    let mechanism = mechanism_of(&deletion.user, deletion.mechanism)?;
    let is_there = stored.get(&deletion.user).is_some_and(|of| of.contains_key(&mechanism));
    if is_there { Ok(Altered::Deleted(mechanism)) } else { Err(AlterError::NotFound) }
}

fn upsert(upsertion: &Upsertion) -> Result<Altered, AlterError> {
    let mechanism = mechanism_of(&upsertion.user, upsertion.mechanism)?;
    let credential = Credential::of_salted_password(
        mechanism,
        &upsertion.salted_password,
        upsertion.salt.clone(),
        u32::try_from(upsertion.iterations).unwrap_or(0),
    );
    Ok(Altered::Upserted(credential?))
}

/// What is told of a user: each mechanism and its iterations.
pub type Described = Vec<(Mechanism, u32)>;

/// Why nothing is told of a user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    /// RESOURCE_NOT_FOUND (91).
    #[error("Attempt to describe a user credential that does not exist: {0}")]
    NotFound(String),
    /// DUPLICATE_RESOURCE (92).
    #[error("Cannot describe SCRAM credentials for the same user twice in a single request: {0}")]
    Twice(String),
}

/// What is told of users; of all if none is named.
pub fn describe(
    stored: &Stored,
    users: Option<&[String]>,
) -> BTreeMap<String, Result<Described, DescribeError>> {
    let told = |user: &str| {
        let credentials = stored.get(user).filter(|of| !of.is_empty());
        let credentials =
            credentials.ok_or_else(|| DescribeError::NotFound(user.to_owned()))?.values();
        Ok(credentials.map(|c| (c.mechanism(), c.iterations().get())).collect())
    };
    let Some(users) = users.filter(|users| !users.is_empty()) else {
        return stored.keys().map(|user| (user.clone(), told(user))).collect();
    };
    let mut answers = BTreeMap::new();
    for user in users {
        let again = || Err(DescribeError::Twice(user.clone()));
        let seen = answers.contains_key(user);
        answers.insert(user.clone(), if seen { again() } else { told(user) });
    }
    answers
}
