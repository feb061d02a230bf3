//! Reads a page of a broker at the address of its pod.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The most bytes of a page.
const BYTES_MAX: usize = 1 << 20;

/// Reads a page, whatever its HTTP status.
///
/// # Errors
/// When the broker does not answer within `answer_max`, or sends more than [`BYTES_MAX`].
pub(super) async fn page(
    address: IpAddr,
    port: u16,
    path: &'static str,
    answer_max: Duration,
) -> anyhow::Result<(StatusCode, String)> {
    let ask = async {
        let stream = TcpStream::connect((address, port)).await.context("connect")?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        let request = Request::get(path).header("host", "broker").body(Empty::<Bytes>::new())?;
        let answered = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
            anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::pin!(answered);
        tokio::select! {
            biased;
            page = &mut answered => page,
            ended = connection => {
                ended?;
                answered.await
            }
        }
    };
    tokio::time::timeout(answer_max, ask).await.context("no answer in time")?
}
