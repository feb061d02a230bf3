//! A configuration: its name, type, bounds and values.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// A row of a table of configurations.
pub(super) const fn row(
    name: &'static str,
    kind: ConfigType,
    default: Option<&'static str>,
    check: Check,
    scope: Scope,
    documentation: &'static str,
) -> ConfigKey {
    ConfigKey { name, kind, default, check, scope, of_topics: None, summary: documentation }
}

/// A row of a configuration that resources and clients set, and that always has a value.
pub(super) const fn dynamic(
    name: &'static str,
    kind: ConfigType,
    default: &'static str,
    check: Check,
    documentation: &'static str,
) -> ConfigKey {
    row(name, kind, Some(default), check, Scope::Dynamic, documentation)
}

/// The configurations that are set, by Kafka's names and in Kafka's text forms.
pub type Configs = BTreeMap<String, String>;

/// A value's type, with its code in DescribeConfigs (`DescribeConfigsResponse.ConfigType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigType {
    /// `true` or `false`, in any case.
    Boolean = 1,
    /// Text.
    String = 2,
    /// 32 bits, signed.
    Int = 3,
    /// 16 bits, signed.
    Short = 4,
    /// 64 bits, signed.
    Long = 5,
    /// A finite floating point number.
    Double = 6,
    /// Texts, separated by commas.
    List = 7,
    /// Text that is never shown, a secret.
    Password = 9,
}

/// Where a value comes from, with its code in DescribeConfigs
/// (`DescribeConfigsResponse.ConfigSource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic = 1,
    /// Set on this broker, while it runs.
    DynamicBroker = 2,
    /// Set for the whole cluster.
    DynamicDefaultBroker = 3,
    /// From the broker's command line.
    StaticBroker = 4,
    /// The default: it is set nowhere.
    Default = 5,
    /// Set on the subscription to client metrics.
    ClientMetrics = 7,
    /// Set on the group.
    Group = 8,
}

/// Where a broker configuration can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Only on the broker's command line, because it identifies the broker.
    Process,
    /// In the cluster's resource, but not by AlterConfigs. In Kafka it is set in
    /// `server.properties`.
    Cluster,
    /// In the cluster's resource and by AlterConfigs, for the whole cluster only. The controller
    /// uses the value too, and knows none of a single broker. If a broker used another value than
    /// the controller, it could acknowledge records that an election loses.
    ClusterWide,
    /// In the cluster's resource and by AlterConfigs, for the cluster or for one broker.
    Dynamic,
}

/// A condition on a value besides its type (`ConfigDef.Validator`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Any value of the type.
    Any,
    /// A number, this or more.
    AtLeast(i64),
    /// A number in this range, ends included.
    Between(i64, i64),
    /// One of these texts; of a list, every element.
    OneOf(&'static [&'static str]),
    /// gzip's levels, 1 to 9, or -1 for its default.
    GzipLevel,
    /// `*`, or `partition:broker` pairs.
    ThrottledReplicas,
    /// `earliest`, `latest`, or `by_duration:` and a duration of ISO 8601.
    ShareReset,
    /// Only `false`, because Weir lacks the feature; with Kafka's message for that case.
    Unavailable(&'static str),
}

/// One configuration.
#[derive(Clone, Copy, Debug)]
pub struct ConfigKey {
    /// Kafka's name for it.
    pub name: &'static str,
    /// The type of its values.
    pub kind: ConfigType,
    /// The value when nothing sets it; `None` stands for Kafka's null.
    pub default: Option<&'static str>,
    /// The condition on a value.
    pub check: Check,
    /// Where it can be set. Every topic configuration is [`Scope::Dynamic`].
    pub scope: Scope,
    /// The topic configuration whose default this one is. It has that configuration's type, bounds,
    /// default and documentation.
    pub of_topics: Option<&'static str>,
    /// What the configuration does, for [`Self::documentation`].
    pub(super) summary: &'static str,
}

/// A checked value. It displays in Kafka's text form (`ConfigDef.convertToString`).
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A value of [`ConfigType::Boolean`].
    Boolean(bool),
    /// A value of one of the three integer types.
    Integer(i64),
    /// A value of [`ConfigType::Double`].
    Double(f64),
    /// A value of [`ConfigType::String`] or [`ConfigType::Password`].
    Text(String),
    /// A value of [`ConfigType::List`], without duplicates.
    List(Vec<String>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            // `Debug` keeps the decimal point, as Java does: 2.0, not 2.
            Self::Double(value) => fmt::Debug::fmt(value, f),
            Self::Text(value) => value.fmt(f),
            Self::List(values) => values.join(",").fmt(f),
        }
    }
}

