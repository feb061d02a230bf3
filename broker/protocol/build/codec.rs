//! Writes the codecs of the messages: `Wire` for every struct, and `Message` with the traits that
//! go with it for the outermost one.

use std::fmt::Write;

use anyhow::Result;

use crate::schema::{Field, Message, Type, Versions};
use crate::structs::{Struct, default_value, field_name, snake_case};

/// `impl Wire`: read and write of one struct.
pub(crate) fn wire(out: &mut String, each: &Struct<'_>) -> Result<()> {
    writeln!(out, "\n    impl Wire for {} {{", each.name)?;
    writeln!(out, "        const MIN_SIZE: usize = {};", min_size(each))?;
    read(out, each)?;
    write(out, each)?;
    writeln!(out, "    }}")?;
    Ok(())
}

/// `impl Sample`, for tests: a random value that the version can carry.
pub(crate) fn sample(out: &mut String, each: &Struct<'_>) -> Result<()> {
    writeln!(out, "\n    #[cfg(test)]")?;
    writeln!(out, "    impl Sample for {} {{", each.name)?;
    writeln!(out, "        fn sample(random: &mut Random, v: Version) -> Self {{")?;
    writeln!(out, "            let mut it = Self::default();")?;
    for field in each.fields {
        let value = match null_condition(field, each) {
            None => "Sample::sample(random, v)".to_owned(),
            Some(refused) if refused == "true" => "Some(Sample::sample(random, v))".to_owned(),
            Some(refused) => format!(
                "if {refused} {{ Some(Sample::sample(random, v)) }} else {{ Sample::sample(random, v) }}"
            ),
        };
        let assignment = format!("it.{} = {value};", field_name(field));
        match condition(field.versions, each.versions) {
            None => writeln!(out, "            {assignment}")?,
            Some(condition) => writeln!(
                out,
                "            if {condition} {{\n                {assignment}\n            }}"
            )?,
        }
    }
    writeln!(out, "            it\n        }}\n    }}")?;
    Ok(())
}

/// `impl Failing` for a struct of a response: true if its own error code, or one nested in it, is
/// set.
pub(crate) fn failing(out: &mut String, each: &Struct<'_>) -> Result<()> {
    let is_struct = |kind: &Type| {
        matches!(kind, Type::Struct(_))
            || matches!(kind, Type::Array(element) if matches!(**element, Type::Struct(_)))
    };
    let terms = each.fields.iter().filter_map(|field| {
        let name = field_name(field);
        match &field.kind {
            Type::Int16 if field.name.ends_with("ErrorCode") => Some(format!("self.{name} != 0")),
            kind if is_struct(kind) => Some(format!("self.{name}.has_error()")),
            _ => None,
        }
    });
    let terms: Vec<_> = terms.collect();
    let any = if terms.is_empty() { "false".to_owned() } else { terms.join(" || ") };
    writeln!(out, "\n    impl Failing for {} {{", each.name)?;
    writeln!(out, "        fn has_error(&self) -> bool {{\n            {any}\n        }}\n    }}")?;
    Ok(())
}

/// `impl Measured` for a struct of a response: the bytes of all its fields, those that only some
/// versions carry included.
pub(crate) fn measured(out: &mut String, each: &Struct<'_>) -> Result<()> {
    // The number of tagged fields; and for each of them its tag and its length.
    let tagged = each.fields.iter().filter(|field| field.tag.is_some()).count();
    let mut terms = vec![(1 + 6 * tagged).to_string()];
    terms.extend(each.fields.iter().map(|field| {
        let name = field_name(field);
        match is_error_message(field) {
            true => format!("self.{name}.as_deref().map(shortened).encoded_bytes_max()"),
            false => format!("self.{name}.encoded_bytes_max()"),
        }
    }));
    writeln!(out, "\n    impl Measured for {} {{", each.name)?;
    writeln!(
        out,
        "        fn encoded_bytes_max(&self) -> usize {{\n            {}\n        }}\n    }}",
        terms.join(" + ")
    )?;
    Ok(())
}

/// `impl Message` and, for requests and responses, the API they belong to.
pub(crate) fn message(out: &mut String, message: &Message) -> Result<()> {
    let Versions { first, last } = message.valid_versions;
    let name = &message.name;
    let flexible = if message.flexible_versions.is_empty() {
        i16::MAX
    } else {
        message.flexible_versions.first
    };
    writeln!(out, "\n    impl Message for {name} {{")?;
    writeln!(out, "        const NAME: &'static str = {name:?};")?;
    writeln!(out, "        const VERSIONS: RangeInclusive<i16> = {first}..={last};")?;
    writeln!(out, "        const FIRST_FLEXIBLE_VERSION: i16 = {flexible};")?;
    writeln!(out, "    }}")?;
    let Some(key) = message.api_key else { return Ok(()) };
    if message.kind.starts_with("coordinator-") {
        writeln!(
            out,
            "\n    impl CoordinatorRecord for {name} {{\n        const RECORD_TYPE: i16 = {key};\n    }}"
        )?;
        return Ok(());
    }
    writeln!(
        out,
        "\n    impl ApiMessage for {name} {{\n        const API_KEY: i16 = {key};\n    }}"
    )?;
    if let Some(api) = name.strip_suffix("Request") {
        let module = snake_case(&format!("{api}Response"));
        writeln!(
            out,
            "\n    impl Request for {name} {{\n        type Response = super::{module}::{api}Response;\n    }}"
        )?;
    }
    Ok(())
}

