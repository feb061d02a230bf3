//! `/metrics`, `/healthz` and `/readyz`, for Prometheus, the kubelet and people.
//!
//! The pages only show state and change nothing. They have limits of their own, so slow or many
//! requests here do not take resources from clients. The process is healthy while
//! [`Probes::stuck`] is empty, and ready while [`Probes::not_ready`] is.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

/// The most connections at a time; more wait to be accepted. Only a few scrapers and probes
/// connect.
const CONNECTIONS_MAX: usize = 32;
/// The longest life of a connection.
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// The largest request head; bodies are not read.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The wait after a failed accept, which mostly means too few file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// The contents of the pages.
pub struct Probes {
    /// The metrics, in the OpenMetrics text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Why the program is not ready, one sentence each; empty when it is ready.
    pub not_ready: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Why the program needs a restart, one sentence each; empty while it works.
    pub stuck: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// One more page, which reads a disk: its name and its text.
    pub from_disk: Option<(&'static str, FromDisk)>,
}

/// Produces the text of a page, or the error of reading it.
pub type FromDisk = Arc<dyn Fn() -> io::Result<String> + Send + Sync>;

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probes").finish_non_exhaustive()
    }
}

/// Serves connections on `listener` until the caller drops the future.
pub async fn serve(listener: TcpListener, probes: Probes) -> Infallible {
    let probes = Arc::new(probes);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            unreachable!("nobody closes the semaphore")
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let probes = Arc::clone(&probes);
                connections.spawn(async move {
                    let _place = place;
                    if tokio::time::timeout(CONNECTION_MAX, connection(stream, probes))
                        .await
                        .is_err()
                    {
                        debug!("closed an HTTP connection that took too long");
                    }
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept an HTTP connection; trying again in 100 ms");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, probes: Arc<Probes>) {
    let service = service_fn(|request: Request<_>| {
        let probes = Arc::clone(&probes);
        async move {
            let (method, path) = (request.method(), request.uri().path());
            let response = match probes.disk_page(path).filter(|_| is_read(method)) {
                Some(text) => from_disk(text).await,
                None => page(&probes, method, path),
            };
            Ok::<_, Infallible>(response)
        }
    });
    // One request per connection, because an idle connection would hold a permit.
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

impl Probes {
    fn disk_page(&self, path: &str) -> Option<FromDisk> {
        let (name, text) = self.from_disk.as_ref()?;
        (path.strip_prefix('/') == Some(name)).then(|| Arc::clone(text))
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Reads on a blocking thread, so that other tasks of this thread do not wait for the disk.
async fn from_disk(text: FromDisk) -> Response<Full<Bytes>> {
    let read = tokio::task::spawn_blocking(move || text()).await;
    match read.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
        Ok(text) => response(StatusCode::OK, TEXT, text),
        Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

fn page(probes: &Probes, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if !is_read(method) {
        let mut refused =
            response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/metrics" => response(StatusCode::OK, OPEN_METRICS, (probes.metrics)()),
        "/healthz" => unless(&(probes.stuck)(), "ok\n"),
        "/readyz" => unless(&(probes.not_ready)(), "ready\n"),
        _ => response(
            StatusCode::NOT_FOUND,
            TEXT,
            "there are /metrics, /healthz and /readyz\n".to_owned(),
        ),
    }
}

fn unless(reasons: &[String], else_: &str) -> Response<Full<Bytes>> {
    match reasons {
        [] => response(StatusCode::OK, TEXT, else_.to_owned()),
        reasons => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, reasons.join("\n") + "\n"),
    }
}

fn response(status: StatusCode, content_type: HeaderValue, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn probes(reasons: &'static [&'static str]) -> Probes {
        Probes {
            metrics: Box::new(|| "a 1\n".to_owned()),
            not_ready: Box::new(|| reasons.iter().map(ToString::to_string).collect()),
            stuck: Box::new(Vec::new),
            from_disk: None,
        }
    }

    #[test]
    fn each_page_has_its_status() {
        let (ready, waiting) =
            (probes(&[]), probes(&["recovers 3 of 7 partitions", "no controller yet"]));
        let stuck =
            Probes { stuck: Box::new(|| vec!["does not get on".to_owned()]), ..probes(&[]) };
        let rows = [
            (&ready, Method::GET, "/healthz", 200),
            (&waiting, Method::GET, "/healthz", 200),
            (&ready, Method::HEAD, "/readyz", 200),
            (&waiting, Method::GET, "/readyz", 503),
            (&stuck, Method::GET, "/healthz", 503),
            (&stuck, Method::GET, "/readyz", 200),
            (&ready, Method::GET, "/metrics", 200),
            (&ready, Method::POST, "/metrics", 405),
            (&ready, Method::GET, "/", 404),
        ];
        for (probes, method, path, status) in rows {
            assert_eq!(page(probes, &method, path).status(), status, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn a_page_from_the_disk_is_read_beside_the_others() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let fails = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let failing = Arc::clone(&fails);
        let text = move || {
            let fails = failing.load(std::sync::atomic::Ordering::Relaxed);
            if fails { Err(io::Error::other("no disk")) } else { Ok("7 a\n".to_owned()) }
        };
        let probes = Probes { from_disk: Some(("list", Arc::new(text))), ..probes(&[]) };
        let server = tokio::spawn(serve(listener, probes));
        let answer = exchange(address, b"GET /list HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n7 a\n"),
            "{answer}"
        );
        let answer =
            exchange(address, b"POST /list HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        fails.store(true, std::sync::atomic::Ordering::Relaxed);
        let answer = exchange(address, b"GET /list HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 500 ") && answer.ends_with("no disk\n"), "{answer}");
        server.abort();
    }

    async fn exchange(address: std::net::SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // After an early refusal the connection may end in a reset behind the answer.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn it_answers_and_closes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, probes(&["no controller yet"])));
        let answer = exchange(address, b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\nno controller yet\n"),
            "{answer}"
        );
        let answer = exchange(address, b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(
            answer.contains("application/openmetrics-text") && answer.ends_with("a 1\n"),
            "{answer}"
        );
        let answer = exchange(address, b"\x00\x01 garbage\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        let long =
            [b"GET /".as_slice(), &vec![b'a'; 2 * HEAD_BYTES_MAX], b" HTTP/1.1\r\n\r\n"].concat();
        let answer = exchange(address, &long).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        // Silent connections hold permits, but only for a time, and here only half of them.
        let _silent: Vec<_> = futures::future::join_all(
            (0..CONNECTIONS_MAX / 2).map(|_| TcpStream::connect(address)),
        )
        .await;
        assert!(exchange(address, b"GET /healthz HTTP/1.0\r\n\r\n").await.ends_with("ok\n"));
        server.abort();
    }
}
