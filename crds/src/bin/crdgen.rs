//! Writes the resources' definitions to `crds/*.yaml`: `cargo run -p weir-crds --bin crdgen`. With
//! `--check` it only compares.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let check = std::env::args().any(|argument| argument == "--check");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for definition in weir_crds::definitions() {
        let path = folder.join(format!("{}.yaml", definition.spec.names.plural));
        let yaml = serde_yaml::to_string(&definition)?;
        if !check {
            std::fs::write(&path, yaml)?;
        } else if std::fs::read_to_string(&path)? != yaml {
            return Err(format!(
                "{} is out of date: run `cargo run -p weir-crds --bin crdgen`",
                path.display()
            )
            .into());
        }
    }
    Ok(())
}
