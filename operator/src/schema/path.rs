//! The path of a field in an object, as errors show it. The checks and the `fieldPath` of rules use
//! it.

use std::fmt;

use serde_json::Value;

/// The path from the root of an object to one of its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path(String);

impl Path {
    /// The object as a whole.
    pub(super) fn root() -> Self {
        Self(String::new())
    }

    /// A property, or the entry of a map. A name that is not an identifier is quoted, so that the
    /// dots in Kafka's settings do not look like levels.
    pub(super) fn field(&self, name: &str) -> Self {
        let plain = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        Self(match (plain, self.0.is_empty()) {
            (true, true) => name.to_owned(),
            (true, false) => format!("{}.{name}", self.0),
            (false, _) => format!("{}[{}]", self.0, Value::from(name)),
        })
    }

    /// An item of a list.
    pub(super) fn item(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// A field below this one, in the notation of a rule's `fieldPath`: `.name` and `['name']`,
    /// repeated. `None` for any other notation.
    pub(super) fn below(&self, field_path: &str) -> Option<Self> {
        let mut path = self.clone();
        let mut rest = field_path;
        while !rest.is_empty() {
            let name;
            (name, rest) = if let Some(quoted) = rest.strip_prefix("['") {
                quoted.split_once("']")?
            } else {
                let tail = rest.strip_prefix('.')?;
                tail.split_at(tail.find(['.', '[']).unwrap_or(tail.len()))
            };
            if name.is_empty() {
                return None;
            }
            path = path.field(name);
        }
        Some(path)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Path;

    #[test]
    fn fields_items_and_names_that_are_no_identifiers() {
        let spec = Path::root().field("spec");
        assert_eq!(
            spec.field("config").field("retention.ms").to_string(),
            r#"spec.config["retention.ms"]"#
        );
        assert_eq!(
            spec.field("listeners").item(1).field("port").to_string(),
            "spec.listeners[1].port"
        );
        assert_eq!(
            Path::root().field("a b").field("").field("0").to_string(),
            r#"["a b"][""]["0"]"#
        );
    }

    #[test]
    fn the_field_path_of_a_rule() {
        let spec = Path::root().field("spec");
        let rows = [
            (".partitions", Some("spec.partitions")),
            (".config['retention.ms']", Some(r#"spec.config["retention.ms"]"#)),
            (".a.b-c['d']", Some("spec.a.b-c.d")),
            ("partitions", None),
            (".", None),
            (".a..b", None),
            (".a['b", None),
            ("[0]", None),
        ];
        for (field_path, expected) in rows {
            assert_eq!(
                spec.below(field_path).map(|path| path.to_string()).as_deref(),
                expected,
                "{field_path}"
            );
        }
    }
}
