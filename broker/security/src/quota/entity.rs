//! Whom a quota is for, and what it limits.

use std::collections::BTreeMap;

/// A named one, or the default for all that have no quota of their own. A default is `None` on the
/// wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// Every other.
    Default,
    /// This one.
    Of(String),
}

impl From<Option<String>> for Name {
    fn from(name: Option<String>) -> Self {
        name.map_or(Self::Default, Self::Of)
    }
}

/// Whom a quota is for (`ClientQuotaEntity`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entity {
    /// All clients of a user together; a default counts each user for himself.
    User(Name),
    /// All clients with an id together.
    ClientId(Name),
    /// The clients with an id of a user.
    UserAndClientId(Name, Name),
    /// The connections from an address.
    Ip(Name),
}

/// Why parts make no entity (INVALID_REQUEST, 42).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEntity {
    /// No part.
    #[error("Invalid empty client quota entity")]
    Empty,
    /// A type twice.
    #[error("Invalid client quota entity, duplicate entity entry {0}")]
    Twice(&'static str),
    /// A type that nobody knows.
    #[error("Unhandled client quota entity type: {0}")]
    UnknownType(String),
    /// A name without letters.
    #[error("Empty {0} not supported")]
    EmptyName(&'static str),
    /// An address with something else.
    #[error(
        "Invalid quota entity combination, IP entity should not be combined with User or ClientId"
    )]
    IpWithOthers,
    /// No address. Kafka would ask the name service.
    #[error("{0} is not a valid IP address.")]
    NoAddress(String),
}

/// The type of a user.
pub(super) const USER: &str = "user";
/// The type of a client id.
pub(super) const CLIENT_ID: &str = "client-id";
/// The type of an address.
pub(super) const IP: &str = "ip";

/// The type of a part, as it is on the wire.
pub(super) fn known_type(name: &str) -> Option<&'static str> {
    [USER, CLIENT_ID, IP].into_iter().find(|known| *known == name)
}

impl Entity {
    /// Makes an entity of its parts: each a type and a name, `None` for the default.
    ///
    /// # Errors
    /// When they do not go together.
    pub fn of_parts<'a>(
        parts: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Self, BadEntity> {
        let mut names: BTreeMap<&'static str, Name> = BTreeMap::new();
        for (kind, name) in parts {
            let kind = known_type(kind).ok_or_else(|| BadEntity::UnknownType(shortened(kind)))?;
            if name == Some("") {
                return Err(BadEntity::EmptyName(kind));
            }
            if names.insert(kind, Name::from(name.map(str::to_owned))).is_some() {
                return Err(BadEntity::Twice(kind));
            }
        }
        match (names.remove(USER), names.remove(CLIENT_ID), names.remove(IP)) {
            (None, None, None) => Err(BadEntity::Empty),
            (Some(user), None, None) => Ok(Self::User(user)),
            (None, Some(id), None) => Ok(Self::ClientId(id)),
            (Some(user), Some(id), None) => Ok(Self::UserAndClientId(user, id)),
            (None, None, Some(Name::Of(ip))) if ip.parse::<std::net::IpAddr>().is_err() => {
                Err(BadEntity::NoAddress(shortened(&ip)))
            }
            (None, None, Some(ip)) => Ok(Self::Ip(ip)),
            (_, _, Some(_)) => Err(BadEntity::IpWithOthers),
        }
    }

    /// Its parts, as they are on the wire.
    pub fn parts(&self) -> Vec<(&'static str, Option<&str>)> {
        fn name(name: &Name) -> Option<&str> {
            match name {
                Name::Default => None,
                Name::Of(name) => Some(name),
            }
        }
        match self {
            Self::User(user) => vec![(USER, name(user))],
            Self::ClientId(id) => vec![(CLIENT_ID, name(id))],
            Self::UserAndClientId(user, id) => vec![(USER, name(user)), (CLIENT_ID, name(id))],
            Self::Ip(ip) => vec![(IP, name(ip))],
        }
    }
}

/// At most the first 100 characters: an error does not repeat a long text of a client.
pub(super) fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 100;
    text.chars().take(CHARACTERS_MAX).collect()
}

/// What a quota limits (`QuotaConfig`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Bytes a second that a broker takes.
    ProducerByteRate,
    /// Bytes a second that a broker gives.
    ConsumerByteRate,
    /// Time of a broker's threads; 100 is one thread.
    RequestPercentage,
    /// Partitions a second that are created or deleted.
    ControllerMutationRate,
    /// New connections a second.
    ConnectionCreationRate,
}

impl Key {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ProducerByteRate,
        Self::ConsumerByteRate,
        Self::RequestPercentage,
        Self::ControllerMutationRate,
        Self::ConnectionCreationRate,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProducerByteRate => "producer_byte_rate",
            Self::ConsumerByteRate => "consumer_byte_rate",
            Self::RequestPercentage => "request_percentage",
            Self::ControllerMutationRate => "controller_mutation_rate",
            Self::ConnectionCreationRate => "connection_creation_rate",
        }
    }

    /// The key of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }

    /// Whether it is a quota of addresses.
    pub const fn is_of_ip(self) -> bool {
        matches!(self, Self::ConnectionCreationRate)
    }
}

/// All quotas.
pub type Quotas = BTreeMap<Entity, BTreeMap<Key, f64>>;
