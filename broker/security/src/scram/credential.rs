//! The credential of a user: what the server keeps instead of a password.

use std::fmt;
use std::num::NonZeroU32;

use super::mechanism::Mechanism;
use crate::secret::Secret;

/// The fewest iterations (`ScramMechanism.minIterations`).
pub const ITERATIONS_MIN: u32 = 4096;

/// The most iterations (`ScramControlManager.MAX_ITERATIONS`). Each login costs the client as many.
pub const ITERATIONS_MAX: u32 = 16_384;

/// The longest salt. Kafka's tools make salts of 26 bytes.
pub const SALT_BYTES_MAX: usize = 256;

/// How many random bytes [`salt`] takes.
pub const SALT_RANDOM_BYTES: usize = 17;

/// Makes a salt as Kafka's tools do (`ScramFormatter.secureRandomString`): 130 random bits in base
/// 36, without zeros in front. So the salt of an unknown user looks like all others of these tools.
pub fn salt(random: &[u8; SALT_RANDOM_BYTES]) -> Vec<u8> {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut number = *random;
    number[0] &= 0b11;
    let mut digits = Vec::new();
    while digits.is_empty() || number != [0; SALT_RANDOM_BYTES] {
        let rest = number.iter_mut().fold(0_usize, |rest, byte| {
            let value = rest << 8 | usize::from(*byte);
            // The rest was below 36, so this is below 256.
            *byte = u8::try_from(value / 36).unwrap_or_default();
            value % 36
        });
        digits.push(DIGITS[rest]);
    }
    digits.reverse();
    digits
}

/// Why a credential cannot be (UNACCEPTABLE_CREDENTIAL, 93).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCredential {
    /// Fewer than [`ITERATIONS_MIN`].
    #[error("Too few iterations")]
    TooFewIterations,
    /// More than [`ITERATIONS_MAX`].
    #[error("Too many iterations")]
    TooManyIterations,
    /// An empty salt, or one above [`SALT_BYTES_MAX`].
    #[error("The salt must have 1 to {SALT_BYTES_MAX} bytes")]
    Salt,
    /// A key or a salted password that the mechanism's hash cannot have made.
    #[error("The length of a key is not that of the mechanism's hash")]
    KeyLength,
}

/// The keys that follow from one password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Verifies the client. Nobody can log in with it, but a password can be guessed against it.
    pub stored_key: Secret,
    /// Proves the server to the client.
    pub server_key: Secret,
}

impl Keys {
    /// The keys of a salted password.
    fn new(mechanism: Mechanism, salted_password: &Secret) -> Self {
        let client_key = Secret::new(mechanism.hmac(salted_password.expose(), &[b"Client Key"]));
        Self {
            stored_key: mechanism.hash(client_key.expose()).into(),
            server_key: mechanism.hmac(salted_password.expose(), &[b"Server Key"]).into(),
        }
    }
}

/// What the server keeps of a user's password for one mechanism.
///
/// During a rotation there are two passwords. A client learns one salt before the server learns
/// which password it has. So both keys have the same salt and iterations.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    mechanism: Mechanism,
    salt: Vec<u8>,
    iterations: NonZeroU32,
    keys: Keys,
    previous: Option<Keys>,
}

fn checked(salt: &[u8], iterations: u32) -> Result<NonZeroU32, BadCredential> {
    if iterations > ITERATIONS_MAX {
        return Err(BadCredential::TooManyIterations);
    }
    if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
        return Err(BadCredential::Salt);
    }
    let enough = NonZeroU32::new(iterations).filter(|many| many.get() >= ITERATIONS_MIN);
    enough.ok_or(BadCredential::TooFewIterations)
}

impl Credential {
    /// The credential of a password.
    ///
    /// # Errors
    /// When the salt or the iterations are out of bounds.
    pub fn of_password(
        mechanism: Mechanism,
        password: &[u8],
        salt: Vec<u8>,
        iterations: u32,
    ) -> Result<Self, BadCredential> {
        let checked = checked(&salt, iterations)?;
        let salted = mechanism.salted_password(password, &salt, checked);
        Self::of_salted_password(mechanism, &salted, salt, iterations)
    }

    /// The credential of a salted password, as AlterUserScramCredentials has it. Forget the salted
    /// password afterwards: it is as good as the password.
    ///
    /// # Errors
    /// When the salt, the iterations or the length of the salted password are out of bounds.
    pub fn of_salted_password(
        mechanism: Mechanism,
        salted_password: &Secret,
        salt: Vec<u8>,
        iterations: u32,
    ) -> Result<Self, BadCredential> {
        let iterations = checked(&salt, iterations)?;
        if salted_password.expose().len() != mechanism.hash_bytes() {
            return Err(BadCredential::KeyLength);
        }
        let keys = Keys::new(mechanism, salted_password);
        Ok(Self { mechanism, salt, iterations, keys, previous: None })
    }

