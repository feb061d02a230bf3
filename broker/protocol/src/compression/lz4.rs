//! LZ4 as Kafka's Java client reads it (`Lz4BlockInputStream`): one frame of independent blocks,
//! closed by its end mark.
//!
//! Decoders of other clients accept more. A batch that Java cannot read would stop every Java
//! consumer and Kafka's own followers at its offset. So Produce refuses it, as in Apache Kafka.

use std::io::{self, BufRead, Read};

use lz4_flex::frame::FrameDecoder;

mod block;

const MAGIC: u32 = 0x184D_2204;
/// The bit in a block's size that marks an uncompressed block.
const INCOMPRESSIBLE: u32 = 1 << 31;

const CUT_OFF: &str = "the frame ends without its end mark";

/// The blocks of a frame in their order. Bytes after the end mark are ignored.
#[derive(Clone)]
struct Blocks<'a> {
    rest: &'a [u8],
    /// The most bytes that a block may have, compressed or decompressed.
    largest: usize,
    /// The bytes of checksums after each block, and after the last one.
    checksums: (usize, usize),
}

struct Block<'a> {
    bytes: &'a [u8],
    is_compressed: bool,
}

impl<'a> Blocks<'a> {
    fn new(input: &'a [u8]) -> Result<Self, &'static str> {
        let (magic, input) = input.split_first_chunk().ok_or(CUT_OFF)?;
        if u32::from_le_bytes(*magic) != MAGIC {
            return Err("this is no LZ4 frame");
        }
        let (&[flags, descriptor], input) = input.split_first_chunk().ok_or(CUT_OFF)?;
        if flags >> 6 != 1 || flags & 0b11 != 0 {
            return Err("its version or a flag is none that Java knows");
        }
        if flags & 1 << 5 == 0 {
            return Err("its blocks depend on one another");
        }
        let size = descriptor >> 4;
        if descriptor & 0b1111 != 0 || !(4..=7).contains(&size) {
            return Err("its block size is none that Java knows");
        }
        let bytes_if = |flag: u8, bytes| if flags & flag == 0 { 0 } else { bytes };
        // One more byte is the checksum of the descriptor.
        let rest = input.get(bytes_if(1 << 3, 8) + 1..).ok_or(CUT_OFF)?;
        Ok(Self {
            rest,
            largest: 1 << (8 + 2 * size),
            checksums: (bytes_if(1 << 4, 4), bytes_if(1 << 2, 4)),
        })
    }

    /// The next block; `None` at the end mark.
    fn next(&mut self) -> Result<Option<Block<'a>>, &'static str> {
        let (size, behind) = self.rest.split_first_chunk().ok_or(CUT_OFF)?;
        let size = u32::from_le_bytes(*size);
        let is_compressed = size & INCOMPRESSIBLE == 0;
        let size = (size & !INCOMPRESSIBLE) as usize;
        let (checksum, content_checksum) = self.checksums;
        if size == 0 {
            return behind.get(..content_checksum).map(|_| None).ok_or(CUT_OFF);
        }
        if size > self.largest {
            return Err("a block is larger than its header says");
        }
        let (bytes, behind) = behind.split_at_checked(size).ok_or(CUT_OFF)?;
        self.rest = behind.get(checksum..).ok_or(CUT_OFF)?;
        Ok(Some(Block { bytes, is_compressed }))
    }
}

/// The output of a frame. As in Java, the frame ends at its end mark or at a block that gives no
/// bytes, whatever follows. `lz4_flex` itself would continue on the next read.
pub(crate) struct Frame<'a> {
    decoder: FrameDecoder<&'a [u8]>,
    unread: usize,
    is_over: bool,
    /// The blocks still to check.
    for_java: Option<Blocks<'a>>,
}

impl<'a> Frame<'a> {
    /// Reads a section of the log: as much as the decoder can read.
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { decoder: FrameDecoder::new(input), unread: 0, is_over: false, for_java: None }
    }

    /// Reads a section from a client: it fails where Java's decoder would fail.
    ///
    /// # Errors
    /// When Java could not read the frame from its header to its end mark.
    pub(super) fn for_java(input: &'a [u8]) -> Result<Self, &'static str> {
        let blocks = Blocks::new(input)?;
        let mut all = blocks.clone();
        while all.next()?.is_some() {}
        Ok(Self { for_java: Some(blocks), ..Self::new(input) })
    }
}

impl Read for Frame<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(target)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Frame<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.unread == 0 && !self.is_over {
            // `fill_buf` returns the whole of a block.
            let given = self.decoder.fill_buf()?;
            self.unread = given.len();
            self.is_over = given.is_empty();
            if let Some(blocks) = &mut self.for_java
                && let Some(block) = blocks.next().map_err(io::Error::other)?
                && block.is_compressed
                && !block::ends_well(block.bytes, given, blocks.largest)
            {
                return Err(io::Error::other("a block does not end as LZ4's blocks do"));
            }
        }
        if self.is_over { Ok(&[]) } else { self.decoder.fill_buf() }
    }

    fn consume(&mut self, bytes: usize) {
        self.decoder.consume(bytes);
        self.unread = self.unread.saturating_sub(bytes);
    }
}
