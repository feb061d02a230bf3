//! A full disk.
//!
//! The test uses the limit of file sizes in place of a full disk. The limit can be set on a running
//! process, needs no root, and fails a write midway, as a full disk does.

use rustix::process::{Resource, Rlimit, prlimit};
use weir_protocol::error::ErrorCode;

use crate::support::{Cluster, batch, soon, topic};

/// The file size at which writes fail. It is not a multiple of a batch's size, so one batch is cut
/// off.
const FILE_BYTES_MAX: u64 = 200_000;
const BATCH_BYTES: usize = 16_000;

#[tokio::test]
async fn a_full_disk_fences_the_directory_and_loses_nothing() {
    let mut cluster = Cluster::start(vec![
        topic(1, "full", 1, &[("flush.mode", "group")]),
        topic(2, "other", 1, &[("flush.mode", "none")]),
    ])
    .await;
    let mut client = cluster.client().await;
    assert_eq!(client.produce("other", 0, -1, batch(&["kept"])).await.error_code, 0);
    let limit = Rlimit { current: Some(FILE_BYTES_MAX), maximum: Some(FILE_BYTES_MAX) };
    prlimit(Some(cluster.broker.pid()), Resource::Fsize, limit).unwrap();
    let mut acknowledged = Vec::new();
    let refused = loop {
        let value = format!("{:0BATCH_BYTES$}", acknowledged.len());
        let answered = client.produce("full", 0, -1, batch(&[&value])).await;
        if answered.error_code != 0 {
            break answered;
        }
        acknowledged.push((answered.base_offset, value));
        assert!(acknowledged.len() * BATCH_BYTES <= usize::try_from(FILE_BYTES_MAX).unwrap());
    };
    assert_eq!(ErrorCode::from_code(refused.error_code), ErrorCode::KafkaStorageError);
    assert!(!acknowledged.is_empty());

    // The log directory accepts no write, in any partition. Reads still work.
    let other = client.produce("other", 0, 1, batch(&["refused"])).await;
    assert_eq!(ErrorCode::from_code(other.error_code), ErrorCode::KafkaStorageError);
    assert_eq!(client.read_all("other", 0).await, [(0, "kept".to_owned())]);
    assert_eq!(client.read_all("full", 0).await, acknowledged);

    // The log, the pages and the controller get the reason.
    let line = cluster
        .broker
        .wait_for_line("the log directory is offline; it is read from, and not written to any more")
        .await;
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("File too large"), "{reason}");
    let (status, page) = cluster.broker.page("/readyz").await;
    assert_eq!((status, page.contains(reason)), (503, true), "{page}");
    assert!(cluster.broker.page("/metrics").await.1.contains("weir_broker_log_dir_online 0"));
    let told = async {
        while cluster.controller.log_dir_failure() != reason {
            tokio::task::yield_now().await;
        }
    };
    soon("the controller hears of it", told).await;

    // The broker does not stop in order, and its exit code says so. With free space the
    // acknowledged records are there, and appends work again.
    assert!(!cluster.broker.stop().await.success());
    cluster.restart().await;
    let mut client = cluster.client().await;
    assert_eq!(client.read_all("other", 0).await, [(0, "kept".to_owned())]);
    let found = client.read_all("full", 0).await;
    assert_eq!(found.get(..acknowledged.len()), Some(&acknowledged[..]));
    let next = client.produce("full", 0, -1, batch(&["after"])).await;
    assert_eq!((next.error_code, next.base_offset), (0, i64::try_from(found.len()).unwrap()));
}
