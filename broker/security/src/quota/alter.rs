//! AlterClientQuotas (`ClientQuotaControlManager`).

use std::collections::BTreeMap;

use super::entity::{BadEntity, Entity, Key, Quotas, shortened};

/// A part of an entity as the request has it.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityPart {
    /// `user`, `client-id` or `ip`.
    pub kind: String,
    /// `None` is the default.
    pub name: Option<String>,
}

/// A change of one quota.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// The name of the quota.
    pub key: String,
    /// The new value; `None` removes the quota.
    pub value: Option<f64>,
}

/// An entry of the request.
#[derive(Clone, Debug, PartialEq)]
pub struct Alteration {
    /// The entity.
    pub entity: Vec<EntityPart>,
    /// The changes.
    pub ops: Vec<Op>,
}

/// Why an entry is refused (INVALID_REQUEST, 42).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// The entity is none.
    #[error(transparent)]
    Entity(#[from] BadEntity),
    /// Another entry is for the same entity. None of them is carried out.
    #[error("Ignoring duplicate entity")]
    DuplicateEntity,
    /// A quota is named twice.
    #[error("Duplicate quota key {0} not updating quota for this entity")]
    DuplicateKey(String),
    /// A quota that this kind of entity does not have.
    #[error("Invalid configuration key {0}")]
    UnknownKey(String),
    /// Not above zero.
    #[error("Quota {0} must be greater than 0")]
    NotPositive(&'static str),
    /// More than the type of the quota holds.
    #[error("Proposed value for {0} is too large for {1}.")]
    TooLarge(&'static str, &'static str),
    /// A fraction.
    #[error("{0} cannot be a fractional value.")]
    Fraction(&'static str),
}

/// The entity and the quotas that an entry leaves it with.
type Altered = (Entity, BTreeMap<Key, f64>);

/// What becomes of each entry, in their order. An entity without quotas is to be removed. What is
/// wrong with one entry does not stop the others.
pub fn alter(quotas: &Quotas, entries: &[Alteration]) -> Vec<Result<Altered, QuotaError>> {
    let entities: Vec<Result<Entity, BadEntity>> = entries.iter().map(entity_of).collect();
    let mut named: BTreeMap<&Entity, usize> = BTreeMap::new();
    entities.iter().flatten().for_each(|entity| *named.entry(entity).or_default() += 1);
    let altered = |(entity, entry): (&Result<Entity, BadEntity>, &Alteration)| {
        let entity = entity.clone()?;
        if named.get(&entity).is_some_and(|times| *times > 1) {
            return Err(QuotaError::DuplicateEntity);
        }
        let changes = changes(&entity, &entry.ops)?;
        let mut values = quotas.get(&entity).cloned().unwrap_or_default();
        for (key, value) in changes {
            match value {
                Some(value) => _ = values.insert(key, value),
                // To remove what is not there is no error.
                None => _ = values.remove(&key),
            }
        }
        Ok((entity, values))
    };
    entities.iter().zip(entries).map(altered).collect()
}

fn entity_of(entry: &Alteration) -> Result<Entity, BadEntity> {
    Entity::of_parts(entry.entity.iter().map(|part| (&*part.kind, part.name.as_deref())))
}

fn changes(entity: &Entity, ops: &[Op]) -> Result<BTreeMap<Key, Option<f64>>, QuotaError> {
    let mut changes = BTreeMap::new();
    for op in ops {
        let known = Key::from_name(&op.key);
        let key = known.filter(|key| key.is_of_ip() == matches!(entity, Entity::Ip(_)));
        // Kafka looks at keys of new values only; what it cannot have, nobody needs to remove.
        let key = key.ok_or_else(|| QuotaError::UnknownKey(shortened(&op.key)))?;
        if let Some(value) = op.value {
            check(key, value)?;
        }
        if changes.insert(key, op.value).is_some() {
            return Err(QuotaError::DuplicateKey(shortened(&op.key)));
        }
    }
    Ok(changes)
}

/// `validateQuotaKeyValue`.
fn check(key: Key, value: f64) -> Result<(), QuotaError> {
    let name = key.name();
    // No number is not above zero either; Kafka lets it pass.
    if value.is_nan() || value <= 0.0 {
        return Err(QuotaError::NotPositive(name));
    }
    let integral = match key {
        Key::RequestPercentage | Key::ControllerMutationRate => None,
        Key::ConnectionCreationRate => Some((f64::from(i32::MAX), "an INT")),
        Key::ProducerByteRate | Key::ConsumerByteRate => Some((i64::MAX as f64, "a LONG")),
    };
    match integral {
        Some((max, kind)) if value > max => Err(QuotaError::TooLarge(name, kind)),
        Some(_) if (value % 1.0).abs() > 1e-6 => Err(QuotaError::Fraction(name)),
        _ => Ok(()),
    }
}
