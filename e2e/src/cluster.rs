//! The cluster of a test: `weir local` in a temporary directory, or an existing cluster.
//!
//! Each test starts its own cluster, which costs less than sharing one. A test ends everything that
//! it started, by `weir local down` and then by process id.

use std::fmt::Write as _;
use std::io::{Seek as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tempfile::TempDir;

/// How many bytes of each log a failed test prints.
const LOG_TAIL_BYTES: usize = 16 << 10;
/// The range of ports. It is below the kernel's ephemeral range, so that no outgoing connection
/// takes a port while its broker is down.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// A cluster that serves the Kafka protocol.
#[derive(Debug)]
pub struct Cluster {
    /// `host:port` of its brokers.
    pub bootstrap: String,
    local: Option<Local>,
}

impl Cluster {
    /// The cluster that `WEIR_E2E_BOOTSTRAP` names. Otherwise a new local one with Kafka's
    /// defaults, with one broker or `WEIR_E2E_BROKERS` brokers.
    ///
    /// # Errors
    /// When the local cluster does not start.
    pub fn start() -> Result<Self> {
        if let Ok(bootstrap) = std::env::var("WEIR_E2E_BOOTSTRAP") {
            return Ok(Self { bootstrap, local: None });
        }
        let local = Local::start_of(Some(brokers()), None)?;
        Ok(Self { bootstrap: local.bootstrap(), local: Some(local) })
    }

    /// The local cluster, which a test can kill and inspect; `None` if the test did not start the
    /// cluster.
    #[must_use]
    pub fn local(&self) -> Option<&Local> {
        self.local.as_ref()
    }

    /// A topic name that no other test uses, even on a shared cluster.
    #[must_use]
    pub fn topic(&self, stem: &str) -> String {
        unique(stem)
    }
}

/// The default number of brokers: `WEIR_E2E_BROKERS`, or one.
#[must_use]
pub fn brokers() -> u32 {
    std::env::var("WEIR_E2E_BROKERS").ok().and_then(|brokers| brokers.parse().ok()).unwrap_or(1)
}

/// The replication factor of test topics in such a cluster: one replica on each broker, up to
/// three.
#[must_use]
pub fn replicas() -> i16 {
    i16::try_from(brokers().min(3)).unwrap_or(1)
}

/// `stem` with a suffix that makes it unique in this process and among others.
#[must_use]
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.subsec_nanos());
    format!("{stem}-{}-{nanos}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The output of `weir local status -o json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The controller's process; `None` while it is down.
    pub controller: Option<ControllerStatus>,
    /// Every broker, running or not.
    pub brokers: Vec<BrokerStatus>,
    /// Counts over all partitions; `None` while the controller is down.
    pub partitions: Option<PartitionCounts>,
}

/// The controller in the status.
#[derive(Debug, Deserialize)]
pub struct ControllerStatus {
    /// Process id; `None` while it does not run.
    pub pid: Option<i32>,
}

/// A broker in the status.
#[derive(Debug, Deserialize)]
pub struct BrokerStatus {
    /// Broker id, from 0.
    pub id: i32,
    /// Process id; `None` while it does not run.
    pub pid: Option<i32>,
    /// Port of its client listener.
    pub port: u16,
    /// A word for people, such as `running`.
    pub state: String,
}

/// Counts over all partitions of the cluster.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionCounts {
    /// All partitions.
    pub total: u64,
    /// Partitions with fewer in-sync replicas than replicas.
    pub under_replicated: u64,
    /// Partitions without a leader.
    pub offline: u64,
}

/// A cluster of `weir local` with its own directory.
#[derive(Debug)]
pub struct Local {
    data: TempDir,
    host: IpAddr,
    port: u32,
    /// From the command line, else three.
    brokers: u32,
    environment: Vec<(String, String)>,
    printed: String,
}

impl Local {
    /// Starts a cluster with one broker and the resources in `yaml`, if any. Returns once it
    /// serves.
    ///
    /// # Errors
    /// When the binary is missing or does not start; the message holds its output.
    pub fn start(yaml: Option<&str>) -> Result<Self> {
        Self::start_of(Some(1), yaml)
    }

