//! Objects follow the resource, and the pods contain nothing of the operator's own.

mod tls;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;

use std::collections::BTreeMap;

use weir_crds::{KafkaCluster, ListenerStatus};

use super::*;

fn cluster(spec: Value) -> KafkaCluster {
    serde_json::from_value(json!({
        "apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster",
        "metadata": {"name": "orders", "namespace": "data", "uid": "5c5e8a1e-0000-4000-8000-000000000001"},
        "spec": spec,
    }))
    .unwrap()
}

fn plan(cluster: &KafkaCluster) -> Plan<'_> {
    Plan {
        cluster,
        image: "weir-broker:1",
        cluster_id: "an-id",
        controller: "weir-operator.weir-system.svc:9190",
        replicas: cluster.spec.brokers.replicas,
        listening: const { &BTreeSet::new() },
        evictions: Evictions { available_min: 2, ..Evictions::default() },
        held_before: const { &BTreeSet::new() },
        monitoring: None,
    }
}

fn listed(objects: &[Value]) -> Vec<String> {
    let text = |object: &Value, pointer: &str| {
        object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    objects
        .iter()
        .map(|object| format!("{} {}", text(object, "/kind"), text(object, "/metadata/name")))
        .collect()
}

fn built(plan: &Plan<'_>) -> Vec<Value> {
    let objects = build(plan);
    assert_eq!(objects.refusal, None);
    objects.all
}

fn stateful_set(objects: &[Value]) -> &Value {
    objects.iter().find(|object| object["kind"] == "StatefulSet").unwrap()
}

#[test]
fn a_cluster_has_these_objects() {
    let plain = cluster(json!({"brokers": {"replicas": 2}}));
    assert_eq!(
        listed(&built(&plan(&plain))),
        [
            "ServiceAccount orders-brokers",
            "ConfigMap orders-brokers",
            "Service orders-brokers",
            "Service orders-bootstrap",
            "Service orders-0",
            "Service orders-1",
            "StatefulSet orders",
            "PodDisruptionBudget orders",
            "NetworkPolicy orders",
        ]
    );
    let outside = cluster(json!({
        "brokers": {"replicas": 2},
        "listeners": [{"name": "plain", "port": 9092}, {"name": "ext", "port": 9094, "type": "NodePort", "annotations": {"a": "b"}}],
    }));
    let objects = built(&Plan {
        monitoring: Some(const { &Monitoring { labels: BTreeMap::new(), interval: None } }),
        ..plan(&outside)
    });
    let names = listed(&objects);
    for name in [
        "Service orders-bootstrap-ext",
        "Service orders-0-ext",
        "Service orders-1-ext",
        "PodMonitor orders",
    ] {
        assert!(names.iter().any(|listed| listed == name), "{name} is missing of {names:?}");
    }
    for object in objects.iter().filter(|object| object["kind"] == "Service") {
        let service: Service = serde_json::from_value(object.clone()).unwrap();
        let spec = service.spec.unwrap();
        assert!(!spec.ports.unwrap_or_default().is_empty(), "{object}");
    }
    // Every object is deleted with its cluster, and has its labels.
    for object in &objects {
        assert_eq!(
            object["metadata"]["ownerReferences"][0]["uid"], "5c5e8a1e-0000-4000-8000-000000000001",
            "{object}"
        );
        assert_eq!(object["metadata"]["labels"][MANAGED_BY], MANAGER, "{object}");
    }
}

#[test]
fn each_pod_has_a_disruption_budget_at_every_moment() {
    let one = cluster(json!({"brokers": {"replicas": 3}}));
    let budgets = |held: &[i32], before: &[i32]| -> Vec<String> {
        let before = before.iter().copied().collect();
        let evictions = Evictions { held: held.iter().copied().collect(), available_min: 1 };
        let objects = built(&Plan { evictions, held_before: &before, ..plan(&one) });
        let budgets = objects.iter().filter(|object| object["kind"] == "PodDisruptionBudget");
        budgets
            .map(|budget| {
                let spec = &budget["spec"];
                let of = spec["selector"]["matchExpressions"].as_array().unwrap().iter();
                let of: Vec<_> =
                    of.map(|of| format!(" {} {}", of["operator"], of["values"])).collect();
                format!("{} {}{}", budget["metadata"]["name"], spec["minAvailable"], of.concat())
            })
            .map(|line| line.replace('"', ""))
            .collect()
    };
    assert_eq!(budgets(&[], &[]), ["orders 1"]);
    // It first gets the second one, and then loses the first.
    let held = ["orders-held 1 In [orders-0]", "orders 1 NotIn [orders-0]"];
    assert_eq!(budgets(&[0], &[]), held);
    assert_eq!(budgets(&[0], &[0]), held);
    // The other way round.
    assert_eq!(
        budgets(&[2], &[0, 2]),
        [
            "orders-held 2 In [orders-0,orders-2]",
            "orders 1 NotIn [orders-2]",
            "orders-held 1 In [orders-2]"
        ]
    );
    assert_eq!(budgets(&[], &[0]), ["orders 1"], "the second one is deleted afterwards");
}

#[test]
fn the_pods_are_a_function_of_the_spec_alone() {
    let one = cluster(json!({"brokers": {"replicas": 3}}));
    let mut renamed = one.clone();
    renamed.metadata.annotations = Some([("note".to_owned(), "changed".to_owned())].into());
    let other = Plan {
        cluster_id: "another",
        controller: "elsewhere:1",
        replicas: 5,
        evictions: Evictions { available_min: 3, held: [1].into() },
        ..plan(&renamed)
    };
    let template = |objects: &[Value]| stateful_set(objects)["spec"]["template"].clone();
    assert_eq!(template(&built(&plan(&one))), template(&built(&other)));
}

#[test]
fn a_running_broker_reads_where_the_controller_is() {
    let objects = built(&plan(&cluster(json!({}))));
    let map = objects.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
    let set: StatefulSet = serde_json::from_value(stateful_set(&objects).clone()).unwrap();
    let pod = set.spec.unwrap().template.spec.unwrap();
    let container = &pod.containers[0];
    let file =
        container.env.iter().flatten().find(|variable| variable.name == "WEIR_CONTROLLER_FILE");
    let file = file.unwrap().value.clone().unwrap();
    // Neither variables nor `subPath` mounts follow the ConfigMap.
    let mounts = container.volume_mounts.as_deref().unwrap();
    let mount =
        mounts.iter().find(|mount| file.starts_with(&format!("{}/", mount.mount_path))).unwrap();
    assert_eq!((&mount.sub_path, &mount.sub_path_expr), (&None, &None));
    let volume =
        pod.volumes.as_deref().unwrap().iter().find(|volume| volume.name == mount.name).unwrap();
    let source = volume.config_map.clone().unwrap();
    assert_eq!(source.name, map["metadata"]["name"]);
    let item = &source.items.unwrap()[0];
    assert_eq!(format!("{}/{}", mount.mount_path, item.path), file);
    assert_eq!(map["data"][&item.key], "weir-operator.weir-system.svc:9190");
}

#[test]
fn prometheus_finds_the_brokers_as_it_is_set_up_and_knows_their_cluster() {
    let cluster = cluster(json!({}));
    let monitoring = Monitoring {
        labels: [
            ("release".to_owned(), "prometheus".to_owned()),
            (MANAGED_BY.to_owned(), "theirs".to_owned()),
        ]
        .into(),
        interval: Some("15s".to_owned()),
    };
    let monitor = |monitoring: &Monitoring| {
        let objects = built(&Plan { monitoring: Some(monitoring), ..plan(&cluster) });
        objects.into_iter().find(|object| object["kind"] == "PodMonitor").unwrap()
    };
    let made = monitor(&monitoring);
    assert_eq!(made["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(made["metadata"]["labels"][MANAGED_BY], MANAGER);
    let endpoint = &made["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["interval"], "15s");
    // Prometheus replaces characters that a label name may not contain.
    let label = crate::store::kube::CLUSTER_LABEL.replace(['.', '/', '-'], "_");
    let relabeling = json!({"sourceLabels": [format!("__meta_kubernetes_pod_label_{label}")], "targetLabel": "cluster"});
    assert_eq!(endpoint["relabelings"], json!([relabeling]));
    let labels = made["spec"]["selector"]["matchLabels"].as_object().unwrap();
    let template =
        stateful_set(&built(&plan(&cluster)))["spec"]["template"]["metadata"]["labels"].clone();
    assert!(labels.iter().all(|(name, value)| template[name] == *value));
    assert_eq!(
        monitor(&Monitoring::default())["spec"]["podMetricsEndpoints"][0].get("interval"),
        None
    );
}

#[test]
fn a_broker_that_does_not_get_on_is_restarted_in_minutes_and_one_that_does_never() {
    let objects = built(&plan(&cluster(json!({}))));
    let container = &stateful_set(&objects)["spec"]["template"]["spec"]["containers"][0];
    // /healthz reports progress from the start of the process.
    for (probe, seconds_max) in [("startupProbe", 300), ("livenessProbe", 60)] {
        let probe = &container[probe];
        assert_eq!(probe["httpGet"]["path"], "/healthz");
        let seconds =
            probe["periodSeconds"].as_u64().unwrap() * probe["failureThreshold"].as_u64().unwrap();
        assert_eq!(seconds, seconds_max, "{probe}");
    }
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
}

#[test]
fn pods_are_restricted() {
    let spec = cluster(json!({"brokers": {
        "storage": {"size": "20Gi", "storageClassName": "fast", "onDelete": "Delete"},
        "resources": {"requests": {"cpu": 1, "memory": "512Mi"}, "limits": {"memory": "1Gi"}},
        "pod": {"serviceAccountAnnotations": {"a": "b"}, "labels": {"team": "a"}, "nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "kafka", "operator": "Exists"}]},
    }}));
    let objects = built(&plan(&spec));
    let account = objects.iter().find(|object| object["kind"] == "ServiceAccount").unwrap();
    assert_eq!(account["metadata"]["annotations"], json!({"a": "b"}));
    let set: StatefulSet = serde_json::from_value(stateful_set(&objects).clone()).unwrap();
    let set = set.spec.unwrap();
    let claim = set.volume_claim_templates.unwrap().remove(0).spec.unwrap();
    assert_eq!(claim.storage_class_name.as_deref(), Some("fast"));
    assert_eq!(claim.resources.unwrap().requests.unwrap()["storage"].0, "20Gi");
    assert_eq!(
        set.persistent_volume_claim_retention_policy.unwrap().when_deleted.as_deref(),
        Some("Delete")
    );
    let template = set.template;
    assert_eq!(template.metadata.unwrap().labels.unwrap()["weir.dev/cluster"], "orders");
    let pod = template.spec.unwrap();
    assert_eq!(pod.automount_service_account_token, Some(false));
    let security = pod.security_context.unwrap();
    assert_eq!(
        (security.run_as_non_root, security.seccomp_profile.unwrap().type_.as_str()),
        (Some(true), "RuntimeDefault")
    );
    let container = &pod.containers[0];
    assert_eq!(container.resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0, "1");
    let security = container.security_context.as_ref().unwrap();
    assert_eq!(
        (security.allow_privilege_escalation, security.read_only_root_filesystem),
        (Some(false), Some(true))
    );
    assert_eq!(
        security.capabilities.as_ref().unwrap().drop.as_deref(),
        Some(["ALL".to_owned()].as_slice())
    );
}

#[test]
fn brokers_have_a_limit_and_their_process_is_told_what_is_set() {
    let container = |spec: Value| {
        stateful_set(&built(&plan(&cluster(spec))))["spec"]["template"]["spec"]["containers"][0]
            .clone()
    };
    let plain = container(json!({}));
    assert_eq!(
        plain["resources"],
        json!({"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}})
    );
    let told = |container: &Value| {
        let all = container["env"].as_array().unwrap().iter();
        let set = all.filter(|one| !plain["env"].as_array().unwrap().contains(one));
        set.map(|one| {
            format!("{}={}", one["name"].as_str().unwrap(), one["value"].as_str().unwrap())
        })
        .collect::<Vec<_>>()
    };
    let said = container(json!({"brokers": {
        "resources": {"limits": {"memory": "4Gi"}},
        "process": {"threads": 4, "maxConnections": 500, "requestMemory": "1Gi", "metricsTopicsMax": 0, "log": "debug", "env": [{"name": "RUST_BACKTRACE", "value": "1"}]},
    }}));
    assert_eq!(said["resources"], json!({"requests": {}, "limits": {"memory": "4Gi"}}));
    let wanted = [
        "WEIR_THREADS=4",
        "WEIR_MAX_CONNECTIONS=500",
        "WEIR_REQUEST_MEMORY_MIB=1024",
        "WEIR_METRICS_TOPICS_MAX=0",
        "WEIR_LOG=debug",
        "RUST_BACKTRACE=1",
    ];
    assert_eq!(told(&said), wanted);
}

#[test]
fn the_template_takes_the_users_patch_or_none_of_it() {
    let patched = |patch: Value| build(&plan(&cluster(json!({"brokers": {"podTemplate": patch}}))));
    let pod = |objects: Objects| {
        assert_eq!(objects.refusal, None);
        stateful_set(&objects.all)["spec"]["template"]["spec"].clone()
    };
    // As on OpenShift, where every namespace has its own user ids, in group 0.
    let security = json!({"runAsUser": 1_000_680_000, "runAsGroup": 0, "fsGroup": 1_000_680_000});
    let spec = pod(patched(json!({"spec": {"securityContext": security}})));
    assert_eq!(spec["securityContext"]["runAsUser"], 1_000_680_000);
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    let spec = pod(patched(
        json!({"spec": {"securityContext": {"runAsUser": null, "runAsGroup": null, "fsGroup": null}}}),
    ));
    assert_eq!(spec["securityContext"].get("runAsUser"), None);
    let spec = pod(patched(
        json!({"spec": {"affinity": {"podAntiAffinity": {}}, "containers": [{"name": "side", "image": "s"}]}}),
    ));
    assert_eq!(spec["containers"].as_array().unwrap().len(), 2);
    assert_eq!(spec["affinity"], json!({"podAntiAffinity": {}}));

    // All other objects are built, and the StatefulSet stays as it was.
    let refused =
        patched(json!({"spec": {"containers": [{"name": "broker", "image": "another"}]}}));
    assert_eq!(
        refused.refusal.as_deref(),
        Some("spec.brokers.podTemplate.spec.containers[broker].image: spec.image sets it")
    );
    assert!(
        refused.all.iter().all(|object| object["kind"] != "StatefulSet") && refused.all.len() > 4
    );
    // The other field may not change the labels that select the pods either.
    let labelled = |key: &str, value: &str| {
        build(&plan(&cluster(json!({"brokers": {"pod": {"labels": {(key): value}}}}))))
    };
    assert_eq!(
        labelled("weir.dev/cluster", "other").refusal.as_deref(),
        Some("spec.brokers.pod.labels: weir.dev/cluster is set by the operator")
    );
    assert_eq!(labelled("team", "other").refusal, None);
}

#[test]
fn brokers_advertise_what_the_operator_cannot_know_better() {
    let spec = cluster(json!({
        "listeners": [{"name": "in-a", "port": 9092}, {"name": "ext", "port": 9094, "type": "NodePort"}, {"name": "in-b", "port": 9095}],
    }));
    let objects = built(&plan(&spec));
    let env = stateful_set(&objects)["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    let value = |name: &str| {
        let entry = env.as_array().unwrap().iter().find(|entry| entry["name"] == name);
        entry.unwrap()["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        value("WEIR_LISTENERS"),
        "IN_A://[::]:9092,EXT://[::]:9094,IN_B://[::]:9095,WEIR-INTERNAL://[::]:9091"
    );
    assert_eq!(value("WEIR_HTTP"), "[::]:9100");
    assert_eq!(
        value("WEIR_ADVERTISED_LISTENERS"),
        "IN_A://$(POD_NAME).data.svc:9092,IN_B://$(POD_NAME).data.svc:9095,WEIR-INTERNAL://$(POD_NAME).data.svc:9091"
    );
    assert_eq!(broker_of_pod("orders", "orders-12"), Some(12));
    assert_eq!(broker_of_pod("orders", "orders-x-1"), None);
}

#[test]
fn who_asks_for_one_broker_gets_it_as_soon_as_it_listens() {
    let spec = cluster(
        json!({"listeners": [{"name": "in", "port": 9092}, {"name": "ext", "port": 9094, "type": "NodePort"}]}),
    );
    let objects = built(&plan(&spec));
    let also_not_ready = |name: &str| {
        let service =
            objects.iter().find(|o| o["kind"] == "Service" && o["metadata"]["name"] == name);
        service.unwrap()["spec"]["publishNotReadyAddresses"].as_bool().unwrap_or_default()
    };
    for (name, wanted) in [
        ("orders-0", true),
        ("orders-0-ext", true),
        ("orders-bootstrap-ext", false),
        ("orders-bootstrap", false),
    ] {
        assert_eq!(also_not_ready(name), wanted, "{name}");
    }
}

#[test]
fn a_listener_that_moves_is_reached_where_each_pod_has_it() {
    let spec = cluster(
        json!({"listeners": [{"name": "in", "port": 9092}, {"name": "ext", "port": 9094, "type": "NodePort"}]}),
    );
    let pods = [("in", 9090), ("ext", 9095), ("in", 9092), ("gone", 9096)];
    let listening = pods.map(|(name, port)| (name.to_owned(), port)).into();
    let objects = built(&Plan { listening: &listening, ..plan(&spec) });
    let ports = |kind: &str, name: &str, pointer: &str| {
        let object =
            objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name).unwrap();
        let ports = object.pointer(pointer).and_then(Value::as_array).unwrap();
        let said = ports.iter().map(|port| {
            format!("{} {}", port["port"], port["targetPort"].as_str().unwrap_or_default())
        });
        said.collect::<Vec<_>>()
    };
    let of_service = |name| ports("Service", name, "/spec/ports");
    for service in ["orders-brokers", "orders-0"] {
        assert_eq!(of_service(service), ["9092 in", "9090 in", "9091 weir-internal"], "{service}");
    }
    assert_eq!(of_service("orders-bootstrap"), ["9092 in", "9090 in"]);
    // Clients outside use the node's port, which stays.
    assert_eq!(ports("Service", "orders-0-ext", "/spec/ports"), ["9094 ext"]);
    assert_eq!(
        ports("NetworkPolicy", "orders", "/spec/ingress/0/ports"),
        ["9090 ", "9091 ", "9092 ", "9094 ", "9095 ", "9096 ", "9100 "]
    );
}

#[test]
fn no_two_clusters_have_a_service_or_a_secret_of_one_name() {
    let listeners = ["plain", "ext", "a-b", "b"]
        .map(|name| json!({"name": name, "port": 9092 + name.len(), "type": if name == "plain" { "Internal" } else { "NodePort" }}));
    let mut names = std::collections::BTreeSet::new();
    for name in [
        "a",
        "a-ext",
        "a-0",
        "a-0-ext",
        "a-a-b",
        "a-bootstrap",
        "a-bootstrap-ext",
        "a-brokers",
        "a-b",
        "a-1-b",
    ] {
        let mut cluster = cluster(json!({"brokers": {"replicas": 2}, "listeners": listeners}));
        cluster.metadata.name = Some(name.to_owned());
        for object in built(&plan(&cluster)).iter().filter(|object| object["kind"] == "Service") {
            let service = object["metadata"]["name"].as_str().unwrap().to_owned();
            assert!(names.insert(service.clone()), "{service} twice");
        }
    }
    let mut secrets = std::collections::BTreeSet::new();
    for name in ["a", "a-ca", "a-ca-key", "a-nodes", "a-nodes-ca", "a-tls", "a-cert"] {
        let names = Names { cluster: name.to_owned(), namespace: "n".to_owned() };
        for secret in [
            names.authority(),
            names.authority_for_clients(),
            names.issued(),
            names.nodes(),
            names.nodes_authority(),
        ] {
            assert!(secrets.insert(secret.clone()), "{secret} twice");
        }
    }
    let longest = Names { cluster: "c".repeat(37), namespace: "n".to_owned() };
    assert_eq!(longest.listener_bootstrap(&"l".repeat(15)).len(), 63);
}
