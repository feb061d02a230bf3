//! The memory that the groups on this broker take: the fields and assignments of their members, and
//! their committed offsets.
//!
//! Each group has a bound, but the number of groups has none in Kafka. Here a part of the broker's
//! memory is the bound of all groups together ([`Memory`]), for members and for offsets. Each group
//! counts its bytes as they change. A member or an offset that would exceed the bound is refused.
//!
//! The coordinators of all partitions share these counts and nothing else.

pub(super) use crate::coordinator::Held;
use crate::coordinator::Memory;

/// The parts of the broker's memory for groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupMemory {
    /// For members.
    pub(crate) members: Memory,
    /// For committed offsets.
    pub(crate) offsets: Memory,
}

impl GroupMemory {
    /// Parts with these bounds, in bytes.
    pub(crate) fn new(members: usize, offsets: usize) -> Self {
        Self {
            members: Memory::new("the members of groups", members),
            offsets: Memory::with_transactions("committed offsets", offsets),
        }
    }
}

/// Bytes of a member besides its strings: its state, its session, and its entries in maps and
/// queues.
pub(super) const MEMBER_BYTES: usize = 512;

/// Bytes of a protocol besides its name and metadata.
pub(super) const PROTOCOL_BYTES: usize = 64;

/// Bytes of a topic name in a set, besides its characters.
pub(super) const NAME_BYTES: usize = 48;

/// Bytes of a partition in a current assignment: its owner and its epoch.
pub(super) const OWNED_BYTES: usize = 128;

/// Bytes of a partition in a target assignment.
pub(super) const TARGET_BYTES: usize = 32;

/// Bytes of a group with committed offsets, besides its id: its state, and its entries in maps.
pub(super) const GROUP_BYTES: usize = 512;

/// Bytes of a topic in a group's offsets. Its name is shared.
pub(super) const TOPIC_BYTES: usize = 64;

/// Bytes of a committed offset besides its metadata.
pub(super) const OFFSET_BYTES: usize = 128;

/// Bytes of an offset in an open transaction besides its metadata.
pub(super) const PENDING_BYTES: usize = 256;
