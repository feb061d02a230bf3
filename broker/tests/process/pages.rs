//! The pages for Prometheus, the kubelet and people.

use std::time::Duration;

use crate::support::{BrokerProcess, Cluster, FakeController, Launch, batch, topic};

#[tokio::test]
async fn they_tell_of_a_broker_that_serves() {
    let cluster = Cluster::start(vec![topic(1, "t", 3, &[])]).await;
    let mut client = cluster.client().await;
    client.produce("t", 0, -1, batch(&["a"])).await;
    assert_ne!(client.produce("t", 9, -1, batch(&["a"])).await.error_code, 0);
    assert_eq!(cluster.broker.page("/healthz").await, (200, "ok\n".to_owned()));
    let (status, metrics) = cluster.broker.page("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "weir_broker_requests_total{api=\"Produce\"} 2",
        "weir_broker_request_errors_total{api=\"Produce\"} 1",
        "weir_broker_produced_records_total 1",
        "weir_broker_request_memory_bytes 0",
        "weir_broker_answer_memory_bytes 0",
        "weir_broker_connections 1",
        "weir_broker_partitions 3",
        "weir_broker_log_dir_online 1",
        "# EOF",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert_eq!(cluster.broker.page("/").await.0, 404);
}

#[tokio::test]
async fn how_much_was_recovered_can_be_measured() {
    let mut cluster = Cluster::start(vec![topic(1, "t", 3, &[])]).await;
    let mut client = cluster.client().await;
    for partition in 0..3 {
        client.produce("t", partition, -1, batch(&["a"])).await;
    }
    cluster.broker.kill().await;
    cluster.restart().await;
    let (_, metrics) = cluster.broker.page("/metrics").await;
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in\n{metrics}")).parse::<u64>().unwrap()
    };
    assert_eq!(
        (value("weir_broker_recovery_logs"), value("weir_broker_recovery_logs_done")),
        (3, 3)
    );
    let bytes = value("weir_broker_recovery_bytes");
    assert!(bytes > 0 && value("weir_broker_recovery_bytes_done") == bytes, "{metrics}");
}

#[tokio::test]
async fn a_broker_without_a_controller_is_healthy_and_not_ready() {
    let mut controller = FakeController::start(vec![topic(1, "t", 1, &[])]);
    controller.go_away();
    let data = tempfile::tempdir().unwrap();
    let mut broker = BrokerProcess::spawn(&Launch::new(data.path(), controller.address()));
    broker.find_pages().await;
    broker.wait_for_line("opened the log directory").await;
    assert_eq!(broker.page("/healthz").await.0, 200);
    let registers = async {
        loop {
            let (status, reason) = broker.page("/readyz").await;
            assert_eq!(status, 503, "{reason}");
            if reason.contains("not registered") {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), registers).await.unwrap();
    controller.come_back();
    broker.wait_for_line("listening").await;
    broker.ready().await;
}
