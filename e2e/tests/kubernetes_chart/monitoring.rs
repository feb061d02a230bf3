//! The chart's monitoring: alerts, dashboards, and what brokers are measured by.

use std::path::PathBuf;

use serde_json::json;
use weir_e2e::kubernetes::{Namespace, OPERATOR_NAMESPACE, eventually, kubectl, run, state, topic};
use weir_e2e::tools::kcat;

use super::{broker_metrics, chart, metrics_of};

/// The metrics of the broker `k-0` and of all operators.
fn measured(namespace: &Namespace) -> anyhow::Result<String> {
    let (labels, names) =
        ("app.kubernetes.io/name=weir-operator", "jsonpath={.items[*].metadata.name}");
    let operators = kubectl(&["-n", OPERATOR_NAMESPACE, "get", "pods", "-l", labels, "-o", names])?;
    let mut all = broker_metrics(namespace, "k-0")?;
    for operator in operators.split_whitespace() {
        all += &metrics_of(OPERATOR_NAMESPACE, operator, 8080)?;
    }
    Ok(all)
}

#[test]
fn alerts_fire_when_they_should_and_not_before() {
    let built = state().join("bin/promtool");
    let program = if built.is_file() { built } else { PathBuf::from("promtool") };
    for tests in ["e2e/alerts.yaml", "e2e/kafka-names.yaml"] {
        let tests = weir_e2e::workspace().join(tests);
        run(&program.to_string_lossy(), &["test", "rules", &tests.to_string_lossy()], "").unwrap();
    }
}

/// Every metric in an alert or a dashboard must exist.
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
    let mut files = ["alerts.yaml", "kafka-names.yaml"].map(|file| folder.join(file)).to_vec();
    files.extend(std::fs::read_dir(folder.join("dashboards")).unwrap().map(|f| f.unwrap().path()));
    // Only the leading operator has metrics of clusters, and those of a group appear at its own
    // interval.
    eventually("everything that is named is measured", || {
        let measured = measured(&namespace)?;
        for file in &files {
            let text = std::fs::read_to_string(file)?;
            for (place, _) in text.match_indices("weir_") {
                let rest = text.get(place..).unwrap_or_default();
                let name: String =
                    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let selected = rest
                    .get(name.len()..)
                    .and_then(|rest| rest.strip_prefix('{'))
                    .and_then(|rest| rest.split_once('}'));
                let labels = selected.map_or("", |(labels, _)| labels);
                if !is_measured(&measured, &name, labels) {
                    eprintln!("{}: {name}{{{labels}}} is not measured", file.display());
                    return Ok(None);
                }
            }
        }
        Ok(Some(()))
    });
}

/// Whether a metric of exactly this name has all the labels of a selector.
fn is_measured(measured: &str, name: &str, selector: &str) -> bool {
    // Prometheus adds these labels itself.
    let its_own = ["namespace", "pod", "job", "instance"];
    let wanted =
        selector.split(',').filter_map(|label| label.split(['=', '!', '~']).next()).map(str::trim);
    let wanted: Vec<&str> =
        wanted.filter(|label| !label.is_empty() && !its_own.contains(label)).collect();
    measured.lines().any(|line| {
        let labels = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']));
        labels.is_some_and(|labels| {
            wanted.iter().all(|label| labels.contains(&format!("{label}=\"")))
        })
    })
}

/// A CRD that accepts any resource.
const POD_MONITORS: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: podmonitors.monitoring.coreos.com, annotations: {api-approved.kubernetes.io: none of Kubernetes' own}}
spec:
  group: monitoring.coreos.com
  names: {kind: PodMonitor, listKind: PodMonitorList, plural: podmonitors, singular: podmonitor}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
";

#[test]
fn brokers_are_monitored_where_that_kind_is_known() {
    let namespace = Namespace::create("monitored").unwrap();
    run("kubectl", &["apply", "-f", "-"], POD_MONITORS).unwrap();
    kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd/podmonitors.monitoring.coreos.com",
        "--timeout=60s",
    ])
    .unwrap();
    let made = namespace.kafka("k", 1, "").map(|_| namespace.object("podmonitor/k"));
    kubectl(&["delete", "crd", "podmonitors.monitoring.coreos.com"]).unwrap();
    let made = made.unwrap().unwrap().unwrap();
    let endpoint = &made["spec"]["podMetricsEndpoints"][0];
    assert_eq!((&endpoint["port"], &endpoint["interval"]), (&json!("http"), &json!("30s")));
}
