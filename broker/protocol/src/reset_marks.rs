//! Marks: with them a group itself knows which resets of its offsets were carried out, and whether
//! it is to be deleted.
//!
//! A mark is a committed offset for a partition of [`TOPIC`]. So it is in one batch with the
//! offsets that the reset sets, is known to the next coordinator, and goes with the group.
//! [`TOPIC`] is no legal name of a topic: no consumer can be subscribed to it, and only a commit of
//! [`MEMBER`] names it. To everybody else such offsets are not there: an OffsetFetch of all offsets
//! leaves them out.
//!
//! Marks lie in a ring of [`SLOTS`] partitions. The mark of the reset number n
//! (`committed_leader_epoch`, from 0) lies in slot `n % SLOTS`; `committed_offset` says which reset
//! it was ([`mark`]).

/// The topic that a mark is committed for.
pub const TOPIC: &str = "weir.dev/reset";

/// The member id that a reset is committed by, with generation 0. A coordinator that knows marks
/// takes such a commit as a whole, and only while the group has no members; for any other it is a
/// member that does not exist, so that it takes nothing of the commit.
pub const MEMBER: &str = "weir.dev/reset";

/// How many of a group's resets are remembered.
pub const SLOTS: i32 = 64;

/// The partition of [`TOPIC`] that says whether the group is to be deleted once it has no members:
/// [`DELETE`], or [`NO_MARK`]. It is committed alone, also while the group has members, by who may
/// delete the group.
pub const DELETION: i32 = SLOTS;

/// See [`DELETION`].
pub const DELETE: i64 = 1;

/// What a coordinator that knows marks answers for a slot without one. Any other answers -1.
pub const NO_MARK: i64 = 0;

/// The mark of the reset with this id: FNV-1a, of which 62 bits are taken, and never [`NO_MARK`].
#[must_use]
pub fn mark(id: &str) -> i64 {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    i64::try_from((hash >> 1) | 1).unwrap_or(i64::MAX)
}

/// Whether a partition of [`TOPIC`] is a slot, or [`DELETION`].
#[must_use]
pub fn is_mark(partition: i32) -> bool {
    (0..=DELETION).contains(&partition)
}
