//! The text of the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use weir_telemetry::logs::LogFormat;

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

    /// The directory of this broker's identity among brokers and controller: broker-ID.crt and
    /// broker-ID.key, its certificate and private key, and ca.crt, the CAs of the cluster's nodes,
    /// all in PEM. The broker reads them again when they change. With it the listener
    /// WEIR-INTERNAL, which has to be given, is for brokers and the controller alone.
    #[arg(long, value_name = "DIR")]
    pub identity: Option<PathBuf>,

    /// TLS on a listener, as LISTENER=DIR. The directory has tls.crt, the chain of the certificate,
    /// and tls.key, its private key, both in PEM. The broker reads them again when they change. The
    /// first listener has no TLS without --identity, since brokers use it among themselves. May be
    /// given several times.
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

    /// The SASL mechanisms by which clients of a listener log in, as LISTENER=MECHANISMS with
    /// commas between: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 (Kafka's sasl.enabled.mechanisms). Users
    /// are those of AlterUserScramCredentials. The first listener has none without --identity. May
    /// be given several times [default: clients do not log in].
    #[arg(long, value_name = "LISTENER=MECHANISMS")]
    pub sasl: Vec<String>,

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
