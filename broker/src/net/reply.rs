//! What goes back to a client, and how it gets onto the socket: small pieces in one write, large regions of a segment by `sendfile`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::log::File;

/// Below this many bytes, reading into the buffer that is written anyway costs less than a `sendfile` of its own.
const SENDFILE_BYTES_MIN: usize = 16 * 1024;

/// A run of bytes in a file that stays readable while this is held.
#[derive(Clone, Debug)]
pub struct FileRegion {
    /// The file.
    pub file: Arc<dyn File>,
    /// Where the run begins.
    pub position: u64,
    /// Its length in bytes.
    pub length: usize,
}

/// A piece of a reply.
#[derive(Clone, Debug)]
pub enum Chunk {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Bytes in a segment.
    Region(FileRegion),
}

/// A whole response frame, its length prefix included, in pieces.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The pieces in order. None at all: the request has no response (Produce with acks=0).
    pub chunks: Vec<Chunk>,
    /// The connection ends after it.
    pub close: bool,
}

impl Reply {
    /// A reply in one piece.
    pub fn bytes(bytes: Bytes) -> Self {
        Self {
            chunks: vec![Chunk::Bytes(bytes)],
            close: false,
        }
    }

    /// No reply but the end of the connection: where there is no response that could carry an error.
    pub fn close() -> Self {
        Self {
            chunks: Vec::new(),
            close: true,
        }
    }
}

/// The sending half of a connection: gathers small pieces until they must go out.
#[derive(Debug)]
pub(crate) struct Output {
    gathered: BytesMut,
    /// How long the client may take to make room before it is given up.
    stall_max: Duration,
}

impl Output {
    /// With nothing to send.
    pub(crate) fn new(stall_max: Duration) -> Self {
        Self {
            gathered: BytesMut::new(),
            stall_max,
        }
    }

    /// Takes `reply` up, and sends what should not be gathered. Returns the bytes of the reply.
    pub(crate) async fn push(&mut self, stream: &TcpStream, reply: Reply) -> io::Result<u64> {
        let mut bytes = 0;
        for chunk in reply.chunks {
            match chunk {
                Chunk::Bytes(piece) => {
                    bytes += piece.len() as u64;
                    if piece.len() < SENDFILE_BYTES_MIN {
                        self.gathered.extend_from_slice(&piece);
                    } else {
                        self.send_gathered(stream, true).await?;
                        self.send(stream, &piece, false).await?;
                    }
                }
                Chunk::Region(region) => {
                    bytes += region.length as u64;
                    match region.file.as_fd() {
                        Some(_) if region.length >= SENDFILE_BYTES_MIN => {
                            self.send_gathered(stream, true).await?;
                            self.send_region(stream, &region).await?;
                        }
                        _ => self.gather(&region)?,
                    }
                }
            }
            if self.gathered.len() >= 4 * SENDFILE_BYTES_MIN {
                self.send_gathered(stream, true).await?;
            }
        }
        Ok(bytes)
    }

    /// Sends what is gathered, and keeps no memory.
    pub(crate) async fn flush(&mut self, stream: &TcpStream) -> io::Result<()> {
        self.send_gathered(stream, false).await
    }

    async fn send_gathered(&mut self, stream: &TcpStream, more: bool) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let gathered = std::mem::take(&mut self.gathered);
        self.send(stream, &gathered, more).await
    }

    fn gather(&mut self, region: &FileRegion) -> io::Result<()> {
        let start = self.gathered.len();
        self.gathered.resize(start + region.length, 0);
        let (_, target) = self.gathered.split_at_mut(start);
        region.file.read_exact_at(target, region.position)
    }

    /// With `more`, the kernel may hold back a packet that is not full yet.
    async fn send(&self, stream: &TcpStream, mut bytes: &[u8], more: bool) -> io::Result<()> {
        let flags = if more {
            SendFlags::NOSIGNAL | SendFlags::MORE
        } else {
            SendFlags::NOSIGNAL
        };
        while !bytes.is_empty() {
            let sent = self.writable(stream, || Ok(rustix::net::send(stream, bytes, flags)?)).await?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    async fn send_region(&self, stream: &TcpStream, region: &FileRegion) -> io::Result<()> {
        let file = region.file.as_fd().ok_or(io::ErrorKind::Unsupported)?;
        let mut position = region.position;
        let end = region.position + region.length as u64;
        while position < end {
            let length = usize::try_from(end - position).unwrap_or(usize::MAX);
            if self
                .writable(stream, || Ok(rustix::fs::sendfile(stream, file, Some(&mut position), length)?))
                .await?
                == 0
            {
                // The file is shorter than what was published: never fill the frame with something else, end the connection.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    async fn writable(&self, stream: &TcpStream, write: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        tokio::time::timeout(self.stall_max, stream.async_io(Interest::WRITABLE, write))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?
    }
}
