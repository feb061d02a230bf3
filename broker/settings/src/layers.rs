//! Resolves the value in force. The order is topic, broker, cluster, command line, default.
//!
//! The broker calls it for the log's configuration and for DescribeConfigs. It never checks a
//! value, because values are checked when they are set.

use std::borrow::Cow;

use super::broker::broker_names;
use super::{ConfigKey, ConfigSource, Configs, broker_key, group_key, topic_key};

/// The layers below the topic, nearest first. Each may be absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layers<'a> {
    /// The dynamic configuration of this broker.
    pub broker: Option<&'a Configs>,
    /// The dynamic configuration of the whole cluster.
    pub cluster: Option<&'a Configs>,
    /// This broker's command line.
    pub process: Option<&'a Configs>,
}

/// One of the possible sources of a value (`DescribeConfigsSynonym`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym<'a> {
    /// Its name there.
    pub name: &'static str,
    /// Its text there, in the unit of that name.
    pub value: Cow<'a, str>,
    /// The source.
    pub source: ConfigSource,
}

/// The value in force, and the values that it overrides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective<'a> {
    /// The value, in the unit of the requested name; `None` if it is not set and has no default.
    pub value: Option<Cow<'a, str>>,
    /// The source of the value.
    pub source: ConfigSource,
    /// Every source with a value, the one in force first and the default last.
    pub synonyms: Vec<Synonym<'a>>,
}

/// The broker's other names for `name`, in other units
/// (`DynamicBrokerConfig.brokerConfigSynonyms`).
fn sibling_names(name: &'static str) -> Vec<&'static str> {
    ["retention.ms", "segment.ms", "segment.jitter.ms", "flush.ms"]
        .iter()
        .map(|topic_name| broker_names(topic_name))
        .find(|names| names.iter().any(|(sibling, _)| *sibling == name))
        .map_or_else(|| vec![name], |names| names.iter().map(|(sibling, _)| *sibling).collect())
}

impl<'a> Layers<'a> {
    fn in_order(self) -> impl Iterator<Item = (ConfigSource, &'a Configs)> {
        [
            (ConfigSource::DynamicBroker, self.broker),
            (ConfigSource::DynamicDefaultBroker, self.cluster),
            (ConfigSource::StaticBroker, self.process),
        ]
        .into_iter()
        .filter_map(|(source, configs)| Some((source, configs?)))
    }

    /// The value in force of a topic configuration; `topic` is the topic's own layer. `None` for a
    /// name that is not in the table, or without a value and a default.
    pub fn topic_value(self, topic: &'a Configs, name: &str) -> Option<Cow<'a, str>> {
        if let Some(value) = topic.get(name) {
            return Some(Cow::Borrowed(value));
        }
        let names = broker_names(name);
        let set = self.in_order().find_map(|(source, configs)| {
            let (value, unit) = names
                .iter()
                .find_map(|(name, unit)| Some((set_in(source, configs, name)?, *unit)))?;
            Some(in_topic_units(value, unit))
        });
        set.or_else(|| topic_key(name)?.default.map(Cow::Borrowed))
    }

    /// A function from a name to [`Self::topic_value`], for a caller that parses all of a topic's
    /// values into its own type.
    pub fn resolve_topic(self, topic: &'a Configs) -> impl Fn(&str) -> Option<Cow<'a, str>> {
        move |name| self.topic_value(topic, name)
    }

    /// The value in force of a topic configuration, with its source
    /// (`ConfigHelper.createTopicConfigEntry`).
    pub fn describe_topic(self, topic: &'a Configs, key: &'static ConfigKey) -> Effective<'a> {
        let own = topic.get(key.name).map(|value| Synonym {
            name: key.name,
            value: Cow::Borrowed(value),
            source: ConfigSource::Topic,
        });
        let names: Vec<_> = broker_names(key.name).iter().map(|(name, _)| *name).collect();
        let synonyms: Vec<_> = own.into_iter().chain(self.synonyms(&names)).collect();
        let source = synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source);
        Effective { value: self.topic_value(topic, key.name), source, synonyms }
    }

    /// The value in force of a group configuration; `group` is the group's own layer.
    pub fn group_value(self, group: &'a Configs, name: &str) -> Option<Cow<'a, str>> {
        let set = group.get(name).map(|value| Cow::Borrowed(value.as_str()));
        let of_all = || self.broker_value(broker_key(&format!("group.{name}"))?.name);
        set.or_else(of_all).or_else(|| group_key(name)?.default.map(Cow::Borrowed))
    }

    /// The value in force of a group configuration, with its source
    /// (`ConfigHelper.createGroupConfigEntry`).
    pub fn describe_group(self, group: &'a Configs, key: &'static ConfigKey) -> Effective<'a> {
        let of_all = broker_key(&format!("group.{}", key.name)).map(|key| key.name);
        let of_all = self.synonyms(of_all.as_slice());
        let synonyms = set_on(group, key, ConfigSource::Group).chain(of_all).collect();
        effective(self.group_value(group, key.name), synonyms)
    }

    /// The value in force of a client metrics subscription's configuration, with its source.
    pub fn describe_client_metrics(
        subscription: &'a Configs,
        key: &'static ConfigKey,
    ) -> Effective<'a> {
        let set = subscription.get(key.name).map(std::string::String::as_str);
        let synonyms = set_on(subscription, key, ConfigSource::ClientMetrics).collect();
        effective(set.or(key.default).map(Cow::Borrowed), synonyms)
    }

    /// The value in force of a broker configuration, with its source
    /// (`ConfigHelper.createBrokerConfigEntry`).
    pub fn describe_broker(self, key: &'static ConfigKey) -> Effective<'a> {
        let own = self.synonyms(&[key.name]).into_iter().next();
        let synonyms = self.synonyms(&sibling_names(key.name));
        let source = own.as_ref().map_or(ConfigSource::Default, |synonym| synonym.source);
        Effective { value: own.map(|synonym| synonym.value), source, synonyms }
    }

    /// The value in force of a broker configuration. `None` for a name that is not in the table, or
    /// without a value and a default.
    pub fn broker_value(self, name: &str) -> Option<Cow<'a, str>> {
        let set = self.in_order().find_map(|(source, configs)| {
            set_in(source, configs, name).map(|value| Cow::Borrowed(value.as_str()))
        });
        set.or_else(|| broker_key(name)?.default.map(Cow::Borrowed))
    }

    /// The integer in force of a broker configuration with a default. A value that is not an
    /// integer counts as not set; no door accepts one.
    pub fn broker_number(self, name: &'static str) -> i64 {
        let default = broker_key(name).and_then(|key| key.default?.parse().ok());
        debug_assert!(default.is_some(), "{name} is no number with a default");
        let set = self.broker_value(name).and_then(|value| value.trim().parse().ok());
        set.or(default).unwrap_or_default()
    }

    /// The same for a configuration that is never negative; a negative number counts as 0.
    pub fn broker_size(self, name: &'static str) -> u64 {
        u64::try_from(self.broker_number(name)).unwrap_or(0)
    }

    /// The layers that set `names`, by layer and then in the order of `names`, and their defaults.
    fn synonyms(self, names: &[&'static str]) -> Vec<Synonym<'a>> {
        let set = self.in_order().flat_map(|(source, configs)| {
            names.iter().filter_map(move |name| {
                Some(Synonym {
                    name,
                    value: Cow::Borrowed(set_in(source, configs, name)?.as_str()),
                    source,
                })
            })
        });
        let defaults = names.iter().filter_map(|name| {
            let default = broker_key(name)?.default?;
            Some(Synonym { name, value: Cow::Borrowed(default), source: ConfigSource::Default })
        });
        set.chain(defaults).collect()
    }
}

fn set_on<'a>(
    configs: &'a Configs,
    key: &'static ConfigKey,
    source: ConfigSource,
) -> impl Iterator<Item = Synonym<'a>> {
    let set = configs.get(key.name).map(|value| Synonym {
        name: key.name,
        value: Cow::Borrowed(value.as_str()),
        source,
    });
    set.into_iter()
}

