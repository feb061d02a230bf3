//! PURE: the user's patch of the pod template (`spec.brokers.podTemplate`), a strategic merge patch
//! as for `kubectl patch`.
//!
//! Objects are merged, null removes a field, and lists whose items have a key are merged item by
//! item; other lists are replaced. The patch is refused as a whole, with the name of the field, if
//! it changes something that the operator relies on.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The name of the broker's container.
pub(in crate::kubernetes) const CONTAINER: &str = "broker";

/// The volume with a broker's records, as its StatefulSet names it.
pub(super) const DATA_VOLUME: &str = "data";

/// The most nested levels of a patch. A pod template has fewer than twenty.
const DEPTH_MAX: usize = 32;

/// Lists whose items have a key field, as in the definition of a pod (`patchMergeKey` in
/// `k8s.io/api/core/v1`).
const MERGE_KEYS: &[(&str, &str)] = &[
    ("containers", "name"),
    ("initContainers", "name"),
    ("env", "name"),
    ("ports", "containerPort"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("volumes", "name"),
    ("imagePullSecrets", "name"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
    ("resourceClaims", "name"),
    ("schedulingGates", "name"),
];

/// Fields of the broker's container that another field of the resource sets, or that a broker needs
/// as they are.
const OF_THE_CONTAINER: &[(&str, &str)] = &[
    ("image", "spec.image sets it"),
    ("command", "the image's program is the broker"),
    ("args", "the operator sets them"),
    ("ports", "spec.listeners sets them"),
    ("resources", "spec.brokers.resources sets them"),
    ("readinessProbe", "restarts wait for it"),
];

/// Fields of the pod that the StatefulSet and the services rely on.
const OF_THE_POD: &[(&str, &str)] = &[
    ("hostname", "the StatefulSet sets it"),
    ("subdomain", "the StatefulSet sets it"),
    ("restartPolicy", "a StatefulSet restarts its containers"),
    ("activeDeadlineSeconds", "brokers run until they are told to stop"),
];

/// A field of the patch, and why it is refused.
type Refusal = (String, String);

/// The patched template.
///
/// # Errors
/// The field and the reason, when the patch gives no valid pod template or changes something that
/// the operator relies on.
pub(super) fn patched(template: &Value, patch: &Map<String, Value>) -> Result<Value, String> {
    let said = |(field, why): Refusal| format!("spec.brokers.podTemplate.{field}: {why}");
    let mut patched = template.clone();
    let whole = Value::Object(patch.clone());
    merge(&mut patched, &whole, "", DEPTH_MAX).map_err(said)?;
    PodTemplateSpec::deserialize(&patched).map_err(|error| {
        format!("spec.brokers.podTemplate: this makes no pod template: {error}")
    })?;
    keeps_metadata(template, &patched).map_err(said)?;
    keeps_pod(template, &patched).map_err(said)?;
    keeps_container(template, &patched).map_err(said)?;
    Ok(patched)
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn merge(target: &mut Value, patch: &Value, path: &str, levels: usize) -> Result<(), Refusal> {
    let Some(levels) = levels.checked_sub(1) else {
        return Err((path.to_owned(), format!("has more than {DEPTH_MAX} levels")));
    };
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    let (directive, fields) = (directive(fields, path)?, without_directive(fields));
    if directive == Some(Directive::Replace) || !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(there) = target.as_object_mut() else { return Ok(()) };
    for (name, value) in fields {
        let path = below(path, name);
        match (value, MERGE_KEYS.iter().find(|(list, _)| list == name)) {
            (Value::Null, _) => drop(there.remove(name)),
            (Value::Object(inner), _) if directive_of(inner) == Some("delete") => {
                drop(there.remove(name))
            }
            (Value::Array(items), Some((_, key))) => {
                let list = there.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
                merge_list(list, items, key, &path, levels)?;
            }
            (Value::Array(_), None) => drop(there.insert(name.clone(), value.clone())),
            _ => merge(there.entry(name.clone()).or_insert(Value::Null), value, &path, levels)?,
        }
    }
    Ok(())
}

fn merge_list(
    target: &mut Value,
    items: &[Value],
    key: &str,
    path: &str,
    levels: usize,
) -> Result<(), Refusal> {
    let is_replaced =
        items.iter().any(|item| item.as_object().and_then(directive_of) == Some("replace"));
    let mut list = match target.take() {
        Value::Array(list) if !is_replaced => list,
        _ => Vec::new(),
    };
    for item in items {
        let fields = item
            .as_object()
            .ok_or_else(|| (path.to_owned(), "has objects in it only".to_owned()))?;
        let Some(name) = fields.get(key) else {
            // It has only the directive for the whole list.
            if directive_of(fields) == Some("replace") {
                continue;
            }
            return Err((path.to_owned(), format!("each item has to have {key}")));
        };
        let path =
            format!("{path}[{}]", name.as_str().map_or_else(|| name.to_string(), str::to_owned));
        let position = list.iter().position(|there| there.get(key) == Some(name));
        match (directive(fields, &path)?, position) {
            (Some(Directive::Delete), Some(position)) => drop(list.remove(position)),
            (Some(Directive::Delete), None) => {}
            (_, Some(position)) => {
                if let Some(there) = list.get_mut(position) {
                    merge(there, item, &path, levels)?;
                }
            }
            (_, None) => {
                let mut made = Value::Null;
                merge(&mut made, item, &path, levels)?;
                list.push(made);
            }
        }
    }
    *target = Value::Array(list);
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directive {
    Replace,
    Delete,
}

fn directive_of(fields: &Map<String, Value>) -> Option<&str> {
    fields.get("$patch").and_then(Value::as_str)
}

fn directive(fields: &Map<String, Value>, path: &str) -> Result<Option<Directive>, Refusal> {
    if let Some(name) = fields.keys().find(|name| name.starts_with('$') && *name != "$patch") {
        return Err((
            below(path, name),
            "of the directives there are only $patch: replace and $patch: delete".to_owned(),
        ));
    }
    match (fields.get("$patch"), directive_of(fields)) {
        (None, _) | (_, Some("merge")) => Ok(None),
        (_, Some("replace")) => Ok(Some(Directive::Replace)),
        (_, Some("delete")) => Ok(Some(Directive::Delete)),
        _ => Err((below(path, "$patch"), "is replace or delete".to_owned())),
    }
}

fn without_directive(fields: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    fields.iter().filter(|(name, _)| *name != "$patch")
}

fn keeps_metadata(before: &Value, after: &Value) -> Result<(), Refusal> {
    let metadata = after.get("metadata").and_then(Value::as_object);
    if let Some(name) = metadata
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .find(|name| !["labels", "annotations"].contains(&name.as_str()))
    {
        return Err((
            format!("metadata.{name}"),
            "a pod template has labels and annotations only".to_owned(),
        ));
    }
    let label = |template: &Value, name: &str| {
        template.pointer("/metadata/labels").and_then(|labels| labels.get(name)).cloned()
    };
    let labels = before.pointer("/metadata/labels").and_then(Value::as_object);
    let ours = labels.into_iter().flatten().map(|(name, _)| name);
    let mut ours =
        ours.filter(|name| name.starts_with("app.kubernetes.io/") || name.starts_with("weir.dev/"));
    match ours.find(|name| label(before, name) != label(after, name)) {
        Some(name) => Err((
            format!("metadata.labels[{name}]"),
            "the operator finds the brokers' pods by it".to_owned(),
        )),
        None => Ok(()),
    }
}

fn keeps_pod(before: &Value, after: &Value) -> Result<(), Refusal> {
    let spec = |template: &Value, name: &str| {
        template.get("spec").and_then(|spec| spec.get(name)).cloned()
    };
    if let Some((name, why)) =
        OF_THE_POD.iter().find(|(name, _)| spec(before, name) != spec(after, name))
    {
        return Err((format!("spec.{name}"), (*why).to_owned()));
    }
    let seconds = |template: &Value| {
        spec(template, "terminationGracePeriodSeconds").and_then(|seconds| seconds.as_u64())
    };
    if seconds(after) < seconds(before) {
        let why =
            format!("a broker needs {} to stop in order", seconds(before).unwrap_or_default());
        return Err(("spec.terminationGracePeriodSeconds".to_owned(), why));
    }
    let volumes = |template: &Value| {
        let all = spec(template, "volumes");
        let all = all.as_ref().and_then(Value::as_array).into_iter().flatten();
        let named = all
            .filter_map(|volume| Some((volume.get("name")?.as_str()?.to_owned(), volume.clone())));
        named.collect::<BTreeMap<_, _>>()
    };
    let (ours, theirs) = (volumes(before), volumes(after));
    if theirs.contains_key(DATA_VOLUME) {
        let why = "that is the volume with the broker's records: spec.brokers.storage sets it";
        return Err((format!("spec.volumes[{DATA_VOLUME}]"), why.to_owned()));
    }
    if let Some((name, _)) = ours.iter().find(|(name, volume)| theirs.get(*name) != Some(volume)) {
        return Err((
            format!("spec.volumes[{name}]"),
            "the broker reads from it what the operator tells it".to_owned(),
        ));
    }
    Ok(())
}

fn keeps_container(before: &Value, after: &Value) -> Result<(), Refusal> {
    let path = format!("spec.containers[{CONTAINER}]");
    let container = |template: &Value| {
        let all = template.pointer("/spec/containers").and_then(Value::as_array);
        all.and_then(|all| {
            all.iter()
                .find(|container| container.get("name").is_some_and(|name| name == CONTAINER))
                .cloned()
        })
    };
    let (Some(ours), Some(theirs)) = (container(before), container(after)) else {
        return Err((path, "the broker runs in it".to_owned()));
    };
    if let Some((name, why)) =
        OF_THE_CONTAINER.iter().find(|(name, _)| ours.get(name) != theirs.get(name))
    {
        return Err((format!("{path}.{name}"), (*why).to_owned()));
    }
    let keyed = |container: &Value, list: &str, key: &str| {
        let items = container.get(list).and_then(Value::as_array);
        let items = items
            .into_iter()
            .flatten()
            .filter_map(|item| Some((item.get(key)?.as_str()?.to_owned(), item.clone())));
        items.collect::<BTreeMap<_, _>>()
    };
    for (list, key, why) in [
        ("env", "name", "the operator tells the broker by it: other fields set it"),
        ("volumeMounts", "mountPath", "the broker finds there what it needs"),
    ] {
        let theirs = keyed(&theirs, list, key);
        let mut kept = keyed(&ours, list, key).into_iter();
        if let Some((name, _)) =
            kept.find(|(name, item)| is_the_operators(list, name) && theirs.get(name) != Some(item))
        {
            return Err((format!("{path}.{list}[{name}]"), why.to_owned()));
        }
    }
    Ok(())
}

/// The patch may change variables of the user's own.
fn is_the_operators(list: &str, name: &str) -> bool {
    list != "env" || name == "POD_NAME" || name.starts_with("WEIR_")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template() -> Value {
        json!({
            "metadata": {"labels": {"weir.dev/cluster": "c", "team": "a"}},
            "spec": {
                "terminationGracePeriodSeconds": 60,
                "securityContext": {"runAsUser": 65532, "fsGroup": 65532, "runAsNonRoot": true},
                "topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1}, {"topologyKey": "host", "maxSkew": 1}],
                "tolerations": [{"key": "a", "operator": "Exists"}],
                "volumes": [{"name": "controller", "configMap": {"name": "c"}}],
                "containers": [{
                    "name": "broker", "image": "i", "resources": {}, "ports": [{"name": "plain", "containerPort": 9092}],
                    "env": [{"name": "WEIR_DATA", "value": "/data/log"}, {"name": "TZ", "value": "UTC"}],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    "readinessProbe": {"periodSeconds": 1},
                }],
            },
        })
    }

    fn result(patch: &Value) -> Result<Value, String> {
        patched(&template(), patch.as_object().unwrap())
    }

    #[test]
    fn patches_are_merged_as_kubectl_merges_them() {
        let rows = [
            (json!({}), "/spec/terminationGracePeriodSeconds", json!(60)),
            // Fields that OpenShift sets itself.
            (
                json!({"spec": {"securityContext": {"runAsUser": null, "fsGroup": null}}}),
                "/spec/securityContext",
                json!({"runAsNonRoot": true}),
            ),
            (
                json!({"spec": {"securityContext": {"$patch": "replace", "runAsUser": 1}}}),
                "/spec/securityContext",
                json!({"runAsUser": 1}),
            ),
            (
                json!({"spec": {"securityContext": {"$patch": "delete"}}}),
                "/spec/securityContext",
                Value::Null,
            ),
            (
                json!({"spec": {"affinity": {"nodeAffinity": {}}}}),
                "/spec/affinity",
                json!({"nodeAffinity": {}}),
            ),
            (
                json!({"spec": {"topologySpreadConstraints": [{"topologyKey": "host", "maxSkew": 2}]}}),
                "/spec/topologySpreadConstraints",
                json!([{"topologyKey": "zone", "maxSkew": 1}, {"topologyKey": "host", "maxSkew": 2}]),
            ),
            (
                json!({"spec": {"topologySpreadConstraints": [{"topologyKey": "zone", "$patch": "delete"}]}}),
                "/spec/topologySpreadConstraints",
                json!([{"topologyKey": "host", "maxSkew": 1}]),
            ),
            (
                json!({"spec": {"topologySpreadConstraints": [{"$patch": "replace"}]}}),
                "/spec/topologySpreadConstraints",
                json!([]),
            ),
            (
                json!({"spec": {"tolerations": [{"key": "b", "operator": "Exists"}]}}),
                "/spec/tolerations",
                json!([{"key": "b", "operator": "Exists"}]),
            ),
            (
                json!({"spec": {"containers": [{"name": "side", "image": "s"}]}}),
                "/spec/containers/1",
                json!({"name": "side", "image": "s"}),
            ),
            (
                json!({"spec": {"containers": [{"name": "broker", "env": [{"name": "A", "value": "b"}, {"name": "TZ", "value": "CET"}]}]}}),
                "/spec/containers/0/env",
                json!([{"name": "WEIR_DATA", "value": "/data/log"}, {"name": "TZ", "value": "CET"}, {"name": "A", "value": "b"}]),
            ),
            (
                json!({"metadata": {"annotations": {"a": "b"}, "labels": {"team": null, "x": "y"}}}),
                "/metadata",
                json!({"annotations": {"a": "b"}, "labels": {"weir.dev/cluster": "c", "x": "y"}}),
            ),
        ];
        for (patch, pointer, expected) in rows {
            let patched = result(&patch).unwrap();
            assert_eq!(patched.pointer(pointer).cloned().unwrap_or_default(), expected, "{patch}");
        }
    }

    #[test]
    fn what_the_operator_relies_on_is_kept() {
        let broker = |fields: Value| {
            let mut container = json!({"name": "broker"});
            container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            json!({"spec": {"containers": [container]}})
        };
        let rows = [
            (
                json!({"metadata": {"labels": {"weir.dev/cluster": "d"}}}),
                "metadata.labels[weir.dev/cluster]: the operator finds the brokers' pods by it",
            ),
            (
                json!({"metadata": {"labels": null}}),
                "metadata.labels[weir.dev/cluster]: the operator finds the brokers' pods by it",
            ),
            (
                json!({"metadata": {"name": "x"}}),
                "metadata.name: a pod template has labels and annotations only",
            ),
            (
                json!({"spec": {"containers": [{"name": "broker", "$patch": "delete"}]}}),
                "spec.containers[broker]: the broker runs in it",
            ),
            (
                json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "side", "image": "s"}]}}),
                "spec.containers[broker]: the broker runs in it",
            ),
            (broker(json!({"image": "x"})), "spec.containers[broker].image: spec.image sets it"),
            (
                broker(json!({"command": ["sh"]})),
                "spec.containers[broker].command: the image's program is the broker",
            ),
            (
                broker(json!({"args": ["--id", "7"]})),
                "spec.containers[broker].args: the operator sets them",
            ),
            (
                broker(json!({"ports": [{"containerPort": 9092, "$patch": "delete"}]})),
                "spec.containers[broker].ports: spec.listeners sets them",
            ),
            (
                broker(json!({"resources": {"limits": {"memory": "1Gi"}}})),
                "spec.containers[broker].resources: spec.brokers.resources sets them",
            ),
            (
                broker(json!({"readinessProbe": null})),
                "spec.containers[broker].readinessProbe: restarts wait for it",
            ),
            (
                broker(json!({"env": [{"name": "WEIR_DATA", "value": "/tmp"}]})),
                "spec.containers[broker].env[WEIR_DATA]: the operator tells the broker by it: other fields set it",
            ),
            (
                broker(json!({"volumeMounts": [{"mountPath": "/data", "name": "other"}]})),
                "spec.containers[broker].volumeMounts[/data]: the broker finds there what it needs",
            ),
            (
                json!({"spec": {"volumes": [{"name": "data", "emptyDir": {}}]}}),
                "spec.volumes[data]: that is the volume with the broker's records: spec.brokers.storage sets it",
            ),
            (
                json!({"spec": {"volumes": [{"name": "controller", "$patch": "delete"}]}}),
                "spec.volumes[controller]: the broker reads from it what the operator tells it",
            ),
            (json!({"spec": {"hostname": "x"}}), "spec.hostname: the StatefulSet sets it"),
            (
                json!({"spec": {"restartPolicy": "Never"}}),
                "spec.restartPolicy: a StatefulSet restarts its containers",
            ),
            (
                json!({"spec": {"terminationGracePeriodSeconds": 5}}),
                "spec.terminationGracePeriodSeconds: a broker needs 60 to stop in order",
            ),
            (
                json!({"spec": {"$setElementOrder/containers": []}}),
                "spec.$setElementOrder/containers: of the directives there are only $patch: replace and $patch: delete",
            ),
            (json!({"spec": {"$patch": "remove"}}), "spec.$patch: is replace or delete"),
            (
                json!({"spec": {"containers": [{"image": "x"}]}}),
                "spec.containers: each item has to have name",
            ),
            (json!({"spec": {"containers": ["x"]}}), "spec.containers: has objects in it only"),
        ];
        for (patch, expected) in rows {
            assert_eq!(
                result(&patch),
                Err(format!("spec.brokers.podTemplate.{expected}")),
                "{patch}"
            );
        }
        let no_template = result(&json!({"spec": {"containers": "none"}})).unwrap_err();
        assert!(
            no_template.starts_with("spec.brokers.podTemplate: this makes no pod template: "),
            "{no_template}"
        );
        let deep = (0..40).fold(json!(1), |value, _| json!({"a": value}));
        assert!(result(&json!({"spec": deep})).unwrap_err().ends_with("has more than 32 levels"));
    }
}
