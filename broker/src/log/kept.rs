//! What this run knows and leaves to the next one: a file of checksummed frames beside the logs.
//!
//! Its first frame says whose it is and under which registration it was written; a change is
//! appended as a frame, and now and then the file is replaced as a whole. Nothing is synced: it is
//! believed only after a stop in order, which syncs everything, or after the death of a process on
//! a kernel that went on running, which has all that was written. Whatever is not as it should be
//! means that there is no such file, down to the last byte: an older state must never be taken for
//! the last one. Knows nothing of what the frames hold.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::storage::{File, Storage, put_in_place, read_file, stage_private_file};

const FILE: &str = "image";
const VERSION: u32 = 1;

/// The most that is read of one: some four million partitions.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A frame's length and checksum.
const HEAD_BYTES: usize = 8;

/// Whose the file is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Owner {
    pub(super) version: u32,
    pub(super) cluster_id: String,
    pub(super) broker_id: i32,
    pub(super) log_dir: Uuid,
    /// The registration under which it was written.
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

/// The file as this run writes it.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// There is none of this run.
    #[default]
    None,
    Open(Open),
    /// The run is over: it acts on nothing that it hears any more.
    Sealed,
}

#[derive(Debug)]
struct Open {
    file: Arc<dyn File>,
    length: u64,
    whole: u64,
}

/// The frames that `owner` left behind the first one; `None`, with a line in the log where there is
/// something that is not believed, if there are none.
pub(super) fn read(storage: &dyn Storage, root: &Path, owner: &Owner) -> Option<Vec<Vec<u8>>> {
    let path = root.join(FILE);
    let bytes = match read_file(storage, &path, BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "cannot read what the last run knew of the cluster");
            return None;
        }
    };
    let Some(mut frames) = parse(&bytes) else {
        tracing::warn!(file = %path.display(), "what the last run knew of the cluster is damaged, and is not believed");
        return None;
    };
    let found: Option<Owner> = frames.next().and_then(|frame| serde_json::from_slice(frame).ok());
    if found.as_ref() != Some(owner) {
        tracing::warn!(file = %path.display(), ?found, expected = ?owner, "what a run knew of the cluster is not of the last one here, and is not believed");
        return None;
    }
    Some(frames.map(<[u8]>::to_vec).collect())
}

/// The frames that some run left here, up to the first that is not as it was written. What it knew
/// then may be old: nobody takes up a role by it, but where nobody knows more it is the best that
/// there is.
pub(super) fn read_as_far_as_it_goes(
    storage: &dyn Storage,
    root: &Path,
    identity: &super::Identity,
    log_dir: Uuid,
) -> Vec<Vec<u8>> {
    let bytes = match read_file(storage, &root.join(FILE), BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::warn!(directory = %root.display(), %error, "there is nothing to be read of what the last run knew of the cluster");
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

/// The frames, if each of them is as it was written and nothing else is there.
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

/// The first frame and what is behind it, if it is as it was written.
fn next_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, after) = bytes.split_first_chunk::<4>()?;
    let (crc, after) = after.split_first_chunk::<4>()?;
    let payload = after.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let is_whole = checksum(*length, payload) == u32::from_le_bytes(*crc);
    is_whole.then_some((payload, after.get(payload.len()..)?))
}

/// Covers the length too: one that is too large must not look like a file that ends early.
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
    /// When it cannot be written; the old one is then still there, and no more believed than
    /// [`Kept::forget`] makes it.
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

    /// Whether what was appended is more than the whole was, so that it is cheap to replace the
    /// file.
    pub(super) fn is_overgrown(&self) -> bool {
        /// Less is not worth a new file.
        const APPENDED_MIN: u64 = 256 * 1024;
        match &*self.0.lock() {
            State::Open(open) => open.length - open.whole > open.whole.max(APPENDED_MIN),
            State::None | State::Sealed => false,
        }
    }

    /// Appends a frame. False when there is no file of this run.
    ///
    /// # Errors
    /// When it cannot be written: the file is then damaged.
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

    /// Nothing is written any more: what is there is about to be synced.
    pub(super) fn seal(&self) {
        *self.0.lock() = State::Sealed;
    }

    /// Whether the run is over: the next one does not find what is appended from now on.
    pub(super) fn is_sealed(&self) -> bool {
        matches!(*self.0.lock(), State::Sealed)
    }

    /// Removes the file: what it says is not what this run acts on any more.
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
        // Cut off behind a frame, it is what it was before that frame: no write that was begun ends
        // there.
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
        // Under whatever registration it was written, but here.
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
