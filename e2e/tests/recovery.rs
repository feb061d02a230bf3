//! A cluster whose controller has lost its state is rebuilt from its brokers' volumes
//! (`spec.recoverFrom: Volumes`). Records, committed offsets and transactions continue.
//!
//! `kubernetes_recovery` tests it on Kubernetes. The controller's own tests cover what follows from
//! which volumes.
#![allow(clippy::unwrap_used, missing_docs)]

use weir_e2e::batch::Batch;
use weir_e2e::bystander::now_ms;
use weir_e2e::cluster::Local;
use weir_e2e::kubernetes::eventually;
use weir_e2e::txn::{Version, commit_offset, committed_offset, end, fetch, init, send};
use weir_e2e::wire::error::NONE;
use weir_e2e::wire::{Connection, await_topic, coordinator, create_topic, list_offset, produce};

const TOPIC: &str = "orders";
const LATEST: i64 = -1;
const TRANSACTIONAL: i16 = 1 << 4;
const MINUTE: i32 = 60_000;

/// These tests need `weir local` itself.
fn own() -> bool {
    std::env::var_os("WEIR_E2E_BOOTSTRAP").is_none()
}

fn cluster(brokers: u32, more: &str) -> String {
    let min_isr = brokers.min(2);
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata: {{name: local}}\nspec: {{{more} brokers: {{replicas: {brokers}}}, \
         config: {{default.replication.factor: {brokers}, min.insync.replicas: {min_isr}}}}}\n"
    )
}

/// Deletes the controller's state while nothing runs.
fn lose(local: &Local) {
    local.run(&["down"]).unwrap();
    std::fs::remove_dir_all(local.data().join("controller")).unwrap();
}

/// Starts the cluster with these resources.
fn up(local: &Local, yaml: &str) -> anyhow::Result<String> {
    let file = local.data().join("again.yaml");
    std::fs::write(&file, yaml).unwrap();
    local.run(&["up", "--detach", "-f", &file.to_string_lossy()])
}

fn topic_id(local: &Local) -> String {
    let topic = local.run(&["get", "topic", TOPIC, "-o", "json"]).unwrap();
    let topic: serde_json::Value = serde_json::from_str(&topic).unwrap();
    topic["metadata"]["annotations"]["weir.dev/topic-id"].as_str().unwrap().to_owned()
}

/// A connection to the leader of the topic's only partition.
fn leader(local: &Local) -> Connection {
    eventually("somebody leads", || {
        for broker in local.bootstrap().split(',') {
            let Ok(mut connection) = Connection::open(broker) else { continue };
            if list_offset(&mut connection, TOPIC, 0, LATEST).is_ok_and(|(code, _)| code == NONE) {
                return Ok(Some(connection));
            }
        }
        Ok(None)
    })
}

/// Writes one record and waits until all in-sync replicas have acknowledged it.
fn write(local: &Local, value: &str) {
    let batch = Batch::of(&[value.as_bytes()], now_ms()).encode();
    eventually("a record is acknowledged", || {
        let (code, _) = produce(&mut leader(local), TOPIC, 0, &batch)?;
        Ok((code == NONE).then_some(()))
    });
}

/// How often a value is in the records.
fn count(records: &[u8], value: &str) -> usize {
    records.windows(value.len()).filter(|window| *window == value.as_bytes()).count()
}

/// One of three brokers lacks the end of the log, and its volume must not decide. `images`: whether
/// the volumes still have the metadata of their last runs.
fn every_acknowledged_record_is_there(images: bool) {
    let local = Local::start_of(Some(3), Some(&cluster(3, ""))).unwrap();
    let mut connection = Connection::open(&local.bootstrap()).unwrap();
    assert_eq!(
        create_topic(&mut connection, TOPIC.as_bytes(), 1, 3, &[("retention.ms", "86400000")])
            .unwrap(),
        NONE
    );
    await_topic(&local.bootstrap(), TOPIC, 1).unwrap();
    let id = topic_id(&local);
    let value = |n: usize| format!("value-{n:03}");
    (0..5).for_each(|n| write(&local, &value(n)));
    local.run(&["kill", "0"]).unwrap();
    (5..10).for_each(|n| write(&local, &value(n)));
    lose(&local);
    if !images {
        for broker in 0..3 {
            std::fs::remove_file(local.data().join(format!("broker-{broker}/image"))).unwrap();
        }
    }
    let refused = up(&local, &cluster(3, "")).unwrap_err().to_string();
    assert!(refused.contains("belongs to"), "without the field it is another cluster: {refused}");
    std::fs::remove_dir_all(local.data().join("controller")).unwrap();
    up(&local, &cluster(3, "recoverFrom: Volumes,")).unwrap();
    assert_eq!(topic_id(&local), id);
    (10..12).for_each(|n| write(&local, &value(n)));
    let fetched = fetch(&mut leader(&local), TOPIC, 0, 0, false).unwrap();
    assert_eq!(fetched.high_watermark, 12);
    for n in 0..12 {
        assert_eq!(count(&fetched.records, &value(n)), 1, "{}", value(n));
    }
    let topic = local.run(&["get", "topic", TOPIC, "-o", "json"]).unwrap();
    assert_eq!(topic.contains("86400000"), images, "settings are what the last runs knew: {topic}");
    eventually("all replicas are in sync", || {
        let partitions = local.status()?.partitions.unwrap();
        Ok((partitions.under_replicated == 0 && partitions.offline == 0).then_some(()))
    });
    let strays = std::fs::read_dir(local.data().join("broker-0")).unwrap();
    let strays = strays
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with("-stray"));
    assert_eq!(strays.count(), 0, "nothing is set aside");
    // The field may stay in the file.
    local.run(&["down"]).unwrap();
    up(&local, &cluster(3, "recoverFrom: Volumes,")).unwrap();
    assert_eq!(fetch(&mut leader(&local), TOPIC, 0, 0, false).unwrap().high_watermark, 12);
}