/// Why a configuration is refused, in Kafka's words. Unless a variant says otherwise, its error
/// code is INVALID_CONFIG.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No configuration has this name.
    #[error("Unknown {of} config name: {name}")]
    Unknown {
        /// `topic` or `broker`.
        of: &'static str,
        /// The name that was given.
        name: String,
    },
    /// The value does not have the type, or is out of bounds.
    #[error("Invalid value {value} for configuration {name}: {reason}")]
    Invalid {
        /// The configuration's name.
        name: &'static str,
        /// The value, cut to a readable length.
        value: String,
        /// The reason.
        reason: String,
    },
    /// Two values contradict each other.
    #[error("conflict topic config setting {low} ({low_value}) > {high} ({high_value})")]
    Conflict {
        /// The configuration that must have the smaller value.
        low: &'static str,
        /// Its value.
        low_value: i64,
        /// The configuration that must have the larger value.
        high: &'static str,
        /// Its value.
        high_value: i64,
    },
    /// The configuration exists, but cannot be set there.
    #[error("Cannot update these configs dynamically: [{name}]")]
    ReadOnly {
        /// The configuration's name.
        name: &'static str,
    },
    /// A value violates a relation to another configuration.
    #[error("{name} must be {relation} {other}")]
    Relation {
        /// The configuration's name.
        name: &'static str,
        /// The relation.
        relation: &'static str,
        /// The name of the other configuration.
        other: &'static str,
    },
    /// A request that Kafka refuses with INVALID_REQUEST.
    #[error("{0}")]
    Request(String),
    /// The pattern of a `match` of client metrics is invalid.
    #[error("Illegal client matching pattern: {0}")]
    Pattern(String),
    /// The configuration must be the same on all brokers, but was set for one.
    #[error(
        "Broker-level {name} cannot be altered: the controller goes by it, too, and it is the same for all brokers."
    )]
    SameForAll {
        /// The configuration's name.
        name: &'static str,
    },
}

