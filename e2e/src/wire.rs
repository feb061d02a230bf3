//! A hand-made Kafka connection: frames, headers, and bodies of integers and strings. `requests`
//! has those that the tests send.
//!
//! It can send what no client would. It shares no code with the broker, so that both do not have
//! the same mistake.

pub mod error;
mod requests;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub use self::requests::{
    FetchOf, await_topic, committed, coordinator, create_topic, init_producer_id,
    is_marked_for_deletion, list_offset, produce, produce_body,
};

/// The limit of a wait for an answer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Writes a request's body; all integers are big-endian.
#[derive(Debug, Default, Clone)]
pub struct Body(pub Vec<u8>);

impl Body {
    /// One byte.
    #[must_use]
    pub fn i8(mut self, v: i8) -> Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    /// Two bytes.
    #[must_use]
    pub fn i16(mut self, v: i16) -> Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    /// Four bytes.
    #[must_use]
    pub fn i32(mut self, v: i32) -> Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    /// Eight bytes.
    #[must_use]
    pub fn i64(mut self, v: i64) -> Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    /// A string with its length in two bytes.
    #[must_use]
    pub fn str(self, v: &str) -> Self {
        self.text(v.as_bytes())
    }
    /// The same as `str`, for bytes that need not be text.
    #[must_use]
    pub fn text(mut self, v: &[u8]) -> Self {
        self = self.i16(i16::try_from(v.len()).unwrap_or(i16::MAX));
        self.0.extend(v);
        self
    }
    /// Bytes with their length in four bytes.
    #[must_use]
    pub fn bytes(mut self, v: &[u8]) -> Self {
        self = self.i32(i32::try_from(v.len()).unwrap_or(i32::MAX));
        self.0.extend(v);
        self
    }
}

/// Reads a reply; reading past its end is an error.
#[derive(Debug)]
pub struct Reply(pub Vec<u8>, usize);

impl Reply {
    /// Reads bytes from another source, such as a record.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec(), 0)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let end = self.1 + N;
        let bytes = self.0.get(self.1..end).context("the reply ends early")?;
        self.1 = end;
        Ok(bytes.try_into()?)
    }
    /// One byte.
    ///
    /// # Errors
    /// When the reply ends.
    pub fn i8(&mut self) -> Result<i8> {
        self.take().map(i8::from_be_bytes)
    }
    /// Two bytes.
    ///
    /// # Errors
    /// When the reply ends.
    pub fn i16(&mut self) -> Result<i16> {
        self.take().map(i16::from_be_bytes)
    }
    /// Four bytes.
    ///
    /// # Errors
    /// When the reply ends.
    pub fn i32(&mut self) -> Result<i32> {
        self.take().map(i32::from_be_bytes)
    }
    /// Eight bytes.
    ///
    /// # Errors
    /// When the reply ends.
    pub fn i64(&mut self) -> Result<i64> {
        self.take().map(i64::from_be_bytes)
    }
    /// A string with its length in two bytes; null is empty.
    ///
    /// # Errors
    /// When the reply ends.
    pub fn str(&mut self) -> Result<String> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        let bytes = self.0.get(self.1..self.1 + length).context("the reply ends early")?;
        self.1 += length;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }
    /// All bytes that were not read yet.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        self.0.get(self.1..).unwrap_or_default()
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    correlation: i32,
}

impl Connection {
    /// Connects to the first of the addresses.
    ///
    /// # Errors
    /// When no process listens there.
    pub fn open(bootstrap: &str) -> Result<Self> {
        let first = bootstrap.split(',').next().unwrap_or(bootstrap);
        let address = first.to_socket_addrs()?.next().context("no address")?;
        let stream = TcpStream::connect_timeout(&address, PATIENCE).context("connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, correlation: 0 })
    }

    /// Sends raw bytes. It ignores an error, which means that the peer has closed already.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// A whole request frame: header version 1 with the client id `e2e`, then the body.
    #[must_use]
    pub fn frame(&mut self, api: i16, version: i16, body: &Body) -> Vec<u8> {
        self.correlation += 1;
        let header = Body::default().i16(api).i16(version).i32(self.correlation).str("e2e");
        Body::default().bytes(&[header.0, body.0.clone()].concat()).0
    }

    /// Sends a request and reads its reply.
    ///
    /// # Errors
    /// When the connection ends, or the reply is for another request.
    pub fn call(&mut self, api: i16, version: i16, body: &Body) -> Result<Reply> {
        let frame = self.frame(api, version, body);
        self.stream.write_all(&frame).context("send")?;
        let mut reply = self.reply()?;
        let correlation = reply.i32()?;
        ensure!(
            correlation == self.correlation,
            "the reply to request {correlation}, not {}",
            self.correlation
        );
        Ok(reply)
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn reply(&mut self) -> Result<Reply> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size).context("read a reply's size")?;
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(size))?];
        self.stream.read_exact(&mut frame).context("read a reply")?;
        Ok(Reply(frame, 0))
    }

    /// Checks that the broker closes the connection within the time without sending anything.
    ///
    /// # Errors
    /// When it sends something, or keeps the connection open.
    pub fn closed(&mut self, within: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(within))?;
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => Ok(()),
            Ok(_) => bail!("it answered"),
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                Ok(())
            }
            Err(e) => bail!("it stays open: {e}"),
        }
    }
}
