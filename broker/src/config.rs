//! The command line of a broker, and what it means: [`Args`] is what was typed, [`Config`] what the
//! broker goes by.
//!
//! Few things are flags: who this broker is, where its data lies and where it listens. All else is
//! Kafka's configuration and arrives with the metadata.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use weir_protocol::address;
use weir_protocol::types::BrokerId;
use weir_telemetry::logs::LogFormat;

use crate::files::FileBounds;
use crate::memory::MemoryBounds;

/// The word behind which the command line is that of [`StraysArgs`].
pub const STRAYS: &str = "strays";

const STRAYS_HELP: &str = "`weir-broker strays` lists the logs that a broker has set aside, and removes them with --remove.";

/// A broker of a Weir cluster: it keeps partitions on its disk and speaks the Kafka protocol.
///
/// What a topic or the cluster is set to comes from the controller; these flags only say who the
/// broker is and where it stands.
#[derive(Clone, Debug, Parser)]
#[command(name = "weir-broker", version, max_term_width = 110, after_help = STRAYS_HELP)]
pub struct Args {
    /// This broker's id in the cluster, 0 or more. It never changes: the data directory remembers
    /// it.
    #[arg(long, env = "WEIR_BROKER_ID", value_parser = clap::value_parser!(i32).range(0..))]
    pub id: i32,

    /// The id of the cluster that this broker belongs to. A data directory or a controller of
    /// another cluster is refused.
    #[arg(long, env = "WEIR_CLUSTER_ID", value_name = "CLUSTER")]
    pub cluster_id: String,

    /// The directory that holds the log. Formatted when it is empty; refused when it is another
    /// broker's.
    #[arg(long, env = "WEIR_DATA", value_name = "DIR")]
    pub data: PathBuf,

    /// A listener for Kafka clients, as NAME://ADDRESS:PORT. NAME is PLAINTEXT or any name of your
    /// own; an IPv6 address stands in brackets, and `[::]` is all addresses of this machine, IPv6
    /// and IPv4; port 0 takes a free one. May be given several times.
    #[arg(
        long = "listener",
        env = "WEIR_LISTENERS",
        value_delimiter = ',',
        default_value = "PLAINTEXT://127.0.0.1:9092",
        value_name = "LISTENER"
    )]
    pub listeners: Vec<String>,

    /// What clients of a listener are told to connect to, as NAME://HOST:PORT, where it differs
    /// from the listener's own address. May be given several times.
    #[arg(
        long = "advertised-listener",
        env = "WEIR_ADVERTISED_LISTENERS",
        value_delimiter = ',',
        value_name = "LISTENER"
    )]
    pub advertised_listeners: Vec<String>,

    /// Where the controller answers, as HOST:PORT.
    #[arg(long, env = "WEIR_CONTROLLER", value_name = "HOST:PORT")]
    pub controller: String,

    /// A file with the controller's HOST:PORT, which prevails over --controller. It is read before
    /// each attempt to reach the controller, so a running broker follows it. While it cannot be
    /// read, what is known counts.
    #[arg(long, env = "WEIR_CONTROLLER_FILE", value_name = "FILE")]
    pub controller_file: Option<PathBuf>,

    /// Where /metrics, /healthz, /readyz and /strays are served; `[::]` is all addresses of this
    /// machine, IPv6 and IPv4; port 0 takes a free one.
    #[arg(long, env = "WEIR_HTTP", default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    pub http: SocketAddr,

    /// The rack or zone that this broker stands in: replicas are spread over them, and consumers
    /// read from their own.
    #[arg(long, env = "WEIR_RACK")]
    pub rack: Option<String>,

    /// Threads that serve connections [default: one per core].
    #[arg(long, env = "WEIR_THREADS", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,

    /// The largest number of connections at a time; more are closed at once [default: as many as
    /// fit into a quarter of the memory, 20000 at most; and no more than two thirds of the files
    /// that it may open].
    #[arg(long, env = "WEIR_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,

    /// The memory, in MiB, that requests which are still being received or carried out may take
    /// together [default: a quarter of the memory that the process may have, 256 at most].
    #[arg(long, env = "WEIR_REQUEST_MEMORY_MIB", value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    pub request_memory_mib: Option<u32>,

    /// The memory, in MiB, that answers may take together which their clients have not read yet
    /// [default: a sixteenth of the memory that the process may have, 128 at most].
    #[arg(long, env = "WEIR_ANSWER_MEMORY_MIB", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub answer_memory_mib: Option<u32>,

    /// Topics that have metrics of their own, at most; what goes in and out of all others is
    /// counted together, as topic "".
    #[arg(long, env = "WEIR_METRICS_TOPICS_MAX", default_value_t = 1_000)]
    pub metrics_topics_max: usize,

    /// Partitions that have metrics of their own, at most: the first by topic and index.
    #[arg(long, env = "WEIR_METRICS_PARTITIONS_MAX", default_value_t = 5_000)]
    pub metrics_partitions_max: usize,

    /// How log lines look: "text" for people, "json" for machines.
    #[arg(long, env = "WEIR_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Lists the logs that a broker has set aside, with their bytes: directories of records whose topic
