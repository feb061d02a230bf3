//! Sends replies to the socket: small pieces gathered into one write, large segment regions by
//! `sendfile`. Over TLS a region is read and sealed in pieces, a record each.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::answers::Sending;
use super::buffers;
use super::tls::{RECORD_BYTES_MAX, TlsStream};
use super::transport::Transport;
use crate::api::{Chunk, FileRegion, Reply};
use crate::budget::{AnswerMemory, Room};
use crate::metrics::{Metrics, Timing};
use weir_log::File;

/// The smallest `sendfile`. Below it, a read into the gathered buffer costs less.
const SENDFILE_BYTES_MIN: usize = 16 * 1024;

/// The most bytes gathered before a send.
const GATHERED_BYTES_MAX: usize = SENDFILE_BYTES_MIN;

/// How often an answer with a part of the budget is checked for a client that reads too slowly.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The most bytes of one `sendfile`, and so of the disk read before it.
const SENDFILE_BYTES_MAX: usize = 1 << 20;

/// The places for answers that leave together which a connection keeps while nothing is sent.
const LEAVING_KEPT_MAX: usize = 8;

/// The send half of a connection. It gathers small pieces until they must be sent.
#[derive(Debug)]
pub(crate) struct Output {
    gathered: BytesMut,
    /// How long the client may read nothing before the connection is closed.
    pub(super) stall_max: Duration,
    /// The answer being sent.
    sending: Sending,
    memory: AnswerMemory,
    /// The times of the requests whose answers end in the gathered bytes.
    leaving: Vec<Timing>,
    metrics: Arc<Metrics>,
}

impl Output {
    /// Creates an output with nothing to send.
    pub(crate) fn new(stall_max: Duration, memory: AnswerMemory, metrics: Arc<Metrics>) -> Self {
        Self {
            gathered: BytesMut::new(),
            stall_max,
            sending: Sending::of(Room::default(), false),
            memory,
            leaving: Vec::new(),
            metrics,
        }
    }

    /// Takes `reply` and sends everything that is not gathered. Returns the bytes of the reply.
    /// `others_have_room` says whether replies behind it hold a part of the budget.
    ///
    /// # Errors
    /// Those of the socket. `TimedOut` when the client reads nothing for too long. `QuotaExceeded`
    /// when others wait for the room that it holds.
    pub(crate) async fn push(
        &mut self,
        stream: &mut Transport,
        reply: Reply,
        others_have_room: bool,
    ) -> io::Result<u64> {
        let mut bytes = 0;
        let timing = reply.timing;
        self.sending = Sending::of(reply.room, others_have_room);
        for chunk in reply.chunks {
            let length = match &chunk {
                Chunk::Bytes(piece) => piece.len(),
                Chunk::Region(region) => region.length,
            };
            bytes += length as u64;
            if self.gathered.len() + length > GATHERED_BYTES_MAX {
                self.send_gathered(stream, true).await?;
            }
            match chunk {
                Chunk::Bytes(piece) if length < SENDFILE_BYTES_MIN => {
                    self.gathered.extend_from_slice(&piece)
                }
                Chunk::Bytes(piece) => self.send(stream, &piece, false).await?,
                Chunk::Region(region) if length < SENDFILE_BYTES_MIN => {
                    self.gather(&region).await?
                }
                Chunk::Region(region) => match stream {
                    Transport::Tls(stream) => self.send_region_sealed(stream, &region).await?,
                    Transport::Plain(socket) if region.file.as_fd().is_some() => {
                        self.send_region(socket, &region).await?;
                    }
                    Transport::Plain(_) => self.gather(&region).await?,
                },
            }
        }
        self.sending.is_done();
        self.leaving.extend(timing);
        if self.gathered.is_empty() {
            self.has_sent();
        }
        Ok(bytes)
    }

    /// Sends the gathered bytes and releases the buffer.
    pub(crate) async fn flush(&mut self, stream: &mut Transport) -> io::Result<()> {
        self.send_gathered(stream, false).await
    }

