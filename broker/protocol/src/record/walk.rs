//! Checks the records of a batch before it is appended, without keeping them. It decompresses in
//! pieces, so a batch takes only the memory of its decoder, however many records it holds.

use std::io::{self, BufRead};

use thiserror::Error;

use super::{INT_BYTES_MAX, LONG_BYTES_MAX, Record, RecordError, Records, int, long, parse};
use crate::batch::{BatchHeader, Codec, HEADER_BYTES};
use crate::compression::{self, CompressionError};

/// Why the records of a batch could not be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WalkError {
    /// They do not match the batch's header, or are malformed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// They cannot be decompressed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// The parts of a record that the caller sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its offset minus the batch's base offset.
    pub offset_delta: i32,
    /// Its timestamp minus the batch's base timestamp, in milliseconds.
    pub timestamp_delta: i64,
    /// Whether it has a key.
    pub has_key: bool,
}

impl Seen {
    fn of(record: &Record<'_>) -> Self {
        Self {
            offset_delta: record.offset_delta,
            timestamp_delta: record.timestamp_delta,
            has_key: record.key.is_some(),
        }
    }

    /// Its own timestamp. In a batch with the time of its append, that time replaces it.
    pub fn timestamp(&self, batch: &BatchHeader) -> i64 {
        batch.base_timestamp.wrapping_add(self.timestamp_delta)
    }
}

/// Calls `each` for every record of a batch, in order. A compressed record may have at most
/// `record_bytes_max` bytes without its length, and all of them together at most `limit` bytes.
/// Returns the decompressed bytes of the records; 0 for an uncompressed batch.
///
/// When the batch does not hold exactly the records that its header claims, back to back and
/// nothing else, or when Java cannot read them.
/// else, or when Java cannot read them.
pub fn walk(
    header: &BatchHeader,
    batch: &[u8],
    limit: usize,
    record_bytes_max: u32,
    mut each: impl FnMut(Seen),
) -> Result<u64, WalkError> {
    let input = batch.get(HEADER_BYTES..).unwrap_or_default();
    let codec = header.codec().ok_or(CompressionError::UnknownCodec)?;
    if codec == Codec::None {
        for record in Records::new(input, header.records_count).for_java() {
            each(Seen::of(&record?));
        }
        return Ok(0);
    }
    let mut records = Stream {
        source: compression::piecewise(codec, input)?,
        taken: 0,
        limit: limit as u64,
        record_bytes_max,
    };
    records
        .all(header.records_count, each)
        .map_err(|(failure, index)| failure.of(codec, limit, index))?;
    Ok(records.taken)
}

/// Why there is no next record.
enum Failure {
    Invalid(&'static str),
    TooLarge,
    Decoder(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Decoder(error)
    }
}

impl Failure {
    fn of(self, codec: Codec, limit: usize, index: i32) -> WalkError {
        match self {
            Self::Invalid(reason) => RecordError { index, reason }.into(),
            Self::TooLarge => CompressionError::TooLarge { limit }.into(),
            Self::Decoder(error) => {
                CompressionError::Corrupt { codec, reason: error.to_string() }.into()
            }
        }
    }
}

/// Records from the output of a decoder.
struct Stream<S> {
    source: S,
    taken: u64,
    limit: u64,
    record_bytes_max: u32,
}

impl<S: BufRead> Stream<S> {
    /// Reads `count` records and requires the end after them; an error has the index of the record.
    fn all(&mut self, count: i32, mut each: impl FnMut(Seen)) -> Result<(), (Failure, i32)> {
        for index in 0..count {
            each(self.next().map_err(|failure| (failure, index))?);
        }
        self.end().map_err(|failure| (failure, count))
    }

