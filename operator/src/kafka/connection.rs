//! A connection to a broker: one request at a time, each with a deadline.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_protocol::api::ApiKey;
use weir_protocol::frame::encode_request;
use weir_protocol::messages::{Message, Request, ResponseHeader};

/// The most time to connect.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// The most time for a broker's answer, longer than a coordinator takes to load or to wait for its
/// followers.
const CALL_MAX: Duration = Duration::from_secs(15);

/// The largest accepted response; the offsets of every partition of the largest cluster are less.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// A connection to a broker.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    sent: i32,
}

impl Connection {
    pub(super) async fn open(host: &str, port: u16) -> io::Result<Self> {
        let stream = tokio::time::timeout(CONNECT_MAX, TcpStream::connect((host, port)))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, sent: 0 })
    }

    /// Sends a request and awaits its response. After an error the connection is unusable.
    pub(super) async fn call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> io::Result<R::Response> {
        let api = ApiKey::from_key(R::API_KEY).ok_or(io::ErrorKind::Unsupported)?;
        self.sent = self.sent.wrapping_add(1);
        let frame = encode_request(request, api, version, self.sent, "weir-operator")
            .map_err(io::Error::other)?;
        let mut body = tokio::time::timeout(CALL_MAX, self.exchange(&frame))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        let header = ResponseHeader::decode(&mut body, api.response_header_version(version))
            .map_err(io::Error::other)?;
        if header.correlation_id != self.sent {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a response to another request",
            ));
        }
        R::Response::decode(&mut body, version).map_err(io::Error::other)
    }

    async fn exchange(&mut self, frame: &[u8]) -> io::Result<Bytes> {
        self.stream.write_all(frame).await?;
        let length = self.stream.read_u32().await? as usize;
        if length > RESPONSE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a response of {length} bytes"),
            ));
        }
        // The buffer grows as bytes arrive, not by the claimed length.
        let mut body = BytesMut::new();
        while body.len() < length {
            let missing = (length - body.len()) as u64;
            if (&mut self.stream).take(missing).read_buf(&mut body).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(body.freeze())
    }
}
