//! Records in the drivers' JSON: bytes are base64, null is null.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A record, to produce or as consumed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its partition; `None` lets the client choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// The offset of a consumed record.
    #[serde(default, skip_serializing)]
    pub offset: i64,
    /// Milliseconds since 1970; `None` lets the client use its clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// The key.
    pub key: Option<Bytes64>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes64>,
    /// Headers in order; a name may repeat, a value may be null.
    pub headers: Vec<(String, Option<Bytes64>)>,
}

impl Record {
    /// A record with a key and a value.
    #[must_use]
    pub fn new(key: impl Into<Option<&'static str>>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            key: key.into().map(|k| Bytes64(k.as_bytes().to_vec())),
            value: Some(Bytes64(value.into())),
            ..Self::default()
        }
    }

    /// The same record, for partition `p`.
    #[must_use]
    pub fn to(mut self, p: i32) -> Self {
        self.partition = Some(p);
        self
    }

    /// The same record, with a timestamp.
    #[must_use]
    pub fn at(mut self, timestamp_ms: i64) -> Self {
        self.timestamp = Some(timestamp_ms);
        self
    }

    /// The same record, with one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: Option<&[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.map(|v| Bytes64(v.to_vec()))));
        self
    }

    /// The part that a consumer must see again: all but partition, offset and timestamp.
    #[must_use]
    pub fn content(&self) -> Self {
        Self { partition: None, offset: 0, timestamp: None, ..self.clone() }
    }

    /// The value as text, for messages.
    #[must_use]
    pub fn text(&self) -> String {
        self.value.as_ref().map_or_else(String::new, |v| String::from_utf8_lossy(&v.0).into_owned())
    }
}

/// Bytes, as base64 in JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes64(pub Vec<u8>);

impl std::fmt::Debug for Bytes64 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.0.get(..40).unwrap_or(&self.0);
        write!(f, "{} bytes {:?}", self.0.len(), String::from_utf8_lossy(shown))
    }
}

impl Serialize for Bytes64 {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes64 {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        STANDARD.decode(String::deserialize(d)?).map(Self).map_err(serde::de::Error::custom)
    }
}
