//! DescribeConfigs on the cluster of the fixtures.

use std::sync::Arc;

use clap::Parser;

use super::*;
use crate::api::fixtures::{assert_encodes, everyone, image, nobody, request};
use crate::config::Args;
use crate::memory::MemoryBounds;

fn configs(entries: &[(&str, &str)]) -> Arc<Configs> {
    Arc::new(
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    )
}

fn cluster() -> MetadataImage {
    let mut image = image();
    image.cluster_configs = configs(&[("log.retention.ms", "3"), ("num.partitions", "4")]);
    image.broker_configs.insert(BrokerId(0), configs(&[("log.retention.ms", "2")]));
    image
        .group_configs
        .insert("g".to_owned(), configs(&[("consumer.session.timeout.ms", "50000")]));
    image.client_metrics.insert("m".to_owned(), configs(&[("interval.ms", "1000")]));
    image
}

fn ask(
    authorizer: &Authorizer,
    kind: i8,
    name: &str,
    keys: Option<&[&str]>,
) -> DescribeConfigsResult {
    let flags =
        ["weir-broker", "--id", "0", "--cluster-id", "c", "--data", "/d", "--controller", "h:1"];
    let config = Config::new(
        Args::parse_from(flags),
        MemoryBounds::of(None),
        crate::files::FileBounds::of(1 << 20),
    )
    .unwrap();
    let (image, process) = (cluster(), process_configs(&config));
    let this = Described {
        image: &image,
        id: BrokerId(0),
        layers: Layers { process: Some(&process), ..image.layers(BrokerId(0)) },
    };
    let resource = DescribeConfigsResource {
        resource_type: kind,
        resource_name: name.to_owned(),
        configuration_keys: keys.map(|keys| keys.iter().map(ToString::to_string).collect()),
    };
    let body = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: true,
    };
    let mut response = DescribeConfigsResponse {
        results: this.describe(authorizer, &request(4), &body),
        ..Default::default()
    };
    (1..=4).for_each(|version| assert_encodes(&response, version));
    response.results.remove(0)
}

#[test]
fn every_configuration_of_a_topic_is_listed() {
    let result = ask(&everyone(), TOPIC_RESOURCE, "a", None);
    assert_eq!((result.error_code, result.configs.len()), (0, TOPIC.len()));
    assert!(result.configs.iter().all(|entry| entry.value.is_some()
        && !entry.read_only
        && entry.documentation.is_some()
        && entry.config_type > 0));
    assert_eq!(ask(&everyone(), TOPIC_RESOURCE, "a", Some(&[])).configs.len(), TOPIC.len());
    let result = ask(&everyone(), TOPIC_RESOURCE, "a", Some(&["retention.ms", "no.such"]));
    let entry = &result.configs[0];
    assert_eq!(
        (result.configs.len(), entry.value.as_deref(), entry.config_source),
        (1, Some("2"), 2)
    );
    let synonyms: Vec<_> =
        entry.synonyms.iter().map(|synonym| (synonym.name.as_str(), synonym.source)).collect();
    assert_eq!(
        synonyms,
        [("log.retention.ms", 2), ("log.retention.ms", 3), ("log.retention.hours", 5)]
    );
}

#[test]
fn a_broker_and_the_cluster() {
    let result = ask(&everyone(), BROKER_RESOURCE, "0", None);
    assert_eq!(result.configs.len(), BROKER.len());
    let find = |name: &str| result.configs.iter().find(|entry| entry.name == name).unwrap();
    assert_eq!(
        (
            find("log.dirs").value.as_deref(),
            find("log.dirs").config_source,
            find("log.dirs").read_only
        ),
        (Some("/d"), 4, true)
    );
    assert_eq!(
        (find("num.partitions").value.as_deref(), find("num.partitions").config_source),
        (Some("4"), 3)
    );
    assert!(!find("log.retention.ms").read_only);
    let cluster = ask(&everyone(), BROKER_RESOURCE, "", None);
    let names: Vec<_> = cluster
        .configs
        .iter()
        .map(|entry| (entry.name.as_str(), entry.value.as_deref(), entry.synonyms.len()))
        .collect();
    assert_eq!(names, [("log.retention.ms", Some("3"), 1), ("num.partitions", Some("4"), 1)]);
}

#[test]
fn what_cannot_be_described() {
    let rows = [
        (TOPIC_RESOURCE, "none", 3, None),
        (TOPIC_RESOURCE, "", 17, Some("Topic name is invalid: the empty string is not allowed")),
        (
            BROKER_RESOURCE,
            "7",
            42,
            Some("Unexpected broker id, expected 0 or empty string, but received 7"),
        ),
        (BROKER_RESOURCE, "x", 42, Some("Broker id must be an integer, but it is: x")),
        (8, "0", 42, Some("Unsupported resource type: 8")),
    ];
    for (kind, name, error, message) in rows {
        let result = ask(&everyone(), kind, name, None);
        assert_eq!(
            (result.error_code, result.error_message.as_deref(), result.configs.len()),
            (error, message, 0),
            "{kind} {name}"
        );
    }
    assert_eq!(
        ask(&nobody(), TOPIC_RESOURCE, "none", None).error_code,
        ErrorCode::TopicAuthorizationFailed.code()
    );
    assert_eq!(
        ask(&nobody(), BROKER_RESOURCE, "0", None).error_code,
        ErrorCode::ClusterAuthorizationFailed.code()
    );
}

#[test]
fn the_brokers_own_configuration() {
    let image = cluster();
    assert_eq!(number(&image, BrokerId(0), "num.partitions"), 4);
    assert_eq!(number(&image, BrokerId(0), "max.request.partition.size.limit"), 2000);
    assert!(flag(&image, BrokerId(0), "auto.create.topics.enable"));
}

#[test]
fn groups_and_subscriptions_to_metrics_are_described() {
    let session = ask(&everyone(), GROUP_RESOURCE, "g", Some(&["consumer.session.timeout.ms"]));
    let entry = &session.configs[0];
    assert_eq!(
        (entry.value.as_deref(), entry.config_source, entry.read_only),
        (Some("50000"), 8, false)
    );
    let synonyms: Vec<_> =
        entry.synonyms.iter().map(|synonym| (synonym.name.as_str(), synonym.source)).collect();
    assert_eq!(
        synonyms,
        [("consumer.session.timeout.ms", 8), ("group.consumer.session.timeout.ms", 5)]
    );
    let unset = ask(&everyone(), GROUP_RESOURCE, "nobody", None);
    assert_eq!((unset.error_code, unset.configs.len()), (0, GROUP.len()));
    assert!(unset.configs.iter().all(|entry| entry.config_source == 5 && entry.value.is_some()));
    let metrics = ask(&everyone(), CLIENT_METRICS_RESOURCE, "m", None);
    let sources: Vec<_> =
        metrics.configs.iter().map(|entry| (entry.name.as_str(), entry.config_source)).collect();
    assert_eq!(sources, [("interval.ms", 7), ("match", 5), ("metrics", 5)]);
    for kind in [GROUP_RESOURCE, CLIENT_METRICS_RESOURCE] {
        assert_eq!(ask(&everyone(), kind, "", None).error_code, 42);
    }
    assert_eq!(ask(&nobody(), GROUP_RESOURCE, "g", None).error_code, 30);
    assert_eq!(ask(&nobody(), CLIENT_METRICS_RESOURCE, "m", None).error_code, 31);
}
