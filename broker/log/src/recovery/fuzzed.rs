//! Recovery of a segment with arbitrary bytes: the entry point of a fuzzer.

use std::io::{self, IoSlice};
use std::path::Path;

use weir_protocol::batch::Batches;

use super::super::epochs::Epochs;
use super::super::storage::File;
use super::examine::{Known, examine};

/// A read-only file.
#[derive(Debug)]
struct Bytes<'a>(&'a [u8]);

impl File for Bytes<'_> {
    fn write_all_at(&self, _slices: &mut [IoSlice<'_>], _position: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn read_at(&self, target: &mut [u8], position: u64) -> io::Result<usize> {
        let rest = usize::try_from(position)
            .ok()
            .and_then(|position| self.0.get(position..))
            .unwrap_or_default();
        let length = rest.len().min(target.len());
        for (to, from) in target.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn truncate(&self, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn allocate(&self, _length: u64) {}

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Recovers a segment with base offset 0 and these bytes: twice as if nothing of it was flushed,
/// once as if its first offset was, and once as if everything was.
///
/// # Panics
/// When recovery returns an impossible result.
pub fn recover_bytes(bytes: &[u8]) {
    let path = Path::new("00000000000000000000.log");
    for (flushed, vouched) in [(0, 0), (0, i64::MAX), (1, 1), (i64::MAX, i64::MAX)] {
        let known = Known { base: 0, next: i64::MAX, flushed, vouched };
        let Ok(found) = examine(path, &Bytes(bytes), known, &mut Epochs::default(), |_| {}) else {
            continue;
        };
        let kept = usize::try_from(found.summary.size_bytes).unwrap_or(usize::MAX);
        assert!(
            kept <= bytes.len() && (found.torn.is_some() || kept == bytes.len()),
            "{kept} of {} bytes",
            bytes.len()
        );
        if found.broken {
            continue;
        }
        let mut end = 0;
        for batch in Batches::new(bytes.get(..kept).unwrap_or_default()) {
            let Ok((header, _)) = batch else { panic!("what is kept are batches: {batch:?}") };
            assert!(header.base_offset >= end, "offset {} comes after {end}", header.base_offset);
            end = header.next_offset();
        }
        assert_eq!(found.end, end);
    }
}
