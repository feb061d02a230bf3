//! The chart as an operator of clusters uses it: installed, tried, upgraded, taken away. The last suite, since it takes the operator away that the others need.
//!
//! Wants `e2e/up` and the `KUBECONFIG` that it prints; helm from `e2e/up` too.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;

use weir_e2e::driver::{Client, Driver};
use weir_e2e::kubernetes::{Namespace, OPERATOR_NAMESPACE, eventually, kubectl, run, topic};
use weir_e2e::load::Load;
use weir_e2e::tools::kcat;
use weir_e2e::writer::Writer;

/// Where `e2e/up` put its tools and the values for the images that it built.
fn state() -> PathBuf {
    std::env::var_os("WEIR_KUBERNETES").map_or_else(|| weir_e2e::workspace().join("target/e2e-kubernetes"), PathBuf::from)
}

fn chart() -> String {
    weir_e2e::workspace().join("charts/weir").to_string_lossy().into_owned()
}

fn helm(arguments: &[&str]) -> anyhow::Result<String> {
    let built = state().join("bin/helm");
    let program = if built.is_file() {
        built.to_string_lossy().into_owned()
    } else {
        "helm".to_owned()
    };
    run(&program, arguments, "")
}

fn upgrade(more: &[&str]) {
    let (chart, values) = (chart(), state().join("values.yaml"));
    let values = values.to_string_lossy();
    let mut arguments = vec![
        "upgrade",
        "--install",
        "weir",
        &chart,
        "--namespace",
        OPERATOR_NAMESPACE,
        "--create-namespace",
    ];
    arguments.extend(["--values", &values, "--wait", "--timeout", "180s"]);
    arguments.extend(more);
    helm(&arguments).unwrap();
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
        let mut arguments = vec!["template", "weir", &chart, "--kube-version", "1.34.0", "--namespace", "x"];
        arguments.extend(more);
        helm(&arguments)
    };
    let wrong = template(&["--set", "replicaCont=3"]).unwrap_err();
    assert!(format!("{wrong:#}").contains("replicaCont"), "{wrong:#}");
    let own = template(&[]).unwrap();
    let named = template(&["--set", "watch.namespaces={a,b}"]).unwrap();
    let every = template(&["--set", "watch.namespaces={*}"]).unwrap();
    let count = |text: &str, kind: &str| text.lines().filter(|l| l.trim_end() == format!("kind: {kind}")).count();
    // The lease's, and one for each namespace.
    assert_eq!((count(&own, "Role"), count(&named, "Role"), count(&every, "Role")), (2, 3, 1));
    let monitored = [
        "--api-versions",
        "monitoring.coreos.com/v1",
        "--set",
        "monitoring.podMonitor.enabled=true,monitoring.rules.enabled=true,monitoring.dashboards.enabled=true",
    ];
    let monitored = template(&monitored).unwrap();
    assert_eq!((count(&monitored, "PodMonitor"), count(&monitored, "PrometheusRule")), (1, 1));
    assert!(!every.contains("secrets"), "the operator has no business with Secrets");
}

#[test]
fn install_yaml_is_what_the_chart_renders() {
    let path = format!("{}:{}", state().join("bin").display(), std::env::var("PATH").unwrap());
    let render = weir_e2e::workspace().join("charts/render");
    let status = std::process::Command::new(render).arg("check").env("PATH", path).status().unwrap();
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
    let printed = helm(&["test", "weir", "--namespace", OPERATOR_NAMESPACE, "--logs", "--timeout", "180s"]).unwrap();
    assert!(printed.contains("100 records there and back"), "{printed}");
}

