//! Each field of each kind, with values that it accepts and values that it refuses:
//! `crds/fields.jsonl`, a line for each.
//!
//! The definitions generate the lines: bounds, enumerations and types by themselves, patterns and
//! names by the samples below. The generated lines must equal the file and agree with our own
//! validation. A test on Kubernetes asks the API server for the same. `WEIR_ACCEPT=1` writes the
//! file anew.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;

mod samples;

use samples::{SAMPLES, samples_of};

/// Longer samples are left out, so that people can read the file.
const SAMPLE_CHARS_MAX: i64 = 320;

/// The fields that must be present beside a sample, by the end of the object's path.
fn beside(path: &str) -> Value {
    match path {
        "env[]" => json!({"name": "A", "value": "b"}),
        "matchExpressions[]" => json!({"key": "k", "operator": "In", "values": ["v"]}),
        "listeners[]" => json!({"name": "ext", "port": 9094, "type": "NodePort"}),
        "clientAuthentication" => json!({"caSecret": {"name": "cas"}}),
        "tolerations[]" => json!({"key": "k", "effect": "NoExecute"}),
        "clusterRef" => json!({"name": "c"}),
        "spec" => json!({"clusterRef": {"name": "c"}}),
        "lagPolicy" => json!({"maxSeconds": 1}),
        "scaling" => json!({"targetRef": {"name": "w"}, "targetLagSeconds": 10}),
        "scaling.targetRef" => json!({"name": "w"}),
        "reset" => json!({"id": "r", "to": {"shift": 1}}),
        "offsets[]" => json!({"topic": "t", "partition": 0, "offset": 0}),
        _ => json!({}),
    }
}

/// The greatest valid number where a rule allows less than the field's own bound.
fn greatest(path: &str) -> Option<i64> {
    let with_brokers = [
        "default.replication.factor",
        "offsets.topic.replication.factor",
        "transaction.state.log.replication.factor",
        "transaction.state.log.min.isr",
    ];
    match path {
        _ if with_brokers.iter().any(|name| path.ends_with(&format!("[{name}]"))) => Some(1_000),
        "spec.config[min.insync.replicas]" => Some(1),
        // What fits beside the other bounds into the default memory limit.
        "spec.brokers.process.maxConnections" => Some(13_107),
        _ => None,
    }
}

/// A step from a field to one below it.
#[derive(Clone, Debug)]
enum Step {
    Field(String),
    Entry(String),
    Item,
}

/// A field: its path and its schema.
struct Field<'a> {
    steps: Vec<Step>,
    schema: &'a JSONSchemaProps,
}

impl Field<'_> {
    fn path(&self) -> String {
        path_of(&self.steps)
    }

    fn child(&self, step: Step) -> Vec<Step> {
        [self.steps.as_slice(), &[step]].concat()
    }

    /// A spec in which this field has the value.
    fn spec_with(&self, kind: &str, value: Value) -> Value {
        let mut built = value;
        for (index, step) in self.steps.iter().enumerate().rev() {
            let above = path_of(&self.steps[..index]);
            built = match step {
                Step::Item if above == "spec.listeners" => {
                    json!([{"name": "plain", "port": 9092}, built])
                }
                Step::Item => json!([built]),
                Step::Field(name) | Step::Entry(name) => {
                    let mut object = beside(tail(&above));
                    if above == "spec.listeners[]" && name == "sasl" {
                        object["tls"] = json!({});
                    }
                    if above == "spec" && kind == "KafkaCluster" {
                        object = json!({"brokers": {"replicas": 1000}});
                    }
                    if name != "shift" && above == "spec.reset.to" {
                        object = json!({});
                    }
                    if above.ends_with("allowedNamespaces") {
                        object = match name.as_str() {
                            "from" if built == "Selector" => json!({"selector": {}}),
                            "from" => json!({}),
                            _ => json!({"from": "Selector"}),
                        };
                    }
                    if above.ends_with("matchExpressions[]")
                        && name == "operator"
                        && ["Exists", "DoesNotExist"].iter().any(|one| built == *one)
                    {
                        object = json!({"key": "k"});
                    }
                    if above.ends_with("tolerations[]") {
                        match name.as_str() {
                            "value" | "tolerationSeconds" => object["operator"] = json!("Equal"),
                            "effect" => object = json!({"key": "k"}),
                            _ => {}
                        }
                    }
                    // The other fields of `brokers` stay.
                    match (object.get(name).filter(|_| name == "brokers").cloned(), built) {
                        (Some(Value::Object(mut there)), Value::Object(fields)) => {
                            there.extend(fields);
                            object[name] = Value::Object(there);
                        }
                        (_, built) => object[name] = built,
                    }
                    object
                }
            };
        }
        built
    }
}

