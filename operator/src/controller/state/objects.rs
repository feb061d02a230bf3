//! The objects at an API server that users write too, in the version that the state has taken up.
//!
//! The watch of these objects reports versions late. Some of them are the operator's own writes,
//! and clients may have changed the state since. So an offered version is news only if its
//! generation is greater than the one that was taken up ([`TakenUp::is_superseded_by`]). Of a
//! version that is news, the state takes up the difference to the one that was taken up before
//! ([`TakenUp::merged`]): changes by clients that are not written yet stay.
//!
//! This is memory of a running controller. The store does not keep it, and there is none where
//! nobody but the controller writes.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use imbl::OrdMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use weir_crds::{KafkaClusterSpec, TopicSpec};

use super::super::key::Key;

/// The objects of a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// The `KafkaCluster`.
    pub cluster: Option<TakenUp<KafkaClusterSpec>>,
    /// The `Topic`s.
    pub topics: OrdMap<Key, TakenUp<TopicSpec>>,
}

/// The version of an object that the state has taken up.
#[derive(Clone, Debug, PartialEq)]
pub struct TakenUp<S> {
    /// The object's `metadata.uid`.
    pub uid: String,
    /// The greatest `metadata.generation` whose content the state has, or has superseded.
    pub generation: i64,
    /// A `metadata.resourceVersion` of it, if that is a number. Kubernetes orders the objects of
    /// one kind by it (KEP-5504).
    pub version: Option<u64>,
    /// The content that the state has taken up, including the controller's own writes. The state
    /// differs from it only by decisions that are not written yet. `None`: the controller decided
    /// to delete the object.
    pub spec: Option<Arc<S>>,
}

impl<S> TakenUp<S> {
    /// The version with this metadata; `None` for a resource that is not at an API server.
    pub fn of(metadata: &ObjectMeta, spec: &S) -> Option<Self>
    where
        S: Clone,
    {
        let version = metadata.resource_version.as_ref()?.parse().ok();
        let (uid, generation) = (metadata.uid.clone()?, metadata.generation?);
        Some(Self { uid, generation, version, spec: Some(Arc::new(spec.clone())) })
    }

    /// Whether an offered version is news. An object with another uid was created later, unless
    /// its `resourceVersion` is less.
    pub fn is_superseded_by(&self, offered: &Self) -> bool {
        if self.uid == offered.uid {
            self.spec.is_some() && offered.generation > self.generation
        } else {
            !matches!((offered.version, self.version), (Some(new), Some(old)) if new < old)
        }
    }

    /// The version before: it makes `self` news once more.
    #[must_use]
    pub fn but_one(mut self) -> Self {
        self.generation = self.generation.saturating_sub(1);
        self
    }

    /// What is taken up after a commit. `there` is the newest known version of the object, which
    /// contains the controller's own writes, and `ours` the spec of the state. If users have
    /// changed the object besides, `there` is news and older versions are not.
    #[must_use]
    pub fn settled(before: Option<&Self>, there: Self, ours: &S) -> Self
    where
        S: Clone + PartialEq,
    {
        let before = before.filter(|before| before.spec.is_some());
        match before {
            // The object was created again, and is offered next.
            Some(before) if before.uid != there.uid => before.clone(),
            _ => {
                let is_ours = there.spec.as_deref() == Some(ours);
                let mut settled = if is_ours { there } else { there.but_one() };
                settled.generation =
                    settled.generation.max(before.map_or(i64::MIN, |before| before.generation));
                settled.spec = Some(Arc::new(ours.clone()));
                settled
            }
        }
    }
}

impl<S: Clone + PartialEq + Serialize + DeserializeOwned> TakenUp<S> {
    /// The state's spec with the difference from the spec that was taken up to the offered one.
    /// Where the state has changed the same field, the offered value counts.
    ///
    /// # Errors
    /// When both changes together are no valid spec.
    pub fn merged(&self, offered: &S, ours: &S) -> Result<S, String> {
        match self.spec.as_deref() {
            Some(before) if before != ours => {
                let [before, offered, ours] = [before, offered, ours].map(|spec| json!(spec));
                let merged = merge(Some(&before), Some(&offered), Some(&ours));
                serde_json::from_value(merged.unwrap_or_default())
                    .map_err(|error| error.to_string())
            }
            _ => Ok(offered.clone()),
        }
    }
}