#[test]
fn an_upgrade_restarts_no_broker_and_an_uninstall_leaves_everything() {
    let load = Load::start("chart", &[Client::Java]);
    let namespace = &load.namespace;
    let before = pods(namespace);

    upgrade(&["--set", "podAnnotations.upgraded=yes"]);
    namespace.whole("k");
    load.moves();
    assert_eq!(pods(namespace), before, "an upgrade of the operator is none of the brokers'");
    helm(&["rollback", "weir", "--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", "180s"]).unwrap();
    load.moves();
    assert_eq!(pods(namespace), before);

    helm(&["uninstall", "weir", "--namespace", OPERATOR_NAMESPACE, "--wait"]).unwrap();
    load.moves();
    assert_eq!(pods(namespace), before);
    assert!(namespace.object("kafkacluster/k").unwrap().is_some());
    assert!(namespace.object("topic/load").unwrap().is_some());

    upgrade(&[]);
    namespace.whole("k");
    eventually("topics can be made again", || {
        namespace.apply(&topic("after", "k", 1, 3, ""))?;
        Ok(namespace.condition("topic/after", "Ready")?.filter(|c| c.status == "True"))
    });
    load.moves();
    assert_eq!(pods(namespace), before);
    load.finish();
}

/// What the broker `k-0` and all operators measure.
fn measured(namespace: &Namespace) -> anyhow::Result<String> {
    let metrics = |namespace: &str, pod: &str, port: u16| {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/metrics");
        kubectl(&["get", "--raw", &path])
    };
    let (labels, names) = ("app.kubernetes.io/name=weir-operator", "jsonpath={.items[*].metadata.name}");
    let operators = kubectl(&["-n", OPERATOR_NAMESPACE, "get", "pods", "-l", labels, "-o", names])?;
    let mut all = metrics(&namespace.name, "k-0", 9100)?;
    for operator in operators.split_whitespace() {
        all += &metrics(OPERATOR_NAMESPACE, operator, 8080)?;
    }
    Ok(all)
}

/// An alert or a graph of what nobody measures is worse than none.
#[test]
fn what_alerts_and_dashboards_name_is_measured() {
    let namespace = Namespace::create("metrics").unwrap();
    let bootstrap = namespace.kafka("k", 1, "").unwrap();
    namespace.apply(&topic("t", "k", 1, 1, "")).unwrap();
    namespace.ready("topic/t");
    kcat(&bootstrap, &["-P", "-t", "t"], b"record\n").unwrap().success().unwrap();
    let consume = ["-G", "g", "-e", "-q", "-X", "auto.offset.reset=earliest", "t"];
    kcat(&bootstrap, &consume, b"").unwrap().success().unwrap();
    namespace
        .apply("apiVersion: weir.dev/v1alpha1\nkind: ConsumerGroup\nmetadata: {name: g}\nspec: {clusterRef: {name: k}, topics: [t]}\n")
        .unwrap();
    namespace.ready("consumergroup/g");
    let folder = PathBuf::from(chart()).join("files");
    let mut files = vec![folder.join("alerts.yaml")];
    files.extend(std::fs::read_dir(folder.join("dashboards")).unwrap().map(|f| f.unwrap().path()));
    // Of several operators the one that leads measures the clusters, and a group as often as it looks.
    eventually("everything that is named is measured", || {
        let measured = measured(&namespace)?;
        for file in &files {
            let text = std::fs::read_to_string(file)?;
            for rest in text.split("weir_").skip(1) {
                let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                if !measured.contains(&format!("weir_{name}")) {
                    eprintln!("{}: weir_{name} is not measured", file.display());
                    return Ok(None);
                }
            }
        }
        Ok(Some(()))
    });
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
    let binding = format!("weir-operator-{OPERATOR_NAMESPACE}");
    kubectl(&["delete", "clusterrolebinding", &binding]).unwrap();
    namespace.patch("kafkacluster/k", r#"{"spec": {"brokers": {"replicas": 2}}}"#).unwrap();
    writer.moves();
    assert_eq!(pods(&namespace), before);
    upgrade(&[]);
    namespace.ready("kafkacluster/k");
    eventually("the second broker is there", || Ok((pods(&namespace).len() == 2).then_some(())));
    let mut driver = Driver::start(Client::Java, &bootstrap).unwrap();
    writer.finish_and_check(&mut driver);
}

#[test]
fn what_the_chart_leaves_is_what_its_notes_say() {
    // The definitions are kept, so that no cluster goes with an uninstall.
    for crd in ["kafkaclusters.weir.dev", "topics.weir.dev", "consumergroups.weir.dev"] {
        let policy = ["get", "crd", crd, "-o", "jsonpath={.metadata.annotations.helm\\.sh/resource-policy}"];
        assert_eq!(kubectl(&policy).unwrap(), "keep");
    }
}