    async fn send_gathered(&mut self, stream: &mut Transport, more: bool) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let gathered = std::mem::take(&mut self.gathered);
        self.send(stream, &gathered, more).await?;
        self.has_sent();
        Ok(())
    }

    /// Everything that was gathered has left.
    fn has_sent(&mut self) {
        if self.leaving.is_empty() {
            return;
        }
        let now = std::time::Instant::now();
        for timing in self.leaving.drain(..) {
            self.metrics.request_left(&timing, now);
        }
        if self.leaving.capacity() > LEAVING_KEPT_MAX {
            self.leaving = Vec::new();
        }
    }

    async fn gather(&mut self, region: &FileRegion) -> io::Result<()> {
        let start = self.gathered.len();
        self.gathered.resize(start + region.length, 0);
        let (_, target) = self.gathered.split_at_mut(start);
        if region.file.read_cached(target, region.position)? {
            return Ok(());
        }
        load(&region.file, region.position, region.length).await?;
        let (_, target) = self.gathered.split_at_mut(start);
        region.file.read_exact_at(target, region.position)
    }

    /// With `more`, the kernel may hold back an incomplete packet.
    async fn send(&self, stream: &mut Transport, mut bytes: &[u8], more: bool) -> io::Result<()> {
        let socket = match stream {
            Transport::Plain(socket) => &*socket,
            Transport::Tls(stream) => return self.send_sealed(stream, bytes, more).await,
        };
        let flags = flags(more);
        while !bytes.is_empty() {
            let sent =
                self.writable(socket, || Ok(rustix::net::send(socket, bytes, flags)?)).await?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// Seals the bytes, a record at a time, and sends them.
    async fn send_sealed(
        &self,
        stream: &mut TlsStream,
        bytes: &[u8],
        more: bool,
    ) -> io::Result<()> {
        let mut records = bytes.chunks(RECORD_BYTES_MAX).peekable();
        while let Some(record) = records.next() {
            stream.seal(record)?;
            self.send_records(stream, more || records.peek().is_some()).await?;
        }
        Ok(())
    }

    async fn send_records(&self, stream: &mut TlsStream, more: bool) -> io::Result<()> {
        while stream.has_sealed() {
            let (socket, send) = stream.sending(flags(more));
            self.writable(socket, send).await?;
        }
        Ok(())
    }

    /// Reads a region in pieces, seals each as a record, and sends it. The buffer of the piece is
    /// back in the pool before the client is waited for.
    async fn send_region_sealed(
        &self,
        stream: &mut TlsStream,
        region: &FileRegion,
    ) -> io::Result<()> {
        let mut position = region.position;
        let end = region.position + region.length as u64;
        while position < end {
            let left = usize::try_from(end - position).unwrap_or(usize::MAX);
            let length = left.min(RECORD_BYTES_MAX);
            let mut piece = buffers::take_buffer();
            piece.resize(length, 0);
            if !region.file.read_cached(&mut piece, position)? {
                load(&region.file, position, left.min(SENDFILE_BYTES_MAX)).await?;
                region.file.read_exact_at(&mut piece, position)?;
            }
            stream.seal(&piece)?;
            piece.clear();
            buffers::give_buffer(piece);
            position += length as u64;
            self.send_records(stream, position < end).await?;
        }
        Ok(())
    }

    async fn send_region(&self, stream: &TcpStream, region: &FileRegion) -> io::Result<()> {
        let file = region.file.as_fd().ok_or(io::ErrorKind::Unsupported)?;
        let mut position = region.position;
        let end = region.position + region.length as u64;
        while position < end {
            let length =
                usize::try_from(end - position).unwrap_or(usize::MAX).min(SENDFILE_BYTES_MAX);
            if !region.file.is_cached(position, length) {
                load(&region.file, position, length).await?;
            }
            if self
                .writable(stream, || {
                    Ok(rustix::fs::sendfile(stream, file, Some(&mut position), length)?)
                })
                .await?
                == 0
            {
                // The file is shorter than its published size. The connection must end, because
                // other bytes must never fill the frame.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    async fn writable(
        &self,
        stream: &TcpStream,
        mut write: impl FnMut() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let since = Instant::now();
        loop {
            // A client that reads a byte now and then is overdue too.
            if self.sending.is_overdue(since.elapsed(), &self.memory) {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
            if since.elapsed() >= self.stall_max {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let wait = CHECK_INTERVAL.min(self.stall_max);
            if let Ok(written) =
                tokio::time::timeout(wait, stream.async_io(Interest::WRITABLE, &mut write)).await
            {
                return written;
            }
        }
    }
}

fn flags(more: bool) -> SendFlags {
    if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL }
}

/// Waits for the disk on another thread, because this one serves other connections too.
async fn load(file: &Arc<dyn File>, position: u64, length: usize) -> io::Result<()> {
    let file = Arc::clone(file);
    tokio::task::spawn_blocking(move || file.load(position, length))
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::thread::{self, ThreadId};

    use parking_lot::Mutex;
    use tokio::io::AsyncReadExt;
    use weir_protocol::api::ApiKey;

    use super::*;
    use crate::metrics::{PartitionReadings, Readings, RequestName};
    use weir_log::{Disk, Mode, Storage};

    /// A file that is not in the page cache until it is loaded.
    #[derive(Debug)]
    struct Cold {
        file: Arc<dyn File>,
        sendfile: bool,
        loaded: Mutex<Vec<(u64, usize, ThreadId)>>,
    }

    impl File for Cold {
        fn write_all_at(&self, slices: &mut [io::IoSlice<'_>], position: u64) -> io::Result<()> {
            self.file.write_all_at(slices, position)
        }

        fn read_at(&self, target: &mut [u8], position: u64) -> io::Result<usize> {
            self.file.read_at(target, position)
        }

        fn length(&self) -> io::Result<u64> {
            self.file.length()
        }

        fn truncate(&self, length: u64) -> io::Result<()> {
            self.file.truncate(length)
        }

        fn allocate(&self, length: u64) {
            self.file.allocate(length);
        }

        fn sync_data(&self) -> io::Result<()> {
            self.file.sync_data()
        }

        fn read_cached(&self, _: &mut [u8], _: u64) -> io::Result<bool> {
            Ok(false)
        }

        fn is_cached(&self, _: u64, _: usize) -> bool {
            false
        }

        fn load(&self, position: u64, length: usize) -> io::Result<()> {
            self.loaded.lock().push((position, length, thread::current().id()));
            self.file.load(position, length)
        }

        fn as_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
            self.file.as_fd().filter(|_| self.sendfile)
        }
    }

    /// A client and the connection to it.
    async fn connected() -> (TcpStream, Transport) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, (server, _)) =
            tokio::try_join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept())
                .unwrap();
        (client, Transport::Plain(server))
    }

    #[tokio::test]
    async fn an_answer_has_left_once_all_of_it_is_sent() {
        let (_client, mut server) = connected().await;
        let metrics = Arc::new(Metrics::new());
        let left = || {
            let text = metrics.render(Readings::default(), PartitionReadings::default());
            let name = "weir_broker_request_duration_seconds_count{api=\"Produce\"} ";
            let count = text.lines().find_map(|line| line.strip_prefix(name));
            count.map_or(0, |count| count.parse::<u32>().unwrap())
        };
        let reply = |bytes: usize| {
            let (name, now) = (RequestName::of(ApiKey::Produce), std::time::Instant::now());
            let timing = Some(Timing::answered(name, Duration::ZERO, now));
            Reply { timing, ..Reply::bytes(vec![0; bytes].into()) }
        };
        let mut output =
            Output::new(Duration::from_secs(60), AnswerMemory::new(0), Arc::clone(&metrics));
        for _ in 0..20 {
            output.push(&mut server, reply(100), false).await.unwrap();
        }
        assert_eq!(left(), 0, "they are gathered");
        output.push(&mut server, reply(SENDFILE_BYTES_MIN), false).await.unwrap();
        assert_eq!(left(), 21, "a large one sends what is before it");
        output.push(&mut server, reply(100), false).await.unwrap();
        assert_eq!(left(), 21);
        output.flush(&mut server).await.unwrap();
        assert_eq!(left(), 22);
        let of_no_bytes = Reply { chunks: Vec::new(), ..reply(0) };
        output.push(&mut server, of_no_bytes, false).await.unwrap();
        assert_eq!(left(), 23, "there is nothing to send");
    }

    #[tokio::test]
    async fn the_disk_is_waited_for_on_a_thread_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = Disk.open(&dir.path().join("f"), Mode::Create).unwrap();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        file.write_all_at(&mut [io::IoSlice::new(&bytes)], 0).unwrap();
        assert!(file.is_cached(10, 2_900_000), "what was just written is in the page cache");
        let mut read = [0; 5_000];
        assert!(file.read_cached(&mut read, 10).unwrap() && read[..] == bytes[10..5_010]);
        for (sendfile, length) in [(true, 2_500_000), (false, 100)] {
            let (mut client, mut server) = connected().await;
            let cold =
                Arc::new(Cold { file: Arc::clone(&file), sendfile, loaded: Mutex::default() });
            let region =
                FileRegion { file: Arc::clone(&cold) as Arc<dyn File>, position: 10, length };
            let sending = async {
                let mut output =
                    Output::new(Duration::from_secs(60), AnswerMemory::new(0), Arc::default());
                let reply = Reply { chunks: vec![Chunk::Region(region)], ..Reply::default() };
                output.push(&mut server, reply, false).await.unwrap();
                output.flush(&mut server).await.unwrap();
            };
            let mut received = vec![0; length];
            let (_, read) = tokio::join!(sending, client.read_exact(&mut received));
            read.unwrap();
            assert!(received == bytes[10..10 + length], "what is in the file is what is sent");
            let loaded = cold.loaded.lock();
            assert!(
                !loaded.is_empty()
                    && loaded.iter().all(|(_, length, thread)| *length <= SENDFILE_BYTES_MAX
                        && *thread != thread::current().id())
            );
        }
    }
}
