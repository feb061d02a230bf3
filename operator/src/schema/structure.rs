//! The schemas inside a list's or a map's schema.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// The schema of a list's items.
pub(super) fn items(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(each)) => Some(each),
        // A schema for each position is not structural: no API server accepts such a definition.
        Some(JSONSchemaPropsOrArray::Schemas(_)) | None => None,
    }
}

/// The schema of a map's values.
pub(super) fn values(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(each)) => Some(each),
        Some(JSONSchemaPropsOrBool::Bool(_)) | None => None,
    }
}
