//! A connection to a broker. It sends requests and receives response frames, without copying a
//! frame.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use weir_protocol::api::ApiKey;
use weir_protocol::frame::{LENGTH_SIZE, encode_request};
use weir_protocol::messages::{Message, Request, ResponseHeader};
use weir_protocol::primitive::EncodeError;
use weir_tls::Identities;

use crate::stream::{Stream, open};
use crate::{Address, ClientError};

/// The least number of bytes to make room for at a time.
const READ_BYTES_MIN: usize = 16 * 1024;

/// The most bytes to make room for before they arrive. A larger response makes the buffer grow.
const READ_BYTES_MAX: usize = 1 << 20;

/// The name and the bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionSettings {
    /// The client id in each request.
    pub client_id: &'static str,
    /// The longest time to resolve the host, to connect, and for the handshake of TLS.
    pub connect_max: Duration,
    /// The longest time to send a request.
    pub send_max: Duration,
    /// The largest response that is accepted, in bytes.
    pub response_bytes_max: usize,
}

/// A connection. Requests may be under way while others are sent; their responses come in the order
/// of the requests.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    settings: ConnectionSettings,
    pub(crate) input: BytesMut,
    sent: i32,
    /// The requests without a response: correlation id, and the version of the response's header.
    awaited: VecDeque<(i32, i16)>,
    /// The end of the wait for the next response, once it has begun.
    deadline: Option<Instant>,
}

impl Connection {
    /// Connects. `identities` is what this process shows to a node.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub async fn open(
        address: &Address,
        identities: Option<&Identities>,
        settings: ConnectionSettings,
    ) -> Result<Self, ClientError> {
        Ok(Self {
            stream: open(address, identities, settings.connect_max).await?,
            settings,
            input: BytesMut::new(),
            sent: 0,
            awaited: VecDeque::new(),
            deadline: None,
        })
    }

    /// The number of requests without a response.
    pub fn awaited(&self) -> usize {
        self.awaited.len()
    }

    /// Sends a request, and does not wait for its response.
    ///
    /// # Errors
    /// When the request cannot be encoded, or not sent within `send_max`.
    pub async fn send<R: Request>(&mut self, version: i16, request: &R) -> Result<(), ClientError> {
        let unknown = EncodeError::Version { message: R::NAME, version };
        let api = ApiKey::from_key(R::API_KEY).ok_or(unknown)?;
        let frame = encode_request(request, api, version, self.sent, self.settings.client_id)?;
        let sending = async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await
        };
        timeout(self.settings.send_max, sending)
            .await
            .map_err(|_| ClientError::NotSent(self.settings.send_max))?
            .map_err(ClientError::Broken)?;
        self.awaited.push_back((self.sent, api.response_header_version(version)));
        self.sent = self.sent.wrapping_add(1);
        Ok(())
    }

    /// Receives the body of the response to the oldest request without one. Safe to cancel: bytes
    /// that have arrived stay in the buffer. The next call goes on with the same wait, whose bound
    /// is the first call's.
    ///
    /// # Errors
    /// When the connection ends, when the response is not complete within `within`, or when the
    /// bytes are no response to that request.
    pub async fn receive(&mut self, within: Duration) -> Result<Bytes, ClientError> {
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + within);
        let mut body = timeout_at(deadline, self.frame())
            .await
            .map_err(|_| ClientError::NoAnswer(within))??;
        self.deadline = None;
        let (expected, version) = self.awaited.pop_front().ok_or(ClientError::Unexpected)?;
        let header = ResponseHeader::decode(&mut body, version)?;
        if header.correlation_id != expected {
            return Err(ClientError::Unexpected);
        }
        Ok(body)
    }

    async fn frame(&mut self) -> Result<Bytes, ClientError> {
        let length = loop {
            let missing = match self.input.first_chunk::<LENGTH_SIZE>() {
                None => READ_BYTES_MIN,
                Some(prefix) => {
                    let length = u32::from_be_bytes(*prefix) as usize;
                    let limit = self.settings.response_bytes_max;
                    if length > limit {
                        return Err(ClientError::TooLong { length, limit });
                    }
                    if self.input.len() >= LENGTH_SIZE + length {
                        break length;
                    }
                    (LENGTH_SIZE + length - self.input.len()).min(READ_BYTES_MAX)
                }
            };
            // This reuses the buffer of the last response once nothing refers to it.
            self.input.reserve(missing);
            let read = self.stream.read_buf(&mut self.input).await;
            if read.map_err(ClientError::Broken)? == 0 {
                return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
        };
        self.input.advance(LENGTH_SIZE);
        Ok(self.input.split_to(length).freeze())
    }

    /// Frees the buffer if it is empty, after a response without records.
    pub fn shrink(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// Sends a request and receives its response, on a connection without other requests under way.
    /// `within` bounds both.
    ///
    /// # Errors
    /// Those of [`Connection::send`] and [`Connection::receive`], and when the response cannot be
    /// decoded.
    pub async fn call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        within: Duration,
    ) -> Result<R::Response, ClientError> {
        let exchange = async {
            self.send(version, request).await?;
            self.receive(within).await
        };
        let answered = timeout(within, exchange).await;
        let mut body = answered.map_err(|_| ClientError::NoAnswer(within))??;
        Ok(R::Response::decode(&mut body, version)?)
    }
}
