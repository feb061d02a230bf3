//! The chart from an administrator's view: installed, tested, upgraded, removed. It is the last
//! suite, because it removes the operator that the others need.
//!
//! Needs `e2e/up`, its helm, and the `KUBECONFIG` that it prints.
#![allow(clippy::unwrap_used, missing_docs)]

mod monitoring;

use serde_json::{Value, json};
use weir_e2e::driver::{Client, Driver};
use weir_e2e::kubernetes::{
    Namespace, OPERATOR_NAMESPACE, eventually, helm, kafka_cluster, kubectl, operator_restarts,
    run, state, topic,
};
use weir_e2e::load::Load;
use weir_e2e::tools::kcat;
use weir_e2e::writer::Writer;

fn chart() -> String {
    weir_e2e::workspace().join("charts/weir").to_string_lossy().into_owned()
}

/// Installs or upgrades the operator in a namespace.
fn install(namespace: &str, more: &[&str]) {
    let (chart, values) = (chart(), state().join("values.yaml"));
    let values = values.to_string_lossy();
    let mut arguments = vec![
        "upgrade",
        "--install",
        "weir",
        &chart,
        "--namespace",
        namespace,
        "--create-namespace",
    ];
    arguments.extend(["--values", &values, "--wait", "--timeout", "180s"]);
    arguments.extend(more);
    helm(&arguments).unwrap();
}

fn upgrade(more: &[&str]) {
    install(OPERATOR_NAMESPACE, more);
}

fn uninstall(namespace: &str) {
    helm(&["uninstall", "weir", "--namespace", namespace, "--wait"]).unwrap();
}

/// The images of the operator and of new clusters' brokers.
fn images() -> [String; 2] {
    let values: Value =
        serde_yaml::from_str(&std::fs::read_to_string(state().join("values.yaml")).unwrap())
            .unwrap();
    ["image", "brokerImage"].map(|of| {
        format!(
            "{}:{}",
            values[of]["repository"].as_str().unwrap(),
            values[of]["tag"].as_str().unwrap()
        )
    })
}

/// Installs the operator again on drop, because other tests need it.
struct Reinstalled;

impl Drop for Reinstalled {
    fn drop(&mut self) {
        upgrade(&[]);
    }
}

fn pods(namespace: &Namespace) -> Vec<(String, i64)> {
    let pods = namespace.list("pods", "weir.dev/cluster=k").unwrap();
    let mut seen: Vec<_> = pods
        .iter()
        .map(|p| {
            let restarts = p["status"]["containerStatuses"][0]["restartCount"].as_i64();
            (p["metadata"]["uid"].as_str().unwrap().to_owned(), restarts.unwrap_or(0))
        })
        .collect();
    seen.sort();
    seen
}

#[test]
fn the_chart_says_what_is_wrong_and_renders_in_every_scope() {
    let chart = chart();
    helm(&["lint", "--strict", &chart]).unwrap();
    let template = |more: &[&str]| {
        let mut arguments =
            vec!["template", "weir", &chart, "--kube-version", "1.34.0", "--namespace", "x"];
        arguments.extend(more);
        helm(&arguments)
    };
    let wrong = template(&["--set", "replicaCont=3"]).unwrap_err();
    assert!(format!("{wrong:#}").contains("replicaCont"), "{wrong:#}");
    let own = template(&[]).unwrap();
    let named = template(&["--set", "watch.namespaces={a,b}"]).unwrap();
    let every = template(&["--set", "watch.namespaces={*}"]).unwrap();
    let count = |text: &str, kind: &str| {
        text.lines().filter(|l| l.trim_end() == format!("kind: {kind}")).count()
    };
    // The lease's Role, and one for each namespace.
    assert_eq!((count(&own, "Role"), count(&named, "Role"), count(&every, "Role")), (2, 3, 1));
    let monitored = [
        "--api-versions",
        "monitoring.coreos.com/v1",
        "--set",
        "monitoring.podMonitor.enabled=true,monitoring.rules.enabled=true,monitoring.dashboards.enabled=true",
    ];
    let monitored = template(&monitored).unwrap();
    assert_eq!((count(&monitored, "PodMonitor"), count(&monitored, "PrometheusRule")), (1, 1));
    // The settings of PodMonitors also apply to those of the brokers, which the operator creates.
    let labelled = template(&[
        "--set",
        "monitoring.podMonitor.interval=5s,monitoring.podMonitor.labels.release=prometheus",
    ])
    .unwrap();
    for told in [
        "{name: WEIR_POD_MONITOR_INTERVAL, value: 5s}",
        r#"{name: WEIR_POD_MONITOR_LABELS, value: "release=prometheus"}"#,
    ] {
        assert!(labelled.contains(told), "{told}");
    }
    let of_secrets =
        "  - apiGroups: [\"\"]\n    resources: [secrets]\n    verbs: [get, create, patch]\n";
    assert!(
        every.contains(of_secrets) && every.matches("secrets").count() == 1,
        "Secrets by their names only"
    );
}

