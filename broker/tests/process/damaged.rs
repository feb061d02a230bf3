//! Coordinators whose log is damaged on disk: a load ends, and costs what cannot be read.

use std::path::{Path, PathBuf};

use weir_protocol::batch::Batches;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use crate::apis::NAME;
use crate::groups::{COORDINATORS, commit, fetch, found};
use crate::support::{Client, Cluster, batch, soon, topic};

const TRANSACTIONS: &str = "__transaction_state";

/// The position of a batch's magic byte.
const MAGIC_AT: usize = 16;

fn log_of(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.launch.data.join(format!("{name}-0/00000000000000000000.log"))
}

fn edit(log: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(log).unwrap();
    change(&mut bytes);
    std::fs::write(log, bytes).unwrap();
}

/// Flips a bit of the magic byte of the batch with this number.
fn flip_magic(log: &Path, number: usize) {
    edit(log, |bytes| {
        let sizes = Batches::new(bytes).map(|found| found.unwrap().1.len());
        let position: usize = sizes.take(number).sum();
        bytes[position + MAGIC_AT] ^= 1;
    });
}

async fn committed(client: &mut Client, group: &str) -> i64 {
    let fetched = client.call(9, &fetch(9, group)).await;
    assert_eq!(fetched.groups[0].error_code, 0, "{group}");
    fetched.groups[0].topics[0].partitions[0].committed_offset
}

async fn commits(client: &mut Client, group: &str, offset: i64) {
    let answer = client.call(9, &commit(9, group, offset)).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, 0, "{group}");
}

/// A broker whose group coordinator has one batch for each group: a, b and c.
async fn with_groups() -> Cluster {
    let cluster =
        Cluster::start(vec![topic(1, NAME, 2, &[]), topic(2, COORDINATORS, 1, &[])]).await;
    let mut client = cluster.client().await;
    found(&mut client, "a").await;
    for (group, offset) in [("a", 7), ("b", 8), ("c", 9)] {
        commits(&mut client, group, offset).await;
    }
    cluster
}

#[tokio::test]
async fn a_damaged_batch_of_groups_costs_its_offsets() {
    let harms: [(&str, fn(&Path), [i64; 3]); 3] = [
        ("a bit in the second batch", |log| flip_magic(log, 1), [7, -1, 9]),
        ("half of the file", |log| edit(log, |bytes| bytes.truncate(bytes.len() / 2)), [7, -1, -1]),
        ("all of the file", |log| edit(log, Vec::clear), [-1, -1, -1]),
    ];
    for (what, harm, expected) in harms {
        let mut cluster = with_groups().await;
        assert!(cluster.broker.stop().await.success());
        harm(&log_of(&cluster, COORDINATORS));
        cluster.restart().await;
        let mut client = cluster.client().await;
        found(&mut client, "a").await;
        for (group, offset) in ["a", "b", "c"].into_iter().zip(expected) {
            assert_eq!(committed(&mut client, group).await, offset, "{what}: {group}");
        }
        let line = cluster
            .broker
            .wait_for_line(
                "the log of a coordinator is damaged; what these offsets held is left out",
            )
            .await;
        let first = expected.iter().position(|offset| *offset < 0).unwrap();
        let named = line["offsets"].as_str().unwrap();
        assert!(named.starts_with(&format!("{first}..")), "{what}: {named}");
        // What comes after is there with the next start.
        commits(&mut client, "b", 17).await;
        cluster.broker.kill().await;
        cluster.restart().await;
        let mut client = cluster.client().await;
        found(&mut client, "a").await;
        assert_eq!(committed(&mut client, "b").await, 17, "{what}");
    }
}

/// What is gone while a broker is stopped or killed concerns its log alone: the broker tells the
/// controller, and takes writes.
#[tokio::test]
async fn what_is_gone_concerns_its_log_alone() {
    let segment = |data: &Path| {
        std::fs::remove_file(data.join("t-0/00000000000000000000.log")).unwrap();
    };
    let directory = |data: &Path| std::fs::remove_dir_all(data.join("t-0")).unwrap();
    let exchange = |data: &Path| {
        for (from, to) in [("t-0", "x"), ("t-1", "t-0"), ("x", "t-1")] {
            std::fs::rename(data.join(from), data.join(to)).unwrap();
        }
    };
    let harms = [
        ("a segment, stopped", true, &segment as &dyn Fn(&Path), [0, 1]),
        ("a segment, killed", false, &segment, [0, 1]),
        ("a directory, killed", false, &directory, [0, 1]),
        ("exchanged, stopped", true, &exchange, [0, 0]),
        ("exchanged, killed", false, &exchange, [0, 0]),
    ];
    for (what, in_order, harm, offsets) in harms {
        let mut cluster = Cluster::start(vec![topic(1, "t", 2, &[])]).await;
        let mut client = cluster.client().await;
        for partition in [0, 1] {
            assert_eq!(client.produce("t", partition, -1, batch(&["0"])).await.error_code, 0);
        }
        match in_order {
            true => assert!(cluster.broker.stop().await.success()),
            false => cluster.broker.kill().await,
        }
        harm(&cluster.launch.data);
        cluster.restart().await;
        assert!(!cluster.controller.registrations(2).await[1].clean, "{what}");
        let mut client = cluster.client().await;
        for (partition, offset) in [0, 1].into_iter().zip(offsets) {
            let produced = client.produce("t", partition, -1, batch(&["1"])).await;
            assert_eq!((produced.error_code, produced.base_offset), (0, offset), "{what}");
        }
        assert_eq!(cluster.controller.log_dir_failure(), "", "{what}");
        cluster.broker.kill().await;
        cluster.restart().await;
        assert!(cluster.controller.registrations(3).await[2].clean, "{what}: it is told once");
    }
}

/// InitProducerId, until the coordinator has loaded.
async fn begun(client: &mut Client, id: &str) -> InitProducerIdResponse {
    let request = InitProducerIdRequest {
        transactional_id: Some(id.to_owned()),
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    soon("a coordinator", async {
        loop {
            let answer = client.call(4, &request).await;
            match ErrorCode::from_code(answer.error_code) {
                ErrorCode::None => return answer,
                ErrorCode::CoordinatorLoadInProgress
                | ErrorCode::CoordinatorNotAvailable
                | ErrorCode::NotCoordinator => tokio::task::yield_now().await,
                error => panic!("{error}"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_damaged_batch_of_transactions_costs_its_transactional_id() {
    let mut cluster = Cluster::start(vec![topic(2, TRANSACTIONS, 1, &[])]).await;
    let mut client = cluster.client().await;
    let mut known = Vec::new();
    for id in ["a", "b", "c"] {
        known.push(begun(&mut client, id).await.producer_id);
    }
    assert!(cluster.broker.stop().await.success());
    flip_magic(&log_of(&cluster, TRANSACTIONS), 1);
    cluster.restart().await;
    let mut client = cluster.client().await;
    for (id, before) in ["a", "b", "c"].into_iter().zip(known) {
        let again = begun(&mut client, id).await;
        let goes_on = (again.producer_id, again.producer_epoch) == (before, 1);
        assert_eq!(goes_on, id != "b", "{id}: {again:?}");
    }
}
