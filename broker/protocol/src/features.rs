//! The features that a cluster can finalise (KIP-584), and the levels of each that this version
//! supports.
//!
//! Brokers advertise them to clients (ApiVersions), and the controller raises and lowers them
//! (UpdateFeatures). The table has a level only when this version supports all of it. It never
//! holds the level of a cluster.

/// A feature and its levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name in Apache Kafka.
    pub name: &'static str,
    /// The lowest supported level; 0 means that the feature can be off.
    pub min: i16,
    /// The highest supported level; 0 means that no level is, and brokers do not advertise the
    /// feature.
    pub max: i16,
    /// The level of a new cluster; 0 means off.
    pub initial: i16,
}

/// The features, in the order of their names.
pub static FEATURES: &[Feature] = &[
    // KIP-966 cannot be off: the definition of committed records depends on it.
    feature("eligible.leader.replicas.version", 1, 1, 1),
    feature("group.version", 0, 1, 1),
    // `IBP_4_3_IV0` of `MetadataVersion`. In Kafka the level is the format of its metadata log,
    // which Weir does not have, but tools ask for it.
    feature("metadata.version", 30, 30, 30),
    feature("transaction.version", 0, 2, 2),
];

const fn feature(name: &'static str, min: i16, max: i16, initial: i16) -> Feature {
    Feature { name, min, max, initial }
}

/// The feature of this name, if any level of it is supported.
pub fn find(name: &str) -> Option<&'static Feature> {
    FEATURES.iter().find(|feature| feature.name == name && feature.max > 0)
}

impl Feature {
    /// Whether a cluster may be at this level.
    pub fn supports(&self, level: i16) -> bool {
        (self.min..=self.max).contains(&level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_begins_at_levels_that_are_served() {
        assert!(FEATURES.windows(2).all(|pair| pair[0].name < pair[1].name));
        for feature in FEATURES {
            assert!(
                feature.min <= feature.max
                    && (feature.initial == 0 || feature.supports(feature.initial)),
                "{feature:?}"
            );
            assert_eq!(find(feature.name).is_some(), feature.max > 0);
        }
    }
}
