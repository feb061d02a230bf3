//! Kafka's request schema, as far as a test needs it to build requests of any version.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use anyhow::{Context, Result};
use serde_json::Value;

/// A range of versions, which may be empty.
#[derive(Debug, Clone)]
pub struct Versions(Option<RangeInclusive<i16>>);

impl Versions {
    fn parse(text: &str) -> Self {
        let number = |text: &str| text.parse::<i16>().ok();
        Self(match (text.split_once('-'), text.strip_suffix('+')) {
            (_, Some(first)) => number(first).map(|first| first..=i16::MAX),
            (Some((first, last)), _) => {
                number(first).zip(number(last)).map(|(first, last)| first..=last)
            }
            _ => number(text).map(|only| only..=only),
        })
    }

    /// No version at all.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Whether the range contains a version.
    #[must_use]
    pub fn has(&self, version: i16) -> bool {
        self.0.as_ref().is_some_and(|range| range.contains(&version))
    }
}

/// One field of a message.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name in the schema.
    pub name: String,
    /// Its entity, such as `topicName`; empty if the schema has none.
    pub entity: String,
    /// Its type, such as `[]FetchTopic`.
    pub kind: String,
    /// The versions that carry it.
    pub versions: Versions,
    /// The versions in which it may be null.
    pub nullable: Versions,
    /// Its tag, if it is a tagged field.
    pub tag: Option<u32>,
    /// The fields of its type, if that is a struct.
    pub fields: Vec<Field>,
}

/// The schema of a request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its name in the schema.
    pub name: String,
    /// Its API's key.
    pub key: i16,
    /// The flexible versions.
    pub flexible: Versions,
    /// Its fields.
    pub fields: Vec<Field>,
}

/// All requests of the schema, by key.
///
/// # Errors
/// When a file is not valid.
pub fn requests() -> Result<BTreeMap<i16, Request>> {
    let folder = crate::workspace().join("broker/protocol/schema");
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let schema: Value = serde_json::from_str(&without_comments(&text))
            .with_context(|| format!("read {}", path.display()))?;
        if schema["type"] != "request" {
            continue;
        }
        let structs = schema["commonStructs"].as_array().cloned().unwrap_or_default();
        let request = Request {
            name: text_of(&schema["name"]),
            key: i16::try_from(schema["apiKey"].as_i64().context("no apiKey")?)?,
            flexible: Versions::parse(&text_of(&schema["flexibleVersions"])),
            fields: fields(&schema["fields"], &structs),
        };
        all.insert(request.key, request);
    }
    Ok(all)
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn without_comments(text: &str) -> String {
    let code = |line: &str| {
        let (mut quoted, mut before) = (false, ' ');
        for (at, c) in line.char_indices() {
            quoted ^= c == '"' && before != '\\';
            if c == '/' && before == '/' && !quoted {
                return line.get(..at - 1).unwrap_or_default().to_owned();
            }
            before = c;
        }
        line.to_owned()
    };
    text.lines().map(code).collect::<Vec<_>>().join("\n")
}

fn fields(schema: &Value, structs: &[Value]) -> Vec<Field> {
    let own = schema.as_array().map(Vec::as_slice).unwrap_or_default();
    own.iter().map(|field| self::field(field, structs)).collect()
}

fn field(schema: &Value, structs: &[Value]) -> Field {
    let kind = text_of(&schema["type"]);
    let named = structs.iter().find(|each| each["name"] == kind.trim_start_matches("[]"));
    let versions = if schema["versions"].is_string() {
        &schema["versions"]
    } else {
        &schema["taggedVersions"]
    };
    Field {
        name: text_of(&schema["name"]),
        entity: text_of(&schema["entityType"]),
        versions: Versions::parse(&text_of(versions)),
        nullable: Versions::parse(&text_of(&schema["nullableVersions"])),
        tag: schema["tag"].as_u64().and_then(|tag| u32::try_from(tag).ok()),
        fields: fields(named.map_or(&schema["fields"], |named| &named["fields"]), structs),
        kind,
    }
}
