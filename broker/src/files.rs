//! The limit of open files of this process, divided between segments and connections.
//!
//! A connection is an open file, as a segment is. If connections used all of them, the next segment
//! could not be opened, and the log directory would go offline.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files besides segments and connections: those of the runtime, listeners, peers, and files that
/// are open briefly.
const SPARE: u64 = 256;

/// The most open segments.
const SEGMENTS_MAX: u64 = 65_536;

/// The least of each, however low the limit is.
const EACH_MIN: u64 = 64;

/// The bound of each use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileBounds {
    /// Open segments: a third, 65,536 at most.
    pub segments: usize,
    /// Connections: the rest.
    pub connections: usize,
}

impl FileBounds {
    /// Returns the bounds of a process that may open this many files.
    pub fn of(files: u64) -> Self {
        let files = files.saturating_sub(SPARE);
        let segments = (files / 3).clamp(EACH_MIN, SEGMENTS_MAX);
        let number = |files: u64| usize::try_from(files).unwrap_or(usize::MAX);
        Self {
            segments: number(segments),
            connections: number(files.saturating_sub(segments).max(EACH_MIN)),
        }
    }
}

/// Raises the process's limit of open files to its hard limit, as the runtimes of Go and Java do.
/// Shells and service managers start programs with 1,024. Returns the limit.
pub fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let raised = match setrlimit(Resource::Nofile, most) {
        Ok(()) => limit.maximum,
        // The current limit has to do.
        Err(_) => limit.current,
    };
    raised.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_segments() {
        for files in [512, 1_024, 4_096, 65_536, 1 << 20, u64::MAX] {
            let bounds = FileBounds::of(files);
            let sum = (bounds.segments as u64)
                .saturating_add(bounds.connections as u64)
                .saturating_add(SPARE);
            assert!(sum <= files, "{files}: {bounds:?}");
            assert!(bounds.segments >= 64 && bounds.connections >= 64, "{files}: {bounds:?}");
        }
        assert_eq!(FileBounds::of(1_024), FileBounds { segments: 256, connections: 512 });
        assert_eq!(FileBounds::of(1 << 20).segments, 65_536);
        // A limit that is too low still gives the least of each.
        assert_eq!(FileBounds::of(100), FileBounds { segments: 64, connections: 64 });
    }
}
