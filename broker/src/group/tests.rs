//! The group coordinator by example: requests in their order and at their times, with the
//! responses, records and timers.
//!
//! `scenarios/*.txt` have events and their outcomes, in the language of `world::scene`. A run with
//! `WEIR_ACCEPT=1` writes the present outcomes; read the difference. Tests with stateful clients,
//! or with thousands of them, are in Rust.

mod bounds;
mod classic_client;
mod committed;
mod consumer;
mod memory;
mod migration;
mod mixed;
mod world;

#[test]
fn scenarios() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/group/tests/scenarios");
    weir_scenario::play_folder(folder, world::Scene::new, world::Scene::play);
}
