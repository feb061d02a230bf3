//! `weir local`: the command line, and how each command uses the processes and the controller of a
//! local cluster.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::cluster::LocalCluster;
use super::output::Format;
use super::target::Target;
use super::tls::ClientFile;
use super::{manifests, output};

/// A cluster on this machine: the controller and the brokers as processes, on the loopback
/// interface unless `--host` names another address.
#[derive(Clone, Debug, Parser)]
pub struct Local {
    #[command(subcommand)]
    command: Command,
}

/// Where the cluster keeps everything.
#[derive(Args, Clone, Debug)]
struct Data {
    /// The directory of the cluster: its log, its metadata, its processes' logs.
    #[arg(long, default_value = "./weir-data", value_name = "DIR")]
    data: PathBuf,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Start the cluster, and go on where it was if there is one.
    Up(Up),
    /// Create or change resources.
    Apply {
        /// A YAML file, a directory of them, or "-" for the standard input. May be given several
        /// times.
        #[arg(short, long = "filename", required = true, value_name = "FILE_OR_DIR")]
        filename: Vec<PathBuf>,
        #[command(flatten)]
        data: Data,
    },
    /// Delete the resources that a file names.
    Delete {
        /// A YAML file, a directory of them, or "-" for the standard input. May be given several
        /// times.
        #[arg(short, long = "filename", required = true, value_name = "FILE_OR_DIR")]
        filename: Vec<PathBuf>,
        #[command(flatten)]
        data: Data,
    },
    /// Show resources.
    Get {
        /// The kind: kafkacluster, topic, consumergroup, or their plural or short names (kfc, ktp,
        /// kcg); or secret, for the files of clients with TLS.
        kind: String,
        /// The name; all of the kind without one.
        name: Option<String>,
        /// The whole resource in this form, not a table. The last two are for a Secret with a CA:
        /// the file with which a client of Kafka runs.
        #[arg(short, long)]
        output: Option<GetFormat>,
        #[command(flatten)]
        data: Data,
    },
    /// Show the processes and the state of the partitions.
    Status {
        /// In this form, not as text.
        #[arg(short, long)]
        output: Option<Format>,
        #[command(flatten)]
        data: Data,
    },
    /// Kill a process as a crash would: SIGKILL.
    Kill(Which),
    /// Stop a process cleanly: a broker first hands over its leadership.
    Stop(Which),
    /// Start a process that was killed or stopped.
    Start(Which),
    /// Stop the cluster and keep its data.
    Down {
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Args, Clone, Debug)]
struct Up {
    /// Resources to apply once the controller answers: a YAML file, a directory of them, or "-" for
    /// the standard input. May be given several times.
    #[arg(short, long = "filename", value_name = "FILE_OR_DIR")]
    filename: Vec<PathBuf>,
    /// The number of brokers [default: the KafkaCluster's, else as before, else 3]
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    brokers: Option<i32>,
    /// The port of broker 0; broker i listens on the i-th port after it [default: as before, else
    /// 9092]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The address of this machine on which brokers listen and which they advertise, such as ::1.
    /// Their own listener has no authentication: a client that reaches it has full access
    /// [default: as before, else 127.0.0.1]
    #[arg(long, value_parser = one_address, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// Return once every broker serves, and leave the cluster running.
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    data: Data,
}

/// Parses an address that clients can connect to.
fn one_address(text: &str) -> Result<IpAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => Err(
            "clients are told this address, and it is none that they could connect to: name one"
                .to_owned(),
        ),
        Ok(address) => Ok(address),
        Err(_) => Err("not an IP address, such as 127.0.0.1 or ::1".to_owned()),
    }
}

/// The form of `get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum GetFormat {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// The file of the Java client and of Kafka's tools.
    #[value(name = "client.properties")]
    Properties,
    /// The file of librdkafka, such as for `kcat -F`.
    #[value(name = "librdkafka.conf")]
    Librdkafka,
}

async fn get(
    cluster: &LocalCluster,
    kind: &str,
    name: Option<&str>,
    format: Option<GetFormat>,
) -> anyhow::Result<()> {
    let is_secret = ["secret", "secrets"].contains(&kind.to_ascii_lowercase().as_str());
    let file = match format {
        Some(GetFormat::Properties) => ClientFile::Properties,
        Some(GetFormat::Librdkafka) => ClientFile::Librdkafka,
        Some(GetFormat::Json | GetFormat::Yaml) | None => {
            let format = format.map(|format| match format {
                GetFormat::Json => Format::Json,
                _ => Format::Yaml,
            });
            let resources = match is_secret {
                true => cluster.secrets(name)?,
                false => cluster.get(kind, name).await?,
            };
            return output::resources(&resources, name.is_some(), format);
        }
    };
    anyhow::ensure!(is_secret, "this form is for a Secret with a CA");
    let name = name.context("this form is for one Secret: name it")?;
    output::line(&cluster.client_file(name, file)?);
    Ok(())
}

#[derive(Args, Clone, Debug)]
struct Which {
    /// A broker's id, or "controller".
    #[arg(value_name = "ID")]
    process: Target,
    #[command(flatten)]
    data: Data,
}

/// Runs a command, which prints to standard output.
///
/// # Errors
/// When it fails; the message says why.
pub async fn run(local: Local) -> anyhow::Result<()> {
    match local.command {
        Command::Up(up) => {
            let resources = manifests::read(&up.filename)?;
            let cluster =
                LocalCluster::prepare(&up.data.data, up.brokers, (up.host, up.port), &resources)?;
            cluster.up(resources, up.detach).await
        }
        Command::Apply { filename, data } => {
            let resources = manifests::read(&filename)?;
            LocalCluster::open(&data.data)?.apply_and_follow(resources).await
        }
        Command::Delete { filename, data } => {
            let resources = manifests::read(&filename)?;
            LocalCluster::open(&data.data)?.delete(&resources).await
        }
        Command::Get { kind, name, output, data } => {
            get(&LocalCluster::open(&data.data)?, &kind, name.as_deref(), output).await
        }
        Command::Status { output, data } => {
            output::status(&LocalCluster::open(&data.data)?.status().await, output)
        }
        Command::Kill(which) => LocalCluster::open(&which.data.data)?.kill(which.process).await,
        Command::Stop(which) => LocalCluster::open(&which.data.data)?.stop(which.process).await,
        Command::Start(which) => LocalCluster::open(&which.data.data)?.start(which.process).await,
        Command::Down { data } => LocalCluster::open(&data.data)?.down().await,
    }
}
