//! The codecs of record batches: the records of a batch to compressed bytes and back.
//!
//! Validation, compaction and lookups by time call it to read the records of a batch. It never
//! trusts the size that a compressed section claims. The output grows with what the decoder really
//! returns, up to the caller's limit.

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

/// The largest window that a zstd stream may ask for, as a power of two: the limit of zstd's own
/// tools and of Kafka's library (zstd-jni). The decoder touches that memory only as far as it
/// writes output, so it stays below the caller's limit.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// The bytes that are read from a decoder at a time.
const PIECE_BYTES: usize = 32 << 10;

/// The level of `codec` when no setting names one: the defaults of `compression.gzip.level` (-1,
/// which is zlib's own; or 1 to 9), `compression.lz4.level` (1 to 17) and `compression.zstd.level`
/// (-131072 to 22; KIP-390).
pub fn default_level(codec: Codec) -> i32 {
    match codec {
        Codec::Gzip => -1,
        Codec::Lz4 => 9,
        Codec::Zstd => 3,
        Codec::None | Codec::Snappy => 0,
    }
}

/// Decompresses `input` into at most `limit` bytes. Input without a codec is returned as it is.
///
/// # Errors
/// [`CompressionError::TooLarge`] once the output exceeds the limit, else what is wrong with the
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

/// All output of `reader`, but at most one byte more than `limit`.
fn read_all(reader: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut output = Vec::new();
    reader.take((limit as u64).saturating_add(1)).read_to_end(&mut output)?;
    Ok(output)
}

/// The output of the decoder of a compressed section, in pieces.
pub(crate) enum Piecewise<'a> {
    Gzip(BufReader<MultiGzDecoder<&'a [u8]>>),
    Snappy(xerial::Blocks<'a>),
    Lz4(lz4::Frame<'a>),
    Zstd(BufReader<zstd::stream::read::Decoder<'static, &'a [u8]>>),
}

/// Starts to decompress `input`, which has a codec and comes from a client, piece by piece.
///
/// # Errors
/// When the decoder cannot start, or when Java's decoder could not read the input.
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
/// independent blocks of 64 KiB, because Java reads no other.
///
/// Snappy has no levels. Every level of LZ4 gives the same result, because the encoder has only its
/// fast one.
///
/// # Errors
/// When the codec's encoder fails. No input makes it fail.
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
