//! Samples for patterns, and for fields whose keywords do not suffice.

use serde_json::{Value, json};

const LOG: &str = r"^([a-z][a-z0-9_]*(::[a-z0-9_]+)*=)?(off|error|warn|info|debug|trace)(,([a-z][a-z0-9_]*(::[a-z0-9_]+)*=)?(off|error|warn|info|debug|trace))*$";

/// Values that a pattern accepts and refuses. A pattern without samples fails the test.
pub(super) const SAMPLES: &[(&str, &[&str], &[&str])] = &[
    ("^-?[0-9]{1,19}$", &[], &["x"]),
    ("^.*$", &["x", ""], &[]),
    ("^[a-zA-Z0-9._-]+$", &["A_b.c-9"], &["a b", "a/b", ""]),
    ("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", &["n", "9-a"], &["N", "-a", "a-", "a.b", "a_b", ""]),
    ("^[a-z]([a-z0-9-]*[a-z0-9])?$", &["c", "a-9"], &["C", "9a", "a-", "a.b", ""]),
    ("^[a-z][a-z0-9]*(-[a-z0-9]+)*$", &["ext", "a-9"], &["Ext", "9", "a--b", "a-", ""]),
    ("^[A-Z][A-Za-z0-9]*$", &["Deployment"], &["deployment", "A b", ""]),
    ("^([a-z0-9.-]+/)?v[a-z0-9]+$", &["v1", "apps/v1"], &["apps", "apps/", "A/v1"]),
    ("^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", &["r-1.a_B"], &["-r", "r-", "a b", ""]),
    (
        r"^[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$",
        &["1", "1.5", "1e10", "1.7976931348623157e308"],
        &["x", ".5", "-1", ""],
    ),
    (
        "^(earliest|latest|by_duration:P[0-9DTHMS.]{2,64})$",
        &["earliest", "by_duration:PT1H"],
        &["first", "by_duration:1h", ""],
    ),
    (r"^(\*|([0-9]+:[0-9]+)?(,[0-9]+:[0-9]+)*)$", &["*", "0:1,1:2", ""], &["0", "0:x", "**"]),
    ("^[A-Za-z_][A-Za-z0-9_]*$", &["TZ", "_a9"], &["9", "a-b", "a b", "", "WEIR_DATA", "POD_NAME"]),
    (
        LOG,
        &["info", "warn,weir_broker::replica=debug"],
        &["verbose", "INFO", "info,", "=debug", ""],
    ),
    ("^(Exists|Equal)?$", &["Exists", "Equal", ""], &["exists", "In"]),
    (
        "^(NoSchedule|PreferNoSchedule|NoExecute)?$",
        &["NoSchedule", "PreferNoSchedule", "NoExecute", ""],
        &["noexecute", "Never"],
    ),
    (
        r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
        &["", "a", "A.b_c-9"],
        &["a b", "-a", "a.", "a/b", "ä"],
    ),
    (
        r"^(([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$",
        &["kafka", "example.com/kafka_9"],
        &["a b", "a/b/c", "/a", "a/", "A.b/c", "-a"],
    ),
    (
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        &["a", "9.a-b"],
        &["A", "a_b", "a.", "a..b", "-a", "a b", ""],
    ),
    (
        r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$",
        &["a", "9.a-b", ""],
        &["A", "a_b", "a.", "-a", "a b"],
    ),
];

