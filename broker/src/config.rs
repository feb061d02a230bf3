//! The command line of a broker. [`Args`] holds its text, [`Config`] the checked result.
//!
//! Few settings are flags: the broker's id, its data directory and its listeners. Everything else
//! is Kafka configuration, which arrives with the metadata.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use weir_protocol::address;
use weir_protocol::types::BrokerId;
use weir_security::principal::MappingRules;
use weir_telemetry::logs::LogFormat;

use crate::files::FileBounds;
use crate::memory::MemoryBounds;

/// The first word of a command line that is [`StraysArgs`].
pub const STRAYS: &str = "strays";

const STRAYS_HELP: &str = "`weir-broker strays` lists the logs that a broker has set aside, and removes them with --remove.";

/// A broker of a Weir cluster: it stores partitions on its disk and speaks the Kafka protocol.
///
/// The settings of topics and of the cluster come from the controller. These flags only say which
/// broker this is, and where its data and listeners are.
#[derive(Clone, Debug, Parser)]
#[command(name = "weir-broker", version, max_term_width = 110, after_help = STRAYS_HELP)]
pub struct Args {
    /// This broker's id in the cluster, 0 or more. It never changes, because the data directory
    /// records it.
    #[arg(long, env = "WEIR_BROKER_ID", value_parser = clap::value_parser!(i32).range(0..))]
    pub id: i32,

    /// The id of the cluster that this broker belongs to. The broker refuses a data directory or a
    /// controller of another cluster.
    #[arg(long, env = "WEIR_CLUSTER_ID", value_name = "CLUSTER")]
    pub cluster_id: String,

    /// The directory of the log. The broker formats it when it is empty, and refuses it when it
    /// belongs to another broker.
    #[arg(long, env = "WEIR_DATA", value_name = "DIR")]
    pub data: PathBuf,

    /// A listener for Kafka clients, as NAME://ADDRESS:PORT. NAME is PLAINTEXT or any name of your
    /// own. An IPv6 address stands in brackets, and `[::]` is all addresses of this machine, IPv6
    /// and IPv4. Port 0 takes a free one. May be given several times.
    #[arg(
        long = "listener",
        env = "WEIR_LISTENERS",
        value_delimiter = ',',
        default_value = "PLAINTEXT://127.0.0.1:9092",
        value_name = "LISTENER"
    )]
    pub listeners: Vec<String>,

    /// The address of a listener for clients, as NAME://HOST:PORT, if it differs from the
    /// listener's own. May be given several times.
    #[arg(
        long = "advertised-listener",
        env = "WEIR_ADVERTISED_LISTENERS",
        value_delimiter = ',',
        value_name = "LISTENER"
    )]
    pub advertised_listeners: Vec<String>,

    /// TLS on a listener, as LISTENER=DIR. The directory has tls.crt, the chain of the certificate,
    /// and tls.key, its private key, both in PEM. The broker reads them again when they change. The
    /// first listener, which brokers use among themselves, has no TLS. May be given several times.
    #[arg(long, value_name = "LISTENER=DIR")]
    pub tls: Vec<String>,

    /// Whether clients show a certificate, as LISTENER=none, requested or required (Kafka's
    /// ssl.client.auth). With the last two, clients.crt in the listener's directory has the CAs of
    /// clients [default: none].
    #[arg(long, value_name = "LISTENER=AUTH")]
    pub tls_client_auth: Vec<String>,

    /// How the subject of a client's certificate becomes the name of its principal, as
    /// LISTENER=RULES (Kafka's ssl.principal.mapping.rules) [default: DEFAULT, the whole subject].
    #[arg(long, value_name = "LISTENER=RULES")]
    pub tls_principal_rules: Vec<String>,

    /// The address of the controller, as HOST:PORT.
    #[arg(long, env = "WEIR_CONTROLLER", value_name = "HOST:PORT")]
    pub controller: String,

    /// A file with the controller's HOST:PORT, which overrides --controller. The broker reads it
    /// before each attempt to reach the controller, so it follows changes. While the file cannot be
    /// read, the last known address is used.
    #[arg(long, env = "WEIR_CONTROLLER_FILE", value_name = "FILE")]
    pub controller_file: Option<PathBuf>,

    /// The address that serves /metrics, /healthz, /readyz and /strays. `[::]` is all addresses of
    /// this machine, IPv6 and IPv4. Port 0 takes a free one.
    #[arg(long, env = "WEIR_HTTP", default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    pub http: SocketAddr,

    /// The rack or zone of this broker. Replicas are spread over racks, and consumers read from
    /// their own.
    #[arg(long, env = "WEIR_RACK")]
    pub rack: Option<String>,

    /// Threads that serve connections [default: one per core].
    #[arg(long, env = "WEIR_THREADS", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,

    /// The most connections at a time; further ones are closed at once [default: as many as fit
    /// into a quarter of the memory, 20000 at most; and no more than two thirds of the files that
    /// the process may open].
    #[arg(long, env = "WEIR_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,

    /// The memory, in MiB, for all requests that are being received or handled [default: a quarter
    /// of the memory that the process may have, 256 at most].
    #[arg(long, env = "WEIR_REQUEST_MEMORY_MIB", value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    pub request_memory_mib: Option<u32>,

    /// The memory, in MiB, for all answers that clients have not read yet [default: a sixteenth of
    /// the memory that the process may have, 128 at most].
    #[arg(long, env = "WEIR_ANSWER_MEMORY_MIB", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub answer_memory_mib: Option<u32>,

    /// The most topics with metrics of their own. The traffic of all other topics is counted
    /// together, as topic "".
    #[arg(long, env = "WEIR_METRICS_TOPICS_MAX", default_value_t = 1_000)]
    pub metrics_topics_max: usize,

    /// The most partitions with metrics of their own: the first by topic and index.
    #[arg(long, env = "WEIR_METRICS_PARTITIONS_MAX", default_value_t = 5_000)]
    pub metrics_partitions_max: usize,

    /// The format of log lines: "text" for people, "json" for machines.
    #[arg(long, env = "WEIR_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Lists the logs that a broker has set aside, with their bytes: directories of records whose topic
