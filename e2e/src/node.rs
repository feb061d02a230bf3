//! Faults of a node of a kind cluster. The node is a container on this machine. So a power failure
//! is `docker kill`, a freeze is `docker pause`, and the network cable is the container's network
//! device.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::kubernetes::{eventually, kubectl};

/// A fault of a node, which heals when this is dropped.
#[derive(Debug)]
pub struct Fault {
    node: String,
    heal: Vec<String>,
}

/// Cuts the power: every process of the node ends at once, and its disk stays.
///
/// # Errors
/// When docker fails.
pub fn kill(node: &str) -> Result<Fault> {
    docker(&["kill", node])?;
    Ok(Fault::of(node, &["docker", "start", node]))
}

/// Freezes every process of the node.
///
/// # Errors
/// When docker fails.
pub fn pause(node: &str) -> Result<Fault> {
    docker(&["pause", node])?;
    Ok(Fault::of(node, &["docker", "unpause", node]))
}

/// Cuts the node off the network; its processes keep running.
///
/// # Errors
/// When its network device cannot be found.
pub fn cut(node: &str) -> Result<Fault> {
    // The host's end of the node's eth0, by its index.
    let index = docker(&["exec", node, "cat", "/sys/class/net/eth0/iflink"])?;
    let links = execute("ip", &["-o", "link"])?;
    let prefix = format!("{}: ", index.trim());
    let link = links
        .lines()
        .find_map(|line| line.strip_prefix(&prefix)?.split(['@', ':']).next())
        .with_context(|| format!("no network device {} for {node}", index.trim()))?;
    execute("ip", &["link", "set", link, "down"])?;
    Ok(Fault::of(node, &["ip", "link", "set", link, "up"]))
}

/// Kills the first process of a pod's container with SIGKILL; Kubernetes restarts the container.
///
/// # Errors
/// When the container does not run.
pub fn kill_container(node: &str, namespace: &str, pod: &str, container: &str) -> Result<()> {
    let filter = [
        format!("labels.\"io.kubernetes.pod.namespace\"=={namespace}"),
        format!("labels.\"io.kubernetes.pod.name\"=={pod}"),
        format!("labels.\"io.kubernetes.container.name\"=={container}"),
    ]
    .join(",");
    let ids = docker(&["exec", node, "ctr", "-n", "k8s.io", "containers", "ls", "-q", &filter])?;
    let tasks = docker(&["exec", node, "ctr", "-n", "k8s.io", "tasks", "ls"])?;
    let running = |id: &str| tasks.lines().any(|t| t.starts_with(id) && t.ends_with("RUNNING"));
    let id = ids.lines().find(|id| running(id)).context("the container does not run")?;
    docker(&["exec", node, "ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id])
        .map(drop)
}

impl Fault {
    fn of(node: &str, heal: &[&str]) -> Self {
        Self { node: node.to_owned(), heal: heal.iter().map(|&word| word.to_owned()).collect() }
    }

    /// Repairs the fault and waits until Kubernetes sees the node as Ready.
    pub fn heal(mut self) {
        if let Err(e) = self.undo() {
            panic!("{e:#}");
        }
        eventually(&format!("{} is Ready", self.node), || {
            let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
            Ok((kubectl(&["get", "node", &self.node, "-o", path])? == "True").then_some(()))
        });
    }

    fn undo(&mut self) -> Result<()> {
        let heal = std::mem::take(&mut self.heal);
        let Some((program, arguments)) = heal.split_first() else { return Ok(()) };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        execute(program, &arguments).map(drop)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        if let Err(e) = self.undo() {
            eprintln!("{e:#}");
        }
    }
}

fn docker(arguments: &[&str]) -> Result<String> {
    execute("docker", arguments)
}

fn execute(program: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
