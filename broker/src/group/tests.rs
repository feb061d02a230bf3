//! The group coordinator by example: what is asked, in the order and at the time in which it is
//! asked, and what is answered, written and due.
//!
//! `scenarios/*.txt` hold events and what came of them, in the words of `world::scene`; run with
//! `WEIR_ACCEPT=1` to write what comes of them now, and read the difference. What needs clients
//! that remember something, or thousands of them, is in Rust.

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