/// Merges two changes of a value; `None` stands for an absent field. Objects are merged by field,
/// and anything else is one value.
fn merge(before: Option<&Value>, theirs: Option<&Value>, ours: Option<&Value>) -> Option<Value> {
    if before == theirs {
        return ours.cloned();
    }
    if before == ours {
        return theirs.cloned();
    }
    let empty = Map::new();
    let fields = |of: Option<&'_ Value>| match of {
        None => Some(empty.clone()),
        Some(Value::Object(fields)) => Some(fields.clone()),
        Some(_) => None,
    };
    let (Some(old), Some(new), Some(held)) = (fields(before), fields(theirs), fields(ours)) else {
        return theirs.cloned();
    };
    let mut merged = Map::new();
    for name in new.keys().chain(held.keys()) {
        if let Some(value) = merge(old.get(name), new.get(name), held.get(name)) {
            merged.insert(name.clone(), value);
        }
    }
    let is_absent = merged.is_empty() && theirs.is_none();
    (!is_absent).then_some(Value::Object(merged))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_changes_survive_and_the_users_counts_where_they_meet() {
        let none = Value::Null;
        let cases = [
            // Before, the user's, ours, both.
            (json!({"a": 1}), json!({"a": 1}), json!({"a": 2}), json!({"a": 2})),
            (json!({"a": 1}), json!({"a": 2}), json!({"a": 1}), json!({"a": 2})),
            (json!({"a": 1}), json!({"a": 2}), json!({"a": 3}), json!({"a": 2})),
            (json!({"a": 1}), json!({"a": 1, "b": 1}), json!({"c": 1}), json!({"b": 1, "c": 1})),
            (json!({"a": 1}), json!({}), json!({"a": 1, "c": 1}), json!({"c": 1})),
            (json!({"a": 1}), json!({}), json!({"a": 2}), json!({})),
            (json!({"a": [1]}), json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [1, 2]})),
            (
                json!({}),
                json!({"m": {"x": 1}}),
                json!({"m": {"y": 1}}),
                json!({"m": {"x": 1, "y": 1}}),
            ),
            (
                json!({"m": {"x": 1}}),
                json!({}),
                json!({"m": {"x": 1, "y": 1}}),
                json!({"m": {"y": 1}}),
            ),
            (json!({"m": {"x": 1}}), json!({}), json!({"m": {"x": 2}}), json!({})),
            // A null that a user wrote is a value.
            (
                json!({"m": {"x": 1}}),
                json!({"m": {"x": none}}),
                json!({"m": {"x": 1}, "n": 1}),
                json!({"m": {"x": none}, "n": 1}),
            ),
        ];
        for (before, theirs, ours, both) in cases {
            let merged = merge(Some(&before), Some(&theirs), Some(&ours));
            assert_eq!(merged, Some(both), "{before}: {theirs} and {ours}");
        }
    }

    fn version(uid: &str, generation: i64, version: &str, spec: &str) -> TakenUp<String> {
        let metadata = ObjectMeta {
            uid: Some(uid.to_owned()),
            generation: Some(generation),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        TakenUp::of(&metadata, &spec.to_owned()).unwrap()
    }

    #[test]
    fn a_version_is_news_once() {
        let held = version("u", 3, "30", "");
        let news = |uid, generation, rv| held.is_superseded_by(&version(uid, generation, rv, ""));
        assert!(!news("u", 2, "20") && !news("u", 3, "31") && news("u", 4, "40"));
        assert!(!news("an older one", 9, "9"));
        assert!(news("a later one", 1, "100") && news("a later one", 1, "not a number"));
        let removed = TakenUp { spec: None, ..held.clone() };
        assert!(!removed.is_superseded_by(&version("u", 9, "90", "")), "its deletion is decided");
        assert!(removed.is_superseded_by(&version("v", 1, "40", "")));
    }

    #[test]
    fn a_users_change_beside_the_controllers_own_is_news() {
        let (held, ours) = (version("u", 3, "30", "b"), "d".to_owned());
        let settled = |there| TakenUp::settled(Some(&held), there, &ours);
        let offered = |held: &TakenUp<String>, generation| {
            held.is_superseded_by(&version("u", generation, "99", ""))
        };
        let alone = settled(version("u", 4, "40", "d"));
        assert!(!offered(&alone, 4) && offered(&alone, 5));
        let besides = settled(version("u", 5, "50", "d and u"));
        assert!(!offered(&besides, 4) && offered(&besides, 5));
        assert_eq!(besides.spec.as_deref(), Some(&ours));
        // An old observation makes nothing news again.
        assert!(!offered(&settled(version("u", 2, "20", "b")), 3));
        assert_eq!(settled(version("v", 1, "60", "b")), held, "that one is offered next");
    }
}
