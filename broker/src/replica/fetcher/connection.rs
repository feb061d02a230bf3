//! A client connection to another broker. It sends requests and receives response frames, without
//! copying a frame.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_protocol::api::ApiKey;
use weir_protocol::frame::encode_request;
use weir_protocol::messages::{Message, Request, ResponseHeader};

/// The longest time to connect, and to send a request.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The largest response that is accepted, in bytes. It covers the largest fetch and one batch that
/// is larger than that.
const RESPONSE_BYTES_MAX: usize = 1 << 30;

/// The least number of bytes to read from the socket at a time.
const READ_BYTES_MIN: usize = 16 * 1024;

/// The connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    input: BytesMut,
    sent: i32,
    /// The requests without a response: correlation id, and the version of the response's header.
    awaited: VecDeque<(i32, i16)>,
}

impl Connection {
    /// Connects. TLS and authentication of this broker to another belong here.
    ///
    /// # Errors
    /// The I/O error, or `TimedOut` after [`CONNECT_MAX`].
    pub(crate) async fn open(host: &str, port: u16) -> io::Result<Self> {
        let stream = tokio::time::timeout(CONNECT_MAX, TcpStream::connect((host, port)))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: BytesMut::new(), sent: 0, awaited: VecDeque::new() })
    }

    /// The number of requests without a response.
    pub(super) fn awaited(&self) -> usize {
        self.awaited.len()
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When the request cannot be encoded, or not sent within [`CONNECT_MAX`].
    pub(super) async fn send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<()> {
        let api = ApiKey::from_key(R::API_KEY).ok_or(io::ErrorKind::Unsupported)?;
        let frame = encode_request(request, api, version, self.sent, "replica")
            .map_err(io::Error::other)?;
        tokio::time::timeout(CONNECT_MAX, self.stream.write_all(&frame))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        self.awaited.push_back((self.sent, api.response_header_version(version)));
        self.sent = self.sent.wrapping_add(1);
        Ok(())
    }

    /// Receives the body of the response to the oldest request without one. Safe to cancel: bytes
    /// that have arrived stay in the buffer.
    ///
    /// # Errors
    /// When the connection ends, or when the bytes are no response to that request.
    pub(super) async fn receive(&mut self) -> io::Result<Bytes> {
        let length = loop {
            let missing = match self.input.first_chunk::<4>() {
                None => READ_BYTES_MIN,
                Some(prefix) => {
                    let length = u32::from_be_bytes(*prefix) as usize;
                    if length > RESPONSE_BYTES_MAX {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            format!("a response of {length} bytes"),
                        ));
                    }
                    if self.input.len() >= 4 + length {
                        break length;
                    }
                    // `reserve` reuses the buffer of the last response once nothing refers to it.
                    4 + length - self.input.len()
                }
            };
            self.input.reserve(missing);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        self.input.advance(4);
        let mut body = self.input.split_to(length).freeze();
        let (expected, header_version) =
            self.awaited.pop_front().ok_or(io::ErrorKind::InvalidData)?;
        let header = ResponseHeader::decode(&mut body, header_version).map_err(io::Error::other)?;
        if header.correlation_id != expected {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a response to another request",
            ));
        }
        Ok(body)
    }

    /// Frees the buffer if it is empty, after a response without records.
    pub(super) fn shrink(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// Sends a request and receives its response, on a connection without other requests under way.
    ///
    /// # Errors
    /// Those of [`Connection::send`] and [`Connection::receive`], and when the response cannot be
    /// decoded.
    pub(crate) async fn call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> io::Result<R::Response> {
        self.send(version, request).await?;
        let mut body = self.receive().await?;
        R::Response::decode(&mut body, version).map_err(io::Error::other)
    }
}
