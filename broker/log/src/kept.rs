//! The metadata that this run keeps for the next one: a file of checksummed frames beside the logs.
//!
//! The first frame names the owner and the registration under which the file was written. Each
//! change appends a frame, and sometimes the whole file is replaced. Nothing is synced. A start
//! uses the file only in two cases. After a clean stop everything was synced. After the death of
//! the process alone, the kernel still has every write. If a single byte is wrong, the file counts
//! as missing: an old state must never pass for the last one. This module does not know what the
//! frames contain.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::storage::{File, Storage, put_in_place, read_file, stage_private_file};

const FILE: &str = "image";
const VERSION: u32 = 1;

/// The largest file that is read: some four million partitions.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A frame's length and checksum.
const HEAD_BYTES: usize = 8;

/// The owner of the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Owner {
    pub(super) version: u32,
    pub(super) cluster_id: String,
    pub(super) broker_id: i32,
    pub(super) log_dir: Uuid,
    /// The registration under which the file was written.
    pub(super) broker_epoch: i64,
}

impl Owner {
    pub(super) fn new(identity: &super::Identity, log_dir: Uuid, broker_epoch: i64) -> Self {
        Self {
            version: VERSION,
            cluster_id: identity.cluster_id.clone(),
            broker_id: identity.broker_id,
            log_dir,
            broker_epoch,
        }
    }
}

/// The file that this run writes.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// This run has no file.
    #[default]
    None,
    Open(Open),
    /// The run has ended and acts on no new metadata any more.
    Sealed,
}

#[derive(Debug)]
struct Open {
    file: Arc<dyn File>,
    length: u64,
    whole: u64,
}

/// Returns the frames after the first one if `owner` wrote them. Returns `None` if there are none,
/// and logs a warning if the file cannot be used.
pub(super) fn read(storage: &dyn Storage, root: &Path, owner: &Owner) -> Option<Vec<Vec<u8>>> {
    let path = root.join(FILE);
    let bytes = match read_file(storage, &path, BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "cannot read what the last run knew of the cluster; this broker waits for a controller");
            return None;
        }
    };
    let Some(mut frames) = parse(&bytes) else {
        tracing::warn!(file = %path.display(), "what the last run knew of the cluster is damaged, and is not believed; this broker waits for a controller");
        return None;
    };
    let found: Option<Owner> = frames.next().and_then(|frame| serde_json::from_slice(frame).ok());
    if found.as_ref() != Some(owner) {
        tracing::warn!(file = %path.display(), ?found, expected = ?owner, "what a run knew of the cluster is not of the last one here, and is not believed; this broker waits for a controller");
        return None;
    }
    Some(frames.map(<[u8]>::to_vec).collect())
}

/// Returns the frames that some run kept here, up to the first damaged one. They may be old, so no
/// partition takes a role from them. They serve when no other source knows more.
pub(super) fn read_as_far_as_it_goes(
    storage: &dyn Storage,
    root: &Path,
    identity: &super::Identity,
    log_dir: Uuid,
) -> Vec<Vec<u8>> {
    let bytes = match read_file(storage, &root.join(FILE), BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::warn!(directory = %root.display(), %error, "cannot read what the last run knew of the cluster; this broker reports its logs without it");
            return Vec::new();
        }
    };
    let (mut frames, mut rest) = (Vec::new(), bytes.as_slice());
    while let Some((payload, after)) = next_frame(rest) {
        frames.push(payload.to_vec());
        rest = after;
    }
    let mut frames = frames.into_iter();
    let found: Option<Owner> = frames.next().and_then(|frame| serde_json::from_slice(&frame).ok());
    let is_ours = |found: &Owner| *found == Owner::new(identity, log_dir, found.broker_epoch);
    if found.as_ref().is_some_and(is_ours) { frames.collect() } else { Vec::new() }
}

/// Returns the frames if every one of them is valid and no other bytes follow.
fn parse(bytes: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let mut frames = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (payload, after) = next_frame(rest)?;
        frames.push(payload);
        rest = after;
    }
    Some(frames.into_iter())
}

