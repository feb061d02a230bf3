//! Kafka's settings as schema: a table row per setting, from which a schema is made and against which values are read.
//!
//! [`crate::TopicConfig`] and [`crate::ClusterConfig`] are maps of Kafka's names to Kafka's text forms; their tables say what may be in
//! them. Kafka's users write numbers both bare and quoted, so a number is an integer or a string (`x-kubernetes-int-or-string`). A boolean is a boolean.

use schemars::Schema;
use serde_json::{Map, Value, json};

/// A setting that a resource may carry.
#[derive(Debug)]
pub struct Setting {
    /// Kafka's name of it.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What holds where it is not set, in Kafka's text form; empty where another setting or nothing decides.
    pub default: &'static str,
    /// What it does, for `kubectl explain`.
    pub doc: &'static str,
    /// The setting of topics that this is the default of.
    pub of_topics: Option<&'static str>,
}

/// The values of a setting.
#[derive(Debug)]
pub enum Kind {
    /// A whole number in these bounds, both included.
    Integer(i64, i64),
    /// `true` or `false`.
    Boolean,
    /// A number from 0 to 1.
    Ratio,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Text of this regular expression.
    Text(&'static str),
}

/// Why a value is none of its setting's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct InvalidSetting {
    /// The setting.
    pub name: String,
    /// What is wrong, in a sentence.
    pub reason: String,
}

/// Beyond this a JSON number loses digits, so that the bound cannot be said in the schema's `minimum` and `maximum`.
const EXACT_MAX: i64 = 1 << 53;

/// A row of a table of settings.
pub(crate) const fn row(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Setting {
    Setting {
        name,
        kind,
        default,
        doc,
        of_topics: None,
    }
}

impl Setting {
    /// The value as Kafka's text, whether it was written as a number, a boolean or a string.
    ///
    /// # Errors
    /// When the value has the wrong type or lies outside of the setting's bounds.
    pub fn text_of(&self, value: &Value) -> Result<String, InvalidSetting> {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            _ => return Err(self.invalid("must be a single value")),
        };
        self.check(&text)?;
        Ok(text)
    }

    fn check(&self, text: &str) -> Result<(), InvalidSetting> {
        match self.kind {
            Kind::Integer(min, max) => match text.trim().parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(()),
                Ok(number) => Err(self.invalid(&format!("{number} is not between {min} and {max}"))),
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
            Kind::Choice(words) if words.contains(&text) => Ok(()),
            Kind::Choice(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                Err(self.invalid(&format!("{text:?} is none of {}", words.join(", "))))
            }
            // The pattern itself is checked where the schema is: no regular expressions are needed here.
            Kind::Text(_) => Ok(()),
        }
    }

    fn invalid(&self, reason: &str) -> InvalidSetting {
        InvalidSetting {
            name: self.name.to_owned(),
            reason: reason.to_owned(),
        }
    }

    /// The value as it is shown in a resource: a number as a number, a flag as a flag.
    fn value_of(&self, text: &str) -> Value {
        let parsed = match self.kind {
            Kind::Integer(..) => text.trim().parse::<i64>().ok().map(Value::from),
            Kind::Boolean => text.parse::<bool>().ok().map(Value::from),
            Kind::Ratio => text.parse::<f64>().ok().map(Value::from),
            Kind::Choice(_) | Kind::Text(_) => None,
        };
        parsed.unwrap_or_else(|| Value::from(text))
    }

    fn schema(&self) -> Value {
        let mut schema = match self.kind {
            Kind::Integer(min, max) => integer_schema(min, max),
            Kind::Boolean => json!({"type": "boolean"}),
            Kind::Ratio => json!({"type": "number", "minimum": 0.0, "maximum": 1.0}),
            Kind::Choice(words) => json!({"type": "string", "enum": words}),
            Kind::Text(pattern) => json!({"type": "string", "pattern": pattern, "maxLength": 4096}),
        };
        let mut description = self.doc.to_owned();
        if let Some(topic) = self.of_topics {
            description += &format!(" It holds for topics that do not set {topic}.");
        }
        if !self.default.is_empty() {
            description += &format!(" Default: {}.", self.default);
        }
        schema["description"] = Value::from(description);
        schema
    }
}