/// Samples of fields whose keywords do not suffice, by the end of their path.
pub(super) fn samples_of(end: &str) -> Option<(Vec<Value>, Vec<Value>)> {
    let values = |texts: &[&str]| texts.iter().map(|text| json!(text)).collect::<Vec<_>>();
    let amounts =
        |text: &str| if text.is_empty() { vec![json!({})] } else { vec![json!({text: "1"})] };
    let (labels, no_labels) = (
        ["a", "A_9.b", "example.com/a"],
        ["", "a b", "-a", "a-", "a/", "/a", "a/b/c", "ä", "a_b/c"],
    );
    let keyed = |keys: &[&str]| keys.iter().map(|key| json!({*key: "v"})).collect::<Vec<_>>();
    Some(match end {
        "image" => (
            values(&[
                "weir",
                "weir:1",
                "localhost:5000/a/b_c:v1.0",
                "ghcr.io/a/b@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            ]),
            values(&[
                "",
                "a b c",
                "weir:",
                "Weir",
                "weir ",
                " weir",
                "/weir",
                "weir@sha256:1",
                "https://ghcr.io/weir",
                "a//b",
            ]),
        ),
        "storage.size" => (
            vec![
                json!("64Mi"),
                json!("10Gi"),
                json!("1.5Ti"),
                json!("1e10"),
                json!("5E9"),
                json!("+1G"),
                json!("100000000."),
                json!(67_108_864),
            ],
            vec![
                json!("0"),
                json!("500m"),
                json!("63Mi"),
                json!("-1Gi"),
                json!(""),
                json!("1 Gi"),
                json!("1gi"),
                json!("Gi"),
                json!(0),
                json!(67_108_863),
                json!(-1),
                json!(true),
                json!("1e"),
            ],
        ),
        "requestMemory" => (
            vec![json!("16Mi"), json!("768Mi"), json!(16_777_216)],
            vec![
                json!("769Mi"),
                json!("15Mi"),
                json!("1.1Ti"),
                json!("2Gi"),
                json!(16),
                json!("0"),
                json!(""),
                json!(true),
            ],
        ),
        "requests" | "limits" => (
            vec![
                json!({"cpu": "0.5", "memory": "1Gi", "ephemeral-storage": 1}),
                json!({"cpu": ".1"}),
                json!({"cpu": "1e-1"}),
                json!({"memory": "1e9"}),
                json!({"cpu": "100u"}),
                json!({"memory": "1.5Gi"}),
                json!({"memory": 0}),
                json!({"memory": "128Mi"}),
            ],
            [
                if end == "limits" {
                    vec![json!({"memory": "1Mi"}), json!({"memory": "127Mi"}), json!({"memory": 1})]
                } else {
                    vec![]
                },
                vec![
                    json!({"mem": "1Gi"}),
                    json!({"CPU": 1}),
                    json!({"a b/c": 1}),
                    json!({"cpu": "-1"}),
                    json!({"cpu": -1}),
                    json!({"memory": "1gb"}),
                    json!({"memory": true}),
                    json!({"cpu": 1.5}),
                ],
                vec![
                    json!({"example.com/gpu": "500m"}),
                    json!({"hugepages-": 1}),
                    json!({"gpu": 1}),
                ],
                amounts("/cpu"),
            ]
            .concat(),
        ),
        "resources" => (
            vec![
                json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "0.5"}}),
                json!({"requests": {"memory": "1Gi"}, "limits": {"memory": 1_073_741_824, "example.com/gpu": 2}}),
                json!({"requests": {"example.com/gpu": 2}, "limits": {"example.com/gpu": "2"}}),
                json!({"requests": {"cpu": 1, "hugepages-2Mi": "4Mi"}, "limits": {"cpu": 1, "hugepages-2Mi": "4Mi"}}),
            ],
            vec![
                json!({"requests": {"cpu": 2}, "limits": {"cpu": "1999m"}}),
                json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "1G"}}),
                json!({"requests": {"example.com/gpu": 1}}),
                json!({"requests": {"example.com/gpu": 1}, "limits": {"example.com/gpu": 2}}),
            ],
        ),
        "pod.labels" => {
            let taken = [
                "app.kubernetes.io/name",
                "app.kubernetes.io/instance",
                "weir.dev/cluster",
                "controller-revision-hash",
            ];
            (
                keyed(&labels),
                [keyed(&no_labels), keyed(&["A.b/c", &"a".repeat(64)]), keyed(&taken)].concat(),
            )
        }
        "metadata.labels" => (
            [keyed(&labels), vec![json!(null), json!({"a": null, "$patch": "replace"})]].concat(),
            keyed(&[
                "app.kubernetes.io/managed-by",
                "weir.dev/cluster",
                "controller-revision-hash",
            ]),
        ),
        "podTemplate.metadata" => {
            (vec![json!(null), json!({"anything": [1]})], vec![json!([]), json!("x")])
        }
        "pod.nodeSelector" | "matchLabels" => {
            (keyed(&labels), [keyed(&no_labels), keyed(&["A.b/c", &"a".repeat(64)])].concat())
        }
        "pod.annotations" | "pod.serviceAccountAnnotations" | "annotations" => (
            [keyed(&labels), keyed(&["Example.com/a"])].concat(),
            [keyed(&no_labels), keyed(&[&"a".repeat(64)])].concat(),
        ),
        "host" => (
            values(&[
                "localhost",
                "Kafka.example.com",
                "kafka-{broker}.example.com",
                "kafka-{broker}",
                "{broker}.example.com",
                "{broker}.{broker}a",
                &format!("{}.example.com", "a".repeat(63)),
                "192.0.2.1",
                "2001:db8::1",
            ]),
            values(&[
                "",
                "not a host",
                "a..b",
                "-a.b",
                "a-",
                "192.0.2.300",
                "1.2.3",
                "[2001:db8::1]",
                "a.b:9092",
                "a_b",
                "kafka-{id}.example.com",
                "http://a",
                "{broker}",
                "kafka.{broker}",
                "kafka.1-{broker}",
                "0x{broker}",
                "kafka.0xA{broker}",
                "0.0.0.0",
                "::",
                "0:0:0:0:0:0:0:0",
                &format!("{}.example.com", "a".repeat(64)),
            ]),
        ),
        "podTemplate" => (
            vec![
                json!({}),
                json!({"spec": {"affinity": {"anything": [1]}, "securityContext": {"runAsUser": null}}}),
            ],
            vec![json!([]), json!("x")],
        ),
        "brokers.config" => (
            vec![json!({"0": {}, "999": {"num.io.threads": 8}})],
            vec![
                json!({"1000": {"leader.replication.throttled.rate": 1}}),
                json!({"-1": {}}),
                json!({"00": {}}),
                json!({"x": {}}),
                json!({"": {}}),
            ],
        ),
        _ => return None,
    })
}