    /// The credential of stored keys, and of those of the former password while it is still good.
    ///
    /// # Errors
    /// When the salt, the iterations or the length of a key are out of bounds.
    pub fn of_keys(
        mechanism: Mechanism,
        salt: Vec<u8>,
        iterations: u32,
        keys: Keys,
        previous: Option<Keys>,
    ) -> Result<Self, BadCredential> {
        let iterations = checked(&salt, iterations)?;
        let all = || [&keys].into_iter().chain(&previous);
        let lengths = all().flat_map(|keys| [&keys.stored_key, &keys.server_key]);
        if lengths.map(|key| key.expose().len()).any(|length| length != mechanism.hash_bytes()) {
            return Err(BadCredential::KeyLength);
        }
        Ok(Self { mechanism, salt, iterations, keys, previous })
    }

    /// The credential of a user who does not exist: always the same for a name, and of the form of
    /// all others. No password is good, because its stored key is the hash of nothing that anybody
    /// could know. `secret` is one of the cluster.
    pub fn of_nobody(mechanism: Mechanism, secret: &Secret, user: &str) -> Self {
        let derive = |what: &[u8]| {
            mechanism.hmac(secret.expose(), &[what, mechanism.name().as_bytes(), user.as_bytes()])
        };
        let mut random = [0; SALT_RANDOM_BYTES];
        random.copy_from_slice(&derive(b"salt")[..SALT_RANDOM_BYTES]);
        let keys =
            Keys { stored_key: derive(b"stored").into(), server_key: derive(b"server").into() };
        let iterations = NonZeroU32::MIN.saturating_add(ITERATIONS_MIN - 1);
        let salt = salt(&random);
        Self { mechanism, salt, iterations, keys, previous: None }
    }

    /// The credential of a new password, beside which the present one stays good.
    pub fn rotated(&self, password: &[u8]) -> Self {
        let salted = self.mechanism.salted_password(password, &self.salt, self.iterations);
        Self {
            keys: Keys::new(self.mechanism, &salted),
            previous: Some(self.keys.clone()),
            ..self.clone()
        }
    }

    /// The credential without the former password.
    pub fn without_previous(self) -> Self {
        Self { previous: None, ..self }
    }

    /// The mechanism.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The salt.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// The iterations.
    pub fn iterations(&self) -> NonZeroU32 {
        self.iterations
    }

    /// The keys of the password.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The keys of the former password, while it is still good.
    pub fn previous(&self) -> Option<&Keys> {
        self.previous.as_ref()
    }

    /// Whether this is the password, or the former one while it is still good. PLAIN asks so. It
    /// takes one or two milliseconds of a processor, for a user who does not exist as well.
    pub fn is_password(&self, password: &[u8]) -> bool {
        let salted = self.mechanism.salted_password(password, &self.salt, self.iterations);
        let key = Keys::new(self.mechanism, &salted).stored_key;
        self.matching(|keys| keys.stored_key.is(key.expose())).is_some()
    }

    /// The keys of the first password that fits. It looks at all of them, whichever fits.
    pub(super) fn matching(&self, fits: impl Fn(&Keys) -> bool) -> Option<&Keys> {
        let current = Some(&self.keys).filter(|keys| fits(keys));
        let previous = self.previous.as_ref().filter(|keys| fits(keys));
        current.or(previous)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let previous = if self.previous.is_some() { ", with a former password" } else { "" };
        write!(f, "Credential({}, {} iterations{previous})", self.mechanism, self.iterations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A salt that looks otherwise tells that there is no such user.
    #[test]
    fn salts_look_like_those_of_kafkas_tools() {
        // As java.math.BigInteger writes them.
        let mut random = [0xff; SALT_RANDOM_BYTES];
        assert_eq!(salt(&random), b"1omfro7zwmumr3umxudzyj6scf");
        random = [0; SALT_RANDOM_BYTES];
        assert_eq!(salt(&random), b"0");
        random[SALT_RANDOM_BYTES - 2] = 1;
        assert_eq!(salt(&random), b"74");
        // Of 26 digits the first is 1; most salts have 25.
        let secret = Secret::new(b"of the cluster".to_vec());
        let salt_of = |at| {
            Credential::of_nobody(Mechanism::Sha256, &secret, &format!("user-{at}")).salt().to_vec()
        };
        let salts: Vec<_> = (0..300).map(salt_of).collect();
        assert!(salts.iter().all(|salt| salt.len() < 26 || (salt.len() == 26 && salt[0] == b'1')));
        assert!(salts.iter().filter(|salt| salt.len() == 25).count() > 120);
    }
}