    fn next(&mut self) -> Result<Seen, Failure> {
        let length = self.int("its length is cut off or too long")?;
        let length =
            u64::try_from(length).map_err(|_| Failure::Invalid("its length is negative"))?;
        if length > u64::from(self.record_bytes_max) {
            return Err(Failure::Invalid("it is larger than allowed"));
        }
        let buffer = self.source.fill_buf()?;
        if let Some(body) = usize::try_from(length).ok().and_then(|length| buffer.get(..length)) {
            // The common case: the whole record is in the buffer.
            let (seen, length) =
                (Seen::of(&parse(body, INT_BYTES_MAX).map_err(Failure::Invalid)?), body.len());
            return self.consume(length).map(|()| seen);
        }
        let end = self.taken.saturating_add(length);
        // The first byte holds attributes, none of which has a meaning yet.
        self.skip(1, "it is empty")?;
        let timestamp_delta = self.number("its timestamp is cut off", long)?;
        let offset_delta = self.int("its offset is not one")?;
        let has_key = self.nullable("its key does not fit")?;
        self.nullable("its value does not fit")?;
        const NO_COUNT: &str = "its header count is not one";
        let count = self.int(NO_COUNT)?;
        if count < 0 {
            return Err(Failure::Invalid(NO_COUNT));
        }
        for _ in 0..count {
            const WRONG: &str = "the key of a header is missing or does not fit";
            if !self.nullable(WRONG)? {
                return Err(Failure::Invalid(WRONG));
            }
            self.nullable("the value of a header does not fit")?;
        }
        if self.taken != end {
            return Err(Failure::Invalid("it is not as long as its parts"));
        }
        Ok(Seen { offset_delta, timestamp_delta, has_key })
    }

    fn end(&mut self) -> Result<(), Failure> {
        match self.source.fill_buf()? {
            [] => Ok(()),
            _ => Err(Failure::Invalid("there are bytes behind the last record")),
        }
    }

    /// Skips bytes after their length; returns whether they exist. A length of -1 means that they
    /// do not.
    fn nullable(&mut self, wrong: &'static str) -> Result<bool, Failure> {
        match self.int(wrong)? {
            -1 => Ok(false),
            length => {
                let length = u64::try_from(length).map_err(|_| Failure::Invalid(wrong))?;
                self.skip(length, wrong).map(|()| true)
            }
        }
    }

    fn skip(&mut self, mut bytes: u64, wrong: &'static str) -> Result<(), Failure> {
        while bytes > 0 {
            let available = self.source.fill_buf()?.len();
            if available == 0 {
                return Err(Failure::Invalid(wrong));
            }
            let step = usize::try_from(bytes).unwrap_or(usize::MAX).min(available);
            self.consume(step)?;
            bytes -= step as u64;
        }
        Ok(())
    }

    fn int(&mut self, wrong: &'static str) -> Result<i32, Failure> {
        self.number(wrong, |bytes| int(bytes, INT_BYTES_MAX))
    }

    fn number<T>(
        &mut self,
        wrong: &'static str,
        read: impl Fn(&mut &[u8]) -> Option<T>,
    ) -> Result<T, Failure> {
        let buffer = self.source.fill_buf()?;
        let mut rest = buffer;
        if let Some(value) = read(&mut rest) {
            let step = buffer.len() - rest.len();
            self.consume(step)?;
            return Ok(value);
        }
        // The number spans two pieces, or is invalid.
        let mut bytes = [0; LONG_BYTES_MAX];
        for length in 1..=LONG_BYTES_MAX {
            let byte = *self.source.fill_buf()?.first().ok_or(Failure::Invalid(wrong))?;
            self.consume(1)?;
            if let Some(place) = bytes.get_mut(length - 1) {
                *place = byte;
            }
            if byte & 0x80 == 0 {
                return read(&mut bytes.get(..length).unwrap_or_default())
                    .ok_or(Failure::Invalid(wrong));
            }
        }
        Err(Failure::Invalid(wrong))
    }

