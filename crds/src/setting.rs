//! Kafka's settings as a schema, generated from the rows of `weir_settings`, and the check of
//! values against those rows.
//!
//! [`crate::TopicConfig`] and [`crate::ClusterConfig`] are maps of Kafka's names to Kafka's text
//! forms. Kafka's users write numbers both bare and quoted, so a number is an integer or a string
//! (`x-kubernetes-int-or-string`). A boolean is a boolean.

use schemars::Schema;
use serde_json::{Map, Value, json};
use weir_settings::{Check, ConfigKey, ConfigType};

/// A setting that a resource can have.
#[derive(Clone, Copy, Debug)]
pub struct Setting(&'static ConfigKey);

/// The values of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An integer within these bounds, both included.
    Integer(i64, i64),
    /// `true` or `false`.
    Boolean,
    /// A number from 0 to 1.
    Ratio,
    /// One of these words.
    Choice(Vec<String>),
    /// Text of this regular expression.
    Text(&'static str),
}

/// A number with a decimal point, an exponent, or neither.
const NUMBER: &str = r"^[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$";
const THROTTLED: &str = r"^(\*|([0-9]+:[0-9]+)?(,[0-9]+:[0-9]+)*)$";
const SHARE_RESET: &str = "^(earliest|latest|by_duration:P[0-9DTHMS.]{2,64})$";
const ANYTHING: &str = "^.*$";

/// Why a value is not valid for its setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct InvalidSetting {
    /// The setting.
    pub name: String,
    /// The reason, as a sentence.
    pub reason: String,
}

/// JSON numbers lose digits beyond this, so the schema's `minimum` and `maximum` cannot express
/// such a bound.
const EXACT_MAX: i64 = 1 << 53;

impl Setting {
    /// The setting of this row of a table.
    pub(crate) fn of(key: &'static ConfigKey) -> Self {
        Self(key)
    }

    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// The value when it is not set, in Kafka's text form; `None` if another setting or nothing
    /// decides.
    pub fn default(self) -> Option<&'static str> {
        self.0.default
    }

    /// The kind of its values.
    pub fn kind(self) -> Kind {
        let (low, high) = match self.0.check {
            Check::AtLeast(low) => (Some(low), None),
            Check::Between(low, high) => (Some(low), Some(high)),
            Check::GzipLevel => (Some(-1), Some(9)),
            _ => (None, None),
        };
        let integer = |min: i64, max: i64| Kind::Integer(low.unwrap_or(min), high.unwrap_or(max));
        match (self.0.kind, self.0.check) {
            (ConfigType::Boolean, _) => Kind::Boolean,
            (ConfigType::Short, _) => integer(i16::MIN.into(), i16::MAX.into()),
            (ConfigType::Int, _) => integer(i32::MIN.into(), i32::MAX.into()),
            (ConfigType::Long, _) => integer(i64::MIN, i64::MAX),
            (ConfigType::Double, Check::Between(0, 1)) => Kind::Ratio,
            (ConfigType::Double, _) => Kind::Text(NUMBER),
            (ConfigType::List, Check::OneOf(words)) => Kind::Choice(selections(words)),
            (_, Check::OneOf(words)) => {
                Kind::Choice(words.iter().map(|word| (*word).to_owned()).collect())
            }
            (_, Check::ThrottledReplicas) => Kind::Text(THROTTLED),
            (_, Check::ShareReset) => Kind::Text(SHARE_RESET),
            _ => Kind::Text(ANYTHING),
        }
    }

    /// The value in Kafka's text form, written as a number, a boolean or a string.
    ///
    /// # Errors
    /// When the value has the wrong type or is out of the setting's bounds.
    pub fn text_of(self, value: &Value) -> Result<String, InvalidSetting> {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            _ => return Err(self.invalid("must be a single value")),
        };
        self.check(&text)?;
        Ok(text)
    }

    fn check(self, text: &str) -> Result<(), InvalidSetting> {
        match self.kind() {
            Kind::Integer(min, max) => match text.trim().parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(()),
                Ok(number) => {
                    Err(self.invalid(&format!("{number} is not between {min} and {max}")))
                }
                Err(_) => Err(self.invalid(&format!("{text:?} is not a whole number"))),
            },
            Kind::Boolean => match text {
                "true" | "false" => Ok(()),
                _ => Err(self.invalid(&format!("{text:?} is neither true nor false"))),
            },
            Kind::Ratio => match text.parse::<f64>() {
                Ok(number) if (0.0..=1.0).contains(&number) => Ok(()),
                _ => Err(self.invalid(&format!("{text:?} is not a number from 0 to 1"))),
            },
            Kind::Choice(words) if words.iter().any(|word| word == text) => Ok(()),
            Kind::Choice(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                Err(self.invalid(&format!("{text:?} is none of {}", words.join(", "))))
            }
            // The schema checks the pattern, so this needs no regular expressions.
            Kind::Text(_) => Ok(()),
        }
    }

    fn invalid(self, reason: &str) -> InvalidSetting {
        InvalidSetting { name: self.0.name.to_owned(), reason: reason.to_owned() }
    }

    /// The value as a resource shows it: a number as a number, a boolean as a boolean.
    pub(crate) fn value_of(self, text: &str) -> Value {
        let parsed = match self.kind() {
            Kind::Integer(..) => text.trim().parse::<i64>().ok().map(Value::from),
            Kind::Boolean => text.parse::<bool>().ok().map(Value::from),
            Kind::Ratio => text.parse::<f64>().ok().map(Value::from),
            Kind::Choice(_) | Kind::Text(_) => None,
        };
        parsed.unwrap_or_else(|| Value::from(text))
    }

    fn schema(self) -> Value {
        let mut schema = match self.kind() {
            Kind::Integer(min, max) => integer_schema(min, max),
            Kind::Boolean => json!({"type": "boolean"}),
            Kind::Ratio => json!({"type": "number", "minimum": 0.0, "maximum": 1.0}),
            Kind::Choice(words) => json!({"type": "string", "enum": words}),
            Kind::Text(pattern) => json!({"type": "string", "pattern": pattern, "maxLength": 4096}),
        };
        // `kubectl explain` would show the backticks.
        let mut description = self.0.documentation().replace('`', "");
        if let Some(default) = self.default().filter(|default| !default.is_empty()) {
            description += &format!(" Default: {default}.");
        }
        schema["description"] = Value::from(description);
        schema
    }
}

