//! The controller core by example and at random.
//!
//! `scenarios/*.txt` hold events and what came of them; run with `WEIR_ACCEPT=1` to write what comes of them now, and read the difference. The random tests
//! live in `random`.

mod random;
mod speed;
mod world;

use std::path::{Path, PathBuf};

use world::World;

#[test]
fn scenarios() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/controller/tests/scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let expected = std::fs::read_to_string(&file).unwrap();
        let actual = play(&expected);
        if std::env::var_os("WEIR_ACCEPT").is_some() {
            std::fs::write(&file, &actual).unwrap();
            continue;
        }
        assert!(expected == actual, "{} differs; what came of it:\n{actual}", file.display());
    }
}

/// The scenario with its outcomes as they are now: comments, blank lines and events (`> ...`) stay, the lines after an event are made anew.
fn play(scenario: &str) -> String {
    let mut world = World::new();
    let mut text = String::new();
    for line in scenario.lines() {
        if let Some(event) = line.strip_prefix("> ") {
            text.push_str(line);
            text.push('\n');
            for outcome in world.play(event) {
                text.push_str("  ");
                text.push_str(&outcome);
                text.push('\n');
            }
        } else if !line.starts_with("  ") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[test]
fn names_of_resources_are_names_of_kubernetes_and_never_shared() {
    use super::{is_subdomain, resource_name};
    let long = "X".repeat(249);
    let names = [
        "orders",
        "orders.v1",
        "Orders",
        "ORDERS",
        "orders_v1",
        "orders-v1",
        "_",
        "__consumer_offsets",
        ".hidden",
        "a..b",
        "-",
        &long,
    ];
    let mut taken = std::collections::BTreeSet::new();
    for name in names {
        let resource = resource_name(name, |other| taken.contains(other));
        assert!(is_subdomain(&resource), "{name} -> {resource}");
        assert!(resource.len() <= 253);
        assert!(taken.insert(resource.clone()), "{resource} is shared");
        assert_eq!(resource == name, is_subdomain(name), "{name} -> {resource}");
    }
    // A name that is free for Kubernetes can be taken by a topic that is called otherwise in Kafka.
    assert_ne!(resource_name("orders", |other| taken.contains(other)), "orders");
}
