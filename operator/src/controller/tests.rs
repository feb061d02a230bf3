//! Tests of the controller core by example and at random.
//!
//! `scenarios/*.txt` hold events and outcomes. Run with `WEIR_ACCEPT=1` to write the current
//! outcomes, and read the difference. The random tests are in `random`.

mod bounds;
mod random;
mod scram;
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
    // A free Kubernetes name can belong to a topic with another name in Kafka.
    assert_ne!(resource_name("orders", |other| taken.contains(other)), "orders");
}

/// Versions of two controllers are 2^40 apart, so the lag counts the changes that a broker has not
/// applied.
#[test]
fn the_lag_of_a_broker_is_what_it_has_not_heard_of() {
    use super::{AdminRequest, AdminResponse, Event, Reply};
    let mut world = World::new();
    for id in 0..2 {
        world.play(&format!("register {id} process=1"));
        world.play(&format!("heartbeat {id} ready"));
    }
    world.play("take-over");
    for id in 0..2 {
        world.play(&format!("register {id} process=1 clean"));
        world.play(&format!("heartbeat {id} ready"));
    }
    world.play("heartbeat 1 ready");
    let (broker, epoch) = (
        weir_protocol::types::BrokerId(0),
        world.state.brokers[&weir_protocol::types::BrokerId(0)].epoch,
    );
    let request =
        AdminRequest::DescribeQuorum(weir_protocol::messages::DescribeQuorumRequest::default());
    let (reply, changes) = world.event(Event::Admin { broker, epoch, request });
    assert!(changes.is_empty());
    let Reply::Admin(AdminResponse::DescribeQuorum(response)) = reply else { panic!("{reply:?}") };
    let partition = &response.topics[0].partitions[0];
    assert!((1..50).contains(&partition.high_watermark), "{partition:?}");
    let ends =
        partition.observers.iter().map(|observer| (observer.replica_id, observer.log_end_offset));
    let lags: Vec<_> = ends.map(|(id, end)| (id, partition.high_watermark - end)).collect();
    assert!(lags.len() == 2 && lags.iter().all(|(_, lag)| (0..10).contains(lag)), "{lags:?}");
    assert_eq!(lags[1].1, 0, "broker 1 has just said that it knows all: {lags:?}");
}
