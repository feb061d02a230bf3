//! Values that Kubernetes validates in the objects that the operator creates: labels, annotations,
//! names, images, quantities. The schema refuses a resource with an invalid value as Kubernetes
//! would refuse the object (`k8s.io/apimachinery/pkg/util/validation`,
//! `k8s.io/kubernetes/pkg/apis/core/validation`).

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;

/// A quantity, as in `k8s.io/apimachinery/pkg/api/resource`, but not below zero.
pub(crate) const QUANTITY: &str =
    r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,3})?$";

/// A lower-case DNS name, the form of most names in Kubernetes (`IsDNS1123Subdomain`). At most 253
/// characters.
pub(crate) const SUBDOMAIN: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// The same as [`SUBDOMAIN`], or empty.
pub(crate) const SUBDOMAIN_OR_NOTHING: &str =
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$";

/// A label's value, or empty (`IsValidLabelValue`). At most 63 characters.
pub(crate) const LABEL_VALUE: &str = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

/// A label's key, or empty: a name, optionally after a DNS name and `/` (`IsQualifiedName`).
pub(crate) const QUALIFIED_NAME_OR_NOTHING: &str = r"^(([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$";

/// An image reference: an optional registry host, a path, and an optional tag and digest
/// (`github.com/distribution/reference`).
pub(crate) const IMAGE: &str = concat!(
    r"^(([a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])(:[0-9]+)?/)?",
    r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*",
    r"(:[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?(@[A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$"
);

/// The most bytes of an annotation (`TotalAnnotationSizeLimitB`, which limits all annotations of an
/// object together).
const ANNOTATION_BYTES_MAX: u32 = 262_144;

/// The rule for keys: a qualified name, whose part before the `/` has at most 253 characters. Keys
/// of annotations may have upper-case letters in that part.
fn keys_rule(prefix: &str) -> String {
    let name = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?";
    let pattern = format!(
        r"^({prefix}([-{inner}]*{prefix})?(\\.{prefix}([-{inner}]*{prefix})?)*/)?{name}$",
        inner = prefix.trim_matches(['[', ']'])
    );
    format!("self.all(one, one.matches('{pattern}') && one.matches('^([^/]{{1,253}}/)?[^/]+$'))")
}

/// Labels: of a pod, or that a node must have.
pub(crate) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE},
        "x-kubernetes-validations": [{
            "rule": keys_rule("[a-z0-9]"),
            "message": "the key of a label is a name of at most 63 letters, digits, '-', '_' and '.', which begins and ends with a letter or digit; before it there may be a DNS name and '/'",
        }],
    })
}

/// The rule against labels that the operator or the StatefulSet controller sets on pods.
fn labels_of_others() -> serde_json::Value {
    json!({
        "rule": "self.all(one, !one.startsWith('weir.dev/') && !(one in ['app.kubernetes.io/name', 'app.kubernetes.io/component', 'app.kubernetes.io/instance', 'app.kubernetes.io/managed-by', \
                 'controller-revision-hash', 'statefulset.kubernetes.io/pod-name', 'apps.kubernetes.io/pod-index']))",
        "message": "these labels are not for users, since the brokers' pods are found by them: app.kubernetes.io/name, component, instance and managed-by, all of weir.dev, and those of the StatefulSet controller",
    })
}

/// The users' labels of the brokers' pods.
pub(crate) fn pod_labels(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = labels(generator);
    if let Some(rules) =
        schema.get_mut("x-kubernetes-validations").and_then(serde_json::Value::as_array_mut)
    {
        rules.push(labels_of_others());
    }
    schema
}

/// A strategic merge patch of a pod template: free, but for the labels that others set. Null
/// removes a label.
pub(crate) fn pod_template_patch() -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"metadata": {
            "type": "object",
            "nullable": true,
            "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"labels": {
                "type": "object",
                "nullable": true,
                "maxProperties": 64,
                "additionalProperties": {"type": "string", "nullable": true, "maxLength": 63},
                "x-kubernetes-validations": [labels_of_others()],
            }},
        }},
    })
}

/// Annotations of an object.
pub(crate) fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": ANNOTATION_BYTES_MAX},
        "x-kubernetes-validations": [{
            "rule": keys_rule("[a-zA-Z0-9]"),
            "message": "the key of an annotation is a name of at most 63 letters, digits, '-', '_' and '.', which begins and ends with a letter or digit; before it there may be a DNS name and '/'",
        }],
    })
}

/// Resource amounts of a container, by resource name. Resources other than CPU, memory and
/// ephemeral storage have a name with a domain or are huge pages, and their amounts are integers.
pub(crate) fn amounts(_: &mut SchemaGenerator) -> Schema {
    let known = "one in ['cpu', 'memory', 'ephemeral-storage']";
    let others = r"one.matches('^(hugepages-[1-9][0-9]*[kKMGTPE]?i?|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)$')";
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": amount(),
        "x-kubernetes-validations": [
            {
                "rule": format!("self.all(one, {known} || {others})"),
                "message": "a resource is cpu, memory, ephemeral-storage, hugepages- with a size, or one with a domain, as in example.com/gpu",
            },
            {
                "rule": format!("self.all(one, {known} || quantity(string(self[one])).isInteger())"),
                "message": "only cpu, memory and ephemeral-storage can have a part of a whole",
            },
        ],
    })
}

/// The lowest memory limit of a broker: the broker's own bounds fit into it
/// (`broker/src/memory.rs`).
const MEMORY_LIMIT_MIN: &str = "128Mi";

/// The limits of a broker's container. A limit of 0 means none, as for the kubelet.
pub(crate) fn limits(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = amounts(generator);
    let limit = "quantity(string(self['memory']))";
    let rule = json!({
        "rule": format!(
            "!('memory' in self) || {limit}.compareTo(quantity('0')) == 0 || {limit}.compareTo(quantity('{MEMORY_LIMIT_MIN}')) >= 0"
        ),
        "messageExpression": format!(
            "'memory is limited to ' + string(self['memory']) + ', and a broker needs {MEMORY_LIMIT_MIN} at least'"
        ),
    });
    if let Some(rules) =
        schema.get_mut("x-kubernetes-validations").and_then(serde_json::Value::as_array_mut)
    {
        rules.push(rule);
    }
    schema
}

/// A quantity of zero or more.
pub(crate) fn amount() -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "pattern": QUANTITY,
        "maxLength": 64,
        "minimum": 0,
    })
}
