//! Kafka's message definitions, as its own generator reads them
//! (`org.apache.kafka.message.MessageSpec`).
//!
//! The parser ignores the fields that the wire format does not need (`entityType`, `mapKey`,
//! `listeners`).

use std::fs;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// One file: a request, a response or a header.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Message {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) api_key: Option<i16>,
    pub(crate) valid_versions: Versions,
    #[serde(default)]
    pub(crate) latest_version_unstable: bool,
    pub(crate) flexible_versions: Versions,
    pub(crate) fields: Vec<Field>,
    /// Structs that several fields of the message share.
    #[serde(default)]
    pub(crate) common_structs: Vec<CommonStruct>,
}

#[derive(Deserialize)]
pub(crate) struct CommonStruct {
    pub(crate) name: String,
    #[serde(default = "Versions::all")]
    pub(crate) versions: Versions,
    pub(crate) fields: Vec<Field>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Field {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: Type,
    /// A tagged field may leave this out: then it is tagged in every version that carries it.
    #[serde(default)]
    pub(crate) versions: Versions,
    #[serde(default)]
    pub(crate) nullable_versions: Versions,
    #[serde(default)]
    pub(crate) tagged_versions: Versions,
    /// Overrides the message's flexible versions; only `RequestHeader.ClientId` uses it.
    pub(crate) flexible_versions: Option<Versions>,
    pub(crate) tag: Option<u32>,
    /// The encoder drops the value in a version that cannot carry it, instead of failing.
    #[serde(default)]
    pub(crate) ignorable: bool,
    #[serde(default, deserialize_with = "text")]
    pub(crate) default: Option<String>,
    #[serde(default)]
    pub(crate) about: String,
    #[serde(default)]
    pub(crate) fields: Vec<Field>,
}

impl Message {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let mut message: Self =
            serde_json::from_str(&without_comments(&fs::read_to_string(path)?))?;
        if message.latest_version_unstable {
            message.valid_versions.last -= 1;
        }
        message.fields.iter_mut().for_each(Field::complete);
        message.fields.iter().try_for_each(|field| field.check(message.flexible_versions))?;
        Ok(message)
    }
}

impl Field {
    fn complete(&mut self) {
        if self.versions.is_empty() {
            self.versions = self.tagged_versions;
        }
        self.fields.iter_mut().for_each(Self::complete);
    }

    /// Refuses definitions that Kafka's generator accepts and this one does not support.
    fn check(&self, flexible: Versions) -> Result<()> {
        if self.tag.is_some() {
            ensure!(
                self.tagged_versions == self.versions,
                "field {} is tagged in some of its versions only",
                self.name
            );
            ensure!(
                flexible.first <= self.versions.first,
                "field {} is tagged before the message is flexible",
                self.name
            );
        }
        self.fields.iter().try_for_each(|field| field.check(flexible))
    }

    pub(crate) fn nullable(&self) -> bool {
        !self.nullable_versions.is_empty()
    }
}

/// A range of versions, `first..=last`; empty when `last < first`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Versions {
    pub(crate) first: i16,
    pub(crate) last: i16,
}

impl Versions {
    pub(crate) fn all() -> Self {
        Self { first: 0, last: i16::MAX }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.last < self.first
    }

    pub(crate) fn intersect(self, other: Self) -> Self {
        Self { first: self.first.max(other.first), last: self.last.min(other.last) }
    }

    pub(crate) fn contains(self, other: Self) -> bool {
        other.is_empty() || (self.first <= other.first && other.last <= self.last)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = i16> {
        self.first..=self.last
    }
}

impl Default for Versions {
    fn default() -> Self {
        Self { first: 0, last: -1 }
    }
}

impl FromStr for Versions {
    type Err = anyhow::Error;

    /// `none`, `3`, `3+` or `3-7`.
    fn from_str(text: &str) -> Result<Self> {
        if text == "none" {
            return Ok(Self::default());
        }
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (first, last.parse()?),
            None => match text.strip_suffix('+') {
                Some(first) => (first, i16::MAX),
                None => (text, text.parse()?),
            },
        };
        Ok(Self { first: first.parse().with_context(|| format!("versions {text:?}"))?, last })
    }
}

impl<'de> Deserialize<'de> for Versions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The type of a field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Type {
    Bool,
    Int8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Float64,
    Uuid,
    String,
    Bytes,
    Records,
    Struct(String),
    Array(Box<Type>),
}

impl FromStr for Type {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "bool" => Self::Bool,
            "int8" => Self::Int8,
            "int16" => Self::Int16,
            "uint16" => Self::Uint16,
            "int32" => Self::Int32,
            "uint32" => Self::Uint32,
            "int64" => Self::Int64,
            "float64" => Self::Float64,
            "uuid" => Self::Uuid,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "records" => Self::Records,
            _ => match text.strip_prefix("[]") {
                Some(element) => Self::Array(Box::new(element.parse()?)),
                None if text.starts_with(char::is_uppercase) => Self::Struct(text.to_owned()),
                None => bail!("unknown type {text:?}"),
            },
        })
    }
}

impl<'de> Deserialize<'de> for Type {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Reads a default, which the JSON writes as a string, a number or a boolean.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Some(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }))
}

/// The definitions are JSON with `//` comments to the end of the line.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        out.push_str(&line[..comment_start(line).unwrap_or(line.len())]);
        out.push('\n');
    }
    out
}

/// Where a comment begins in `line`: the first `//` outside of a string.
fn comment_start(line: &str) -> Option<usize> {
    let bytes = line.as_bytes();
    let mut quoted = false;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'/' if !quoted && bytes.get(at + 1) == Some(&b'/') => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}
