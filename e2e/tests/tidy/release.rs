//! One version for the crates, the chart and the images. RELEASING.md describes how it changes.

use super::{none, read, root, shown};

/// The version of all crates in Cargo.toml.
fn version() -> String {
    let manifest = read(&root().join("Cargo.toml"));
    let package = manifest.split("[workspace.package]").nth(1).unwrap();
    let line = package.lines().find(|line| line.starts_with("version = ")).unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

/// The tags of our images in a text.
fn tags(text: &str) -> Vec<String> {
    let images = ["weir-operator:", "weir-broker:", "$program:"];
    let named = images.iter().flat_map(|image| text.split(image).skip(1));
    named
        .map(|rest| {
            rest.chars().take_while(|c| c.is_ascii_alphanumeric() || ".-_".contains(*c)).collect()
        })
        .collect()
}

#[test]
fn there_is_one_version() {
    let version = version();
    let mut wrong = Vec::new();
    for name in super::borders::crates() {
        let manifest = root().join(name).join("Cargo.toml");
        let package = read(&manifest);
        let package = package.split("\n[").next().unwrap();
        for field in ["version", "rust-version", "edition", "license"] {
            if !package.lines().any(|line| line == format!("{field}.workspace = true")) {
                wrong.push(format!("{}: {field} is not the workspace's", shown(&manifest)));
            }
        }
    }
    let chart = read(&root().join("charts/weir/Chart.yaml"));
    for field in ["version", "appVersion"] {
        if !chart.lines().any(|line| line == format!("{field}: {version}")) {
            wrong.push(format!("charts/weir/Chart.yaml: {field} is not {version}"));
        }
    }
    for name in ["charts/install.yaml", "docs/install.md"] {
        let tags = tags(&read(&root().join(name)));
        assert!(tags.len() >= 2, "{name} names the images in another way");
        let old = tags.into_iter().filter(|tag| *tag != version);
        wrong.extend(old.map(|tag| format!("{name}: an image of version {tag}")));
    }
    none(&format!("other versions than {version}"), wrong);
}

/// The manifest allows the toolchain that builds the project.
#[test]
fn the_toolchain_is_new_enough() {
    let number = |text: &str, key: &str| -> Vec<u32> {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split('"').nth(1).unwrap().split('.').map(|part| part.parse().unwrap()).collect()
    };
    let toolchain = number(&read(&root().join("rust-toolchain.toml")), "channel");
    let oldest = number(&read(&root().join("Cargo.toml")), "rust-version");
    assert!(
        toolchain >= oldest,
        "rust-toolchain.toml: {toolchain:?}; rust-version in Cargo.toml: {oldest:?}"
    );
}
