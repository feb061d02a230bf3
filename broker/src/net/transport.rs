//! The transport of a connection: plain TCP, or TLS over it. Only `input` and `output` see the
//! difference.

use std::io;

use bytes::BufMut;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::tls::{RECORD_BYTES_MAX, TlsStream};

/// A connection's stream of bytes.
#[derive(Debug)]
pub(super) enum Transport {
    /// The bytes are those of the socket.
    Plain(TcpStream),
    /// The bytes travel in records of TLS.
    Tls(Box<TlsStream>),
}

impl Transport {
    /// The socket below.
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.socket(),
        }
    }

    /// Returns when bytes can be read, the stream has ended, or it has failed. Now and then it lets
    /// other connections of the thread go first: a client may send faster than it is read, and what
    /// it sends may need no answer.
    pub(super) async fn readable(&self) -> io::Result<()> {
        tokio::task::consume_budget().await;
        match self {
            Self::Plain(socket) => socket.readable().await,
            Self::Tls(stream) => stream.readable().await,
        }
    }

    /// Reads into `target` without waiting, at most as much as it has room for. Returns 0 at the
    /// end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when there are no bytes, `InvalidData` when the peer breaks the protocol of
    /// TLS, and those of the socket.
    pub(super) fn try_read_buf(&mut self, target: &mut impl BufMut) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_read_buf(target),
            Self::Tls(stream) => stream.try_read_buf(target),
        }
    }

    /// Sends all of these bytes.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) async fn send_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.write_all(bytes).await,
            Self::Tls(stream) => {
                for record in bytes.chunks(RECORD_BYTES_MAX) {
                    stream.seal(record)?;
                    stream.send_all().await?;
                }
                Ok(())
            }
        }
    }

    /// At most so many bytes have arrived and are not read.
    pub(super) fn unread_bytes(&self) -> u64 {
        let in_socket = rustix::io::ioctl_fionread(self.socket()).unwrap_or(u64::MAX);
        match self {
            Self::Plain(_) => in_socket,
            Self::Tls(stream) => in_socket.saturating_add(stream.unread_bytes()),
        }
    }

    /// Says farewell, if the protocol has a way and the socket takes it at once.
    pub(super) fn close(&mut self) {
        if let Self::Tls(stream) = self {
            stream.close();
        }
    }
}
