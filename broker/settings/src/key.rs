//! What a configuration is: its name, its type, its bounds and its values.

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

/// A row of a table of what is always set by resources and clients, and always has a value.
pub(super) const fn dynamic(
    name: &'static str,
    kind: ConfigType,
    default: &'static str,
    check: Check,
    documentation: &'static str,
) -> ConfigKey {
    row(name, kind, Some(default), check, Scope::Dynamic, documentation)
}

/// Configuration as it is set: Kafka's names and text forms.
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
    /// Text that is never shown.
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
    /// From this broker's command line.
    StaticBroker = 4,
    /// Nobody set it.
    Default = 5,
    /// Set on the subscription to client metrics.
    ClientMetrics = 7,
    /// Set on the group.
    Group = 8,
}

/// Who may set a configuration of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The broker's command line alone: it says who the broker is.
    Process,
    /// The cluster's resource, but no AlterConfigs, as in Kafka, where it would stand in
    /// `server.properties`.
    Cluster,
    /// The cluster's resource and AlterConfigs, for the cluster alone: the controller goes by it,
    /// and it knows of no broker's own. A broker that went by another value than the controller
    /// would acknowledge what an election may lose.
    ClusterWide,
    /// The cluster's resource and AlterConfigs, for the cluster or for one broker.
    Dynamic,
}

/// What a value has to satisfy besides its type (`ConfigDef.Validator`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Every value of the type will do.
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
    /// `false` alone, since the feature is not here; and Kafka's words for that.
    Unavailable(&'static str),
}

/// One configuration.
#[derive(Clone, Copy, Debug)]
pub struct ConfigKey {
    /// Kafka's name for it.
    pub name: &'static str,
    /// The type of its values.
    pub kind: ConfigType,
    /// What it is when nobody sets it; `None` stands for Kafka's null.
    pub default: Option<&'static str>,
    /// What a value has to satisfy.
    pub check: Check,
    /// Who may set it. On topics everything is [`Scope::Dynamic`].
    pub scope: Scope,
    /// The configuration of topics that this is the default of. It has that one's type, bounds,
    /// default and documentation.
    pub of_topics: Option<&'static str>,
    /// What it does, there.
    pub(super) summary: &'static str,
}

/// A value, checked. Displays in Kafka's text form (`ConfigDef.convertToString`).
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of [`ConfigType::Boolean`].
    Boolean(bool),
    /// Of the three integer types.
    Integer(i64),
    /// Of [`ConfigType::Double`].
    Double(f64),
    /// Of [`ConfigType::String`] and [`ConfigType::Password`].
    Text(String),
    /// Of [`ConfigType::List`], each element once.
    List(Vec<String>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            // Debug keeps the point, as Java does: 2.0 and not 2.
            Self::Double(value) => fmt::Debug::fmt(value, f),
            Self::Text(value) => value.fmt(f),
            Self::List(values) => values.join(",").fmt(f),
        }
    }
}

/// Why a configuration is refused, in Kafka's words. The wire's error is INVALID_CONFIG.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no such configuration.
    #[error("Unknown {of} config name: {name}")]
    Unknown {
        /// `topic` or `broker`.
        of: &'static str,
        /// The name that was given.
        name: String,
    },
    /// The value is not of the type, or out of its bounds.
    #[error("Invalid value {value} for configuration {name}: {reason}")]
    Invalid {
        /// The configuration's name.
        name: &'static str,
        /// What was given, cut to a length that a person reads.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two values contradict each other.
    #[error("conflict topic config setting {low} ({low_value}) > {high} ({high_value})")]
    Conflict {
        /// What has to be the smaller one.
        low: &'static str,
        /// Its value.
        low_value: i64,
        /// What has to be the larger one.
        high: &'static str,
        /// Its value.
        high_value: i64,
    },
    /// The configuration exists, but not for whoever wants to set it.
    #[error("Cannot update these configs dynamically: [{name}]")]
    ReadOnly {
        /// The configuration's name.
        name: &'static str,
    },
    /// A value has to keep a relation to another one.
    #[error("{name} must be {relation} {other}")]
    Relation {
        /// The configuration's name.
        name: &'static str,
        /// Which relation.
        relation: &'static str,
        /// The name of the other one.
        other: &'static str,
    },
    /// What Kafka takes for an invalid request: the wire's error is INVALID_REQUEST.
    #[error("{0}")]
    Request(String),
    /// A pattern by which clients are chosen makes no sense.
    #[error("Illegal client matching pattern: {0}")]
    Pattern(String),
    /// The configuration is that of all brokers, and one of them is to have another.
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
    /// Whether a broker may have a value of its own.
    pub(super) fn may_differ(&self) -> bool {
        self.scope != Scope::ClusterWide
    }

    /// What it does, in Markdown.
    pub fn documentation(&self) -> Cow<'static, str> {
        match self.of_topics {
            Some(topic) => Cow::Owned(format!(
                "{} It holds for topics that do not set `{topic}`.",
                self.summary
            )),
            None => Cow::Borrowed(self.summary),
        }
    }

    /// Whether its values are never shown.
    pub fn is_sensitive(&self) -> bool {
        self.kind == ConfigType::Password
    }

    /// Reads and checks a value (`ConfigDef.parseType` and the validator).
    ///
    /// # Errors
    /// When the text is not of the type, or out of bounds.
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
            // Kafka takes NaN, which then compares as no bound does: a topic that would never be
            // compacted.
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

    /// What the check has against `value`: the part of it that is wrong, and why.
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
    // The bounds of the tables are small enough to be exact as doubles.
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

/// What a client wrote, short enough for an error message.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 200;
    text.chars().take(SHOWN_CHARS_MAX).collect()
}
