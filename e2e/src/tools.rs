//! Apache Kafka's own command line tools and kcat, run as from a shell.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Kafka's tools, by the class that their shell scripts start.
pub mod class {
    /// `kafka-topics.sh`
    pub const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
    /// `kafka-configs.sh`
    pub const CONFIGS: &str = "kafka.admin.ConfigCommand";
    /// `kafka-console-producer.sh`
    pub const CONSOLE_PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
    /// `kafka-console-consumer.sh`
    pub const CONSOLE_CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    /// `kafka-consumer-groups.sh`
    pub const CONSUMER_GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    /// `kafka-groups.sh`
    pub const GROUPS: &str = "org.apache.kafka.tools.GroupsCommand";
    /// `kafka-get-offsets.sh`
    pub const GET_OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
    /// `kafka-delete-records.sh`
    pub const DELETE_RECORDS: &str = "org.apache.kafka.tools.DeleteRecordsCommand";
    /// `kafka-broker-api-versions.sh`
    pub const API_VERSIONS: &str = "org.apache.kafka.tools.BrokerApiVersionsCommand";
    /// `kafka-log-dirs.sh`
    pub const LOG_DIRS: &str = "org.apache.kafka.tools.LogDirsCommand";
    /// `kafka-cluster.sh`
    pub const CLUSTER: &str = "org.apache.kafka.tools.ClusterTool";
    /// `kafka-leader-election.sh`
    pub const LEADER_ELECTION: &str = "org.apache.kafka.tools.LeaderElectionCommand";
    /// `kafka-reassign-partitions.sh`
    pub const REASSIGN: &str = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
    /// `kafka-metadata-quorum.sh`
    pub const QUORUM: &str = "org.apache.kafka.tools.MetadataQuorumCommand";
    /// `kafka-acls.sh`
    pub const ACLS: &str = "org.apache.kafka.tools.AclCommand";
    /// `kafka-features.sh`
    pub const FEATURES: &str = "org.apache.kafka.tools.FeatureCommand";
    /// `kafka-dump-log.sh`
    pub const DUMP_LOG: &str = "org.apache.kafka.tools.DumpLogSegments";
    /// `kafka-producer-perf-test.sh`
    pub const PRODUCER_PERF: &str = "org.apache.kafka.tools.ProducerPerformance";
    /// `kafka-verifiable-producer.sh`
    pub const VERIFIABLE_PRODUCER: &str = "org.apache.kafka.tools.VerifiableProducer";
}

/// The output of a program, and whether it succeeded.
#[derive(Debug)]
pub struct Printed {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// Exit code 0.
    pub ok: bool,
}

impl Printed {
    /// The output of a program that must have succeeded.
    ///
    /// # Errors
    /// When it failed; the message holds all its output.
    pub fn success(self) -> Result<String> {
        if !self.ok {
            bail!("failed\n{}\n{}", self.out, self.err);
        }
        Ok(self.out)
    }
}

/// Java for a short-lived program; its libraries unpack their native parts beside the clients.
///
/// They leave them there when they are killed: in `/tmp` some gigabytes a week.
#[must_use]
pub fn java() -> Command {
    let scratch = crate::clients().join("java/tmp");
    // Where it cannot be made, Java says so.
    let _ = std::fs::create_dir_all(&scratch);
    let log4j = crate::workspace().join("e2e/clients/java/log4j2.properties");
    let mut command = Command::new("java");
    // The second compiler and a concurrent collector would cost more than they gain.
    command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
    command.arg(format!("-Djava.io.tmpdir={}", scratch.display()));
    command.arg(format!("-Dlog4j2.configurationFile={}", log4j.display()));
    command
}

/// Runs one of Kafka's tools with `input` on its standard input.
///
/// # Errors
/// When Java is not installed.
pub fn kafka(class: &str, arguments: &[&str], input: &str) -> Result<Printed> {
    let mut command = java();
    let jars = crate::clients().join("java/libs/*");
    command.args(["-Xmx512M", "-cp"]).arg(jars).arg(class).args(arguments);
    run(command, input.as_bytes())
}

/// Runs kcat with `input` on its standard input.
///
/// # Errors
/// When kcat is not installed.
pub fn kcat(bootstrap: &str, arguments: &[&str], input: &[u8]) -> Result<Printed> {
    let mut command = Command::new("kcat");
    command.args(["-b", bootstrap]).args(arguments);
    run(command, input)
}

fn run(mut command: Command, input: &[u8]) -> Result<Printed> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("run {command:?}; e2e/install installs the clients"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let input = input.to_vec();
    // On a thread of its own, because a full pipe on each side would block both.
    let feeding = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().context("wait for it")?;
    // A program that fails early does not read all its input; its exit code explains that better.
    let _ = feeding.join();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Printed {
        out: text(&output.stdout),
        err: text(&output.stderr),
        ok: output.status.success(),
    })
}

/// Runs a script of bash in a folder, and returns what it prints.
///
/// # Panics
/// When it cannot be run, or fails.
pub fn bash(folder: &Path, script: &str) -> String {
    let output = Command::new("bash").args(["-ec", script]).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| panic!("{script}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}: {}", text(&output.stderr));
    text(&output.stdout)
}