/// was not in the metadata.
///
/// No part of Weir reads them any more, and only this command removes them. The broker may be
/// running.
#[derive(Clone, Debug, Parser)]
#[command(name = "weir-broker strays", version, max_term_width = 110)]
pub struct StraysArgs {
    /// The directory of the log.
    #[arg(long, env = "WEIR_DATA", value_name = "DIR")]
    pub data: PathBuf,

    /// Removes them and their records, for good.
    #[arg(long)]
    pub remove: bool,
}

/// A listener of this broker: the address to bind, and the address for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Its name.
    pub name: String,
    /// The host and port to bind.
    pub bind: (String, u16),
    /// The host and port for clients; port 0 stands for the bound port.
    pub advertised: (String, u16),
    /// Its TLS; `None` for plain TCP.
    pub tls: Option<TlsConfig>,
}

/// TLS on a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The directory of its certificate, and of the CAs of clients.
    pub folder: PathBuf,
    /// Whether clients show a certificate.
    pub client_auth: ClientAuth,
    /// How a subject becomes a name: valid rules.
    pub principal_rules: String,
}

/// Whether clients show a certificate (`ssl.client.auth`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// They may. One that is not good is refused all the same.
    Requested,
    /// They must.
    Required,
}

impl fmt::Display for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Requested => "requested",
            Self::Required => "required",
        })
    }
}

/// The checked command line.
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
    /// A listener that is invalid or given twice, or an advertised address or TLS without a
    /// listener.
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
            listeners.push(ListenerConfig { name, bind, advertised, tls: None });
        }
        set_tls(&mut listeners, &args)?;
        if let Some((name, _)) = advertised
            .iter()
            .find(|(name, _)| listeners.iter().all(|listener| listener.name != *name))
        {
            anyhow::bail!("--advertised-listener {name}: there is no --listener of that name");
        }
        let connections = match listeners.iter().any(|listener| listener.tls.is_some()) {
            true => memory.tls_connections,
            false => memory.connections,
        };
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

