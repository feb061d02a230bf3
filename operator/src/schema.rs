//! Validation of a resource as the API server of Kubernetes does it: the structural schema and the
//! CEL rules of its generated definition, evaluated here.
//!
//! Local mode calls it where `kubectl apply` would call an API server, so both refuse the same
//! resources for the same reasons. The definition is the only source: besides what Kubernetes
//! checks of every object (`apiVersion`, `kind`, `metadata`), this module checks nothing else.
//! Pure: no I/O, no clock, no other object.
//!
//! Two differences to the API server are intended. The API server reports unknown fields first and
//! alone, and runs no rule while any field is invalid. Here everything is reported at once, and a
//! rule runs as soon as the fields that it reads are well formed. And there is no ratcheting: a
//! value that is no longer allowed is refused even if it was there before.

mod bounds;
mod check;
mod error;
mod format;
mod metadata;
mod path;
mod prepare;
mod rules;
mod structure;

#[cfg(test)]
mod tests;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use serde_json::Value;

use check::Place;
pub use error::FieldError;
use path::Path;

/// Validates `object` against `crd` and returns it as the API server would store it: with defaults,
/// and without nulls where the schema does not allow them.
///
/// `old` is the object to be replaced; transition rules (`oldSelf`) apply only if there is one. If
/// the definition has the status subresource, the status is taken from `old`, as an API server does
/// for a write to the main resource.
///
/// # Errors
/// Every violation, field by field; never empty.
pub fn validate(
    crd: &CustomResourceDefinition,
    object: &Value,
    old: Option<&Value>,
) -> Result<Value, Vec<FieldError>> {
    bounds::check(object).map_err(|error| vec![error])?;
    let root = root_schema(crd, object).map_err(|error| vec![error])?;
    let mut object = object.clone();
    let mut old = old.cloned();
    if let Some(old) = &mut old {
        prepare::prepare(&root.schema, old);
    }
    if root.has_status_subresource {
        keep_status(&mut object, old.as_ref());
    }
    prepare::prepare(&root.schema, &mut object);

    let mut errors = Vec::new();
    metadata::check(object.get("metadata"), &mut errors);
    let mut found = Vec::new();
    check::check(Place::Spine, &root.schema, &object, old.as_ref(), &Path::root(), &mut found);
    // The name is checked twice: as metadata, and as a part of the object that rules see.
    found.retain(|error| !errors.contains(error));
    errors.append(&mut found);
    if errors.is_empty() { Ok(object) } else { Err(errors) }
}

/// The schema of the object's version.
struct Root {
    schema: JSONSchemaProps,
    has_status_subresource: bool,
}

/// Finds the schema by `apiVersion` and `kind`, and adds what every object has
/// (`WithTypeAndObjectMeta` in apiextensions-apiserver).
fn root_schema(crd: &CustomResourceDefinition, object: &Value) -> Result<Root, FieldError> {
    if !object.is_object() {
        return Err(FieldError::new(
            &Path::root(),
            "an object has to be a map with apiVersion, kind, metadata and spec",
        ));
    }
    let names = &crd.spec.names;
    expect_text(object, "kind", std::slice::from_ref(&names.kind))?;
    let versions: Vec<_> = crd.spec.versions.iter().filter(|version| version.served).collect();
    let known: Vec<String> =
        versions.iter().map(|version| format!("{}/{}", crd.spec.group, version.name)).collect();
    let position = expect_text(object, "apiVersion", &known)?;

    let version = versions.get(position);
    let schema = version.and_then(|version| version.schema.as_ref()?.open_api_v3_schema.clone());
    let mut schema = schema
        .ok_or_else(|| FieldError::new(&Path::root(), format!("{} has no schema", names.kind)))?;
    let properties = schema.properties.get_or_insert_default();
    properties.insert("apiVersion".to_owned(), metadata::text());
    properties.insert("kind".to_owned(), metadata::text());
    properties.insert("metadata".to_owned(), metadata::as_rules_see_it());
    let subresources = version.and_then(|version| version.subresources.as_ref());
    Ok(Root {
        schema,
        has_status_subresource: subresources
            .is_some_and(|subresources| subresources.status.is_some()),
    })
}

/// The position of a field's value in `allowed`.
fn expect_text(object: &Value, field: &str, allowed: &[String]) -> Result<usize, FieldError> {
    let path = Path::root().field(field);
    let value = object.get(field).ok_or_else(|| FieldError::required(&path))?;
    let position = allowed.iter().position(|allowed| value.as_str() == Some(allowed));
    position.ok_or_else(|| {
        FieldError::invalid(&path, value, format!("must be {}", allowed.join(" or ")))
    })
}

fn keep_status(object: &mut Value, old: Option<&Value>) {
    let Some(fields) = object.as_object_mut() else { return };
    match old.and_then(|old| old.get("status")) {
        Some(status) => fields.insert("status".to_owned(), status.clone()),
        None => fields.remove("status"),
    };
}