fn read(out: &mut String, each: &Struct<'_>) -> Result<()> {
    writeln!(
        out,
        "\n        fn read(buf: &mut Bytes, v: Version) -> Result<Self, DecodeError> {{"
    )?;
    writeln!(out, "            let mut it = Self::default();")?;
    for field in each.fields.iter().filter(|field| field.tag.is_none()) {
        if let Some(condition) = condition(field.versions, each.versions) {
            writeln!(out, "            if {condition} {{")?;
            writeln!(
                out,
                "                it.{} = {};",
                field_name(field),
                read_value(field, each)
            )?;
            writeln!(out, "            }}")?;
        } else {
            writeln!(out, "            it.{} = {};", field_name(field), read_value(field, each))?;
        }
    }
    read_tags(out, each)?;
    writeln!(out, "            Ok(it)\n        }}")?;
    Ok(())
}

fn read_value(field: &Field, each: &Struct<'_>) -> String {
    let version = version_argument(field);
    let is_struct = matches!(field.kind, Type::Struct(_));
    let value = if field.nullable() && is_struct {
        format!("read_nullable_struct(buf, {version})?")
    } else {
        format!("Wire::read(buf, {version})?")
    };
    // Null in a version that does not allow it makes the message malformed; it is no empty value.
    match null_condition(field, each) {
        Some(condition) => format!("non_null({value}, {condition}, {:?})?", field.name),
        None => value,
    }
}

fn read_tags(out: &mut String, each: &Struct<'_>) -> Result<()> {
    let mut tagged = each.fields.iter().filter(|field| field.tag.is_some()).peekable();
    if tagged.peek().is_none() {
        writeln!(out, "            skip_tags(buf, v)?;")?;
        return Ok(());
    }
    writeln!(out, "            let mut tags = Tags::read(buf, v)?;")?;
    writeln!(out, "            while let Some((tag, mut value)) = tags.next(buf)? {{")?;
    writeln!(out, "                match tag {{")?;
    for field in tagged {
        let tag = field.tag.unwrap_or_default();
        let guard = condition(field.versions, each.versions)
            .map(|condition| format!(" if {condition}"))
            .unwrap_or_default();
        let function = if field.nullable() && matches!(field.kind, Type::Struct(_)) {
            "read_nullable_struct(&mut value, v)?"
        } else {
            "Wire::read(&mut value, v)?"
        };
        writeln!(out, "                    {tag}{guard} => {{")?;
        writeln!(out, "                        it.{} = {function};", field_name(field))?;
        writeln!(out, "                        at_end(&value)?;")?;
        writeln!(out, "                    }}")?;
    }
    writeln!(out, "                    _ => {{}}\n                }}\n            }}")?;
    Ok(())
}

fn write(out: &mut String, each: &Struct<'_>) -> Result<()> {
    writeln!(
        out,
        "\n        fn write(&self, buf: &mut BytesMut, v: Version) -> Result<(), EncodeError> {{"
    )?;
    for field in each.fields.iter().filter(|field| field.tag.is_none()) {
        let name = field_name(field);
        let mut lines = Vec::new();
        if let Some(condition) = null_condition(field, each) {
            lines.push(format!(
                "refuse_null(self.{name}.is_none() && {condition}, {:?})?;",
                field.name
            ));
        }
        lines.push(write_value(field));
        let Some(condition) = condition(field.versions, each.versions) else {
            lines.iter().try_for_each(|line| writeln!(out, "            {line}"))?;
            continue;
        };
        writeln!(out, "            if {condition} {{")?;
        lines.iter().try_for_each(|line| writeln!(out, "                {line}"))?;
        if !field.ignorable {
            writeln!(out, "            }} else {{")?;
            writeln!(
                out,
                "                refuse_unsupported({}, {:?}, v)?;",
                non_default(field),
                field.name
            )?;
        }
        writeln!(out, "            }}")?;
    }
    write_tags(out, each)?;
    writeln!(out, "            Ok(())\n        }}")?;
    Ok(())
}

fn write_value(field: &Field) -> String {
    let version = version_argument(field);
    let name = field_name(field);
    if field.nullable() && matches!(field.kind, Type::Struct(_)) {
        format!("write_nullable_struct(self.{name}.as_ref(), buf, {version})?;")
    } else {
        match is_error_message(field) {
            true => format!(
                "write_str(buf, self.{name}.as_deref().map(shortened), {version}.flexible)?;"
            ),
            false => format!("self.{name}.write(buf, {version})?;"),
        }
    }
}

