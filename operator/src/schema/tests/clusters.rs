//! Refusals of brokers, their pods and listeners: one row for every rule.

use serde_json::json;

use super::*;

/// What a spec is told whose requests and connections may take more than its memory limit leaves.
const TOO_MUCH_MEMORY: &str = "spec.brokers: Invalid value: \"object\": process.requestMemory, and process.maxConnections with 80Ki each, may take ten sixteenths of the memory limit together (2Gi without resources): a broker that takes more is killed. What is not given counts as a quarter of the limit, at most 256Mi and 20000 connections";

/// A cluster with one listener with these fields.
fn first(fields: Value) -> Value {
    let mut listener = json!({"name": "plain", "port": 9092});
    listener.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    cluster(&json!({"listeners": [listener]}))
}

/// New object, old object, and the error.
pub(super) fn refused() -> Vec<(Value, Option<Value>, &'static str)> {
    vec![
        (
            cluster(&json!({"brokers": {"replicas": 2}, "config": {"min.insync.replicas": 3}})),
            None,
            "spec: Invalid value: \"object\": config's min.insync.replicas must not be greater than brokers.replicas: nothing could be written with acks=all",
        ),
        (
            cluster(
                &json!({"brokers": {"replicas": 2}, "config": {"offsets.topic.replication.factor": "3"}}),
            ),
            None,
            "spec: Invalid value: \"object\": config's offsets.topic.replication.factor must not be greater than brokers.replicas",
        ),
        (
            cluster(
                &json!({"brokers": {"replicas": 2}, "config": {"transaction.state.log.replication.factor": 3}}),
            ),
            None,
            "spec: Invalid value: \"object\": config's transaction.state.log.replication.factor must not be greater than brokers.replicas",
        ),
        (
            cluster(
                &json!({"brokers": {"replicas": 2}, "config": {"transaction.state.log.min.isr": 3}}),
            ),
            None,
            "spec: Invalid value: \"object\": config's transaction.state.log.min.isr must not be greater than brokers.replicas: no transaction could be written",
        ),
        (
            cluster(&json!({"network": {"ipFamilies": ["IPv6", "IPv4"]}})),
            None,
            "spec.network: Invalid value: \"object\": two ipFamilies need the ipFamilyPolicy PreferDualStack or RequireDualStack",
        ),
        (
            cluster(
                &json!({"network": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6", "IPv4"]}}),
            ),
            None,
            "spec.network: Invalid value: \"object\": two ipFamilies need the ipFamilyPolicy PreferDualStack or RequireDualStack",
        ),
        (
            cluster(
                &json!({"network": {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv6"]}}),
            ),
            None,
            "spec.network.ipFamilies: Invalid value: \"array\": no family is there twice",
        ),
        (
            cluster(&json!({"network": {"ipFamilies": ["IPv6"]}})),
            Some(cluster(
                &json!({"network": {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"]}}),
            )),
            "spec.network: Invalid value: \"object\": the first of ipFamilies cannot change: Kubernetes keeps that of a service; the second may come and go",
        ),
        (
            cluster(
                &json!({"allowedNamespaces": {"from": "All", "selector": {"matchLabels": {"team": "a"}}}}),
            ),
            None,
            "spec.allowedNamespaces: Invalid value: \"object\": give selector with from: Selector, and with nothing else",
        ),
        (
            cluster(
                &json!({"allowedNamespaces": {"from": "Selector", "selector": {"matchLabels": {"a b": "c"}}}}),
            ),
            None,
            "spec.allowedNamespaces.selector.matchLabels: Invalid value: \"object\": the key of a label is a name of at most 63 letters, digits, '-', '_' and '.', which begins and ends with a letter or digit; before it there may be a DNS name and '/'",
        ),
        (
            cluster(
                &json!({"allowedNamespaces": {"from": "Selector", "selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}}),
            ),
            None,
            "spec.allowedNamespaces.selector.matchExpressions[0]: Invalid value: \"object\": the operators In and NotIn need values, and the others take none",
        ),
        (
            brokers(json!({"replicas": 3, "config": {"7": {"num.io.threads": 8}}})),
            None,
            "spec.brokers: Invalid value: \"object\": config names brokers by their ids, which are 0 to replicas - 1",
        ),
        (
            brokers(json!({"process": {"requestMemory": "15Mi"}})),
            None,
            "spec.brokers.process.requestMemory: Invalid value: \"15Mi\": must be from 16Mi to 1Ti",
        ),
        (
            brokers(
                json!({"process": {"requestMemory": "4Gi"}, "resources": {"limits": {"memory": "1Gi"}}}),
            ),
            None,
            TOO_MUCH_MEMORY,
        ),
        (
            brokers(
                json!({"process": {"requestMemory": 1_073_741_824}, "resources": {"limits": {"memory": "1Gi"}}}),
            ),
            None,
            TOO_MUCH_MEMORY,
        ),
        (brokers(json!({"process": {"requestMemory": "769Mi"}})), None, TOO_MUCH_MEMORY),
        (
            brokers(json!({"process": {"requestMemory": "3Gi"}, "resources": {"requests": {}}})),
            None,
            TOO_MUCH_MEMORY,
        ),
        (
            brokers(
                json!({"process": {"requestMemory": "127Mi"}, "resources": {"limits": {"memory": "128Mi"}}}),
            ),
            None,
            TOO_MUCH_MEMORY,
        ),
        (
            brokers(
                json!({"process": {"maxConnections": 20000}, "resources": {"limits": {"memory": "1Gi"}}}),
            ),
            None,
            TOO_MUCH_MEMORY,
        ),
        (brokers(json!({"process": {"maxConnections": 13108}})), None, TOO_MUCH_MEMORY),
        (
            brokers(json!({"process": {"requestMemory": "600Mi", "maxConnections": 9000}})),
            None,
            TOO_MUCH_MEMORY,
        ),
        (
            brokers(json!({"resources": {"limits": {"memory": "1Mi"}}})),
            None,
            "spec.brokers.resources.limits: Invalid value: \"object\": memory is limited to 1Mi, and a broker needs 128Mi at least",
        ),
        (
            brokers(json!({"pod": {"labels": {"app.kubernetes.io/component": "other"}}})),
            None,
            "spec.brokers.pod.labels: Invalid value: \"object\": these labels are not for users, since the brokers' pods are found by them: app.kubernetes.io/name, component, instance and managed-by, all of weir.dev, and those of the StatefulSet controller",
        ),
        (
            brokers(
                json!({"podTemplate": {"metadata": {"labels": {"team": "a", "weir.dev/cluster": "d"}}}}),
            ),
            None,
            "spec.brokers.podTemplate.metadata.labels: Invalid value: \"object\": these labels are not for users, since the brokers' pods are found by them: app.kubernetes.io/name, component, instance and managed-by, all of weir.dev, and those of the StatefulSet controller",
        ),
        (
            brokers(json!({"process": {"env": [{"name": "WEIR_DATA", "value": "/"}]}})),
            None,
            "spec.brokers.process.env[0].name: Invalid value: \"WEIR_DATA\": what begins with WEIR_, and POD_NAME, are the operator's: other fields set them",
        ),
        (
            brokers(json!({"storage": {"size": "500m"}})),
            None,
            "spec.brokers.storage.size: Invalid value: \"500m\": a volume has at least 64Mi: on less, a broker's log is full before a topic is in it",
        ),
        (
            brokers(json!({"resources": {"requests": {"mem": "1Gi"}}})),
            None,
            "spec.brokers.resources.requests: Invalid value: \"object\": a resource is cpu, memory, ephemeral-storage, hugepages- with a size, or one with a domain, as in example.com/gpu",
        ),
        (
            brokers(json!({"resources": {"limits": {"mem": "1Gi"}}})),
            None,
            "spec.brokers.resources.limits: Invalid value: \"object\": a resource is cpu, memory, ephemeral-storage, hugepages- with a size, or one with a domain, as in example.com/gpu",
        ),
        (
            brokers(json!({"resources": {"limits": {"example.com/gpu": "500m"}}})),
            None,
            "spec.brokers.resources.limits: Invalid value: \"object\": only cpu, memory and ephemeral-storage can have a part of a whole",
        ),
        (
            brokers(json!({"resources": {"requests": {"example.com/gpu": "500m"}}})),
            None,
            "spec.brokers.resources.requests: Invalid value: \"object\": only cpu, memory and ephemeral-storage can have a part of a whole",
        ),
        (
            brokers(
                json!({"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}),
            ),
            None,
            "spec.brokers.resources: Invalid value: \"object\": no request is above its limit",
        ),
        (
            brokers(json!({"resources": {"requests": {"example.com/gpu": 1}}})),
            None,
            "spec.brokers.resources: Invalid value: \"object\": what is not cpu, memory or ephemeral-storage has the same limit as its request, or a limit only",
        ),
        (
            brokers(json!({"pod": {"labels": {"a b": "c"}}})),
            None,
            concat!(
                "spec.brokers.pod.labels: Invalid value: \"object\": the key of a label is a name of at most 63 letters, digits, '-', '_' and '.', ",
                "which begins and ends with a letter or digit; before it there may be a DNS name and '/'"
            ),
        ),
        (
            brokers(json!({"pod": {"nodeSelector": {"-": "c"}}})),
            None,
            concat!(
                "spec.brokers.pod.nodeSelector: Invalid value: \"object\": the key of a label is a name of at most 63 letters, digits, '-', '_' and '.', ",
                "which begins and ends with a letter or digit; before it there may be a DNS name and '/'"
            ),
        ),
        (
            brokers(json!({"pod": {"serviceAccountAnnotations": {"a/b/c": "d"}}})),
            None,
            concat!(
                "spec.brokers.pod.serviceAccountAnnotations: Invalid value: \"object\": the key of an annotation is a name of at most 63 letters, digits, '-', '_' and '.', ",
                "which begins and ends with a letter or digit; before it there may be a DNS name and '/'"
            ),
        ),
        (
            brokers(json!({"pod": {"annotations": {"a/b/c": "d"}}})),
            None,
            concat!(
                "spec.brokers.pod.annotations: Invalid value: \"object\": the key of an annotation is a name of at most 63 letters, digits, '-', '_' and '.', ",
                "which begins and ends with a letter or digit; before it there may be a DNS name and '/'"
            ),
        ),
        (
            brokers(json!({"pod": {"tolerations": [{"value": "v"}]}})),
            None,
            "spec.brokers.pod.tolerations[0]: Invalid value: \"object\": without a key the operator is Exists: every taint is borne",
        ),
        (
            brokers(
                json!({"pod": {"tolerations": [{"key": "k", "operator": "Exists", "value": "v"}]}}),
            ),
            None,
            "spec.brokers.pod.tolerations[0]: Invalid value: \"object\": with the operator Exists there is no value",
        ),
        (
            brokers(
                json!({"pod": {"tolerations": [{"key": "k", "effect": "NoSchedule", "tolerationSeconds": 3}]}}),
            ),
            None,
            "spec.brokers.pod.tolerations[0]: Invalid value: \"object\": tolerationSeconds goes with the effect NoExecute only",
        ),
        (
            cluster(
                &json!({"brokers": {"replicas": 2}, "listeners": [{"name": "a", "port": 9092}, {"name": "b", "port": 9094, "type": "LoadBalancer", "host": "k.example"}]}),
            ),
            None,
            concat!(
                "spec: Invalid value: \"object\": with the type LoadBalancer each broker has an address of its own: ",
                "host needs {broker}, which stands for the broker's id, as in kafka-{broker}.example.com"
            ),
        ),
        (
            first(json!({"host": "kafka.example.com"})),
            None,
            "spec.listeners[0]: Invalid value: \"object\": host is for clients outside: with the type Internal each broker is told by the name of its service",
        ),
        (
            first(json!({"sasl": {"mechanisms": ["SCRAM-SHA-512", "PLAIN"]}})),
            None,
            "spec.listeners[0]: Invalid value: \"object\": PLAIN sends passwords as they are: it needs tls",
        ),
        (
            first(json!({"type": "NodePort", "host": "not a host"})),
            None,
            "spec.listeners[0].host: Invalid value: \"not a host\": must be an IP address, or a DNS name in which {broker} may stand for the broker's id; the last part of a name has a letter besides {broker}, as in kafka-{broker}.example.com",
        ),
        (
            first(json!({"type": "NodePort", "host": "{broker}"})),
            None,
            "spec.listeners[0].host: Invalid value: \"{broker}\": must be an IP address, or a DNS name in which {broker} may stand for the broker's id; the last part of a name has a letter besides {broker}, as in kafka-{broker}.example.com",
        ),
        (
            first(json!({"type": "NodePort", "host": "0.0.0.0"})),
            None,
            "spec.listeners[0].host: Invalid value: \"0.0.0.0\": no client can connect to 0.0.0.0 or ::",
        ),
        (
            first(json!({"annotations": {"": "d"}})),
            None,
            concat!(
                "spec.listeners[0].annotations: Invalid value: \"object\": the key of an annotation is a name of at most 63 letters, digits, '-', '_' and '.', ",
                "which begins and ends with a letter or digit; before it there may be a DNS name and '/'"
            ),
        ),
    ]
}
