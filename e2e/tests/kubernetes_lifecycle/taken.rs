//! Objects of somebody else that have a cluster's names: they are never touched.

use serde_json::{Value, json};
use weir_e2e::kubernetes::{
    Namespace, OPERATOR_NAMESPACE, condition, eventually, kafka_cluster, kubectl, run,
};

/// Objects with names that the clusters `shop` and `cart` need. Anyone may set these labels.
const SOMEBODY_ELSES: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: shop-bootstrap, labels: {app.kubernetes.io/managed-by: weir-operator, weir.dev/cluster: shop}}
spec: {selector: {app: theirs}, ports: [{name: theirs, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: shop-7, labels: {app.kubernetes.io/managed-by: weir-operator, weir.dev/cluster: shop}}
spec: {selector: {app: theirs}, ports: [{name: theirs, port: 80}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: shop}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: theirs}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: shop}
spec: {podSelector: {matchLabels: {app: theirs}}, policyTypes: [Ingress]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cart-brokers}
data: {theirs: "yes"}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data-cart-0}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"#;

/// An object without the fields that Kubernetes itself writes.
fn written(mut object: Value) -> Value {
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.retain(|name, _| {
        ["name", "uid", "labels", "annotations", "ownerReferences"].contains(&name.as_str())
    });
    object.as_object_mut().unwrap().remove("status");
    // A claim is bound meanwhile, which changes its annotations and its spec.
    if object["kind"] == "PersistentVolumeClaim" {
        object["metadata"].as_object_mut().unwrap().remove("annotations");
        object["spec"].as_object_mut().unwrap().remove("volumeName");
    }
    object
}

#[test]
fn what_somebody_else_made_is_never_touched() {
    let namespace = Namespace::create("taken").unwrap();
    namespace.apply(SOMEBODY_ELSES).unwrap();
    let theirs = [
        "service/shop-bootstrap",
        "service/shop-7",
        "poddisruptionbudget/shop",
        "networkpolicy/shop",
        "configmap/cart-brokers",
        "persistentvolumeclaim/data-cart-0",
    ];
    let seen = |name: &str| written(namespace.object(name).unwrap().unwrap());
    let before: Vec<Value> = theirs.iter().map(|name| seen(name)).collect();
    namespace.apply(&kafka_cluster("shop", 1, "")).unwrap();
    namespace.apply(&kafka_cluster("cart", 1, "")).unwrap();

    let said = namespace.awaits("kafkacluster/shop", "NameTaken", "True");
    for (kind, name) in
        [("Service", "shop-bootstrap"), ("PodDisruptionBudget", "shop"), ("NetworkPolicy", "shop")]
    {
        let named = format!("the {kind} {}/{name} was made by somebody else", namespace.name);
        assert!(said.message.contains(&named), "{said:?}");
    }
    namespace.warned("kafkacluster/shop", "was made by somebody else");
    // The rest of the cluster works.
    eventually("the broker of shop serves", || {
        let set = namespace.object("statefulset/shop")?;
        Ok(set.is_some_and(|set| set["status"]["readyReplicas"] == 1).then_some(()))
    });
    // But no broker uses an object of another owner.
    let said = namespace.awaits("kafkacluster/cart", "NameTaken", "True");
    for named in ["ConfigMap", "PersistentVolumeClaim"] {
        assert!(said.message.contains(named), "{said:?}");
    }
    assert!(namespace.object("statefulset/cart").unwrap().is_none());
    let after: Vec<Value> = theirs.iter().map(|name| seen(name)).collect();
    assert_eq!(after, before);

    // The operator takes the names once they are free.
    for name in
        ["service/shop-bootstrap", "configmap/cart-brokers", "persistentvolumeclaim/data-cart-0"]
    {
        namespace.kubectl(&["delete", name, "--timeout=60s"]).unwrap();
    }
    namespace.ready("kafkacluster/cart");
    eventually("the cluster has its Service", || {
        let service = namespace.object("service/shop-bootstrap")?;
        let owner = |service: &Value| service["metadata"]["ownerReferences"][0]["name"].clone();
        Ok(service.is_some_and(|service| owner(&service) == "shop").then_some(()))
    });
    // Objects that do not belong to the cluster are not deleted with it.
    let uids = |name: &str| namespace.uid(name).unwrap();
    let kept = ["service/shop-7", "poddisruptionbudget/shop", "networkpolicy/shop"];
    let before: Vec<String> = kept.iter().map(|name| uids(name)).collect();
    namespace.kubectl(&["delete", "kafkacluster", "shop", "--timeout=120s"]).unwrap();
    eventually("the cluster is gone", || {
        Ok(namespace.object("service/shop-bootstrap")?.is_none().then_some(()))
    });
    eventually("the pods are gone", || Ok(namespace.pods("shop")?.is_empty().then_some(())));
    assert_eq!(kept.iter().map(|name| uids(name)).collect::<Vec<_>>(), before);
}

