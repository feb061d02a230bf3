//! The reply to a client: a frame in pieces, in memory and in segments.

use std::sync::Arc;

use bytes::Bytes;

use crate::budget::Room;
use crate::metrics::Timing;
use weir_log::{File, ReadSlice};

/// A run of bytes in a file, which stays readable while this exists.
#[derive(Clone, Debug)]
pub(crate) struct FileRegion {
    /// The file.
    pub(crate) file: Arc<dyn File>,
    /// The position of the first byte.
    pub(crate) position: u64,
    /// Its length in bytes.
    pub(crate) length: usize,
}

impl From<ReadSlice> for FileRegion {
    fn from(slice: ReadSlice) -> Self {
        Self { file: slice.file, position: slice.position, length: slice.length }
    }
}

/// A piece of a reply.
#[derive(Clone, Debug)]
pub(crate) enum Chunk {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Bytes in a segment.
    Region(FileRegion),
}

/// A whole response frame in pieces, with its length prefix.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    /// The pieces in order. Empty when the request has no response (Produce with acks=0).
    pub(crate) chunks: Vec<Chunk>,
    /// Whether the connection is closed after it.
    pub(crate) close: bool,
    /// Its room in the budget of answers.
    pub(crate) room: Room,
    /// The times of its request.
    pub(crate) timing: Option<Timing>,
}

impl Reply {
    /// A reply in one piece.
    pub(crate) fn bytes(bytes: Bytes) -> Self {
        Self { chunks: vec![Chunk::Bytes(bytes)], ..Self::default() }
    }

    /// Closes the connection without a response, when no response can carry the error.
    pub(crate) fn close() -> Self {
        Self { close: true, ..Self::default() }
    }
}