    /// The same as `start`, with this many brokers; `None` leaves `--brokers` out.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_of(brokers: Option<u32>, yaml: Option<&str>) -> Result<Self> {
        Self::start_in(&[], brokers, yaml)
    }

    /// The same as `start_of`, with these environment variables for its processes.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_in(
        environment: &[(&str, &str)],
        brokers: Option<u32>,
        yaml: Option<&str>,
    ) -> Result<Self> {
        Self::start_with(Ipv4Addr::LOCALHOST.into(), environment, brokers, yaml)
    }

    /// The same as `start_of`, with brokers that listen on this address.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_at(host: IpAddr, brokers: u32) -> Result<Self> {
        Self::start_with(host, &[], Some(brokers), None)
    }

    /// Starts a cluster of one broker on a directory that `fill` fills, as if it had run there.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_on(fill: impl FnOnce(&Path)) -> Result<Self> {
        let local = Self::nothing(Ipv4Addr::LOCALHOST.into(), &[], 1)?;
        std::fs::create_dir(local.data()).context("make the data directory")?;
        fill(&local.data());
        local.run(&["up", "--detach", "--port", &local.port.to_string()])?;
        Ok(local)
    }

    /// A cluster that does not run yet.
    fn nothing(host: IpAddr, environment: &[(&str, &str)], brokers: u32) -> Result<Self> {
        Ok(Self {
            data: TempDir::with_prefix("weir-e2e-").context("make a data directory")?,
            host,
            port: free_ports(host, brokers)?,
            brokers,
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            printed: String::new(),
        })
    }

    fn start_with(
        host: IpAddr,
        environment: &[(&str, &str)],
        brokers: Option<u32>,
        yaml: Option<&str>,
    ) -> Result<Self> {
        let mut local = Self::nothing(host, environment, brokers.unwrap_or(3))?;
        let flag = brokers.map(|brokers| brokers.to_string());
        let (address, port) = (host.to_string(), local.port.to_string());
        let mut arguments = vec!["up", "--detach", "--port", &port];
        // For the default address this leaves the flag out, which tests the default too.
        if host != IpAddr::V4(Ipv4Addr::LOCALHOST) {
            arguments.extend(["--host", &address]);
        }
        if let Some(flag) = &flag {
            arguments.extend(["--brokers", flag]);
        }
        let file = local.data.path().join("resources.yaml");
        let file = file.to_string_lossy().into_owned();
        if let Some(yaml) = yaml {
            std::fs::write(&file, yaml).context("write the resources")?;
            arguments.extend(["-f", &file]);
        }
        let printed = local.run(&arguments)?;
        let expected = format!("bootstrap: {}", local.bootstrap());
        if !printed.lines().any(|line| line == expected) {
            bail!("`weir local up` did not print `{expected}` but:\n{printed}");
        }
        local.printed = printed;
        Ok(local)
    }

    /// The output of `weir local up`.
    #[must_use]
    pub fn printed(&self) -> &str {
        &self.printed
    }

    /// `host:port` of the brokers, separated by commas.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let port = |id| u16::try_from(self.port + id).unwrap_or_default();
        let addresses: Vec<_> =
            (0..self.brokers).map(|id| SocketAddr::new(self.host, port(id)).to_string()).collect();
        addresses.join(",")
    }

    /// The directory that holds everything of the cluster.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// Runs `weir local ARGUMENTS --data ...` and returns its standard output.
    ///
    /// # Errors
    /// When it cannot be run or fails; the message holds its output.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, Stdio::null())
    }

    fn run_with(&self, arguments: &[&str], input: Stdio) -> Result<String> {
        let output = self.output_of(arguments, input)?;
        if !output.status.success() {
            bail!("`weir local {}`: {}\n{}", arguments.join(" "), output.status, both(&output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same as `run`, for commands that should fail.
    ///
    /// # Errors
    /// When it cannot be run at all.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.output_of(arguments, Stdio::null())
    }

    fn output_of(&self, arguments: &[&str], input: Stdio) -> Result<Output> {
        let binary = binary()?;
        // A process that it leaves running must not keep our pipes open. This call returns only if
        // `--detach` respects that.
        Command::new(&binary)
            .arg("local")
            .args(arguments)
            .arg("--data")
            .arg(self.data())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(input)
            .output()
            .with_context(|| format!("run {}", binary.display()))
    }

    /// Applies resources.
    ///
    /// # Errors
    /// When a resource is refused; the message is the output of `weir local apply`.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        // From a pipe, as with `... | kubectl apply -f -`.
        let mut file = tempfile::tempfile()?;
        file.write_all(yaml.as_bytes()).context("write the resources")?;
        file.rewind()?;
        self.run_with(&["apply", "-f", "-"], file.into())
    }

    /// The status of the cluster.
    ///
    /// # Errors
    /// When the command fails or its output is not valid.
    pub fn status(&self) -> Result<Status> {
        serde_json::from_str(&self.run(&["status", "-o", "json"])?)
            .context("read `weir local status -o json`")
    }

    /// The process id of the first broker.
    ///
    /// # Errors
    /// When it does not run.
    pub fn broker_pid(&self) -> Result<i32> {
        let status = self.status()?;
        status
            .brokers
            .first()
            .and_then(|b| b.pid)
            .with_context(|| format!("no broker runs: {status:?}"))
    }

    /// The resident memory of the first broker in bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn broker_rss(&self) -> Result<u64> {
        rss(self.broker_pid()?)
    }

    /// The last bytes of every log file of the cluster.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for path in files(self.data.path()) {
            let name =
                path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let segment = name.len() == 24 && name.bytes().take(20).all(|b| b.is_ascii_digit());
            if !name.ends_with(".log") || segment {
                continue;
            }
            let content = std::fs::read(&path).unwrap_or_default();
            let tail =
                content.get(content.len().saturating_sub(LOG_TAIL_BYTES)..).unwrap_or_default();
            let _ = writeln!(text, "--- {}\n{}", path.display(), String::from_utf8_lossy(tail));
        }
        text
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
            eprintln!("the directory stays: {}", self.data.path().display());
            self.data.disable_cleanup(true);
        }
        let pids = self.status().map(|s| {
            s.brokers
                .iter()
                .filter_map(|b| b.pid)
                .chain(s.controller.and_then(|c| c.pid))
                .collect::<Vec<_>>()
        });
        if let Err(e) = self.run(&["down"]) {
            eprintln!("{e:#}");
            for pid in pids.unwrap_or_default() {
                let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
            }
        }
    }
}