#[test]
fn install_yaml_is_what_the_chart_renders() {
    let path = format!("{}:{}", state().join("bin").display(), std::env::var("PATH").unwrap());
    let render = weir_e2e::workspace().join("charts/render");
    let status =
        std::process::Command::new(render).arg("check").env("PATH", path).status().unwrap();
    assert!(status.success(), "run charts/render");
    for crd in std::fs::read_dir(weir_e2e::workspace().join("crds")).unwrap() {
        let crd = crd.unwrap().file_name();
        if crd.to_string_lossy().ends_with(".yaml") {
            let linked = weir_e2e::workspace().join("charts/weir/files/crds").join(&crd);
            assert!(linked.is_file(), "{} is not in the chart", crd.display());
        }
    }
}

#[test]
fn helm_test_produces_and_consumes() {
    let printed =
        helm(&["test", "weir", "--namespace", OPERATOR_NAMESPACE, "--logs", "--timeout", "180s"])
            .unwrap();
    assert!(printed.contains("100 records there and back"), "{printed}");
}

#[test]
fn an_upgrade_restarts_no_broker_and_an_uninstall_leaves_everything() {
    let load = Load::start("chart", &[Client::Java]);
    let namespace = &load.namespace;
    let before = pods(namespace);

    // A new version of the operator, with a new default image for brokers.
    let [operator, broker] = images();
    let next =
        |what: &str, image: &str| format!("{what}.tag={}-next", image.rsplit_once(':').unwrap().1);
    upgrade(&["--set", &next("image", &operator), "--set", &next("brokerImage", &broker)]);
    let labels = "app.kubernetes.io/name=weir-operator";
    let running = [
        "-n",
        OPERATOR_NAMESPACE,
        "get",
        "pods",
        "-l",
        labels,
        "-o",
        "jsonpath={.items[*].spec.containers[0].image}",
    ];
    eventually("the new version alone runs", || {
        let images = kubectl(&running)?;
        Ok((images.split_whitespace().all(|image| image == format!("{operator}-next"))
            && !images.is_empty())
        .then_some(()))
    });
    // The new operator leads and carries out requests. The brokers are unchanged.
    namespace.apply(&topic("upgraded", "k", 1, 3, "")).unwrap();
    namespace.ready("topic/upgraded");
    load.whole();
    load.moves();
    assert_eq!(pods(namespace), before, "an upgrade of the operator is none of the brokers'");
    assert_eq!(namespace.object("kafkacluster/k").unwrap().unwrap()["status"]["image"], broker);
    // New clusters get the new image.
    namespace.apply(&kafka_cluster("young", 1, "")).unwrap();
    namespace.ready("kafkacluster/young");
    assert_eq!(
        namespace.object("kafkacluster/young").unwrap().unwrap()["status"]["image"],
        format!("{broker}-next")
    );
    helm(&["rollback", "weir", "--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", "180s"])
        .unwrap();
    load.moves();
    assert_eq!(pods(namespace), before);

    uninstall(OPERATOR_NAMESPACE);
    load.moves();
    assert_eq!(pods(namespace), before);
    assert!(namespace.object("kafkacluster/k").unwrap().is_some());
    assert!(namespace.object("topic/load").unwrap().is_some());

    // The operator moves to another namespace. Running brokers find it, and meanwhile none is
    // fenced.
    let elsewhere = Namespace::create("elsewhere").unwrap();
    let _back = Back(&elsewhere.name);
    install(&elsewhere.name, &["--take-ownership"]);
    eventually("every broker finds it", || {
        let k = namespace.object("kafkacluster/k")?.unwrap();
        assert_eq!(k["status"]["partitions"]["offline"], 0, "a broker was fenced though it serves");
        let mut connected = (0..3).map(|broker| broker_metrics(namespace, &format!("k-{broker}")));
        Ok(connected
            .all(|text| {
                text.is_ok_and(|text| text.contains("\nweir_broker_controller_connected 1\n"))
            })
            .then_some(()))
    });
    namespace.apply(&topic("after", "k", 1, 3, "")).unwrap();
    namespace.ready("topic/after");
    namespace.whole("k");
    load.moves();
    assert_eq!(pods(namespace), before);
    load.finish();
}

