//! Marks in a group's committed offsets. They record in the group itself which resets were carried
//! out, and whether the group is to be deleted.
//!
//! A mark is a committed offset for a partition of [`TOPIC`]. So it is in one batch with the
//! offsets that the reset sets, the next coordinator loads it, and it is deleted with the group.
//! [`TOPIC`] is not a legal topic name: no consumer can subscribe to it, and only a commit of
//! [`MEMBER`] names it. An OffsetFetch of all offsets leaves marks out, so other clients do not see
//! them.
//!
//! Marks form a ring of [`SLOTS`] partitions. The mark of reset number n (`committed_leader_epoch`,
//! from 0) is in slot `n % SLOTS`; its `committed_offset` identifies the reset ([`mark`]).

/// The topic that a mark is committed for.
pub const TOPIC: &str = "weir.dev/reset";

/// The member id of a commit that resets a group, with generation 0. A coordinator that knows marks
/// accepts such a commit as a whole, and only while the group has no members. To any other
/// coordinator the member does not exist, so it refuses the whole commit.
pub const MEMBER: &str = "weir.dev/reset";

/// How many resets of a group its marks remember.
pub const SLOTS: i32 = 64;

/// The partition of [`TOPIC`] that says whether to delete the group once it has no members:
/// [`DELETE`], or [`NO_MARK`]. A principal that may delete the group commits it alone, even while
/// the group has members.
pub const DELETION: i32 = SLOTS;

/// See [`DELETION`].
pub const DELETE: i64 = 1;

/// The offset that a coordinator that knows marks returns for an empty slot. Any other returns -1.
pub const NO_MARK: i64 = 0;

/// The mark of the reset with this id: 62 bits of its FNV-1a hash, never [`NO_MARK`].
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
