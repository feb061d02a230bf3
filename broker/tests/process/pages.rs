//! The pages for Prometheus, the kubelet and people.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use rustix::process::Signal;
use serde_json::Value;
use weir_protocol::api::ApiKey;
use weir_protocol::messages::{FetchRequest, Message, RequestHeader};

use crate::support::{
    BrokerProcess, Brokers, Client, Cluster, FakeController, Launch, batch, fetch_from,
    placed_topic, soon, topic,
};

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

/// A value of the metrics page.
fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// A phase of all requests of this name, in seconds.
fn seconds(metrics: &str, name: &str, phase: &str) -> f64 {
    let metric = "weir_broker_request_phase_duration_seconds_sum";
    value(metrics, &format!("{metric}{{api=\"{name}\",phase=\"{phase}\"}}"))
}

#[tokio::test]
async fn the_time_of_a_request_is_told_by_phase() {
    const STILL: Duration = Duration::from_millis(200);
    let topics = vec![
        placed_topic(1, "both", 1, &[0, 1], &[("min.insync.replicas", "2")]),
        placed_topic(2, "alone", 1, &[0], &[]),
    ];
    let mut brokers = Brokers::start(2, topics).await;
    let (mut client, mut consumer) = (brokers.client(0).await, brokers.client(0).await);
    // The follower is in sync.
    assert_eq!(client.produce("both", 0, -1, batch(&["a"])).await.error_code, 0);
    let before = brokers.broker(0).page("/metrics").await.1;
    // While the follower stands still, one produce waits for it, and the answer to another one
    // waits for that of the first. A consumer waits for records.
    brokers.broker(1).signal(Signal::STOP);
    client.send_produce("both", 0, -1, batch(&["b"])).await;
    client.send_produce("alone", 0, 1, batch(&["b"])).await;
    soon("the second produce is answered", async {
        let name = "weir_broker_requests_total{api=\"Produce\"}";
        while value(&brokers.broker(0).page("/metrics").await.1, name) < 2.0 {}
    })
    .await;
    let poll = FetchRequest {
        max_wait_ms: i32::try_from(STILL.as_millis()).unwrap(),
        min_bytes: 1,
        ..fetch_from("both", 0, 1)
    };
    let polled = consumer.call(12, &poll).await;
    assert_eq!(polled.responses[0].partitions[0].error_code, 0);
    brokers.broker(1).signal(Signal::CONT);
    for _ in 0..2 {
        assert_eq!(client.receive_produce().await.error_code, 0);
    }
    // An answer is in the client's hands a moment before it is counted.
    let after = soon("all requests are counted", async {
        loop {
            let page = brokers.broker(0).page("/metrics").await.1;
            let count = |api: &str| {
                let metric = "weir_broker_request_phase_duration_seconds_count";
                value(&page, &format!("{metric}{{api=\"{api}\",phase=\"send\"}}"))
            };
            if count("Produce") == 3.0 && count("FetchConsumer") == 1.0 {
                return page;
            }
        }
    })
    .await;
    let took = |name, phase| seconds(&after, name, phase) - seconds(&before, name, phase);
    let still = STILL.as_secs_f64();
    assert!(took("Produce", "wait") >= still, "{after}");
    assert!(took("Produce", "send") >= still, "{after}");
    assert!(took("FetchConsumer", "wait") >= still, "{after}");
    assert!(took("Produce", "work") > 0.0 && took("FetchConsumer", "work") > 0.0, "{after}");
    assert!(seconds(&after, "FetchFollower", "wait") > 0.0, "{after}");
    // The whole is the sum of its parts.
    let phases: f64 = ["queue", "work", "wait", "send"]
        .map(|phase| seconds(&after, "Produce", phase))
        .iter()
        .sum();
    let whole = value(&after, "weir_broker_request_duration_seconds_sum{api=\"Produce\"}");
    assert!((phases - whole).abs() < 1e-6, "{phases} {whole}");
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
    let value = |name: &str| value(&metrics, name);
    assert_eq!(
        (value("weir_broker_recovery_logs"), value("weir_broker_recovery_logs_done")),
        (3.0, 3.0)
    );
    let bytes = value("weir_broker_recovery_bytes");
    assert!(bytes > 0.0 && value("weir_broker_recovery_bytes_done") == bytes, "{metrics}");
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

/// What a log line says of the request that it is about: the fields of its span.
async fn told(broker: &mut BrokerProcess, client: &Client) -> Value {
    let line =
        broker.wait_for_line("closed a connection over a request that cannot be answered").await;
    assert!(!line["reason"].as_str().unwrap_or_default().is_empty(), "{line}");
    assert_eq!(line["span"]["peer"], client.address().to_string(), "{line}");
    line["span"].clone()
}

/// In production nothing is logged below `info`; a person who looks for more asks for `debug`.
#[tokio::test]
async fn a_log_line_says_whose_request_it_is_about() {
    for log in ["info", "info,weir_broker=debug"] {
        let controller = FakeController::start(vec![topic(1, "t", 1, &[])]);
        let data = tempfile::tempdir().unwrap();
        let launch =
            Launch { log: log.to_owned(), ..Launch::new(data.path(), controller.address()) };
        let mut broker = BrokerProcess::start(&launch).await;
        let mut client = Client::connect(broker.kafka()).await;
        client.knows("t", |partition| partition.error_code == 0).await;
        let number = client.sent();
        // A Metadata request that ends in the middle.
        let mut frame = BytesMut::new();
        let header = RequestHeader {
            request_api_key: ApiKey::Metadata.key(),
            request_api_version: 12,
            correlation_id: number,
            client_id: Some("billing".to_owned()),
        };
        header.encode(&mut frame, 2).unwrap();
        frame.put_u8(9);
        client.send_raw(&frame).await;
        client.closed().await;
        let about = told(&mut broker, &client).await;
        assert_eq!(about["api"], "Metadata", "{about}");
        assert_eq!(about["correlation_id"], number, "{about}");
        assert_eq!(about["client_id"], "billing", "{about}");
        assert_eq!(about["connection"], 1, "{about}");
    }
}

/// Of a frame that is no request only the connection is known.
#[tokio::test]
async fn a_log_line_names_the_connection_of_what_is_no_request() {
    let mut cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    let mut client = cluster.client().await;
    client.send_raw(&[0xff; 20]).await;
    client.closed().await;
    let about = told(&mut cluster.broker, &client).await;
    assert!(about["connection"].as_u64().is_some_and(|number| number > 0), "{about}");
}