fn integer_schema(min: i64, max: i64) -> Value {
    let mut schema =
        json!({"x-kubernetes-int-or-string": true, "pattern": "^-?[0-9]{1,19}$", "maxLength": 20});
    let mut bounds = Vec::new();
    if min > i64::MIN {
        bounds.push(format!("int(self) >= {min}"));
    }
    if max < i64::MAX {
        bounds.push(format!("int(self) <= {max}"));
    }
    if !bounds.is_empty() {
        let message = match (min > i64::MIN, max < i64::MAX) {
            (true, true) => format!("must be from {min} to {max}"),
            (true, false) => format!("must be {min} or more"),
            _ => format!("must be {max} or less"),
        };
        schema["x-kubernetes-validations"] =
            json!([{"rule": bounds.join(" && "), "message": message}]);
    }
    if min >= -EXACT_MAX {
        schema["minimum"] = json!(min as f64);
    }
    if max <= EXACT_MAX {
        schema["maximum"] = json!(max as f64);
    }
    schema
}

/// Every ordered selection of these words, as a list in Kafka's text form.
fn selections(words: &[&'static str]) -> Vec<String> {
    let mut all = vec![Vec::new()];
    let mut longest: Vec<Vec<&'static str>> = vec![Vec::new()];
    for _ in words {
        let longer = |chosen: &Vec<&'static str>| -> Vec<Vec<&'static str>> {
            let others = words.iter().filter(|word| !chosen.contains(word));
            others.map(|word| [chosen.as_slice(), &[*word]].concat()).collect()
        };
        longest = longest.iter().flat_map(longer).collect();
        all.extend(longest.iter().cloned());
    }
    all.iter().map(|chosen| chosen.join(",")).collect()
}

/// The schema of a map of settings, with rules over several of them.
pub(crate) fn schema_of(
    settings: impl Iterator<Item = Setting>,
    doc: &str,
    rules: &[(&str, &str)],
) -> Schema {
    let properties: Map<String, Value> =
        settings.map(|setting| (setting.name().to_owned(), setting.schema())).collect();
    let mut schema = json!({"type": "object", "description": doc, "properties": properties});
    if !rules.is_empty() {
        schema["x-kubernetes-validations"] =
            rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect();
    }
    Schema::try_from(schema).unwrap_or_default()
}

/// The setting of this name, if the table has it.
pub(crate) fn found(
    name: &str,
    key: Option<&'static ConfigKey>,
) -> Result<Setting, InvalidSetting> {
    key.map(Setting).ok_or_else(|| InvalidSetting {
        name: name.to_owned(),
        reason: "there is no such setting".to_owned(),
    })
}

/// Declares a map of settings. Deserialising checks it against its table, and its schema has the
/// types of the table. The arguments are all settings, and a function from a name to its setting.
macro_rules! config {
    ($(#[$doc:meta])* $name:ident, $settings:expr, $key:expr, $rules:expr, $summary:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name(std::collections::BTreeMap<String, String>);

        impl $name {
            /// The possible settings.
            pub fn settings() -> impl Iterator<Item = crate::Setting> {
                $settings.map(crate::Setting::of)
            }

            fn setting(name: &str) -> Result<crate::Setting, crate::InvalidSetting> {
                crate::setting::found(name, $key(name))
            }

            /// A checked map of names and text forms.
            ///
            /// # Errors
            /// When a name is unknown or a value is out of bounds.
            pub fn from_texts(texts: std::collections::BTreeMap<String, String>) -> Result<Self, crate::InvalidSetting> {
                for (name, text) in &texts {
                    Self::setting(name)?.text_of(&serde_json::Value::from(text.as_str()))?;
                }
                Ok(Self(texts))
            }

            /// The settings that are set, by Kafka's names and in Kafka's text forms.
            pub fn texts(&self) -> &std::collections::BTreeMap<String, String> {
                &self.0
            }

            /// Whether nothing is set.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|(name, text)| {
                    let value = Self::setting(name).map_or_else(|_| serde_json::Value::from(text.as_str()), |setting| setting.value_of(text));
                    (name, value)
                }))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let values = std::collections::BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
                let texts = values.into_iter().map(|(name, value)| {
                    let text = Self::setting(&name)?.text_of(&value)?;
                    Ok((name, text))
                });
                texts.collect::<Result<_, crate::InvalidSetting>>().map(Self).map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                crate::setting::schema_of(Self::settings(), $summary, $rules)
            }
        }
    };
}
pub(crate) use config;
