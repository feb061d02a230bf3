//! PURE: the brokers' pods.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_crds::{DEFAULT_MEMORY_LIMIT, ListenerType, Process, Quantity, Resources, VolumePolicy};

use super::config_map::{CLUSTER_ID_KEY, CONTROLLER_KEY};
use super::names::{Names, listeners};
use super::nodes;
use super::object_meta::plain_metadata;
use super::patch::{CONTAINER, DATA_VOLUME, patched};
use super::plan::Plan;
use super::tls;
use crate::listener::listener_name;

/// The port of a broker's metrics and health.
pub(in crate::kubernetes) const HTTP_PORT: u16 = 9100;

/// The name of that port; no listener has it.
pub(in crate::kubernetes) const HTTP_PORT_NAME: &str = "http";

/// The listen address of brokers: all addresses of the pod, of both families. Brokers of versions
/// that know one family treat it the same way, if the node has IPv6.
const ALL_ADDRESSES: &str = "[::]";

/// The user of the brokers' image.
const USER: i64 = 65_532;

/// The most time for a clean stop: leaders move first, and memory is written to disk.
const STOP_SECONDS_MAX: u32 = 60;

/// The directory of the controller's address in a running broker. Kubernetes updates a ConfigMap
/// only in a directory, not in variables or in a file mounted by `subPath`.
const CONTROLLER_DIR: &str = "/etc/weir";
const CONTROLLER_FILE: &str = "controller";
/// The variable with the path of that file.
pub(in crate::kubernetes) const CONTROLLER_FILE_VARIABLE: &str = "WEIR_CONTROLLER_FILE";

/// Period and number of startup probes. A broker answers as soon as its process runs. Recovery
/// counts as success as long as it progresses: /healthz then reports healthy. After five minutes
/// without progress it reports unhealthy, and the liveness probe restarts the broker.
const START_LOOK_SECONDS: u32 = 1;
const START_LOOKS_MAX: u32 = 300;

/// # Errors
/// The invalid label of the pods, or the reason why the template's patch is refused.
pub(super) fn stateful_set(plan: &Plan<'_>, names: &Names) -> Result<Value, String> {
    let spec = &plan.cluster.spec.brokers;
    let when_deleted = match spec.storage.on_delete {
        VolumePolicy::Retain => "Retain",
        VolumePolicy::Delete => "Delete",
    };
    let mut template = template(plan, names, &labels(plan, names)?);
    if let Some(patch) = &spec.pod_template {
        template = patched(&template, &patch.0)?;
    }
    Ok(json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": plain_metadata(plan.cluster, names, &names.cluster),
        "spec": {
            "replicas": plan.replicas,
            "serviceName": names.brokers(),
            "podManagementPolicy": "Parallel",
            // The operator restarts pods when the partitions allow it.
            "updateStrategy": {"type": "OnDelete"},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": when_deleted, "whenScaled": "Retain"},
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": names.selector()},
            "template": template,
            "volumeClaimTemplates": [claim(plan, names)],
        },
    }))
}

fn claim(plan: &Plan<'_>, names: &Names) -> Value {
    let storage = &plan.cluster.spec.brokers.storage;
    let mut claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": DATA_VOLUME, "labels": names.labels()},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": storage.size.0}},
            "volumeMode": "Filesystem",
        },
    });
    if let (Some(class), Some(spec)) =
        (&storage.storage_class_name, claim.pointer_mut("/spec").and_then(Value::as_object_mut))
    {
        spec.insert("storageClassName".to_owned(), json!(class));
    }
    claim
}

/// The pods' labels: the user's and the operator's. The user may not change the latter, which
/// select the pods.
fn labels(plan: &Plan<'_>, names: &Names) -> Result<BTreeMap<String, String>, String> {
    let mut labels = plan.cluster.spec.brokers.pod.labels.clone();
    for (key, own) in names.labels() {
        if labels.insert(key.clone(), own.clone()).is_some_and(|other| other != own) {
            return Err(format!("spec.brokers.pod.labels: {key} is set by the operator"));
        }
    }
    Ok(labels)
}

fn template(plan: &Plan<'_>, names: &Names, labels: &BTreeMap<String, String>) -> Value {
    let settings = &plan.cluster.spec.brokers.pod;
    let mut spec = json!({
        "serviceAccountName": names.brokers(),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": STOP_SECONDS_MAX,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            spread(names, "topology.kubernetes.io/zone"),
            spread(names, "kubernetes.io/hostname"),
        ],
        "containers": [container(plan, names)],
        "volumes": [{
            "name": "controller",
            "configMap": {"name": names.brokers(), "defaultMode": 0o444, "items": [{"key": CONTROLLER_KEY, "path": CONTROLLER_FILE}]},
        }, nodes::volume(names)],
    });
    let optional = [
        (
            "nodeSelector",
            (!settings.node_selector.is_empty()).then(|| json!(settings.node_selector)),
        ),
        (
            "imagePullSecrets",
            (!settings.image_pull_secrets.is_empty()).then(|| json!(settings.image_pull_secrets)),
        ),
        ("tolerations", (!settings.tolerations.is_empty()).then(|| json!(settings.tolerations))),
        ("priorityClassName", settings.priority_class_name.as_ref().map(|name| json!(name))),
    ];
    if let (Some(volume), Some(volumes)) =
        (tls::volume(plan.cluster, names), spec["volumes"].as_array_mut())
    {
        volumes.push(volume);
    }
    if let Some(fields) = spec.as_object_mut() {
        fields.extend(
            optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))),
        );
    }
    let mut metadata = json!({"labels": labels});
    if !settings.annotations.is_empty()
        && let Some(fields) = metadata.as_object_mut()
    {
        fields.insert("annotations".to_owned(), json!(settings.annotations));
    }
    json!({"metadata": metadata, "spec": spec})
}

