//! What TLS adds to a cluster's objects.

use super::*;

fn secured(tls: &Value) -> KafkaCluster {
    cluster(json!({
        "brokers": {"replicas": 2},
        "listeners": [{"name": "plain", "port": 9092}, {"name": "tls-a", "port": 9093, "type": "NodePort", "host": "K-{broker}.example.com", "tls": tls}],
    }))
}

fn pod(cluster: &KafkaCluster) -> Value {
    stateful_set(&built(&plan(cluster)))["spec"]["template"]["spec"].clone()
}

#[test]
fn without_tls_nothing_of_it_is_in_the_pods() {
    let pod = pod(&cluster(json!({"brokers": {"replicas": 1}}))).to_string();
    assert!(!pod.contains("--tls") && !pod.contains("weir-tls"), "{pod}");
}

#[test]
fn brokers_have_an_identity_and_its_listener() {
    let pod = pod(&cluster(json!({"brokers": {"replicas": 1}})));
    let container = &pod["containers"][0];
    assert_eq!(container["args"], json!(["--identity=/etc/weir-nodes"]));
    let mount = json!({"name": "nodes", "mountPath": "/etc/weir-nodes", "readOnly": true});
    assert!(container["volumeMounts"].as_array().unwrap().contains(&mount), "{container}");
    let volume =
        json!({"name": "nodes", "secret": {"secretName": "orders-nodes", "defaultMode": 0o440}});
    assert!(pod["volumes"].as_array().unwrap().contains(&volume), "{pod}");
    assert!(!pod.to_string().contains("orders-nodes-ca"), "the CA's key is not for brokers");
}

#[test]
fn brokers_mount_what_the_operator_has_issued() {
    let pod = pod(&secured(&json!({})));
    let container = &pod["containers"][0];
    assert_eq!(
        container["args"],
        json!(["--identity=/etc/weir-nodes", "--tls=TLS_A=/etc/weir-tls/tls-a"])
    );
    let mount = json!({"name": "tls", "mountPath": "/etc/weir-tls", "readOnly": true});
    assert!(container["volumeMounts"].as_array().unwrap().contains(&mount), "{container}");
    let items = json!([{"key": "tls-a.crt", "path": "tls-a/tls.crt"}, {"key": "tls-a.key", "path": "tls-a/tls.key"}]);
    let sources = json!([{"secret": {"name": "orders-tls", "items": items}}]);
    let volume = json!({"name": "tls", "projected": {"defaultMode": 0o440, "sources": sources}});
    assert!(pod["volumes"].as_array().unwrap().contains(&volume), "{pod}");
    assert!(!pod.to_string().contains("orders-ca"), "the CA's key is not for brokers");
}

#[test]
fn brokers_mount_what_users_have() {
    let tls = json!({
        "certificateSecret": {"name": "mine"},
        "clientAuthentication": {"mode": "Requested", "caSecret": {"name": "cas"}, "principalMappingRules": "RULE:^$(HOME)(.*)$/$1/"},
    });
    let pod = pod(&secured(&tls));
    assert_eq!(
        pod["containers"][0]["args"],
        json!([
            "--identity=/etc/weir-nodes",
            "--tls=TLS_A=/etc/weir-tls/tls-a",
            "--tls-client-auth=TLS_A=requested",
            "--tls-principal-rules=TLS_A=RULE:^$$(HOME)(.*)$/$1/",
        ])
    );
    let sources = &pod["volumes"].as_array().unwrap().last().unwrap()["projected"]["sources"];
    assert_eq!(sources[0]["secret"]["name"], "mine");
    assert_eq!(
        sources[1]["secret"],
        json!({"name": "cas", "items": [{"key": "ca.crt", "path": "tls-a/clients.crt"}]})
    );
}

#[test]
fn a_certificate_names_all_by_which_clients_reach_the_listener() {
    let cluster = secured(&json!({}));
    let told = ListenerStatus {
        name: "tls-a".to_owned(),
        bootstrap: "[2001:db8::7]:30000,10.0.0.7:30000".to_owned(),
        brokers: vec!["k-0.example.com:30001".to_owned(), String::new()],
        ..ListenerStatus::default()
    };
    let [plain, outside] = &cluster.spec.listeners[..] else { panic!() };
    let names = hosts(&cluster, outside, 2, Some(&told));
    assert_eq!(
        names.iter().map(String::as_str).collect::<Vec<_>>(),
        [
            "10.0.0.7",
            "2001:db8::7",
            "k-0.example.com",
            "k-1.example.com",
            "orders-bootstrap-tls-a",
            "orders-bootstrap-tls-a.data",
            "orders-bootstrap-tls-a.data.svc",
            "orders-bootstrap-tls-a.data.svc.cluster.local",
        ]
    );
    let names = hosts(&cluster, plain, 2, None);
    assert_eq!(
        names.iter().map(String::as_str).collect::<Vec<_>>(),
        [
            "*.orders-brokers.data.svc",
            "orders-0.data.svc",
            "orders-1.data.svc",
            "orders-bootstrap",
            "orders-bootstrap.data",
            "orders-bootstrap.data.svc",
            "orders-bootstrap.data.svc.cluster.local",
        ]
    );
}