fn path_of(steps: &[Step]) -> String {
    steps.iter().fold("spec".to_owned(), |path, step| match step {
        Step::Field(name) if name.contains('.') => format!("{path}[{name}]"),
        Step::Field(name) => format!("{path}.{name}"),
        Step::Entry(name) => format!("{path}[{name}]"),
        Step::Item => format!("{path}[]"),
    })
}

/// The longest known end of a path.
fn tail(path: &str) -> &str {
    let known = [
        "env[]",
        "matchExpressions[]",
        "listeners[]",
        "tolerations[]",
        "offsets[]",
        "scaling.targetRef",
        "lagPolicy",
        "scaling",
        "reset",
        "clusterRef",
        "clientAuthentication",
        "spec",
    ];
    known.into_iter().find(|end| path.ends_with(end)).unwrap_or(path)
}

fn fields<'a>(steps: Vec<Step>, schema: &'a JSONSchemaProps, found: &mut Vec<Field<'a>>) {
    let field = Field { steps, schema };
    // The settings of one broker are the same as those of all brokers.
    let goes_on = !field.path().starts_with("spec.brokers.config[");
    for (name, below) in schema.properties.iter().flatten().filter(|_| goes_on) {
        fields(field.child(Step::Field(name.clone())), below, found);
    }
    if let Some(each) = structure::values(schema) {
        let key = if field.path() == "spec.brokers.config" { "0" } else { "k" };
        let is_amount = each.x_kubernetes_int_or_string.unwrap_or(false);
        if !is_amount {
            fields(field.child(Step::Entry(key.to_owned())), each, found);
        }
    }
    if let Some(each) = structure::items(schema) {
        fields(field.child(Step::Item), each, found);
    }
    found.push(field);
}

