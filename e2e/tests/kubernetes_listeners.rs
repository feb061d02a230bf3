//! Load balancers: one for each broker, and one shared by all. The test acts as their provider: it
//! assigns addresses to the services and routes them to a node. And a listener with TLS, and one
//! with users.
//!
//! Needs `e2e/up` and the `KUBECONFIG` that it prints, of a kind cluster on this machine, so that
//! routes can lead to its nodes.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use serde_json::Value;
use weir_e2e::kubernetes::{Namespace, eventually, kubectl, topic};
use weir_e2e::tools::{class, kafka, kcat};

/// A documentation address (RFC 5737) that this machine routes to a node until this is dropped.
struct Address(String);

impl Address {
    fn new(last: u8, node: &str) -> Self {
        let address = format!("192.0.2.{last}");
        route(&["replace", &address, "via", node]).unwrap();
        Self(address)
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        let _ = route(&["del", &self.0]);
    }
}

fn route(arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("ip").arg("route").args(arguments).status()?;
    anyhow::ensure!(status.success(), "ip route {arguments:?}");
    Ok(())
}

/// Assigns an address to every load balancer without one, as a provider does.
fn provide(namespace: &Namespace, addresses: &mut Vec<Address>, node: &str) {
    for service in namespace.list("services", "weir.dev/cluster=k").unwrap() {
        let name = service["metadata"]["name"].as_str().unwrap();
        if service["spec"]["type"] != "LoadBalancer"
            || !service["status"]["loadBalancer"]["ingress"].is_null()
        {
            continue;
        }
        let address = Address::new(u8::try_from(addresses.len() + 10).unwrap(), node);
        let patch = format!(
            r#"{{"status": {{"loadBalancer": {{"ingress": [{{"ip": "{}"}}]}}}}}}"#,
            address.0
        );
        namespace
            .kubectl(&[
                "patch",
                "service",
                name,
                "--subresource=status",
                "--type=merge",
                "-p",
                &patch,
            ])
            .unwrap();
        addresses.push(address);
    }
}

fn bootstrap(namespace: &Namespace, listener: &str) -> Option<String> {
    let object = namespace.object("kafkacluster/k").unwrap()?;
    let named = |l: &&Value| l["name"] == listener;
    let found = object["status"]["listeners"].as_array()?.iter().find(named)?;
    found["bootstrap"].as_str().filter(|b| !b.is_empty()).map(str::to_owned)
}