/// Resident memory of a process in bytes.
///
/// # Errors
/// When the process does not exist.
pub fn rss(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("read the status of process {pid}"))?;
    let kib = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.context("no VmRSS")? << 10)
}

/// The `weir` binary: `WEIR_BIN`, else the one that was built with this test.
///
/// # Errors
/// When it does not exist.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WEIR_BIN") {
        return Ok(PathBuf::from(path));
    }
    let test = std::env::current_exe().context("where is this test")?;
    let built = test
        .ancestors()
        .skip(1)
        .map(|folder| folder.join("weir"))
        .take(2)
        .find(|path| path.is_file());
    built.with_context(|| {
        format!(
            "no `weir` beside {}: build it with `cargo build --bin weir` or set WEIR_BIN",
            test.display()
        )
    })
}

/// The first of `count` consecutive free ports.
///
/// # Errors
/// When there are none.
pub fn free_ports(host: IpAddr, count: u32) -> Result<u32> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let turn = NEXT.fetch_add(count, Ordering::Relaxed);
        // Concurrent test processes start far from each other.
        let port = PORTS.start
            + (std::process::id().wrapping_mul(257).wrapping_add(turn))
                % (PORTS.end - PORTS.start - count);
        let is_free = |port| {
            u16::try_from(port).is_ok_and(|port| std::net::TcpListener::bind((host, port)).is_ok())
        };
        if (port..port + count).all(is_free) {
            return Ok(port);
        }
    }
    bail!("no free port")
}

fn both(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Every file below a folder.
#[must_use]
pub fn files(folder: &Path) -> Vec<PathBuf> {
    files_outside(folder, Path::new(""))
}

/// Every file below a folder, except in folders named `left_out`.
#[must_use]
pub fn files_outside(folder: &Path, left_out: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        if left_out.file_name().is_some_and(|name| folder.file_name() == Some(name)) {
            continue;
        }
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => found.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    found.sort();
    found
}
