//! A TLS connection over a socket: records are opened as they arrive, and sealed one at a time.
//!
//! An idle stream holds no buffer of records. While bytes come or go it holds at most the records
//! of one read and one record to send (`memory::TLS_CONNECTION_BYTES`).

use std::fmt;
use std::io::{self, BufRead, Write};

use bytes::{BufMut, BytesMut};
use rustix::net::SendFlags;
use rustls::ServerConnection;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::super::buffers::{self, READ_BUFFER_BYTES};

/// The most bytes in one record.
pub(in crate::net) const RECORD_BYTES_MAX: usize = 16 * 1024;

/// The server's end of a TLS connection.
pub(in crate::net) struct TlsStream {
    socket: TcpStream,
    session: ServerConnection,
    /// Bytes of the socket; those from `opened` on are not opened yet.
    sealed: BytesMut,
    opened: usize,
    /// Whether opened bytes may be left from the last read.
    has_more: bool,
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl TlsStream {
    pub(super) fn new(socket: TcpStream, session: ServerConnection) -> Self {
        Self { socket, session, sealed: BytesMut::new(), opened: 0, has_more: false }
    }

    pub(super) fn session(&self) -> &ServerConnection {
        &self.session
    }

    /// The socket below.
    pub(in crate::net) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// See `Transport`.
    pub(in crate::net) async fn readable(&self) -> io::Result<()> {
        if self.has_more || self.opened < self.sealed.len() {
            return Ok(());
        }
        self.socket.readable().await
    }

    /// See `Transport`.
    pub(in crate::net) fn unread_bytes(&self) -> u64 {
        let opened = if self.has_more { RECORD_BYTES_MAX } else { 0 };
        (self.sealed.len() - self.opened + opened) as u64
    }

    /// See `Transport`. Opens at most the records of one read, so that others get their turn.
    pub(in crate::net) fn try_read_buf(&mut self, target: &mut impl BufMut) -> io::Result<usize> {
        match self.take_opened(target)? {
            Some(read) => Ok(read),
            None if self.fill()? == 0 => Ok(0),
            None => self.take_opened(target)?.ok_or_else(|| io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Moves opened bytes into `target`. Returns 0 at the end of the stream, and `None` if no bytes
    /// are opened.
    fn take_opened(&mut self, target: &mut impl BufMut) -> io::Result<Option<usize>> {
        let mut read = 0;
        // True also at the end of the stream, which no byte of the socket announces.
        self.has_more = true;
        while target.has_remaining_mut() {
            let mut reader = self.session.reader();
            let chunk = match reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.has_more = false;
                    return Ok((read > 0).then_some(read));
                }
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                // The client has said that nothing follows.
                break;
            }
            let taken = chunk.len().min(target.remaining_mut());
            target.put_slice(chunk.get(..taken).unwrap_or_default());
            reader.consume(taken);
            read += taken;
        }
        Ok(Some(read))
    }

    /// Opens the records that have arrived, until there are bytes to read. Reads the socket once if
    /// all are opened. Returns how many sealed bytes it has opened: 0 at the end of the stream.
    pub(super) fn fill(&mut self) -> io::Result<usize> {
        if self.opened == self.sealed.len() {
            self.sealed.clear();
            self.opened = 0;
            if self.sealed.capacity() == 0 {
                self.sealed = buffers::take_buffer();
            }
            self.sealed.reserve(READ_BUFFER_BYTES);
            let read = self.socket.try_read_buf(&mut (&mut self.sealed).limit(READ_BUFFER_BYTES));
            if self.sealed.is_empty() {
                buffers::give_buffer(std::mem::take(&mut self.sealed));
            }
            if read? == 0 {
                return Ok(0);
            }
        }
        let before = self.opened;
        while let Some(mut rest @ [_, ..]) = self.sealed.get(self.opened..) {
            self.opened += self.session.read_tls(&mut rest)?;
            let state = self.session.process_new_packets();
            if self.session.wants_write() {
                // An alert, or the answer to a change of keys. What the socket does not take now
                // goes before the next record.
                let _ = self.try_send();
            }
            let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if state.plaintext_bytes_to_read() > 0 || state.peer_has_closed() {
                break;
            }
        }
        Ok(self.opened - before)
    }

    /// Seals one record of at most [`RECORD_BYTES_MAX`], to be sent by [`Self::send_sealed`].
    ///
    /// # Errors
    /// When an earlier record is not sent.
    pub(in crate::net) fn seal(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.session.writer().write(bytes)? < bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    /// Whether sealed bytes are not sent yet.
    pub(in crate::net) fn has_sealed(&self) -> bool {
        self.session.wants_write()
    }

    /// The socket, and what sends sealed bytes to it: once, without waiting.
    pub(in crate::net) fn sending(
        &mut self,
        flags: SendFlags,
    ) -> (&TcpStream, impl FnMut() -> io::Result<usize>) {
        let (socket, session) = (&self.socket, &mut self.session);
        (socket, move || session.write_tls(&mut Sink { socket, flags }))
    }

    fn try_send(&mut self) -> io::Result<()> {
        let Self { socket, session, .. } = self;
        while session.wants_write() {
            let mut sink = Sink { socket, flags: SendFlags::NOSIGNAL };
            socket.try_io(Interest::WRITABLE, || session.write_tls(&mut sink))?;
        }
        Ok(())
    }

    /// Sends everything that is sealed.
    pub(in crate::net) async fn send_all(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            let (socket, send) = self.sending(SendFlags::NOSIGNAL);
            socket.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }

    /// See `Transport`.
    pub(in crate::net) fn close(&mut self) {
        self.session.send_close_notify();
        // The connection ends in any case.
        let _ = self.try_send();
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        self.sealed.clear();
        buffers::give_buffer(std::mem::take(&mut self.sealed));
    }
}

/// Writes to the socket with the flags of one send.
struct Sink<'a> {
    socket: &'a TcpStream,
    flags: SendFlags,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.socket, bytes, self.flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
