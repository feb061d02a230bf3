//! Tests the tables for consistency, and values against the answers of Apache Kafka 4.4.

use proptest::prelude::*;

use super::layers::topics_with_broker_names;
use super::*;

fn configs(entries: &[(&str, &str)]) -> Configs {
    entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_tables_are_sorted_and_their_defaults_are_valid() {
    for table in [TOPIC, BROKER.as_slice(), GROUP, CLIENT_METRICS] {
        assert!(table.windows(2).all(|pair| pair[0].name < pair[1].name));
        for key in table {
            assert!(!key.documentation().is_empty());
            let Some(default) = key.default else { continue };
            // Kafka's default is -1 where the command line must set a value.
            if key.scope != Scope::Process {
                assert_eq!(key.parse(default).unwrap().to_string(), default, "{}", key.name);
            }
        }
    }
    assert_eq!(TOPIC.len(), 39);
}

#[test]
fn brokers_have_the_same_defaults_for_topics_as_topics() {
    let none = Configs::new();
    for (key, names) in topics_with_broker_names() {
        let value = Layers::default().topic_value(&none, key.name).unwrap();
        for (name, unit) in names {
            let broker = broker_key(name).unwrap_or_else(|| panic!("{name}"));
            if let Some(default) = broker.default {
                let in_topic_units = match unit {
                    1 => default.to_owned(),
                    unit => (default.parse::<i64>().unwrap() * unit).to_string(),
                };
                assert_eq!(in_topic_units, value, "{name}");
                if names.len() == 1 && *unit == 1 {
                    assert_eq!((broker.kind, broker.check), (key.kind, key.check), "{name}");
                }
            }
        }
    }
}

/// The expected results are those of `LogConfig.configDefCopy().parse` of Apache Kafka 4.4.0.
#[test]
fn values_are_taken_and_refused_in_kafkas_words() {
    let refused = [
        ("retention.ms", "-7", "Value must be at least -1"),
        ("retention.ms", "abc", "Not a number of type LONG"),
        ("retention.ms", "", "Not a number of type LONG"),
        ("segment.bytes", "12", "Value must be at least 1048576"),
        ("segment.bytes", "99999999999", "Not a number of type INT"),
        ("cleanup.policy", "x", "String must be one of: compact, delete"),
        ("cleanup.policy", "Compact", "String must be one of: compact, delete"),
        (
            "compression.type",
            "bad",
            "String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
        ),
        ("compression.gzip.level", "0", "Value must be between 1 and 9 or equal to -1"),
        ("compression.lz4.level", "99", "Value must be no more than 17"),
        ("min.cleanable.dirty.ratio", "x", "Not a number of type DOUBLE"),
        ("preallocate", "yes", "Expected value to be either true or false"),
        (
            "message.timestamp.type",
            "createtime",
            "String must be one of: CreateTime, LogAppendTime",
        ),
        ("max.decompressed.message.bytes", "0", "Value must be at least 1"),
        ("flush.mode", "always", "String must be one of: none, group"),
        ("record.validation", "none", "String must be one of: full, header"),
    ];
    for (name, text, reason) in refused {
        let error = validate_topic_entry(name, text).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("Invalid value {text} for configuration {name}: {reason}")
        );
    }
    let ratio = validate_topic_entry("min.cleanable.dirty.ratio", "2").unwrap_err();
    assert_eq!(
        ratio.to_string(),
        "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1"
    );
    let taken = [
        ("retention.ms", " 5 ", "5"),
        ("retention.bytes", "-99", "-99"),
        ("segment.bytes", "+2000000", "2000000"),
        ("cleanup.policy", "compact, delete", "compact,delete"),
        ("cleanup.policy", "compact,compact", "compact"),
        ("cleanup.policy", "", ""),
        ("preallocate", "TRUE", "true"),
        ("min.cleanable.dirty.ratio", "1e-1", "0.1"),
        ("leader.replication.throttled.replicas", "*", "*"),
        ("leader.replication.throttled.replicas", "0:1,1:2", "0:1,1:2"),
    ];
    for (name, text, value) in taken {
        assert_eq!(validate_topic_entry(name, text).unwrap().to_string(), value, "{name}={text}");
    }
    for (name, text) in [
        ("leader.replication.throttled.replicas", "x"),
        ("leader.replication.throttled.replicas", "*,0:1"),
        ("leader.replication.throttled.replicas", "0:-1"),
        ("min.cleanable.dirty.ratio", "NaN"),
        ("remote.storage.enable", "true"),
    ] {
        assert!(validate_topic_entry(name, text).is_err(), "{name}={text}");
    }
    assert_eq!(
        validate_topic_entry("no.such", "1").unwrap_err().to_string(),
        "Unknown topic config name: no.such"
    );
}