/// Sets the TLS of the listeners that the command line gives one.
fn set_tls(listeners: &mut [ListenerConfig], args: &Args) -> anyhow::Result<()> {
    for text in &args.tls {
        let (at, folder) = of_listener("--tls", text, listeners)?;
        anyhow::ensure!(
            at > 0,
            "--tls {text}: the first listener is for brokers among themselves, which do not speak TLS yet"
        );
        let (folder, client_auth) = (PathBuf::from(folder), ClientAuth::None);
        let principal_rules = "DEFAULT".to_owned();
        listeners[at].tls = Some(TlsConfig { folder, client_auth, principal_rules });
    }
    for text in &args.tls_client_auth {
        tls_of("--tls-client-auth", text, listeners, |tls, auth| {
            tls.client_auth = match auth {
                "none" => ClientAuth::None,
                "requested" => ClientAuth::Requested,
                "required" => ClientAuth::Required,
                _ => anyhow::bail!("it is none, requested or required"),
            };
            Ok(())
        })?;
    }
    for text in &args.tls_principal_rules {
        tls_of("--tls-principal-rules", text, listeners, |tls, rules| {
            MappingRules::parse(rules)?;
            tls.principal_rules = rules.to_owned();
            Ok(())
        })?;
    }
    Ok(())
}

/// Sets a part of the TLS of the listener that a flag names.
fn tls_of(
    flag: &str,
    text: &str,
    listeners: &mut [ListenerConfig],
    set: impl FnOnce(&mut TlsConfig, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (at, value) = of_listener(flag, text, listeners)?;
    let tls = listeners[at].tls.as_mut();
    let tls = tls.with_context(|| format!("{flag} {text}: the listener has no --tls"))?;
    set(tls, value).with_context(|| format!("{flag} {text}"))
}

/// The index of the listener, and the value, in `LISTENER=VALUE`.
fn of_listener<'a>(
    flag: &str,
    text: &'a str,
    listeners: &[ListenerConfig],
) -> anyhow::Result<(usize, &'a str)> {
    let parts = text.split_once('=').filter(|(_, value)| !value.is_empty());
    let (name, value) = parts.with_context(|| format!("{flag} {text}: it is LISTENER=VALUE"))?;
    let at = listeners.iter().position(|listener| listener.name == name);
    let at = at.with_context(|| format!("{flag} {text}: there is no --listener of that name"))?;
    Ok((at, value))
}

/// Parses `NAME://HOST:PORT`, with an IPv6 address in brackets.
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
        assert!(two.listeners.iter().all(|listener| listener.tls.is_none()));
        assert!(config(&["--id=-1"]).is_err());
    }
    #[test]
    fn tls_belongs_to_a_listener_that_is_not_the_first() {
        let listeners = ["--listener", "IN://[::]:1,OUT://[::]:2", "--tls", "OUT=d=e"];
        let with = |more: &[&str]| config(&[&listeners, more].concat());
        let plain = with(&[]).unwrap();
        let tls = plain.listeners[1].tls.clone().unwrap();
        assert_eq!((tls.folder, tls.client_auth), ("d=e".into(), ClientAuth::None));
        assert_eq!((&plain.listeners[0].tls, tls.principal_rules.as_str()), (&None, "DEFAULT"));
        assert!(plain.connections_max < config(&[]).unwrap().connections_max);
        let rules = "OUT=RULE:^CN=(.*?),.*$/$1/,DEFAULT";
        let all = ["--tls-client-auth", "OUT=required", "--tls-principal-rules", rules];
        let tls = with(&all).unwrap().listeners[1].tls.clone().unwrap();
        assert_eq!(tls.client_auth, ClientAuth::Required);
        assert_eq!(format!("OUT={}", tls.principal_rules), rules);
        let wrong: [&[&str]; 8] = [
            &["--tls", "IN=d"],
            &["--tls", "OTHER=d"],
            &["--tls", "OUT="],
            &["--tls", "OUT"],
            &["--tls-client-auth", "IN=required"],
            &["--tls-client-auth", "OUT=always"],
            &["--tls-principal-rules", "OUT=RULE:(/x/"],
            &["--tls-principal-rules", "IN=DEFAULT"],
        ];
        for more in wrong {
            assert!(with(more).is_err(), "{more:?}");
        }
    }
}
