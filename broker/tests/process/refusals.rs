//! Refused starts: the broker logs the reason, and its exit code is not 0.

use crate::support::{BrokerProcess, Cluster, FakeController, Launch, topic};

/// Starts a broker that must refuse; returns all its log.
async fn refused(launch: &Launch) -> String {
    let mut broker = BrokerProcess::spawn(launch);
    let status = broker.ended().await;
    assert!(status.code().is_some_and(|code| code != 0), "{status}: {}", broker.log());
    broker.log()
}

fn assert_says(log: &str, reason: &str) {
    assert!(log.contains(reason), "{reason:?} is not in:\n{log}");
}

#[tokio::test]
async fn the_controller_of_another_cluster() {
    let controller = FakeController::start(Vec::new());
    let data = tempfile::tempdir().unwrap();
    let launch = Launch {
        cluster_id: "another".to_owned(),
        ..Launch::new(data.path(), controller.address())
    };
    assert_says(
        &refused(&launch).await,
        "this is the controller of cluster process-test (InconsistentClusterId)",
    );
}

/// Its successor, which gets another name in place of the cluster's id, says what is on the volume.
#[tokio::test]
async fn a_broker_that_serves_ends_when_its_cluster_has_lost_its_tables() {
    let mut cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    cluster.controller.go_away();
    cluster.controller.lose_tables();
    cluster.controller.come_back();
    let status = cluster.broker.ended().await;
    let log = cluster.broker.log();
    assert!(status.code().is_some_and(|code| code != 0), "{status}: {log}");
    assert_says(&log, "the cluster has lost its tables and recovers (InvalidRegistration)");
}

#[tokio::test]
async fn the_data_of_another_broker_or_cluster() {
    let mut cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    assert!(cluster.broker.stop().await.success());
    let rows = [
        (1, "process-test", "this is broker 1 of cluster process-test"),
        (0, "another", "this is broker 0 of cluster another"),
    ];
    for (id, cluster_id, reason) in rows {
        let launch = Launch { id, cluster_id: cluster_id.to_owned(), ..cluster.launch.clone() };
        let log = refused(&launch).await;
        assert_says(&log, "belongs to broker 0 of cluster process-test");
        assert_says(&log, reason);
    }
    // Its own cluster accepts the directory unchanged.
    cluster.restart().await;
}

#[tokio::test]
async fn data_that_is_in_use() {
    let cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    assert_says(&refused(&cluster.launch).await, "is in use by another process");
    let mut client = cluster.client().await;
    assert_eq!(client.fetch("t", 0, 0).await.error_code, 0);
}

#[tokio::test]
async fn a_directory_that_holds_something_else() {
    let controller = FakeController::start(Vec::new());
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("thesis.txt"), "unsaved").unwrap();
    let launch = Launch::new(data.path(), controller.address());
    assert_says(&refused(&launch).await, "is not empty");
    assert_eq!(std::fs::read(data.path().join("thesis.txt")).unwrap(), b"unsaved");
    // A file in place of the directory is refused too.
    let launch = Launch::new(&data.path().join("thesis.txt"), controller.address());
    assert_says(&refused(&launch).await, "thesis.txt");
}
