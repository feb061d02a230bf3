//! Snappy as Kafka's clients write it: Java clients in the framing of snappy-java (xerial), others
//! as one raw block.
//!
//! A framed stream is a magic number, two versions, and blocks, each after its length of four
//! bytes. Raw blocks are only read, never written.

use std::io::{self, BufRead, Read};

use snap::raw::{Decoder, Encoder, decompress_len};

use super::CompressionError;
use crate::batch::Codec;

/// The beginning of a framed stream (`org.xerial.snappy.SnappyCodec`).
const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];

/// The bytes of the magic number, the version, and the lowest version that can read the stream.
const HEADER_BYTES: usize = MAGIC.len() + 8;

/// The lowest version that snappy-java accepts in a header after the first
/// (`SnappyCodec.MINIMUM_COMPATIBLE_VERSION`). It does not check the version of the first.
const VERSION_MIN: i32 = 1;

/// The input bytes of one block, as in `SnappyOutputStream`.
const BLOCK_BYTES: usize = 32 * 1024;

/// No element of a snappy block expands a byte to more than 64 bytes, so a larger claim is false.
const EXPANSION_MAX: usize = 64;

fn corrupt(reason: impl ToString) -> CompressionError {
    CompressionError::corrupt(Codec::Snappy, reason)
}

pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let mut output = Vec::new();
    let mut blocks = Blocks::new(input);
    while let Some(compressed) = blocks.next_block()? {
        block(compressed, limit, &mut output)?;
    }
    Ok(output)
}

/// An iterator over the raw blocks of a section, with the output of the current one. It finds
/// blocks as snappy-java does (`SnappyInputStream`).
pub(crate) struct Blocks<'a> {
    rest: &'a [u8],
    is_framed: bool,
    block: Vec<u8>,
    position: usize,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        let framed = input.get(HEADER_BYTES..).filter(|_| input.starts_with(&MAGIC));
        Self {
            rest: framed.unwrap_or(input),
            is_framed: framed.is_some(),
            block: Vec::new(),
            position: 0,
        }
    }

    fn next_block(&mut self) -> Result<Option<&'a [u8]>, CompressionError> {
        if !self.is_framed {
            // A section without the magic number is one raw block, even if it is empty. Setting
            // `is_framed` with nothing left ends the iteration after it.
            self.is_framed = true;
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        // A stream that was written in two parts has a second header in place of a block.
        while let Some(header) = self.rest.strip_prefix(&MAGIC) {
            let cut_off = || corrupt("the header is cut off");
            let (version, _) = header.split_first_chunk().ok_or_else(cut_off)?;
            if i32::from_be_bytes(*version) < VERSION_MIN {
                return Err(corrupt("the version of a header is none that Java reads"));
            }
            self.rest = self.rest.get(HEADER_BYTES..).ok_or_else(cut_off)?;
        }
        // The stream ends when fewer bytes remain than a length takes.
        let Some((length, after)) = self.rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        let (compressed, after) =
            after.split_at_checked(length).ok_or_else(|| corrupt("a block is cut off"))?;
        self.rest = after;
        Ok(Some(compressed))
    }
}

impl Read for Blocks<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(target)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Blocks<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position >= self.block.len() {
            let Some(compressed) = self.next_block().map_err(io::Error::other)? else {
                return Ok(&[]);
            };
            self.block.clear();
            self.position = 0;
            block(compressed, usize::MAX, &mut self.block).map_err(io::Error::other)?;
        }
        Ok(self.block.get(self.position..).unwrap_or_default())
    }

    fn consume(&mut self, bytes: usize) {
        self.position += bytes;
    }
}

/// Appends the output of one raw block to `output`, which then has at most `limit` bytes.
fn block(input: &[u8], limit: usize, output: &mut Vec<u8>) -> Result<(), CompressionError> {
    let claimed = decompress_len(input).map_err(corrupt)?;
    let begin = output.len();
    let end = begin.saturating_add(claimed);
    if end > limit {
        return Err(CompressionError::TooLarge { limit });
    }
    if claimed > input.len().saturating_mul(EXPANSION_MAX) {
        return Err(corrupt("a block claims more than it can hold"));
    }
    output.resize(end, 0);
    let target = output.get_mut(begin..).unwrap_or_default();
    let written = Decoder::new().decompress(input, target).map_err(corrupt)?;
    output.truncate(begin + written);
    Ok(())
}

pub(super) fn compress(input: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let mut output = Vec::with_capacity(HEADER_BYTES + input.len() / 2);
    output.extend_from_slice(&MAGIC);
    // Both versions are 1.
    output.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    let mut encoder = Encoder::new();
    for chunk in input.chunks(BLOCK_BYTES) {
        let compressed = encoder.compress_vec(chunk).map_err(corrupt)?;
        let length = u32::try_from(compressed.len()).map_err(corrupt)?;
        output.extend_from_slice(&length.to_be_bytes());
        output.extend_from_slice(&compressed);
    }
    Ok(output)
}
