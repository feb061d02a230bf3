//! The bytes of transactional ids are counted exactly, and have a bound.

use proptest::prelude::*;

use super::*;

fn world(memory: &Memory) -> World {
    let mut image = MetadataImage::default();
    image.features.insert("transaction.version".to_owned(), 2);
    World::begin_with(Default::default(), image, memory.clone())
}

fn init(world: &mut World, id: &str, fresh: i64) -> Result<Producer, Refusal> {
    world
        .ask(|to| Request::Init {
            id: id.to_owned(),
            timeout_ms: 60_000,
            expected: None,
            fresh: Some(ProducerId(fresh)),
            to,
        })
        .expect()
}

fn add(world: &mut World, id: &str, from: Producer, partitions: i32) -> ErrorCode {
    let partitions = (0..partitions).map(|index| ("a-topic".into(), index)).collect();
    let id = id.to_owned();
    world.ask(|to| Request::Add { id, from, partitions, version: 2, to }).expect()
}

#[derive(Clone, Debug)]
enum Step {
    Init(usize),
    Add(usize, i32),
    End(usize, bool),
    Written(i32),
    Pass(u64),
    FailOver,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_usize..3).prop_map(Step::Init),
        (0_usize..3, 1_i32..5).prop_map(|(id, count)| Step::Add(id, count)),
        (0_usize..3, any::<bool>()).prop_map(|(id, commit)| Step::End(id, commit)),
        (1_i32..5).prop_map(Step::Written),
        prop_oneof![Just(100_u64), Just(70_000), Just(700_000_000)].prop_map(Step::Pass),
        Just(Step::FailOver),
    ]
}

fn carry_out(world: &mut World, step: &Step, fresh: i64) {
    const IDS: [&str; 3] = ["x", "another-id", "y"];
    let producer = |world: &World, id: usize| world.machine.ids.get(IDS[id]).map(|it| it.producer);
    match *step {
        Step::Init(id) => drop(init(world, IDS[id], fresh)),
        Step::Add(id, count) => {
            if let Some(from) = producer(world, id) {
                add(world, IDS[id], from, count);
            }
        }
        Step::End(id, commit) => {
            if let Some(from) = producer(world, id) {
                let (id, fresh) = (IDS[id].to_owned(), Some(ProducerId(fresh)));
                let end = |to| Request::End { id, from, commit, version: 2, fresh, to };
                world.ask(end);
            }
        }
        Step::Written(count) => {
            for prepared in world.look().prepared {
                let Prepared { id, producer, mut partitions, .. } = prepared;
                partitions.truncate(count as usize);
                world.ask(|to| Request::Written { id, producer, partitions, to });
            }
        }
        Step::Pass(ms) => world.pass(ms),
        Step::FailOver => world.fail_over(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn what_transactional_ids_take_is_counted_exactly(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let memory = Memory::default();
        let mut world = world(&memory);
        for (fresh, step) in (1..).zip(&steps) {
            carry_out(&mut world, step, fresh);
            prop_assert_eq!(memory.used_bytes(), world.machine.counted(), "after {:?}", step);
        }
        drop(world);
        prop_assert_eq!(memory.used_bytes(), 0);
    }
}

#[test]
fn transactional_ids_have_a_bound_together() {
    const BOUND: usize = 50_000;
    let memory = Memory::with_transactions("a test", BOUND);
    let mut worlds = [world(&memory), world(&memory)];
    let mut known = Vec::new();
    for number in 0..500 {
        let id = format!("id-{number}");
        match init(&mut worlds[number % 2], &id, number as i64) {
            Ok(producer) => known.push((id, producer)),
            Err(refusal) => assert_eq!(refusal, ErrorCode::PolicyViolation.into(), "{number}"),
        }
        assert!(memory.used_bytes() <= BOUND);
    }
    assert!((50..100).contains(&known.len()), "{}", known.len());
    // A known id goes on, and its transaction takes as many partitions as there is room for.
    let (id, _) = known[0].clone();
    let producer = init(&mut worlds[0], &id, 0).unwrap();
    assert_eq!(add(&mut worlds[0], &id, producer, 1_000), ErrorCode::CoordinatorNotAvailable);
    assert_eq!(add(&mut worlds[0], &id, producer, 1), ErrorCode::None);
    // A new coordinator loads all ids, even if it has less memory.
    let less = Memory::with_transactions("a test", 1_000);
    let mut next = world(&less);
    next.log = worlds[0].log.clone();
    next.fail_over();
    assert!(less.used_bytes() > 1_000);
    assert!(init(&mut next, &known[2].0, 0).is_ok());
    assert_eq!(init(&mut next, "new", 9_999), Err(ErrorCode::PolicyViolation.into()));
    // Ids that nobody uses expire, and give room.
    for world in &mut worlds {
        world.pass(8 * 24 * 3_600_000);
    }
    assert!(init(&mut worlds[1], "new", 9_999).is_ok());
}

/// Ids that nobody uses any more stay for days. The transactions of the others go on.
#[test]
fn ids_that_take_all_the_memory_stop_no_transaction() {
    let memory = Memory::with_transactions("a test", 50_000);
    let mut world = world(&memory);
    let mut known = Vec::new();
    for number in 0..200 {
        let id = format!("id-{number}");
        known.extend(init(&mut world, &id, number).ok().map(|producer| (id, producer)));
    }
    assert!(init(&mut world, "new", 9_999).is_err());
    for _ in 0..3 {
        for (id, from) in &mut known {
            assert_eq!(add(&mut world, id, *from, 2), ErrorCode::None, "{id}");
            carry_out_end(&mut world, id, from);
        }
    }
    // Open transactions have a bound, too, and an end gives room.
    let mut open = Vec::new();
    for (id, from) in &mut known {
        match add(&mut world, id, *from, 10) {
            ErrorCode::None => open.push((id.clone(), *from)),
            code => assert_eq!(code, ErrorCode::CoordinatorNotAvailable),
        }
    }
    assert!(!open.is_empty() && open.len() < known.len(), "{}", open.len());
    carry_out_end(&mut world, &open[0].0, &mut open[0].1.clone());
    let (id, from) = known.last().unwrap();
    assert_eq!(add(&mut world, id, *from, 10), ErrorCode::None);
    assert!(memory.used_bytes() <= 50_000);
}

/// Commits, and writes the markers.
fn carry_out_end(world: &mut World, id: &str, from: &mut Producer) {
    let end = |to| Request::End {
        id: id.to_owned(),
        from: *from,
        commit: true,
        version: 2,
        fresh: None,
        to,
    };
    world.ask(end);
    for Prepared { id, producer, partitions, .. } in world.look().prepared {
        world.ask(|to| Request::Written { id, producer, partitions, to });
    }
    *from = world.machine.ids.get(id).unwrap().producer;
}
