//! Which quota is for a request, and with whom the sender shares it.

use std::collections::BTreeMap;

use super::entity::{Entity, Key, Name, Quotas};

/// Those who share a quota. A user's quota is one bucket for all his client ids, and the default of
/// users is one for each user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// The user, if the quota is for a user.
    pub user: Option<String>,
    /// The client id, if the quota is for a client id.
    pub client_id: Option<String>,
}

/// The quota of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Those who share it.
    pub bucket: Bucket,
    /// How much a second, in the unit of its key.
    pub rate: f64,
}

/// The quotas of one key, for looking up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// By user and client id; the outer name is the user's.
    both: BTreeMap<Name, BTreeMap<Name, f64>>,
    users: BTreeMap<Name, f64>,
    client_ids: BTreeMap<Name, f64>,
    ips: BTreeMap<Name, f64>,
}

impl Limits {
    /// The quotas of one key.
    pub fn new(quotas: &Quotas, key: Key) -> Self {
        let mut limits = Self::default();
        for (entity, values) in quotas {
            let Some(rate) = values.get(&key).copied() else { continue };
            match entity.clone() {
                Entity::UserAndClientId(user, id) => {
                    limits.both.entry(user).or_default().insert(id, rate);
                }
                Entity::User(user) => _ = limits.users.insert(user, rate),
                Entity::ClientId(id) => _ = limits.client_ids.insert(id, rate),
                Entity::Ip(ip) => _ = limits.ips.insert(normalised(ip), rate),
            }
        }
        limits
    }

    /// Whether there are none: then nothing has to be counted.
    pub fn is_empty(&self) -> bool {
        self.both.is_empty()
            && self.users.is_empty()
            && self.client_ids.is_empty()
            && self.ips.is_empty()
    }

    /// The quota of a user's request: the first of these that there is.
    ///
    /// 1. the user and the client id, 2. the user and the default of client ids, 3. the user,
    /// 4. the default of users and the client id, 5. both defaults, 6. the default of users,
    /// 7. the client id, 8. the default of client ids.
    ///
    /// A request without client id falls under no quota of client ids, not even a default one.
    pub fn of(&self, user: &str, client_id: &str) -> Option<Limit> {
        let (named_user, named_id) = (&Name::Of(user.to_owned()), &Name::Of(client_id.to_owned()));
        let has_id = !client_id.is_empty();
        let both = |user, id| {
            self.both
                .get(user)
                .and_then(|of| of.get(id))
                .filter(|_| has_id)
                .map(|r| (r, true, true))
        };
        let users = |user| self.users.get(user).map(|rate| (rate, true, false));
        let ids = |id| self.client_ids.get(id).filter(|_| has_id).map(|rate| (rate, false, true));
        let (rate, by_user, by_id) = both(named_user, named_id)
            .or_else(|| both(named_user, &Name::Default))
            .or_else(|| users(named_user))
            .or_else(|| both(&Name::Default, named_id))
            .or_else(|| both(&Name::Default, &Name::Default))
            .or_else(|| users(&Name::Default))
            .or_else(|| ids(named_id))
            .or_else(|| ids(&Name::Default))?;
        let bucket = Bucket {
            user: by_user.then(|| user.to_owned()),
            client_id: by_id.then(|| client_id.to_owned()),
        };
        Some(Limit { bucket, rate: *rate })
    }

    /// The quota of an address.
    pub fn of_ip(&self, ip: std::net::IpAddr) -> Option<f64> {
        let own = self.ips.get(&Name::Of(ip.to_canonical().to_string()));
        own.or_else(|| self.ips.get(&Name::Default)).copied()
    }
}

/// One text for each address.
fn normalised(name: Name) -> Name {
    match name {
        Name::Of(ip) => match ip.parse::<std::net::IpAddr>() {
            Ok(address) => Name::Of(address.to_canonical().to_string()),
            Err(_) => Name::Of(ip),
        },
        Name::Default => Name::Default,
    }
}
