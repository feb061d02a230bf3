//! The command line of a broker. [`Args`] holds its text, [`Config`] the checked result.
//!
//! Few settings are flags: the broker's id, its data directory and its listeners. Everything else
//! is Kafka configuration, which arrives with the metadata.

use std::net::SocketAddr;
use std::path::PathBuf;

use weir_protocol::types::BrokerId;

use crate::files::FileBounds;
use crate::memory::MemoryBounds;

mod args;
mod listeners;

pub use self::args::{Args, STRAYS, StraysArgs};
pub use self::listeners::{ClientAuth, ListenerConfig, ListenerSecurity, TlsConfig};

/// The checked command line.
#[derive(Clone, Debug)]
pub struct Config {
    /// This broker's id.
    pub id: BrokerId,
    /// The cluster's id.
    pub cluster_id: String,
    /// The log directory.
    pub data: PathBuf,
    /// The listeners, at least one for clients, which is the first.
    pub listeners: Vec<ListenerConfig>,
    /// The directory of this broker's identity, if it has one.
    pub identity: Option<PathBuf>,
    /// The controller's `host:port`.
    pub controller: String,
    /// The file with a newer address, if there is one.
    pub controller_file: Option<PathBuf>,
    /// The address that serves metrics and health.
    pub http: SocketAddr,
    /// The rack, if there is one.
    pub rack: Option<String>,
    /// Threads that serve connections.
    pub threads: usize,
    /// The most connections at a time.
    pub connections_max: usize,
    /// The most open segments.
    pub segments_open_max: usize,
    /// The most bytes of requests in memory.
    pub request_memory_bytes_max: usize,
    /// The most bytes of answers in memory.
    pub answer_memory_bytes_max: usize,
    /// The most topics with metrics of their own.
    pub metrics_topics_max: usize,
    /// The most partitions with metrics of their own.
    pub metrics_partitions_max: usize,
    /// The bounds of other uses of memory.
    pub memory: MemoryBounds,
}

impl Config {
    /// Checks a command line, for a process with this much memory and this many open files.
    ///
    /// # Errors
    /// A listener that is invalid or given twice, or a flag without its listener.
    pub fn new(args: Args, memory: MemoryBounds, files: FileBounds) -> anyhow::Result<Self> {
        let listeners = listeners::listeners(&args)?;
        let connections = match listeners.iter().any(ListenerConfig::has_tls) {
            true => memory.tls_connections,
            false => memory.connections,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            id: BrokerId(args.id),
            cluster_id: args.cluster_id,
            data: args.data,
            listeners,
            identity: args.identity,
            controller: args.controller,
            controller_file: args.controller_file,
            http: args.http,
            rack: args.rack.filter(|rack| !rack.is_empty()),
            threads: args.threads.map_or(cores, usize::from),
            connections_max: args.max_connections.unwrap_or(connections).min(files.connections),
            segments_open_max: files.segments,
            request_memory_bytes_max: args.request_memory_mib.unwrap_or(memory.requests_mib)
                as usize
                * 1024
                * 1024,
            answer_memory_bytes_max: args.answer_memory_mib.unwrap_or(memory.answers_mib) as usize
                * 1024
                * 1024,
            metrics_topics_max: args.metrics_topics_max,
            metrics_partitions_max: args.metrics_partitions_max,
            memory,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    pub(super) fn config(flags: &[&str]) -> anyhow::Result<Config> {
        with_files(1 << 20, flags)
    }

    fn with_files(files: u64, flags: &[&str]) -> anyhow::Result<Config> {
        let base =
            ["weir-broker", "--id", "3", "--cluster-id", "c", "--data", "d", "--controller", "h:1"];
        Config::new(
            Args::try_parse_from(base.iter().chain(flags))?,
            MemoryBounds::of(Some(128 << 20)),
            FileBounds::of(files),
        )
    }

    #[test]
    fn what_is_said_of_memory_prevails_over_the_limit() {
        let derived = config(&[]).unwrap();
        assert_eq!((derived.request_memory_bytes_max, derived.connections_max), (32 << 20, 409));
        let said = config(&["--request-memory-mib", "64", "--max-connections", "7"]).unwrap();
        assert_eq!((said.request_memory_bytes_max, said.connections_max), (64 << 20, 7));
        let few = with_files(512, &["--max-connections", "1000"]).unwrap();
        assert_eq!(
            (few.segments_open_max, few.connections_max),
            (85, 171),
            "a file for each connection, and some for segments"
        );
    }
}
