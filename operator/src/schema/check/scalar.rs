//! Validates strings and numbers against their keywords.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use regex::Regex;
use serde_json::{Number, Value};

use super::super::error::{FieldError, type_of};
use super::super::format;
use super::super::path::Path;

/// Length (in characters), pattern and format of a string.
pub(super) fn check_text(
    schema: &JSONSchemaProps,
    text: &str,
    path: &Path,
    errors: &mut Vec<FieldError>,
) {
    let value = Value::from(text);
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if let Some(max) = schema.max_length.filter(|max| length > *max) {
        errors.push(FieldError::new(path, format!("Too long: may not be more than {max} bytes")));
    }
    if let Some(min) = schema.min_length.filter(|min| length < *min) {
        errors.push(FieldError::invalid(
            path,
            &value,
            format!("should be at least {min} chars long"),
        ));
    }
    if let Some(pattern) = &schema.pattern {
        // A pattern may match anywhere, as in Go. Neither engine backtracks, so no text makes them
        // slow.
        match Regex::new(pattern) {
            Ok(regex) if regex.is_match(text) => {}
            Ok(_) => {
                errors.push(FieldError::invalid(path, &value, format!("should match '{pattern}'")))
            }
            Err(error) => errors.push(FieldError::invalid(
                path,
                &value,
                format!("pattern does not compile: {error}"),
            )),
        }
    }
    if let Some(format) =
        schema.format.as_deref().filter(|format| !format::is_text_of(format, text))
    {
        errors.push(FieldError::invalid(
            path,
            &value,
            format!("must be of type {format}: {value}"),
        ));
    }
}

/// Range, step and format of a number.
pub(super) fn check_number(
    schema: &JSONSchemaProps,
    number: &Number,
    path: &Path,
    errors: &mut Vec<FieldError>,
) {
    let value = Value::Number(number.clone());
    let Some(float) = number.as_f64() else { return };
    if let Some(min) = schema.minimum {
        let exclusive = schema.exclusive_minimum.unwrap_or(false);
        if float < min || (exclusive && float == min) {
            let than = if exclusive { "greater than" } else { "greater than or equal to" };
            errors.push(FieldError::invalid(path, &value, format!("should be {than} {min}")));
        }
    }
    if let Some(max) = schema.maximum {
        let exclusive = schema.exclusive_maximum.unwrap_or(false);
        if float > max || (exclusive && float == max) {
            let than = if exclusive { "less than" } else { "less than or equal to" };
            errors.push(FieldError::invalid(path, &value, format!("should be {than} {max}")));
        }
    }
    if let Some(step) = schema.multiple_of.filter(|step| float % step != 0.0) {
        errors.push(FieldError::invalid(path, &value, format!("should be a multiple of {step}")));
    }
    if let Some(format) =
        schema.format.as_deref().filter(|format| !format::is_number_of(format, number))
    {
        let actual = type_of(&value);
        errors.push(FieldError::invalid(
            path,
            &value,
            format!("must be of type {format}: \"{actual}\""),
        ));
    }
}