#[test]
fn a_topics_configurations_have_to_agree() {
    let wrong = configs(&[("min.compaction.lag.ms", "9"), ("max.compaction.lag.ms", "5")]);
    assert_eq!(
        validate_topic(&wrong, Layers::default()).unwrap_err().to_string(),
        "conflict topic config setting min.compaction.lag.ms (9) > max.compaction.lag.ms (5)"
    );
    let (low, cluster) = (
        configs(&[("min.compaction.lag.ms", "9")]),
        configs(&[("log.cleaner.max.compaction.lag.ms", "5")]),
    );
    assert!(validate_topic(&low, Layers { cluster: Some(&cluster), ..Layers::default() }).is_err());
    assert!(validate_topic(&low, Layers::default()).is_ok());
}

/// Every configuration at every door.
#[test]
fn each_door_takes_its_own() {
    let doors = [Door::Resource, Door::AllBrokers, Door::OneBroker];
    for key in BROKER.iter() {
        let text = key.default.unwrap_or("1");
        let taken = doors.map(|door| validate_broker_entry(key.name, text, door));
        let read_only = Err(ConfigError::ReadOnly { name: key.name });
        match key.scope {
            Scope::Process => {
                assert!(taken.iter().all(|taken| *taken == read_only), "{}", key.name)
            }
            Scope::Cluster => assert!(
                taken[0].is_ok() && taken[1] == read_only && taken[2] == read_only,
                "{}",
                key.name
            ),
            Scope::ClusterWide => {
                assert!(taken[0].is_ok() && taken[1].is_ok(), "{}", key.name);
                assert_eq!(taken[2], Err(ConfigError::SameForAll { name: key.name }));
            }
            Scope::Dynamic => assert!(taken.iter().all(Result::is_ok), "{}", key.name),
        }
    }
    let refused =
        |name| validate_broker_entry(name, "5", Door::AllBrokers).unwrap_err().to_string();
    assert_eq!(
        refused("log.retention.hours"),
        "Cannot update these configs dynamically: [log.retention.hours]"
    );
    assert_eq!(refused("x"), "Unknown broker config name: x");
}

/// A value that an older version or a person stored at a closed door is not in force. The test
/// covers every configuration that must be the same on all brokers.
#[test]
fn what_holds_for_all_is_not_one_brokers_to_say() {
    let mut seen = 0;
    for key in BROKER.iter() {
        let (mine, all) = (configs(&[(key.name, "7")]), configs(&[(key.name, "9")]));
        let layers = Layers { broker: Some(&mine), cluster: Some(&all), process: None };
        let of_broker = key.scope != Scope::ClusterWide;
        seen += usize::from(!of_broker);
        let (value, source) = if of_broker {
            ("7", ConfigSource::DynamicBroker)
        } else {
            ("9", ConfigSource::DynamicDefaultBroker)
        };
        assert_eq!(layers.broker_value(key.name).as_deref(), Some(value), "{}", key.name);
        assert_eq!(layers.describe_broker(key).source, source, "{}", key.name);
        for (topic, names) in topics_with_broker_names() {
            if names[0] == (key.name, 1) {
                let none = Configs::new();
                assert_eq!(
                    layers.topic_value(&none, topic.name).as_deref(),
                    Some(value),
                    "{}",
                    key.name
                );
                assert_eq!(layers.describe_topic(&none, topic).source, source, "{}", key.name);
            }
        }
    }
    assert_eq!(seen, 2);
}

#[test]
fn the_nearest_layer_prevails() {
    let topic = configs(&[("retention.ms", "1")]);
    let broker = configs(&[("log.retention.ms", "2")]);
    let cluster = configs(&[
        ("log.retention.ms", "3"),
        ("log.retention.minutes", "4"),
        ("log.roll.hours", "2"),
    ]);
    let none = Configs::new();
    let all = Layers { broker: Some(&broker), cluster: Some(&cluster), process: None };
    let cluster_only = Layers { broker: None, ..all };
    let key = topic_key("retention.ms").unwrap();
    let rows = [
        (all, &topic, "1", ConfigSource::Topic),
        (all, &none, "2", ConfigSource::DynamicBroker),
        (cluster_only, &none, "3", ConfigSource::DynamicDefaultBroker),
        (Layers::default(), &none, "604800000", ConfigSource::Default),
    ];
    for (layers, topic, value, source) in rows {
        let effective = layers.describe_topic(topic, key);
        assert_eq!((effective.value.as_deref(), effective.source), (Some(value), source));
        assert_eq!(effective.synonyms[0].source, source);
    }
    let names: Vec<_> = all
        .describe_topic(&topic, key)
        .synonyms
        .iter()
        .map(|synonym| (synonym.name, synonym.source as i8))
        .collect();
    let expected = [
        ("retention.ms", 1),
        ("log.retention.ms", 2),
        ("log.retention.ms", 3),
        ("log.retention.minutes", 3),
        ("log.retention.hours", 5),
    ];
    assert_eq!(names, expected);
    assert_eq!(all.resolve_topic(&none)("segment.ms").as_deref(), Some("7200000"));
    assert_eq!(all.resolve_topic(&none)("no.such"), None);
}

