//! Which namespaces may have Topics and ConsumerGroups of a cluster, in the manner of the Gateway
//! API's `allowedRoutes.namespaces`.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema writes public types inside of functions"
)]

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kubernetes_values::{self, LABEL_VALUE, QUALIFIED_NAME_OR_NOTHING};

/// The namespaces whose Topics and ConsumerGroups a cluster takes.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("(has(self.from) && self.from == 'Selector') == has(self.selector)")
        .message("give selector with from: Selector, and with nothing else"),
)]
pub struct AllowedNamespaces {
    /// Which they are. Same: the cluster's own. All: every one that the operator watches. Selector:
    /// those whose labels selector matches, and the cluster's own. Default: Same.
    #[serde(default)]
    pub from: NamespacesFrom,

    /// With Selector, the labels of the namespaces. An empty one matches every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<NamespaceSelector>,
}

/// Where the namespaces of a cluster's resources come from.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum NamespacesFrom {
    /// The cluster's own.
    #[default]
    Same,
    /// Every one that the operator watches.
    All,
    /// Those whose labels a selector matches, and the cluster's own.
    Selector,
}

/// Labels that a namespace must have: all that is named holds.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespaceSelector {
    /// Labels and the values that they must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "kubernetes_values::labels")]
    pub match_labels: BTreeMap<String, String>,

    /// More about labels, as in other selectors of Kubernetes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<LabelExpression>,
}

/// What one label must be.
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

    /// How it is compared. In: the label has one of the values. NotIn: it has none of them, or is
    /// not there. Exists: it is there. DoesNotExist: it is not.
    pub operator: LabelOperator,

    /// The values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63), regex(pattern = LABEL_VALUE)))]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum LabelOperator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl NamespaceSelector {
    /// Whether a namespace has such labels.
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

    /// As Kubernetes' own selectors do (`k8s.io/apimachinery/pkg/labels`, `Requirement.Matches`).
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
