//! What is looked into of a batch from a client or a file: headers, compressed sections of every
//! codec, records and their headers.
//!
//! Nothing panics, nothing gives more bytes than the limit allows, and records that were read can
//! be written again and are the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_protocol::batch::{self, BatchHeader, Batches, Codec};
use weir_protocol::compression::{self, CompressionError};
use weir_protocol::record::{self, BatchBuilder, Records};

/// The most that a section may decompress to. Far below what a run of the fuzzer may take, so that
/// an allocation by a claimed size shows.
const SECTION_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let mut batches = Batches::new(data);
    let mut end = 0;
    for (header, bytes) in batches.by_ref().map_while(Result::ok) {
        assert_eq!(bytes.len(), header.size_bytes());
        end += bytes.len();
        look_into(&header, bytes);
    }
    assert_eq!(batches.position(), end, "the good batches end where the walk does");
    // The checksum hides the decoders from a fuzzer: they are also given the bytes as they are.
    for id in 0..=u8::MAX {
        let Some(codec) = Codec::from_id(id) else { break };
        match compression::decompress(codec, data, SECTION_BYTES_MAX) {
            Ok(section) => walk(&section, i32::try_from(data.len()).unwrap_or(i32::MAX)),
            Err(CompressionError::TooLarge { limit }) => assert_eq!(limit, SECTION_BYTES_MAX),
            Err(_) => {}
        }
    }
});

fn look_into(header: &BatchHeader, bytes: &[u8]) {
    let mut patched = bytes.to_vec();
    batch::set_max_timestamp(&mut patched, header.is_log_append_time(), header.max_timestamp);
    assert_eq!(batch::checked(&patched).map(|patched| patched.base_offset), Ok(header.base_offset));
    if let Ok(section) = record::section(header, bytes, SECTION_BYTES_MAX) {
        assert!(section.len() <= SECTION_BYTES_MAX);
        walk(&section, header.records_count);
    }
}

/// Reads the records of a section, and writes what was read anew.
fn walk(section: &[u8], count: i32) {
    let read: Vec<_> = Records::new(section, count).map_while(Result::ok).collect();
    let mut builder = BatchBuilder::new(0);
    for (offset, record) in (0..).zip(&read) {
        builder.append_record(offset, 0, record);
        assert_eq!(record.headers().count(), record.headers().count());
    }
    if read.is_empty() {
        return;
    }
    let written = builder.build(0).expect("nothing is compressed");
    let header = batch::checked(&written).expect("what was written is whole");
    let section = record::section(&header, &written, usize::MAX).expect("nothing is compressed");
    let again: Vec<_> = Records::new(&section, header.records_count)
        .collect::<Result<_, _>>()
        .expect("what was written can be read");
    assert_eq!(read.len(), again.len());
    for (before, after) in read.iter().zip(&again) {
        assert_eq!((before.key, before.value), (after.key, after.value));
        assert!(before.headers().eq(after.headers()));
    }
}