/// The brokers in the Metadata for a client at this address: host and port, in the order of their
/// ids.
fn brokers(bootstrap: &str) -> anyhow::Result<Vec<String>> {
    let printed = kcat(bootstrap, &["-L", "-J"], b"")?.success()?;
    let metadata: Value = serde_json::from_str(&printed)?;
    let mut brokers: Vec<(i64, String)> = metadata["brokers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|b| {
            (b["id"].as_i64().unwrap_or(-1), b["name"].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    brokers.sort();
    Ok(brokers.into_iter().map(|(_, name)| name).collect())
}

/// Writes a record to each of three partitions, which have different leaders.
fn write_to_all(bootstrap: &str) {
    for partition in ["0", "1", "2"] {
        eventually(&format!("partition {partition} takes a record by {bootstrap}"), || {
            let produce = [
                "-P",
                "-t",
                "spread",
                "-p",
                partition,
                "-X",
                "acks=all",
                "-X",
                "message.timeout.ms=10000",
            ];
            Ok(kcat(bootstrap, &produce, b"record\n")?.success().ok())
        });
    }
}

#[test]
fn clients_reach_each_broker_by_its_load_balancer_or_by_its_port_of_one() {
    let namespace = Namespace::create("balancers").unwrap();
    // The brokers run as on OpenShift, as a user of the namespace in group 0, with little memory,
    // whose limit they detect themselves.
    let brokers_are = "replicas: 3, storage: {size: 1Gi, onDelete: Delete}, resources: {limits: {memory: 192Mi}}, \
         podTemplate: {spec: {securityContext: {runAsUser: 1000680000, runAsGroup: 0, fsGroup: 1000680000}}}";
    let listeners = |shared: &str| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata: {{name: k}}\nspec:\n  brokers: {{{brokers_are}}}\n  listeners:\n  - {{name: plain, port: 9092}}\n  - {{name: each, port: 9094, type: LoadBalancer}}\n{shared}"
        )
    };
    namespace.apply(&listeners("  - {name: one, port: 9096, type: SharedLoadBalancer}\n")).unwrap();
    namespace.ready("kafkacluster/k");
    namespace.apply(&topic("spread", "k", 3, 3, "")).unwrap();
    namespace.ready("topic/spread");
    let logged = namespace.kubectl(&["logs", "k-0"]).unwrap();
    assert!(
        logged.lines().any(|line| line.contains("\"memory_mib\":192")
            && line.contains("\"request_memory_mib\":48")),
        "{logged}"
    );
    let node = kubectl(&[
        "get",
        "nodes",
        "-o",
        "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}",
    ])
    .unwrap();
    let mut addresses = Vec::new();
    let [each, one] = ["each", "one"].map(|listener| {
        eventually(&format!("listener {listener} has an address"), || {
            provide(&namespace, &mut addresses, node.trim());
            Ok(bootstrap(&namespace, listener))
        })
    });
    // Five services: one for each broker, and one whose ports belong to the shared listener.
    assert_eq!(addresses.len(), 5);
    let told = eventually("three brokers at three addresses", || {
        Ok(brokers(&each)
            .ok()
            .filter(|told| told.len() == 3 && told.iter().all(|name| name.ends_with(":9094"))))
    });
    assert!(told.iter().all(|name| *name != each), "{told:?}");
    let host = one.strip_suffix(":9096").unwrap();
    let expected: Vec<String> =
        [9097, 9098, 9099].iter().map(|port| format!("{host}:{port}")).collect();
    eventually("three brokers at three ports", || {
        Ok(brokers(&one).ok().filter(|told| *told == expected))
    });
    write_to_all(&each);
    write_to_all(&one);

    // A replaced pod has another address; its broker's port stays.
    let before = namespace.object("pod/k-1").unwrap().unwrap()["status"]["podIP"].clone();
    namespace.kubectl(&["delete", "pod", "k-1"]).unwrap();
    eventually("the pod has another address", || {
        let now = namespace.object("pod/k-1")?.map(|pod| pod["status"]["podIP"].clone());
        Ok(now.filter(|now| now.is_string() && *now != before))
    });
    namespace.whole("k");
    write_to_all(&one);

    // The objects of a listener are deleted with it.
    namespace.apply(&listeners("")).unwrap();
    eventually("nothing is left of the listener", || {
        let services = namespace.list("services", "weir.dev/cluster=k")?;
        let slices = namespace
            .list("endpointslices", "endpointslice.kubernetes.io/managed-by=weir-operator")?;
        let is_its = |service: &Value| {
            service["metadata"]["name"].as_str().is_some_and(|name| name.ends_with("-one"))
        };
        Ok((!services.iter().any(is_its) && slices.is_empty()).then_some(()))
    });
}

/// A certificate for these addresses, in the files of a Secret.
fn make_certificate(folder: &Path, name: &str, addresses: &[&str]) {
    let names: Vec<String> = addresses.iter().map(|address| format!("IP:{address}")).collect();
    let names = names.join(",");
    let arguments = format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name} -addext subjectAltName={names} -keyout tls.key -out tls.crt"
    );
    let made =
        Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// Clients trust the cluster's own CA, and then a certificate of the user, which is replaced
/// without a restart.
#[test]
fn a_listener_has_tls() {
    let namespace = Namespace::create("tls").unwrap();
    let cluster = |tls: &str| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata: {{name: k}}\nspec:\n  brokers: {{storage: {{size: 1Gi, onDelete: Delete}}}}\n  listeners:\n  - {{name: plain, port: 9092}}\n  - {{name: tls, port: 9094, type: NodePort, tls: {tls}}}\n"
        )
    };
    namespace.apply(&cluster("{}")).unwrap();
    namespace.ready("kafkacluster/k");
    namespace.apply(&topic("orders", "k", 1, 1, "")).unwrap();
    namespace.ready("topic/orders");
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.crt");
    let secret = namespace.object("secret/k-ca-cert").unwrap().unwrap();
    let encoded = secret["data"]["ca.crt"].as_str().unwrap();
    let pem = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
    std::fs::write(&ca, pem).unwrap();
    let address_of = || bootstrap(&namespace, "tls");
    let writes = |ca: &Path| {
        let location = format!("ssl.ca.location={}", ca.display());
        let ssl =
            ["-X", "security.protocol=ssl", "-X", &location, "-X", "message.timeout.ms=10000"];
        let produce = [&ssl[..], &["-P", "-t", "orders"]].concat();
        address_of().is_some_and(|at| kcat(&at, &produce, b"record\n").is_ok_and(|told| told.ok))
    };
    eventually("a client trusts the cluster's CA", || Ok(writes(&ca).then_some(())));
    let object = namespace.object("kafkacluster/k").unwrap().unwrap();
    assert!(object["status"]["listeners"][1]["certificateNotAfter"].is_string(), "{object}");
    // A Secret that is not there yet: the broker stays as it is.
    let pods = namespace.pods("k").unwrap();
    namespace.apply(&cluster("{certificateSecret: {name: mine}}")).unwrap();
    let told = namespace.awaits("kafkacluster/k", "UpToDate", "False");
    assert!(told.message.contains("there is no Secret \"mine\""), "{}", told.message);
    assert_eq!(namespace.pods("k").unwrap(), pods);
    let at = address_of().unwrap();
    let addresses: Vec<&str> =
        at.split(',').map(|one| one.rsplit_once(':').unwrap().0.trim_matches(['[', ']'])).collect();
    let own = folder.path().join("tls.crt");
    let apply_secret = |name: &str| {
        make_certificate(folder.path(), name, &addresses);
        let files = ["tls.crt", "tls.key"].map(|file| {
            let path = folder.path().join(file).display().to_string();
            format!("--from-file={file}={path}")
        });
        let create = ["create", "secret", "generic", "mine", "--dry-run=client", "-o", "yaml"];
        let made = namespace.kubectl(&[&create[..], &[&files[0], &files[1]]].concat()).unwrap();
        namespace.apply(&made).unwrap();
    };
    apply_secret("first");
    eventually("a client trusts the first certificate", || Ok(writes(&own).then_some(())));
    let pods = namespace.pods("k").unwrap();
    apply_secret("second");
    eventually("a client trusts the second certificate", || Ok(writes(&own).then_some(())));
    assert_eq!(namespace.pods("k").unwrap(), pods, "nothing was restarted");
}