/// Kubernetes creates the claim before it finds that the pod's name is taken.
#[test]
fn the_volume_of_a_broker_whose_name_was_taken_goes_with_its_cluster() {
    let namespace = Namespace::create("lent").unwrap();
    let restricted = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    let container = json!({"name": "theirs", "image": "theirs", "securityContext": restricted});
    let theirs = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lent-0"}, "spec": {"nodeSelector": {"no": "such"}, "containers": [container]}});
    namespace.apply(&theirs.to_string()).unwrap();
    let before = namespace.uid("pod/lent-0").unwrap();
    namespace.apply(&kafka_cluster("lent", 1, "")).unwrap();
    let said = namespace.awaits("kafkacluster/lent", "NameTaken", "True");
    assert!(said.message.contains("/lent-0 was made by somebody else"), "{said:?}");
    eventually("the claim names its cluster", || {
        let claim = namespace.object("pvc/data-lent-0")?.unwrap_or_default();
        Ok((claim["metadata"]["ownerReferences"][0]["kind"] == "KafkaCluster").then_some(()))
    });
    namespace.kubectl(&["delete", "kafkacluster", "lent", "--timeout=120s"]).unwrap();
    eventually("the claim is gone", || {
        Ok(namespace.object("pvc/data-lent-0")?.is_none().then_some(()))
    });
    assert_eq!(namespace.uid("pod/lent-0").unwrap(), before);
}

#[test]
fn a_cluster_named_like_the_operator_takes_nothing_from_it() {
    let kubectl = |arguments: &[&str]| kubectl(&[&["-n", OPERATOR_NAMESPACE], arguments].concat());
    let object = |name: &str| -> Option<Value> {
        let text = kubectl(&["get", name, "--ignore-not-found", "-o", "json"]).unwrap();
        (!text.trim().is_empty()).then(|| serde_json::from_str(&text).unwrap())
    };
    let theirs = [
        "poddisruptionbudget/weir-operator",
        "serviceaccount/weir-operator",
        "service/weir-operator",
    ];
    let seen = || theirs.map(|name| written(object(name).unwrap()));
    let before = seen();
    let yaml = kafka_cluster("weir-operator", 1, "");
    run("kubectl", &["-n", OPERATOR_NAMESPACE, "apply", "-f", "-"], &yaml).unwrap();
    let taken = std::panic::catch_unwind(|| {
        let said = eventually("it is said what has the cluster's names", || {
            let cluster = object("kafkacluster/weir-operator");
            let said = cluster.and_then(|cluster| condition(&cluster, "NameTaken"));
            Ok(said.filter(|said| said.status == "True"))
        });
        assert!(
            said.message.contains("the PodDisruptionBudget weir-system/weir-operator"),
            "{said:?}"
        );
        assert!(said.message.contains("\"Helm\" manages it"), "{said:?}");
        eventually("its broker serves", || {
            let set = object("statefulset/weir-operator");
            Ok(set.is_some_and(|set| set["status"]["readyReplicas"] == 1).then_some(()))
        });
        seen()
    });
    kubectl(&["delete", "kafkacluster", "weir-operator", "--timeout=120s"]).unwrap();
    assert_eq!(taken.unwrap(), before);
    eventually("the cluster is gone", || {
        Ok(object("statefulset/weir-operator").is_none().then_some(()))
    });
    assert_eq!(seen(), before);
}