/// Whether the field is text for people. Such text may repeat client input, so the encoder cuts a
/// long one to fit the answer.
fn is_error_message(field: &Field) -> bool {
    field.name.ends_with("ErrorMessage") && field.nullable() && matches!(field.kind, Type::String)
}

fn write_tags(out: &mut String, each: &Struct<'_>) -> Result<()> {
    let mut tagged: Vec<_> = each.fields.iter().filter(|field| field.tag.is_some()).collect();
    if tagged.is_empty() {
        writeln!(out, "            write_no_tags(buf, v);")?;
        return Ok(());
    }
    tagged.sort_by_key(|field| field.tag);
    writeln!(out, "            let mut tags = TagWriter::default();")?;
    for field in tagged {
        let tag = field.tag.unwrap_or_default();
        let name = field_name(field);
        let set = non_default(field);
        match condition(field.versions, each.versions) {
            Some(condition) if field.ignorable => {
                writeln!(out, "            if {set} && {condition} {{")?
            }
            Some(_) => {
                writeln!(out, "            if {set} {{")?;
                writeln!(
                    out,
                    "                refuse_unsupported(v.number < {}, {:?}, v)?;",
                    field.versions.first, field.name
                )?;
            }
            None => writeln!(out, "            if {set} {{")?,
        }
        if field.nullable() && matches!(field.kind, Type::Struct(_)) {
            writeln!(
                out,
                "                tags.add_nullable_struct({tag}, self.{name}.as_ref(), v)?;"
            )?;
        } else {
            writeln!(out, "                tags.add({tag}, &self.{name}, v)?;")?;
        }
        writeln!(out, "            }}")?;
    }
    writeln!(out, "            tags.finish(buf, v);")?;
    Ok(())
}

/// The test that a version is in `versions`, or `None` when every version of `possible` is.
fn condition(versions: Versions, possible: Versions) -> Option<String> {
    if versions.contains(possible) {
        return None;
    }
    Some(match (versions.first <= possible.first, versions.last >= possible.last) {
        _ if versions.is_empty() || versions.intersect(possible).is_empty() => "false".into(),
        (true, _) => format!("v.number <= {}", versions.last),
        (_, true) => format!("v.number >= {}", versions.first),
        _ => format!("({}..={}).contains(&v.number)", versions.first, versions.last),
    })
}

/// The condition under which null is not allowed, or `None` when every version allows it or the
/// type has no null.
fn null_condition(field: &Field, each: &Struct<'_>) -> Option<String> {
    let possible = field.versions.intersect(each.versions);
    if !field.nullable() && field.kind != Type::Records {
        return None;
    }
    let nullable = field.nullable_versions;
    Some(match condition(nullable, possible)? {
        _ if nullable.intersect(possible).is_empty() => "true".into(),
        _ if nullable.last >= possible.last => format!("v.number < {}", nullable.first),
        allowed => format!("!({allowed})"),
    })
}

fn version_argument(field: &Field) -> &'static str {
    match field.flexible_versions {
        Some(versions) if versions.is_empty() => "v.inflexible()",
        _ => "v",
    }
}

/// The test that a field differs from its default.
fn non_default(field: &Field) -> String {
    let name = field_name(field);
    match default_value(field).as_str() {
        "false" => format!("self.{name}"),
        "true" => format!("!self.{name}"),
        "None" => format!("self.{name}.is_some()"),
        "String::new()" | "Bytes::new()" | "Vec::new()" => format!("!self.{name}.is_empty()"),
        default => format!("self.{name} != {default}"),
    }
}

/// The fewest bytes that the struct takes in any version. It bounds the capacity of arrays of it.
fn min_size(each: &Struct<'_>) -> usize {
    each.versions
        .iter()
        .map(|version| size_at(each.fields, version, each.message))
        .min()
        .unwrap_or(1)
        .max(1)
}

fn size_at(fields: &[Field], version: i16, message: &Message) -> usize {
    let only = Versions { first: version, last: version };
    let flexible = message.flexible_versions.contains(only);
    let present =
        fields.iter().filter(|field| field.tag.is_none() && field.versions.contains(only));
    let body: usize = present
        .map(|field| match &field.kind {
            Type::Bool | Type::Int8 => 1,
            Type::Int16 | Type::Uint16 => 2,
            Type::Int32 | Type::Uint32 => 4,
            Type::Int64 | Type::Float64 => 8,
            Type::Uuid => 16,
            Type::String if !flexible => 2,
            Type::Bytes | Type::Records | Type::Array(_) if !flexible => 4,
            Type::String | Type::Bytes | Type::Records | Type::Array(_) => 1,
            Type::Struct(_) if field.nullable() => 1,
            Type::Struct(_) => size_at(&field.fields, version, message),
        })
        .sum();
    body + usize::from(flexible)
}
