//! The memory limit of this process, and the bound of each use.
//!
//! A container has a limit that is on no command line, and the kernel kills a process that exceeds
//! it. So the bounds follow the process's control groups, or the machine's memory if those have no
//! limit.

use std::fs;
use std::path::Path;

const MIB: u64 = 1 << 20;

/// The mount point of control groups.
const GROUPS: &str = "/sys/fs/cgroup";

/// The most that a connection takes outside the budgets for requests and answers. 16 KiB to read
/// the next frame, 32 for small requests, 16 for small or promised answers, and 16 for gathered
/// output.
const CONNECTION_BYTES: u64 = 80 * 1024;

/// The most that TLS adds to a connection: 16 KiB of records that have arrived, 20 in which one is
/// opened, 17 for the record that is sent, and the state of the session.
const TLS_CONNECTION_BYTES: u64 = 64 * 1024;

/// How much memory a decoded request may take, as a multiple of its bytes.
const DECODED_FACTOR: u64 = 40;

/// The bounds, in bytes or as numbers. Together they are less than the limit of the process, unless
/// the limit is below a broker's minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBounds {
    /// Requests being received or handled, in MiB: a quarter, from 16 to 256.
    pub requests_mib: u32,
    /// Encoded answers that clients have not taken, in MiB: a sixteenth, from 8 to 128.
    pub answers_mib: u32,
    /// The largest frame that is decoded: decoded, it may take half of the memory. From 1 to 16
    /// MiB.
    pub decoded_frame: usize,
    /// Fetch sessions of clients: an eighth, from 4 to 128 MiB.
    pub fetch_sessions: usize,
    /// What the members of all groups say, and are assigned: a sixteenth, from 8 MiB to 1 GiB.
    pub group_members: usize,
    /// The committed offsets of all groups: a thirty-second, from 4 MiB to 1 GiB.
    pub committed_offsets: usize,
    /// Transactional ids and the partitions of their transactions: a thirty-second, from 4 MiB to 1
    /// GiB.
    pub transactional_ids: usize,
    /// The keys that compaction holds: a sixteenth.
    pub cleaner_keys: u64,
    /// The most connections: as many as fit into a quarter at their most, from 256 to 20,000.
    pub connections: usize,
    /// The same for a broker with TLS on a listener, whose connections may take more: from 128 to
    /// 20,000.
    pub tls_connections: usize,
}

impl MemoryBounds {
    /// Returns the bounds of a process with a limit of `bytes`; `None` means no known limit.
    pub fn of(bytes: Option<u64>) -> Self {
        let bytes = bytes.unwrap_or(u64::MAX);
        let part = |part: u64, min: u64, max: u64| {
            usize::try_from((bytes / part).clamp(min, max)).unwrap_or(usize::MAX)
        };
        Self {
            requests_mib: u32::try_from((bytes / 4 / MIB).clamp(16, 256)).unwrap_or(256),
            answers_mib: u32::try_from((bytes / 16 / MIB).clamp(8, 128)).unwrap_or(128),
            decoded_frame: part(2 * DECODED_FACTOR, MIB, 16 * MIB),
            fetch_sessions: part(8, 4 * MIB, 128 * MIB),
            group_members: part(16, 8 * MIB, 1024 * MIB),
            committed_offsets: part(32, 4 * MIB, 1024 * MIB),
            transactional_ids: part(32, 4 * MIB, 1024 * MIB),
            cleaner_keys: (bytes / 16).max(MIB),
            connections: part(4 * CONNECTION_BYTES, 256, 20_000),
            tls_connections: part(4 * (CONNECTION_BYTES + TLS_CONNECTION_BYTES), 128, 20_000),
        }
    }
}

/// Returns the memory limit of this process: the lowest limit of its control groups and the
/// machine's memory. `None` if neither is known.
pub fn process_bytes_max() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let machine = rustix::system::sysinfo();
    let machine = machine.totalram.checked_mul(machine.mem_unit.into()).filter(|bytes| *bytes > 0);
    limit_of(&groups, Path::new(GROUPS)).into_iter().chain(machine).min()
}