    fn consume(&mut self, bytes: usize) -> Result<(), Failure> {
        self.source.consume(bytes);
        self.taken += bytes as u64;
        if self.taken > self.limit { Err(Failure::TooLarge) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::checked;
    use crate::compression::default_level;
    use crate::record::{BatchBuilder, section};

    const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    fn seen(batch: &[u8], limit: usize) -> Result<Vec<Seen>, WalkError> {
        let mut all = Vec::new();
        walk(&checked(batch).unwrap(), batch, limit, u32::MAX, |seen| all.push(seen)).map(|_| all)
    }

    /// A batch with this section, valid or not.
    fn batch_of(codec: Codec, count: i32, section: &[u8]) -> Vec<u8> {
        let mut batch = BatchBuilder::new(0).codec(codec).build(0).unwrap().to_vec();
        batch.truncate(HEADER_BYTES);
        batch.extend_from_slice(
            &compression::compress(codec, default_level(codec), section).unwrap(),
        );
        let length = i32::try_from(batch.len() - 12).unwrap();
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[57..61].copy_from_slice(&count.to_be_bytes());
        crate::batch::set_max_timestamp(&mut batch, false, 0);
        batch
    }

    #[test]
    fn it_sees_what_reading_the_whole_section_gives() {
        for codec in CODECS {
            let mut builder = BatchBuilder::new(0).codec(codec);
            for offset in 0..300 {
                // Some values are larger than any piece.
                let value = vec![offset as u8; if offset % 50 == 7 { 200_000 } else { 300 }];
                let key = (offset % 3 > 0).then_some(&b"key"[..]);
                builder.append(
                    offset,
                    1_000 + offset * 7,
                    key,
                    Some(&value),
                    [(&b"h"[..], None), (&b""[..], Some(&b"x"[..]))],
                );
            }
            let batch = builder.build(default_level(codec)).unwrap();
            let header = checked(&batch).unwrap();
            let whole = section(&header, &batch, usize::MAX).unwrap();
            let expected: Vec<Seen> = Records::new(&whole, 300)
                .map(Result::unwrap)
                .map(|record| Seen::of(&record))
                .collect();
            assert_eq!(seen(&batch, whole.len()), Ok(expected), "{codec:?}");
            let too_large =
                WalkError::Compression(CompressionError::TooLarge { limit: whole.len() - 1 });
            assert_eq!(
                seen(&batch, whole.len() - 1).err(),
                (codec != Codec::None).then_some(too_large),
                "{codec:?}"
            );
        }
    }

    #[test]
    fn what_is_wrong_with_a_section_is_wrong_under_every_codec() {
        // An empty record of seven bytes, and invalid alternatives to it.
        let good = [12, 0, 0, 0, 1, 1, 0];
        let twice = [good, good].concat();
        let mut sections: Vec<(i32, Vec<u8>)> = vec![
            (1, good.to_vec()),
            (2, twice.clone()),
            (1, twice.clone()),
            (3, twice),
            (i32::MAX, good.to_vec()),
            (1, Vec::new()),
        ];
        for at in 0..good.len() {
            for byte in [0, 1, 2, 0x7f, 0x80, 0xff] {
                let mut section = good;
                section[at] = byte;
                sections.push((1, section.to_vec()));
            }
            sections.push((1, good[..at].to_vec()));
        }
        sections.push((1, [&[0xff; 11][..], &good].concat()));
        for (count, section) in sections {
            let expected = Records::new(&section, count).for_java().all(|record| record.is_ok());
            for codec in CODECS {
                let found = seen(&batch_of(codec, count, &section), 1 << 20);
                assert_eq!(found.is_ok(), expected, "{codec:?} {count} {section:?}: {found:?}");
            }
            for piece in [1, 2, 3] {
                let mut records = Stream {
                    source: io::BufReader::with_capacity(piece, &section[..]),
                    taken: 0,
                    limit: 1 << 20,
                    record_bytes_max: u32::MAX,
                };
                assert_eq!(
                    records.all(count, |_| ()).is_ok(),
                    expected,
                    "{count} {section:?} in pieces of {piece}"
                );
            }
        }
    }

    /// `ByteUtils.readVarint` accepts five bytes for a number of 32 bits and drops the excess bits
    /// of the fifth; `ByteUtils.readVarlong` accepts ten for one of 64.
    #[test]
    fn numbers_that_java_cannot_read_are_refused_and_read_where_they_lie_in_a_log() {
        let padded = |number: u8, bytes: usize| {
            let mut all = vec![number | 0x80];
            all.resize(bytes - 1, 0x80);
            all.push(0);
            all
        };
        // A record with a key and a header. Each of its bytes is a number, except the attributes
        // and the contents.
        let parts: [&[u8]; 11] = [&[0], &[0], &[0], &[2], b"k", &[2], b"v", &[2], &[2], b"h", &[1]];
        let section = |widened: Option<usize>, bytes: usize| {
            let mut body = Vec::new();
            for (index, part) in parts.iter().enumerate() {
                match widened {
                    Some(widened) if widened == index => body.extend(padded(part[0], bytes)),
                    _ => body.extend_from_slice(part),
                }
            }
            let length = u8::try_from(body.len() * 2).unwrap();
            let length =
                if widened == Some(parts.len()) { padded(length, bytes) } else { vec![length] };
            [length, body].concat()
        };
        const TIMESTAMP: usize = 1;
        for widened in [TIMESTAMP, 2, 3, 5, 7, 8, 10, parts.len()] {
            for bytes in 2..=11 {
                let section = section(Some(widened), bytes);
                let fits_java =
                    bytes <= if widened == TIMESTAMP { LONG_BYTES_MAX } else { INT_BYTES_MAX };
                for codec in CODECS {
                    let found = seen(&batch_of(codec, 1, &section), 1 << 20);
                    assert_eq!(
                        found.is_ok(),
                        fits_java,
                        "{codec:?}: part {widened} in {bytes} bytes: {found:?}"
                    );
                }
                let in_log = Records::new(&section, 1)
                    .all(|record| record.is_ok_and(|record| record.headers().count() == 1));
                assert_eq!(in_log, bytes <= LONG_BYTES_MAX, "part {widened} in {bytes} bytes");
            }
        }
        // A fifth byte with all bits set, four of which belong to the number.
        let section = [20, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x7f, 1, 1, 0];
        for codec in CODECS {
            let found = seen(&batch_of(codec, 1, &section), 1 << 20).unwrap();
            assert_eq!(found[0].offset_delta, i32::MAX, "{codec:?}");
        }
    }

    #[test]
    fn what_is_not_compressed_as_it_says_is_an_error() {
        for codec in &CODECS[1..] {
            let good = batch_of(*codec, 1, &[12, 0, 0, 0, 1, 1, 0]);
            assert!(seen(&good, 100).is_ok());
            // The last cut goes beyond the end mark of an LZ4 frame, which takes four bytes.
            for cut in [HEADER_BYTES, HEADER_BYTES + 3, good.len() - 5] {
                let mut damaged = good[..cut].to_vec();
                let length = i32::try_from(cut - 12).unwrap();
                damaged[8..12].copy_from_slice(&length.to_be_bytes());
                crate::batch::set_max_timestamp(&mut damaged, false, 1);
                assert!(seen(&damaged, 100).is_err(), "{codec:?} cut at {cut}");
            }
            let mut other = batch_of(Codec::None, 1, &[12, 0, 0, 0, 1, 1, 0]);
            other[22] = *codec as u8;
            crate::batch::set_max_timestamp(&mut other, false, 1);
            assert!(seen(&other, 100).is_err(), "{codec:?}");
        }
    }

    proptest! {
        /// Compaction and lookups by time read a whole section at once. They must see every record
        /// of what this check accepted.
        #[test]
        fn what_is_taken_is_read_as_a_whole(
            values in proptest::collection::vec(0..200_usize, 1..6),
            parts in 1..4_usize,
            count_off in -2..3_i32,
            damage in proptest::collection::vec((any::<prop::sample::Index>(), prop_oneof![Just(0), Just(0x80), any::<u8>()]), 0..3),
        ) {
            let mut builder = BatchBuilder::new(0);
            for (offset, length) in (0..).zip(&values) {
                builder.append(offset, 5, Some(b"key"), Some(&vec![b'v'; *length]), []);
            }
            let plain = builder.build(0).unwrap()[HEADER_BYTES..].to_vec();
            let count = i32::try_from(values.len()).unwrap() + count_off;
            for codec in &CODECS[1..] {
                // A client could write it so: in several consecutive streams.
                let pieces = plain.chunks(plain.len().div_ceil(parts));
                let mut compressed: Vec<u8> = pieces.flat_map(|piece| compression::compress(*codec, default_level(*codec), piece).unwrap().into_owned()).collect();
                for (at, byte) in &damage {
                    let at = at.index(compressed.len());
                    compressed[at] = *byte;
                }
                let mut batch = batch_of(*codec, count, b"");
                batch.truncate(HEADER_BYTES);
                batch.extend_from_slice(&compressed);
                let length = i32::try_from(batch.len() - 12).unwrap();
                batch[8..12].copy_from_slice(&length.to_be_bytes());
                crate::batch::set_max_timestamp(&mut batch, false, 1);
                let Ok(header) = checked(&batch) else { continue };
                let mut walked = Vec::new();
                if walk(&header, &batch, 1 << 20, u32::MAX, |seen| walked.push(seen)).is_ok() {
                    let whole = section(&header, &batch, 1 << 20).unwrap();
                    let read: Result<Vec<Seen>, _> = Records::new(&whole, count).map(|record| record.map(|record| Seen::of(&record))).collect();
                    prop_assert_eq!(read, Ok(walked), "{:?}", codec);
                }
            }
        }
    }
}