fn effective<'a>(value: Option<Cow<'a, str>>, synonyms: Vec<Synonym<'a>>) -> Effective<'a> {
    Effective {
        value,
        source: synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source),
        synonyms,
    }
}

/// A layer's value of a broker configuration. One that must be the same on all brokers is ignored
/// on a single broker, where an older version may have accepted it.
fn set_in<'a>(source: ConfigSource, configs: &'a Configs, name: &str) -> Option<&'a String> {
    let may_say = || {
        source != ConfigSource::DynamicBroker || broker_key(name).is_none_or(ConfigKey::may_differ)
    };
    configs.get(name).filter(|_| may_say())
}

#[cfg(test)]
/// Every topic configuration that also has a broker name.
pub(super) fn topics_with_broker_names()
-> impl Iterator<Item = (&'static ConfigKey, super::broker::BrokerNames)> {
    super::TOPIC
        .iter()
        .map(|key| (key, broker_names(key.name)))
        .filter(|(_, names)| !names.is_empty())
}

fn in_topic_units(value: &str, unit: i64) -> Cow<'_, str> {
    match value.trim().parse::<i64>() {
        // A negative time means "no limit" in every unit.
        Ok(number) if unit != 1 && number < 0 => Cow::Owned("-1".to_owned()),
        Ok(number) if unit != 1 => Cow::Owned(number.saturating_mul(unit).to_string()),
        _ => Cow::Borrowed(value),
    }
}
