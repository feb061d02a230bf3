//! YAML files with resources, as `kubectl apply -f` reads them.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize as _;
use serde_json::{Value, json};

/// The most bytes of a file.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A resource and its file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifest {
    /// The file.
    pub(crate) file: PathBuf,
    /// The resource.
    pub(crate) resource: Value,
}

impl Manifest {
    /// A text field of the resource; empty if it is missing.
    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.resource.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

/// Reads the resources of files, of a directory's YAML files in the order of their names, and of
/// the standard input for `-`.
///
/// # Errors
/// When a file cannot be read or is not valid YAML; the message names it.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            read_from(std::io::stdin().lock(), Path::new("the standard input"), &mut manifests)?;
        } else if path.is_dir() {
            let mut files: Vec<_> = std::fs::read_dir(path)
                .with_context(|| format!("read {}", path.display()))?
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|file| {
                    matches!(
                        file.extension().and_then(|extension| extension.to_str()),
                        Some("yaml" | "yml" | "json")
                    )
                })
                .collect();
            files.sort();
            for file in files {
                read_file(&file, &mut manifests)?;
            }
        } else {
            read_file(path, &mut manifests)?;
        }
    }
    Ok(manifests)
}

fn read_file(file: &Path, manifests: &mut Vec<Manifest>) -> anyhow::Result<()> {
    let opened = std::fs::File::open(file).with_context(|| format!("read {}", file.display()))?;
    read_from(opened, file, manifests)
}

fn read_from(input: impl Read, file: &Path, manifests: &mut Vec<Manifest>) -> anyhow::Result<()> {
    let what = || format!("read {}", file.display());
    let mut text = String::new();
    input.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).with_context(what)?;
    anyhow::ensure!(
        text.len() as u64 <= FILE_BYTES_MAX,
        "{}: more than {FILE_BYTES_MAX} bytes are too many for a manifest",
        file.display()
    );
    for document in serde_yaml::Deserializer::from_str(&text) {
        let resource = Value::deserialize(document).with_context(what)?;
        // Two adjacent separators give an empty document.
        if !resource.is_null() {
            manifests.push(Manifest { file: file.to_owned(), resource });
        }
    }
    Ok(())
}

/// The number of brokers of the KafkaCluster among these.
pub(super) fn declared_brokers(resources: &[Manifest]) -> Option<i32> {
    let cluster = resources.iter().find(|manifest| manifest.text("/kind") == "KafkaCluster")?;
    let replicas = cluster.resource.pointer("/spec/brokers/replicas").and_then(Value::as_i64);
    // The default of the schema.
    i32::try_from(replicas.unwrap_or(1)).ok()
}

/// Sets the number of brokers of a KafkaCluster. A resource that is not an object is refused later,
/// with its reason.
pub(super) fn set_brokers(cluster: &mut Value, brokers: i32) {
    let Some(cluster) = cluster.as_object_mut() else { return };
    let spec = cluster.entry("spec").or_insert_with(|| json!({}));
    let Some(spec) = spec.as_object_mut() else { return };
    let declared = spec.entry("brokers").or_insert_with(|| json!({}));
    if let Some(declared) = declared.as_object_mut() {
        declared.insert("replicas".to_owned(), brokers.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_directories_are_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.yaml"), "---\nkind: B\n---\n---\nkind: C\n").unwrap();
        std::fs::write(dir.path().join("a.yml"), "kind: A\n").unwrap();
        std::fs::write(dir.path().join("notes.txt"), "not: yaml: at all").unwrap();
        let kinds: Vec<_> = read(&[dir.path().to_owned()])
            .unwrap()
            .iter()
            .map(|manifest| manifest.text("/kind").to_owned())
            .collect();
        assert_eq!(kinds, ["A", "B", "C"]);
        let mut piped = Vec::new();
        read_from(
            "kind: D\n---\nkind: E\n".as_bytes(),
            Path::new("the standard input"),
            &mut piped,
        )
        .unwrap();
        assert_eq!(
            piped.iter().map(|manifest| manifest.text("/kind")).collect::<Vec<_>>(),
            ["D", "E"]
        );
        let endless = read_from(std::io::repeat(b' '), Path::new("the standard input"), &mut piped)
            .unwrap_err();
        assert!(endless.to_string().contains("too many"), "{endless}");
        std::fs::write(dir.path().join("bad.yaml"), "a: [").unwrap();
        let error = format!("{:#}", read(&[dir.path().join("bad.yaml")]).unwrap_err());
        assert!(error.contains("bad.yaml"), "{error}");
        assert!(
            format!("{:#}", read(&["none.yaml".into()]).unwrap_err()).starts_with("read none.yaml")
        );
    }
}