/// A soft constraint: a pod that is pending because a zone is full serves no client.
fn spread(names: &Names, key: &str) -> Value {
    json!({
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": names.selector()},
    })
}

fn container(plan: &Plan<'_>, names: &Names) -> Value {
    let listeners = listeners(plan.cluster);
    let mut bound: Vec<String> = listeners
        .iter()
        .map(|listener| format!("{}://{ALL_ADDRESSES}:{}", listener_name(listener), listener.port))
        .collect();
    // The operator knows the addresses for clients outside, and adds them when the broker
    // registers.
    let internal = listeners.iter().filter(|listener| listener.kind == ListenerType::Internal);
    let mut advertised: Vec<String> = internal
        .map(|listener| {
            format!(
                "{}://$(POD_NAME).{}.svc:{}",
                listener_name(listener),
                names.namespace,
                listener.port
            )
        })
        .collect();
    // Behind the others: the first one is for brokers of versions that do not know this one.
    bound.push(nodes::bound(ALL_ADDRESSES));
    advertised.push(nodes::bound(&format!("$(POD_NAME).{}.svc", names.namespace)));
    let mut ports: Vec<Value> = listeners
        .iter()
        .map(|listener| json!({"name": listener.name, "containerPort": listener.port, "protocol": "TCP"}))
        .collect();
    ports.push(json!({"name": nodes::INTERNAL_PORT_NAME, "containerPort": nodes::INTERNAL_PORT, "protocol": "TCP"}));
    ports.push(json!({"name": HTTP_PORT_NAME, "containerPort": HTTP_PORT, "protocol": "TCP"}));
    let from_map = |key: &str| json!({"name": key, "valueFrom": {"configMapKeyRef": {"name": names.brokers(), "key": key}}});
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    let plain = |name: &str, value: String| json!({"name": name, "value": value});
    let probe = |path: &str, period: u32, failures: u32, timeout: u32| {
        json!({
            "httpGet": {"path": path, "port": HTTP_PORT_NAME, "scheme": "HTTP"},
            "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": timeout, "successThreshold": 1,
        })
    };
    let mut env = vec![
        field("POD_NAME", "metadata.name"),
        field("WEIR_BROKER_ID", "metadata.labels['apps.kubernetes.io/pod-index']"),
        from_map(CLUSTER_ID_KEY),
        // Brokers of versions that do not know the file use this variable.
        from_map(CONTROLLER_KEY),
        plain(CONTROLLER_FILE_VARIABLE, format!("{CONTROLLER_DIR}/{CONTROLLER_FILE}")),
        plain("WEIR_DATA", "/data/log".to_owned()),
        plain("WEIR_LISTENERS", bound.join(",")),
        plain("WEIR_ADVERTISED_LISTENERS", advertised.join(",")),
        plain("WEIR_HTTP", format!("{ALL_ADDRESSES}:{HTTP_PORT}")),
        plain("WEIR_LOG_FORMAT", "json".to_owned()),
    ];
    env.extend(
        variables(&plan.cluster.spec.brokers.process)
            .into_iter()
            .map(|(name, value)| plain(name, value)),
    );
    let mut mounts = vec![
        json!({"name": DATA_VOLUME, "mountPath": "/data"}),
        json!({"name": "controller", "mountPath": CONTROLLER_DIR, "readOnly": true}),
    ];
    mounts.push(nodes::mount());
    mounts.extend(tls::mount(plan.cluster));
    let mut arguments = vec![nodes::argument()];
    arguments.extend(tls::arguments(plan.cluster));
    json!({
        "name": CONTAINER,
        "image": plan.image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments,
        // The pod's status says why a broker does not start, and the cluster's status repeats it.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "env": env,
        "ports": ports,
        "resources": resources(&plan.cluster.spec.brokers.resources),
        "startupProbe": probe("/healthz", START_LOOK_SECONDS, START_LOOKS_MAX, 1),
        "readinessProbe": probe("/readyz", 1, 3, 1),
        "livenessProbe": probe("/healthz", 10, 6, 5),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    })
}

/// The variables for the process's settings; the broker chooses those that are not set.
fn variables(process: &Process) -> Vec<(&str, String)> {
    let mib = |quantity: &Quantity| quantity.value().map(|bytes| bytes / (1 << 20));
    let own = [
        ("WEIR_THREADS", process.threads.map(|threads| threads.to_string())),
        ("WEIR_MAX_CONNECTIONS", process.max_connections.map(|most| most.to_string())),
        (
            "WEIR_REQUEST_MEMORY_MIB",
            process.request_memory.as_ref().and_then(mib).map(|mib| mib.to_string()),
        ),
        ("WEIR_METRICS_TOPICS_MAX", process.metrics_topics_max.map(|most| most.to_string())),
        (
            "WEIR_METRICS_PARTITIONS_MAX",
            process.metrics_partitions_max.map(|most| most.to_string()),
        ),
        ("WEIR_LOG", process.log.clone()),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
    own.chain(process.env.iter().map(|variable| (variable.name.as_str(), variable.value.clone())))
        .collect()
}

/// The default resources. A request keeps a broker from being evicted first, and a memory limit
/// tells it how much it may use. There is no CPU limit, which would throttle the broker in the
/// middle of a commit.
fn resources(said: &Resources) -> Value {
    if said.requests.is_empty() && said.limits.is_empty() {
        return json!({"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": DEFAULT_MEMORY_LIMIT}});
    }
    json!({"requests": quantities(&said.requests), "limits": quantities(&said.limits)})
}

fn quantities(of: &BTreeMap<String, Quantity>) -> BTreeMap<&str, &str> {
    of.iter().map(|(name, quantity)| (name.as_str(), quantity.0.as_str())).collect()
}