/// Returns the lowest limit of the groups in `/proc/self/cgroup` and of their ancestors. A
/// container may see its own group at the root only.
fn limit_of(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, group) =
            (fields.next(), fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let own = root.join(group.trim_start_matches('/'));
        let above = own.ancestors().take_while(|folder| folder.starts_with(&root));
        above.filter_map(|folder| fs::read_to_string(folder.join(file)).ok()).collect()
    });
    // `max` is no limit. In version 1, a number above the machine's memory means none.
    limits.filter_map(|text| text.trim().parse().ok()).filter(|bytes: &u64| *bytes > 0).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_fit_into_the_memory_together() {
        for limit_mib in [128, 256, 512, 1_024, 4_096, 65_536] {
            let bounds = MemoryBounds::of(Some(limit_mib * MIB));
            let requests = u64::from(bounds.requests_mib) * MIB;
            let sessions = bounds.fetch_sessions as u64;
            let connections = bounds.connections as u64 * CONNECTION_BYTES;
            let with_tls = bounds.tls_connections as u64;
            let connections = connections.max(with_tls * (CONNECTION_BYTES + TLS_CONNECTION_BYTES));
            let answers = u64::from(bounds.answers_mib) * MIB;
            let members = bounds.group_members as u64;
            let kept = bounds.committed_offsets + bounds.transactional_ids;
            let all = requests
                + answers
                + sessions
                + bounds.cleaner_keys
                + connections
                + members
                + kept as u64;
            assert!(all <= limit_mib * MIB * 14 / 16, "{limit_mib} MiB: {bounds:?}");
            assert!(
                bounds.decoded_frame as u64 * DECODED_FACTOR <= limit_mib * MIB / 2,
                "{limit_mib} MiB: {bounds:?}"
            );
        }
        let small = MemoryBounds::of(Some(128 * MIB));
        assert_eq!((small.requests_mib, small.answers_mib, small.connections), (32, 8, 409));
        // Without a limit, the bounds are those of a large machine.
        let plenty = MemoryBounds {
            requests_mib: 256,
            answers_mib: 128,
            decoded_frame: 16 << 20,
            fetch_sessions: 128 << 20,
            group_members: 1 << 30,
            committed_offsets: 1 << 30,
            transactional_ids: 1 << 30,
            cleaner_keys: u64::MAX / 16,
            connections: 20_000,
            tls_connections: 20_000,
        };
        assert_eq!(MemoryBounds::of(None), plenty);
        assert_eq!(
            MemoryBounds { cleaner_keys: u64::MAX / 16, ..MemoryBounds::of(Some(64 << 30)) },
            plenty
        );
        assert_eq!(MemoryBounds::of(Some(1)).requests_mib, 16);
    }

    #[test]
    fn the_least_limit_of_all_groups_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("pods/memory.max", "1073741824\n");
        put("pods/broker/memory.max", "max\n");
        put("tight/memory.max", "134217728\n");
        put("memory/docker/a/memory.limit_in_bytes", "268435456\n");
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let rows = [
            // Version 2: the limit of its own group, or of an ancestor.
            ("0::/pods/broker\n", Some(1 << 30)),
            ("0::/tight\n", Some(128 << 20)),
            ("0::/elsewhere\n", None),
            // Version 1, beside the hierarchy that only names processes.
            ("12:cpu,cpuacct:/tight\n4:memory:/docker/a\n0::/elsewhere\n", Some(256 << 20)),
            // A container that sees its group at the root.
            ("4:memory:/kubepods/unknown\n", Some(9_223_372_036_854_771_712)),
            ("", None),
            ("nonsense", None),
            ("0::/../..", None),
        ];
        for (groups, limit) in rows {
            assert_eq!(limit_of(groups, root), limit, "{groups:?}");
        }
        put("memory.max", "67108864");
        assert_eq!(limit_of("0::/", root), Some(64 << 20));
    }
}