/// was not in the metadata.
///
/// Nothing of Weir's reads them any more, and nothing removes them but this. The broker may run
/// meanwhile.
#[derive(Clone, Debug, Parser)]
#[command(name = "weir-broker strays", version, max_term_width = 110)]
pub struct StraysArgs {
    /// The directory that holds the log.
    #[arg(long, env = "WEIR_DATA", value_name = "DIR")]
    pub data: PathBuf,

    /// Removes them, with their records for good.
    #[arg(long)]
    pub remove: bool,
}

/// A listener of this broker: where it is bound, and what clients are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Its name.
    pub name: String,
    /// The host and port to bind.
    pub bind: (String, u16),
    /// The host and port that clients are told; port 0 stands for the one that was bound.
    pub advertised: (String, u16),
}

/// What a broker goes by: the command line, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// This broker's id.
    pub id: BrokerId,
    /// The cluster's id.
    pub cluster_id: String,
    /// The log directory.
    pub data: PathBuf,
    /// The listeners, at least one.
    pub listeners: Vec<ListenerConfig>,
    /// The controller's `host:port`.
    pub controller: String,
    /// The file that holds another one, if there is one.
    pub controller_file: Option<PathBuf>,
    /// Where metrics and health are served.
    pub http: SocketAddr,
    /// The rack, if there is one.
    pub rack: Option<String>,
    /// Threads that serve connections.
    pub threads: usize,
    /// The most connections at a time.
    pub connections_max: usize,
    /// The most segments that are kept open.
    pub segments_open_max: usize,
    /// The most bytes of requests in memory.
    pub request_memory_bytes_max: usize,
    /// The most bytes of answers in memory.
    pub answer_memory_bytes_max: usize,
    /// Topics that have metrics of their own, at most.
    pub metrics_topics_max: usize,
    /// Partitions that have metrics of their own, at most.
    pub metrics_partitions_max: usize,
    /// What else may take memory.
    pub memory: MemoryBounds,
}

impl Config {
    /// What is meant by a command line, for a process that may have so much memory and so many
    /// files open.
    ///
    /// # Errors
    /// A listener that is none, is there twice, or has no listener for its advertised address.
    pub fn new(args: Args, memory: MemoryBounds, files: FileBounds) -> anyhow::Result<Self> {
        let advertised = args
            .advertised_listeners
            .iter()
            .map(|text| parse_listener(text))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut listeners: Vec<ListenerConfig> = Vec::new();
        for text in &args.listeners {
            let (name, bind) = parse_listener(text)?;
            anyhow::ensure!(
                listeners.iter().all(|other| other.name != name),
                "--listener {name}: the name is given twice"
            );
            let advertised = advertised
                .iter()
                .find(|(other, _)| *other == name)
                .map_or_else(|| bind.clone(), |(_, address)| address.clone());
            listeners.push(ListenerConfig { name, bind, advertised });
        }
        if let Some((name, _)) = advertised
            .iter()
            .find(|(name, _)| listeners.iter().all(|listener| listener.name != *name))
        {
            anyhow::bail!("--advertised-listener {name}: there is no --listener of that name");
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            id: BrokerId(args.id),
            cluster_id: args.cluster_id,
            data: args.data,
            listeners,
            controller: args.controller,
            controller_file: args.controller_file,
            http: args.http,
            rack: args.rack.filter(|rack| !rack.is_empty()),
            threads: args.threads.map_or(cores, usize::from),
            connections_max: args
                .max_connections
                .unwrap_or(memory.connections)
                .min(files.connections),
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

/// `NAME://HOST:PORT`, with an IPv6 address in brackets.
fn parse_listener(text: &str) -> anyhow::Result<(String, (String, u16))> {
    let parsed = text.split_once("://").and_then(|(name, address)| {
        let (host, port) = address::split(address)?;
        (!name.is_empty()).then(|| (name.to_owned(), (host.to_owned(), port)))
    });
    parsed.ok_or_else(|| anyhow::anyhow!("listener {text:?} is not of the form NAME://HOST:PORT, with an IPv6 address in brackets"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[&str]) -> anyhow::Result<Config> {
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

    #[test]
    fn listeners_are_checked_once() {
        let two = config(&[
            "--listener",
            "IN://[::1]:9092,OUT://0.0.0.0:9093",
            "--advertised-listener",
            "OUT://k.example:1",
        ])
        .unwrap();
        assert_eq!(two.listeners[0].bind, ("::1".to_owned(), 9092));
        assert_eq!(two.listeners[0].advertised, two.listeners[0].bind);
        assert_eq!(two.listeners[1].advertised, ("k.example".to_owned(), 1));
        for wrong in [
            "PLAINTEXT",
            "://a:1",
            "A://:1",
            "A://a",
            "A://a:99999",
            "A://a:1,A://b:2",
            "A://::1:9092",
            "A://[a]:1",
        ] {
            assert!(config(&["--listener", wrong]).is_err(), "{wrong}");
        }
        assert!(config(&["--advertised-listener", "OTHER://a:1"]).is_err());
        assert!(config(&["--id=-1"]).is_err());
    }
}
