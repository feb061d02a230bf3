//! `/metrics`, `/healthz` and `/readyz`, for Prometheus, kubelets and people. It only reads.
//!
//! A replica that stands by is ready, too: it answers brokers, if only by saying that it does not lead.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::Figures;

/// The most connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16;
/// The longest time from accepting a connection to its end.
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// The largest head of a request; bodies are not read.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long to wait after a failure to accept.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPEN_METRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Answers until it is dropped with the future.
pub(super) async fn serve(listener: TcpListener, figures: Arc<Figures>) -> Infallible {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            unreachable!("nobody closes the semaphore")
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let figures = Arc::clone(&figures);
                connections.spawn(async move {
                    let _place = place;
                    if tokio::time::timeout(CONNECTION_MAX, connection(stream, figures)).await.is_err() {
                        debug!("closed an HTTP connection that took too long");
                    }
                });
            }
            Err(error) => {
                warn!(%error, "accept an HTTP connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, figures: Arc<Figures>) {
    let service = service_fn(|request: Request<_>| {
        let response = page(&figures, request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "serve an HTTP connection");
    }
}

fn page(figures: &Figures, method: &Method, path: &str) -> Response<Full<Bytes>> {
    let (status, content_type, body) = match path {
        _ if !matches!(*method, Method::GET | Method::HEAD) => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned()),
        "/metrics" => (StatusCode::OK, OPEN_METRICS, render(figures)),
        "/healthz" => (StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" => (StatusCode::OK, TEXT, "ready\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz and /readyz\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn render(figures: &Figures) -> String {
    let mut registry = Registry::default();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let gauge = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register("weir_operator_leader", "Whether this replica leads", gauge(read(&figures.leader)));
    registry.register(
        "weir_operator_clusters",
        "Clusters that this replica is the controller of",
        gauge(read(&figures.clusters)),
    );
    registry.register(
        "weir_operator_reconciles",
        "Looks at a KafkaCluster",
        ConstCounter::new(read(&figures.reconciles)),
    );
    registry.register(
        "weir_operator_reconcile_errors",
        "Looks at a KafkaCluster that failed",
        ConstCounter::new(read(&figures.reconcile_errors)),
    );
    registry.register(
        "weir_operator_api_writes",
        "Writes to the Kubernetes API, but for leases and partition tables",
        ConstCounter::new(read(&figures.writes)),
    );
    let partitions = Family::<Vec<(&str, String)>, Gauge>::default();
    for ((namespace, cluster), summary) in figures.partitions().iter() {
        for (state, count) in [
            ("total", summary.total),
            ("offline", summary.offline),
            ("under_replicated", summary.under_replicated),
        ] {
            let labels = vec![
                ("namespace", namespace.clone()),
                ("cluster", cluster.clone()),
                ("state", state.to_owned()),
            ];
            partitions.get_or_create(&labels).set(count);
        }
    }
    registry.register(
        "weir_operator_partitions",
        "Partitions of the clusters that this replica is the controller of",
        partitions,
    );
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_has_its_status() {
        let figures = Figures::default();
        Figures::count(&figures.writes);
        let summary = weir_crds::PartitionSummary {
            total: 7,
            ..Default::default()
        };
        figures.partitions().insert(("n".to_owned(), "c".to_owned()), summary);
        let rows = [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/", 404)];
        for (path, status) in rows {
            assert_eq!(page(&figures, &Method::GET, path).status(), status, "{path}");
        }
        assert_eq!(page(&figures, &Method::POST, "/metrics").status(), 405);
        let text = render(&figures);
        assert!(
            text.contains("weir_operator_api_writes_total 1\n") && text.contains("weir_operator_leader 0\n"),
            "{text}"
        );
    }
}