/// Moves the operator back from this namespace on drop.
struct Back<'a>(&'a str);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        uninstall(self.0);
        upgrade(&["--take-ownership"]);
    }
}

/// The metrics of a pod.
fn metrics_of(namespace: &str, pod: &str, port: u16) -> anyhow::Result<String> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/metrics");
    kubectl(&["get", "--raw", &path])
}

fn broker_metrics(namespace: &Namespace, pod: &str) -> anyhow::Result<String> {
    metrics_of(&namespace.name, pod, 9100)
}

#[test]
fn rights_that_are_taken_away_stop_no_client_and_come_back() {
    let namespace = Namespace::create("rights").unwrap();
    let bootstrap = namespace.kafka("k", 1, "").unwrap();
    namespace.apply(&topic("load", "k", 1, 1, "")).unwrap();
    namespace.ready("topic/load");
    let _ = namespace.leader(&bootstrap, "load", 0);
    let writer = Writer::start(Client::Librdkafka, &bootstrap, "load", 0);
    writer.moves();
    let before = pods(&namespace);
    let name = format!("weir-operator-{OPERATOR_NAMESPACE}");

    // Without one permission, the status names it.
    let mut role: Value =
        serde_json::from_str(&kubectl(&["get", "clusterrole", &name, "-o", "json"]).unwrap())
            .unwrap();
    for rule in role["rules"].as_array_mut().unwrap() {
        rule["resources"].as_array_mut().unwrap().retain(|resource| resource != "statefulsets");
    }
    role["rules"].as_array_mut().unwrap().retain(|rule| rule["resources"] != json!([]));
    let _reinstalled = Reinstalled;
    run("kubectl", &["replace", "-f", "-"], &role.to_string()).unwrap();
    namespace.patch("kafkacluster/k", r#"{"spec": {"brokers": {"replicas": 2}}}"#).unwrap();
    let said = namespace.awaits("kafkacluster/k", "UpToDate", "False");
    assert!(
        said.message.contains("statefulsets") && said.message.contains("forbidden"),
        "{said:?}"
    );
    namespace.warned("kafkacluster/k", "forbidden");

    // Without all permissions, no status can say so.
    kubectl(&["delete", "clusterrolebinding", &name]).unwrap();
    writer.moves();
    assert_eq!(pods(&namespace), before);
    upgrade(&[]);
    namespace.ready("kafkacluster/k");
    eventually("the second broker is there", || Ok((pods(&namespace).len() == 2).then_some(())));
    assert_eq!(operator_restarts().unwrap(), 0);
    let mut driver = Driver::start(Client::Java, &bootstrap).unwrap();
    writer.finish_and_check(&mut driver);
}

#[test]
fn an_operator_of_one_namespace_needs_no_right_beyond_it() {
    let _reinstalled = Reinstalled;
    uninstall(OPERATOR_NAMESPACE);
    let namespace = Namespace::create("alone").unwrap();
    // The first release owns the CRDs.
    let own = [
        "--set-json",
        "watch.namespaces=[]",
        "--set",
        "crds.install=false,rbac.clusterReader=false,replicaCount=1",
    ];
    install(&namespace.name, &own);
    // Without the permission to read nodes, the operator knows no node address.
    namespace.apply(&kafka_cluster("k", 1, "")).unwrap();
    namespace.ready("kafkacluster/k");
    let said = namespace.awaits("kafkacluster/k", "ListenersReady", "False");
    assert!(said.message.contains("rbac.clusterReader"), "{said:?}");
    let path = "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}";
    let node = kubectl(&["get", "nodes", "-o", path]).unwrap();
    let listeners = json!([{"name": "plain", "port": 9092}, {"name": "external", "port": 9094, "type": "NodePort", "host": node}]);
    namespace
        .patch("kafkacluster/k", &json!({"spec": {"listeners": listeners}}).to_string())
        .unwrap();
    let _ = namespace.awaits("kafkacluster/k", "ListenersReady", "True");
    let bootstrap = namespace.bootstrap("k");
    namespace.apply(&topic("t", "k", 1, 1, "")).unwrap();
    namespace.ready("topic/t");
    let _ = namespace.leader(&bootstrap, "t", 0);
    kcat(&bootstrap, &["-P", "-t", "t"], b"record\n").unwrap().success().unwrap();
    let consume = ["-G", "g", "-e", "-q", "-X", "auto.offset.reset=earliest", "t"];
    assert_eq!(kcat(&bootstrap, &consume, b"").unwrap().success().unwrap(), "record\n");
    namespace
        .apply("apiVersion: weir.dev/v1alpha1\nkind: ConsumerGroup\nmetadata: {name: g}\nspec: {clusterRef: {name: k}, topics: [t]}\n")
        .unwrap();
    namespace.ready("consumergroup/g");
    let log = namespace.kubectl(&["logs", "deployment/weir-operator"]).unwrap();
    let refused = log.lines().find(|line| line.contains("forbidden") && !line.contains("nodes"));
    assert_eq!(refused, None);
    uninstall(&namespace.name);
    eventually("its Lease goes with it", || {
        Ok(namespace.object("lease/weir-operator")?.is_none().then_some(()))
    });
}

/// The documents of install.yaml that an uninstall may delete: no CRDs and no namespaces.
fn removable(yaml: &str) -> String {
    let stays = |document: &&str| {
        !document.contains("kind: CustomResourceDefinition")
            && !document.contains("kind: Namespace\n")
    };
    yaml.split("\n---\n").filter(stays).collect::<Vec<_>>().join("\n---\n")
}

#[test]
fn install_yaml_installs() {
    let _reinstalled = Reinstalled;
    uninstall(OPERATOR_NAMESPACE);
    let namespace = Namespace::create("plain").unwrap();
    let yaml = std::fs::read_to_string(weir_e2e::workspace().join("charts/install.yaml")).unwrap();
    let [operator, broker] = images();
    let version = env!("CARGO_PKG_VERSION");
    let yaml = yaml
        .replace(&format!("weir-operator:{version}"), &operator)
        .replace(&format!("weir-broker:{version}"), &broker);
    assert!(yaml.contains(&operator) && yaml.contains(&broker));
    run("kubectl", &["apply", "--server-side", "--force-conflicts", "-f", "-"], &yaml).unwrap();
    namespace.kafka("k", 1, "").unwrap();
    namespace.kubectl(&["delete", "kafkacluster", "k", "--timeout=120s"]).unwrap();
    run("kubectl", &["delete", "--wait", "-f", "-"], &removable(&yaml)).unwrap();
}

#[test]
fn an_upgrade_of_the_chart_upgrades_the_definitions() {
    let _reinstalled = Reinstalled;
    let mut crd: Value =
        serde_json::from_str(&kubectl(&["get", "crd", "topics.weir.dev", "-o", "json"]).unwrap())
            .unwrap();
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let fields = crd.pointer_mut(field).unwrap().as_object_mut().unwrap();
    assert!(fields.remove("deletionPolicy").is_some());
    run("kubectl", &["replace", "-f", "-"], &crd.to_string()).unwrap();
    upgrade(&[]);
    let crd: Value =
        serde_json::from_str(&kubectl(&["get", "crd", "topics.weir.dev", "-o", "json"]).unwrap())
            .unwrap();
    assert!(crd.pointer(field).unwrap()["deletionPolicy"].is_object());
}

#[test]
fn what_the_chart_leaves_is_what_its_notes_say() {
    // The CRDs are kept, so that an uninstall deletes no cluster.
    for crd in ["kafkaclusters", "topics", "consumergroups", "partitiontables"] {
        let crd = format!("{crd}.weir.dev");
        let policy = [
            "get",
            "crd",
            &crd,
            "-o",
            "jsonpath={.metadata.annotations.helm\\.sh/resource-policy}",
        ];
        assert_eq!(kubectl(&policy).unwrap(), "keep", "{crd}");
    }
    let notes = helm(&["get", "notes", "weir", "--namespace", OPERATOR_NAMESPACE]).unwrap();
    assert!(notes.contains("kubectl apply") && notes.contains("helm test weir"), "{notes}");
}