fn integer_schema(min: i64, max: i64) -> Value {
    let mut schema = json!({"x-kubernetes-int-or-string": true, "pattern": "^-?[0-9]{1,19}$", "maxLength": 20});
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
        schema["x-kubernetes-validations"] = json!([{"rule": bounds.join(" && "), "message": message}]);
    }
    if min >= -EXACT_MAX {
        schema["minimum"] = json!(min as f64);
    }
    if max <= EXACT_MAX {
        schema["maximum"] = json!(max as f64);
    }
    schema
}

/// The schema of a map of settings, with rules that look at more than one of them.
pub(crate) fn schema_of(settings: &[Setting], doc: &str, rules: &[(&str, &str)]) -> Schema {
    let properties: Map<String, Value> = settings.iter().map(|setting| (setting.name.to_owned(), setting.schema())).collect();
    let mut schema = json!({"type": "object", "description": doc, "properties": properties});
    if !rules.is_empty() {
        schema["x-kubernetes-validations"] = rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect();
    }
    Schema::try_from(schema).unwrap_or_default()
}

/// What the setting of this name does; nothing where there is none.
pub(crate) const fn doc_of(settings: &[Setting], name: &str) -> &'static str {
    let mut rows = settings;
    while let [setting, others @ ..] = rows {
        if is_same(setting.name.as_bytes(), name.as_bytes()) {
            return setting.doc;
        }
        rows = others;
    }
    ""
}

/// `==`, where constants are made.
const fn is_same(mut left: &[u8], mut right: &[u8]) -> bool {
    while let ([first, left_rest @ ..], [second, right_rest @ ..]) = (left, right) {
        if *first != *second {
            return false;
        }
        (left, right) = (left_rest, right_rest);
    }
    left.is_empty() && right.is_empty()
}

/// The setting of this name.
pub(crate) fn find(settings: &'static [Setting], name: &str) -> Result<&'static Setting, InvalidSetting> {
    settings.iter().find(|setting| setting.name == name).ok_or_else(|| InvalidSetting {
        name: name.to_owned(),
        reason: "there is no such setting".to_owned(),
    })
}

/// The values as a resource shows them.
pub(crate) fn values_of<'a>(
    settings: &'static [Setting],
    texts: impl Iterator<Item = (&'a String, &'a String)>,
) -> impl Iterator<Item = (&'a String, Value)> {
    texts.map(move |(name, text)| {
        let value = find(settings, name).map_or_else(|_| Value::from(text.as_str()), |setting| setting.value_of(text));
        (name, value)
    })
}

/// Declares a map of settings that is checked against its table when it is read, and is shown with the types of the table.
macro_rules! config {
    ($(#[$doc:meta])* $name:ident, $settings:expr, $rules:expr, $summary:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name(std::collections::BTreeMap<String, String>);

        impl $name {
            /// What may be set.
            pub const SETTINGS: &'static [crate::Setting] = $settings;

            /// A map of names and text forms, checked.
            ///
            /// # Errors
            /// When a name is unknown or a value is out of its bounds.
            pub fn from_texts(texts: std::collections::BTreeMap<String, String>) -> Result<Self, crate::InvalidSetting> {
                for (name, text) in &texts {
                    crate::setting::find(Self::SETTINGS, name)?.text_of(&serde_json::Value::from(text.as_str()))?;
                }
                Ok(Self(texts))
            }

            /// What is set: Kafka's names and text forms.
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
                serializer.collect_map(crate::setting::values_of(Self::SETTINGS, self.0.iter()))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let values = std::collections::BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
                let texts = values.into_iter().map(|(name, value)| {
                    let text = crate::setting::find(Self::SETTINGS, &name)?.text_of(&value)?;
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
                crate::setting::schema_of(Self::SETTINGS, $summary, $rules)
            }
        }
    };
}
pub(crate) use config;
