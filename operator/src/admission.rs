//! Admission of a resource as by the API server of Kubernetes: the schema and the CEL rules of the
//! generated definitions.
//!
//! Called by local mode, which has no API server. The definitions are the only source, as for
//! `kubectl apply`; besides them it checks only what Kubernetes checks of every object
//! (`metadata`). Never looks at other objects; the controller does.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use crate::controller;
use crate::schema::{self, FieldError};

/// The kinds that users write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A kind that the controller decides on.
    Controlled(controller::Kind),
    /// `ConsumerGroup`
    ConsumerGroup,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Controlled(kind) => kind.fmt(f),
            Self::ConsumerGroup => f.write_str("ConsumerGroup"),
        }
    }
}

impl Kind {
    /// A kind by its name in `kind`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "KafkaCluster" => Some(Self::Controlled(controller::Kind::KafkaCluster)),
            "Topic" => Some(Self::Controlled(controller::Kind::Topic)),
            "ConsumerGroup" => Some(Self::ConsumerGroup),
            _ => None,
        }
    }
}

/// A field and the reason of its refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field, for instance `spec.config.retention.ms`.
    pub path: String,
    /// The reason.
    pub reason: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.reason),
            path => write!(f, "{path}: {}", self.reason),
        }
    }
}

/// The definitions, as generated.
static DEFINITIONS: LazyLock<Vec<CustomResourceDefinition>> = LazyLock::new(weir_crds::definitions);

/// The kind and name of an object: enough to find the object that it would replace.
///
/// # Errors
/// The field that is missing or unknown.
pub fn identify(object: &Value) -> Result<(Kind, String), Violation> {
    let violation = |path: &str, reason: String| Violation { path: path.to_owned(), reason };
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let kind = match text("/kind") {
        Some(name) => Kind::named(name).ok_or_else(|| {
            violation("kind", format!("{name:?} is none of KafkaCluster, Topic and ConsumerGroup"))
        })?,
        None => {
            return Err(violation(
                "kind",
                "is missing: KafkaCluster, Topic or ConsumerGroup".to_owned(),
            ));
        }
    };
    match text("/apiVersion") {
        Some(weir_crds::API_VERSION) => {}
        Some(other) => {
            return Err(violation(
                "apiVersion",
                format!("{other:?} is not {:?}", weir_crds::API_VERSION),
            ));
        }
        None => {
            return Err(violation(
                "apiVersion",
                format!("is missing: {:?}", weir_crds::API_VERSION),
            ));
        }
    }
    let name = text("/metadata/name")
        .ok_or_else(|| violation("metadata.name", "is missing".to_owned()))?;
    if !crate::controller::is_subdomain(name) {
        let reason = format!(
            "{name:?} is no name: lower case letters, digits, '-' and '.', at most 253, a letter or digit at both ends"
        );
        return Err(violation("metadata.name", reason));
    }
    Ok((kind, name.to_owned()))
}

/// Sets the schema's defaults and validates the object; `old` is the object that it would replace.
/// The controller writes the status, so the object's is ignored.
///
/// # Errors
/// Every violation, in the order of the fields.
pub fn admit(kind: Kind, object: &Value, old: Option<&Value>) -> Result<Value, Vec<Violation>> {
    let kind = kind.to_string();
    let definition = DEFINITIONS.iter().find(|definition| definition.spec.names.kind == kind);
    // Every kind has its definition; without one, validation is impossible.
    let Some(definition) = definition else {
        return Err(vec![Violation {
            path: "kind".to_owned(),
            reason: "has no definition".to_owned(),
        }]);
    };
    let violation = |error: FieldError| Violation { path: error.path, reason: error.reason };
    schema::validate(definition, object, old)
        .map_err(|errors| errors.into_iter().map(violation).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_says_what_it_is_and_what_is_wrong_with_it() {
        let said = |object: &Value| match identify(object) {
            Err(violation) => violation.to_string(),
            Ok((kind, _)) => match admit(kind, object, None) {
                Ok(_) => "ok".to_owned(),
                Err(violations) => {
                    violations.iter().map(Violation::to_string).collect::<Vec<_>>().join("; ")
                }
            },
        };
        let topic = |name: &str, spec: Value| json!({"apiVersion": "weir.dev/v1alpha1", "kind": "Topic", "metadata": {"name": name}, "spec": spec});
        let of = json!({"name": "local"});
        assert_eq!(said(&topic("orders", json!({"clusterRef": of}))), "ok");
        assert!(
            said(&topic("orders", json!({"clusterRef": of, "partitions": 0})))
                .starts_with("spec.partitions: ")
        );
        assert!(
            said(&topic("orders", json!({"clusterRef": of, "partition": 1})))
                .contains("unknown field")
        );
        assert!(said(&topic("Orders", json!({"clusterRef": of}))).starts_with("metadata.name: "));
        assert!(said(&json!({"kind": "Topic"})).starts_with("apiVersion: "));
        assert!(
            said(&json!({"kind": "Deployment", "apiVersion": "apps/v1"})).starts_with("kind: ")
        );
    }
}