/// Returns the first frame and the bytes after it, if the frame is valid.
fn next_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, after) = bytes.split_first_chunk::<4>()?;
    let (crc, after) = after.split_first_chunk::<4>()?;
    let payload = after.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let is_whole = checksum(*length, payload) == u32::from_le_bytes(*crc);
    is_whole.then_some((payload, after.get(payload.len()..)?))
}

/// Covers the length too: a length that is too large must not look like a truncated file.
fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), payload)
}

fn put_frame(bytes: &mut Vec<u8>, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?.to_le_bytes();
    bytes.extend(length);
    bytes.extend(checksum(length, payload).to_le_bytes());
    bytes.extend(payload);
    Ok(())
}

impl Kept {
    /// Replaces the file.
    ///
    /// # Errors
    /// When it cannot be written. The old file then still exists; the caller removes it with
    /// [`Kept::forget`].
    pub(super) fn replace(
        &self,
        storage: &dyn Storage,
        root: &Path,
        owner: &Owner,
        frames: &[Vec<u8>],
    ) -> io::Result<()> {
        let mut state = self.0.lock();
        if matches!(*state, State::Sealed) {
            return Ok(());
        }
        *state = State::None;
        let mut bytes = Vec::with_capacity(
            frames.iter().map(|frame| frame.len() + HEAD_BYTES).sum::<usize>() + 256,
        );
        put_frame(&mut bytes, &serde_json::to_vec(owner)?)?;
        for frame in frames {
            put_frame(&mut bytes, frame)?;
        }
        let path = root.join(FILE);
        let file = stage_private_file(storage, &path, &bytes)?;
        put_in_place(storage, &path)?;
        let length = bytes.len() as u64;
        *state = State::Open(Open { file, length, whole: length });
        Ok(())
    }

    /// Returns whether the appended bytes exceed the initial ones, so that a replacement is cheap.
    pub(super) fn is_overgrown(&self) -> bool {
        /// Below this, a new file does not pay.
        const APPENDED_MIN: u64 = 256 * 1024;
        match &*self.0.lock() {
            State::Open(open) => open.length - open.whole > open.whole.max(APPENDED_MIN),
            State::None | State::Sealed => false,
        }
    }

    /// Appends a frame. Returns false when this run has no file.
    ///
    /// # Errors
    /// When it cannot be written; the file is then damaged.
    pub(super) fn append(&self, frame: &[u8]) -> io::Result<bool> {
        let mut state = self.0.lock();
        let open = match &mut *state {
            State::Open(open) => open,
            State::None => return Ok(false),
            State::Sealed => return Ok(true),
        };
        let mut bytes = Vec::with_capacity(frame.len() + HEAD_BYTES);
        put_frame(&mut bytes, frame)?;
        if let Err(error) = open.file.write_all_at(&mut [IoSlice::new(&bytes)], open.length) {
            *state = State::None;
            return Err(error);
        }
        open.length += bytes.len() as u64;
        Ok(true)
    }

    /// Stops all writes, because the file is about to be synced.
    pub(super) fn seal(&self) {
        *self.0.lock() = State::Sealed;
    }

    /// Returns whether the run has ended. The next run does not see later frames.
    pub(super) fn is_sealed(&self) -> bool {
        matches!(*self.0.lock(), State::Sealed)
    }