/// Users are in a Secret that the operator keeps, and every broker knows them.
#[test]
fn a_listener_has_users() {
    let namespace = Namespace::create("sasl").unwrap();
    let cluster = "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata: {name: k}\nspec:\n  brokers: {replicas: 3, storage: {size: 1Gi, onDelete: Delete}}\n  listeners:\n  - {name: plain, port: 9092}\n  - {name: admin, port: 9093, type: NodePort}\n  - {name: users, port: 9094, type: NodePort, sasl: {}}\n";
    namespace.apply(cluster).unwrap();
    namespace.ready("kafkacluster/k");
    namespace.apply(&topic("orders", "k", 3, 3, "")).unwrap();
    namespace.ready("topic/orders");
    let set = |user: &str, how: &[&str]| {
        eventually(&format!("{user} is altered"), || {
            let Some(admin) = bootstrap(&namespace, "admin") else { return Ok(None) };
            let alter = ["--bootstrap-server", &admin, "--alter", "--entity-type", "users"];
            let all = [&alter[..], &["--entity-name", user], how].concat();
            Ok(kafka(class::CONFIGS, &all, "")?.success().ok())
        });
    };
    let logs_in = |user: &str, broker: &str| {
        let user = format!("sasl.username={user}");
        let login =
            ["-X", "security.protocol=sasl_plaintext", "-X", "sasl.mechanisms=SCRAM-SHA-512"];
        let password = ["-X", &user, "-X", "sasl.password=pencil", "-L", "-m", "5"];
        kcat(broker, &[&login[..], &password].concat(), b"").is_ok_and(|told| told.ok)
    };
    set("alice", &["--add-config", "SCRAM-SHA-512=[password=pencil]"]);
    let at = eventually("the listener has its addresses", || Ok(bootstrap(&namespace, "users")));
    let brokers: Vec<&str> = at.split(',').collect();
    let each = |user: &str| brokers.iter().all(|broker| logs_in(user, broker));
    eventually("alice logs in at each broker", || Ok(each("alice").then_some(())));
    assert!(!logs_in("bob", brokers[0]));

    // Somebody deletes the Secret: the next change makes it again, with all users.
    namespace.kubectl(&["delete", "secret", "k-scram-credentials"]).unwrap();
    set("bob", &["--add-config", "SCRAM-SHA-512=[password=pencil]"]);
    let secret = namespace.object("secret/k-scram-credentials").unwrap().unwrap();
    let encoded = secret["data"]["credentials"].as_str().unwrap();
    let text = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("\"alice\"\n") && text.contains("\"bob\"\n"), "{}", text.len());
    assert!(!text.contains("pencil"));
    // A broker that starts anew lets both in.
    namespace.kubectl(&["delete", "pod", "k-0"]).unwrap();
    namespace.ready("kafkacluster/k");
    for user in ["alice", "bob"] {
        eventually(&format!("{user} logs in at each broker"), || Ok(each(user).then_some(())));
    }
    set("alice", &["--delete-config", "SCRAM-SHA-512"]);
    eventually("alice does not log in any more", || {
        Ok((!brokers.iter().any(|broker| logs_in("alice", broker))).then_some(()))
    });
    assert!(each("bob"));
}
