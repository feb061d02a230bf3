//! The controller core by example and at random.
//!
//! `scenarios/*.txt` hold events and what came of them; run with `WEIR_ACCEPT=1` to write what comes of them now, and read the difference. The random tests
//! live in `random`.

mod random;
mod speed;
mod world;

use world::World;

#[test]
fn scenarios() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/controller/tests/scenarios");
    weir_scenario::play_folder(folder, World::new, World::play_words);
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