#[test]
fn a_volume_that_is_missing_has_to_be_given_up() {
    if !own() {
        return;
    }
    let local = Local::start_of(Some(3), Some(&cluster(3, ""))).unwrap();
    let mut connection = Connection::open(&local.bootstrap()).unwrap();
    assert_eq!(create_topic(&mut connection, TOPIC.as_bytes(), 1, 3, &[]).unwrap(), NONE);
    await_topic(&local.bootstrap(), TOPIC, 1).unwrap();
    write(&local, "value");
    lose(&local);
    std::fs::remove_dir_all(local.data().join("broker-1")).unwrap();
    let recovers = cluster(3, "recoverFrom: Volumes,");
    let refused = up(&local, &recovers).unwrap_err().to_string();
    assert!(refused.contains("the volume of broker 1, which has a new one"), "{refused}");
    let given_up = recovers
        .replace("name: local", "name: local, annotations: {weir.dev/recover-without: \"1\"}");
    up(&local, &given_up).unwrap();
    write(&local, "more");
    let fetched = fetch(&mut leader(&local), TOPIC, 0, 0, false).unwrap();
    assert_eq!((count(&fetched.records, "value"), count(&fetched.records, "more")), (1, 1));
    eventually("the new volume is filled", || {
        Ok((local.status()?.partitions.unwrap().under_replicated == 0).then_some(()))
    });
}

#[test]
fn every_acknowledged_record_is_there_by_what_the_last_runs_knew() {
    if own() {
        every_acknowledged_record_is_there(true);
    }
}

#[test]
fn every_acknowledged_record_is_there_by_the_logs_alone() {
    if own() {
        every_acknowledged_record_is_there(false);
    }
}

#[test]
fn transactions_and_committed_offsets_go_on() {
    if !own() {
        return;
    }
    let local = Local::start_of(Some(1), Some(&cluster(1, ""))).unwrap();
    let mut c = Connection::open(&local.bootstrap()).unwrap();
    assert_eq!(create_topic(&mut c, TOPIC.as_bytes(), 1, 1, &[]).unwrap(), NONE);
    await_topic(&local.bootstrap(), TOPIC, 1).unwrap();
    let find = |c: &mut Connection, key: &str, kind: i8| {
        eventually("a coordinator", || {
            let mut reply = c.call(10, 1, &weir_e2e::wire::Body::default().str(key).i8(kind))?;
            reply.i32()?;
            Ok((reply.i16()? == NONE).then_some(()))
        });
    };
    let begin = |c: &mut Connection, id: &'static str| {
        find(c, id, 1);
        eventually("a producer id", || {
            let (code, from) = init(c, id, MINUTE, Version::V2)?;
            Ok((code == NONE).then_some(from))
        })
    };
    find(&mut c, "group", 0);
    let batch = |from: weir_e2e::txn::From<'_>, sequence, value: &str| {
        let mut batch = Batch::of(&[value.as_bytes()], now_ms()).from_producer(
            from.producer,
            from.epoch,
            sequence,
        );
        batch.attributes |= TRANSACTIONAL;
        batch.encode()
    };
    // One transaction is committed with an offset, and the next one is open.
    let from = begin(&mut c, "chain");
    assert_eq!(send(&mut c, from, TOPIC, 0, &batch(from, 0, "first")).unwrap().0, NONE);
    eventually("the offset is part of the transaction", || {
        let code = commit_offset(&mut c, from, "group", TOPIC, 7)?;
        Ok((code == NONE).then_some(()))
    });
    let (code, from) = end(&mut c, from, true).unwrap();
    assert_eq!(code, NONE);
    eventually("the offset is committed", || {
        Ok((committed_offset(&mut c, "group", TOPIC)? == 7).then_some(()))
    });
    eventually("the next transaction begins", || {
        let (code, _) = send(&mut c, from, TOPIC, 0, &batch(from, 0, "second"))?;
        Ok((code == NONE).then_some(()))
    });
    drop(c);
    lose(&local);
    up(&local, &cluster(1, "recoverFrom: Volumes,")).unwrap();
    let mut c = leader(&local);
    eventually("the group's coordinator", || {
        coordinator(&local.bootstrap(), "group")?;
        Ok((committed_offset(&mut c, "group", TOPIC)? == 7).then_some(()))
    });
    let shown = |c: &mut Connection| {
        let fetched = fetch(c, TOPIC, 0, 0, true).unwrap();
        (
            count(&fetched.records, "first"),
            count(&fetched.records, "second"),
            fetched.last_stable_offset,
        )
    };
    assert_eq!(shown(&mut c), (1, 0, 2), "what is open is not shown");
    // Its producer did not notice: it continues and commits.
    eventually("the transaction goes on", || {
        let (code, _) = send(&mut c, from, TOPIC, 0, &batch(from, 1, "third"))?;
        Ok((code == NONE).then_some(()))
    });
    let next = eventually("the transaction is committed", || {
        let (code, next) = end(&mut c, from, true)?;
        Ok((code == NONE).then_some(next))
    });
    eventually("what was open is shown", || Ok((shown(&mut c).1 == 1).then_some(())));
    assert_eq!(next.producer, from.producer);
    // A new producer gets an unused id.
    assert!(begin(&mut c, "later").producer > from.producer + 1_000_000);
}
