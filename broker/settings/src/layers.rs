//! Which value is in force: topic, broker, cluster, command line, default, in this order.
//!
//! Called by the broker for the log's configuration and for DescribeConfigs. Never checks a value:
//! what is set has been checked before.

use std::borrow::Cow;

use super::broker::broker_names;
use super::{ConfigKey, ConfigSource, Configs, broker_key, group_key, topic_key};

/// What is set below the topic, nearest first. Each layer may be absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layers<'a> {
    /// Set on this broker while it runs.
    pub broker: Option<&'a Configs>,
    /// Set for the whole cluster.
    pub cluster: Option<&'a Configs>,
    /// What this broker's command line says.
    pub process: Option<&'a Configs>,
}

/// One of the places that a value could come from (`DescribeConfigsSynonym`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym<'a> {
    /// The name it has there.
    pub name: &'static str,
    /// Its text there, in the unit of that name.
    pub value: Cow<'a, str>,
    /// Which place it is.
    pub source: ConfigSource,
}

/// The value in force, and all that it prevailed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective<'a> {
    /// The value, in the unit of the name that was asked for; `None` where it is not set and has no
    /// default.
    pub value: Option<Cow<'a, str>>,
    /// Where it comes from.
    pub source: ConfigSource,
    /// Every place where something is set, the one that prevails first, the default last.
    pub synonyms: Vec<Synonym<'a>>,
}

/// The broker's names for the same thing as `name`, which differ in their unit
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

    /// The value in force of a topic's configuration, `topic` being what is set on the topic.
    /// `None` for a name that is not in the table, and for what is unset without a default.
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

    /// All values in force of a topic, for whoever parses them into a type of its own: a function
    /// from the name to [`Self::topic_value`].
    pub fn resolve_topic(self, topic: &'a Configs) -> impl Fn(&str) -> Option<Cow<'a, str>> {
        move |name| self.topic_value(topic, name)
    }

    /// The value in force of a topic's configuration with where it comes from
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

    /// The value in force of a group's configuration, `group` being what is set on the group.
    pub fn group_value(self, group: &'a Configs, name: &str) -> Option<Cow<'a, str>> {
        let set = group.get(name).map(|value| Cow::Borrowed(value.as_str()));
        let of_all = || self.broker_value(broker_key(&format!("group.{name}"))?.name);
        set.or_else(of_all).or_else(|| group_key(name)?.default.map(Cow::Borrowed))
    }

    /// The value in force of a group's configuration with where it comes from
    /// (`ConfigHelper.createGroupConfigEntry`).
    pub fn describe_group(self, group: &'a Configs, key: &'static ConfigKey) -> Effective<'a> {
        let of_all = broker_key(&format!("group.{}", key.name)).map(|key| key.name);
        let of_all = self.synonyms(of_all.as_slice());
        let synonyms = set_on(group, key, ConfigSource::Group).chain(of_all).collect();
        effective(self.group_value(group, key.name), synonyms)
    }

    /// The value in force of a subscription's configuration with where it comes from.
    pub fn describe_client_metrics(
        subscription: &'a Configs,
        key: &'static ConfigKey,
    ) -> Effective<'a> {
        let set = subscription.get(key.name).map(std::string::String::as_str);
        let synonyms = set_on(subscription, key, ConfigSource::ClientMetrics).collect();
        effective(set.or(key.default).map(Cow::Borrowed), synonyms)
    }

    /// The value in force of a configuration of the broker with where it comes from
    /// (`ConfigHelper.createBrokerConfigEntry`).
    pub fn describe_broker(self, key: &'static ConfigKey) -> Effective<'a> {
        let own = self.synonyms(&[key.name]).into_iter().next();
        let synonyms = self.synonyms(&sibling_names(key.name));
        let source = own.as_ref().map_or(ConfigSource::Default, |synonym| synonym.source);
        Effective { value: own.map(|synonym| synonym.value), source, synonyms }
    }

    /// The value in force of a configuration of the broker. `None` for a name that is not in the
    /// table, and for what is unset without a default.
    pub fn broker_value(self, name: &str) -> Option<Cow<'a, str>> {
        let set = self.in_order().find_map(|(source, configs)| {
            set_in(source, configs, name).map(|value| Cow::Borrowed(value.as_str()))
        });
        set.or_else(|| broker_key(name)?.default.map(Cow::Borrowed))
    }

    /// The whole number in force of a configuration of the broker that has a default. What is set
    /// and is no whole number, which no door lets in, counts as not set.
    pub fn broker_number(self, name: &'static str) -> i64 {
        let default = broker_key(name).and_then(|key| key.default?.parse().ok());
        debug_assert!(default.is_some(), "{name} is no number with a default");
        let set = self.broker_value(name).and_then(|value| value.trim().parse().ok());
        set.or(default).unwrap_or_default()
    }

    /// The same where a negative number makes no sense, and counts as 0.
    pub fn broker_size(self, name: &'static str) -> u64 {
        u64::try_from(self.broker_number(name)).unwrap_or(0)
    }

    /// Where `names` are set, by layer and then in their own order, and their defaults.
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

/// What a layer says of a configuration of brokers. What is the same for all brokers is not one
/// broker's to say, whoever let it in: an older version did.
fn set_in<'a>(source: ConfigSource, configs: &'a Configs, name: &str) -> Option<&'a String> {
    let may_say = || {
        source != ConfigSource::DynamicBroker || broker_key(name).is_none_or(ConfigKey::may_differ)
    };
    configs.get(name).filter(|_| may_say())
}

#[cfg(test)]
/// Every topic configuration that has a name on brokers as well.
pub(super) fn topics_with_broker_names()
-> impl Iterator<Item = (&'static ConfigKey, super::broker::BrokerNames)> {
    super::TOPIC
        .iter()
        .map(|key| (key, broker_names(key.name)))
        .filter(|(_, names)| !names.is_empty())
}

fn in_topic_units(value: &str, unit: i64) -> Cow<'_, str> {
    match value.trim().parse::<i64>() {
        // A negative time means "for ever", in every unit.
        Ok(number) if unit != 1 && number < 0 => Cow::Owned("-1".to_owned()),
        Ok(number) if unit != 1 => Cow::Owned(number.saturating_mul(unit).to_string()),
        _ => Cow::Borrowed(value),
    }
}
