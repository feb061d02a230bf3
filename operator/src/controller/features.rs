//! Finalised features (KIP-584): what every broker of the cluster may rely on
//! (`FeatureControlManager` in Apache Kafka).
//!
//! `weir_protocol::features` lists the features and their levels. Only UpdateFeatures raises or
//! lowers a level; a new cluster starts with the defaults.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::error::ErrorCode;
use weir_protocol::features;
use weir_protocol::messages::update_features_request::FeatureUpdateKey;
use weir_protocol::messages::update_features_response::UpdatableFeatureResult;
use weir_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::draft::Draft;
use super::error::ApiError;
use super::state::{Change, Features};

/// `FeatureUpdate.UpgradeType` in Apache Kafka.
const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;

/// Gives a cluster without features the initial levels.
pub(super) fn begin(draft: &mut Draft<'_>) {
    if draft.state.cluster.features.epoch == 0 {
        let levels = features::FEATURES.iter().filter(|feature| feature.initial > 0);
        draft.push(Change::Features(Features {
            epoch: 1,
            levels: levels.map(|feature| (feature.name.to_owned(), feature.initial)).collect(),
        }));
    }
}

pub(super) fn update(
    draft: &mut Draft<'_>,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let before = &draft.state.cluster.features;
    let mut next = before.clone();
    for update in &request.feature_updates {
        if let Err(error) = update_one(&mut next, update) {
            return UpdateFeaturesResponse {
                error_code: error.code as i16,
                error_message: Some(format!(
                    "The update failed for all features since the following feature had an error: {}",
                    error.message
                )),
                ..UpdateFeaturesResponse::default()
            };
        }
    }
    if next != *before && !request.validate_only {
        next.epoch = before.epoch + 1;
        draft.push(Change::Features(next));
    }
    let results = request.feature_updates.into_iter().map(|update| UpdatableFeatureResult {
        feature: update.feature,
        error_code: 0,
        error_message: None,
    });
    UpdateFeaturesResponse {
        error_message: None,
        results: results.collect(),
        ..UpdateFeaturesResponse::default()
    }
}

fn update_one(levels: &mut Features, update: &FeatureUpdateKey) -> Result<(), ApiError> {
    let (name, level) = (&update.feature, update.max_version_level);
    let invalid = |why: &str| {
        let message = format!("Invalid update version {level} for feature {name}. {why}");
        Err(ApiError::new(ErrorCode::InvalidUpdateVersion, message))
    };
    // Version 0 has a flag where later versions have a type.
    let kind = if update.allow_downgrade { SAFE_DOWNGRADE } else { update.upgrade_type };
    if !(UPGRADE..=UNSAFE_DOWNGRADE).contains(&kind) {
        return invalid("The controller does not support the given upgrade type.");
    }
    if level < 0 {
        return invalid("A feature version cannot be less than 0.");
    }
    let Some(feature) = features::find(name) else {
        return invalid("The controller does not support this feature.");
    };
    if !feature.supports(level) {
        return invalid(&format!(
            "The controller only supports versions {}-{}",
            feature.min, feature.max
        ));
    }
    let current = levels.levels.get(name).copied().unwrap_or_default();
    if level < current && kind == UPGRADE {
        return invalid(
            "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade.",
        );
    }
    if level > current && kind != UPGRADE {
        return invalid("Can't downgrade to a newer version.");
    }
    if level == 0 {
        levels.levels.remove(name);
    } else {
        levels.levels.insert(name.clone(), level);
    }
    Ok(())
}