    /// Removes the file, because this run no longer acts on its content.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(super) fn forget(&self, storage: &dyn Storage, root: &Path) -> io::Result<()> {
        *self.0.lock() = State::None;
        match storage.remove_file(&root.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::storage::Disk;
    use super::*;

    fn owner(broker_epoch: i64) -> Owner {
        let identity = super::super::Identity { cluster_id: "c".to_owned(), broker_id: 3 };
        Owner::new(&identity, Uuid::from_u128(7), broker_epoch)
    }

    fn written(root: &Path) -> Kept {
        let kept = Kept::default();
        kept.replace(&Disk, root, &owner(5), &[b"whole".to_vec(), Vec::new()]).unwrap();
        assert!(kept.append(b"a change").unwrap());
        kept
    }

    #[test]
    fn the_next_run_finds_what_this_one_wrote_and_nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&Disk, dir.path(), &owner(5)), None);
        let kept = written(dir.path());
        let frames = [&b"whole"[..], b"", b"a change"].map(<[u8]>::to_vec).to_vec();
        assert_eq!(read(&Disk, dir.path(), &owner(5)), Some(frames));
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        kept.forget(&Disk, dir.path()).unwrap();
        assert_eq!(read(&Disk, dir.path(), &owner(5)), None);
        assert!(!kept.append(b"more").unwrap(), "there is nothing to append to");
    }

    #[test]
    fn what_is_somebody_elses_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let _kept = written(dir.path());
        let right = owner(5);
        let others = [
            owner(6),
            Owner { broker_id: 4, ..right.clone() },
            Owner { log_dir: Uuid::from_u128(8), ..right.clone() },
            Owner { cluster_id: "d".to_owned(), ..right.clone() },
            Owner { version: 2, ..right },
        ];
        for other in others {
            assert_eq!(read(&Disk, dir.path(), &other), None, "{other:?}");
        }
    }

    #[test]
    fn a_file_with_any_bit_flipped_or_any_byte_missing_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let _kept = written(dir.path());
        let path = dir.path().join(FILE);
        let right = std::fs::read(&path).unwrap();
        for bit in 0..right.len() * 8 {
            let mut wrong = right.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, wrong).unwrap();
            assert_eq!(read(&Disk, dir.path(), &owner(5)), None, "bit {bit}");
        }
        // Cut between two frames, the file is a valid older one. No partial write can end there.
        let last = right.len() - b"a change".len() - HEAD_BYTES;
        for length in last + 1..right.len() {
            std::fs::write(&path, &right[..length]).unwrap();
            assert_eq!(read(&Disk, dir.path(), &owner(5)), None, "{length} bytes");
        }
    }

    #[test]
    fn what_is_heard_after_the_end_of_a_run_is_not_part_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let kept = written(dir.path());
        let before = read(&Disk, dir.path(), &owner(5));
        kept.seal();
        assert!(kept.append(b"late").unwrap());
        kept.replace(&Disk, dir.path(), &owner(6), &[]).unwrap();
        assert_eq!(read(&Disk, dir.path(), &owner(5)), before);
    }

    #[test]
    fn where_nobody_knows_more_a_file_is_read_as_far_as_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let _kept = written(dir.path());
        let identity = |cluster_id: &str| super::super::Identity {
            cluster_id: cluster_id.to_owned(),
            broker_id: 3,
        };
        let frames = |cluster_id: &str, log_dir| {
            read_as_far_as_it_goes(
                &Disk,
                dir.path(),
                &identity(cluster_id),
                Uuid::from_u128(log_dir),
            )
            .len()
        };
        // The registration does not matter; cluster, broker and directory do.
        assert_eq!((frames("c", 7), frames("d", 7), frames("c", 8)), (3, 0, 0));
        let path = dir.path().join(FILE);
        let right = std::fs::read(&path).unwrap();
        std::fs::write(&path, &right[..right.len() - 1]).unwrap();
        assert_eq!(frames("c", 7), 2, "the last frame is torn");
        std::fs::write(&path, b"something else").unwrap();
        assert_eq!(frames("c", 7), 0);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(frames("c", 7), 0);
    }

    #[test]
    fn a_file_that_has_grown_is_to_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let kept = written(dir.path());
        let change = vec![1; 100_000];
        let small =
            (0..10).take_while(|_| !kept.is_overgrown() && kept.append(&change).unwrap()).count();
        assert_eq!(small, 3);
        kept.replace(&Disk, dir.path(), &owner(5), &[vec![1; 1_000_000]]).unwrap();
        let large =
            (0..20).take_while(|_| !kept.is_overgrown() && kept.append(&change).unwrap()).count();
        assert_eq!(large, 11);
    }
}
