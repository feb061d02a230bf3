//! A Kubernetes cluster without IPv4: brokers find their controller and each other, and clients
//! find brokers, inside and outside.
//!
//! Needs `WEIR_IP_FAMILY=ipv6 e2e/up` and the `KUBECONFIG` that it prints.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use serde_json::Value;
use weir_e2e::driver::Client;
use weir_e2e::kubernetes::{OPERATOR_NAMESPACE, eventually, helm, kubectl};
use weir_e2e::load::Load;

/// The addresses of all pods and services of a namespace, and any other address that is not IPv6.
fn addresses(namespace: &str) -> BTreeSet<String> {
    let printed =
        kubectl(&["-n", namespace, "get", "pods,services,endpointslices", "-o", "json"]).unwrap();
    let objects: Value = serde_json::from_str(&printed).unwrap();
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let of = |object: &Value| -> Vec<Value> {
        let of_pod = all(&object["status"]["podIPs"]).into_iter().map(|ip| ip["ip"].clone());
        let of_slice =
            all(&object["endpoints"]).into_iter().flat_map(|endpoint| all(&endpoint["addresses"]));
        of_pod.chain(all(&object["spec"]["clusterIPs"])).chain(of_slice).collect()
    };
    let texts = all(&objects["items"]).iter().flat_map(of).collect::<Vec<_>>();
    texts.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

#[test]
fn clients_write_while_brokers_and_the_operator_are_restarted_on_ipv6_alone() {
    let load = Load::start("six", &[Client::Java, Client::Librdkafka, Client::Franz]);
    let namespace = &load.namespace;
    let all: BTreeSet<_> =
        addresses(&namespace.name).union(&addresses(OPERATOR_NAMESPACE)).cloned().collect();
    let others: Vec<_> =
        all.iter().filter(|text| *text != "None" && text.parse::<Ipv6Addr>().is_err()).collect();
    assert!(all.len() > 10 && others.is_empty(), "{all:?}");
    assert!(
        load.bootstrap.split(',').all(|address| address.starts_with('[')),
        "{}",
        load.bootstrap
    );

    // A broker and the operator return with other addresses.
    let leader = load.leader();
    let before = namespace.uid(&format!("pod/{leader}")).unwrap();
    namespace.kubectl(&["delete", "pod", &leader, "--grace-period=0", "--force"]).unwrap();
    load.moves();
    let _ = load.successor(&leader, &before);
    let operator = ["-n", OPERATOR_NAMESPACE, "rollout"];
    kubectl(&[&operator[..], &["restart", "deployment/weir-operator"]].concat()).unwrap();
    kubectl(&[&operator[..], &["status", "deployment/weir-operator", "--timeout=120s"]].concat())
        .unwrap();
    load.whole();
    load.moves();

    // One load balancer for all brokers: its way to the brokers is IPv6 too.
    let listener = r#"[{"op": "add", "path": "/spec/listeners/-", "value": {"name": "one", "port": 9096, "type": "SharedLoadBalancer"}}]"#;
    namespace.kubectl(&["patch", "kafkacluster/k", "--type=json", "--patch", listener]).unwrap();
    // One slice for any broker, and one for each.
    eventually("the slices lead to each broker by IPv6", || {
        let slices = namespace
            .list("endpointslices", "endpointslice.kubernetes.io/managed-by=weir-operator")?;
        let of_ipv6 = slices
            .iter()
            .filter(|slice| slice["addressType"] == "IPv6" && !slice["endpoints"][0].is_null());
        Ok((of_ipv6.count() == 4 && slices.len() == 4).then_some(()))
    });
    load.whole();
    load.finish();
}

/// A client inside the cluster, by service names.
#[test]
fn what_the_chart_tests_works() {
    let said =
        helm(&["test", "weir", "--namespace", OPERATOR_NAMESPACE, "--timeout", "120s"]).unwrap();
    assert!(said.contains("Succeeded"), "{said}");
}
