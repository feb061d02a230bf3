//! The output of `weir local`: the only place that writes to standard output.

use std::io::Write as _;

use clap::ValueEnum;
use serde_json::Value;

use super::rpc::Applied;
use super::status::Status;

/// The format of printed resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Prints a line. A closed output is not an error.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints the result for each resource, in kubectl's words.
pub(crate) fn applied(applied: &[Applied]) {
    for resource in applied {
        line(&format!(
            "{}.weir.dev/{} {}",
            resource.kind.to_lowercase(),
            resource.name,
            resource.action
        ));
    }
}

/// Prints resources: in full in a format, else as a table with their kind's printer columns. `one`:
/// the user named a single one.
///
/// # Errors
/// When they cannot be encoded in that format.
pub(crate) fn resources(
    resources: &[Value],
    one: bool,
    format: Option<Format>,
) -> anyhow::Result<()> {
    let Some(format) = format else {
        table(resources);
        return Ok(());
    };
    let whole = match resources {
        [resource] if one => resource.clone(),
        all => serde_json::json!({"apiVersion": "v1", "kind": "List", "items": all}),
    };
    print(&whole, format)
}

/// Prints the state of a cluster.
///
/// # Errors
/// When it cannot be encoded in that format.
pub(crate) fn status(status: &Status, format: Option<Format>) -> anyhow::Result<()> {
    if let Some(format) = format {
        return print(&serde_json::to_value(status)?, format);
    }
    let pid = |pid: Option<i32>| pid.map_or("-".to_owned(), |pid| pid.to_string());
    let mut rows = vec![["PROCESS", "PID", "PORT", "STATE"].map(str::to_owned).to_vec()];
    let controller = match (status.controller.pid, &status.partitions) {
        (None, _) => "stopped",
        (Some(_), None) => "silent",
        (Some(_), Some(_)) => "running",
    };
    rows.push(vec!["controller".into(), pid(status.controller.pid), "-".into(), controller.into()]);
    for broker in &status.brokers {
        rows.push(vec![
            format!("broker {}", broker.id),
            pid(broker.pid),
            broker.port.to_string(),
            broker.state.into(),
        ]);
    }
    columns(&rows);
    match &status.partitions {
        Some(partitions) => line(&format!(
            "{} partitions, {} under-replicated, {} offline",
            partitions.total, partitions.under_replicated, partitions.offline
        )),
        None => line("the controller does not answer: the state of the partitions is not known"),
    }
    Ok(())
}

fn print(value: &Value, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => line(&serde_json::to_string_pretty(value)?),
        Format::Yaml => line(serde_yaml::to_string(value)?.trim_end()),
    }
    Ok(())
}

fn table(resources: &[Value]) {
    let Some(first) = resources.first() else {
        line("No resources found.");
        return;
    };
    let printer: Vec<_> = printer_columns(first)
        .into_iter()
        .filter(|(_, path)| !path.starts_with(".metadata.creationTimestamp"))
        .collect();
    let head = std::iter::once("NAME".to_owned())
        .chain(printer.iter().map(|(name, _)| name.to_uppercase()));
    let mut rows = vec![head.collect::<Vec<_>>()];
    for resource in resources {
        let name = resource.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        rows.push(
            std::iter::once(name.to_owned())
                .chain(printer.iter().map(|(_, path)| look_up(resource, path)))
                .collect(),
        );
    }
    columns(&rows);
}

/// The columns that kubectl prints for a resource's kind, as name and path, without those of `-o
/// wide`.
fn printer_columns(resource: &Value) -> Vec<(String, String)> {
    let kind = resource.pointer("/kind").and_then(Value::as_str).unwrap_or_default();
    let crds = weir_crds::definitions();
    let crd = crds.iter().find(|crd| crd.spec.names.kind == kind);
    let columns = crd
        .and_then(|crd| crd.spec.versions.first())
        .and_then(|version| version.additional_printer_columns.clone())
        .unwrap_or_default();
    columns
        .into_iter()
        .filter(|column| column.priority.unwrap_or(0) == 0)
        .map(|column| (column.name, column.json_path))
        .collect()
}

/// A value by its path, for the part of JSONPath that printer columns use: fields, and conditions
/// by type.
fn look_up(resource: &Value, path: &str) -> String {
    let mut value = Some(resource);
    let mut rest = path.trim_start_matches('.');
    while !rest.is_empty() {
        if let Some((wanted, tail)) =
            rest.strip_prefix("[?(@.type==").and_then(|condition| condition.split_once(")]"))
        {
            let wanted = wanted.trim_matches(['"', '\'']);
            value = value.and_then(Value::as_array).and_then(|all| {
                all.iter().find(|one| one.get("type").and_then(Value::as_str) == Some(wanted))
            });
            rest = tail.trim_start_matches('.');
            continue;
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (field, tail) = rest.split_at(end);
        value = value.and_then(|value| value.get(field));
        rest = tail.trim_start_matches('.');
    }
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn columns(rows: &[Vec<String>]) {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0)
    };
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<width$}", width = width(column)))
            .collect();
        line(cells.join("   ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printer_columns_are_found_by_their_paths() {
        let resource = serde_json::json!({"spec": {"partitions": 3}, "status": {"conditions": [{"type": "Synced", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        assert_eq!(look_up(&resource, ".spec.partitions"), "3");
        assert_eq!(look_up(&resource, ".status.conditions[?(@.type==\"Ready\")].status"), "True");
        assert_eq!(look_up(&resource, ".status.nothing.here"), "");
        assert!(!printer_columns(&serde_json::json!({"kind": "Topic"})).is_empty());
    }
}
