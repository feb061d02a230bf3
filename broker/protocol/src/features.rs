//! The features that a cluster can finalise (KIP-584), and the levels of each that this version
//! serves.
//!
//! Brokers tell clients of them (ApiVersions), the controller raises and lowers them
//! (UpdateFeatures). A level stands here only when it is served completely. Never holds which level
//! a cluster is at.

/// A feature and its levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name in Apache Kafka.
    pub name: &'static str,
    /// The lowest level that is served; 0: it can be off.
    pub min: i16,
    /// The highest level that is served; 0: none is, and nobody is told of the feature.
    pub max: i16,
    /// The level that a new cluster begins at; 0: off.
    pub initial: i16,
}

/// The features, in the order of their names.
pub static FEATURES: &[Feature] = &[
    // KIP-966 cannot be off: what is committed rests on it.
    feature("eligible.leader.replicas.version", 1, 1, 1),
    feature("group.version", 0, 1, 1),
    // `IBP_4_3_IV0` of `MetadataVersion`. Kafka's level tells the format of its metadata log, which
    // is not here; tools ask for it.
    feature("metadata.version", 30, 30, 30),
    feature("transaction.version", 0, 2, 2),
];

const fn feature(name: &'static str, min: i16, max: i16, initial: i16) -> Feature {
    Feature { name, min, max, initial }
}

/// The feature of this name, if a level of it is served.
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