#[test]
fn a_brokers_value_has_siblings_in_other_units() {
    let cluster = configs(&[("log.retention.minutes", "-1"), ("num.partitions", "3")]);
    let layers = Layers { cluster: Some(&cluster), ..Layers::default() };
    assert_eq!(layers.topic_value(&Configs::new(), "retention.ms").as_deref(), Some("-1"));
    let ms = layers.describe_broker(broker_key("log.retention.ms").unwrap());
    assert_eq!((ms.value, ms.source), (None, ConfigSource::Default));
    assert_eq!(ms.synonyms[0].name, "log.retention.minutes");
    assert_eq!(layers.broker_value("num.partitions").as_deref(), Some("3"));
    assert_eq!(layers.broker_value("default.replication.factor").as_deref(), Some("1"));
    let partitions = layers.describe_broker(broker_key("num.partitions").unwrap());
    assert_eq!(
        partitions.synonyms.iter().map(|synonym| synonym.source).collect::<Vec<_>>(),
        [ConfigSource::DynamicDefaultBroker, ConfigSource::Default]
    );
}

/// The messages are those of `GroupConfig.validate` and `ClientMetricsConfigs.validate` of Apache
/// Kafka 4.3.1.
#[test]
fn groups_and_client_metrics_are_checked_in_kafkas_words() {
    let check = |entries: &[(&str, &str)]| {
        validate_group(&configs(entries), Layers::default()).map_err(|error| error.to_string())
    };
    let rows = [
        (
            "consumer.session.timeout.ms",
            "44999",
            "greater than or equal to group.consumer.min.session.timeout.ms",
        ),
        (
            "consumer.session.timeout.ms",
            "60001",
            "less than or equal to group.consumer.max.session.timeout.ms",
        ),
        (
            "consumer.heartbeat.interval.ms",
            "4999",
            "greater than or equal to group.consumer.min.heartbeat.interval.ms",
        ),
        (
            "consumer.heartbeat.interval.ms",
            "15001",
            "less than or equal to group.consumer.max.heartbeat.interval.ms",
        ),
        (
            "consumer.assignment.interval.ms",
            "15001",
            "less than or equal to group.consumer.max.assignment.interval.ms",
        ),
    ];
    for (name, value, relation) in rows {
        assert_eq!(check(&[(name, value)]), Err(format!("{name} must be {relation}")));
    }
    assert_eq!(
        check(&[
            ("consumer.session.timeout.ms", "50000"),
            ("share.auto.offset.reset", "by_duration:PT1H")
        ]),
        Ok(())
    );
    assert_eq!(check(&[("no.such", "1")]), Err("Unknown group config name: no.such".to_owned()));
    assert!(check(&[("share.auto.offset.reset", "by_duration:x")]).is_err());
    let low = configs(&[
        ("group.consumer.min.session.timeout.ms", "10"),
        ("group.consumer.min.heartbeat.interval.ms", "10"),
    ]);
    let layers = Layers { cluster: Some(&low), ..Layers::default() };
    let both =
        configs(&[("consumer.session.timeout.ms", "20"), ("consumer.heartbeat.interval.ms", "20")]);
    assert_eq!(
        validate_group(&both, layers).unwrap_err().to_string(),
        "consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms"
    );
    assert_eq!(layers.group_number(&both, "consumer.session.timeout.ms"), Some(20));
    assert_eq!(
        Layers::default().group_number(&both, "consumer.session.timeout.ms"),
        Some(45_000),
        "the bounds are others now"
    );
    let metrics = |name, text| {
        validate_client_metrics_entry(name, text)
            .map(|value| value.to_string())
            .map_err(|error| error.to_string())
    };
    assert_eq!(metrics("interval.ms", "100"), Ok("100".to_owned()));
    assert_eq!(
        metrics("match", "client_id=a, client_source_port=9"),
        Ok("client_id=a,client_source_port=9".to_owned())
    );
    let refused =
        "Invalid value 99 for interval.ms, interval must be between 100 and 3600000 (1 hour)";
    assert_eq!(metrics("interval.ms", "99"), Err(refused.to_owned()));
    assert_eq!(
        metrics("match", "shoe_size=44"),
        Err("Illegal client matching pattern: shoe_size=44".to_owned())
    );
    assert_eq!(metrics("x", "1"), Err("Unknown client metrics configuration: x".to_owned()));
}

proptest! {
    #[test]
    fn what_is_taken_reads_back_as_itself(index in 0..TOPIC.len(), text in ".{0,12}|-?[0-9]{1,20}|[0-9:,]{0,12}") {
        let key = &TOPIC[index];
        if let Ok(value) = key.parse(&text) {
            prop_assert_eq!(key.parse(&value.to_string()), Ok(value));
        }
    }
}

/// If parsing compared every pair of parts, this test would take an hour.
#[test]
fn a_list_is_read_part_by_part() {
    let pairs: Vec<String> = (0..500_000).map(|index| format!("{index}:0")).collect();
    let value = validate_topic_entry(
        "leader.replication.throttled.replicas",
        &format!("{0},{0}", pairs.join(",")),
    );
    assert!(value == Ok(Value::List(pairs)), "each once, in order");
}
