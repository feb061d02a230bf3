//! The namespaces that may have Topics and ConsumerGroups of a cluster, as in the Gateway API's
//! `allowedRoutes.namespaces`.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kubernetes_values::{self, LABEL_VALUE, QUALIFIED_NAME_OR_NOTHING};

/// The namespaces whose Topics and ConsumerGroups a cluster accepts.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("(has(self.from) && self.from == 'Selector') == has(self.selector)")
        .message("give selector with from: Selector, and with nothing else"),
)]
pub struct AllowedNamespaces {
    /// Which namespaces are allowed. Same: only the cluster's own. All: every namespace that the
    /// operator watches. Selector: those with labels that selector matches, and the cluster's own.
    /// Default: Same.
    #[serde(default)]
    pub from: NamespacesFrom,

    /// With Selector, the labels of the allowed namespaces. An empty selector matches every
    /// namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<NamespaceSelector>,
}

/// Which namespaces may have a cluster's resources.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum NamespacesFrom {
    /// Only the cluster's own.
    #[default]
    Same,
    /// Every namespace that the operator watches.
    All,
    /// The namespaces with matching labels, and the cluster's own.
    Selector,
}

/// A condition on a namespace's labels; every part of it must hold.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespaceSelector {
    /// Required labels with their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "kubernetes_values::labels")]
    pub match_labels: BTreeMap<String, String>,

    /// Further conditions on labels, as in other selectors of Kubernetes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<LabelExpression>,
}

/// A condition on one label.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("(self.operator == 'In' || self.operator == 'NotIn') == (has(self.values) && size(self.values) > 0)")
        .message("the operators In and NotIn need values, and the others take none"),
)]
pub struct LabelExpression {
    /// The label's key.
    #[schemars(length(min = 1, max = 317), regex(pattern = QUALIFIED_NAME_OR_NOTHING))]
    pub key: String,

    /// The comparison. In: the label has one of the values. NotIn: the label has none of them, or
    /// is missing. Exists: the label exists. DoesNotExist: the label is missing.
    pub operator: LabelOperator,

    /// The values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63), regex(pattern = LABEL_VALUE)))]
    pub values: Vec<String>,
}

/// The comparison of a label.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum LabelOperator {
    /// The label has one of the values.
    In,
    /// The label has none of the values, or is missing.
    NotIn,
    /// The label exists.
    Exists,
    /// The label is missing.
    DoesNotExist,
}

impl NamespaceSelector {
    /// Whether the selector matches these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |key: &str, values: &[String]| {
            labels.get(key).is_some_and(|value| values.contains(value))
        };
        let holds = |one: &LabelExpression| match one.operator {
            LabelOperator::In => has(&one.key, &one.values),
            LabelOperator::NotIn => !has(&one.key, &one.values),
            LabelOperator::Exists => labels.contains_key(&one.key),
            LabelOperator::DoesNotExist => !labels.contains_key(&one.key),
        };
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(holds)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The expected results are those of Kubernetes' own selectors
    /// (`k8s.io/apimachinery/pkg/labels`, `Requirement.Matches`).
    #[test]
    fn a_selector_matches_as_those_of_kubernetes() {
        let labels = BTreeMap::from([
            ("team".to_owned(), "payments".to_owned()),
            ("kafka".to_owned(), String::new()),
        ]);
        let expression = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        for (selector, matches) in [
            (json!({}), true),
            (json!({"matchLabels": {"team": "payments"}}), true),
            (json!({"matchLabels": {"team": "payments", "kafka": "x"}}), false),
            (json!({"matchLabels": {"other": ""}}), false),
            (expression("team", "In", json!(["orders", "payments"])), true),
            (expression("other", "In", json!([""])), false),
            (expression("team", "NotIn", json!(["payments"])), false),
            (expression("other", "NotIn", json!(["payments"])), true),
            (expression("kafka", "Exists", json!([])), true),
            (expression("other", "Exists", json!([])), false),
            (expression("other", "DoesNotExist", json!([])), true),
            (expression("kafka", "DoesNotExist", json!([])), false),
        ] {
            let read: NamespaceSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(read.matches(&labels), matches, "{selector}");
        }
    }
}
