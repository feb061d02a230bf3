//! The codecs of record batches: the records of a batch to compressed bytes and back.
//!
//! Called where the records of a batch have to be looked into: validation, compaction, lookups by
//! time. What a compressed section claims about its size is never believed: output grows with what
//! the decoder really gives, up to the caller's limit.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read, Write};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use crate::batch::Codec;

mod error;
mod lz4;
mod xerial;

pub use self::error::CompressionError;

/// The largest window that a zstd stream may ask for, as a power of two: what zstd's own tools and
/// Kafka's library (zstd-jni) accept. The memory behind it is touched only as far as output is
/// written, so it stays below the caller's limit.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// What is taken from a decoder at a time.
const PIECE_BYTES: usize = 32 << 10;

/// How hard `codec` compresses when nothing else is said: the defaults of `compression.gzip.level`
/// (-1, which is zlib's own; or 1 to 9), `compression.lz4.level` (1 to 17) and
/// `compression.zstd.level` (-131072 to 22; KIP-390).
pub fn default_level(codec: Codec) -> i32 {
    match codec {
        Codec::Gzip => -1,
        Codec::Lz4 => 9,
        Codec::Zstd => 3,
        Codec::None | Codec::Snappy => 0,
    }
}

/// Decompresses `input`, which gives at most `limit` bytes; what is not compressed is handed back
/// as it is.
///
/// # Errors
/// [`CompressionError::TooLarge`] as soon as the limit is passed, else what is wrong with the
/// bytes.
pub fn decompress(
    codec: Codec,
    input: &[u8],
    limit: usize,
) -> Result<Cow<'_, [u8]>, CompressionError> {
    let output = match codec {
        Codec::None if input.len() > limit => return Err(CompressionError::TooLarge { limit }),
        Codec::None => return Ok(Cow::Borrowed(input)),
        Codec::Gzip => read_all(MultiGzDecoder::new(input), limit),
        Codec::Snappy => return xerial::decompress(input, limit).map(Cow::Owned),
        Codec::Lz4 => read_all(lz4::Frame::new(input), limit),
        Codec::Zstd => zstd_decoder(input).and_then(|decoder| read_all(decoder, limit)),
    };
    match output {
        Ok(output) if output.len() > limit => Err(CompressionError::TooLarge { limit }),
        Ok(output) => Ok(Cow::Owned(output)),
        Err(error) => Err(CompressionError::corrupt(codec, error)),
    }
}

fn zstd_decoder(input: &[u8]) -> io::Result<zstd::stream::read::Decoder<'static, &[u8]>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// All that `reader` gives, but not more than one byte beyond `limit`.
fn read_all(reader: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut output = Vec::new();
    reader.take((limit as u64).saturating_add(1)).read_to_end(&mut output)?;
    Ok(output)
}

/// The bytes of a compressed section as they come out of its decoder, piece by piece.
pub(crate) enum Piecewise<'a> {
    Gzip(BufReader<MultiGzDecoder<&'a [u8]>>),
    Snappy(xerial::Blocks<'a>),
    Lz4(lz4::Frame<'a>),
    Zstd(BufReader<zstd::stream::read::Decoder<'static, &'a [u8]>>),
}

/// Decompresses `input`, which has a codec and comes from a client, while it is read.
///
/// # Errors
/// When the decoder cannot begin, or when Java's could not read it.
pub(crate) fn piecewise(codec: Codec, input: &[u8]) -> Result<Piecewise<'_>, CompressionError> {
    Ok(match codec {
        Codec::None => return Err(CompressionError::UnknownCodec),
        Codec::Gzip => {
            Piecewise::Gzip(BufReader::with_capacity(PIECE_BYTES, MultiGzDecoder::new(input)))
        }
        Codec::Snappy => Piecewise::Snappy(xerial::Blocks::new(input)),
        Codec::Lz4 => Piecewise::Lz4(
            lz4::Frame::for_java(input)
                .map_err(|reason| CompressionError::corrupt(codec, reason))?,
        ),
        Codec::Zstd => {
            let decoder =
                zstd_decoder(input).map_err(|error| CompressionError::corrupt(codec, error))?;
            Piecewise::Zstd(BufReader::with_capacity(PIECE_BYTES, decoder))
        }
    })
}

impl Read for Piecewise<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(target)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Piecewise<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Gzip(reader) => reader.fill_buf(),
            Self::Snappy(reader) => reader.fill_buf(),
            Self::Lz4(reader) => reader.fill_buf(),
            Self::Zstd(reader) => reader.fill_buf(),
        }
    }

    fn consume(&mut self, bytes: usize) {
        match self {
            Self::Gzip(reader) => reader.consume(bytes),
            Self::Snappy(reader) => reader.consume(bytes),
            Self::Lz4(reader) => reader.consume(bytes),
            Self::Zstd(reader) => reader.consume(bytes),
        }
    }
}

/// Compresses `input` as Kafka's clients do: snappy in Java's framing, LZ4 as a frame of
/// independent blocks of 64 KiB, which is all that Java reads.
///
/// Snappy has no levels, and for LZ4 every level is the same: the encoder has one, the fast one.
///
/// # Errors
/// When the codec's encoder fails, which no input makes it do.
pub fn compress(codec: Codec, level: i32, input: &[u8]) -> Result<Cow<'_, [u8]>, CompressionError> {
    let output = match codec {
        Codec::None => return Ok(Cow::Borrowed(input)),
        Codec::Gzip => {
            let level = u32::try_from(level)
                .map_or_else(|_| Compression::default(), |level| Compression::new(level.min(9)));
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(input).and_then(|()| encoder.finish())
        }
        Codec::Snappy => return xerial::compress(input).map(Cow::Owned),
        Codec::Lz4 => {
            let info =
                FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
            let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(input).and_then(|()| encoder.finish().map_err(io::Error::other))
        }
        Codec::Zstd => zstd::bulk::compress(input, level),
    };
    output.map(Cow::Owned).map_err(|error| CompressionError::corrupt(codec, error))
}

#[cfg(test)]
mod tests;