/// Values that a field accepts, and values that it refuses.
fn samples(field: &Field<'_>) -> (Vec<Value>, Vec<Value>) {
    let (path, schema) = (field.path(), field.schema);
    let (mut takes, mut refuses) = (Vec::new(), Vec::new());
    let ends = [
        "image",
        "requestMemory",
        "storage.size",
        "requests",
        "limits",
        "resources",
        "pod.labels",
        "metadata.labels",
        "podTemplate.metadata",
        "pod.nodeSelector",
        "matchLabels",
        "pod.annotations",
        "pod.serviceAccountAnnotations",
        "annotations",
        "podTemplate",
        "host",
        "brokers.config",
    ];
    let by_name =
        ends.into_iter().find(|end| path.ends_with(&format!(".{end}"))).and_then(samples_of);
    let pattern = schema.pattern.as_deref();
    let by_pattern = pattern.filter(|_| by_name.is_none()).map(|pattern| {
        let row = SAMPLES.iter().find(|(known, ..)| *known == pattern);
        row.unwrap_or_else(|| panic!("{path}: no samples of {pattern}"))
    });
    let is_number = schema.x_kubernetes_int_or_string.unwrap_or(false)
        || schema.type_.as_deref() == Some("integer");
    if let Some((some, none)) = by_name {
        takes.extend(some);
        refuses.extend(none);
    } else if let Some(words) = &schema.enum_ {
        takes.extend(words.iter().map(|word| word.0.clone()));
        refuses.extend([json!("other"), json!(1)]);
    } else if is_number {
        let as_text = schema.x_kubernetes_int_or_string.unwrap_or(false);
        let bound = |bound: Option<f64>| bound.map(|bound| bound as i64);
        let (least, most) =
            (bound(schema.minimum), greatest(&path).or_else(|| bound(schema.maximum)));
        takes.push(json!(least.unwrap_or(1).min(most.unwrap_or(i64::MAX))));
        takes.extend(most.map(|most| json!(most)));
        takes.extend(as_text.then(|| json!(least.unwrap_or(1).to_string())));
        let outside = [least.map(|least| least - 1), bound(schema.maximum).map(|most| most + 1)];
        refuses.extend(outside.into_iter().flatten().map(|outside| json!(outside)));
        refuses.extend(
            outside
                .into_iter()
                .flatten()
                .next_back()
                .filter(|_| as_text)
                .map(|outside| json!(outside.to_string())),
        );
        refuses.push(json!(1.5));
        refuses.extend((!as_text).then(|| json!("1")));
    } else {
        match schema.type_.as_deref() {
            // There is no tiered storage.
            Some("boolean") if path.ends_with("[remote.storage.enable]") => {
                takes.push(json!(false));
                refuses.extend([json!(true), json!("false"), json!(0)]);
            }
            Some("boolean") => {
                takes.extend([json!(true), json!(false)]);
                refuses.extend([json!("true"), json!(1)]);
            }
            Some("number") => {
                takes.extend([json!(0), json!(0.5), json!(1)]);
                refuses.extend([json!(-0.1), json!(1.1), json!("x"), json!(true)]);
            }
            Some("string") if schema.format.as_deref() == Some("date-time") => {
                takes.extend([json!("2024-05-01T10:00:00Z"), json!("2024-05-01T10:00:00.5+02:00")]);
                refuses.extend([json!("yesterday"), json!("2024-05-01"), json!(1)]);
            }
            Some("string") => {
                takes.extend(by_pattern.is_none().then(|| json!("x")));
                refuses.extend([json!(1), json!(true)]);
                if let Some(most) = schema.max_length.filter(|most| *most < SAMPLE_CHARS_MAX) {
                    refuses.push(json!("a".repeat(usize::try_from(most).unwrap() + 1)));
                }
                refuses.extend((schema.min_length.unwrap_or(0) > 0).then(|| json!("")));
            }
            Some("array") => refuses.extend([json!({}), json!("x")]),
            Some("object") => {
                refuses.extend([json!([]), json!("x")]);
                refuses.extend(schema.properties.is_some().then(|| json!({"nosuchfield": 1})));
            }
            _ => panic!("{path}: no samples of this type"),
        }
    }
    if let Some((_, some, none)) = by_pattern {
        takes.extend(some.iter().map(|text| json!(text)));
        refuses.extend(none.iter().map(|text| json!(text)));
    }
    let mut said = BTreeSet::new();
    refuses.retain(|value| said.insert(value.to_string()));
    said.clear();
    takes.retain(|value| said.insert(value.to_string()));
    (takes, refuses)
}

/// All lines, for each kind, field and value.
fn lines() -> Vec<Value> {
    let mut lines = Vec::new();
    for kind in ["KafkaCluster", "Topic", "ConsumerGroup"] {
        let version = definition(kind).spec.versions.first().unwrap();
        let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        let mut found = Vec::new();
        fields(Vec::new(), &schema.properties.as_ref().unwrap()["spec"], &mut found);
        for field in found.iter().filter(|field| !field.steps.is_empty()) {
            let (takes, refuses) = samples(field);
            assert!(
                !refuses.is_empty() || field.schema.pattern.as_deref() == Some("^.*$"),
                "{}: nothing is refused",
                field.path()
            );
            let mut line = |value: Value, takes: bool| {
                lines
                    .push(json!({"kind": kind, "field": field.path(), "takes": takes, "value": value, "spec": field.spec_with(kind, value.clone())}));
            };
            takes.into_iter().for_each(|value| line(value, true));
            refuses.into_iter().for_each(|value| line(value, false));
        }
    }
    lines
}

#[test]
fn each_field_takes_what_it_should_and_refuses_what_it_should() {
    let lines = lines();
    let mut wrong = Vec::new();
    for line in &lines {
        let object = resource(line["kind"].as_str().unwrap(), "c", &line["spec"]);
        let errors = refusals(&object, None);
        if errors.is_empty() != line["takes"].as_bool().unwrap() {
            wrong.push(format!("{} {}: {errors:?}", line["field"], line["value"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), lines.len(), wrong.join("\n"));

    let shown = lines.iter().map(|line| {
        let brief = json!({"kind": line["kind"], "takes": line["takes"], "spec": line["spec"]});
        format!("{brief}\n")
    });
    let shown: String = shown.collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/fields.jsonl");
    if std::env::var_os("WEIR_ACCEPT").is_some() {
        std::fs::write(path, &shown).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        there == shown,
        "crds/fields.jsonl is not what the definitions say: run the test with WEIR_ACCEPT=1, and look at the difference"
    );
}