pub(super) fn find(table: &'static [ConfigKey], name: &str) -> Option<&'static ConfigKey> {
    table.binary_search_by(|key| key.name.cmp(name)).ok().and_then(|index| table.get(index))
}

impl ConfigKey {
    /// Whether a single broker may have its own value.
    pub(super) fn may_differ(&self) -> bool {
        self.scope != Scope::ClusterWide
    }

    /// The documentation, in Markdown.
    pub fn documentation(&self) -> Cow<'static, str> {
        match self.of_topics {
            Some(topic) => Cow::Owned(format!(
                "{} It holds for topics that do not set `{topic}`.",
                self.summary
            )),
            None => Cow::Borrowed(self.summary),
        }
    }

    /// Whether responses hide its values.
    pub fn is_sensitive(&self) -> bool {
        self.kind == ConfigType::Password
    }

    /// Parses and checks a value (`ConfigDef.parseType` and the validator).
    ///
    /// # Errors
    /// When the text does not have the type, or the value is out of bounds.
    pub fn parse(&self, text: &str) -> Result<Value, ConfigError> {
        let text = text.trim();
        let value = self.read(text).ok_or_else(|| self.invalid(text, self.type_expected()))?;
        match self.objection(&value) {
            None => Ok(value),
            Some((shown, reason)) => Err(self.invalid(&shown, reason)),
        }
    }

    fn read(&self, text: &str) -> Option<Value> {
        match self.kind {
            ConfigType::Boolean if text.eq_ignore_ascii_case("true") => Some(Value::Boolean(true)),
            ConfigType::Boolean if text.eq_ignore_ascii_case("false") => {
                Some(Value::Boolean(false))
            }
            ConfigType::Boolean => None,
            ConfigType::Short => {
                text.parse::<i16>().ok().map(|number| Value::Integer(number.into()))
            }
            ConfigType::Int => text.parse::<i32>().ok().map(|number| Value::Integer(number.into())),
            ConfigType::Long => text.parse().ok().map(Value::Integer),
            // Kafka accepts NaN. It compares false with every bound, so a topic with it would never
            // be compacted.
            ConfigType::Double => {
                text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Double)
            }
            ConfigType::String | ConfigType::Password => Some(Value::Text(text.to_owned())),
            ConfigType::List if text.is_empty() => Some(Value::List(Vec::new())),
            ConfigType::List => {
                let mut seen = HashSet::new();
                let parts = text.split(',').map(str::trim);
                Some(Value::List(
                    parts.filter(|part| seen.insert(*part)).map(str::to_owned).collect(),
                ))
            }
        }
    }

    fn type_expected(&self) -> String {
        match self.kind {
            ConfigType::Boolean => "Expected value to be either true or false".to_owned(),
            ConfigType::Short => "Not a number of type SHORT".to_owned(),
            ConfigType::Int => "Not a number of type INT".to_owned(),
            ConfigType::Long => "Not a number of type LONG".to_owned(),
            ConfigType::Double => "Not a number of type DOUBLE".to_owned(),
            ConfigType::String | ConfigType::List | ConfigType::Password => "Not a text".to_owned(),
        }
    }

    /// Why the check refuses `value`: the part of it that is wrong, and the reason.
    fn objection(&self, value: &Value) -> Option<(String, String)> {
        let wrong = |reason: String| Some((value.to_string(), reason));
        match (self.check, value) {
            (Check::AtLeast(least) | Check::Between(least, _), value) if value.is_below(least) => {
                wrong(format!("Value must be at least {least}"))
            }
            (Check::Between(_, most), value) if value.is_above(most) => {
                wrong(format!("Value must be no more than {most}"))
            }
            (Check::GzipLevel, Value::Integer(level)) if !matches!(level, -1 | 1..=9) => {
                wrong("Value must be between 1 and 9 or equal to -1".to_owned())
            }
            (Check::OneOf(allowed), Value::Text(text)) if !allowed.contains(&text.as_str()) => {
                wrong(one_of(allowed))
            }
            (Check::OneOf(allowed), Value::List(texts)) => texts
                .iter()
                .find(|text| !allowed.contains(&text.as_str()))
                .map(|text| (text.clone(), one_of(allowed))),
            (Check::ThrottledReplicas, Value::List(pairs))
                if !pairs
                    .iter()
                    .all(|pair| is_replica(pair) || (pair == "*" && pairs.len() == 1)) =>
            {
                let form = "[partitionId]:[brokerId],[partitionId]:[brokerId],...";
                wrong(format!(
                    "{} must be the literal '*' or a list of replicas in the following format: {form}",
                    self.name
                ))
            }
            (Check::Unavailable(why), Value::Boolean(true)) => wrong(why.to_owned()),
            (Check::ShareReset, Value::Text(text)) if !is_share_reset(text) => wrong(
                "the value must be earliest, latest or of the format by_duration:<PnDTnHnMn.nS>"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    fn invalid(&self, value: &str, reason: String) -> ConfigError {
        let value = if self.is_sensitive() { "[hidden]".to_owned() } else { shown(value) };
        ConfigError::Invalid { name: self.name, value, reason }
    }
}

impl Value {
    // The bounds of the tables are small enough to be exact as `f64`.
    fn is_below(&self, least: i64) -> bool {
        matches!(self, Self::Integer(value) if *value < least)
            || matches!(self, Self::Double(value) if *value < least as f64)
    }

    fn is_above(&self, most: i64) -> bool {
        matches!(self, Self::Integer(value) if *value > most)
            || matches!(self, Self::Double(value) if *value > most as f64)
    }
}

fn one_of(allowed: &[&str]) -> String {
    format!("String must be one of: {}", allowed.join(", "))
}

fn is_share_reset(text: &str) -> bool {
    let is_duration = |text: &str| {
        text.starts_with('P')
            && text.len() > 2
            && text.bytes().all(|byte| byte.is_ascii_digit() || b"PDTHMS.".contains(&byte))
    };
    matches!(text, "earliest" | "latest")
        || text.strip_prefix("by_duration:").is_some_and(is_duration)
}

fn is_replica(pair: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    pair.split_once(':').is_some_and(|(partition, broker)| number(partition) && number(broker))
}

/// Client input, cut for an error message.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 200;
    text.chars().take(SHOWN_CHARS_MAX).collect()
}
